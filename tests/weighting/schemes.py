"""Weightings and steps for their tests."""

import torch

from amtml_pl.types import TensorShapes
from steps import make_step

SHAPES = TensorShapes(classes=5, teachers=("t0", "t1", "t2"))


def weigh(scheme, step):
    return scheme(step.student, step.teachers, step.labels)


def step_and_weights(scheme, B=6, M=3, D=8, **options):
    """Return a step and the weights of a scheme that is built for it."""
    step = make_step(B, M, taps={"last": (D, 4, 4)}, **options)
    torch.manual_seed(0)
    scheme.build(TensorShapes(classes=5, teachers=step.teachers.names, student={"last": (D, 4, 4)}))
    return step, weigh(scheme, step)


def held_out(N=400):
    """Return logits of a good, a poor and a useless teacher, and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (N,), generator=generator)
    noise = torch.randn(N, 3, 4, generator=generator)
    signal = torch.nn.functional.one_hot(labels, 4)[:, None] * torch.tensor([3.0, 1.0, 0.0])[None, :, None]
    return noise + signal, labels
