"""Evaluate the student of a finished run: ``python -m amtml_pl.evaluate run=FOLDER``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from amtml_pl.config.checks import check_command, dataset_settings, refuse_no_run
from amtml_pl.config.command import Job, command
from amtml_pl.config.command_keys import EVALUATE
from amtml_pl.errors import UserError
from amtml_pl.system.console import console
from amtml_pl.system.files import named_output, output, refuse_unwritable

if TYPE_CHECKING:
    from amtml_pl.results.evaluation.images import EvaluatedImages
    from amtml_pl.results.evaluation.record import Evaluation
    from amtml_pl.results.run import FinishedRun
    from amtml_pl.types import SplitName


@command("evaluate", multirun=False)
def main(job: Job) -> None:
    """Measure the student, print tables, and write ``evaluate.json``.

    Exit status: 0 done, 2 a user's mistake.
    """
    with job.reporting():
        keys = (str(key) for key in job.config if key != "dataset")
        values = check_command(job.values(*keys), EVALUATE)
        roots = values["paths"]
        refuse_no_run(values["run"])
        from amtml_pl.results.evaluation.evaluation import evaluate_student
        from amtml_pl.results.evaluation.tables import print_evaluation
        from amtml_pl.results.run import load_run
        from amtml_pl.runs.provenance import git_state, versions
        from amtml_pl.system.records import as_json

        if job.config.get("dataset") is not None and roots["data"] is None:
            roots["data"] = os.environ.get("AMTML_DATA", "data")  # never below a root that a run folder names
        run = load_run(values["run"], **roots)
        out = values["out"] and named_output(
            values["out"], suffix=".json", what="an evaluation", is_one=lambda file: earlier(file) is not None
        )
        images = chosen_images(run, job, values["split"])
        file = out or default_file(run, images, values)
        refuse_unwritable(file)
        options = {key: values[key] for key in ("checkpoint", "teachers", "latency", "corruptions", "seed")}
        if values["latency"]:
            console.print("Measuring the latency on the CPU first (latency=false leaves it out)")
        found = evaluate_student(run, images, **options)
        before = earlier(file)
        whole = found if before is None else found.with_earlier(before)
        about = {"command": job.typed(), "git": git_state(), "versions": versions()}
        with output(file) as temporary:
            temporary.write_text(as_json(whole.replaced(**about)))
        print_evaluation(found.replaced(left_out=whole.left_out), run.teacher_names)
        console.print(f"Written to {escape(str(file))}")


def chosen_images(run: FinishedRun, job: Job, split: SplitName) -> EvaluatedImages:
    """Return the requested split, of the run's own data set or of another one.

    Raises:
        UserError: if the other data set's settings are incomplete, or its images do not suit the run.
    """
    from amtml_pl.results.evaluation.images import other_images, own_images

    if job.config.get("dataset") is None:
        return own_images(run, split)
    settings = dataset_settings(job.config, run.paths, run.config["dataset"]["num_classes"])
    return other_images(run, settings, split)


def default_file(run: FinishedRun, images: EvaluatedImages, values: Mapping[str, Any]) -> Path:
    """Return the default file for an evaluation, inside the run's folder.

    Only a full evaluation of the best epoch on the run's own test images is ``evaluate.json``. Any other
    evaluation has a longer name, and so never replaces it.
    """
    from amtml_pl.teachers.cache.catalogue import safe

    parts = ["evaluate"]
    if not images.own:
        parts.append(f"{safe(images.dataset)}-{images.digest[:8]}")
    parts += [part for part in (images.rows.name, values["checkpoint"]) if part not in ("test", "best")]
    if not values["teachers"]:
        parts.append("student")
    if values["corruptions"] and values["seed"]:
        parts.append(f"seed{values['seed']}")
    return run.path / f"{'-'.join(parts)}.json"


def earlier(file: Path) -> Evaluation | None:
    """Return the evaluation that a file holds; None if it holds none."""
    from amtml_pl.results.evaluation.record import Evaluation
    from amtml_pl.system.records import find_record

    with suppress(UserError):
        return find_record(Evaluation, file, fix=f"rm '{file}'")
    return None


if __name__ == "__main__":
    main()
