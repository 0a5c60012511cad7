"""Every weighting scheme: its rows, its preferences, its gradients, and degenerate teachers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from amtml_pl.distill.published.weighting import PublishedAdaptiveWeighting
from amtml_pl.errors import UserError
from amtml_pl.types import TeacherOutputs, TensorShapes
from amtml_pl.weighting.adaptive import AdaptiveWeighting
from amtml_pl.weighting.aekd import AekdWeighting, gradient_weights
from amtml_pl.weighting.confidence import ConfidenceWeighting, confidence_weights
from amtml_pl.weighting.entropy import EntropyWeighting, entropy_weights
from amtml_pl.weighting.fixed import FixedWeighting
from amtml_pl.weighting.held_out import HeldOutWeighting, held_out_weights
from amtml_pl.weighting.minimum_norm import minimum_norm_weights
from amtml_pl.weighting.random_teacher import RandomTeacherWeighting
from amtml_pl.weighting.single import SingleTeacherWeighting
from amtml_pl.weighting.uniform import UniformWeighting
from steps import make_step

pytestmark = pytest.mark.numbers

COMPUTED = [EntropyWeighting(), ConfidenceWeighting(), AekdWeighting(4.0)]
BY_POSITION = [AdaptiveWeighting("last"), PublishedAdaptiveWeighting("last")]
EVERY = [UniformWeighting(), *COMPUTED, *BY_POSITION]
SHAPES = TensorShapes(classes=5, teachers=("t0", "t1", "t2"))


def weigh(scheme, step):
    return scheme(step.student, step.teachers, step.labels)


def built(scheme, B=6, M=3, D=8, **options):
    """Return a step and the weights of a scheme that is built for it."""
    step = make_step(B, M, taps={"last": (D, 4, 4)}, **options)
    torch.manual_seed(0)
    scheme.build(TensorShapes(classes=5, teachers=step.teachers.names, student={"last": (D, 4, 4)}))
    return step, weigh(scheme, step)


@pytest.mark.parametrize("scheme", EVERY)
@given(B=st.integers(1, 6), M=st.integers(1, 8), seed=st.integers(0, 20))
@settings(max_examples=10)
def test_rows_sum_to_one_and_permuting_the_teachers_permutes_the_columns(scheme, B, M, seed):
    step, weights = built(scheme, B, M, seed=seed)
    assert weights.shape == (B, M)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(B))
    if scheme in BY_POSITION:
        return
    order = torch.randperm(M, generator=torch.Generator().manual_seed(seed))
    turned = TeacherOutputs(tuple(f"t{m}" for m in order), step.teachers.logits[:, order])
    found = scheme(step.student, turned, step.labels)
    torch.testing.assert_close(found, weights[:, order], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("scheme", EVERY)
def test_a_sample_alone_has_the_same_weights_unless_the_scheme_weighs_batches(scheme):
    step, weights = built(scheme)
    student, teachers = (outputs.map(lambda tensor: tensor[2:3]) for outputs in (step.student, step.teachers))
    found = scheme(student, teachers, step.labels[2:3])
    assert torch.allclose(found, weights[2:3], atol=1e-6) != scheme.weighs_batches


@pytest.mark.parametrize("scheme", COMPUTED)
def test_identical_teachers_share_equally_and_saturated_ones_give_usable_weights(scheme):
    step = make_step()
    same = TeacherOutputs(step.teachers.names, step.teachers.logits[:, :1].expand(-1, 3, -1).contiguous())
    torch.testing.assert_close(scheme(step.student, same, step.labels), torch.full((6, 3), 1 / 3))
    for size in (0.0, 1e4):
        teachers = TeacherOutputs(step.teachers.names, size * step.teachers.logits.sign())
        weights = scheme(step.student, teachers, step.labels)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(6))
        assert not weights.requires_grad


def test_a_sure_teacher_counts_more_and_without_any_doubt_all_count_alike():
    logits = torch.tensor([[[9.0, 0.0], [0.0, 0.0]], [[1e4, 0.0], [0.0, 1e4]]])
    weights = entropy_weights(logits)
    assert weights[0, 0] > 0.99
    torch.testing.assert_close(weights[1], torch.tensor([0.5, 0.5]))


def test_a_teacher_that_is_right_counts_more_but_never_above_its_share_of_the_others():
    logits = torch.tensor([[[9.0, 0.0], [0.0, 0.0], [0.0, 9.0]]])
    weights = confidence_weights(logits, torch.tensor([0]))[0]
    assert weights[0] > weights[1] > weights[2]
    assert weights[0] <= 0.5


@given(M=st.integers(1, 6), seed=st.integers(0, 200), cap=st.sampled_from([0.3, 0.6, 1.0]))
@settings(max_examples=40)
def test_the_quadratic_program_is_solved_as_a_general_solver_solves_it(M, seed, cap):
    g = torch.randn(M, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights = minimum_norm_weights(g @ g.T, cap)
    gram, cap = (g @ g.T).numpy(), max(cap, 1 / M)
    found = minimize(
        lambda a: a @ gram @ a, [1 / M] * M, jac=lambda a: 2 * gram @ a, bounds=[(0, cap)] * M,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1}, options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    assert float(weights @ (g @ g.T) @ weights) <= found.fun + 1e-7
    assert float(weights.sum()) == pytest.approx(1)
    assert 0 <= float(weights.min()) <= float(weights.max()) <= cap + 1e-9


def test_the_size_of_the_gradients_plays_no_part():
    g = torch.randn(3, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    small, large = (gradient_weights(size * g, 0.6, normalize=False) for size in (1e-4, 1.0))
    torch.testing.assert_close(small, large)


def test_given_weights_are_scaled_and_put_in_the_order_of_the_teachers():
    scheme = FixedWeighting({"t2": 2, "t0": 1, "t1": 1})
    scheme.build(SHAPES)
    torch.testing.assert_close(weigh(scheme, make_step())[0], torch.tensor([0.25, 0.25, 0.5]))
    assert scheme.state_dict() == {}


@pytest.mark.parametrize(
    ("weights", "words"),
    [({"t0": 1, "tt": 1}, r"names \['t0', 'tt'\]; the teachers are \['t0', 't1', 't2'\]"),
     ({"t0": -1, "t1": 1, "t2": 1}, "expected numbers from 0"), ({"t0": 0, "t1": 0, "t2": 0}, "least one")],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_with_an_example(weights, words):
    with pytest.raises(UserError, match=words + r".*\n.*weighting\.weights=\{t0:1,t1:1,t2:1\}"):
        FixedWeighting(weights).build(SHAPES)


def test_the_best_teacher_has_all_the_weight_and_of_equals_the_first():
    scheme = SingleTeacherWeighting()
    scheme.build(SHAPES)
    with pytest.raises(RuntimeError, match="needs set_teacher_accuracy"):
        weigh(scheme, make_step())
    scheme.set_teacher_accuracy({"t0": 0.5, "t1": 0.7, "t2": 0.7})
    assert weigh(scheme, make_step()).tolist() == [[0, 1, 0]] * 6


def test_a_teacher_is_chosen_by_name_and_a_wrong_name_is_refused():
    scheme = SingleTeacherWeighting("t2")
    scheme.build(SHAPES)
    scheme.set_teacher_accuracy({"t0": 0.9, "t1": 0.7, "t2": 0.1})
    assert weigh(scheme, make_step())[0].tolist() == [0, 0, 1]
    with pytest.raises(UserError, match=r"weighting\.teacher=tt2.*\n.*weighting\.teacher=t2"):
        SingleTeacherWeighting("tt2").build(SHAPES)


def test_a_random_teacher_changes_between_batches_and_repeats_with_the_steps_seed():
    step, drawn = make_step(), []
    for seed in (*range(20), *range(20)):
        torch.manual_seed(seed)
        weights = weigh(RandomTeacherWeighting(), step)
        assert (weights == weights[0]).all()
        drawn.append(int(weights[0].argmax()))
    assert drawn[:20] == drawn[20:]
    assert set(drawn) == {0, 1, 2}


def held_out(N=400):
    """Return logits of a good, a poor and a useless teacher, and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (N,), generator=generator)
    noise = torch.randn(N, 3, 4, generator=generator)
    signal = torch.nn.functional.one_hot(labels, 4)[:, None] * torch.tensor([3.0, 1.0, 0.0])[None, :, None]
    return noise + signal, labels


