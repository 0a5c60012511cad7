"""Relational distillation, and its distances."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.losses.distance import distance_loss
from amtml_pl.losses.rkd import RelationLoss
from losses.loops import embedded
from losses.terms import built


@given(seed=st.integers(0, 50), M=st.integers(1, 3), two_alike=st.booleans())
@settings(max_examples=8)
def test_relations_equal_loops_over_pairs_and_triples(seed, M, two_alike):
    term, step = built(RelationLoss("layer3"), B=4, M=M, seed=seed, dtype=torch.float64)
    if two_alike:
        step.student.features["layer3"].data[1] = step.student.features["layer3"].data[0]
    student = embedded(step.student.features["layer3"])
    naive = 0.0
    for m in range(M):
        teacher = embedded(step.teachers.hints[f"t{m}/layer3@1"])
        near = [smooth_l1(a - b) for a, b in zip(distances(student), distances(teacher), strict=True)]
        turned = [smooth_l1(a - b) for a, b in zip(cosines(student), cosines(teacher), strict=True)]
        weight = sum(step.weights[:, m].tolist()) / 4
        naive += weight * (25 * sum(near) / 4**2 + 50 * sum(turned) / 4**3)
    assert term(step).item() == pytest.approx(naive)


def distances(points):
    between = [math.dist(a, b) for a in points for b in points]
    positive = [distance for distance in between if distance > 0]
    return [distance * len(positive) / sum(positive) for distance in between]


def cosines(points):
    found = []
    for vertex, one, other in product(points, repeat=3):
        lengths = math.dist(vertex, one) * math.dist(vertex, other)
        found.append((one - vertex) @ (other - vertex) / lengths if lengths else 0.0)
    return found


def smooth_l1(x):
    return x**2 / 2 if abs(x) < 1 else abs(x) - 0.5


def test_distances_do_not_see_scale_and_their_gradient_is_right_and_finite_where_samples_coincide():
    generator = torch.Generator().manual_seed(3)
    points, other = (torch.randn(5, n, generator=generator, dtype=torch.float64) for n in (3, 4))
    torch.testing.assert_close(distance_loss(points, other), distance_loss(7 * points, 0.1 * other))
    assert torch.autograd.gradcheck(lambda p: distance_loss(p, other), points.requires_grad_())
    same = torch.zeros(5, 3, dtype=torch.float64, requires_grad=True)
    distance_loss(same, other).backward()
    assert torch.isfinite(same.grad).all()
