"""Declare the keys of the images, and of splits, batches and views."""

from __future__ import annotations

from typing import Any, Literal

from amtml_pl.config.key import SEED, SWITCH, Key, choice, key, node, number, whole
from amtml_pl.config.rules import Rule

MEAN = Rule(list[float], "3 numbers, one per channel", lambda v: len(v) == 3)
STD = Rule(list[float], "3 numbers above 0, one per channel", lambda v: len(v) == 3 and min(v) > 0)
NAME = Rule(str, "a name", bool)
CLASSES = Rule(
    list[int] | None, "a list of two or more classes by position, e.g. [0,1,2], or null",
    lambda v: v is None or (len(set(v)) == len(v) > 1 and min(v) >= 0),
)  # fmt: skip
VIEWS = Rule(int | Literal["all"], "a whole number, 1 or more, or all")
VAL_SIZE = Rule(  # a share of 0.0 would be another run than 0 images
    int | float,
    "a whole number of images, 0 for no validation split, or a fraction between 0 and 1, e.g. 0.1",
    lambda v: v >= 0 if isinstance(v, int) else 0 < v < 1,
)

MIRRORS = Key(Any, "a list of URLs", required=False, help="folders with the archive", identity="never")
DATASET = {
    "name": key(NAME, "name in folders and tables"),
    "source": node("dataset=digits", "source of the images", {"mirrors": MIRRORS}),
    "num_classes": key(whole(2), "number of classes"),
    "image_size": key(whole(1), "height and width of an image in pixels"),
    "train_images": key(whole(1, null=True), "training images, to plan the first run", identity="never"),
    "mean": key(MEAN, "mean pixel of the training split"),
    "std": key(STD, "standard deviation of pixels in the training split"),
}
DATA = {
    "augment": key(Rule(Any, "operations, e.g. augment=none"), "operations that make a view"),
    "balanced": key(
        SWITCH, "true: an epoch draws as many images of every class (docs/data.md)", identity="set"
    ),
    "batch_size": key(whole(1), "training images per step, in all processes together"),
    "classes": key(CLASSES, "classes whose images every split keeps; null: all (docs/teachers.md)"),
    "clip_train_size": key(
        SWITCH, "true: the nearest possible number for an impossible train_size", identity="set", recipe=True
    ),
    "device": key(
        choice("auto", "cpu", "device"),
        "where batches are made; auto: on the GPU if all images fit into half of its free memory",
        identity="never",
        recipe=True,
    ),
    "eval_batch_size": key(whole(1), "images per batch in evaluation", identity="never"),
    "mixup": key(number("a number, 0 or more", lambda v: v >= 0), "mixup's alpha; needs teacher_source=live"),
    "num_workers": key(whole(0), "worker processes of the data loader", identity="never", recipe=True),
    "seed": key(SEED, "seed of the validation split, training subset and augmentation", recipe=True),
    "train_size": key(whole(1, null=True), "training images; null: all outside the val split", recipe=True),
    "val_size": key(VAL_SIZE, "images of the validation split; 0: none, the last epoch counts", recipe=True),
    "views": key(VIEWS, "augmented versions of every image"),
}
