"""The losses that AMTML-KD is compared with: naive loops, invariants, degenerate batches, gradients."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from test_regression import regressed_by_loops
from torch import nn

from amtml_pl.distill.published.losses import PublishedConfidenceFeatureRegression as PublishedConfidence
from amtml_pl.distill.published.losses import PublishedFeatureRegression, PublishedTripletLoss
from amtml_pl.errors import UserError
from amtml_pl.losses.attention import AttentionLoss
from amtml_pl.losses.dkd import DecoupledLoss
from amtml_pl.losses.kd_each import PerTeacherSoftTargetLoss
from amtml_pl.losses.regression import FeatureRegression
from amtml_pl.losses.regression_aekd import AekdFeatureRegression
from amtml_pl.losses.regression_confidence import ConfidenceFeatureRegression
from amtml_pl.losses.rkd import RelationLoss
from amtml_pl.losses.triplets import TripletLoss, random_triplets, relative_dissimilarity_loss
from amtml_pl.types import OfferedFeatures, TeacherOutputs, TensorShapes
from steps import make_step

pytestmark = pytest.mark.numbers

STAGES = {"layer1": (4, 8, 8), "layer2": (6, 4, 4), "layer3": (8, 2, 2)}


def weighed_by_the_step():
    names = list(STAGES)
    return [
        PerTeacherSoftTargetLoss(4.0), DecoupledLoss(4.0, epochs=12), AttentionLoss(names),
        RelationLoss("layer3"), FeatureRegression(names), FeatureRegression(names, stage=2),
    ]  # fmt: skip


def weighed_otherwise():
    names = list(STAGES)
    return [TripletLoss("layer3"), AekdFeatureRegression(names), ConfidenceFeatureRegression(names)]


def built(term, B=6, M=3, K=5, **more):
    """Return a built term and a step with M teachers whose maps differ in size."""
    offered = {f"t{m}": OfferedFeatures("layer3", tuple(STAGES)) for m in range(M)}
    maps = {}
    for name in term.hints(offered):
        tap, _, how = name.partition("/")[2].partition("@")
        C, H, W = STAGES[tap]
        maps[name] = {"": (C + 3, H, W), "1": (C + 3, 1, 1), "attention": (1, H, W)}[how]
    taps = {tap: STAGES[tap] for tap in term.student_taps()}
    torch.manual_seed(0)
    term.build(TensorShapes(K, tuple(offered), taps, maps, offered))
    step = make_step(B, M, K, taps=taps, hints=maps, **more)
    dtype = step.student.logits.dtype
    term.set_teacher_heads({name: Classify(C, K).to(dtype) for name, (C, _, _) in maps.items()})
    return term.to(dtype), step


class Classify(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.fc = nn.Linear(channels, classes).requires_grad_(False)

    def forward(self, feature):
        return self.fc(feature.mean(dim=(2, 3)))


def every_term():
    return [*weighed_by_the_step(), *weighed_otherwise()]


def every_term_and_release():
    names = list(STAGES)
    published = [PublishedFeatureRegression(names), PublishedConfidence(names)]
    return [*every_term(), PublishedTripletLoss("layer3"), *published]


@pytest.mark.parametrize("position", range(len(every_term())))
def test_a_term_trains_the_student_and_all_that_it_learns_and_no_weights(position):
    term, step = built(every_term()[position])
    apart = replace(step, feature_weights=step.weights.detach().flip(1).requires_grad_())
    (term(step) + term(apart)).backward()
    assert step.weights.grad is None
    assert apart.feature_weights.grad is None
    read = [step.student.features[tap] for tap in term.student_taps()] or [step.student.logits]
    # A bias in front of batch norm changes nothing and has a gradient of rounding only.
    learned = [p for name, p in term.named_parameters() if not name.endswith("project.bias")]
    assert all(tensor.grad.abs().sum() > 0 for tensor in [*read, *learned])


@pytest.mark.parametrize("kind", [RelationLoss, TripletLoss, PublishedTripletLoss])
def test_no_gradient_reaches_a_teacher_whose_samples_are_compared(kind):
    """The other terms rely on `Step`: teachers' outputs come without gradients."""
    term, step = built(kind("layer3"))
    teachers = step.teachers.map(lambda tensor: tensor.clone().requires_grad_())
    term(replace(step, teachers=teachers)).backward()
    assert all(tensor.grad is None for tensor in (teachers.logits, *teachers.hints.values()))


@pytest.mark.parametrize("position", range(len(every_term_and_release())))
@pytest.mark.parametrize(("B", "M"), [(1, 3), (2, 1), (3, 8)])
def test_short_batches_and_one_or_eight_teachers_give_a_number_and_finite_gradients(position, B, M):
    term, step = built(every_term_and_release()[position], B, M)
    assert_finite_with_gradients(term, step, term(step))


