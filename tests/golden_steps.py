"""Steps of the golden cases, and their tolerance: 1e-6 in float64."""

from dataclasses import replace

import torch

from amtml_pl.types import ModelOutputs, Step, TeacherOutputs, TensorShapes
from amtml_pl.weighting.uniform import UniformWeighting


def assert_golden(got, expected):
    """Compare a float64 value with a stored one, which keeps all its digits."""
    torch.testing.assert_close(got, torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def teachers_of(given):
    return given["teacher_logits"].double().transpose(0, 1)


def logit_step(student, teachers, labels=None):
    """Return a step with uniform weights."""
    B, M, _ = teachers.shape
    outputs = TeacherOutputs(tuple("abc"[:M]), teachers.double())
    labels = torch.zeros(B, dtype=torch.long) if labels is None else labels
    step = Step(student=ModelOutputs(student.double()), labels=labels, teachers=outputs, epoch=0)
    return weighted(step, UniformWeighting())


def weighted(step, scheme):
    return replace(step, weights=scheme(step.student, step.teachers, step.labels))


def golden_term(term, offered, features, maps):
    """Return a built term and a step with the given maps and uniform weights."""
    hints = dict(zip(term.hints(offered), maps, strict=True))
    sizes = [{name: tuple(f.shape[1:]) for name, f in group.items()} for group in (features, hints)]
    term.build(TensorShapes(2, tuple(offered), *sizes, offered))
    B = len(maps[0])
    step = logit_step(torch.zeros(B, 2), torch.zeros(B, len(offered), 2))
    teachers = replace(step.teachers, hints=hints)
    return term.double(), replace(step, student=replace(step.student, features=features), teachers=teachers)
