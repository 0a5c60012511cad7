"""Whether the networks of a run fit together, seen on torch's meta device: no weight or image is read."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from omegaconf import DictConfig
from torch import nn

from amtml_pl.config.build import build
from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork, tap_shapes
from amtml_pl.system.console import quieten
from amtml_pl.teachers.selected import selected_teachers
from amtml_pl.training import assemble

SETTINGS = "the values of optimizer, scheduler or trainer that the message names; --cfg job shows them"


def check_parts(config: DictConfig) -> None:
    """The third stage, of a configuration whose values and arguments are sound: taps, classes, hints.

    A network whose constructor or forward needs numbers, which the meta device has not, is left to the run,
    and so is one whose constructor loads weights.

    Raises:
        UserError: with everything that does not fit, of the student and of every teacher.
    """
    quieten()  # again: when Lightning is imported, it sets the level of its own log
    problems = [*student_problems(config), *teacher_problems(config), *training_problems(config)]
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listed = "\n".join("  - " + str(problem).replace("\n", "\n    ") for problem in problems)
        raise UserError(f"The run has {len(problems)} parts that do not fit:\n{listed}")


def student_problems(config: DictConfig) -> Iterator[UserError]:
    """What is wrong with the student: its taps and its classes."""
    try:
        parts = [*assemble.loss_terms(config).values()]
        if config.teacher:
            parts.append(build(config.weighting))
        taps = [tap for part in parts for tap in part.student_taps()]
        with torch.device("meta"):
            mean, std = list(config.dataset.mean), list(config.dataset.std)
            network = TappedNetwork(build(config.student.network), mean=mean, std=std, taps=taps)
            assemble.check_classes_of_student(config, tap_shapes(network, config.dataset.image_size)[0])
    except UserError as problem:
        if not needs_numbers(problem):
            yield problem


def training_problems(config: DictConfig) -> Iterator[UserError]:
    """What the optimiser, its schedule over all epochs, and the trainer refuse."""
    try:
        optimizer = build(config.optimizer)([nn.Parameter(torch.zeros(()))])
        if (make := build(config.scheduler)) is not None:
            schedule = make(optimizer)
            for _ in range(config.trainer.max_epochs):
                optimizer.step()
                schedule.step()
    except UserError as problem:
        yield problem
    except Exception as error:  # whatever a constructor raises that was given the wrong number
        yield UserError(f"The optimiser or its scheduler cannot be built: {error}.", fix=SETTINGS)
    try:
        build(config.trainer, partial=True)(devices=1, num_nodes=1, logger=False)
    except UserError as problem:
        yield problem
    except Exception as error:
        yield UserError(f"The trainer cannot be built: {str(error).splitlines()[0]}", fix=SETTINGS)


def teacher_problems(config: DictConfig) -> Iterator[UserError]:
    """What is wrong with each teacher: its classes, its class map, the hints that terms read."""
    try:
        selected = selected_teachers(config, assemble.loss_terms(config))
    except UserError as problem:
        yield problem
        return
    for teacher in selected:
        if config.teacher[teacher.name].pretrained:
            continue
        try:
            with torch.device("meta"):
                network = teacher.fresh()
                network.check_classes(config.dataset.num_classes, config.dataset.image_size)
                network.hint_shapes(config.dataset.image_size)
        except UserError as problem:
            if not needs_numbers(problem):
                yield problem


def needs_numbers(problem: UserError) -> bool:
    """Whether a network has stumbled over the device that has none."""
    return "meta" in str(problem.__cause__ or "")
