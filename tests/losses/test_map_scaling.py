"""Standardised maps have mean 0 and variance 1 over the images and positions of the statistics."""

import pytest
import torch

from amtml_pl.losses.map_scaling import MapScaling
from amtml_pl.models.hint_statistics import HintStatistics

KINDS = ("per_channel", "phi_s")


def maps_of(C, B=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(C, C, generator=generator, dtype=torch.float64)
    drawn = torch.randn(B, C, 3, 2, generator=generator, dtype=torch.float64)
    return torch.einsum("dc,bchw->bdhw", mixed, drawn) + 5


def standardised(maps, kind):
    made = MapScaling(maps.shape[1], kind).to(maps)
    made.set_statistics(HintStatistics.of(maps))
    return made(maps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("C", [1, 2, 3, 7, 12, 16])
def test_every_channel_has_mean_zero_and_variance_one(C, kind):
    made = standardised(maps_of(C), kind)
    variance, mean = torch.var_mean(made, dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(C).double())
    torch.testing.assert_close(variance, torch.ones(C).double())


def test_phi_s_keeps_all_ratios_of_distances():
    maps = maps_of(5)
    made = standardised(maps, "phi_s")
    before, after = (torch.pdist(m.movedim(1, -1).flatten(0, -2)) for m in (maps, made))
    torch.testing.assert_close(after / after[0], before / before[0])


@pytest.mark.parametrize("kind", KINDS)
def test_maps_that_do_not_vary_become_zero(kind):
    assert standardised(torch.full((9, 3, 2, 2), 0.1), kind).abs().max() < 1e-6
    assert torch.equal(standardised(torch.zeros(9, 3, 2, 2), kind), torch.zeros(9, 3, 2, 2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [2.0**-6, 1.0, 300.0])
def test_maps_that_vary_only_by_rounding_to_float16_become_zero(kind, scale):
    maps = neighbours_in_float16((9, 3, 2, 2)) * scale
    assert len(maps.unique()) == 2
    assert torch.equal(standardised(maps, kind), torch.zeros(9, 3, 2, 2).double())


@pytest.mark.parametrize("kind", KINDS)
def test_maps_that_vary_by_more_than_rounding_get_variance_one(kind):
    maps = 1 + 4 * (neighbours_in_float16((9, 3, 2, 2)) - 1)
    torch.testing.assert_close(standardised(maps, kind).var(correction=0), torch.tensor(1.0).double())


def neighbours_in_float16(shape):
    """Return 1 and the next larger number of float16, about as often."""
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return 1 + (drawn < drawn.median()).double() * 2.0**-10


def test_a_channel_that_does_not_vary_becomes_zero_beside_others():
    maps = maps_of(3)
    maps[:, 1] = 0.1
    made = standardised(maps, "per_channel")
    assert made[:, 1].abs().max() == 0
    torch.testing.assert_close(made[:, 2].square().mean(), torch.tensor(1.0).double())


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_not_a_number_before_there_are_statistics(kind):
    assert MapScaling(3, kind)(torch.ones(2, 3, 1, 1)).isnan().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_keeps_the_statistics(kind):
    made, restored = MapScaling(5, kind).double(), MapScaling(5, kind).double()
    made.set_statistics(HintStatistics.of(maps_of(5)))
    restored.load_state_dict(made.state_dict())
    assert torch.equal(restored(maps_of(5, seed=1)), made(maps_of(5, seed=1)))


def test_statistics_of_parts_add_up_to_those_of_all():
    maps = maps_of(4)
    whole, parts = HintStatistics.of(maps), HintStatistics.of(maps[:7]) + HintStatistics.of(maps[7:])
    rows = maps.movedim(1, -1).flatten(0, -2)
    for statistics in (whole, parts):
        assert statistics.count == len(rows) == 120
        torch.testing.assert_close(statistics.mean, rows.mean(dim=0))
        torch.testing.assert_close(statistics.covariance, torch.cov(rows.T, correction=0))
