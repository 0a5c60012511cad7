"""Check of parameter ownership: optimisers have each learned one once, no teacher's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from amtml_pl.distill.doctor.checkup import Finding
from amtml_pl.distill.module import StudentModule
from amtml_pl.teachers.live import LiveTeachers


def frozen_findings(module: StudentModule) -> Iterator[Finding]:
    """Yield findings for live teachers, or their classifiers, that are not frozen."""
    source = module.teacher_source
    networks: dict[str, nn.Module] = {f"the classifier of {name}": h for name, h in module.heads.items()}
    if isinstance(source, LiveTeachers):
        networks |= {f"teacher {each.name}": each.network for each in source.teachers}
    for whose, network in networks.items():
        name = whose.rpartition(" ")[2]
        if any(each.training for each in network.modules()):
            yield Finding(
                f"teacher-in-training-mode/{name}",
                f"{whose} is in training mode (expected evaluation mode)",
            )
        if any(parameter.requires_grad for parameter in network.parameters()):
            what = f"{whose} has trainable parameters (expected requires_grad=False)"
            yield Finding(f"trainable-teacher/{name}", what)


def optimizer_findings(module: StudentModule) -> Iterator[Finding]:
    """Yield findings for parameters in no or several optimiser groups, and for foreign ones."""
    groups = [*parameter_groups_in(module.configure_optimizers())]
    uses = Counter(id(parameter) for group in groups for parameter in group["params"])
    trainable = module.trainable_groups()
    known = {id(parameter) for parameters in trainable.values() for parameter in parameters}
    rest = [p for p in module.parameters() if p.requires_grad and id(p) not in known]
    for name, parameters in {**trainable, "the rest": rest}.items():
        counts = [uses[id(parameter)] for parameter in parameters]
        several = sum(count > 1 for count in counts)
        for kind, wrong in (("in-no-optimizer", counts.count(0)), ("in-several-groups", several)):
            if wrong:
                yield Finding(
                    f"{kind}/{name}",
                    f"{wrong} of {len(parameters)} parameters of {name!r} are {kind.replace('-', ' ')} "
                    "(expected each in exactly one parameter group of an optimiser)",
                )
    own = {id(parameter) for parameter in module.parameters()}
    for position, group in enumerate(groups):
        name = group.get("name", position)
        if foreign := sum(id(parameter) not in own for parameter in group["params"]):
            yield Finding(
                f"foreign-parameters/{name}",
                f"the optimiser's parameter group {name!r} has {foreign} parameters of other modules, "
                "such as a teacher (expected none)",
            )


def parameter_groups_in(made: object) -> Iterator[dict[str, Any]]:
    """Yield parameter groups from any form in which Lightning accepts optimisers."""
    if isinstance(made, Optimizer):
        yield from made.param_groups
    elif isinstance(made, Mapping):
        yield from parameter_groups_in(made["optimizer"])
    elif isinstance(made, Sequence):
        for each in made:
            yield from parameter_groups_in(each)
