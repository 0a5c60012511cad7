"""A random teacher per batch."""

import torch

from amtml_pl.weighting.random_teacher import RandomTeacherWeighting
from steps import make_step
from weighting.schemes import weigh


def test_a_random_teacher_changes_between_batches_and_repeats_with_the_steps_seed():
    step, drawn = make_step(), []
    for seed in (*range(20), *range(20)):
        torch.manual_seed(seed)
        weights = weigh(RandomTeacherWeighting(), step)
        assert (weights == weights[0]).all()
        drawn.append(int(weights[0].argmax()))
    assert drawn[:20] == drawn[20:]
    assert set(drawn) == {0, 1, 2}
