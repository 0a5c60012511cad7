"""Cross-entropy with the labels."""

import pytest
import torch

from amtml_pl.errors import UserError
from amtml_pl.losses.ce import CrossEntropy
from steps import make_step


def test_cross_entropy_is_the_mean_negative_log_probability_of_the_label():
    step = make_step()
    naive = -sum(step.student.logits.log_softmax(1)[b, y] for b, y in enumerate(step.labels)) / 6
    torch.testing.assert_close(CrossEntropy()(step), naive)


def test_label_smoothing_outside_its_range_is_refused():
    with pytest.raises(
        UserError, match=r"label_smoothing is wrong .got 1.0, expected at least 0 and below 1"
    ):
        CrossEntropy(label_smoothing=1.0)
