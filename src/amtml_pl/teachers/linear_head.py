"""Fit a linear classifier on a frozen backbone's features, and keep it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from amtml_pl.errors import UserError
from amtml_pl.system.files import digest_of_file, write_bytes
from amtml_pl.system.records import Sealed, Share, read_record, write_record

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # inverse strengths of the L2 penalty on standardised features
STEPS = 200  # of L-BFGS at most; one that needs more is stopped, at the same point each time


@dataclass(frozen=True)
class Labelled:
    """Features of a split's images, with their labels."""

    features: Float[Tensor, "N D"]
    labels: Int64[Tensor, " N"]


class HeadRecord(Sealed):
    """How a classifier was fitted: its accuracy on the validation split, C, file and causes."""

    format: Literal[1] = 1
    accuracy: Share
    C: float
    sha256: str
    identity: dict[str, Any]


@dataclass(frozen=True)
class FittedHead:
    """A classifier, from D features to K logits, and its record."""

    linear: nn.Linear
    record: HeadRecord


def fit_head(train: Labelled, val: Labelled, classes: int) -> tuple[nn.Linear, float, float]:
    """Return the classifier with the best validation accuracy, that accuracy, and its C.

    Multinomial logistic regression by scikit-learn, in float64 on standardised features; mean and deviation
    are then part of weight and bias. Of equally accurate classifiers the one with the smallest C is taken.
    One thread computes: several round otherwise, and are slower here.

    Raises:
        UserError: if a class has no training image.
    """
    if missing := sorted({*range(classes)} - {*train.labels.tolist()}):
        raise UserError(
            f"head=linear cannot be fitted: the training images have no image of the classes {missing[:10]}.",
            fix="data.classes=null data.train_size=null",
        )
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    raw, raw_val = (split.features.double().numpy() for split in (train, val))
    mean, deviation = raw.mean(axis=0), scale_of(raw)
    x, x_val = (raw - mean) / deviation, (raw_val - mean) / deviation
    labels, labels_val = train.labels.numpy(), val.labels.numpy()
    model = LogisticRegression(solver="lbfgs", max_iter=STEPS, warm_start=True)
    fits: list[tuple[float, float, Any, Any]] = []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for C in GRID:
            model.set_params(C=C).fit(x, labels)
            accuracy = float((model.predict(x_val) == labels_val).mean())
            fits.append((accuracy, C, model.coef_.copy(), model.intercept_.copy()))
    accuracy, C, weight, bias = max(fits, key=lambda fit: fit[0])  # the first of equal ones
    if classes == 2:  # one row, of the second class against the first
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / deviation
    return linear_of(torch.from_numpy(weight), torch.from_numpy(bias - weight @ mean)), accuracy, C


def scale_of(features: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " D"]:
    """Return the features' standard deviations, raised where one hardly varies."""
    deviation = features.std(axis=0)
    raised: Float[np.ndarray, " D"] = np.maximum(deviation, 1e-6 * (deviation.max() or 1e6))
    return raised


def linear_of(weight: Float[Tensor, "K D"], bias: Float[Tensor, " K"]) -> nn.Linear:
    """Return a frozen layer in float32 with given weights."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # without random numbers
    linear.load_state_dict({"weight": weight.float(), "bias": bias.float()}, assign=True)
    return linear.requires_grad_(False).eval()


def write_head(
    file: Path, linear: nn.Linear, accuracy: float, C: float, identity: Mapping[str, Any]
) -> FittedHead:
    """Write the weights, then the record that makes them count."""
    write_bytes(file, safetensors.torch.save(linear.state_dict()))
    record = HeadRecord(accuracy=accuracy, C=C, sha256=digest_of_file(file), identity=dict(identity))
    write_record(file.with_suffix(".json"), record)
    return FittedHead(linear, record)


def read_head(file: Path) -> FittedHead | None:
    """Return a classifier; None if missing, damaged, or not of its record."""
    with suppress(UserError, OSError, safetensors.SafetensorError, KeyError):
        record = read_record(HeadRecord, file.with_suffix(".json"), fix=f"rm '{file}'")
        if digest_of_file(file) == record.sha256:
            weights = safetensors.torch.load_file(file)
            return FittedHead(linear_of(weights["weight"], weights["bias"]), record)
    return None