@pytest.mark.parametrize("position", range(len(every_term_and_release())))
def test_outputs_rounded_to_half_precision_give_almost_the_same_number(position):
    term, step = built(every_term_and_release()[position])
    student = step.student.map(lambda tensor: tensor.detach().bfloat16().float().requires_grad_())
    teachers = step.teachers.map(lambda tensor: tensor.bfloat16().float())
    rounded = replace(step, student=student, teachers=teachers)
    values = [drawn_alike(term, each) for each in (step, rounded)]
    torch.testing.assert_close(*values, rtol=0.05, atol=0)
    assert_finite_with_gradients(term, rounded, values[1])


def assert_finite_with_gradients(term, step, value):
    assert torch.isfinite(value)
    if isinstance(term, PublishedFeatureRegression):  # it trains nothing
        return
    value.backward()
    read = [step.student.features[tap] for tap in term.student_taps()] or [step.student.logits]
    assert all(torch.isfinite(tensor.grad).all() for tensor in [*read, *term.parameters()])


@pytest.mark.parametrize("position", range(len(weighed_by_the_step())))
def test_one_hot_weights_leave_the_single_teachers_loss(position):
    term, step = built(weighed_by_the_step()[position])
    chosen = all_weight_on_the_second(step)
    torch.testing.assert_close(term(chosen), term(others_replaced(chosen)))


@pytest.mark.parametrize("position", range(len(weighed_otherwise())))
def test_a_term_with_own_votes_or_weights_ignores_the_steps_weights(position):
    term, step = built(weighed_otherwise()[position])
    chosen = all_weight_on_the_second(step)
    torch.testing.assert_close(drawn_alike(term, chosen), drawn_alike(term, step), rtol=0, atol=0)
    assert (drawn_alike(term, others_replaced(chosen)) - drawn_alike(term, chosen)).abs() > 1e-4


def all_weight_on_the_second(step):
    return replace(step, weights=F.one_hot(torch.ones(6, dtype=torch.long), 3).float())


def others_replaced(step):
    """Return the step with other outputs of the first and the third teacher."""
    other = step.teachers.map(torch.clone)
    other.logits[:, [0, 2]] = 7.0
    for name, hint in other.hints.items():
        if not name.startswith("t1/"):
            hint.fill_(0.5)
    return replace(step, teachers=other)


def drawn_alike(term, step):
    """Return the term's value for the same random triplets, where it draws any."""
    torch.manual_seed(3)
    return term(step)


@given(seed=st.integers(0, 50), M=st.integers(1, 4), K=st.integers(2, 7))
@settings(max_examples=12)
def test_losses_of_logits_equal_naive_loops(seed, M, K):
    step = make_step(B=4, M=M, K=K, seed=seed, dtype=torch.float64)
    z, w, T = step.student.logits, step.weights, 3.0
    kd = dkd = 0.0
    for b in range(4):
        for m in range(M):
            p, q = (step.teachers.logits[b, m] / T).softmax(0), (z[b] / T).softmax(0)
            kd = kd + w[b, m] * T**2 * (p * (p / q).log()).sum() / 4
            y = step.labels[b]
            rest = [c for c in range(K) if c != y]
            two_p, two_q = (torch.stack([v[y], v[rest].sum()]) for v in (p, q))
            target = (two_p * (two_p / two_q).log()).sum()
            pr, qr = p[rest] / p[rest].sum(), q[rest] / q[rest].sum()
            dkd = dkd + w[b, m] * T**2 * (target + 8 * (pr * (pr / qr).log()).sum()) / 4
    torch.testing.assert_close(PerTeacherSoftTargetLoss(T)(step), kd)
    torch.testing.assert_close(DecoupledLoss(T, epochs=0)(step), dkd)


def test_attention_equals_a_loop_over_stages_samples_and_positions():
    sides = {"t0/stem": 8, "t0/a": 4, "t0/b": 4, "t0/c": 4, "t1/b": 4, "t1/c": 2}
    offered = {
        "t0": OfferedFeatures(stages=("stem", "a", "b", "c")),
        "t1": OfferedFeatures(stages=("b", "c")),
    }
    maps = {f"{name}@attention": (1, side, side) for name, side in sides.items()}
    term = AttentionLoss(list(STAGES))
    term.build(TensorShapes(5, ("t0", "t1"), STAGES, maps, offered))
    step = make_step(3, 2, taps=STAGES, hints=maps, dtype=torch.float64)
    naive = 0.0
    for m, stage, name in [(0, "layer3", "t0/c"), (0, "layer2", "t0/b"), (0, "layer1", "t0/a"),
                           (1, "layer3", "t1/c"), (1, "layer2", "t1/b")]:  # fmt: skip
        for b in range(3):
            own, theirs = step.student.features[stage][b], step.teachers.hints[f"{name}@attention"][b, 0]
            side = min(own.shape[1], len(theirs))
            activity = sum(shrunk(channel, side) ** 2 for channel in own)
            own, theirs = (each / each.norm() for each in (activity, shrunk(theirs, side)))
            squares = [(own[y, x] - theirs[y, x]) ** 2 for y in range(side) for x in range(side)]
            naive = naive + step.weights[b, m] * sum(squares) / side**2 / 3
    torch.testing.assert_close(term(step), naive)


