"""The metadata of an exported student: its classes, its input, and its origin."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from amtml_pl.errors import UserError, first_line
from amtml_pl.system.records import Record, parse_record

FORMAT = "3"
TEXTS = ("run", "experiment", "checkpoint", "commit", "dataset", "data_digest")
FIX = "pass model=RUN_FOLDER, or export the student again: python -m amtml_pl.export run=RUN_FOLDER"


def without_interpolations(network: dict[str, Any]) -> dict[str, Any]:
    """Return the given configuration if it means the same on every machine.

    Raises:
        ValueError: if it has an interpolation, such as ${oc.env:NAME}, which reads a variable.
    """
    if "${" in json.dumps(network):
        raise ValueError("expected a network without ${...}")
    return network


Deviation = Annotated[float, Field(gt=0)]


class ModelCard(Record):
    """The metadata of an exported student.

    Attributes:
        classes: the K class names, in the order of the logits.
        image_size: height and width of its input images, in pixels.
        mean: of each colour channel, on the scale of [0, 1]. The student normalises its images itself; the
            bare network in a file of safetensors does not.
        std: likewise.
        input_size: height and width that the student resizes images to; None keeps them. The bare network
            does not resize either.
        network: constructor and arguments, as in ``conf/student``.
        run: the last two parts of the run folder's name.
        experiment: empty if the run had none.
        commit: of the code that trained it; empty outside a checkout.
        data_digest: of the packed data set.
        metrics: the run's ``val/acc``, if it has a validation split, and ``test/acc`` for this checkpoint,
            in [0, 1].
    """

    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    # Images are scaled to this size, so a card must not make them as large as it likes.
    image_size: Annotated[int, Field(ge=1, le=4096)]
    mean: Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]
    std: Annotated[tuple[Deviation, ...], Field(min_length=3, max_length=3)]
    input_size: Annotated[int, Field(ge=1, le=4096)] | None
    network: Annotated[dict[str, Any], AfterValidator(without_interpolations)]
    run: str
    experiment: str
    seed: int
    checkpoint: Literal["best", "last"]
    commit: str
    dataset: str
    data_digest: str
    metrics: dict[str, float]

    def texts(self) -> dict[str, str]:
        """Return the card as texts by name, for all formats; other values become JSON."""
        size, K = self.image_size, len(self.classes)
        values = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in self.model_dump(mode="json").items()
        }
        return {
            "amtml_pl": FORMAT,
            "input": f"images: float32 (B, 3, {size}, {size}), RGB in [0, 1], not normalised",
            "output": f"logits: float32 (B, {K})",
            **values,
        }

    @classmethod
    def read(cls, texts: Mapping[str, str], file: Path) -> ModelCard:
        """Return the card from a file's metadata, which is not trusted.

        Raises:
            UserError: if a value is missing or not valid.
        """
        if texts.get("amtml_pl") != FORMAT:
            raise foreign(file, f"got amtml_pl={texts.get('amtml_pl', 'absent')!s:.20}, expected {FORMAT}")
        values: dict[str, Any] = {}
        for name in cls.model_fields.keys() & texts.keys():
            try:
                values[name] = texts[name] if name in TEXTS else json.loads(texts[name])
            except (ValueError, RecursionError):
                raise foreign(file, f"got {name}={texts[name]!r:.80}, expected JSON") from None
        return parse_record(cls, json.dumps(values), file, fix=FIX)


def foreign(file: Path, why: str) -> UserError:
    """Return the error for a file without a usable card."""
    return UserError(f"The metadata of {file} were not written by amtml_pl.export ({why}).", fix=FIX)


@contextmanager
def opening(file: Path, name: str) -> Iterator[None]:
    """Turn any exception of a format's reader into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"The file {file} ({file.stat().st_size:,} bytes) is not valid {name}: {first_line(error):.300}.",
            fix=f"copy the file again, or export again: python -m amtml_pl.export run=FOLDER format={name}",
        ) from error
