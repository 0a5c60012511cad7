"""The presets of the AMTML notebooks have the notebooks' total loss, for any number of classes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from amtml_pl.config.build import build_object
from amtml_pl.losses.triplets import random_triplets
from golden_steps import weighted
from losses.loops import embedded
from losses.terms import built

pytestmark = pytest.mark.numbers


def of_the_notebooks(step, weights, T=5.0):
    """Return ``KLDivLoss()(log p, q) 2 · 0.7 T² + 0.3 CE``, element by element; T and 0.7 are theirs."""
    z, elements = step.student.logits, []
    for own, teachers, w in zip(z, step.teachers.logits, weights, strict=True):
        p = (own / T).softmax(dim=0)
        q = sum(w[m] * (teacher / T).softmax(dim=0) for m, teacher in enumerate(teachers))
        elements += [q[k] * (q[k] / p[k]).log() for k in range(len(own))]
    return 0.7 * 2 * T**2 * sum(elements) / len(elements) + 0.3 * F.cross_entropy(z, step.labels)


def total(config, names, K):
    """Return the sum of some of a configuration's terms, with coefficients, and the last one's step."""
    made = [built(build_object(config.loss[name]), B=5, K=K, dtype=torch.float64) for name in names]
    step = weighted(made[-1][1], build_object(config.weighting)) if "triplets" in names else made[-1][1]
    values = zip(names, (term for term, _ in made), strict=True)
    torch.manual_seed(3)
    return sum(config.coef[name] * term(step) for name, term in values), step


def equal(found, expected, step):
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, step.student.logits)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("problem", "K"), [("digits", 10), ("cifar100", 100)])
def test_their_coefficients_in_the_corrected_method(configure, problem, K):
    config = configure(f"experiment={problem}", "method=amtml_notebook_strength")
    found, step = total(config, ("ce", "kd"), K)
    equal(found, of_the_notebooks(step, step.weights.detach()), step)


@pytest.mark.parametrize(("problem", "K"), [("digits", 10), ("cifar100", 100)])
def test_their_average_with_triplets_in_the_order_of_the_last_teacher(configure, problem, K):
    config = configure(f"experiment={problem}", "method=okd_published")
    assert list(config.loss) == ["ce", "kd", "triplets"]
    found, step = total(config, ("ce", "kd", "triplets"), K)
    torch.manual_seed(3)
    triplets, last = random_triplets(5).tolist(), f"{step.teachers.names[-1]}/layer3@1"
    student, teacher = unit_vectors(step.student.features["layer3"]), unit_vectors(step.teachers.hints[last])
    apart = 0.0
    for a, i, j in triplets:
        near = j if math.dist(teacher[a], teacher[i]) > math.dist(teacher[a], teacher[j]) else i
        apart += max(0.0, math.dist(student[a], student[near]) - math.dist(student[a], student[j]) + 0.2)
    equal(found, of_the_notebooks(step, torch.full((5, 3), 1 / 3)) + apart / len(triplets), step)


def unit_vectors(maps):
    return [(point / np.linalg.norm(point)).tolist() for point in embedded(maps)]
