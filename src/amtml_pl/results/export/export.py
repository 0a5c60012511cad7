"""Export a finished run's student: write the file, compare it with the checkpoint, rename it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.errors import UserError, first_line
from amtml_pl.results.checkpoints import CheckpointName
from amtml_pl.results.evaluation.latency import cpu_name, time_per_image
from amtml_pl.results.export.card import ModelCard
from amtml_pl.results.export.formats import FORMATS, is_exported
from amtml_pl.results.export.parity import MOST_DIFFERENCE, ParityImages, measure_parity, parity_images
from amtml_pl.results.export.record import BothLatencies, ExportRecord, add_entry, read_entries
from amtml_pl.results.export.student import StudentLogits
from amtml_pl.results.network import without_pretrained_weights
from amtml_pl.results.run import FinishedRun
from amtml_pl.runs.provenance import git_state, versions
from amtml_pl.system.files import named_output, output, refuse_unwritable
from amtml_pl.system.optional_packages import imported

OTHER_FORMAT = "pass format=safetensors, which supports every network"


@dataclass(frozen=True)
class Exported:
    """A written student.

    Attributes:
        images: those on which the file and the checkpoint were compared.
        unrecorded: why the run's ``export.json`` has no entry; empty if it has one.
    """

    file: Path
    entry: ExportRecord
    images: ParityImages
    unrecorded: str


def export_student(
    run: FinishedRun, checkpoint: CheckpointName, name: str, *, command: str, out: str | None = None
) -> Exported:
    """Write a run's student to a file, compare both, and add an entry to ``export.json``.

    Args:
        run: a completed one.
        checkpoint: which epoch's weights.
        name: of the format, one of `FORMATS`.
        command: the command line that repeats the export.
        out: the file; None for the one in the run's folder.

    Raises:
        UserError: if a package is missing, the target cannot be written or is another file than an exported
            student, ``export.json`` is damaged, or the file gives other logits than the checkpoint.
    """
    written_by = FORMATS[name]
    for package in written_by.packages:
        imported(package, extra="export")
    file, record_file, unrecorded = targets(run, checkpoint, name, out)
    read_entries(record_file)  # a damaged one is refused before anything is computed
    student, images, card = run.student(checkpoint), parity_images(run), card_of_run(run, checkpoint)

    def before(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        logits: Float[Tensor, "B K"] = student(images).logits
        return logits

    with output(file) as temporary:
        with refusing_failures(run, name):
            written_by.write(StudentLogits(run.student(checkpoint)), card, temporary)
            after = written_by.open_file(temporary).forward
        parity = measure_parity(before, after, images)
        if not parity.max_abs_logit_difference <= MOST_DIFFERENCE:  # it may be NaN
            raise UserError(
                f"The {name} file and the checkpoint give different logits on {images} (got max |Δlogit| "
                f"{parity.max_abs_logit_difference:.3g}, expected at most {MOST_DIFFERENCE:g}). No file was "
                "written.",
                fix=f"{OTHER_FORMAT}, or remove Python branches on tensor values from the network's forward",
            )
        with torch.inference_mode():
            first, second = (time_per_image(forward, 1, card.image_size) for forward in (before, after))
        content = temporary.read_bytes()
    inside = file.is_relative_to(run.path)
    entry = ExportRecord(
        format=name,
        file=str(file.relative_to(run.path) if inside else file),
        checkpoint=checkpoint,
        parity=parity,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        latency=BothLatencies(
            cpu=cpu_name(), threads=torch.get_num_threads(), batch=1, before=first, after=second
        ),
        command=command,
        git=git_state(),
        versions=versions("onnx", "onnxruntime", "onnxscript", "safetensors"),
    )
    if not unrecorded:
        add_entry(record_file, entry)
    return Exported(file, entry, images, unrecorded)


def targets(
    run: FinishedRun, checkpoint: CheckpointName, name: str, out: str | None
) -> tuple[Path, Path, str]:
    """Return the file to write, the run's ``export.json``, and why the latter cannot be written.

    Raises:
        UserError: if the file cannot be written, or is anything but an exported student of the format.
    """
    folder, suffix = run.path / "export", FORMATS[name].suffix
    if folder.is_symlink():  # a run folder must not choose where a command writes
        raise UserError(f"The path {folder} is a symbolic link (expected a folder).", fix=f"rm '{folder}'")
    record_file, unrecorded = folder / "export.json", ""
    if out:
        what = f"a student exported as {name}"
        file = named_output(out, suffix=suffix, what=what, is_one=lambda file: is_exported(file, name))
    else:
        file = folder / f"student{'' if checkpoint == 'best' else f'-{checkpoint}'}{suffix}"
        refuse_unwritable(file)
        if file.exists() and not is_exported(file, name):
            raise UserError(
                f"The existing file {file} is not a student exported as {name}, and was not overwritten.",
                fix=f"pass out=FILE, or delete the existing file: rm '{file}'",
            )
    try:
        refuse_unwritable(record_file)
    except UserError as error:
        if not out:
            raise
        unrecorded = error.what
    return file, record_file, unrecorded


@contextmanager
def refusing_failures(run: FinishedRun, name: str) -> Iterator[None]:
    """Turn an exception of an exporter, or of an exported graph, into a UserError."""
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:  # exporters raise anything for code that they do not support
        raise UserError(
            f"The network {run.config['student']['network'].get('_target_')} cannot be exported as {name}: "
            f"{first_line(error):.300}. No file was written.",
            fix=OTHER_FORMAT,
        ) from error


def card_of_run(run: FinishedRun, checkpoint: CheckpointName) -> ModelCard:
    """Return the model card of a run's student."""
    record, about = run.record, run.config["dataset"]
    ending = "" if checkpoint == "best" else "_last"
    measured = [name for name in ("val/acc", "test/acc") if name in record.metrics]
    return ModelCard(
        classes=record.dataset.classes,
        image_size=about["image_size"],
        mean=tuple(map(float, about["mean"])),
        std=tuple(map(float, about["std"])),
        input_size=run.config["student"]["input_size"],
        network=without_pretrained_weights(run.config["student"]["network"]),
        run=f"{run.path.parent.name}/{run.path.name}",
        experiment=record.experiment or "",
        seed=record.seed,
        checkpoint=checkpoint,
        commit="" if record.git is None else record.git.commit,
        dataset=record.dataset.name,
        data_digest=record.dataset.digest,
        metrics={name: record.metrics[f"{name}{ending}"] for name in measured},
    )
