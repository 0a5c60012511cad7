"""A damaged file below outputs, cache, data or teachers is refused, made anew, or changes no result."""

import os
import shutil

import numpy as np
import pytest
from run_contents import different, plain

from amtml_pl.comparison.found_runs import find_runs
from amtml_pl.comparison.groups import problems_of
from amtml_pl.comparison.page import figures_of
from amtml_pl.errors import UserError
from amtml_pl.results.run import load_run
from tiny_runs import at_step, failing

# A maintainer types CORRUPTIONS=200 python -m pytest tests/faults -k damaged; another SEED draws others.
CORRUPTIONS, SEED = (int(os.environ.get(name, number)) for name, number in (("CORRUPTIONS", 6), ("SEED", 0)))
# Files that no command reads afterwards (docs/runs.md).
UNREAD = ("events.out.tfevents.", "doctor.json", ".lock", ".gitignore")


def looked_into(folder):
    """Return what `load_run` reads of a completed run."""
    run = load_run(folder)
    students = {which: plain(run.student(which).state_dict()) for which in ("best", "last")}
    found = {"students": students, "metrics": repr(run.metrics()), "config": repr(run.config)}
    found["test"] = plain([run.split("test").stored.images, run.split("test").stored.labels])
    if run.teachers:
        found["teachers"] = plain(vars(run.teacher_outputs("train", 1)))
    return found


def compared(folder):
    """Return what a report shows of a completed run."""
    runs = find_runs(folder, "test/acc")
    broken = []
    figures = [repr(figure) for problem in problems_of(runs.compared, "test/acc")
               for figure in figures_of(problem, "test/acc", broken, [])]  # fmt: skip
    if broken:
        raise UserError(f"{broken[0][0]} {broken[0][1]}")
    return {"runs": repr(runs.compared), "left out": repr(runs.left_out), "figures": figures}


def readers(file, place, train):
    """Return the commands that may read a file, by name."""
    top = file.relative_to(place).parts[0]
    found = {}
    folder = next((each for each in file.parents if (each / "run.json").exists()), None)
    if folder is not None and top != "cut":
        found["load_run"] = lambda: looked_into(folder)
        found["report"] = lambda: compared(folder)
    if top == "run":
        found["the same command"] = lambda: train(name="run")
    elif top == "cut":
        found["resume"] = lambda: train(name="cut")
    else:
        found["training"] = lambda: train(name="new")
        found["load_run of the student"] = lambda: looked_into(place / "run")
    return found


def damage(content, draw):
    """Return a file's content with one fault, and the name of the fault."""
    kind = draw.choice(["bit", "cut", "longer", "digit", "empty"])
    changed = bytearray(content)
    digits = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
    if kind == "bit":
        changed[draw.integers(len(changed))] ^= 1 << draw.integers(8)
    elif kind == "cut":
        del changed[draw.integers(len(changed)) :]
    elif kind == "longer":
        changed += draw.bytes(int(draw.integers(1, 40)))
    elif kind == "digit" and digits:
        at = draw.choice(digits)
        changed[at] = 48 + (changed[at] - 48 + draw.integers(1, 10)) % 10
    else:
        changed.clear()
    return bytes(changed), str(kind)


def outcome(read, expected):
    """Return the outcome of reading a damaged file."""
    try:
        found = read()
    except UserError:
        return "refused"
    except Exception as error:
        return f"SILENT {type(error).__name__}: {error!s:.200}"
    names = different(found, expected)
    return f"SILENT {names[:3]}" if names else "made anew or harmless"


@pytest.mark.slow
def test_a_damaged_file_is_refused_or_made_anew_or_harmless(train, place, monkeypatch):
    train()
    with monkeypatch.context() as patch:
        at_step(patch, 6, failing(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(name="cut")
    kept = place.with_name("undamaged")
    shutil.copytree(place, kept)
    expected = {}
    by_kind = {}
    for file in sorted(kept.rglob("*")):
        if file.is_file() and not any(name in file.name for name in UNREAD) and file.stat().st_size:
            parts = file.relative_to(kept).parts
            by_kind.setdefault((parts[0], file.name if parts[0] != "cache" else file.suffix), []).append(file)
    draw = np.random.default_rng(SEED)
    kinds = [*map(tuple, draw.permutation(sorted(by_kind)))]
    wrong = []
    for number in range(CORRUPTIONS):
        files = by_kind[kinds[number % len(kinds)]]
        origin = files[draw.integers(len(files))]
        changed, kind = damage(origin.read_bytes(), draw)
        file = place / origin.relative_to(kept)
        seen = set()
        for name in readers(file, place, train):
            shutil.rmtree(place)
            shutil.copytree(kept, place)
            read = readers(file, place, train)[name]
            key = (name, file.parent if name in ("load_run", "report") else None)
            if key not in expected:
                expected[key] = read()
                shutil.rmtree(place)
                shutil.copytree(kept, place)
            file.write_bytes(changed)
            seen.add(outcome(read, expected[key]))
        wrong += [f"{kind} in {file.relative_to(place)}: {how}" for how in seen if how.startswith("SILENT")]
    assert wrong == []
