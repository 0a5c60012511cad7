"""Write small data sets in the official formats, with a colour for each class."""

from __future__ import annotations

import colorsys
import hashlib
import io
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def write_cifar10(folder: Path, *, train_per_class: int = 4, test_per_class: int = 2) -> Path:
    """``cifar-10-python.tar.gz`` with five training batches, and pickles of protocol 2 as in the original."""
    rng = np.random.default_rng(0)
    train, test = (_cifar_rows(rng, 10, n) for n in (train_per_class, test_per_class))
    members = {"batches.meta": {"label_names": list(CIFAR10_CLASSES), "num_vis": 3072}}
    for i in range(5):
        rows = slice(i, None, 5)
        members[f"data_batch_{i + 1}"] = {"data": train[0][rows], "labels": train[1][rows]}
    members["test_batch"] = {"data": test[0], "labels": test[1]}
    return write_tar(folder / "cifar-10-python.tar.gz", "cifar-10-batches-py", pickled(members))


def write_cifar100(folder: Path, *, train_per_class: int = 1, test_per_class: int = 1) -> Path:
    """``cifar-100-python.tar.gz`` with fine and coarse labels."""
    rng = np.random.default_rng(0)
    fine = [f"fine {i:02d}" for i in range(100)]
    members = {"meta": {"fine_label_names": fine, "coarse_label_names": [f"coarse {i}" for i in range(20)]}}
    for name, per_class in (("train", train_per_class), ("test", test_per_class)):
        pixels, labels = _cifar_rows(rng, 100, per_class)
        coarse = [label // 5 for label in labels]
        members[name] = {"data": pixels, "fine_labels": labels, "coarse_labels": coarse}
    return write_tar(folder / "cifar-100-python.tar.gz", "cifar-100-python", pickled(members))


def write_cinic10(folder: Path, *, train_per_class=2, val_per_class=1, test_per_class=1) -> Path:
    """``CINIC-10.tar.gz``: train, valid and test at the top, with one folder of PNGs per class."""
    rng = np.random.default_rng(0)
    members = {}
    for split, per_class in (("train", train_per_class), ("valid", val_per_class), ("test", test_per_class)):
        for label, name in enumerate(CIFAR10_CLASSES):
            for i in range(per_class):
                image = class_image(rng, label, 10, (32, 32))
                members[f"{split}/{name}/cifar10-{split}-{i}.png"] = encoded(image, "PNG")
    return write_tar(folder / "CINIC-10.tar.gz", ".", members)


def write_tiny_imagenet(folder: Path, *, classes=4, train_per_class=3, test_per_class=2) -> Path:
    """``tiny-imagenet-200.zip`` with fewer classes; the first training image of each class is grey."""
    rng = np.random.default_rng(0)
    ids = [f"n{i:08d}" for i in range(classes)]
    members, annotations = {}, []
    for label, wnid in enumerate(ids):
        for i in range(train_per_class):
            image = class_image(rng, label, classes, (64, 64)).convert("L" if i == 0 else "RGB")
            members[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = encoded(image, "JPEG")
        members[f"train/{wnid}/{wnid}_boxes.txt"] = b""
    for i in range(classes * test_per_class):
        image = class_image(rng, i % classes, classes, (64, 64))
        members[f"val/images/val_{i}.JPEG"] = encoded(image, "JPEG")
        annotations.append(f"val_{i}.JPEG\t{ids[i % classes]}\t0\t0\t63\t63\n")
    members["val/val_annotations.txt"] = "".join(annotations).encode()
    words = [f"{wnid}\tclass {i}, second word\n" for i, wnid in enumerate(ids)]
    members["words.txt"] = "".join([*words, "n99999999\tnot among them\n"]).encode()
    archive = folder / "tiny-imagenet-200.zip"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in members.items():
            file.writestr(f"tiny-imagenet-200/{name}", content)
    return archive


def write_image_folder(
    folder: Path, *, classes=("cat", "dog", "owl"), per_class=None, size=(32, 32), suffix=".png"
) -> Path:
    """``<folder>/<subfolder>/<class>/<number><suffix>``, by default with train (4 each) and test (2 each)."""
    rng = np.random.default_rng(0)
    for subfolder, count in ({"train": 4, "test": 2} if per_class is None else per_class).items():
        for label, name in enumerate(classes):
            (folder / subfolder / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                image = class_image(rng, label, len(classes), size)
                image.save(folder / subfolder / name / f"{i:04d}{suffix}")
    return folder


def class_image(rng: np.random.Generator, label: int, classes: int, size: tuple[int, int]) -> Image.Image:
    """Noise around the colour of a class; ``size`` is (width, height)."""
    colour = 255 * np.array(colorsys.hsv_to_rgb(label / classes, 0.8, 0.8))
    noisy = colour + rng.normal(0, 20, (size[1], size[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def pickled(members: dict[str, dict[str, object]]) -> dict[str, bytes]:
    return {name: pickle.dumps(content, protocol=2) for name, content in members.items()}


def write_tar(archive: Path, top: str, members: dict[str, bytes]) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive


def checksums(archive: Path) -> dict[str, Any]:
    """Return the arguments with which a source accepts an archive as official."""
    members = {}
    if archive.name.startswith("cifar"):
        with tarfile.open(archive) as tar:
            members = {Path(m.name).name: md5(tar.extractfile(m).read()) for m in tar.getmembers()}
    return {"md5": md5(archive.read_bytes()), "members": members}


def official(archive: Path) -> str:
    """Return the override with which a run accepts an archive as official."""
    return f"dataset.source.md5={md5(archive.read_bytes())}"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _cifar_rows(rng: np.random.Generator, classes: int, per_class: int) -> tuple[np.ndarray, list[int]]:
    """Rows of 1,024 red, 1,024 green and 1,024 blue values."""
    labels = [label for _ in range(per_class) for label in range(classes)]
    images = [np.asarray(class_image(rng, label, classes, (32, 32))) for label in labels]
    return np.stack(images).transpose(0, 3, 1, 2).reshape(len(labels), -1), labels
