"""EBKD's weights."""

import torch

from amtml_pl.weighting.entropy import entropy_weights


def test_a_sure_teacher_counts_more_and_without_any_doubt_all_count_alike():
    logits = torch.tensor([[[9.0, 0.0], [0.0, 0.0]], [[1e4, 0.0], [0.0, 1e4]]])
    weights = entropy_weights(logits)
    assert weights[0, 0] > 0.99
    torch.testing.assert_close(weights[1], torch.tensor([0.5, 0.5]))
