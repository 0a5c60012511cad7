"""What can be proved of a training step before it is taken: every term trains what it claims to train."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from amtml_pl.distill import DistillModule
from amtml_pl.losses.soft_targets import Mixture, integrated_soft_targets
from amtml_pl.losses.term import LossTerm
from amtml_pl.student_module import StudentModule
from amtml_pl.teachers import LiveTeachers
from amtml_pl.types import Batch, Step, TeacherOutputs
from amtml_pl.weighting.scheme import Weighting

OUTWEIGHS = 100.0


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run.

    Attributes:
        name: what it is called in ``expected_defects``: the kind of defect, and whose it is.
        what: a sentence on it, with what was found and what was expected.
    """

    name: str
    what: str


@dataclass(frozen=True)
class Examination:
    """What the examination of a step has found.

    Attributes:
        findings: what is wrong.
        warnings: what is worth a look.
        share: of each term in the gradient that reaches the student, in [0, 1].
    """

    findings: Sequence[Finding] = ()
    warnings: Sequence[str] = ()
    share: Mapping[str, float] = field(default_factory=dict)


def examine(module: StudentModule, batch: Batch) -> Examination:
    """Takes a training step apart without taking it.

    Parameters, running statistics, random state and accounts are left as they were. Where a method steps
    several networks in a loop of its own, what it says of itself in ``self_check`` takes the place of the
    checks of the terms.

    Args:
        module: with its teachers connected.
        batch: some training images; at least two.
    """
    if findings := [*teacher_findings(module)]:  # nothing else can be trusted then
        return Examination(findings)
    findings = [*optimizer_findings(module)]
    findings += [Finding(name, what) for name, what in module.self_check()]
    if not isinstance(module, DistillModule):
        return Examination(findings)
    with as_it_was(module):
        module.repeatable()
        step = module.distill_step(batch)
        values = module.values(step)
        findings += [*weight_findings(module, step), *order_findings(module, step)]
        findings += target_findings(module, step)
        length: dict[str, float] = {}
        for name, term in terms_in_use(module):
            gradient = Gradient.of(module, term, module.coef[name] * values[name])
            findings += gradient_findings(module, name, term, gradient)
            if term.trains_student:
                length[name] = gradient.student
    return Examination(findings, [*outweighing(length)], shares(length))


def terms_in_use(module: DistillModule) -> Iterator[tuple[str, LossTerm]]:
    """The terms whose coefficient is not 0."""
    for name, term in zip(module.terms, module.loss_terms(), strict=True):
        if module.coef[name]:
            yield name, term


# ---- teachers and optimisers


def teacher_findings(module: StudentModule) -> Iterator[Finding]:
    """Live teachers that are not frozen."""
    source = module.teacher_source
    for teacher in source.teachers if isinstance(source, LiveTeachers) else ():
        if any(part.training for part in teacher.network.modules()):
            yield Finding(
                f"teacher-in-training-mode/{teacher.name}",
                f"teacher {teacher.name!r} is in training mode: its dropout and batch norm would change its "
                "outputs; expected evaluation mode",
            )
        if any(parameter.requires_grad for parameter in teacher.network.parameters()):
            yield Finding(
                f"trainable-teacher/{teacher.name}",
                f"parameters of teacher {teacher.name!r} ask for a gradient; expected frozen ones",
            )


