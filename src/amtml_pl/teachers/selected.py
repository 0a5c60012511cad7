"""A teacher that a configuration selects: what is known of it while no network is in memory."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import nn

from amtml_pl.config.build import build
from amtml_pl.config.teacher_recipe import has_own_weights, recipe, typed_recipe
from amtml_pl.errors import UserError
from amtml_pl.losses.term import LossTerm
from amtml_pl.models.hint import Reading
from amtml_pl.models.taps import TappedNetwork, cost
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.identity import file_digest, run_folder
from amtml_pl.runs.record import RunRecord, TeacherFacts
from amtml_pl.teachers.live import Teacher, weights_digest
from amtml_pl.teachers.weights import load_weights
from amtml_pl.types import OfferedFeatures


@dataclass(frozen=True)
class SelectedTeacher:
    """One entry of ``teacher=[...]``, with the features that the loss terms read.

    Attributes:
        hints: what terms read of its modules, each as `amtml_pl.models.hint.Reading` says.
    """

    config: DictConfig
    name: str
    hints: tuple[str, ...] = ()

    def fresh(self) -> Teacher:
        """The teacher as its constructor leaves it, without the weights of a file or a recipe."""
        node: Any = OmegaConf.to_container(self.config.teacher[self.name], resolve=True)
        return build_teacher(self.name, node, build(self.config.teacher[self.name].network), self.hints)

    def load(self) -> Teacher:
        """The teacher with the weights that it teaches with.

        Raises:
            UserError: if the weights are missing or do not fit.
        """
        teacher = self.fresh()
        self.load_weights(teacher)
        return teacher

    def load_weights(self, teacher: Teacher) -> None:
        """Gives a fresh teacher its weights, in place.

        Raises:
            UserError: if the file is missing, does not fit, or is not the one that its run has left.
        """
        if self.has_own_weights:
            given: Any = OmegaConf.to_container(self.config.teacher[self.name].weights, resolve=True)
            if given["path"] is not None:
                load_weights(teacher.network.network, **{key: value for key, value in given.items() if value})
        else:
            with self.trained_again():
                if (record := self.record()) is not None:
                    self.folder.refuse_changed(record, self.folder.weights_file)
            load_weights(teacher.network.network, self.folder.weights_file)

    @property
    def pool(self) -> int | None:
        """The side that its hints are pooled to; None leaves them whole."""
        side: int | None = self.config.teacher[self.name].pool
        return side

    @property
    def min_accuracy(self) -> float | None:
        """The validation accuracy that is demanded of it; None for any."""
        least: float | None = self.config.teacher[self.name].min_accuracy
        return least

    @property
    def weights_file(self) -> str | None:
        """The file that its weights are read from; None for the constructor's or a recipe's."""
        file: str | None = self.config.teacher[self.name].weights.path
        return file

    @property
    def is_pretrained(self) -> bool:
        """Whether its constructor loads weights."""
        return bool(self.config.teacher[self.name].pretrained)

    @property
    def recipe_name(self) -> str:
        """The experiment that trains it."""
        return str(self.config.teacher[self.name].recipe)

    def recipe(self) -> DictConfig:
        """The configuration of the run that trains it."""
        return recipe(self.config, self.name)

    @property
    def has_own_weights(self) -> bool:
        """Whether it comes with weights; otherwise its recipe trains them."""
        return has_own_weights(self.config, self.name)

    @cached_property
    def folder(self) -> RunFolder:
        """The run folder of a teacher that its recipe trains."""
        return RunFolder(run_folder(self.recipe(), self.recipe_name, self.network_choice))

    @property
    def network_choice(self) -> str:
        """Which student YAML its network is; its own name where the command named none."""
        return chosen(f"student@teacher.{self.name}") or self.name

    @property
    def command(self) -> str:
        """What trains it by hand, into the folder where this run looks for it."""
        choices = {"student": self.network_choice}
        if (dataset := chosen("dataset")) is not None:
            choices["dataset"] = dataset
        words = typed_recipe(self.config, self.name, choices)
        return shlex.join(["python", "-m", "amtml_pl.train", *words])

    def completed(self) -> RunRecord | None:
        """Return the record of the run that has trained it; None before."""
        with self.trained_again():
            return self.folder.completed()

    @contextmanager
    def trained_again(self) -> Iterator[None]:
        """Inside, a teacher's damaged run is refused with the command that trains it again."""
        try:
            yield
        except UserError as error:
            if isinstance(error.__cause__, OSError):  # a permission or a disk, which training does not mend
                raise
            raise UserError(error.what, fix=f"{self.command} force=true") from error

    def record(self) -> RunRecord | None:
        """Return the record of a teacher that its recipe has trained; None before."""
        return None if self.has_own_weights else self.completed()

    def trained(self) -> RunRecord:
        """Return the record of a teacher that has just been trained.

        Raises:
            UserError: if there is none.
        """
        if (record := self.record()) is None:
            raise UserError(f"{self.folder.path} has no completed run.", fix=self.command)
        return record

    def identity(self) -> dict[str, Any] | None:
        """What decides its outputs for given pixels, as JSON; None while its weights do not exist.

        No network is built, but for weights that only the network's own constructor knows.
        """
        node: Any = OmegaConf.to_container(self.config.teacher[self.name], resolve=True)
        about = {key: node[key] for key in ("network", "mean", "std", "class_map")}
        if not self.has_own_weights:
            if self.completed() is None:
                return None
            digest = file_digest(self.folder.weights_file)
            return None if digest is None else {**about, "weights": {"sha256": digest}}
        path = node["weights"].pop("path")
        if path is None:
            return {**about, "weights": {"of_constructor": self.constructed_digest}}
        digest = file_digest(Path(path))
        return None if digest is None else {**about, "weights": {"sha256": digest, **node["weights"]}}

    def is_as_constructed(self, teacher: Teacher) -> bool:
        """Whether the weights of a constructor are the same again; a random part of them would not be."""
        own = self.has_own_weights and self.config.teacher[self.name].weights.path is None
        return not own or weights_digest(teacher.network) == self.constructed_digest

    @cached_property
    def constructed_digest(self) -> str:
        """SHA-256 of the weights that the constructor loads by itself."""
        return weights_digest(self.fresh().network)

    def facts(self, teacher: Teacher) -> TeacherFacts:
        """Return what a record holds of the teacher."""
        return TeacherFacts(
            network=self.config.teacher[self.name].network.get("_target_"),
            **vars(cost(teacher.network, self.config.dataset.image_size)),
            weights_digest=weights_digest(teacher.network),
        )


