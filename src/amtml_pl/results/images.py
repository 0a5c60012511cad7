"""Find the images of a finished run by the digest in its record."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path

from amtml_pl.config.paths import config_directory
from amtml_pl.data.packing import MANIFEST, PackedDataset, PackedManifest
from amtml_pl.errors import UserError
from amtml_pl.runs.record import RunRecord


def recorded_images(run: Path, record: RunRecord, data: Path) -> PackedDataset:
    """Return the packed data set that a run was trained on.

    Nothing is packed here: a run folder must not decide what is read, downloaded and written. The command in
    the message names the source instead.

    Args:
        run: its folder, named in the message.
        record: of the run.
        data: the root of raw and packed images.

    Raises:
        UserError: if no packed data set below the root has the recorded digest.
    """
    about, root = record.dataset, data / "packed"
    if (here := packed_with(about.digest, root)) is not None:
        return here
    named = {file.stem for file in (config_directory() / "dataset").glob("*.yaml")} - {"image_folder"}
    choice = about.name if about.name in named else "image_folder dataset.source.folder=FOLDER"
    words = [f"run={run}", f"paths.data={data}"]
    raise UserError(
        f"The stored images of {about.name!r} for the run in {run} are not in {root} "
        f"(expected digest {about.digest[:12]}).",
        fix="pass paths.data=FOLDER (in Python load_run(RUN, data=FOLDER)) if FOLDER/packed has them, "
        f"or store the images again: python -m amtml_pl.evaluate {shlex.join(words)} dataset={choice}",
    )


def packed_with(digest: str, root: Path) -> PackedDataset | None:
    """Return the intact packed data set with a digest below a root; else None."""
    for file in sorted(root.glob(f"*/{MANIFEST}")):
        if file.parent.suffix:  # .tmp is being written, .old is being removed
            continue
        with suppress(UserError, OSError):  # skip damaged data sets
            if PackedManifest.read(file.parent).digest == digest:
                packed = PackedDataset.open(file.parent)
                packed.verify()
                return packed
    return None
