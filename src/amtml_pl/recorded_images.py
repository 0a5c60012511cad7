"""The images of a finished run, found again by what its record says of them, wherever they lie now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from amtml_pl import assemble
from amtml_pl.datasets.image_folder import ImageFolder
from amtml_pl.errors import UserError
from amtml_pl.json_file import read_json
from amtml_pl.packing import MANIFEST, DatasetSource, PackedDataset, is_packed, pack


def recorded_images(run: Path, config: DictConfig, record: Mapping[str, Any], data: Path) -> PackedDataset:
    """The packed data set that a run was trained on; packed again where its source is here and it is not.

    Args:
        run: its folder.
        config: of the run.
        record: of the run.
        data: the root of raw and packed images.

    Raises:
        UserError: if the images are missing, or are others now.
    """
    about, root = record["dataset"], data / "packed"
    if (here := packed_with(about["digest"], root)) is not None:
        return here
    source = source_below(data, config)
    refuse_missing(source, root, run, about)
    packed = pack(source, root)
    if packed.digest != about["digest"]:
        raise UserError(
            f"{run} was trained on other images of {about['name']!r} (digest {about['digest'][:12]}) than "
            f"are packed now ({packed.digest[:12]}) in {packed.folder}.",
            fix="paths.data=FOLDER, where the run's own images lie",
        )
    return packed


def packed_with(digest: str, root: Path) -> PackedDataset | None:
    """The packed data set with a digest, from whatever source; None where no whole one lies below a folder.

    Args:
        digest: as a manifest has it.
        root: below which each packed data set has a folder.
    """
    for file in sorted(root.glob(f"*/{MANIFEST}")):
        if file.parent.suffix:  # .tmp is being written, .old is being removed
            continue
        try:
            manifest = read_json(file)
            if isinstance(manifest, dict) and manifest.get("digest") == digest:
                packed = PackedDataset.open(file.parent)
                packed.verify()
                return packed
        except (OSError, ValueError, UserError):  # another data set's, or packed again by who needs it
            continue
    return None


def source_below(data: Path, config: DictConfig) -> DatasetSource:
    """The run's source, with raw files that lay below the run's own root looked for below ``data``."""
    node: Any = OmegaConf.to_container(config.dataset.source, resolve=True)
    recorded = Path(config.paths.data)
    for key, value in node.items():
        if isinstance(value, str) and Path(value).is_relative_to(recorded):
            node[key] = str(data / Path(value).relative_to(recorded))
    source: DatasetSource = assemble.build(OmegaConf.create(node))
    return source


def refuse_missing(source: DatasetSource, root: Path, run: Path, about: Mapping[str, Any]) -> None:
    """Refuses images that are neither packed nor raw here, and that nothing can fetch.

    Raises:
        UserError: with the ways to provide them.
    """
    if (
        is_packed(source, root)
        or (missing := source.missing()) is None
        or source.download_bytes() is not None
    ):
        return
    fix = "paths.data=FOLDER (in Python load_run(..., data=FOLDER)), below which they are packed"
    if isinstance(source, ImageFolder):
        fix += (
            "; or pack them from where they lie now: "
            f"python -m amtml_pl.evaluate run='{run}' dataset=image_folder dataset.source.folder=FOLDER"
        )
    raise UserError(
        f"The images of {about['name']!r} that {run} was trained on (digest {about['digest'][:12]}) are not "
        f"packed in {root}, and cannot be packed again. {missing}",
        fix=fix,
    )