def build_teacher(
    name: str, node: Mapping[str, Any], network: nn.Module, hints: Sequence[str] = ()
) -> Teacher:
    """Return a teacher around a network."""
    taps = [Reading.of(hint).tap for hint in hints]
    tapped = TappedNetwork(network, mean=node["mean"], std=node["std"], taps=taps)
    return Teacher(name, tapped, class_map=node["class_map"], pool=node["pool"], hints=hints)


def selected_teachers(config: DictConfig, terms: Mapping[str, LossTerm]) -> tuple[SelectedTeacher, ...]:
    """The selected teachers in order, with the hints that the terms want of each.

    Raises:
        UserError: if a term wants a hint of a teacher that is not selected.
    """
    offered = offered_features(config)
    wanted: dict[str, list[str]] = {str(name): [] for name in config.teacher}
    for name in dict.fromkeys(hint for term in terms.values() for hint in term.hints(offered)):
        teacher, _, hint = name.partition("/")
        if teacher not in wanted:
            raise UserError(
                f"The hint {name!r} is of a teacher that is not selected; selected are {list(wanted)}.",
                fix="name one of them, or add it to teacher=[...]",
            )
        wanted[teacher].append(hint)
    return tuple(SelectedTeacher(config, name, tuple(hints)) for name, hints in wanted.items())


def chosen(group: str) -> str | None:
    """What the command chose of a group; None where there is no command, or nothing of the group."""
    if not HydraConfig.initialized():
        return None
    choice = HydraConfig.get().runtime.choices.get(group)
    return None if choice is None else str(choice)


def names(teachers: Sequence[SelectedTeacher]) -> tuple[str, ...]:
    """Their names in order."""
    return tuple(teacher.name for teacher in teachers)


def offered_features(config: DictConfig) -> dict[str, OfferedFeatures]:
    """Per teacher, in order, the modules whose outputs its YAML offers."""
    return {
        str(name): OfferedFeatures(node.hint, tuple(node.stages)) for name, node in config.teacher.items()
    }
