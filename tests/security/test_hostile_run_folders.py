"""Damaged or forged ``run.json`` and packed data are used unchanged, or rejected."""

import functools
import hashlib
import json

import numpy as np
import pytest
from canary import flipped, outcome
from hypothesis import example, given
from hypothesis import strategies as st
from nested import FUZZ, nested, places, with_value, without

from amtml_pl.comparison.found_runs import find_runs
from amtml_pl.comparison.groups import problems_of
from amtml_pl.comparison.latex import latex
from amtml_pl.comparison.markdown import markdown
from amtml_pl.comparison.page import page
from amtml_pl.comparison.spreadsheets import csv_of_groups, csv_of_runs
from amtml_pl.data.datasets.digits import Digits
from amtml_pl.data.packing import MANIFEST, PackedDataset, pack
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import FILES, TeacherFacts
from amtml_pl.system.records import sealed
from amtml_pl.teachers.live import measured_accuracy
from amtml_pl.training.pipeline import refuse_other_pixels, refuse_other_teachers
from amtml_pl.training.summary import show_summary
from records import TEACHER, a_record

EMPTY = hashlib.sha256(b"").hexdigest()
RECORD = a_record(
    teachers={"resnet8": TEACHER},
    metrics={**a_record()["metrics"], "teacher/resnet8/val/acc": 0.9, "teacher/resnet8/test/acc": 0.9},
    files=dict.fromkeys(FILES, EMPTY),
)
JSON = nested("completed", "../../x", "\0", "'", "9" * 400, "[red]", "$(touch canary)")


def write(folder, record):
    """Write a record with a valid seal."""
    for file in (folder.config_file, folder.metrics_file):
        file.touch()
    folder.record_file.write_text(json.dumps(sealed(record) if isinstance(record, dict) else record))


def use(folder):
    """Do all that commands do with the record of a run."""
    if (record := folder.record()) is None:
        return None
    refuse_other_pixels(record, "d" * 64, folder)
    refuse_other_teachers(record, {"resnet8": TeacherFacts(**TEACHER)}, folder)
    if (done := folder.completed()) is not None:
        show_summary(done, folder.path)
    return record


def report(folder):
    problems = problems_of(find_runs(folder.path, "test/acc").compared, "test/acc")
    page(problems, [], folder.path, "test/acc", [])
    latex(problems, "test/acc")
    csv_of_runs(problems)
    csv_of_groups(problems, "test/acc")
    return markdown(problems, "test/acc")


def test_a_whole_record_is_used_and_reported(hostile):
    folder = RunFolder(hostile)
    write(folder, RECORD)
    assert use(folder).metrics == RECORD["metrics"]
    assert "| digits | 1 |" in report(folder)


@FUZZ
@given(path=st.sampled_from([*places(RECORD)]), value=JSON)
@example(path=("command",), value="an 'unclosed quotation")
@example(path=("metrics", "val/acc"), value="0.9")
@example(path=("seed",), value="[bold]")
def test_a_record_with_any_value_in_a_field_is_used_or_rejected(hostile, path, value):
    folder = RunFolder(hostile)
    write(folder, with_value(RECORD, path, value))
    outcome(use, folder)
    outcome(report, folder)


@pytest.mark.parametrize("text", ["[" * 200_000, "9" * 5000, "\0"], ids=["lists", "digits", "nul"])
def test_a_record_that_breaks_readers_of_json_is_rejected(hostile, text):
    RunFolder(hostile).record_file.write_text(text)
    with pytest.raises(UserError, match=r"run\.json"):
        RunFolder(hostile).record()


def test_a_record_of_gigabytes_is_not_read(hostile):
    with (hostile / "run.json").open("wb") as file:
        file.truncate(1 << 40)  # a hole, which takes no disk
    with pytest.raises(UserError, match=r"too large \(got 1,099,511,627,776 bytes, expected at most"):
        RunFolder(hostile).record()


@FUZZ
@given(value=JSON)
@example(value={"accuracy": float("nan")})
@example(value={"accuracy": 7})
def test_a_measured_accuracy_outside_0_to_1_is_measured_again(hostile, value):
    def teacher():
        raise UserError("measured again")

    digest = hashlib.sha256(b'{"teacher": "t"}').hexdigest()[:16]
    (hostile / f"accuracy-{digest}.json").write_text(json.dumps(value))
    found = outcome(measured_accuracy, teacher, [], hostile, {"teacher": "t"})
    assert isinstance(found, UserError) or 0 <= found <= 1


SOURCE = Digits(image_size=8)
IMAGES = {name: SOURCE.read(name).images for name in SOURCE.splits}


def opened(folder):
    found = PackedDataset.open(folder)
    found.verify()
    return found


def is_as_packed(found):
    return all(found.splits[name].images.equal(images) for name, images in IMAGES.items())


@pytest.mark.parametrize("kind", ["pickle", "archive"])
def test_a_pickle_or_an_archive_among_packed_arrays_is_not_opened(hostile, payload, kind):
    file = pack(SOURCE, hostile).folder / "train.images.npy"
    with file.open("wb") as written:
        if kind == "archive":
            np.savez(written, a=np.zeros(3))
        else:
            np.save(written, np.array([payload], dtype=object), allow_pickle=True)
    manifest = json.loads((file.parent / MANIFEST).read_text())
    manifest["files"][file.name] = file.stat().st_size
    (file.parent / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"train\.images\.npy cannot be mapped"):
        opened(file.parent)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return pack(SOURCE, tmp_path_factory.mktemp("packed")).folder


def opened_with(file, content):
    """Return the packed data with other bytes in one file, or a UserError."""
    whole = file.read_bytes()
    file.write_bytes(content)
    try:
        return outcome(opened, file.parent)
    finally:
        file.write_bytes(whole)


@FUZZ
@given(name=st.sampled_from(["train.images.npy", "test.labels.npy", MANIFEST]),
       bits=st.lists(st.integers(0, 2**30), min_size=1, max_size=3))  # fmt: skip
def test_flipped_bits_in_packed_data_are_detected(packed, name, bits):
    found = opened_with(packed / name, functools.reduce(flipped, bits, (packed / name).read_bytes()))
    assert isinstance(found, UserError) or is_as_packed(found)


@FUZZ
@given(data=st.data(), value=JSON)
def test_a_manifest_with_any_value_in_a_field_is_used_or_rejected(packed, data, value):
    tree = json.loads((packed / MANIFEST).read_text())
    path = data.draw(st.sampled_from([*places(tree)]))
    gone = bool(path) and data.draw(st.booleans())
    changed = without(tree, path) if gone else with_value(tree, path, value)
    found = opened_with(packed / MANIFEST, json.dumps(changed).encode())
    assert isinstance(found, UserError) or is_as_packed(found) or path == ("splits",)
