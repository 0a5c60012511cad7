"""Losses of features, computed by loops."""

import numpy as np
import torch
from torch import nn

from amtml_pl.types import OfferedFeatures
from golden_steps import golden_term


def regressed_by_loops(term, step):
    """Return each teacher's regression: pooling, 1×1 convolution, batch norm, ReLU where it has one."""
    found = []
    for regressor, name in zip(term.regressors, term.names, strict=True):
        target = step.teachers.hints[name]
        made = resized_by_loops(step.student.features[term.student_stage], *target.shape[2:])
        made = normalised_by_loops(convolved_by_loops(made, regressor.project), regressor.norm)
        ends_in_relu = term.activation == "relu" or min(target.flatten().tolist()) >= 0
        found.append(made.clamp_min(0) if ends_in_relu else made)
    return found


def resized_by_loops(maps, H, W):
    """Return maps whose every position is the mean of the old ones that it covers any part of."""
    rows, columns = (covered(*sizes) for sizes in ((maps.shape[2], H), (maps.shape[3], W)))
    means = [maps[:, :, ys][:, :, :, xs].mean(dim=(2, 3)) for ys in rows for xs in columns]
    return torch.stack(means, dim=2).unflatten(2, (H, W))


def covered(old, new):
    return [
        [n for n in range(old) if n * new < (i + 1) * old and (n + 1) * new > i * old] for i in range(new)
    ]


def convolved_by_loops(maps, convolution):
    """Return the channels' weighted sum and the bias at every position of every sample."""
    B, _, H, W = maps.shape
    kernel = convolution.weight[:, :, 0, 0]
    columns = [
        kernel @ maps[b, :, y, x] + convolution.bias for b in range(B) for y in range(H) for x in range(W)
    ]
    return torch.stack(columns).unflatten(0, (B, H, W)).permute(0, 3, 1, 2)


def normalised_by_loops(maps, norm):
    """Normalise each channel by its mean and variance in the batch, in evaluation by the running ones."""
    channels = []
    for c in range(maps.shape[1]):
        values = maps[:, c]
        mean, variance = norm.running_mean[c], norm.running_var[c]
        if norm.training:
            mean = values.sum() / values.numel()
            variance = (values - mean).square().sum() / values.numel()
        channels.append(norm.weight[c] * (values - mean) / (variance + norm.eps).sqrt() + norm.bias[c])
    return torch.stack(channels, dim=1)


def errors_by_loops(term, step):
    """Return the mean squared difference of two maps' elements, per sample and teacher."""
    found = [[] for _ in step.labels]
    for made, name in zip(regressed_by_loops(term, step), term.names, strict=True):
        for b, pair in enumerate(zip(made, step.teachers.hints[name], strict=True)):
            elements = list(zip(*(side.flatten().tolist() for side in pair), strict=True))
            found[b].append(sum((own - theirs) ** 2 for own, theirs in elements) / len(elements))
    return found


def weighted_by_loops(errors, weights):
    rows = zip(errors, weights, strict=True)
    return sum(e * w for row in rows for e, w in zip(*row, strict=True)) / len(errors)


def embedded(maps):
    return [np.array([np.mean(channel.tolist()) for channel in sample]) for sample in maps]


LOWERED = 10.0  # keeps the maps negative, so that the regressors have no ReLU; the golden ones have none


def regression_of(kind, student, teachers, matrices):
    """Return a term whose regressors are 1x1 convolutions only, and its step."""
    offered = dict.fromkeys("abc"[: len(teachers)], OfferedFeatures("last"))
    lowered = [teacher.double() - LOWERED for teacher in teachers]
    term, step = golden_term(kind(["last"]), offered, {"last": student.double()}, lowered)
    for regressor, matrix in zip(term.regressors, matrices, strict=True):
        regressor.norm = nn.Identity()
        regressor.project.weight.data = matrix.double()[:, :, None, None]
        regressor.project.bias.data.fill_(-LOWERED)
    return term, step
