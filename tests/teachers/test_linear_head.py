"""The fitted classifier is scikit-learn's, on features as they are; its file is whole or not there."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from amtml_pl.errors import UserError
from amtml_pl.teachers.linear_head import Labelled, fit_head, read_head, scale_of, write_head


def labelled(classes, number=120, seed=0):
    """Noisy features around one centre per class, of unlike scales; the last one is constant."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % classes
    centres = torch.randn(classes, 6, generator=torch.Generator().manual_seed(9))
    features = centres[labels] + 0.5 * torch.randn(number, 6, generator=generator)
    features = features * torch.tensor([1.0, 10, 0.1, 1, 1, 1]) + 3
    return Labelled(torch.cat([features, torch.ones(number, 1)], dim=1), labels)


@pytest.mark.numbers
@pytest.mark.parametrize("classes", [2, 4])
def test_the_classifier_reads_raw_features_and_is_that_of_the_standardised_ones(classes):
    train, val = labelled(classes), labelled(classes, seed=1)
    linear, accuracy, C = fit_head(train, val, classes)
    raw = train.features.double().numpy()
    mean, scale = raw.mean(axis=0), scale_of(raw)
    model = LogisticRegression(C=C, max_iter=1000).fit((raw - mean) / scale, train.labels.numpy())
    expected = model.predict_proba((val.features.double().numpy() - mean) / scale)
    np.testing.assert_allclose(linear(val.features).softmax(1).numpy(), expected, atol=0.01)
    right = linear(val.features).argmax(1) == val.labels
    assert accuracy == pytest.approx(right.float().mean().item())
    assert accuracy > 0.8


def test_the_same_features_give_the_same_bits():
    (first, *_), (again, *_) = (fit_head(labelled(4), labelled(4, seed=1), 4) for _ in range(2))
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.bias, again.bias)


def test_a_class_without_a_training_image_is_an_error():
    with pytest.raises(UserError, match=r"no image of the classes \[4\]"):
        fit_head(labelled(4), labelled(4, seed=1), 5)


def test_a_classifier_is_read_back_and_a_damaged_file_or_record_is_not(tmp_path):
    linear, accuracy, C = fit_head(labelled(4), labelled(4, seed=1), 4)
    file = tmp_path / "head.safetensors"
    assert read_head(file) is None
    write_head(file, linear, accuracy, C, {"data": "d"})
    found = read_head(file)
    assert torch.equal(found.linear.weight, linear.weight)
    assert not found.linear.weight.requires_grad
    assert (found.record.accuracy, found.record.C, found.record.identity) == (accuracy, C, {"data": "d"})
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert read_head(file) is None
    file.write_bytes(whole)
    record = file.with_suffix(".json")
    record.write_text(record.read_text().replace(f'"C": {C}', '"C": 5.0'))
    assert read_head(file) is None
