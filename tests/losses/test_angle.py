"""The angle loss, from directions and from sides, against its definition: all B³ angles at once."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.losses import angle, angle_directions
from amtml_pl.losses.angle import angle_loss
from amtml_pl.losses.distance import distance_loss
from angle_oracle import angles, naive_angle_loss
from golden_steps import assert_golden
from rounding import assert_rounded_alike
from storages import Storages

MEBIBYTE = 2**20


def value_and_gradient(loss, student, target):
    student = student.clone().requires_grad_()
    value = loss(student, target)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


def points(B, D, E, dtype=torch.float64):
    generator = torch.Generator().manual_seed(B * 10_000 + D * 100 + E)
    return tuple(torch.randn(B, n, generator=generator, dtype=dtype) for n in (D, E))


def assert_equals_naive(student, target, rtol, atol):
    value, gradient = value_and_gradient(angle_loss, student, target)
    expected, expected_gradient = value_and_gradient(naive_angle_loss, student, target)
    torch.testing.assert_close(value, expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(gradient, expected_gradient, rtol=rtol, atol=atol)


@pytest.fixture(params=["one_tile", "many_tiles", "sides"])
def way(request, monkeypatch):
    """Compute angles from directions, or from sides as a compiled step does."""
    if request.param == "many_tiles":
        monkeypatch.setattr(angle_directions, "TILE", 200)
        monkeypatch.setattr(angle_directions, "WIDTH", 3)
    if request.param == "sides":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


@given(st.integers(1, 17), st.integers(1, 9), st.integers(1, 9), st.integers(1, 900), st.integers(1, 20))
@settings(max_examples=30)
def test_value_and_gradient_equal_the_definition_however_the_angles_are_cut(B, D, E, tile, width):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(angle_directions, "TILE", tile)
        patch.setattr(angle_directions, "WIDTH", width)
        patch.setattr(angle_directions, "ADDENDS", 7)
        assert_equals_naive(*points(B, D, E), rtol=1e-11, atol=1e-13)


@given(st.integers(1, 17), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=30)
def test_value_and_gradient_equal_the_definition_from_sides_too(B, D, E):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert_equals_naive(*points(B, D, E), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-5])
def test_samples_that_nearly_coincide_keep_their_digits(way, gap):
    student, target = (F.softmax(side, dim=1) for side in points(60, 100, 100))
    student[1] = student[0] + gap * (student[2] - student[0])
    student, target = student.float(), target.float()
    expected = value_and_gradient(naive_angle_loss, student.double(), target.double())
    found = value_and_gradient(angle_loss, student, target)
    for got, exact in zip(found, expected, strict=True):
        assert_rounded_alike(got, exact.float(), products=60 * 60)


@pytest.mark.parametrize("side", [0, 1])
def test_confident_samples_of_one_class_keep_their_digits(way, side):
    labels = torch.arange(96) % 10
    pair = [F.softmax(8 * F.one_hot(labels, 10) + 0.1 * n, dim=1) for n in points(96, 10, 10)]
    pair[side] = F.softmax(points(96, 10, 10)[side], dim=1)
    student, target = (each.float() for each in pair)
    expected = value_and_gradient(naive_angle_loss, student.double(), target.double())
    for got, exact in zip(value_and_gradient(angle_loss, student, target), expected, strict=True):
        assert_rounded_alike(got, exact.float(), products=96 * 96)


def test_a_compiled_step_takes_directions_where_the_triples_would_fill_the_memory(way, monkeypatch):
    monkeypatch.setattr(angle, "MOST_TRIPLES", 7**3)
    monkeypatch.setattr(angle, "angles_from_sides", None)
    assert_equals_naive(*points(8, 3, 3), rtol=1e-11, atol=1e-13)


def test_angles_that_differ_by_more_than_one_count_linearly(way):
    line, other = points(9, 1, 1)
    assert (angles(line) - angles(other)).abs().max().item() == pytest.approx(2)
    far = torch.cat([line, 0.1 * points(9, 2, 2)[1]], dim=1)
    assert_equals_naive(far, other, rtol=1e-11, atol=1e-13)


def test_the_gradient_is_right(way):
    student, target = points(7, 3, 5)
    assert torch.autograd.gradcheck(lambda x: angle_loss(x, target), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_that_coincide_add_nothing_as_in_the_definition(way, dtype):
    student, target = points(10, 4, 3, dtype)
    student[7] = student[2]
    student[8] = student[2] + 1e-13
    target[5] = target[2]
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert_equals_naive(student, target, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("B", [1, 5])
def test_a_batch_of_one_or_of_equal_samples_has_no_loss_and_no_gradient(way, B):
    same = torch.full((B, 3), 0.25)
    value, gradient = value_and_gradient(angle_loss, same, same)
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize(("B", "K", "spread"), [(128, 10, None), (150, 100, None), (20, 10, 1e-5)])
def test_in_single_precision_both_agree_to_the_rounding_of_their_sums(B, K, spread):
    student, target = (F.softmax(side, dim=1) for side in points(B, K, K, torch.float32))
    if spread is not None:
        student = student[:1] + spread * student
    value, gradient = value_and_gradient(angle_loss, student, target)
    expected, expected_gradient = value_and_gradient(naive_angle_loss, student, target)
    assert value.dtype == gradient.dtype == torch.float32
    assert_rounded_alike(value, expected, products=angle_directions.ADDENDS if spread is None else B * B)
    assert_rounded_alike(gradient, expected_gradient, products=B * B)


def test_the_target_gets_no_gradient_and_an_outer_factor_reaches_the_student():
    student, target = (side.requires_grad_() for side in points(6, 3, 3))
    (3 * angle_loss(2 * student, target)).backward()
    assert target.grad is None
    _, gradient = value_and_gradient(naive_angle_loss, 2 * student.detach(), target)
    torch.testing.assert_close(student.grad, 6 * gradient)


def test_without_gradients_the_value_is_the_same(way):
    student, target = points(9, 4, 4)
    value, _ = value_and_gradient(angle_loss, student, target)
    assert not angle_loss(student, target).requires_grad
    torch.testing.assert_close(angle_loss(student, target), value, rtol=0, atol=0)
    with torch.no_grad():
        assert not angle_loss(student.requires_grad_(), target).requires_grad


def test_sides_of_different_precision_meet_at_the_finer():
    student, target = points(6, 3, 4)
    value, gradient = value_and_gradient(angle_loss, student.float(), target)
    assert value.dtype == torch.float64
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(value, naive_angle_loss(student.float().double(), target))


def test_the_same_batch_gives_the_same_bits(way):
    student, target = points(40, 10, 10, torch.float32)
    first, second = (value_and_gradient(angle_loss, student, target) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def largest_tensor(loss, B, K):
    with Storages() as made:
        value_and_gradient(loss, *points(B, K, K, torch.float32))
    return made.largest()


def inside(student, target):
    """Compute the angle loss outside its operator, which hides its tensors from a dispatch mode."""
    value, gradient = angle.compute(student.detach(), target, True)
    return (value + (gradient * student).sum()).float()


@pytest.mark.slow
def test_no_tensor_outgrows_sixteen_mebibytes_at_a_batch_of_1024():
    assert largest_tensor(naive_angle_loss, 64, 10) == 4 * 64**3  # at 1024 it would be 4 GiB
    assert largest_tensor(inside, 1024, 10) < 16 * MEBIBYTE


@pytest.mark.parametrize("K", [10, 100, 1000])
def test_many_classes_stay_within_the_same_memory(K):
    assert 4 * 128**2 < largest_tensor(inside, 128, K) < 16 * MEBIBYTE


@pytest.mark.parametrize("spread", [1e-1, 1e-3])
def test_points_far_from_the_origin_and_near_each_other_keep_their_digits(way, spread):
    student, target = (F.softmax(spread * side, dim=1) for side in points(64, 100, 100, torch.float32))
    _, gradient = value_and_gradient(angle_loss, student, target)
    _, exact = value_and_gradient(naive_angle_loss, student.double(), target.double())
    assert_rounded_alike(gradient, exact.float(), products=64 * 64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, target = (F.softmax(side, dim=1).to(dtype) for side in points(6, 60, 60, torch.float32))
    assert torch.equal(angle_loss(student, target), angle_loss(student.float(), target.float()))


def test_angle_and_distance_between_two_sets_of_points(golden):
    given, expected = golden("rkd")
    student, teacher = given["student"].double(), given["teacher"].double()
    assert_golden(angles(student)[0], expected["psi_student_first_vertex"])
    assert_golden(angle_loss(student, teacher), expected["angle"])
    assert_golden(distance_loss(student, teacher), expected["distance"])


def test_angle_and_distance_in_the_spaces_of_the_published_and_of_the_corrected_code(golden):
    given, expected = golden("rkd")
    logits, q = given["student_logits"].double(), given["prob_mixture"].double()
    assert_golden(angle_loss(F.softmax(logits / 5, dim=1), q), expected["prob_angle"])
    assert_golden(angle_loss(F.log_softmax(logits / 5, dim=1), q), expected["amtml_angle"])
    assert_golden(distance_loss(F.log_softmax(logits / 5, dim=1), q), expected["amtml_dist"])
    assert_golden(angle_loss(logits, q), expected["logits_angle"])
    assert_golden(distance_loss(logits, q), expected["logits_dist"])
