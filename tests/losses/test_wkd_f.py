"""Wasserstein distance of channel moments."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.errors import UserError
from amtml_pl.losses.wkd_f import WassersteinFeatureLoss, wasserstein_losses
from amtml_pl.types import OfferedFeatures, TensorShapes
from golden_steps import assert_golden
from losses.loops import convolved_by_loops, normalised_by_loops, regression_of
from losses.terms import STAGES, built


@pytest.mark.parametrize("parts", [1, 2])
def test_wasserstein_features(golden, parts):
    given, expected = golden("wkd_f")
    kind = partial(WassersteinFeatureLoss, epochs=8, ratio=given["ratio"], parts=parts)
    term, step = regression_of(kind, given["feat_s"], [given["feat_t"]], [given["A"]])
    [made], [target] = term.regressed(step), term.targets(step)
    means, deviations = wasserstein_losses(made, target, parts)
    assert_golden(means.mean(), expected[f"means_{parts}"])
    assert_golden(deviations.mean(), expected[f"deviations_{parts}"])
    assert_golden(term(step), expected[f"loss_{parts}"])


def maps_of(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


@given(seed=st.integers(0, 99), parts=st.integers(1, 3), H=st.integers(4, 7), W=st.integers(4, 7))
@settings(max_examples=20)
def test_the_distances_equal_a_loop_over_samples_channels_and_rectangles(seed, parts, H, W):
    maps = maps_of((3, H, W), (3, 5, 4), seed=seed)
    naive = [torch.zeros(2, dtype=torch.float64) for _ in range(2)]
    for b in range(2):
        for c, i, j in ((c, i, j) for c in range(3) for i in range(parts) for j in range(parts)):
            found = []
            for each in maps:
                values = [each[b, c, y, x] for y in covered(each.shape[2], parts, i)
                          for x in covered(each.shape[3], parts, j)]  # fmt: skip
                mean = sum(values) / len(values)
                variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
                found.append((mean, math.sqrt(variance + 1e-5)))
            for total, own, theirs in zip(naive, *found, strict=True):
                total[b] += (own - theirs) ** 2 / parts**2
    torch.testing.assert_close(list(wasserstein_losses(*maps, parts)), naive)


def covered(size, parts, i):
    """Return the positions of which any part is in the i-th of equal parts."""
    return [n for n in range(size) if n * parts < (i + 1) * size and (n + 1) * parts > i * size]


@pytest.mark.parametrize("parts", [1, 2])
def test_the_gradients_of_both_distances(parts):
    own, theirs = maps_of((2, 4, 3), (2, 4, 4))
    assert torch.autograd.gradcheck(lambda x: wasserstein_losses(x, theirs, parts), own.requires_grad_())


@given(seed=st.integers(0, 99))
@settings(max_examples=10)
def test_the_order_of_the_positions_does_not_count(seed):
    own, theirs = maps_of((3, 4, 4), (3, 4, 4), seed=seed)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
    shuffled = own.flatten(2)[:, :, order].view_as(own)
    torch.testing.assert_close(wasserstein_losses(shuffled, theirs), wasserstein_losses(own, theirs))
    assert max(float(part.max()) for part in wasserstein_losses(shuffled, own)) < 1e-20


@pytest.mark.parametrize("M", [1, 3])
def test_the_student_keeps_its_size_in_front_of_the_moments(M):
    term, step = built(WassersteinFeatureLoss(["layer2"], epochs=8), 4, M, dtype=torch.float64)
    feature, naive = step.student.features["layer2"], 0.0
    for m, regressor in enumerate(term.regressors):
        made = normalised_by_loops(convolved_by_loops(feature, regressor.project), regressor.norm)
        means, deviations = wasserstein_losses(made, step.teachers.hints[term.names[m]])
        naive = naive + (step.weights[:, m] * (4.0 * means + deviations)).mean()
    torch.testing.assert_close(term(step), naive)


def test_the_term_decreases_by_a_cosine_after_150_of_240_epochs():
    term, step = built(WassersteinFeatureLoss(list(STAGES), epochs=240), dtype=torch.float64)
    full = term(step)
    for epoch, factor in ((150, 1.0), (195, 0.5), (210, 0.25)):
        torch.testing.assert_close(term(replace(step, epoch=epoch)), factor * full)
    always, step = built(WassersteinFeatureLoss(list(STAGES), epochs=3, decay=1.0))
    torch.testing.assert_close(always(replace(step, epoch=2)), always(step))


def test_a_student_of_one_position_learns_the_means_alone():
    own, theirs = maps_of((3, 1, 1), (3, 4, 4))
    means, deviations = wasserstein_losses(own, theirs)
    torch.testing.assert_close(means, (own[:, :, 0, 0] - theirs.mean(dim=(2, 3))).square().sum(dim=1))
    assert not deviations.any()


@pytest.mark.parametrize(("parts", "side"), [(1, 1), (4, 4)])
def test_a_teachers_map_without_deviations_is_refused(parts, side):
    offered = {"a": OfferedFeatures("last")}
    shapes = TensorShapes(4, ("a",), {"layer3": (3, 8, 8)}, {"a/last": (5, side, side)}, offered)
    term = WassersteinFeatureLoss(["layer3"], epochs=8, parts=parts)
    with pytest.raises(
        UserError, match=rf"deviations of the hint 'a/last' .*{side}x{side}(.|\n)*hint_pool=null"
    ):
        term.build(shapes)
