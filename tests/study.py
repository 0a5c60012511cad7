"""Run folders as `amtml_pl.train` writes them."""

from amtml_pl.comparison.adaptivity_table import adapted_groups
from amtml_pl.comparison.baseline import compare_with
from amtml_pl.comparison.evaluated_runs import evaluated
from amtml_pl.comparison.found_runs import find_runs
from amtml_pl.comparison.groups import problems_of
from amtml_pl.comparison.page import figures_of
from amtml_pl.config.overrides import overrides_of, without_places
from amtml_pl.runs.folder import RunFolder
from records import STUDENT, TEACHER, a_record, a_timing
from sealing import seal_again, write_record

BUDGET = {
    "selection": "best",
    "epochs": 8,
    "batch_size": 32,
    "networks_trained": 1,
    "student_initial": "a" * 16,
}


def write_run(folder, experiment, seed, accuracy, *, status="completed", typed="", digest="d" * 64, **more):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.yaml", "metrics.csv"):
        (folder / name).touch()
    command = f"python -m amtml_pl.train experiment={experiment} seed={seed} {typed}".strip()
    measured = ("val/acc", "val/acc_last", "test/acc", "test/acc_last")
    teachers, metrics = more.get("teachers", {}), more.get("metrics", {})
    of_teachers = [f"teacher/{name}/{split}/acc" for name in teachers for split in ("val", "test")]
    fields = {
        "study": f"{experiment} {' '.join(without_places(overrides_of(command)))}",
        "budget": {"epochs": 8, "selection": "best"},
        **more,
        "dataset": {"name": "digits", "digest": digest, "sizes": {}, "classes": []} | more.get("dataset", {}),
        "teachers": {name: TEACHER | facts for name, facts in teachers.items()},
        "cache": {"views": 0, "bytes": 1, "stores": []} | more["cache"] if more.get("cache") else None,
        "student": STUDENT | more.get("student", {}),
        "metrics": dict.fromkeys(measured, accuracy) | dict.fromkeys(of_teachers, 0.9) | metrics,
        "timing": a_timing(**more.get("timing", {})),
        "files": RunFolder(folder).seal(),
    }
    known = {"status": status, "experiment": experiment, "seed": seed, "command": command}
    write_record(folder, a_record(**known, **fields))


def write_study(
    folder, methods=("ce", "avg", "amtml"), seeds=(0, 1, 2), epochs=8, teachers=("resnet14", "vgg8")
):
    """Write runs of several methods and seeds, with their curves and weights."""
    for number, method in enumerate(methods):
        for seed in seeds:
            teach = () if method == "ce" else teachers
            write_whole(folder / f"{method}-{seed}", method, seed, 0.6 + 0.02 * number, epochs, teach)


def write_whole(folder, method, seed, accuracy, epochs, teachers, *, typed="", temperature=4.0, kd=1.0):
    """Write a run with everything that a report can show."""
    reached = accuracy + 0.004 * ((seed * 7 + len(method)) % 5 - 2)
    fitted = 60.0 + 5 * len(method) + seed
    passes = dict.fromkeys(teachers, 2.0 if seed == 0 else 0.0)
    write_run(
        folder, "small", seed, reached,
        typed=f"method={method} {typed}".strip(),
        study=f"{method} {typed}",
        teachers={name: {} for name in teachers},
        temperature=temperature,
        loss={"ce": 1.0, "kd": kd},
        teacher_source="cached" if teachers else None,
        budget={**BUDGET, "epochs": epochs, "student_initial": f"seed {seed}"},
        cache={"teacher_passes": passes} if teachers else None,
        timing={
            "fit_seconds": fitted, "teacher_seconds": 1.0, "cache_build_seconds": 9.0, "compile_seconds": 0.0,
        },
    )  # fmt: skip
    write_curves(folder, epochs, teachers, reached)
    seal_again(folder)


def write_curves(folder, epochs, teachers, reached):
    names = ["epoch", "step", "lr", "val/acc", "val/loss", *(f"weight/{name}" for name in teachers)]
    rows = []
    for epoch in range(epochs):
        weights = [0.5 + 0.3 * (-1) ** place * epoch / epochs for place in range(len(teachers))]
        accuracy, loss = reached * (1 - 0.5 ** (epoch + 1)), 2 / (epoch + 1)
        rows.append([epoch, 100 * (epoch + 1), 0.05, accuracy, loss, *weights])
    write_table(folder / "metrics.csv", [names, *rows])
    if teachers:
        by_class = [
            [epoch, label, *(1 / len(teachers) + 0.01 * epoch for _ in teachers)]
            for epoch in (0, epochs - 1)
            for label in ("cat", "dog")
        ]
        write_table(folder / "weights_by_class.csv", [["epoch", "class", *teachers], *by_class])


def write_table(file, rows):
    file.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))


def problems_in(folder, baseline=None, metric="test/acc"):
    found = problems_of(find_runs(folder, metric).compared, metric)
    if baseline is not None:
        compare_with(found, baseline, metric)
    return found


def problem_of(folder, metric="test/acc"):
    (problem,) = problems_in(folder, metric=metric)
    return problem


def figures(folder, metric="test/acc", broken=None):
    """Return the figures of a folder's only problem, by kind."""
    problem = problem_of(folder, metric)
    evaluations = evaluated(problem)
    adapted = adapted_groups(evaluations) if evaluations else []
    found = figures_of(problem, metric, [] if broken is None else broken, adapted)
    return {figure.kind: figure for figure in found}
