"""What an exported student says of itself: its classes, its input, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from amtml_pl.config.rules import Rule, rule_problems
from amtml_pl.config.schema import MEAN, STD
from amtml_pl.errors import UserError
from amtml_pl.system.files import are_numbers

FORMAT = "1"


@dataclass(frozen=True)
class ModelCard:
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

    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    network: Mapping[str, Any]
    precision: str
    run: str
    experiment: str
    seed: int
    checkpoint: str
    commit: str
    dataset: str
    data_digest: str
    metrics: Mapping[str, float]

    def texts(self) -> dict[str, str]:
        """The card as texts by name, which is what all formats can hold; what is no text is JSON."""
        size, K = self.image_size, len(self.classes)
        values = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in asdict(self).items()
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
        for field in fields(cls):
            text = texts.get(field.name, "")
            try:
                values[field.name] = text if FIELDS[field.name].hint is str else json.loads(text)
            except (ValueError, RecursionError):
                raise foreign(file, f"{field.name}={text!r:.80} is no JSON") from None
        if problems := [*rule_problems(values, FIELDS, "")]:
            raise foreign(file, "; ".join(f"{problem:.200}" for problem in problems[:3]))
        tuples = {name: tuple(values[name]) for name in ("classes", "mean", "std")}
        return cls(**{**values, **tuples})


def foreign(file: Path, why: str) -> UserError:
    """What to say of a file without a usable card."""
    return UserError(
        f"{file} was not written by amtml_pl.export: in its metadata {why}.",
        fix="model=FOLDER of a run, or model=FILE that python -m amtml_pl.export run=FOLDER writes",
    )


TEXT = Rule(str, "a text")
FIELDS: Mapping[str, Rule] = {
    "classes": Rule(list[str], "a list of 2 names or more", lambda v: len(v) >= 2),
    # Images are scaled to this size, so that a card must not make them as large as it likes.
    "image_size": Rule(int, "a number of pixels from 1 to 4096", lambda v: 1 <= v <= 4096),
    "mean": MEAN,
    "std": STD,
    # An interpolation would be resolved on the machine that opens the file: ${oc.env:NAME} reads a variable.
    "network": Rule(dict, "a network without ${...}", lambda v: "${" not in json.dumps(v)),
    "precision": TEXT,
    "run": TEXT,
    "experiment": TEXT,
    "seed": Rule(int, "a whole number"),
    "checkpoint": TEXT,
    "commit": TEXT,
    "dataset": TEXT,
    "data_digest": TEXT,
    "metrics": Rule(dict, "numbers by name", are_numbers),
}
