"""Estimates from a few seeds, against scipy.stats."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from amtml_pl.comparison.estimates import Estimate, PairedDifference, holm

ACCURACY = st.floats(0.1, 0.9).map(lambda value: round(value, 4))
ACCURACIES = st.lists(ACCURACY, min_size=2, max_size=8)


@given(ACCURACIES)
def test_the_interval_is_student_s(values):
    estimate = Estimate.of(values)
    if len(set(values)) > 1:
        low, high = stats.t.interval(0.95, len(values) - 1, estimate.mean, stats.sem(values))
        assert estimate.mean - estimate.half_width == pytest.approx(low, abs=1e-9)
        assert estimate.mean + estimate.half_width == pytest.approx(high, abs=1e-9)
    else:
        assert estimate.half_width == 0


@given(st.lists(st.tuples(ACCURACY, ACCURACY), min_size=2, max_size=8))
def test_the_p_value_is_that_of_the_paired_test(pairs):
    assume(len({round(own - other, 4) for own, other in pairs}) > 1)
    values, others = zip(*pairs, strict=True)
    found = PairedDifference.between(dict(enumerate(values)), dict(enumerate(others)))
    assert found.p == pytest.approx(stats.ttest_rel(values, others).pvalue, abs=1e-9)
    assert found.mean == pytest.approx(sum(values) / len(values) - sum(others) / len(others))
    assert found.error == pytest.approx(stats.sem(np.subtract(values, others)), abs=1e-9)


def test_one_number_has_neither_deviation_nor_interval():
    assert str(Estimate.of([0.5])) == "0.5000"
    assert Estimate.of([0.5]).interval() == ""


def test_only_seeds_that_both_have_are_paired():
    found = PairedDifference.between({0: 0.9, 1: 0.8, 2: 0.7}, {1: 0.7, 2: 0.5, 3: 0.1})
    assert found.n == 2
    assert found.mean == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("own", "baseline", "reason"),
    [({0: 0.9}, {1: 0.8}, "(no seed)"), ({0: 0.9, 1: 0.8}, {0: 0.8}, "(1 seed)"),
     ({0: 0.9, 1: 0.8}, {0: 0.8, 1: 0.7}, "(no spread)")],
)  # fmt: skip
def test_a_missing_p_has_a_reason(own, baseline, reason):
    assert PairedDifference.between(own, baseline).probability() == reason


def test_equal_differences_have_no_spread_though_float32_rounds_them():
    def measured(right):
        return {seed: float(np.float32(k) / np.float32(360)) for seed, k in enumerate(right)}

    own, baseline = measured((331, 340, 335)), measured((328, 337, 332))
    assert len({own[seed] - baseline[seed] for seed in own}) > 1
    assert PairedDifference.between(own, baseline).probability() == "(no spread)"


def test_one_image_in_a_million_is_a_spread():
    own, baseline = {0: 0.900001, 1: 0.900004}, {0: 0.9, 1: 0.9}
    found = PairedDifference.between(own, baseline)
    assert found.p == pytest.approx(stats.ttest_rel([*own.values()], [*baseline.values()]).pvalue)


def rejected_by_holm(values, level):
    """Return which hypotheses Holm's procedure rejects at a level, step by step as published."""
    rejected, left = set(), dict(enumerate(values))
    while left:
        smallest = min(left, key=left.get)
        if left[smallest] * len(left) > level:
            break
        rejected.add(smallest)
        del left[smallest]
    return rejected


@given(st.lists(st.integers(0, 64).map(lambda part: part / 64), max_size=7), st.integers(1, 63))
def test_a_corrected_p_is_the_level_at_which_holm_s_procedure_first_rejects(values, part):
    level = part / 64  # as all values: products are exact
    found = holm(values)
    assert {place for place, value in enumerate(found) if value <= level} == rejected_by_holm(values, level)
    assert all(own <= corrected <= 1 for own, corrected in zip(values, found, strict=True))


def test_corrected_p_values_keep_their_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
