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
        asked = job.values(*(str(key) for key in job.config if key != "dataset"))
        check_command(asked, EVALUATE)
        roots = asked["paths"]
        refuse_no_run(asked["run"], "evaluate")
        from amtml_pl.results.evaluation.evaluation import evaluate
        from amtml_pl.results.evaluation.tables import show
        from amtml_pl.results.run import load_run
        from amtml_pl.runs.provenance import git_state, versions
        from amtml_pl.system.records import as_json

        if job.config.get("dataset") is not None and roots["data"] is None:
            roots["data"] = os.environ.get("AMTML_DATA", "data")  # never below a root that a run folder names
        finished = load_run(asked["run"], **roots)
        out = asked["out"] and named_output(
            asked["out"], suffix=".json", what="an evaluation", is_one=lambda file: earlier(file) is not None
        )
        images = chosen_images(finished, job, asked["split"])
        file = out or own_file(finished, images, asked)
        refuse_unwritable(file)
        options = {key: asked[key] for key in ("checkpoint", "teachers", "latency", "corruptions", "seed")}
        if asked["latency"]:
            console.print("Measuring the latency on the CPU first (latency=false leaves it out)")
        found = evaluate(finished, images, **options)
        before = earlier(file)
        whole = found if before is None else found.with_earlier(before)
        about = {"command": job.typed(), "git": git_state(), "versions": versions()}
        with output(file) as temporary:
            temporary.write_text(as_json(whole.replaced(**about)))
        show(found.replaced(left_out=whole.left_out), finished.teacher_names)
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


def own_file(run: FinishedRun, images: EvaluatedImages, asked: Mapping[str, Any]) -> Path:
    """Return the default file for an evaluation, inside the run's folder.

    Only a full evaluation of the best epoch on the run's own test images is ``evaluate.json``. Any other
    evaluation has a longer name, and so never replaces it.
    """
    from amtml_pl.teachers.cache.catalogue import path_part

    parts = ["evaluate"]
    if not images.own:
        parts.append(f"{path_part(images.dataset)}-{images.digest[:8]}")
    parts += [part for part in (images.rows.name, asked["checkpoint"]) if part not in ("test", "best")]
    if not asked["teachers"]:
        parts.append("student")
    if asked["corruptions"] and asked["seed"]:
        parts.append(f"seed{asked['seed']}")
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
