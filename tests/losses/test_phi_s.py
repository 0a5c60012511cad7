"""PHI-S gives every channel variance 1, whatever the number of channels and the covariance."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.losses.phi_s import equalising_rotation, hadamard, phi_s_matrix

# Of networks at hand: residual networks, vision transformers, and small numbers of all kinds.
WIDTHS = (1, 2, 4, 8, 12, 16, 20, 24, 32, 64, 72, 128, 192, 320, 384, 640, 768)
WITHOUT = (3, 5, 6, 7, 9, 10, 28, 36, 100)  # Hadamard matrices of 28, 36 and 100 have other constructions


@pytest.mark.parametrize("order", WIDTHS)
def test_a_hadamard_matrix_has_orthogonal_rows_of_ones_and_minus_ones(order):
    made = hadamard(order)
    assert torch.equal(made.abs(), torch.ones(order, order))
    assert torch.equal(made @ made.T, order * torch.eye(order))


@pytest.mark.parametrize("order", WITHOUT)
def test_other_orders_have_no_hadamard_matrix_here(order):
    assert hadamard(order) is None


def covariance_of(C, seed, rank):
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(C, min(rank, C), generator=generator, dtype=torch.float64)
    return factors @ torch.diag(10.0 ** torch.arange(factors.shape[1]).neg().double()) @ factors.T


@given(C=st.integers(1, 40), seed=st.integers(0, 100), rank=st.integers(1, 8))
@settings(max_examples=60)
def test_every_channel_ends_with_variance_one_and_is_rotated_and_scaled_alone(C, seed, rank):
    """Also for covariances of low rank, whose eigenvalues are mostly 0."""
    covariance = covariance_of(C, seed, rank)
    made = phi_s_matrix(covariance)
    after = made @ covariance @ made.T
    torch.testing.assert_close(after.diagonal(), torch.ones(C).double(), rtol=0, atol=1e-9)
    scale = C / covariance.trace()
    torch.testing.assert_close(made @ made.T, scale * torch.eye(C).double())


@given(values=st.lists(st.floats(0, 1e3), min_size=1, max_size=30))
@settings(max_examples=60)
def test_a_rotation_makes_the_diagonal_equal(values):
    values = torch.tensor(values, dtype=torch.float64)
    made = equalising_rotation(values)
    size = values.max().clamp_min(1e-300)
    torch.testing.assert_close(made @ made.T, torch.eye(len(values)).double())
    diagonal = (made @ torch.diag(values) @ made.T).diagonal() / size
    torch.testing.assert_close(diagonal, (values.mean() / size).expand(len(values)), rtol=0, atol=1e-9)


def test_the_sign_of_an_eigenvector_is_fixed():
    covariance = torch.diag(torch.tensor([3.0, 1.0]).double())
    expected = torch.tensor([[1.0, 1.0], [-1.0, 1.0]]).double() / 2  # eigenvalues rise: the second axis first
    torch.testing.assert_close(phi_s_matrix(covariance), expected)
