"""Small training steps with random but fixed tensors."""

from dataclasses import replace
from functools import partial

import torch

from amtml_pl.distill.step import DistillModule
from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.models.taps import TappedNetwork, tap_shapes
from amtml_pl.teachers.live import LiveTeachers, Teacher
from amtml_pl.types import ModelOutputs, OfferedFeatures, Step, TeacherOutputs, TensorShapes

CLASSES, STAGES = 4, ("layer1", "layer2", "layer3")


def make_step(B=6, M=3, K=5, *, seed=0, epoch=0, weights=None, taps=None, hints=None, dtype=torch.float32):
    """Return a step whose student logits and weights are leaves, to check their gradients."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    student = ModelOutputs(
        normal(B, K).requires_grad_(),
        {name: normal(B, *shape).requires_grad_() for name, shape in (taps or {}).items()},
    )
    names = tuple(f"t{m}" for m in range(M))
    teachers = TeacherOutputs(
        names, 3 * normal(B, M, K), {name: normal(B, *shape) for name, shape in (hints or {}).items()}
    )
    if weights is None:
        weights = normal(B, M).softmax(dim=1)
    labels = torch.randint(K, (B,), generator=generator)
    weights = weights.detach().requires_grad_()
    return Step(student=student, labels=labels, epoch=epoch, teachers=teachers, weights=weights)


def with_gaps(B=6, M=3, K=5, *, seed=0, **options):
    """Return a step whose teachers know two or more of the classes each, at random."""
    step = make_step(B, M, K, seed=seed, **options)
    generator = torch.Generator().manual_seed(seed)
    number = torch.randint(2, K + 1, (M, 1), generator=generator)
    known = torch.rand(M, K, generator=generator).argsort(dim=1) < number
    logits = step.teachers.logits.masked_fill(~known, -torch.inf)
    return replace(step, teachers=replace(step.teachers, logits=logits))


def small_network(taps=()):
    return TappedNetwork(CifarResNet(8, CLASSES, [4, 4, 8, 8]), mean=[0.5] * 3, std=[0.2] * 3, taps=taps)


def small_module(terms, weighting, coef=None, kind=DistillModule, teachers=("t0", "t1"), **optimizer):
    """Return a loop with a small student and small teachers."""
    torch.manual_seed(0)
    student = small_network(STAGES)
    source = LiveTeachers([Teacher(name, small_network(("layer3",))) for name in teachers])
    offered = dict.fromkeys(source.names, OfferedFeatures("layer3"))
    hints = {f"{name}/layer3": (8, 8, 8) for name in source.names}
    shapes = TensorShapes(CLASSES, source.names, tap_shapes(student, 32)[1], hints, offered)
    for part in (*terms.values(), weighting):
        part.build(shapes)
    coef, sgd = coef or dict.fromkeys(terms, 1.0), partial(torch.optim.SGD, lr=0.1, **optimizer)
    return kind(student, terms, coef, CLASSES, sgd, teachers=source, weighting=weighting)