def shrunk(positions, side):
    """Return a square of averages over the blocks of a larger one."""
    n = len(positions) // side
    blocks = [positions[n * y : n * (y + 1), n * x : n * (x + 1)] for y in range(side) for x in range(side)]
    return torch.stack([block.mean() for block in blocks]).view(side, side)


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


def embedded(maps):
    return [np.array([np.mean(channel.tolist()) for channel in sample]) for sample in maps]


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


@pytest.mark.parametrize("M", [1, 3])
@pytest.mark.parametrize("stage", [None, 2])
def test_a_regression_equals_loops_over_samples_teachers_and_elements(M, stage):
    plain, step = built(FeatureRegression(list(STAGES), stage), 4, M, dtype=torch.float64)
    errors = errors_by_loops(plain, step)
    assert plain(step).item() == pytest.approx(weighted_by_loops(errors, step.weights.tolist()))
    published, step = built(PublishedFeatureRegression(list(STAGES), stage), 4, M, dtype=torch.float64)
    errors = errors_by_loops(published, step)
    assert published(step).item() == pytest.approx(sum(map(sum, errors)) / (4 * M))
    assert not published(step).requires_grad  # as published, it trains nothing


@pytest.mark.parametrize("M", [1, 3])
def test_the_regression_of_aekd_equals_loops_with_its_own_weights(M):
    term, step = built(AekdFeatureRegression(list(STAGES)), 4, M, dtype=torch.float64)
    weights = term.own_weights(step).tolist()
    assert term(step).item() == pytest.approx(weighted_by_loops(errors_by_loops(term, step), weights))


@pytest.mark.parametrize("M", [1, 2, 3])
@pytest.mark.parametrize("kind", [ConfidenceFeatureRegression, PublishedConfidence])
def test_the_regression_of_camkd_equals_loops_over_the_opinions_of_the_teachers_classifiers(kind, M):
    term, step = built(kind(list(STAGES)), 4, M, dtype=torch.float64)
    regressed = regressed_by_loops(term, step)
    opinions = [head(made).tolist() for head, made in zip(term.heads, regressed, strict=True)]
    weights = []
    for b, label in enumerate(step.labels.tolist()):
        own = [opinions[m][b] for m in range(M)]
        blame = [sum(map(math.exp, each)) / math.exp(each[label]) for each in own]  # exp of the cross-entropy
        weights.append([(1 - each / sum(blame)) / (M - 1) if M > 1 else 1.0 for each in blame])
    once_more = M if kind is PublishedConfidence else 1
    naive = weighted_by_loops(errors_by_loops(term, step), weights) / once_more
    assert term(step).item() == pytest.approx(naive)


def errors_by_loops(term, step):
    """Return the mean squared difference of two maps' elements, per sample and teacher."""
    found = [[] for _ in step.labels]
    for made, name in zip(regressed_by_loops(term, step), term.names, strict=True):
        for b, pair in enumerate(zip(made, step.teachers.hints[name], strict=True)):
            elements = list(zip(*(side.flatten().tolist() for side in pair), strict=True))
            found[b].append(sum((own - theirs) ** 2 for own, theirs in elements) / len(elements))
    return found


def weighted_by_loops(errors, weights):
    rows = zip(errors, weights, strict=True)
    return sum(e * w for row in rows for e, w in zip(*row, strict=True)) / len(errors)


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


def test_the_ramp_of_dkd_takes_a_twelfth_of_the_epochs():
    term, step = DecoupledLoss(4.0, epochs=24), make_step()
    full = term(replace(step, epoch=2))
    torch.testing.assert_close(term(step), full / 2)
    torch.testing.assert_close(term(replace(step, epoch=23)), full)


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


def test_two_teachers_that_agree_outvote_the_one_that_has_all_the_weight():
    term, step = built(TripletLoss("layer3"), B=16)
    step = replace(step, weights=torch.tensor([0.0, 1.0, 0.0]).repeat(16, 1))
    first, second = (step.teachers.hints[f"t{m}/layer3@1"] for m in (0, 1))

    def value(*hints):
        named = {f"t{m}/layer3@1": hint for m, hint in enumerate(hints)}
        return drawn_alike(term, replace(step, teachers=replace(step.teachers, hints=named)))

    torch.testing.assert_close(value(first, second, first), value(first, first, first))
    assert (value(first, second, first) - value(second, second, second)).abs() > 1e-4


