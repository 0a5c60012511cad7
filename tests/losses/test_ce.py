"""Cross-entropy with the labels."""

import pytest
import torch

from amtml_pl.errors import UserError
from amtml_pl.losses.ce import CrossEntropy
from amtml_pl.types import TensorShapes
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


def test_class_weights_are_those_of_torch_s_weighted_mean():
    step, weights = make_step(), [1.0, 2.0, 0.5, 4.0, 1.5]
    term = CrossEntropy(class_weights=weights)
    term.build(TensorShapes(classes=5))
    each = -step.student.logits.log_softmax(1)[range(6), step.labels]
    of_labels = torch.tensor(weights)[step.labels]
    torch.testing.assert_close(term(step), (of_labels * each).sum() / of_labels.sum())
    assert not term.state_dict()


def test_balanced_weights_give_every_class_with_images_the_same_total():
    term = CrossEntropy(class_weights="balanced")
    term.set_class_counts(counts := torch.tensor([80, 10, 0, 30]))
    torch.testing.assert_close(term.weights * counts, torch.tensor([40.0, 40.0, 0.0, 40.0]))


def test_a_number_of_class_weights_other_than_the_classes_is_refused():
    with pytest.raises(UserError, match=r"class_weights has not one weight per class .got 2, expected 5"):
        CrossEntropy(class_weights=[1.0, 2.0]).build(TensorShapes(classes=5))
