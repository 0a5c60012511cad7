"""Distil a student for one's own folder of images, in one call: ``amtml_pl.distill(...)``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from amtml_pl.config.call import call
from amtml_pl.config.command import CommandJob
from amtml_pl.config.overrides import hydra_literal
from amtml_pl.errors import UserError
from amtml_pl.export import export
from amtml_pl.results.distilled import Distilled
from amtml_pl.system.console import console, counted
from amtml_pl.system.files import named_output, short_digest
from amtml_pl.system.optional_packages import imported
from amtml_pl.system.records import read_record, write_record
from amtml_pl.train import checked_settings, run_experiment

if TYPE_CHECKING:
    from amtml_pl.data.datasets.folder_survey import FolderSurvey
    from amtml_pl.training.time_budget import TimeBudget

SMALL, LARGE = 32, 64  # pixels; networks of conf/student are made for them
FEW_EPOCHS = 8  # below which more time is recommended
MANY_IMAGES = 5000  # from which batches are larger
WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
Teachers = Sequence[str] | Mapping[str, str | Path | None]


def distill(
    images: str | Path,
    *,
    teachers: Teachers,
    student: str = "resnet20",
    out: str | Path = "student.onnx",
    minutes: float = 2.0,
    epochs: int | None = None,
    image_size: int | None = None,
    augment: str = "auto",
    method: str = "amtml",
    seed: int = 0,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> Distilled:
    """Train teachers on a folder of images, distil a student from them, and export it.

    The call is one run of ``experiment=own_images``: a completed one is not repeated, and an interrupted one
    is resumed by the same call. A tenth of the training images is the validation split, which selects the
    epoch.

    Args:
        images: ``FOLDER/CLASS/*.png``, of which a fifth is held out for the test; or
            ``FOLDER/train/CLASS/*.png`` and ``FOLDER/test/CLASS/*.png``. At least five images per class.
        teachers: names of networks to train on the images, such as ``resnet56``, and ``timm/MODEL`` for a
            pretrained network, on whose features a classifier is fitted. A mapping gives a network a file of
            trained weights, or the folder of a completed run: ``{"resnet56": "weights.pt", "vgg13": None}``.
        student: name of the network to train, as of ``student=``.
        out: the file to write; its suffix, ``.onnx`` or ``.safetensors``, is the format.
        minutes: time that teachers, student and export may take together. It chooses the number of epochs,
            from 2 to 60, and of views, if the teachers are slow. It is an aim, not a limit.
        epochs: of the student and of each teacher to train; None for ``minutes``.
        image_size: height and width in pixels to which images are scaled and cropped; None for 64, or for 32
            if they are smaller.
        augment: as of ``augment=``; ``auto`` crops and mirrors. Take ``crop`` if a mirror image may belong to
            another class, as with digits.
        method: as of ``method=``.
        seed: of initial weights and batch order.
        overrides: further overrides of the run.
        force: True to train the student again, with the same epochs, if the same call has completed.

    Returns:
        Run, file and accuracies.

    Raises:
        UserError: for a mistake in an argument or in the images.
        Interrupted: after Ctrl-C or a kernel's interrupt; a KeyboardInterrupt. The same call resumes the run.
    """
    from amtml_pl.data.datasets.folder_survey import survey_folder

    file = file_to_write(out)
    if not minutes > 0 or (epochs is not None and epochs < 1):
        raise UserError(f"The time is too short (got {minutes=} and {epochs=}).", fix="pass minutes=2")
    named = teacher_words(teachers)
    found = survey_folder(Path(images))
    words = [
        "experiment=own_images", f"student={student}", f"teacher=[{','.join(chosen_networks(teachers))}]",
        f"method={method}", f"seed={seed}", f"augment={augment}", *image_words(found, image_size),
        *(word for each in named.values() for word in each),
    ]  # fmt: skip
    trained = [name for name, own in named.items() if not own]
    if epochs is None:
        budget = budget_of([*words, *overrides], found, minutes)
        epochs = budget.epochs
        words += [f"data.views={budget.views}"] if budget.views < epochs else []
    recipe = hydra_literal([f"trainer.max_epochs={epochs}", f"augment={augment}", *batch_words(found)])
    words += [
        f"trainer.max_epochs={epochs}",
        *(f"teacher.{name}.recipe_overrides={recipe}" for name in trained),
    ]
    run = run_experiment(*words, *overrides, *(["force=true"] if force else []))
    places = {"run": str(run.path), "format": file.suffix.removeprefix("."), "out": str(file)}
    call("export", exported, [f"{key}={hydra_literal(value)}" for key, value in places.items()])
    return Distilled(run, file, student)


def exported(job: CommandJob) -> None:
    """Export a student, and report mistakes as the command does."""
    with job.reporting():
        export(job)


def file_to_write(out: str | Path) -> Path:
    """Return the absolute path of ``out``; raise a UserError if it cannot be written."""
    from amtml_pl.results.export.formats import FORMATS, is_exported

    place = Path(out).expanduser().resolve()
    formats = {each.suffix: name for name, each in FORMATS.items()}
    if place.suffix not in formats:
        raise UserError(
            f"out={out} has an unknown suffix (expected {' or '.join(formats)}).",
            fix=f"out={Path(out).with_suffix('.onnx')}",
        )
    if not place.parent.is_dir():
        raise UserError(f"The folder of out={out} does not exist.", fix=f"mkdir -p '{place.parent}'")
    name = formats[place.suffix]
    for package in FORMATS[name].packages:
        imported(package, extra="export")
    what = f"a student exported as {name}"
    return named_output(
        str(place), suffix=place.suffix, what=what, is_one=lambda file: is_exported(file, name)
    )


def chosen_networks(teachers: Teachers) -> list[str]:
    """Return the choices of ``teacher=``; a single name counts as a list."""
    return [teachers] if isinstance(teachers, str) else list(teachers)


def teacher_words(teachers: Teachers) -> dict[str, list[str]]:
    """Return the overrides of each teacher by its key; none for a network to train.

    Raises:
        UserError: without teachers, or for a file without its network.
    """
    files = teachers if isinstance(teachers, Mapping) else {}
    named: dict[str, list[str]] = {}
    for choice in chosen_networks(teachers):
        if Path(choice).suffix in WEIGHTS:
            raise UserError(
                f"The teacher {choice!r} is a file without the name of its network.",
                fix=f"teachers={{'resnet56': {choice!r}}}, with the network of the file",
            )
        key, weights = choice.removeprefix("timm/").replace(".", "_"), files.get(choice)
        named[key] = []
        if weights is not None:
            place = Path(weights).expanduser().resolve()
            if not place.exists():
                raise UserError(
                    f"The weights of teacher {choice!r} do not exist: {place}.", fix="name a file"
                )
            origin = "run" if place.is_dir() else "path"
            named[key] = [f"teacher.{key}.weights.{origin}={hydra_literal(str(place))}"]
        elif choice.startswith("timm/"):
            named[key] = [f"teacher.{key}.pretrained=true", f"teacher.{key}.head=linear"]
    if not named:
        raise UserError(
            "teachers is empty (expected one or more names).", fix="teachers=['resnet56', 'wrn_16_2']"
        )
    return named


def image_words(found: FolderSurvey, image_size: int | None) -> list[str]:
    """Return the overrides that describe the images."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", found.folder.name).strip("_-") or "images"
    size = image_size or (LARGE if found.side >= LARGE else SMALL)
    splits = ["+dataset.source.splits.val=val"] if "val" in found.splits else []
    return [
        f"dataset={'image_folder' if found.splits else 'one_folder'}", f"dataset.name={hydra_literal(name)}",
        f"dataset.source.folder={hydra_literal(str(found.folder))}", *splits,
        f"dataset.num_classes={len(found.classes)}", f"dataset.image_size={size}", *batch_words(found),
    ]  # fmt: skip


def batch_words(found: FolderSurvey) -> list[str]:
    """Return the override of the batch size, for the student and for its teachers."""
    return [f"data.batch_size={128 if found.images >= MANY_IMAGES else 32}"]


def budget_of(words: Sequence[str], found: FolderSurvey, minutes: float) -> TimeBudget:
    """Return the epochs and views for a time, measured once for the same words."""
    same = [word for word in words if not word.startswith("seed=")]  # seeds are compared at equal epochs
    digest = short_digest(json.dumps([*same, minutes, found.images]), digits=8)

    def measured(job: CommandJob) -> TimeBudget:
        from amtml_pl.training.time_budget import TimeBudget, time_budget

        file = job.folder / "budget.json"
        with job.reporting(own_folder=True):
            if not file.is_file():
                write_record(file, time_budget(checked_settings(job), found.images, minutes))
            budget = read_record(TimeBudget, file, fix=f"rm '{file}'")
            if budget.epochs < FEW_EPOCHS:
                epochs, needed = (
                    counted(budget.epochs, "epoch"),
                    counted(max(round(budget.minutes), 1), "minute"),
                )
                console.print(
                    f"{epochs} will take about {needed} (got minutes={minutes:g}). More minutes or "
                    "smaller networks give a better student."
                )
            return budget
        return TimeBudget(epochs=1, views=1, minutes=0.0)  # after a mistake, which ends the call

    return call("train", measured, [*words, f"hydra.run.dir=${{paths.outputs}}/distill/{digest}"])
