"""Find the teachers of a finished run by the facts in its record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.data.splits import SplitRows
from amtml_pl.errors import UserError
from amtml_pl.models.feature_map import MapReading
from amtml_pl.models.hint import HintSpec
from amtml_pl.models.teacher_head import LinearHead
from amtml_pl.results.network import build_untrained
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import TeacherFacts
from amtml_pl.teachers.cache.catalogue import path_part
from amtml_pl.teachers.cache.store import TensorStore
from amtml_pl.teachers.linear_head import read_head
from amtml_pl.teachers.live import Teacher, build_teacher, weights_digest
from amtml_pl.teachers.published import READING, weights_place
from amtml_pl.teachers.weights import load_weights


@dataclass(frozen=True)
class RecordedTeacher:
    """One teacher of a finished run.

    Attributes:
        node: its network, statistics, input size, class map and weights, as in the run's configuration.
        facts: its entry in ``run.json``.
        teachers: the root of trained teachers.
        cache: the folder of the cached outputs of all teachers.
    """

    name: str
    node: Mapping[str, Any]
    facts: TeacherFacts
    teachers: Path
    cache: Path

    def load(self) -> Teacher:
        """Return the teacher with the weights that it had in the run.

        Raises:
            UserError: if no file that can be found holds exactly these weights.
        """
        for file, how in self.candidates():
            # Without weights: nothing that a run folder names is downloaded.
            own = {key: self.node[key] for key in ("mean", "std", "input_size", "class_map", "pool")}
            hint = self.node["hint"]
            tap = None if hint is None else HintSpec.parse(hint).tap
            head = LinearHead(tap) if self.node["head"] == "linear" else None
            network, reading = build_untrained(self.node["network"]), MapReading.of(self.node)
            teacher = build_teacher(self.name, network, **own, reading=reading, head=head)
            try:
                if file is not None:
                    load_weights(teacher.network.network, file, **how)
            except UserError:  # another network's
                continue
            for linear in [None] if head is None else self.fitted_heads():
                if head is not None:
                    head.linear = linear
                if weights_digest(teacher.network) == self.facts.weights_digest:
                    return teacher
        raise self.not_here()

    def fitted_heads(self) -> Iterator[nn.Linear]:
        """Yield classifiers that may be the teacher's, those with its name first."""
        files = sorted((self.teachers / "heads").glob("*.safetensors"))
        for file in sorted(files, key=lambda file: not file.name.startswith(self.name)):
            if (fitted := read_head(file)) is not None:
                yield fitted.linear

    def candidates(self) -> Iterator[tuple[Path | None, dict[str, Any]]]:
        """Yield files that may hold its weights, and how to read each."""
        how = {key: value for key in READING if (value := self.node["weights"].get(key))}
        if self.own_file is not None:
            places = (self.own_file, self.teachers / self.own_file.name)
            yield from ((file, how) for file in places if file.is_file())
        elif self.node["pretrained"]:
            yield None, {}
        yield from ((file, {}) for file in self.trained_files())

    @property
    def own_file(self) -> Path | None:
        """The weights file that the run named; None if there was none."""
        return weights_place(self.node["weights"], self.teachers)

    def not_here(self) -> UserError:
        """Return the error for weights that are in no candidate."""
        digest = self.facts.weights_digest[:12]
        where, fix = "", "set paths.teachers to the folder with the trained teachers"
        if self.node["pretrained"]:
            where = " A finished run does not download pretrained weights."
        elif self.own_file is not None:
            state = "has other weights" if self.own_file.is_file() else "does not exist"
            where = f" The weights file {self.own_file} of the run {state}."
            if self.node["weights"].get("url") is not None:
                where += " A finished run does not download it."
            fix = f"set paths.teachers to the folder with the trained teachers or with {self.own_file.name}"
        return UserError(
            f"The file with the network weights of teacher {self.name!r} is missing below {self.teachers} "
            f"(expected digest {digest}).{where}",
            fix=fix,
        )

    def trained_files(self) -> Iterator[Path]:
        """Yield the weights of trained networks of its size, those with its name first."""
        files = sorted(self.teachers.glob("*/*/student.safetensors"))
        for file in sorted(files, key=lambda file: not file.parent.name.startswith(self.name)):
            with suppress(UserError):
                record = RunFolder(file.parent).completed()
                if record is not None and record.student.parameters == self.facts.parameters:
                    yield file

    def cached_logits(self, digest: str, rows: SplitRows) -> Float[Tensor, "N K"] | None:
        """Return its logits for an unaugmented split of packed data, if they are cached."""
        for folder in sorted((self.cache / path_part(self.name)).glob(f"logits-{rows.name}-*")):
            with suppress(UserError):  # a damaged store, perhaps another run's; the weights remain
                store = TensorStore.from_folder(folder)
                found = store.fingerprint
                same = (
                    found.get("data") == {"digest": digest}
                    and found.get("augment") is None
                    and found.get("split", {}).get("rows") == rows.digest
                    and self.is_of_these_weights(store)
                )
                if same and 0 in store.views():
                    store.verify(0)
                    return store.open(0).whole().float()
        return None

    def is_of_these_weights(self, store: TensorStore) -> bool:
        """Return True if a store has the outputs of these weights and settings."""
        node, about = self.node, store.fingerprint.get("teacher") or {}
        manifest = store.manifest()
        return (
            manifest is not None
            and manifest.facts.weights_digest == self.facts.weights_digest
            and all(about.get(key) == node[key] for key in ("mean", "std", "input_size", "class_map"))
        )
