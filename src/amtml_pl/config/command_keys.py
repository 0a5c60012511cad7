"""Declare the keys of the other commands, most of them beside a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from amtml_pl.config.key import FILE, FOLDER, SWITCH, TEXT, Key, choice, key, leaves, node, whole
from amtml_pl.config.rules import Rule
from amtml_pl.config.schema import KEYS

OTHER_FOLDER = Rule(str | None, "a folder, or null for the recorded one; a number in quotes: 'KEY=\"5\"'")
RUN = key(
    Rule(str, "a folder that amtml_pl.train printed at its end: run=FOLDER", bool),
    "the folder of a completed run",
)
CHECKPOINT = key(choice("best", "last"), "the best epoch by validation accuracy, or the last one")
DEBUG = KEYS["debug"]
ROOTS = node(
    "paths.cache=FOLDER",
    "folders that have moved since the run recorded them",
    {
        "data": key(OTHER_FOLDER, "the packed images"),
        "cache": key(OTHER_FOLDER, "the teachers' outputs"),
        "teachers": key(OTHER_FOLDER, "the trained teachers"),
    },
)
SPLITS = Rule(list[Literal["train", "val", "test"]], "a list of train, val, test: splits=[train,val]", bool)
CACHE_COMMAND = {
    "action": key(
        choice("build", "verify", "info", "gc"),
        "build: compute ahead; verify: recompute a sample; info: list; gc: delete what no run uses",
    ),
    "splits": key(SPLITS, "of action=build and action=verify; val and test hold the logits alone"),
    "rows": key(whole(1), "of action=verify: random rows of each view that each teacher looks at again"),
}
BENCHMARK = {
    "repetitions": key(whole(1), "of every measurement; medians and interquartile ranges are reported"),
    "steps": key(whole(2), "timed training steps of each kind in each repetition"),
    "images": key(whole(1), "that the cache is built for in each repetition"),
}
EVALUATE = {
    "run": RUN,
    "checkpoint": CHECKPOINT,
    "split": key(choice("test", "val", "train"), "whose images"),
    "corruptions": key(SWITCH, "also under five common corruptions in five strengths"),
    "teachers": key(SWITCH, "compare with the teachers that are found; false saves that time"),
    "latency": key(SWITCH, "measure milliseconds per image on the CPU; false saves that time"),
    "seed": key(whole(0), "of the corruptions' noise"),
    "out": key(FILE, "the file that is written; null: <run>/evaluate.json"),
    "paths": ROOTS,
    "debug": DEBUG,
}
EXPORT = {
    "run": RUN,
    "format": key(choice("onnx", "safetensors"), "of the file"),
    "checkpoint": CHECKPOINT,
    "out": key(FILE, "the file that is written; null: <run>/export/student.<suffix of the format>"),
    "paths": ROOTS,
    "debug": DEBUG,
}
MODEL = Rule(str, "an exported student or the folder of a completed run: model=FILE_OR_FOLDER", bool)
IMAGES = Rule(str | list[str], "images=FOLDER, a file, a pattern such as 'photos/*.jpg', or a list", bool)
PREDICT = {
    "model": key(MODEL, "an exported student, or the folder of a completed run"),
    "images": key(IMAGES, "a file, a folder (all images below it), a pattern in quotes, or a list of them"),
    "top": key(whole(1), "classes that are printed of each image"),
    "checkpoint": CHECKPOINT,
    "out": key(FILE, "a CSV file that is written, too"),
    "debug": DEBUG,
}
REPORT = {
    "runs": key(FOLDER, "any tree of run folders"),
    "baseline": key(TEXT, "a method, an experiment or a group's name, compared with all others seed by seed"),
    "metric": Key(str, "a metric of run.json", help="what groups are ranked and compared by"),
    "out": key(FILE, "the folder for report.html, .md, .tex, .csv and groups.csv; null: <runs>/report"),
}
COMMANDS: Mapping[str, Mapping[str, Key]] = {
    "train": KEYS,
    "cache": CACHE_COMMAND,
    "benchmark": {"benchmark": node("benchmark.steps=5", "how it measures", BENCHMARK)},
    "evaluate": EVALUATE,
    "export": EXPORT,
    "predict": PREDICT,
    "report": REPORT,
}


def help_of(command: str) -> str:
    """Return the keys of a command with a line of help each, for ``--help``."""
    return "\n".join(f"{path:24} {each.help}" for path, each in leaves(COMMANDS[command]))
