"""From a finished run to a file that holds its student: written, held against the checkpoint, then named."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from omegaconf import OmegaConf
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.evaluated_images import classes_of
from amtml_pl.exported.kinds import KINDS, is_exported
from amtml_pl.exported.model_card import ModelCard
from amtml_pl.exported.onnx_file import replace_card
from amtml_pl.exported.quantisation import quantise
from amtml_pl.exported.student import Forward, StudentLogits
from amtml_pl.finished_run import FinishedRun
from amtml_pl.json_file import read_json
from amtml_pl.latency import cpu_name, timed
from amtml_pl.output_file import named_output, refuse_unwritable, replacing, write_json
from amtml_pl.parity import (
    MOST_DIFFERENCE,
    Parity,
    ParityImages,
    batches,
    compare,
    local_images,
    parity_images,
)
from amtml_pl.rebuilt import without_beginnings
from amtml_pl.recorded_checkpoints import Which

CALIBRATION_IMAGES = 500
OTHER_FORMAT = "format=safetensors, which takes every network"


class Export:
    """One exported file of a run.

    Args:
        run: a completed one.
        checkpoint: which epoch's weights.
        kind: one of `KINDS`.
        int8: whether the student is written in 8 bits; of ONNX alone.
        int8_drop: the accuracy, in [0, 1], that it may lose by that.
        out: the file; None for the one in the run's folder.

    Attributes:
        file: what is written.
        unrecorded: why the run's ``export.json`` will not have an entry for a file elsewhere; empty where
            it will.

    Raises:
        UserError: if the format has no 8 bits or needs a package that is missing, the target cannot be
            written or is another file than an exported student, or the record that the run has of its
            exports is damaged.
    """

    def __init__(
        self,
        run: FinishedRun,
        checkpoint: Which,
        kind: str,
        *,
        int8: bool,
        int8_drop: float = 0.02,
        out: str | None = None,
    ) -> None:
        if int8 and kind != "onnx":
            raise UserError(
                f"int8=true with format={kind}: only ONNX is written in 8 bits.", fix="format=onnx"
            )
        self.run, self.checkpoint, self.format, self.int8 = run, checkpoint, kind, int8
        self.int8_drop = int8_drop
        self.kind = KINDS[kind]
        self.kind.refuse_missing_packages()
        self.record_file = run.path / "export" / "export.json"
        self.unrecorded = ""
        self.file = self.named(out) if out else self.own_file()
        try:
            refuse_unwritable(self.record_file)
        except UserError as error:
            if not out:
                raise
            self.unrecorded = error.what
        read_entries(self.record_file)  # a damaged one is refused before anything is computed

    def write(self, about: Mapping[str, Any]) -> tuple[dict[str, Any], ParityImages]:
        """Writes the file, and its entry in the run's ``export.json``.

        Args:
            about: what the entry says besides.

        Returns:
            The entry, and the images that the file was held against its checkpoint on.

        Raises:
            UserError: if the student cannot be exported, or its file does not give what the checkpoint gives.
        """
        student, card, shown = self.run.student(self.checkpoint), self.card(), parity_images(self.run)
        if self.int8 and shown.lacking:
            raise UserError(
                f"int8=true takes real images of the run to choose its scales. {shown.lacking}",
                fix="paths.data=FOLDER, where the run's own images lie; or int8=false",
            )

        def checkpoint(images: Tensor) -> Tensor:
            logits: Tensor = student(images).logits
            return logits

        with replacing(self.file) as temporary:
            parity = self.write_float32(temporary, card, checkpoint, shown)
            if self.int8:
                parity = self.write_int8(temporary, card, checkpoint, shown)
            with torch.inference_mode():
                speed = {
                    "before": timed(checkpoint, 1, card.image_size),
                    "after": timed(self.opened(temporary), 1, card.image_size),
                }
            content = temporary.read_bytes()
        entry = {
            "format": self.format,
            **self.facts(parity, shown),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "latency": {"cpu": cpu_name(), "threads": torch.get_num_threads(), "batch": 1, **speed},
            **about,
        }
        if not self.unrecorded:
            self.record(entry)
        return entry, shown

    def record(self, entry: Mapping[str, Any]) -> None:
        """Adds an entry to the run's ``export.json``, or replaces the one of the same file.

        Raises:
            UserError: if it cannot be written, or was damaged meanwhile.
        """
        self.record_file.parent.mkdir(exist_ok=True)
        with FileLock(self.record_file.with_name(".export.json.lock")):  # several exports may end together
            write_json(self.record_file, {**read_entries(self.record_file), str(entry["file"]): entry})

    def write_float32(self, file: Path, card: ModelCard, checkpoint: Forward, shown: ParityImages) -> Parity:
        """Writes the student and holds it against its checkpoint.

        Raises:
            UserError: if it cannot be written, or gives other logits.
        """
        try:
            self.kind.write(StudentLogits(self.run.student(self.checkpoint)), card, file)
        except OSError:
            raise
        except Exception as error:  # exporters fail in every possible way at what they cannot follow
            raise self.not_exported(error, self.format, fix=OTHER_FORMAT) from error
        parity = compare(checkpoint, self.opened(file), shown)
        if not parity.holds:
            raise UserError(
                f"What was exported as {self.format} does not give what the checkpoint gives: max |Δlogit| "
                f"is {parity.difference:.3g} on {shown}, expected at most {MOST_DIFFERENCE:g}. "
                "Nothing was published.",
                fix=f"{OTHER_FORMAT}; or a network whose forward depends on no value of its images",
            )
        return parity

    def write_int8(self, file: Path, card: ModelCard, checkpoint: Forward, shown: ParityImages) -> Parity:
        """Rewrites the student in 8 bits, for which training images as they are give the scales.

        Raises:
            UserError: if the quantisation cannot follow the network, or ruins it.
        """
        images = local_images(self.run, "train", CALIBRATION_IMAGES)
        try:
            quantise(file, card, (batch for batch, _ in batches(images)))
        except OSError:
            raise
        except Exception as error:  # as above
            raise self.not_exported(error, f"{self.format} in 8 bits", fix="int8=false") from error
        parity = compare(checkpoint, self.opened(file), shown)
        self.refuse_ruined(parity, shown)
        metrics = {**card.metrics, "val/acc_int8": parity.after}
        replace_card(file, replace(card, precision="int8", metrics=metrics))
        return parity

    def refuse_ruined(self, parity: Parity, shown: ParityImages) -> None:
        """Refuses a student in 8 bits that is too much worse than its checkpoint.

        Raises:
            UserError: if it gives what are no numbers, or loses more accuracy than it may.
        """
        if not math.isfinite(parity.difference):
            raise UserError(
                f"In 8 bits the student gives logits that are no finite numbers, on {shown}. "
                "Nothing was published.",
                fix="int8=false",
            )
        lost = round(parity.before - parity.after, 9)  # 1.0 - 0.98 is more than 0.02 in floating point
        if lost > self.int8_drop:
            raise UserError(
                f"In 8 bits the accuracy on {shown} falls from {parity.before:.4f} to {parity.after:.4f}, "
                f"expected to fall by at most int8_drop={self.int8_drop:g}. Nothing was published.",
                fix=f"int8=false; or int8_drop={math.ceil(lost * 100) / 100:g}, if it may lose as much",
            )

    def opened(self, file: Path) -> Forward:
        """What was just written, opened as others will open it."""
        exported = self.kind.open_file(file).forward

        def forward(images: Tensor) -> Tensor:
            try:
                return exported(images)
            except Exception as error:  # a graph that is wrong for this size of batch, in its runtime's words
                raise self.not_exported(error, self.format, fix=OTHER_FORMAT) from error

        return forward

    def not_exported(self, error: Exception, form: str, *, fix: str) -> UserError:
        """What to say where the exporter, or what it has made, fails."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return UserError(
            f"{self.run.config.student.get('_target_')} cannot be exported as {form}: "
            f"{lines[0]:.300}. Nothing was published.",
            fix=fix,
        )

    def card(self) -> ModelCard:
        """What the file says of itself."""
        record, about = self.run.record, self.run.config.dataset
        ending = "" if self.checkpoint == "best" else "_last"
        network = without_beginnings(OmegaConf.to_container(self.run.config.student, resolve=True))
        return ModelCard(
            classes=classes_of(self.run) or tuple(map(str, range(about.num_classes))),
            image_size=int(about.image_size),
            mean=tuple(map(float, about.mean)),
            std=tuple(map(float, about.std)),
            network=network,
            precision="float32",
            run=f"{self.run.path.parent.name}/{self.run.path.name}",
            experiment=str(record["experiment"] or ""),
            seed=record["seed"],
            checkpoint=self.checkpoint,
            commit=commit_of(record),
            dataset=str(record["dataset"]["name"]),
            data_digest=str(record["dataset"]["digest"]),
            metrics={name: float(record["metrics"][f"{name}{ending}"]) for name in ("val/acc", "test/acc")},
        )

    def facts(self, parity: Parity, shown: ParityImages) -> dict[str, Any]:
        """What the file is, and how it compares with its checkpoint."""
        accuracy = {"val/acc": {"before": parity.before, "after": parity.after}}
        inside = self.file.is_relative_to(self.run.path)
        return {
            "file": str(self.file.relative_to(self.run.path) if inside else self.file),
            "checkpoint": self.checkpoint,
            "precision": "int8" if self.int8 else "float32",
            "parity": {
                "images": len(shown.images),
                "real": not shown.lacking,
                "max_abs_logit_difference": parity.difference,
                "same_class": parity.same_class,
                **({} if shown.lacking else accuracy),
            },
        }

    def own_file(self) -> Path:
        """Where the student lies in the run's folder, if the command does not say it."""
        ending = "" if self.checkpoint == "best" else f"-{self.checkpoint}"
        name = f"student{ending}{'.int8' if self.int8 else ''}{self.kind.suffix}"
        file = self.run.path / "export" / name
        refuse_unwritable(file)
        return file

    def named(self, out: str) -> Path:
        """The file that ``out=`` names: a new one, or an exported student of the same kind.

        Raises:
            UserError: if it is anything else, such as the run's own weights.
        """
        return named_output(
            out,
            suffix=self.kind.suffix,
            what=f"a student exported as {self.format}",
            is_one=lambda file: is_exported(file, self.format),
        )


def read_entries(file: Path) -> dict[str, Any]:
    """What a run's ``export.json`` says of earlier exports, by file; nothing where there is none.

    Raises:
        UserError: if it is damaged.
    """
    if not file.exists():
        return {}
    try:
        entries = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}.", fix=f"rm '{file}'") from error
    if not isinstance(entries, dict):
        raise UserError(
            f"{file} holds a {type(entries).__name__}, expected entries by file.", fix=f"rm '{file}'"
        )
    return entries


def commit_of(record: Mapping[str, Any]) -> str:
    """The commit that a run was trained by; empty where it was in no checkout."""
    git = record.get("git")
    return str(git.get("commit", "")) if isinstance(git, Mapping) else ""
