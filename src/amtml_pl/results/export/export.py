"""Export a finished run's student: write the file, compare it with the checkpoint, rename it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.results.checkpoints import Which
from amtml_pl.results.evaluation.latency import cpu_name, timed
from amtml_pl.results.export.formats.kinds import KINDS, is_exported
from amtml_pl.results.export.formats.model_card import ModelCard
from amtml_pl.results.export.formats.onnx_file import replace_card
from amtml_pl.results.export.formats.quantisation import quantise
from amtml_pl.results.export.formats.student import Forward, StudentLogits
from amtml_pl.results.export.parity import (
    MOST_DIFFERENCE,
    ParityImages,
    batches,
    compare,
    local_images,
    parity_images,
    refuse_ruined,
)
from amtml_pl.results.export.record import BothLatencies, ExportRecord, Parity, add_entry, read_entries
from amtml_pl.results.network import without_pretrained_weights
from amtml_pl.results.run import FinishedRun
from amtml_pl.runs.provenance import git_state, versions
from amtml_pl.system.files import named_output, output, refuse_unwritable

CALIBRATION_IMAGES = 500
OTHER_FORMAT = "format=safetensors, which takes every network"


class Export:
    """The export of a run's student to one file.

    Args:
        run: a completed one.
        checkpoint: which epoch's weights.
        kind: one of `KINDS`.
        int8: whether to write the student in 8 bits; for ONNX only.
        int8_drop: the accuracy, in [0, 1], that it may lose by that.
        out: the file; None for the one in the run's folder.

    Attributes:
        unrecorded: why the run's ``export.json`` will have no entry for a file elsewhere; empty if it will.

    Raises:
        UserError: if the format has no 8 bits or needs a package that is missing, the target cannot be
            written or is another file than an exported student, or the run's record of exports is damaged.
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
        if self.record_file.parent.is_symlink():  # a run folder must not choose where a command writes
            raise UserError(
                f"{self.record_file.parent} is a symbolic link (expected a folder of the run).",
                fix=f"rm '{self.record_file.parent}'",
            )
        self.unrecorded = ""
        self.file = self.target(out)
        try:
            refuse_unwritable(self.record_file)
        except UserError as error:
            if not out:
                raise
            self.unrecorded = error.what
        read_entries(self.record_file)  # a damaged one is refused before anything is computed

    def target(self, out: str | None) -> Path:
        """Return the file that ``out=`` names, or else the default in the run's folder.

        Raises:
            UserError: if it cannot be written, or is anything but an exported student of the same kind.
        """
        if out:
            return named_output(
                out,
                suffix=self.kind.suffix,
                what=f"a student exported as {self.format}",
                is_one=lambda file: is_exported(file, self.format),
            )
        ending = "" if self.checkpoint == "best" else f"-{self.checkpoint}"
        name = f"student{ending}{'.int8' if self.int8 else ''}{self.kind.suffix}"
        file = self.run.path / "export" / name
        refuse_unwritable(file)
        if file.exists() and not is_exported(file, self.format):
            raise UserError(
                f"{file} is not a student exported as {self.format}, and is left as it is.",
                fix=f"pass out=FILE, or delete the existing file: rm '{file}'",
            )
        return file

    def write(self, command: str) -> tuple[ExportRecord, ParityImages]:
        """Write the file, and its entry in the run's ``export.json``.

        Args:
            command: the command line that repeats the export.

        Returns:
            The entry, and the images on which file and checkpoint were compared.

        Raises:
            UserError: if the student cannot be exported, or its file gives other logits than the checkpoint.
        """
        student, shown = self.run.student(self.checkpoint), parity_images(self.run)
        card = card_of_run(self.run, self.checkpoint)
        if self.int8 and shown.lacking:
            raise UserError(
                f"int8=true takes real images of the run to choose its scales. {shown.lacking}",
                fix="paths.data=FOLDER, where the run's own images lie; or int8=false",
            )

        def checkpoint(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
            logits: Float[Tensor, "B K"] = student(images).logits
            return logits

        with output(self.file) as temporary:
            parity = self.write_float32(temporary, card, checkpoint, shown)
            if self.int8:
                parity = self.write_int8(temporary, card, checkpoint, shown)
            with torch.inference_mode():
                latency = BothLatencies(
                    cpu=cpu_name(),
                    threads=torch.get_num_threads(),
                    batch=1,
                    before=timed(checkpoint, 1, card.image_size),
                    after=timed(self.opened(temporary, int8=self.int8), 1, card.image_size),
                )
            content = temporary.read_bytes()
        inside = self.file.is_relative_to(self.run.path)
        entry = ExportRecord(
            format=self.format,
            file=str(self.file.relative_to(self.run.path) if inside else self.file),
            checkpoint=self.checkpoint,
            precision="int8" if self.int8 else "float32",
            parity=parity,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            latency=latency,
            command=command,
            git=git_state(),
            versions=versions("onnx", "onnxruntime", "onnxscript", "safetensors"),
        )
        if not self.unrecorded:
            add_entry(self.record_file, entry)
        return entry, shown

    def write_float32(self, file: Path, card: ModelCard, checkpoint: Forward, shown: ParityImages) -> Parity:
        """Write the student in float32 and compare it with its checkpoint.

        Raises:
            UserError: if it cannot be written, or gives other logits.
        """
        try:
            self.kind.write(StudentLogits(self.run.student(self.checkpoint)), card, file)
        except OSError:
            raise
        except Exception as error:  # exporters raise anything for code that they do not support
            raise self.not_exported(error, int8=False) from error
        parity = compare(checkpoint, self.opened(file, int8=False), shown)
        if not parity.max_abs_logit_difference <= MOST_DIFFERENCE:  # it may be not a number
            raise UserError(
                f"What was exported as {self.format} does not give what the checkpoint gives: max |Δlogit| "
                f"is {parity.max_abs_logit_difference:.3g} on {shown}, expected at most {MOST_DIFFERENCE:g}. "
                "Nothing was published.",
                fix=f"{OTHER_FORMAT}; or a network whose forward depends on no value of its images",
            )
        return parity

    def write_int8(self, file: Path, card: ModelCard, checkpoint: Forward, shown: ParityImages) -> Parity:
        """Rewrite the student in 8 bits, with scales from unaugmented training images.

        Raises:
            UserError: if the quantisation cannot process the network, or loses too much accuracy.
        """
        images = local_images(self.run, "train", CALIBRATION_IMAGES)
        try:
            quantise(file, card, batches(images))
        except OSError:
            raise
        except Exception as error:  # as above
            raise self.not_exported(error, int8=True) from error
        parity = compare(checkpoint, self.opened(file, int8=True), shown)
        refuse_ruined(parity, shown, self.int8_drop)
        own = {} if parity.val_acc is None else {"val/acc_int8": parity.val_acc.after}
        replace_card(file, card.replaced(precision="int8", metrics={**card.metrics, **own}))
        return parity

    def opened(self, file: Path, *, int8: bool) -> Forward:
        """Return the forward pass of a written file, opened as a user opens it."""
        exported = self.kind.open_file(file).forward

        def forward(images: Float[Tensor, "B 3 H W"]) -> Tensor:
            try:
                return exported(images)
            except Exception as error:  # a graph that is wrong for this batch size
                raise self.not_exported(error, int8=int8) from error

        return forward

    def not_exported(self, error: Exception, *, int8: bool) -> UserError:
        """Return the error for an exporter, or an exported student, that fails."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return UserError(
            f"{self.run.config['student']['network'].get('_target_')} cannot be exported as {self.format}"
            f"{' in 8 bits' if int8 else ''}: {lines[0]:.300}. Nothing was published.",
            fix="int8=false" if int8 else OTHER_FORMAT,
        )


def card_of_run(run: FinishedRun, checkpoint: Which) -> ModelCard:
    """Return the model card of a run's student."""
    record, about = run.record, run.config["dataset"]
    ending = "" if checkpoint == "best" else "_last"
    return ModelCard(
        classes=record.dataset.classes,
        image_size=about["image_size"],
        mean=tuple(map(float, about["mean"])),
        std=tuple(map(float, about["std"])),
        network=without_pretrained_weights(run.config["student"]["network"]),
        precision="float32",
        run=f"{run.path.parent.name}/{run.path.name}",
        experiment=record.experiment or "",
        seed=record.seed,
        checkpoint=checkpoint,
        commit="" if record.git is None else record.git.commit,
        dataset=record.dataset.name,
        data_digest=record.dataset.digest,
        metrics={name: record.metrics[f"{name}{ending}"] for name in ("val/acc", "test/acc")},
    )
