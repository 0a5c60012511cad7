"""Print an evaluation as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from amtml_pl.runs.evaluation import (
    MIXTURES,
    Adaptivity,
    ClassAccuracy,
    CorruptedAccuracy,
    Ensemble,
    Evaluation,
)
from amtml_pl.system.console import console, counted

COLUMNS = {
    "acc": "acc",
    "acc_top5": "top-5",
    "nll": "NLL",
    "ece": "ECE",
    "brier": "Brier",
    "agreement": "agree",
    "kl": "KL",
}
MEANING = "acc, top-5, agree (with the student): shares; NLL, KL(teacher ‖ student): nats"
CLASSES_SHOWN = 20


def print_evaluation(found: Evaluation, teachers: tuple[str, ...]) -> None:
    """Print an evaluation, with the run's teachers in their order."""
    about, size = found.dataset, found.size
    epoch = "selected epoch" if found.checkpoint == "best" else "last epoch"
    title = (
        f"{found.experiment or 'run'} (seed {found.seed}), {epoch}, "
        f"{about.images:,} {found.split} images of {about.name}"
    )
    print_networks(found, title, teachers)
    print_classes(found.classes)
    if found.corruptions is not None:
        print_corruptions(found.corruptions)
    if found.ensemble is not None:
        print_mixtures(found, found.ensemble)
        print_ensemble(found.ensemble)
        if (adapted := found.ensemble.adaptivity) is not None:
            print_adaptivity(adapted)
    for name, reason in found.left_out.items():
        console.print(f"  {escape(f'left out: {name}: {reason}')}")
    if (speed := found.latency) is not None:
        shown = ", ".join(
            f"{of.ms_per_image:.3g} ms per image in batches of {batch} (interquartile range {of.spread:.2g})"
            for batch, of in ((1, speed.batch_1), (128, speed.batch_128))
        )
        console.print(f"  latency: {shown} ({escape(speed.cpu)}, {counted(speed.threads, 'thread')})")
    console.print(
        f"  size: {size.parameters:,} parameters, {size.bytes:,} bytes, "
        f"{size.macs / 1e6:.2f} M multiply-accumulates per image"
    )


def print_networks(found: Evaluation, title: str, teachers: tuple[str, ...]) -> None:
    """Print a row for student, teachers and ensemble; short names fit into 80 columns."""
    groups = ([""], [f"teacher/{name}" for name in teachers], ["ensemble"])
    values = {whose: [found.metric(whose, name) for name in COLUMNS] for group in groups for whose in group}
    used = [place for place in range(len(COLUMNS)) if any(row[place] is not None for row in values.values())]
    table = Table(title=escape(title), title_justify="left")
    table.add_column("", overflow="fold")
    for place in used:
        table.add_column([*COLUMNS.values()][place], justify="right", no_wrap=True)
    for group in groups:
        for whose in group:
            if values[whose][0] is not None:
                shown = (values[whose][place] for place in used)
                name = whose.removeprefix("teacher/") or "student"
                table.add_row(escape(name), *("" if value is None else f"{value:.4f}" for value in shown))
        table.add_section()
    console.print(table)
    console.print(f"  {MEANING}")


def print_mixtures(found: Evaluation, about: Ensemble) -> None:
    """Print the mixtures of the teachers' outputs, and the student for comparison."""
    title = f"what decides: the teachers' mixtures (acc at temperature {about.temperature:g}, NLL at 1)"
    table = Table(title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for name in ("acc", "above equal", "NLL"):
        table.add_column(name, justify="right", no_wrap=True)
    equal = about.mixtures["uniform"].acc
    measured = [(name, about.mixtures[name]) for name in MIXTURES if name in about.mixtures]
    rows = [(named(name, about), each.acc, each.nll) for name, each in measured]
    rows.append(("student", found.metrics[f"{found.split}/acc"], found.metric("", "nll")))
    for name, acc, nll in rows:
        table.add_row(escape(name), f"{acc:.4f}", f"{acc - equal:+.4f}", "" if nll is None else f"{nll:.4f}")
    console.print(table)
    for names, reason in about.left_out():
        console.print(f"  {escape(f'left out: {names}: {reason}')}")


def named(name: str, about: Ensemble) -> str:
    """Return the name of a mixture, with its weighting or teacher in brackets."""
    found, notes = about.mixtures[name], []
    if name in ("own", "own_mean"):
        notes.append(str(about.weighting).rpartition(".")[2])
    if name == "best_single":
        notes.append(max(found.mean_weight, key=found.mean_weight.__getitem__))
    if found.reads_labels:
        notes.append("reads labels")
    return f"{MIXTURES[name]} ({', '.join(notes)})" if notes else MIXTURES[name]


def print_ensemble(about: Ensemble) -> None:
    """Print the weights and the mixture of the ensemble."""
    scheme = str(about.weighting).rpartition(".")[2]
    whose = f"the run's own weights ({scheme})" if about.weights == "own" else "equal weights"
    mean = ", ".join(f"{name} {weight:.4f}" for name, weight in about.mean_weight.items())
    because = f"; {about.because}" if about.because else ""
    text = f"ensemble: {about.mixture} mixed by {whose}, mean weights {mean}{because}"
    console.print(f"  {escape(text)}")


def print_adaptivity(about: Adaptivity) -> None:
    """Print how the weights per image vary, and the weight of right teachers."""
    if about.between_classes is None:
        console.print("  weights per image: equal for all images")
        return
    text = (
        f"weights per image: {about.deviation:.4f} from the mean weights (root mean square), "
        f"{about.between_classes:.1%} of the variance is between classes; "
        f"{math.exp(about.entropy):.2f} effective teachers of {len(about.teachers)}"
    )
    if about.right is not None:
        text += (
            f"; on the {about.disputed:.1%} of the images with right and wrong teachers, "
            f"the right ones have {about.right:.4f} of the weight (with the mean weights "
            f"{about.right_constant:.4f})"
        )
    console.print(f"  {escape(text)}")


def print_classes(classes: Mapping[str, ClassAccuracy]) -> None:
    """Print the accuracy by class, the worst first; of many classes only the worst."""
    present = {name: of for name, of in classes.items() if of.images}
    worst = sorted(present.items(), key=lambda item: item[1].acc or 0.0)[:CLASSES_SHOWN]
    more = f", the worst {len(worst)} of {len(present)}" if len(worst) < len(present) else ""
    table = Table(title=f"by class{more}", title_justify="left")
    for column in ("class", "accuracy", "images"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, of in worst:
        table.add_row(escape(name), f"{of.acc:.4f}", f"{of.images:,}")
    console.print(table)


def print_corruptions(found: CorruptedAccuracy) -> None:
    """Print the accuracy by corruption and severity."""
    title = f"accuracy under corruptions, mean {found.mean_acc:.4f} (a subset: docs/evaluate.md)"
    table = Table(title=title, title_justify="left")
    table.add_column("severity")
    for severity in range(1, 6):
        table.add_column(str(severity), justify="right")
    for kind, values in found.acc.items():
        table.add_row(kind, *(f"{value:.4f}" for value in values))
    console.print(table)
