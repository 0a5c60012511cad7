"""Attention transfer."""

import torch

from amtml_pl.losses.attention import AttentionLoss
from amtml_pl.models.hint import attention_map
from amtml_pl.types import OfferedFeatures, TensorShapes
from golden_steps import assert_golden, golden_term
from losses.terms import STAGES
from steps import make_step


def test_attention_transfer(golden):
    given, expected = golden("at")
    student, teacher = given["feat_s"].double(), attention_map(given["feat_t"].double())
    assert_golden(attention_map(student).flatten(1), expected["a_s"])
    assert_golden(teacher.flatten(1), expected["a_t"])
    offered = {"a": OfferedFeatures(stages=("layer",))}
    term, step = golden_term(AttentionLoss(["layer"]), offered, {"layer": student}, [teacher])
    assert_golden(term(step), expected["loss"])


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
