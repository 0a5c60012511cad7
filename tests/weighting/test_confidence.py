"""CA-MKD's weights."""

import torch

from amtml_pl.weighting.confidence import confidence_weights


def test_a_teacher_that_is_right_counts_more_but_never_above_its_share_of_the_others():
    logits = torch.tensor([[[9.0, 0.0], [0.0, 0.0], [0.0, 9.0]]])
    weights = confidence_weights(logits, torch.tensor([0]))[0]
    assert weights[0] > weights[1] > weights[2]
    assert weights[0] <= 0.5
