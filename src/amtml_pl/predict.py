"""Classify image files: ``python -m amtml_pl.predict model=FILE_OR_RUN images=...``."""

from __future__ import annotations

import re
from pathlib import Path

from rich.markup import escape

from amtml_pl.config.command import CommandJob, command
from amtml_pl.config.command_keys import PREDICT
from amtml_pl.system.console import console
from amtml_pl.system.files import named_output

HEADER = re.compile(r"file,class,probability(,class_\d+,probability_\d+)*\n")  # of every table


@command("predict", multirun=False)
def main(job: CommandJob) -> None:
    """Print the likeliest classes of every image, and write them to ``out=``."""
    with job.reporting():
        options = job.options(PREDICT)
        images, out = options["images"], options["out"]
        table = out and named_output(out, suffix=".csv", what="a table of predictions", is_one=is_table)
        from amtml_pl.data.image_files import named_images
        from amtml_pl.results.predict import Predictor, predict, write_table

        files = named_images([images] if isinstance(images, str) else images)
        model = Predictor(Path(options["model"]).expanduser(), options["checkpoint"])
        found = predict(model, files, options["top"])
        width = max(len(str(file)) for file in files)
        for file, classes in found:
            listed = "  ".join(f"{name} {value:.4f}" for name, value in classes)
            console.print(escape(f"{file!s:{width}}  {listed}"))
        if table:
            write_table(table, found)
            console.print(f"Written to {escape(str(table))}")


def is_table(file: Path) -> bool:
    """Return True if a file is a table that this command writes."""
    try:
        with file.open(encoding="utf-8", errors="surrogateescape") as lines:
            return HEADER.fullmatch(lines.readline(1 << 20)) is not None
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    main()
