"""Folders, patterns and sweeps that a report is made of."""

import pytest

from amtml_pl.comparison.named_folders import named_folders
from amtml_pl.errors import UserError
from amtml_pl.runs.sweep_folder import SweepFolder, SweepJob


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Return a folder of two experiments, below the current one."""
    for name in ("digits/ce_seed-0", "digits/ce_seed-1", "digits/other", "large/ce_seed-0"):
        (tmp_path / "outputs" / "runs" / name).mkdir(parents=True)
    (tmp_path / "outputs" / "runs" / "digits" / "of_seed.txt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs" / "runs"


def sweep_of(outputs, *places):
    """Write the folder of a sweep whose jobs ran in some places."""
    sweep = SweepFolder(outputs / "sweeps" / "seeds-12345678", "a command", "")
    sweep.publish()
    for number, place in enumerate(places):
        sweep.write(SweepJob(number, (f"seed={number}",), str(place), "a command", "completed"))
    return sweep.path


@pytest.mark.parametrize(
    ("words", "names", "below"),
    [
        (["{0}/digits/*seed*"], ["digits/ce_seed-0", "digits/ce_seed-1"], "digits"),
        (["outputs/runs/*/*-0"], ["digits/ce_seed-0", "large/ce_seed-0"], "."),
        (["{0}/**/other"], ["digits/other"], "digits/other"),
        (["{0}/digits", "outputs/runs/large"], ["digits", "large"], "."),
        (["{0}/digits", "{0}/digits/../digits/other", "{0}/digits"], ["digits", "digits/other"], "digits"),
    ],
)
def test_folders_of_patterns_and_lists_and_their_deepest_parent(runs, words, names, below):
    places, parent, out = named_folders([word.format(runs) for word in words])
    assert places == [runs / name for name in names]
    assert parent == runs / below
    assert out == runs / below / "report"


def test_a_sweep_stands_for_its_runs_also_where_the_outputs_were_moved(runs):
    sweep = sweep_of(runs.parent, runs / "digits" / "ce_seed-0", "/elsewhere/outputs/runs/large/ce_seed-0")
    own = [runs / "digits" / "ce_seed-0", runs / "large" / "ce_seed-0"]
    places, parent, out = named_folders([str(sweep)])
    assert (sorted(places), parent, out) == (own, runs, sweep / "report")
    places, parent, out = named_folders([str(sweep), str(runs / "digits" / "other")])
    assert (sorted(places), parent, out) == (sorted([*own, runs / "digits" / "other"]), runs, runs / "report")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["outputs", "outputs/nothing*"],
            r"outputs/nothing\* is not a folder \(got runs='outputs/nothing",
        ),
        (["~no_such_user/runs"], r"~no_such_user/runs is not a folder"),
        (["outputs/runs/digits/*.txt"], r"digits/\*\.txt is not a folder"),
        (["outputs/sweeps/*"], r"outputs/sweeps/\* has no job \(got runs='outputs/sweeps/\*'\)"),
    ],
)
def test_a_word_that_names_no_folder_is_an_error(runs, words, message):
    sweep_of(runs.parent)
    with pytest.raises(UserError, match=message):
        named_folders(words)
