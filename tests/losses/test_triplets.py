"""OKD's triplets by votes, and as published."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.distill.published.losses import PublishedTripletLoss, published_triplet_terms
from amtml_pl.losses.triplets import (
    TripletLoss,
    random_triplets,
    relative_dissimilarity_loss,
    triplet_terms,
    votes,
)
from amtml_pl.types import TeacherOutputs
from golden_steps import assert_golden
from losses.loops import embedded
from losses.terms import built, drawn_alike


def test_votes_terms_and_loss_of_triplets(golden):
    given, expected = golden("okd")
    student, triplets = given["student"].double(), given["triplets"]
    teachers = [torch.as_tensor(each).double() for each in given["teachers"]]
    ballots = votes(teachers, triplets)
    assert_golden(ballots.double(), expected["votes"].double())
    turned = torch.where((2 * ballots.sum(dim=1) > 3)[:, None], triplets, triplets[:, [0, 2, 1]])
    assert_golden(triplet_terms(student, turned, given["margin"]), expected["terms"])
    published = published_triplet_terms(student, teachers[-1], triplets, given["margin"])
    assert_golden(published, expected["reference_bug_terms"])
    loss = relative_dissimilarity_loss(student, teachers, triplets, given["margin"])
    assert_golden(loss, expected["loss"])


@given(seed=st.integers(0, 50), M=st.integers(1, 4))
@settings(max_examples=10)
def test_triplets_equal_a_loop_over_the_same_draws(seed, M):
    for kind in (TripletLoss, PublishedTripletLoss):
        term, step = built(kind("layer3"), B=8, M=M, seed=seed, dtype=torch.float64)
        torch.manual_seed(seed)
        triplets = random_triplets(8).tolist()
        student = unit_vectors(step.student.features["layer3"])
        teachers = [unit_vectors(step.teachers.hints[f"t{m}/layer3@1"]) for m in range(M)]
        terms = []
        for a, i, j in triplets:
            for_i = [math.dist(t[a], t[i]) <= math.dist(t[a], t[j]) for t in teachers]
            if kind is PublishedTripletLoss:
                near, far = (i, j) if for_i[-1] else (j, j)
            elif 2 * sum(for_i) == M:
                continue
            else:
                near, far = (i, j) if 2 * sum(for_i) > M else (j, i)
            apart = math.dist(student[a], student[near]) - math.dist(student[a], student[far])
            terms.append(max(0.0, apart + 0.2))
        torch.manual_seed(seed)
        assert term(step).item() == pytest.approx(sum(terms) / max(1, len(terms)))


def unit_vectors(maps):
    return [point / np.linalg.norm(point) for point in embedded(maps)]


@given(samples=st.integers(3, 40))
@settings(max_examples=20)
def test_the_samples_of_a_triplet_are_three_different_ones(samples):
    triplets = random_triplets(samples)
    assert triplets.shape == (samples, 3)
    assert ((triplets >= 0) & (triplets < samples)).all()
    assert all(len(set(row)) == 3 for row in triplets.tolist())


def test_as_many_votes_on_either_side_leave_a_triplet_out():
    student = torch.eye(3).requires_grad_()
    near, far = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.0], [5.0], [1.0]])
    triplet = torch.tensor([[0, 1, 2]])
    assert relative_dissimilarity_loss(student, [near, far], triplet, 0.2) == 0
    assert float(relative_dissimilarity_loss(student, [near], triplet, 0.2).detach()) == pytest.approx(0.2)


def test_permuting_the_teachers_leaves_the_votes_but_not_the_published_term():
    for kind, same in ((TripletLoss, True), (PublishedTripletLoss, False)):
        term, step = built(kind("layer3"), B=16)
        outputs = step.teachers
        turned = TeacherOutputs(outputs.names[::-1], outputs.logits.flip(1), outputs.hints)
        both = (step, replace(step, teachers=turned))
        values = [float(drawn_alike(term, each).detach()) for each in both]
        assert (values[0] == pytest.approx(values[1])) is same
