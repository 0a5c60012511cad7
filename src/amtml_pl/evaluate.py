"""``python -m amtml_pl.evaluate run=FOLDER``: what the student of a finished run is worth."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape

from amtml_pl.config.checks import check_command
from amtml_pl.config.command import progress, reporting, start, typed
from amtml_pl.config.command_keys import EVALUATE
from amtml_pl.config.paths import config_directory
from amtml_pl.config.rules import rule_problems
from amtml_pl.config.schema import DATASET
from amtml_pl.errors import UserError
from amtml_pl.system.console import console
from amtml_pl.system.files import named_output, output, refuse_unwritable

if TYPE_CHECKING:
    from amtml_pl.results.evaluation.images import EvaluatedImages
    from amtml_pl.results.evaluation.record import Evaluation
    from amtml_pl.results.run import FinishedRun


def main() -> None:
    """The command line. Exit status: 0 done, 2 a mistake of the user's."""
    start(run, multirun=False)


@hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="evaluate")
def run(config: DictConfig) -> None:
    """Measures, prints tables, and writes ``evaluate.json``."""
    progress.begun = True
    with reporting("amtml_pl.evaluate", debug=config.get("debug", False), resumes=False):
        asked: Any = {key: value for key, value in config.items() if key not in ("dataset", "paths")}
        check_command(asked, EVALUATE, known=("dataset", "paths"))
        if not asked["run"]:
            raise UserError(
                "There is no run to evaluate.", fix="run=FOLDER: what amtml_pl.train printed at its end"
            )
        # only here: torch takes seconds, in which a mistake is said, and Ctrl-C ends, like everywhere
        from amtml_pl.results.evaluation.evaluation import evaluate
        from amtml_pl.results.evaluation.tables import show
        from amtml_pl.results.run import load_run
        from amtml_pl.runs.provenance import git_state, versions
        from amtml_pl.system.records import as_json

        finished = load_run(asked["run"], **chosen_roots(config))
        out = asked["out"] and named_output(
            asked["out"], suffix=".json", what="an evaluation", is_one=lambda file: earlier(file) is not None
        )
        images = chosen_images(finished, config, asked["split"])
        file = out or own_file(finished, images, asked)
        refuse_unwritable(file)
        options = {key: asked[key] for key in ("checkpoint", "teachers", "latency", "corruptions", "seed")}
        if asked["latency"]:
            console.print("Measuring the latency on the CPU first (latency=false leaves it out)")
        found = evaluate(finished, images, **options)
        before = earlier(file)
        whole = found if before is None else found.with_earlier(before)
        about = {"command": typed("amtml_pl.evaluate"), "git": git_state(), "versions": versions()}
        with output(file) as temporary:
            temporary.write_text(as_json(whole.replaced(**about)))
        show(found.replaced(left_out=whole.left_out), finished.teacher_names)
        console.print(f"Written to {escape(str(file))}")


def chosen_roots(config: DictConfig) -> dict[str, str | None]:
    """Return the typed roots; another data set is never packed below a root that a run folder names."""
    roots: dict[str, str | None] = dict(config.paths)
    if config.get("dataset") is not None and roots["data"] is None:
        roots["data"] = os.environ.get("AMTML_DATA", "data")
    return roots


def chosen_images(run: FinishedRun, config: DictConfig, split: Any) -> EvaluatedImages:  # noqa: ANN401
    """The split that was asked for, of the run's own data set or of another one.

    Raises:
        UserError: if the other data set's settings are incomplete, or its images do not suit the run.
    """
    from amtml_pl.results.evaluation.images import other_images, own_images  # only here: as above

    if config.get("dataset") is None:
        return own_images(run, split)
    with open_dict(config):
        config.paths = {name: str(path) for name, path in run.paths.items()}
        if OmegaConf.is_missing(config.dataset, "num_classes"):
            config.dataset.num_classes = run.config["dataset"]["num_classes"]
    try:
        settings: Any = OmegaConf.to_container(config.dataset, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(
            f"The data set lacks a setting: {error.full_key}.", fix=f"{error.full_key}=VALUE"
        ) from error
    if wrong := [*rule_problems(settings, DATASET, "dataset")]:
        raise UserError("\n".join(wrong))
    return other_images(run, settings, split)


def own_file(run: FinishedRun, images: EvaluatedImages, asked: Mapping[str, Any]) -> Path:
    """Where an evaluation lies in the run's folder, if the command does not say it.

    What is not about the best epoch on the run's own test images, or was asked to say less, has another name,
    and never takes its place.
    """
    from amtml_pl.teachers.cache.catalogue import safe  # only here: as above

    parts = ["evaluate"]
    if not images.own:
        parts.append(f"{safe(images.dataset)}-{images.digest[:8]}")
    parts += [part for part in (images.rows.name, asked["checkpoint"]) if part not in ("test", "best")]
    if not asked["teachers"]:
        parts.append("student")
    if asked["corruptions"] and asked["seed"]:
        parts.append(f"seed{asked['seed']}")
    return run.path / f"{'-'.join(parts)}.json"


def earlier(file: Path) -> Evaluation | None:
    """Return the evaluation that a file holds; None where it holds none."""
    from amtml_pl.results.evaluation.record import Evaluation  # only here: as above
    from amtml_pl.system.records import find_record

    with suppress(UserError):
        return find_record(Evaluation, file, fix=f"rm '{file}'")
    return None


if __name__ == "__main__":
    main()
