"""Declare the keys of the other commands, most of them beside a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from amtml_pl.config.key import FILE, SWITCH, TEXT, Key, choice, key, node, whole
from amtml_pl.config.rules import Rule
from amtml_pl.config.schema import KEYS

OTHER_FOLDER = Rule(
    str | None, "a folder path (a number in quotes: 'KEY=\"5\"'), or null for the recorded one"
)
RUN = key(
    Rule(str, "a run folder, which amtml_pl.train prints at its end: run=FOLDER", bool),
    "the folder of a completed run",
)
CHECKPOINT = key(
    choice("best", "last"),
    "best: the selected epoch, by validation accuracy or else the last; last: the last epoch",
)
TRACEBACK = KEYS["traceback"]
ROOTS = node(
    "paths.cache=FOLDER",
    "new places of folders that were moved after the run",
    {
        "data": key(OTHER_FOLDER, "folder of the packed images"),
        "cache": key(OTHER_FOLDER, "folder of the teachers' cached outputs"),
        "teachers": key(OTHER_FOLDER, "folder of the trained teachers"),
    },
)
SPLITS = Rule(list[Literal["train", "val", "test"]], "a list of train, val, test: 'splits=[train,val]'", bool)
CACHE_COMMAND = {
    "action": key(
        choice("build", "verify", "info", "gc"),
        "build: fill the cache; verify: recompute a sample; info: list; gc: delete unused outputs",
    ),
    "splits": key(SPLITS, "splits to build or verify; for val and test only logits are cached"),
    "rows": key(whole(1), "random images of each view that action=verify recomputes"),
}
BENCHMARK = {
    "repetitions": key(whole(1), "repetitions of every measurement; the median is reported"),
    "steps": key(whole(2), "timed training steps of each kind in each repetition"),
    "images": key(whole(1), "images that the cache is built for in each repetition"),
}
EVALUATE = {
    "run": RUN,
    "checkpoint": CHECKPOINT,
    "split": key(choice("test", "val", "train"), "the split to evaluate"),
    "corruptions": key(SWITCH, "true: also evaluate five common corruptions, each in five strengths"),
    "teachers": key(SWITCH, "true: also evaluate the teachers that are found; false is faster"),
    "latency": key(SWITCH, "true: also measure milliseconds per image on the CPU; false is faster"),
    "seed": key(whole(0), "seed of the noise in the corruptions"),
    "out": key(FILE, "the JSON file to write; null: <run>/evaluate.json"),
    "paths": ROOTS,
    "traceback": TRACEBACK,
}
EXPORT = {
    "run": RUN,
    "format": key(choice("onnx", "safetensors"), "format of the exported file"),
    "checkpoint": CHECKPOINT,
    "out": key(FILE, "the file to write; null: <run>/export/student.<suffix of the format>"),
    "paths": ROOTS,
    "traceback": TRACEBACK,
}
MODEL = Rule(str, "an exported student or the folder of a completed run: model=FILE_OR_FOLDER", bool)
IMAGES = Rule(str | list[str], "a folder, file, pattern or list: images=FOLDER", bool)
PREDICT = {
    "model": key(MODEL, "an exported student, or the folder of a completed run"),
    "images": key(IMAGES, "a file, a folder with images, a pattern in quotes, or a list of these"),
    "top": key(whole(1), "number of classes to print for each image"),
    "checkpoint": CHECKPOINT,
    "out": key(FILE, "a CSV file to write; null: none"),
    "traceback": TRACEBACK,
}
NAMES = Rule(dict[str, str | int | float] | None, "words and their replacements: 'names={avg: Average}'")
RUNS = Rule(str | list[str], "a folder, pattern or list: runs=FOLDER", bool)
REPORT = {
    "runs": key(
        RUNS, "a folder with run folders at any depth, the folder of a sweep, a pattern in quotes, or a list"
    ),
    "baseline": key(TEXT, "the method, experiment or group that all others are compared with, seed by seed"),
    "metric": Key(str, "a metric in run.json, e.g. test/acc", help="metric that ranks and compares groups"),
    "names": key(NAMES, "names of groups or words in them, and what to show instead"),
    "trials": key(SWITCH, "true: also compare the trials of hyperparameter searches"),
    "out": key(FILE, "folder for report.html, .md, .tex, .csv and groups.csv; null: report below runs"),
}
INFO = {
    "info": key(choice("teachers", "students", "methods", "datasets"), "the choices to list: info=teachers"),
}
COMMANDS: Mapping[str, Mapping[str, Key]] = {
    "train": KEYS,
    "cache": CACHE_COMMAND,
    "doctor": {},
    "benchmark": {"benchmark": node("benchmark.steps=5", "settings of the measurements", BENCHMARK)},
    "evaluate": EVALUATE,
    "export": EXPORT,
    "predict": PREDICT,
    "report": REPORT,
    "info": INFO,
}
