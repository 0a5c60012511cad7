"""Evaluate the student of a finished run: ``python -m amtml_pl.evaluate run=FOLDER``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from amtml_pl.config.checks import dataset_settings
from amtml_pl.config.command import CommandJob, command
from amtml_pl.config.command_keys import EVALUATE
from amtml_pl.errors import UserError
from amtml_pl.system.console import console
from amtml_pl.system.files import named_output, output, refuse_unwritable

if TYPE_CHECKING:
    from amtml_pl.results.evaluation.images import EvaluatedImages
    from amtml_pl.results.run import FinishedRun
    from amtml_pl.runs.evaluation import Evaluation
    from amtml_pl.types import SplitName


@command("evaluate", multirun=False)
def main(job: CommandJob) -> None:
    """Measure the student, print tables, and write ``evaluate.json``."""
    with job.reporting():
        options = job.options(EVALUATE, without="dataset")
        roots = options["paths"]
        from amtml_pl.results.evaluation.evaluation import evaluate_student
        from amtml_pl.results.evaluation.tables import print_evaluation
        from amtml_pl.results.run import load_run
        from amtml_pl.runs.provenance import git_state, versions
        from amtml_pl.system.records import as_json

        if job.config.get("dataset") is not None and roots["data"] is None:
            roots["data"] = os.environ.get("AMTML_DATA", "data")  # never below a root that a run folder names
        finished = load_run(options["run"], **roots)
        out = options["out"]
        if out:
            out = named_output(out, suffix=".json", what="an evaluation", is_one=earlier)
        images = chosen_images(finished, job, options["split"])
        file = out or default_file(finished, images, options)
        refuse_unwritable(file)
        chosen = {key: options[key] for key in ("checkpoint", "teachers", "latency", "corruptions", "seed")}
        if options["latency"]:
            console.print("Measuring the latency on the CPU first (latency=false skips the measurement)")
        found = evaluate_student(finished, images, **chosen)
        whole = found.with_earlier(before) if (before := earlier(file)) else found
        whole = whole.replaced(command=job.typed(), git=git_state(), versions=versions())
        with output(file) as temporary:
            temporary.write_text(as_json(whole))
        print_evaluation(found.replaced(left_out=whole.left_out), finished.teacher_names)
        console.print(f"Written to {escape(str(file))}")


def chosen_images(run: FinishedRun, job: CommandJob, split: SplitName) -> EvaluatedImages:
    """Return the requested split of the command's data set, or of the run's."""
    from amtml_pl.results.evaluation.images import other_images, own_images

    if job.config.get("dataset") is None:
        return own_images(run, split)
    settings = dataset_settings(job.config, run.paths, run.config["dataset"]["num_classes"])
    return other_images(run, settings, split)


def default_file(run: FinishedRun, images: EvaluatedImages, options: Mapping[str, Any]) -> Path:
    """Return the default file for an evaluation, inside the run's folder.

    A full evaluation of the selected epoch on the run's test images is ``evaluate.json``.
    """
    from amtml_pl.teachers.cache.catalogue import path_part

    parts = ["evaluate"]
    if not images.own:
        parts.append(f"{path_part(images.dataset)}-{images.digest[:8]}")
    parts += [part for part in (images.rows.name, options["checkpoint"]) if part not in ("test", "best")]
    if not options["teachers"]:
        parts.append("student")
    if options["corruptions"] and options["seed"]:
        parts.append(f"seed{options['seed']}")
    return run.path / f"{'-'.join(parts)}.json"


def earlier(file: Path) -> Evaluation | None:
    """Return the evaluation that a file holds; None if it holds none."""
    from amtml_pl.runs.evaluation import Evaluation
    from amtml_pl.system.records import find_record

    try:
        return find_record(Evaluation, file, fix="")
    except UserError:
        return None


if __name__ == "__main__":
    main()
