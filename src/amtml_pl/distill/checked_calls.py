"""Calls of loss terms and weightings whose mistakes become messages with their names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.errors import UserError, raised_by
from amtml_pl.models.feature_map import type_and_shape
from amtml_pl.system.limits import exhausted_resource
from amtml_pl.types import Labels, ModelOutputs, Step, TeacherOutputs, TeacherWeights
from amtml_pl.weighting.scheme import Weighting


def value_of(name: str, term: nn.Module, step: Step) -> Float[Tensor, ""]:
    """Return a term's unweighted value; its mistakes become UserErrors with its name.

    Args:
        name: of the term, as in ``loss``.
        term: a `LossTerm`.
        step: its input.

    Raises:
        UserError: if the term raises an exception, or returns anything but one scalar.
    """
    if torch.compiler.is_compiling():  # an eager step comes first, see `DistillModule.compile_step`
        return cast("Tensor", term(step))
    with errors_named(f"loss.{name}"):
        value = term(step)
    if isinstance(value, Tensor) and value.ndim == 0:
        return value
    fix = "with a mean over the batch: return value.mean()"
    if not isinstance(value, Tensor):
        fix = "with a tensor: without .item(), float() or numpy"
    raise UserError(
        f"loss.{name} does not return one scalar for a batch (got {type_and_shape(value)}, expected "
        "a tensor of shape ()).",
        fix=f"end forward of {type(term).__name__} {fix}",
    )


def weights_of(
    weighting: Weighting, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels
) -> TeacherWeights:
    """Return the weights (B, M); mistakes of the weighting become UserErrors with its name.

    Raises:
        UserError: if the weighting raises an exception, or returns anything but a tensor (B, M).
    """
    if torch.compiler.is_compiling():
        return cast("Tensor", weighting(student, teachers, labels))
    with errors_named("weighting"):
        weights = weighting(student, teachers, labels)
    expected = tuple(teachers.logits.shape[:2])
    if isinstance(weights, Tensor) and weights.shape == expected:
        return weights
    raise UserError(
        f"The weighting does not return a weight for each image and teacher (got {type_and_shape(weights)}, "
        f"expected a tensor of shape {expected}).",
        fix=f"end forward of {type(weighting).__name__} with a tensor of shape (B, M), whose rows sum to 1",
    )


@contextmanager
def errors_named(place: str, method: str = "forward") -> Iterator[None]:
    """Turn an exception of a part's method into a UserError that names both.

    A lack of memory is not a mistake of the part: it stays as it is.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if exhausted_resource(error) is not None:  # explained by the command
            raise
        raise raised_by(place, method, error) from error
