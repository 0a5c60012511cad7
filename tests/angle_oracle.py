"""The angle loss by its definition: all B³ angles at once."""

import torch
import torch.nn.functional as F


def angles(points):
    """Return the cosine of every angle at every vertex, (B, B, B), by definition."""
    difference = points[None, :, :] - points[:, None, :]
    squared_length = difference.square().sum(dim=2, keepdim=True)
    apart = squared_length > 1e-24
    length = torch.where(apart, squared_length, 1.0).sqrt()
    direction = torch.where(apart, difference / length, 0.0)
    return direction @ direction.transpose(1, 2)


def naive_angle_loss(student, target):
    return F.smooth_l1_loss(angles(student), angles(target.detach()))