def optimizer_findings(module: StudentModule) -> Iterator[Finding]:
    """Trainable parameters that are in no optimiser, or in several groups."""
    groups = [group["params"] for optimizer in optimizers_of(module) for group in optimizer.param_groups]
    held = Counter(id(parameter) for parameters in groups for parameter in parameters)
    wrong: dict[tuple[str, str], list[str]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and held[id(parameter)] != 1:
            kind = "in-several-groups" if held[id(parameter)] else "in-no-optimizer"
            owner = (
                ".".join(name.split(".")[:2]) if name.startswith(("terms.", "peers.")) else name.split(".")[0]
            )
            wrong.setdefault((kind, owner), []).append(name)
    for (kind, owner), names in wrong.items():
        yield Finding(
            f"{kind}/{owner}",
            f"{len(names)} trainable parameters of {owner!r} are {kind.replace('-', ' ')}, e.g. "
            f"{names[0]!r}; expected each in exactly one group of one optimiser",
        )


def optimizers_of(module: StudentModule) -> list[Optimizer]:
    """The optimisers that the module would train with, made for this question."""
    return [*optimizers_in(module.configure_optimizers())]


def optimizers_in(made: object) -> Iterator[Optimizer]:
    """Those in whatever shape Lightning lets them be given: alone, listed, beside their schedules."""
    if isinstance(made, Optimizer):
        yield made
    elif isinstance(made, Mapping):
        yield from optimizers_in(made["optimizer"])
    elif isinstance(made, Sequence):
        for each in made:
            yield from optimizers_in(each)


# ---- gradients


@dataclass(frozen=True)
class Gradient:
    """L2 norms of a term's gradient, times its coefficient, for whom it may train.

    Attributes:
        student: for the student.
        own: for what the term learns itself; None where it learns nothing.
        weighting: for a learned weighting; None where there is none.
    """

    student: float
    own: float | None
    weighting: float | None

    @staticmethod
    def of(module: DistillModule, term: LossTerm, value: Float[Tensor, ""]) -> Gradient:
        """The norms for one weighted term."""
        parts = (module.student, term, module.weighting or nn.Module())
        groups = [[p for p in part.parameters() if p.requires_grad] for part in parts]
        parameters = [parameter for group in groups for parameter in group]
        if not value.requires_grad:
            gradients: Sequence[Tensor | None] = [None] * len(parameters)
        else:
            gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        norms, rest = [], list(gradients)
        for group in groups:
            norms.append(norm(rest[: len(group)]) if group else None)
            rest = rest[len(group) :]
        return Gradient(norms[0] or 0.0, norms[1], norms[2])


def norm(gradients: Iterable[Tensor | None]) -> float:
    """The L2 norm of gradients together; a parameter without one counts 0."""
    return math.sqrt(sum(float(g.double().square().sum()) for g in gradients if g is not None))


def gradient_findings(
    module: DistillModule, name: str, term: LossTerm, gradient: Gradient
) -> Iterator[Finding]:
    """Where a term does not train what it claims to."""
    claimed = {"the student": gradient.student if term.trains_student else None}
    claimed["what it learns itself"] = gradient.own
    if term.trains_weighting or (not term.trains_student and module.learns_weights):
        claimed["the weighting"] = gradient.weighting
    kinds = {"the student": "dead-term", "the weighting": "idle-for-the-weighting"}
    for whom, length in claimed.items():
        if length is None:
            continue
        if not math.isfinite(length):
            yield Finding(
                f"not-finite-gradient/{name}",
                f"the gradient of the term {name!r} for {whom} is {length}; expected a finite one",
            )
        elif length == 0.0:
            yield Finding(
                f"{kinds.get(whom, 'idle-projections')}/{name}",
                f"the term {name!r} (coef {module.coef[name]:g}) gives {whom} no gradient: it would change "
                "the logged loss and train nothing",
            )
    if term.learns and gradient.own is None:
        yield Finding(
            f"untrained-projections/{name}",
            f"the term {name!r} is to learn projections, and has no trainable parameter",
        )


def shares(length: Mapping[str, float]) -> dict[str, float]:
    """Each norm as a share of their sum."""
    total = sum(length.values())
    return {name: value / total if total > 0 else 0.0 for name, value in length.items()}


def outweighing(length: Mapping[str, float]) -> Iterator[str]:
    """A warning where one term's gradient is a hundred times that of the rest together."""
    for name, value in length.items():
        rest = sum(length.values()) - value
        if rest > 0 and value > OUTWEIGHS * rest:
            yield (
                f"the term {name!r} outweighs the rest {value / rest:,.0f}-fold in the student's gradient: "
                f"lower coef.{name}, or raise the others"
            )


# ---- weights and targets


def weight_findings(module: DistillModule, step: Step) -> Iterator[Finding]:
    """Weights that do not sum to 1, or that the student can choose."""
    weighed: dict[str, Tensor | None] = {"weighting": step.weights}
    weighed |= {name: term.own_weights(step) for name, term in terms_in_use(module)}
    student = [parameter for parameter in module.student.parameters() if parameter.requires_grad]
    for name, weights in weighed.items():
        if weights is None:
            continue
        sums = weights.detach().sum(dim=1)
        if not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            yield Finding(
                f"unnormalised-weights/{name}",
                f"the teachers' weights of {name!r} sum to {sums.min():.4f} to {sums.max():.4f}; expected 1",
            )
        if not weights.requires_grad:
            continue
        gradient = torch.autograd.grad(weights.square().sum(), student, retain_graph=True, allow_unused=True)
        if norm(gradient) > 0:
            yield Finding(
                f"weights-of-the-students-choice/{name}",
                f"the teachers' weights of {name!r} have a gradient to the student, which can lower its loss "
                "by choosing easy targets; expected constants for the student",
            )


def order_findings(module: DistillModule, step: Step) -> Iterator[Finding]:
    """What depends on the order in which the teachers are listed."""
    if (
        step.teachers is None
        or step.weights is None
        or len(step.teachers.names) < 2
        or module.weighting is None
    ):
        return
    order = list(reversed(range(len(step.teachers.names))))
    names = tuple(step.teachers.names[position] for position in order)
    turned = TeacherOutputs(names, step.teachers.logits[:, order], step.teachers.hints)
    if not module.weighting.orders_teachers:
        listed = weights_far_and_near(module.weighting, step, step.teachers)
        if not torch.allclose(
            weights_far_and_near(module.weighting, step, turned), listed[:, order], atol=1e-3
        ):
            yield Finding(
                "order-of-the-teachers/weighting",
                f"{type(module.weighting).__name__} gives other weights when the teachers are listed in "
                "another order, as they are or once they and the student nearly agree",
            )
    other = replace(step, teachers=turned, weights=step.weights[:, order])
    for name, term in terms_in_use(module):
        if term.orders_teachers:
            continue
        module.repeatable()
        value = term(step)
        module.repeatable()
        if not torch.allclose(value, term(other), rtol=1e-3, atol=1e-6):
            yield Finding(
                f"order-of-the-teachers/{name}",
                f"the term {name!r} has another value when the teachers are listed in another order",
            )


def weights_far_and_near(weighting: Weighting, step: Step, teachers: TeacherOutputs) -> Float[Tensor, "B2 M"]:
    """The weights of a step, and below them those of one whose logits differ a hundredth as much.

    Differences become so small at the end of a training; a scheme that solves for something must not stop
    solving there.
    """
    middle = teachers.logits.mean(dim=1, keepdim=True)
    near = TeacherOutputs(teachers.names, middle + 0.01 * (teachers.logits - middle), teachers.hints)
    logits = middle[:, 0] + 0.01 * (step.student.logits - middle[:, 0])
    return torch.cat(
        [
            weighting(step.student, teachers, step.labels),
            weighting(replace(step.student, logits=logits), near, step.labels),
        ]
    )


def target_findings(module: DistillModule, step: Step) -> Iterator[Finding]:
    """Terms that a student which has reached the soft targets could not bring to 0.

    The targets are those of teachers with random and clearly different outputs: the run's own may be so
    poor, or so alike, that nothing could be told.
    """
    if step.teachers is None or step.weights is None:
        return
    logits = 3 * torch.randn_like(step.teachers.logits)
    sharp = replace(step, teachers=TeacherOutputs(step.teachers.names, logits, step.teachers.hints))
    for name, term in terms_in_use(module):
        if not term.vanishes_at_targets:
            continue
        temperature = float(getattr(term, "temperature", 1.0))
        mixture: Mixture = getattr(term, "mixture", "probabilities")
        targets = integrated_soft_targets(logits, step.weights.detach(), temperature, mixture)
        smallest = torch.finfo(targets.dtype).tiny
        perfect = replace(step.student, logits=temperature * targets.clamp_min(smallest).log())
        value, usual = (float(term(each).detach()) for each in (replace(sharp, student=perfect), sharp))
        if abs(value) > 1e-5 + 1e-3 * abs(usual):
            yield Finding(
                f"not-zero-at-the-targets/{name}",
                f"the term {name!r} is {value:.3g} for a student whose softened output is the soft targets, "
                f"and {usual:.3g} for the untrained one; expected 0",
            )


@contextmanager
def as_it_was(module: StudentModule) -> Iterator[None]:
    """Training mode inside; afterwards buffers, modes, random state and accounts as before."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    modes = {part: part.training for part in module.modules()}
    seconds = module.teacher_seconds
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        module.train()
        try:
            yield
        finally:
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
            restore(modes)
            module.teacher_seconds = seconds


def restore(modes: Mapping[nn.Module, bool]) -> None:
    """Puts every module back in its mode, one by one."""
    for part, training in modes.items():
        part.training = training
