"""Multi-group hint regression."""

import pytest
import torch
import torch.nn.functional as F

from amtml_pl.errors import UserError
from amtml_pl.losses.hint import HintLoss, hint_loss, stage_per_teacher
from amtml_pl.models.pooling import pool_to_same_size
from amtml_pl.types import OfferedFeatures, TensorShapes
from golden_steps import assert_golden
from steps import make_step


def test_hints_normalised_over_channels_and_compared_as_means(golden):
    given, expected = golden("fitnet_hint")
    student, teacher, projection = (given[name].double() for name in ("feat_s", "feat_t", "A"))
    assert_golden(hint_loss(student, teacher, projection), expected["channel_norm"])
    pooled = [F.adaptive_avg_pool2d(features, 1) for features in (student, teacher)]
    assert_golden(pooled[1].squeeze(), expected["pooled_teacher"].squeeze())
    assert_golden(hint_loss(*pooled, projection), expected["gap"])
    broadcast = pooled[1].expand(*teacher.shape)
    assert_golden(hint_loss(student, broadcast, projection), expected["pooled_broadcast"])


@pytest.mark.parametrize(
    ("teachers", "stages", "expected"),
    [(1, 3, [2]), (2, 3, [1, 2]), (3, 3, [0, 1, 2]), (5, 3, [0, 1, 1, 2, 2]), (3, 1, [0, 0, 0])],
    ids=str,
)
def test_teachers_are_spread_over_the_stages_and_end_at_the_last(teachers, stages, expected):
    assert stage_per_teacher(teachers, stages) == expected


def hint_step():
    taps = {"layer1": (4, 8, 8), "layer2": (6, 4, 4), "layer3": (8, 2, 2)}
    hints = {"a/last": (16, 2, 2), "b/last": (12, 2, 2), "c/last": (8, 1, 1)}
    shapes = TensorShapes(5, ("a", "b", "c"), taps, hints, dict.fromkeys("abc", OfferedFeatures("last")))
    return make_step(taps=taps, hints=hints), shapes


def test_each_group_has_a_projection_and_the_teachers_are_paired_in_order():
    _, shapes = hint_step()
    term = HintLoss(["layer1", "layer2", "layer3"])
    assert term.hints(shapes.offered) == ("a/last", "b/last", "c/last")
    term.build(shapes)
    assert term.pairs == (("a/last", "layer1"), ("b/last", "layer2"), ("c/last", "layer3"))
    assert len(list(term.parameters())) == 3


def test_the_hint_loss_is_the_mean_over_the_groups_that_are_named():
    step, shapes = hint_step()
    term = HintLoss([], groups={"c/last": "layer2", "a/last": "layer3"})
    assert term.student_taps() == ("layer2", "layer3")
    term.build(shapes)
    expected = [
        hint_loss(*pool_to_same_size(step.student.features[stage], step.teachers.hints[name]), projection)
        for (name, stage), projection in zip(term.pairs, term.projections, strict=True)
    ]
    torch.testing.assert_close(term(step), torch.stack(expected).mean())


def test_a_hint_term_without_any_hint_is_refused():
    with pytest.raises(UserError, match=r"needs student.stages and teacher.NAME.hint(.|\n)*without hint"):
        HintLoss(["layer1"]).build(TensorShapes(classes=5, teachers=("a",)))
