"""``python -m amtml_pl.predict model=FILE_OR_RUN images=...``: what a student sees in image files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.markup import escape

from amtml_pl.config.checks import check_command, plain
from amtml_pl.config.command import progress, reporting, start
from amtml_pl.config.command_keys import PREDICT
from amtml_pl.config.paths import config_directory
from amtml_pl.errors import UserError
from amtml_pl.system.console import console
from amtml_pl.system.files import named_output

HEADER = re.compile(r"file,class,probability(,class_\d+,probability_\d+)*\n")  # of every table


def main() -> None:
    """The command line. Exit status: 0 done, 2 a mistake of the user's."""
    start(run, multirun=False)


@hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="predict")
def run(config: DictConfig) -> None:
    """Prints the likeliest classes of every image, and writes them where it is asked to."""
    progress.begun = True
    with reporting("amtml_pl.predict", debug=config.get("debug", False), resumes=False):
        asked: Any = dict(config.items())
        check_command(asked, PREDICT)
        asked = plain(asked)
        for key, what in (("model", "model=FILE or FOLDER"), ("images", "images=FOLDER")):
            if not asked[key]:
                raise UserError(f"There is no {key.removesuffix('s')} to predict with.", fix=what)
        words = [asked["images"]] if isinstance(asked["images"], str) else asked["images"]
        out = asked["out"]
        table = out and named_output(out, suffix=".csv", what="a table of predictions", is_one=is_table)
        # only here: torch takes seconds, in which a mistake is said, and Ctrl-C ends, like everywhere
        from amtml_pl.data.image_files import named_images
        from amtml_pl.results.predict import OpenedModel, predict, write_table

        files = named_images(words)
        model = OpenedModel(Path(asked["model"]).expanduser(), asked["checkpoint"], trust=asked["trust"])
        found = predict(model, files, asked["top"])
        width = max(len(str(prediction.file)) for prediction in found)
        for prediction in found:
            said = "  ".join(f"{name} {value:.4f}" for name, value in prediction.classes)
            console.print(escape(f"{prediction.file!s:{width}}  {said}"))
        if table:
            write_table(table, found)
            console.print(f"Written to {escape(str(table))}")


def is_table(file: Path) -> bool:
    """Whether a file is what this command writes."""
    try:
        with file.open(encoding="utf-8", errors="surrogateescape") as lines:
            return HEADER.fullmatch(lines.readline(1 << 20)) is not None
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    main()
