"""Balanced features: standardised maps, cosine and smooth-L1, and teachers that are dropped."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from amtml_pl.losses.balanced import BalancedLoss, kept_teachers, matching_losses
from amtml_pl.losses.map_scaling import MapScaling
from amtml_pl.models.hint_statistics import HintStatistics
from amtml_pl.types import OfferedFeatures
from golden_steps import assert_golden, golden_term
from losses.terms import built

OFFERED = dict.fromkeys("abc", OfferedFeatures("layer3"))


def standardised(maps, kind):
    made = MapScaling(maps.shape[1], kind).to(maps)
    made.set_statistics(HintStatistics.of(maps))
    return made(maps)


def test_balanced(golden):
    given, expected = golden("balanced")
    targets = [standardised(maps, "per_channel") for maps in given["maps"]]
    for target, wanted in zip(targets, expected["standardised"], strict=True):
        assert_golden(target, wanted)
    assert_golden(standardised(given["maps"][0], "phi_s"), expected["phi_s"])
    losses = matching_losses(given["projected"], targets)
    assert_golden(losses, expected["loss"])
    kept = kept_teachers(losses, given["drawn"], given["drop"])
    assert_golden(kept.double(), expected["keep"])
    assert_golden((kept * losses).sum() / kept.sum(), expected["total"])


def test_the_term_draws_its_numbers_from_the_seeded_generator(golden, monkeypatch):
    """The student's map is the projected one: the projections are the identity."""
    given, expected = golden("balanced")
    maps = given["maps"][:1] * 2
    term, step = golden_term(
        BalancedLoss("s"), dict.fromkeys("ab", OfferedFeatures("layer3")), {"s": given["projected"][0]}, maps
    )
    for projection in term.projections:
        nn.init.dirac_(projection.weight)
        nn.init.zeros_(projection.bias)
    term.set_hint_statistics({name: HintStatistics.of(maps[0]) for name in step.teachers.hints})
    torch.manual_seed(1)
    assert_golden(term.losses(step), expected["loss"][:, :1].expand(3, 2))
    drawn = torch.rand(3, 2)
    kept = kept_teachers(term.losses(step), drawn, 0.5)
    torch.manual_seed(1)
    assert_golden(term(step), (kept * term.losses(step)).sum() / kept.sum())
    torch.manual_seed(2)
    assert not torch.equal(torch.rand(3, 2), drawn)


@pytest.mark.parametrize("kind", ["per_channel", "phi_s"])
@pytest.mark.parametrize("drop", [0.0, 0.5, 1.0])
def test_the_loss_equals_a_loop_over_samples_teachers_and_positions(kind, drop):
    term, step = built(BalancedLoss("layer3", scaling=kind, drop=drop), dtype=torch.float64)
    rates, chosen = [], []
    torch.manual_seed(5)
    drawn = torch.rand(6, 3)
    for b in range(6):
        own = []
        for name, projection in zip(term.names, term.projections, strict=True):
            target = standardised(step.teachers.hints[name], kind)[b]
            made = projection(step.student.features["layer3"])[b]
            C, H, W = target.shape
            loss = 0.0
            for i, j in product(range(H), range(W)):
                x, y = made[:, i, j], target[:, i, j]
                far = (x - y).abs()
                smooth = sum(d**2 / 2 if d < 1 else d - 0.5 for d in far) / C
                loss = loss + (0.5 * (1 - x @ y / (x.norm() * y.norm())) + 0.5 * smooth) / (H * W)
            own.append(loss)
        highest = max(range(3), key=lambda m, own=own: own[m].item())
        rates += own
        chosen += [1.0 if m == highest or drawn[b, m] >= drop else 0.0 for m in range(3)]
    naive = sum(c * rate for c, rate in zip(chosen, rates, strict=True)) / sum(chosen)
    torch.manual_seed(5)
    loss = term(step)
    torch.testing.assert_close(loss, naive)
    feature = step.student.features["layer3"]
    torch.testing.assert_close(*(torch.autograd.grad(v, feature)[0] for v in (loss, naive)))


def test_gradients_are_those_of_the_value():
    generator = torch.Generator().manual_seed(0)
    made, target = (3 * torch.randn(2, 4, 2, 1, generator=generator).double() for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: matching_losses([x], [target]), made.requires_grad_())


@given(seed=st.integers(0, 1000), B=st.integers(1, 5), M=st.integers(1, 5), drop=st.floats(0, 1))
@settings(max_examples=50)
def test_the_teacher_with_the_highest_loss_is_always_kept(seed, B, M, drop):
    generator = torch.Generator().manual_seed(seed)
    losses, drawn = torch.rand(2, B, M, generator=generator)
    kept = kept_teachers(losses, drawn, drop)
    worst = torch.nn.functional.one_hot(losses.argmax(dim=1), M).bool()
    assert kept[worst].all()
    assert torch.equal(kept[~worst], (drawn >= drop)[~worst])


def test_half_of_the_other_teachers_are_dropped():
    generator = torch.Generator().manual_seed(0)
    losses, drawn = torch.rand(2, 20_000, 3, generator=generator)
    assert kept_teachers(losses, drawn, 0.5).double().mean().item() == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize("kind", ["per_channel", "phi_s"])
@given(shift=st.floats(-50, 50), scale=st.floats(0.01, 100))
@settings(max_examples=15)
def test_the_loss_does_not_depend_on_a_teachers_mean_and_scale(kind, shift, scale):
    term, step = built(BalancedLoss("layer3", scaling=kind, drop=0.0), dtype=torch.float64)
    before = term(step)
    hints = step.teachers.hints
    hints["t1/layer3"].add_(shift).mul_(scale)
    term.set_hint_statistics({name: HintStatistics.of(hint) for name, hint in hints.items()})
    torch.testing.assert_close(term(step), before)