def test_permuting_the_teachers_leaves_the_votes_but_not_the_published_term():
    for kind, same in ((TripletLoss, True), (PublishedTripletLoss, False)):
        term, step = built(kind("layer3"), B=16)
        outputs = step.teachers
        turned = TeacherOutputs(outputs.names[::-1], outputs.logits.flip(1), outputs.hints)
        both = (step, replace(step, teachers=turned))
        values = [float(drawn_alike(term, each).detach()) for each in both]
        assert (values[0] == pytest.approx(values[1])) is same


def test_the_weights_of_camkd_are_constants_and_those_of_its_code_are_not():
    for kind, constant in ((ConfidenceFeatureRegression, True), (PublishedConfidence, False)):
        term, step = built(kind(list(STAGES)))
        weights = term.own_weights(step)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(6))
        assert weights.requires_grad is not constant


def test_classifiers_of_the_teachers_are_in_no_checkpoint_and_no_optimiser():
    term, _ = built(ConfidenceFeatureRegression(list(STAGES)))
    assert not [name for name in term.state_dict() if "fc" in name]
    assert len(term.heads) == 3


@pytest.mark.parametrize("tolerance", [0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_the_weights_of_aekd_f_are_those_of_a_general_solver(tolerance, seed):
    term, step = built(
        AekdFeatureRegression(list(STAGES), tolerance=tolerance), B=2, M=4, seed=seed, dtype=torch.float64
    )
    weights = term.own_weights(step)
    assert not weights.requires_grad
    assert (weights == weights[0]).all()

    pulls = mean_pulls(term, step)
    lengths = np.linalg.norm(pulls, axis=1)
    directions = pulls / lengths[:, None]
    gram, cap = directions @ directions.T, max(tolerance, 1 / 4)
    found = minimize(
        lambda a: a @ gram @ a / 2, [1 / 4] * 4, jac=lambda a: gram @ a, bounds=[(0, cap)] * 4,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1}, options={"ftol": 1e-14, "maxiter": 500},
    ).x  # fmt: skip
    np.testing.assert_allclose(weights[0], found / lengths / sum(found / lengths), atol=1e-4)


def mean_pulls(term, step):
    """Return the gradient of each teacher's mean error for the student's map, averaged over the batch."""
    feature = step.student.features[term.student_stage]
    pairs = zip(regressed_by_loops(term, step), term.names, strict=True)
    errors = [F.mse_loss(made, step.teachers.hints[name]) for made, name in pairs]
    pulls = [torch.autograd.grad(error, feature, retain_graph=True)[0] for error in errors]
    return np.stack([pull.mean(dim=0).flatten().numpy() for pull in pulls])


def test_a_teacher_half_way_between_two_others_has_no_weight_in_aekd_f():
    term, step = built(AekdFeatureRegression(list(STAGES)), dtype=torch.float64)
    for regressor in term.regressors:
        regressor.load_state_dict(term.regressors[0].state_dict())
    first, second, between = (step.teachers.hints[name] for name in term.names)
    between.copy_((first + second) / 2)
    lengths = np.linalg.norm(mean_pulls(term, step), axis=1)
    shares = np.array([1 / lengths[0], 1 / lengths[1], 0.0])
    np.testing.assert_allclose(term.own_weights(step)[0], shares / shares.sum(), atol=1e-6)


def test_feature_weights_replace_the_steps_weights():
    term, step = built(FeatureRegression(list(STAGES)))
    alone = F.one_hot(torch.zeros(6, dtype=torch.long), 3).float()
    torch.testing.assert_close(term(replace(step, feature_weights=alone)), term(replace(step, weights=alone)))


@pytest.mark.parametrize(
    ("term", "key"),
    [(AttentionLoss(["layer1"]), "stages"), (FeatureRegression(["layer1", "layer2"], stage=2), "stages"),
     (RelationLoss("layer3"), "hint"), (TripletLoss("layer3"), "hint"), (FeatureRegression(["a"]), "hint")],
)  # fmt: skip
def test_a_teacher_without_stages_or_without_a_last_map_is_named(term, key):
    whole, lacking = OfferedFeatures("layer3", ("a", "b")), OfferedFeatures()
    with pytest.raises(UserError, match=rf"t1.*\n.*teacher\.t1\.{key}"):
        term.hints({"t0": whole, "t1": lacking})


def test_a_stage_that_the_student_does_not_have_is_refused():
    with pytest.raises(UserError, match="reads stage 4, which the student's stages"):
        FeatureRegression(list(STAGES), stage=4)


@pytest.mark.parametrize("position", range(len(every_term())))
def test_every_term_is_refused_without_teachers(position):
    term, step = built(every_term()[position])
    with pytest.raises(UserError, match="needs teachers"):
        term(replace(step, teachers=None))
