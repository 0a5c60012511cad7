"""A split of small images, small teachers, and their stores: what the tests of the cache have in common."""

import io
import multiprocessing
import os
import traceback
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from amtml_pl.data.augment import Augmentation, CropFlip
from amtml_pl.data.splits import SplitRows
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.teachers.cache.build import build_stores
from amtml_pl.teachers.cache.compute import BuildOptions
from amtml_pl.teachers.cache.store import TensorStore
from amtml_pl.teachers.cache.teacher_stores import TeacherStores
from amtml_pl.teachers.live import Teacher
from amtml_pl.types import Batch, Split
from records import EXAMINED

K, ROWS, SHARD_ROWS = 4, 22, 8  # three shards, the last one short
OPTIONS = BuildOptions(batch_size=5, device="cpu")
AUGMENT = Augmentation([CropFlip(padding=2)], seed=3)
NOBODY = 65534


def split(rows=ROWS, seed=0):
    """Every third image is left out, so that a sample's number is not its stored row."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.tensor([row for row in range(2 * rows) if row % 3][:rows])
    images = torch.randint(0, 256, (2 * rows, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, K, (2 * rows,), generator=generator)
    return SplitRows("train", Split(images, labels, tuple("abcd")), chosen)


def network(seed=0, taps=("conv",)):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Sequential()
        layers.add_module("conv", nn.Conv2d(3, 6, 3, stride=2))
        layers.add_module("act", nn.ReLU())
        layers.add_module("pool", nn.AdaptiveAvgPool2d(2))
        layers.add_module("flat", nn.Flatten())
        layers.add_module("fc", nn.Linear(24, K))
    return TappedNetwork(layers, mean=[0.5] * 3, std=[0.25] * 3, taps=taps)


def stores(root, name="big", *, seed=0, taps=("conv",), logits="float16", hints="float16", rows=ROWS,
           shard_rows=SHARD_ROWS, load=None):  # fmt: skip
    """A teacher's stores; ``load`` gives its network where it is not to be that of ``seed``."""

    def store(tensor, storage):
        causes = {"weights": seed, "augment": AUGMENT.identity()}
        return TensorStore(root, name, tensor, "train", rows, causes, storage, shard_rows)

    def loaded():
        return Teacher(name, network(seed, taps) if load is None else load())

    hint_stores = {tap: store(tap, hints) for tap in taps}
    return TeacherStores(name, store("logits", logits), hint_stores, loaded, lambda _: EXAMINED)


def built(root, teachers, views, *, images=None, options=OPTIONS, console=None):
    console = console or Console(file=io.StringIO())
    return build_stores(
        teachers, split() if images is None else images, AUGMENT, views, root, options, console
    )


def batch(images, index, view, teachers=None):
    pixels = AUGMENT(images.stored.images[images.rows[index]], index, view)
    return Batch(pixels, images.stored.labels[images.rows[index]], index, view, "train", teachers)


def tree(root: Path):
    """Every file of the stores with its content; the locks are no part of them."""
    files = sorted(file for file in root.rglob("*") if file.is_file() and ".locks" not in file.parts)
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def times(root: Path):
    return {name: (root / name).stat().st_mtime_ns for name in tree(root)}


class Process:
    """A forked process that runs ``work`` as ``uid``; what it returns or raises comes back as text."""

    def __init__(self, work, uid=None):
        context = multiprocessing.get_context("fork")
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=self.run, args=(work, uid, sender))
        self.process.start()
        sender.close()

    @staticmethod
    def run(work, uid, sender):
        try:
            if uid is not None:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            sender.send(str(work()))
        except Exception as error:  # the parent looks at it
            sender.send(f"{type(error).__name__}: {error}\n{'' if error.args else traceback.format_exc()}")

    def answer(self, timeout=30):
        """The text, and None where the process was killed."""
        try:
            text = self.receiver.recv() if self.receiver.poll(timeout) else "TIMEOUT"
        except EOFError:
            text = None
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        return text
