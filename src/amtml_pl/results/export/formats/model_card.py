"""What an exported student says of itself: its classes, its input, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from amtml_pl.errors import UserError
from amtml_pl.system.records import Record, parse_record

FORMAT = "2"
TEXTS = ("precision", "run", "experiment", "checkpoint", "commit", "dataset", "data_digest")


def without_interpolations(network: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration that means the same on every machine.

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
        image_size: height and width of the images that it takes, in pixels.
        mean: of each colour channel, on the scale of [0, 1]; the student subtracts it itself, but the
            bare network does not whose weights are in a file of safetensors.
        std: likewise; the student divides by it itself.
        network: what the student was built from, as in ``conf/student``.
        precision: ``float32`` or ``int8``.
        run: the last two parts of the run folder's name.
        experiment: of the run; empty where it had none.
        seed: of the run.
        checkpoint: ``best`` or ``last``.
        commit: of the code that trained it; empty where it was in no checkout.
        dataset: name of the data set.
        data_digest: of the packed data set.
        metrics: the run's ``val/acc`` and ``test/acc`` for this checkpoint, in [0, 1]; of a student in 8 bits
            ``val/acc_int8``, too, which is its own.
    """

    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    # Images are scaled to this size, so a card must not make them as large as it likes.
    image_size: Annotated[int, Field(ge=1, le=4096)]
    mean: Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]
    std: Annotated[tuple[Deviation, ...], Field(min_length=3, max_length=3)]
    network: Annotated[dict[str, Any], AfterValidator(without_interpolations)]
    precision: Literal["float32", "int8"]
    run: str
    experiment: str
    seed: int
    checkpoint: Literal["best", "last"]
    commit: str
    dataset: str
    data_digest: str
    metrics: dict[str, float]

    def texts(self) -> dict[str, str]:
        """The card as texts by name, which is what all formats can hold; what is no text is JSON."""
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
        """The card of a file that somebody else may have written.

        Args:
            texts: its metadata.
            file: named in messages.

        Raises:
            UserError: if it lacks something or has it in another form.
        """
        if texts.get("amtml_pl") != FORMAT:
            raise foreign(file, f"amtml_pl={texts.get('amtml_pl', 'absent')!s:.20}, expected {FORMAT}")
        values: dict[str, Any] = {}
        for name in cls.model_fields.keys() & texts.keys():
            try:
                values[name] = texts[name] if name in TEXTS else json.loads(texts[name])
            except (ValueError, RecursionError):
                raise foreign(file, f"{name}={texts[name]!r:.80} is not JSON") from None
        return parse_record(cls, json.dumps(values), file, fix=FIX)


FIX = "model=FOLDER of a run, or model=FILE that python -m amtml_pl.export run=FOLDER writes"


def foreign(file: Path, why: str) -> UserError:
    """What to say of a file without a usable card."""
    return UserError(
        f"{file} was not written by amtml_pl.export: in its metadata {why}.",
        fix=FIX,
    )
