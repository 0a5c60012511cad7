import pytest
import torch
from sklearn.datasets import load_digits

from amtml_pl.data.datasets.digits import Digits
from amtml_pl.errors import UserError


def test_the_splits_are_the_whole_data_set_stratified_and_the_same_every_time():
    train, test = Digits().read("train"), Digits().read("test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape[1:] == (3, 32, 32)
    assert train.classes == tuple("0123456789")
    whole = torch.bincount(torch.from_numpy(load_digits().target))
    shares = torch.bincount(test.labels) / whole
    assert (shares - 0.2).abs().max() < 0.01
    assert torch.equal(Digits().read("test").images, test.images)


def test_at_their_own_size_the_digits_are_only_rescaled_and_none_is_in_both_splits():
    originals = {tuple(digit.flatten().tolist()) for digit in load_digits().images}
    rows = [
        tuple((image[0].double() * 16 / 255).round().flatten().tolist())
        for split in ("train", "test")
        for image in Digits(image_size=8).read(split).images
    ]
    assert {*rows} == originals
    assert len(rows) == len(originals)


@pytest.mark.parametrize("arguments", [{"test_fraction": 0}, {"test_fraction": 1.5}, {"image_size": 4}])
def test_an_argument_out_of_range_is_refused_by_name(arguments):
    with pytest.raises(UserError, match=f"out of range .got .*{next(iter(arguments))}="):
        Digits(**arguments)