def test_weights_from_held_out_images_make_their_labels_likeliest():
    logits, labels = held_out()
    weights = held_out_weights(logits, labels)
    assert weights[0] > weights[1] > weights[2] > 0
    assert float(weights.sum()) == pytest.approx(1)

    def likelihood(w):
        return (w[None, :, None] * logits.softmax(2)).sum(1).gather(1, labels[:, None]).log().sum()

    for other in torch.rand(50, 3, generator=torch.Generator().manual_seed(1)):
        best = likelihood(other / other.sum())
        assert likelihood(weights) > best - 1  # the pseudo-observations cost a little


def test_held_out_weights_are_checkpointed_and_are_the_prior_that_an_adapter_starts_from():
    shapes = TensorShapes(classes=4, teachers=("t0", "t1", "t2"), student={"last": (8, 4, 4)})
    step = make_step(K=4, taps={"last": (8, 4, 4)})
    alone, prior = HeldOutWeighting(), AdaptiveWeighting("last", prior="held_out")
    for scheme in (alone, prior):
        scheme.build(shapes)
        scheme.fit_to_held_out(*held_out())
    assert "shares" in alone.state_dict()
    torch.nn.init.zeros_(prior.theta)
    expected = held_out_weights(*held_out()).expand(6, -1)
    for scheme in (alone, prior):
        torch.testing.assert_close(weigh(scheme, step), expected)
    assert AdaptiveWeighting("last").prior is None


def test_the_adapter_learns_and_its_gradient_stops_at_the_students_features():
    scheme = AdaptiveWeighting("last")
    step, weights = built(scheme)
    weights[:, 0].sum().backward()
    assert step.student.features["last"].grad is None
    assert all(factor.grad.abs().sum() > 0 for factor in (scheme.theta, scheme.mixing))


def test_the_adapter_does_not_start_collapsed():
    _, weights = built(AdaptiveWeighting("last"), B=64, D=64)
    assert (weights.amax(dim=1) > 0.95).float().mean() < 0.5
    assert weights.std() > 0.01
