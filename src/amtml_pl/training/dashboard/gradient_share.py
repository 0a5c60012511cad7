"""How much of the gradient that reaches the student each term has, while it is trained."""

from __future__ import annotations

from torch import Tensor

from amtml_pl.distill.doctor.gradients import gradient_norms, shares
from amtml_pl.distill.doctor.step import as_it_was
from amtml_pl.distill.module import StudentModule
from amtml_pl.types import Batch

SAMPLES = 32


def gradient_shares(module: StudentModule, batch: Batch) -> dict[str, float]:
    """Each objective's L2 norm of the student's gradient as a share of their sum, as the doctor measures it.

    Nothing of the fit is changed: no step is taken, and buffers and random numbers are put back.
    """
    some = batch.map(first_samples)
    with as_it_was(module):
        parts = {"student": module.parts()["student"]}
        objectives = [each for each in module.dissect(some).objectives if "student" in each.trains]
        return shares({each.name: gradient_norms(each, parts)["student"] for each in objectives})


def first_samples(tensor: Tensor) -> Tensor:
    """Some rows; a number, such as the share of mixup, is left alone."""
    return tensor[:SAMPLES] if tensor.ndim else tensor
