"""Runs that balance classes, composed from the command's overrides."""

import pytest

from amtml_pl.errors import UserError
from amtml_pl.runs.identity import run_hash
from tiny_runs import CE, TINY, assert_bitwise_equal, at_step, failing, weights

pytestmark = pytest.mark.slow

JOBS = {
    "sampling": ("experiment=digits", "method=avg", *TINY, "data.balanced=true", "data.views=1"),
    "loss": ("experiment=digits", "method=ce", *CE, "loss.ce.class_weights=balanced"),
}


@pytest.mark.parametrize("way", JOBS)
def test_a_balanced_run_records_it_and_resumes_to_the_bit(run, monkeypatch, way):
    record, whole = run(*JOBS[way], "doctor=false", name="whole")
    expected = {"sampling": (True, "None"), "loss": (False, "balanced")}[way]
    assert (record.budget["balanced"], record.budget["class_weights"]) == expected
    with monkeypatch.context() as patched:
        at_step(patched, 5, failing(RuntimeError("killed")))
        with pytest.raises(RuntimeError, match="killed"):
            run(*JOBS[way], "doctor=false", "checkpoint_minutes=0", name="cut")
    _, cut = run(*JOBS[way], "doctor=false", "checkpoint_minutes=0", name="cut")
    assert_bitwise_equal(weights(whole), weights(cut))


def test_balance_changes_the_hash_and_its_absence_does_not(configure):
    plain = ("experiment=digits", "method=ce", *CE)
    assert run_hash(configure(*plain)) == run_hash(configure(*plain, "data.balanced=false"))
    for override in ("data.balanced=true", "loss.ce.class_weights=balanced"):
        assert run_hash(configure(*plain)) != run_hash(configure(*plain, override))


def test_both_corrections_together_are_refused(run):
    with pytest.raises(UserError, match=r"class_weights=balanced: data.balanced=true already draws"):
        run(*JOBS["loss"], "data.balanced=true")
