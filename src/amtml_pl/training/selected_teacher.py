"""A teacher of the configuration: its facts, known without a network in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from amtml_pl.config.build import ObjectSpec
from amtml_pl.config.network_keys import has_own_weights
from amtml_pl.config.teacher_recipe import Recipe
from amtml_pl.errors import UserError, naming
from amtml_pl.models.classifier_head import ClassMap, map_of_classes
from amtml_pl.models.hint import HintSpec
from amtml_pl.models.taps import cost
from amtml_pl.models.teacher_head import LinearHead, NoHead
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.identity import run_folder
from amtml_pl.runs.record import RunRecord, TeacherFacts
from amtml_pl.system.files import file_digest
from amtml_pl.teachers.linear_head import FittedHead, read_head
from amtml_pl.teachers.live import Teacher, build_teacher, weights_digest
from amtml_pl.teachers.published import (
    READING,
    PublishedFile,
    classes_of_run,
    published_file,
    refuse_unfinished,
    weights_place,
)
from amtml_pl.teachers.weights import load_weights
from amtml_pl.training.head_files import HeadFiles
from amtml_pl.training.options import TeacherOptions


@dataclass(frozen=True)
class SelectedTeacher:
    """One entry of ``teacher=[...]``, with the features that the loss terms read."""

    name: str  # its key in the configuration, and in every flat name of a tensor
    network: ObjectSpec  # builds its network
    options: TeacherOptions
    recipe: Recipe  # trains it, unless its weights come from elsewhere
    image_size: int  # H = W of the data's images, before it resizes them
    teachers: Path  # the folder that keeps published weights
    heads: HeadFiles  # the classifier of a teacher with head=linear
    hints: tuple[str, ...] = ()  # each as in `amtml_pl.models.hint.HintSpec`

    def fresh(self) -> Teacher:
        """Return the teacher as constructed, without weights of a file or a recipe."""
        own = self.options
        head = None if own.head is None else NoHead(self.heads.classes)
        with naming(f"teacher.{self.name}"):
            return build_teacher(
                self.name,
                self.network.build(),
                self.hints,
                mean=own.mean,
                std=own.std,
                input_size=own.input_size,
                class_map=self.class_map,
                pool=own.pool,
                reading=own.reading,
                head=LinearHead(self.head_tap) if own.head == "linear" else head,
            )

    def load(self) -> Teacher:
        """Return the teacher with its weights; missing or unfit ones are a UserError."""
        teacher = self.fresh()
        self.load_weights(teacher)
        self.load_head(teacher)
        return teacher

    @property
    def head_tap(self) -> str | None:
        """Return the module that a fitted classifier reads; None for the network's output."""
        return None if self.options.hint is None else HintSpec.parse(self.options.hint).tap

    @property
    def features(self) -> dict[str, Any] | None:
        """Return what a fitted classifier reads, as JSON; None for the network's output."""
        return None if self.head_tap is None else {"module": self.head_tap, **vars(self.options.reading)}

    def load_head(self, teacher: Teacher) -> None:
        """Give a teacher its fitted classifier, if it needs one; none is a UserError."""
        if isinstance(teacher.network.head, LinearHead):
            if (fitted := self.fitted_head()) is None:
                what = f"The classifier of teacher {self.name!r} (head=linear) is not fitted."
                raise UserError(what, fix="pass prepare=true to fit it")
            teacher.network.head.linear = fitted.linear

    def fitted_head(self) -> FittedHead | None:
        """Return the classifier of a teacher with ``head=linear``; None before it is fitted."""
        identity = self.head_identity()
        return None if identity is None else read_head(self.heads.file(self.name, identity))

    def head_identity(self) -> dict[str, Any] | None:
        """Return all causes of the classifier; None while weights or images are missing."""
        backbone = self.backbone_identity()
        return None if backbone is None else self.heads.identity(backbone, self.features)

    def load_weights(self, teacher: Teacher) -> None:
        """Load weights into a fresh teacher; missing or unfit ones are a UserError."""
        if not self.has_own_weights:
            with self.suggesting_recipe():
                if (record := self.record()) is not None:
                    self.folder.refuse_changed(record, self.folder.weights_file)
            load_weights(teacher.network.network, self.folder.weights_file)
        elif self.place is not None:
            if (run := self.options.weights["run"]) is not None:
                refuse_unfinished(RunFolder(Path(run)))
            if self.published is not None:
                self.published.found()
            with naming(f"teacher.{self.name}"):
                load_weights(teacher.network.network, self.place, **self.reading)

    @cached_property
    def class_map(self) -> ClassMap:
        """The position of each class in its outputs."""
        if self.has_own_weights:
            own, run = self.options, self.options.weights["run"]
            # A fitted head knows all classes of the data, and the network's own classifier is not read.
            given = run is None or own.class_map is not None or own.head is not None
            return own.class_map if given else classes_of_run(RunFolder(Path(run)))
        recipe = self.recipe.config()
        return map_of_classes(recipe.data.get("classes"), recipe.dataset.num_classes)

    @property
    def has_own_weights(self) -> bool:
        """Return True if the weights come with it; otherwise its recipe trains them."""
        return has_own_weights(vars(self.options))

    @property
    def reading(self) -> dict[str, Any]:
        """How its own file is read, as arguments of `load_weights`."""
        return {key: self.options.weights[key] for key in READING if self.options.weights[key]}

    @property
    def place(self) -> Path | None:
        """The file that its configuration names, existing or not; None without."""
        return weights_place(self.options.weights, self.teachers)

    @property
    def published(self) -> PublishedFile | None:
        """The published file that its configuration names; None without."""
        return published_file(self.options.weights, self.teachers)

    @property
    def to_download(self) -> bool:
        """Return True if its weights are published and not on this machine."""
        return self.published is not None and self.published.found() is None

    def fetch(self) -> None:
        """Download missing published weights, and check that they fit the network."""
        if self.published is not None and self.to_download:
            with naming(f"teacher.{self.name}"):
                self.published.fetch()
            self.load_weights(self.fresh())

    @cached_property
    def folder(self) -> RunFolder:
        """The run folder of a teacher that its recipe trains."""
        return RunFolder(run_folder(self.recipe.config(), str(self.options.recipe), self.recipe.network))

    @contextmanager
    def suggesting_recipe(self) -> Iterator[None]:
        """Add the command that trains the teacher again to errors about its run."""
        try:
            yield
        except UserError as error:
            if isinstance(error.__cause__, OSError):  # another training does not help
                raise
            raise UserError(error.what, fix=f"{self.recipe.command()} force=true") from error

    def record(self) -> RunRecord | None:
        """Return the record of a teacher trained by its recipe; else None."""
        if self.has_own_weights:
            return None
        with self.suggesting_recipe():
            return self.folder.completed()

    def trained(self) -> RunRecord:
        """Return the record of a teacher trained just now; none is a UserError."""
        if (record := self.record()) is None:
            what = f"The training of teacher {self.name!r} in {self.folder.path} has not completed."
            raise UserError(what, fix=self.recipe.command())
        return record

    def identity(self) -> dict[str, Any] | None:
        """Return all causes of the outputs, as JSON; None while one is missing."""
        kind, backbone = self.options.head, self.backbone_identity()
        if kind is None or backbone is None:
            return backbone
        if kind == "none":
            return {**backbone, "head": {"kind": kind}}
        if (fitted := self.fitted_head()) is None:
            return None
        return {**backbone, "head": {"kind": kind, "features": self.features, "sha256": fitted.record.sha256}}

    def backbone_identity(self) -> dict[str, Any] | None:
        """Return `identity` without the head; a network is built only if its constructor loads weights."""
        own, place = self.options, self.place
        reading = {key: own.weights[key] for key in READING}
        about = {
            "network": self.network.plain(),
            "mean": own.mean,
            "std": own.std,
            "input_size": own.input_size,
            "class_map": self.class_map,
        }
        if not self.has_own_weights:
            digest = file_digest(self.folder.weights_file) if self.record() else None
            reading = {}
        elif place is None:
            return {**about, "weights": {"of_constructor": self.constructed_digest}}
        else:
            digest = file_digest(place)
        return None if digest is None else {**about, "weights": {"sha256": digest, **reading}}

    def is_as_constructed(self, teacher: Teacher) -> bool:
        """Return True if the constructor gave the same weights again; random ones differ."""
        own = self.has_own_weights and self.place is None
        return not own or weights_digest(teacher.network.network) == self.constructed_digest

    def refuse_random(self, teacher: Teacher) -> None:
        """Raise a UserError if the constructor returns other weights at each call."""
        if not self.is_as_constructed(teacher):
            other = f"teacher.{self.name}.pretrained=false to train the teacher by its recipe, or "
            if self.options.head is not None:
                without = f"teacher.{self.name}.network.num_classes=0 to leave out its classifier, or "
                other = without if self.network.target == "timm.create_model" else ""
            raise UserError(
                f"The constructor of teacher {self.name!r} returns different network weights at each "
                "call. Some of them, often those of the classifier, are random and not pretrained.",
                fix=f"set {other}teacher.{self.name}.weights.path=FILE to load trained weights",
            )

    @cached_property
    def constructed_digest(self) -> str:
        """The SHA-256 of the weights that the constructor loads by itself."""
        return weights_digest(self.fresh().network.network)

    def facts(self, teacher: Teacher) -> TeacherFacts:
        """Return the teacher's facts for a record."""
        return TeacherFacts(
            network=self.network.target,
            **vars(cost(teacher.network, self.image_size)),
            weights_digest=weights_digest(teacher.network),
            has_logits=self.options.head != "none",
        )


def names(teachers: Sequence[SelectedTeacher]) -> tuple[str, ...]:
    """Return the teachers' names in order."""
    return tuple(teacher.name for teacher in teachers)
