"""``python -m amtml_pl.evaluate run=FOLDER``: what the student of a finished run is worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape
from rich.table import Table

from amtml_pl.config import check_command
from amtml_pl.config_files import config_directory
from amtml_pl.entry_point import console, progress, reporting, start, typed
from amtml_pl.errors import UserError
from amtml_pl.evaluated_images import EvaluatedImages, other_images, own_images
from amtml_pl.evaluation import evaluate, metric
from amtml_pl.finished_run import FinishedRun, Which, load_run
from amtml_pl.output_file import refuse_unwritable, write_json
from amtml_pl.provenance import git_state, versions
from amtml_pl.schema import DATASET, EVALUATE, rule_problems
from amtml_pl.teacher_cache.catalogue import safe

COLUMNS = {
    "acc": "accuracy",
    "acc_top5": "top-5",
    "nll": "NLL",
    "ece": "ECE",
    "brier": "Brier",
    "agreement": "agreement",
    "kl": "KL(teacher ‖ student)",
}
CLASSES_SHOWN = 20


def main() -> None:
    """The command line. Exit status: 0 done, 2 a mistake of the user's."""
    start(run)


@hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="evaluate")
def run(config: DictConfig) -> None:
    """Measures, prints tables, and writes ``evaluate.json``."""
    progress.begun = True
    with reporting("amtml_pl.evaluate", debug=config.get("debug", False)):
        asked: Any = {key: value for key, value in config.items() if key not in ("dataset", "paths")}
        check_command(asked, EVALUATE)
        if asked["run"] is None:
            raise UserError(
                "There is no run to evaluate.", fix="run=FOLDER: what amtml_pl.train printed at its end"
            )
        finished = load_run(asked["run"], **config.paths)
        images = chosen_images(finished, config, asked["split"])
        named = asked["out"] and Path(asked["out"]).expanduser().resolve()
        file = named or own_file(finished, images, asked["checkpoint"])
        refuse_unwritable(file)
        options = {key: asked[key] for key in ("checkpoint", "teachers", "corruptions", "seed")}
        found = evaluate(finished, images, **options)
        about = {"command": typed("amtml_pl.evaluate"), "git": git_state(), "versions": versions()}
        write_json(file, {**found, **about})
        show(found, finished)
        console.print(f"Written to {escape(str(file))}")


def chosen_images(run: FinishedRun, config: DictConfig, split: Any) -> EvaluatedImages:  # noqa: ANN401
    """The split that was asked for, of the run's own data set or of another one.

    Raises:
        UserError: if the other data set's settings are incomplete, or its images do not suit the run.
    """
    if config.get("dataset") is None:
        return own_images(run, split)
    with open_dict(config):
        config.paths = {name: str(path) for name, path in run.paths.items()}
        if OmegaConf.is_missing(config.dataset, "num_classes"):
            config.dataset.num_classes = run.config.dataset.num_classes
    try:
        settings: Any = OmegaConf.to_container(config.dataset, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(
            f"The data set lacks a setting: {error.full_key}.", fix=f"{error.full_key}=VALUE"
        ) from error
    if wrong := [*rule_problems(settings, DATASET, "dataset")]:
        raise UserError("\n".join(wrong))
    return other_images(run, OmegaConf.create(settings), split)


def own_file(run: FinishedRun, images: EvaluatedImages, checkpoint: Which) -> Path:
    """Where an evaluation lies in the run's folder, if the command does not say it.

    What is not about the best epoch on the run's own test images has another name, and never takes its place.
    """
    parts = ["evaluate"]
    if not images.own:
        parts.append(f"{safe(images.dataset)}-{images.digest[:8]}")
    parts += [part for part in (images.rows.name, checkpoint) if part not in ("test", "best")]
    return run.path / f"{'-'.join(parts)}.json"


def show(found: Mapping[str, Any], run: FinishedRun) -> None:
    """Prints what was measured."""
    about = found["dataset"]
    title = (
        f"{found['experiment'] or 'run'} (seed {found['seed']}), {found['checkpoint']} epoch, "
        f"{about['images']:,} {found['split']} images of {about['name']}"
    )
    show_networks(found, title, run.teacher_names)
    show_classes(found["classes"])
    if "corruptions" in found:
        show_corruptions(found["corruptions"])
    if found["ensemble"] is not None:
        show_ensemble(found["ensemble"])
    for name, reason in found["left_out"].items():
        console.print(f"  {escape(f'left out: {name}: {reason}')}")
    speed, size = found["latency"], found["size"]
    shown = ", ".join(
        "{ms_per_image:.3g} ms per image in batches of {batch} (interquartile range {spread:.2g})".format(
            batch=batch, **speed[f"batch_{batch}"]
        )
        for batch in (1, 128)
    )
    console.print(f"  latency: {shown} ({escape(speed['cpu'])}, {speed['threads']} threads)")
    console.print(
        f"  size: {size['parameters']:,} parameters, {size['bytes']:,} bytes, "
        f"{size['macs'] / 1e6:.2f} M multiply-accumulates per image"
    )


def show_networks(found: Mapping[str, Any], title: str, teachers: tuple[str, ...]) -> None:
    """Student, teachers and ensemble, a row each."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in COLUMNS.values():
        table.add_column(column, justify="right")
    rows = {
        "student": "",
        **{f"teacher {name}": f"teacher/{name}" for name in teachers},
        "ensemble": "ensemble",
    }
    for shown, whose in rows.items():
        values = [metric(found, whose, name) for name in COLUMNS]
        if values[0] is not None:
            table.add_row(escape(shown), *("" if value is None else f"{value:.4f}" for value in values))
    console.print(table)


def show_ensemble(about: Mapping[str, Any]) -> None:
    """What the ensemble is made of."""
    scheme = str(about["weighting"]).rpartition(".")[2]
    whose = f"the run's own weights ({scheme})" if about["weights"] == "own" else "equal weights"
    mean = ", ".join(f"{name} {weight:.4f}" for name, weight in about["mean_weight"].items())
    because = f"; {about['because']}" if "because" in about else ""
    text = f"ensemble: {about['mixture']} mixed by {whose}, mean {mean}{because}"
    console.print(f"  {escape(text)}")


def show_classes(classes: Mapping[str, Any]) -> None:
    """Accuracy by class, the worst first; of many classes the worst ones."""
    present = {name: of for name, of in classes.items() if of["images"]}
    worst = sorted(present.items(), key=lambda item: item[1]["acc"])[:CLASSES_SHOWN]
    more = f", the worst {len(worst)} of {len(present)}" if len(worst) < len(present) else ""
    table = Table(title=f"by class{more}", title_justify="left")
    for column in ("class", "accuracy", "images"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, of in worst:
        table.add_row(escape(name), f"{of['acc']:.4f}", f"{of['images']:,}")
    console.print(table)


def show_corruptions(found: Mapping[str, Any]) -> None:
    """Accuracy by corruption and severity."""
    title = f"accuracy under corruptions, mean {found['mean_acc']:.4f} (a subset: docs/evaluate.md)"
    table = Table(title=title, title_justify="left")
    table.add_column("severity")
    for severity in range(1, 6):
        table.add_column(str(severity), justify="right")
    for kind, values in found["acc"].items():
        table.add_row(kind, *(f"{value:.4f}" for value in values))
    console.print(table)


if __name__ == "__main__":
    main()
