import zipfile

import pytest
import torch

from amtml_pl.data.datasets.tiny_imagenet import TinyImageNet
from amtml_pl.errors import UserError
from archives import checksums, write_tiny_imagenet


def tiny_imagenet(archive):
    return TinyImageNet(archive.parent, [], **checksums(archive))


def rewrite(archive, name, content):
    """Replace the content of one member of an archive."""
    with zipfile.ZipFile(archive) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    with zipfile.ZipFile(archive, "w") as new:
        for member, data in (members | {f"tiny-imagenet-200/{name}": content.encode()}).items():
            new.writestr(member, data)


def test_training_images_come_by_class_and_grey_ones_become_colour(tmp_path):
    train = tiny_imagenet(write_tiny_imagenet(tmp_path, classes=4, train_per_class=3)).read("train")
    assert train.images.shape == (12, 3, 64, 64)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert torch.equal(train.images[0, 0], train.images[0, 2])
    assert train.classes == ("class 0", "class 1", "class 2", "class 3")


def test_the_official_validation_split_with_its_annotations_is_the_test_split(tmp_path):
    source = tiny_imagenet(write_tiny_imagenet(tmp_path, classes=3, test_per_class=4))
    test = source.read("test")
    assert source.splits == ("train", "test")
    names = sorted(f"val_{i}.JPEG" for i in range(12))
    assert test.labels.tolist() == [int(name[4:-5]) % 3 for name in names]
    red, green, blue = (
        test.images[test.labels == label].float().mean((0, 2, 3)).argmax() for label in range(3)
    )
    assert (red, green, blue) == (0, 1, 2)


def test_two_classes_with_one_word_are_named_with_their_ids(tmp_path):
    archive = write_tiny_imagenet(tmp_path, classes=3)
    rewrite(archive, "words.txt", "n00000000\tcrane, bird\nn00000001\tcrane, machine\nn00000002\tegret\n")
    assert tiny_imagenet(archive).read("train").classes == ("crane (n00000000)", "crane (n00000001)", "egret")


@pytest.mark.parametrize(
    ("annotations", "message"),
    [("val_0.JPEG\tn00000000\nval_1.JPEG\tn12345678\n", r"annotations.txt names a class that train lacks"),
     ("val_9999.JPEG\tn00000000\n", "lacks 1 of 1 expected files: val/images/val_9999.JPEG")],
)  # fmt: skip
def test_an_annotation_of_an_unknown_class_or_image_is_refused(tmp_path, annotations, message):
    archive = write_tiny_imagenet(tmp_path)
    rewrite(archive, "val/val_annotations.txt", annotations)
    with pytest.raises(UserError, match=message):
        tiny_imagenet(archive).read("test")
