"""Declare every key once; checks, names of runs, help and reference derive from it.

A root key has its default in ``conf/train.yaml`` or in its group's folder of ``conf/``, and becomes a typed
field in ``training/settings.py`` or, within a node, in ``training/options.py``. All have the same order. A
constructor's signature checks its arguments; declared here are those with a range, an identity or a label.
The nodes of images and networks have files of their own, ``data_keys.py`` and ``network_keys.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from amtml_pl.config.data_keys import DATA, DATASET
from amtml_pl.config.key import FOLDER, SEED, SEEDS, SWITCH, TEXT, Key, choice, key, node, number, whole
from amtml_pl.config.network_keys import STUDENT, TEACHER
from amtml_pl.config.rules import Rule

PRESET = Rule(Literal["fast", "overfit", "profiler"] | None, "fast, overfit or profiler, or null")
PRECISIONS = ("32-true", "32", "bf16-mixed", "16-mixed")
PRECISION = Rule(int | str, f"one of {', '.join(PRECISIONS)}", lambda v: str(v) in PRECISIONS)
PROFILER = Rule(
    Literal["simple", "advanced", "pytorch"] | dict | None, "simple, advanced or pytorch, or null"
)
DEFECTS = Rule(list[str], "a list of doctor findings, e.g. [dead-term/kd]")
DEVICES = Rule(int | Literal["auto"], "a whole number, 1 or more, or auto", lambda v: v == "auto" or v >= 1)

TRAINER = {
    "max_epochs": key(whole(1), "number of epochs"),
    "precision": key(PRECISION, "precision of the student's training", required=False),
    "devices": key(DEVICES, "processes on each machine"),
    "num_nodes": key(whole(1), "machines"),
    "accelerator": key(Rule(str, "auto, cpu, gpu or another name of Lightning", bool), "device type"),
    "profiler": key(
        PROFILER, "Lightning's profiler; the report is in the run folder", required=False, identity="never"
    ),
}
CACHE = {
    "logits": key(choice("float16", "float32"), "data type of cached logits"),
    "hints": key(choice("float32", "float16", "int8"), "data type of cached hints; int8: scaled per channel"),
    "precision": key(choice("float32", "bfloat16", "float16"), "autocast precision of the teachers"),
    "channels_last": key(SWITCH, "true: channels_last format for teachers (cache build)", identity="never"),
    "compile": key(SWITCH, "true: torch.compile the teachers for the cache build", identity="never"),
    "batch_size": key(whole(1), "images per forward pass of the cache build", identity="never"),
    "placement": key(
        choice("auto", "mapped", "resident"),
        "auto: in GPU memory if all views fit; mapped: read from disk; resident: in device memory",
        identity="never",
    ),
    "probe": key(whole(0), "random images that every start recomputes to check the cache", identity="never"),
}
PATHS = {
    "data": key(FOLDER, "images; the packed files are in <data>/packed (AMTML_DATA)"),
    "outputs": key(FOLDER, "run folders (AMTML_OUTPUTS)"),
    "cache": key(FOLDER, "cached outputs of the teachers (AMTML_CACHE)"),
    "teachers": key(FOLDER, "trained teachers (AMTML_TEACHERS)"),
}
# Read by every run.
BASICS = {
    "seed": key(SEED, "seed of initial weights and batch order; splits and views: data.seed", label=False),
    "role": key(choice("student", "teacher"), "teacher: the run folder is below paths.teachers"),
    "init_from": key(
        Rule(str | None, "a run folder, a file path, or null"),
        "initial weights of the student: a completed run, or a safetensors or torch file",
        identity="set",
    ),
    "extend": key(
        Rule(str | None, "a run folder or null"),
        "the completed run that is continued up to trainer.max_epochs (docs/longer_runs.md)",
        identity="set",
        label=False,  # the seeds of a group have different origins
    ),
}
AUTO_SWITCH = Rule(bool | Literal["auto"], "true, false or auto")
EXECUTION = {
    "channels_last": key(AUTO_SWITCH, "true: channels_last format for the student; auto: where it is faster"),
    "compile": key(AUTO_SWITCH, "true: torch.compile the training step; auto: if the saved time pays for it"),
    "fused": key(AUTO_SWITCH, "true: one kernel updates all parameters; auto: on a CPU or CUDA"),
}
# Read by terms, weightings and teachers.
SHARED = {
    "temperature": key(
        number("a number above 0 (softmax(z / T)), e.g. temperature=4", lambda v: 0 < v < float("inf")),
        "temperature T of every softened output",
    ),
    "mixture": key(choice("probabilities", "logits"), "what soft targets average; the paper: probabilities"),
    "hint_pool": key(whole(1, null=True), "height and width that hints are pooled to; null: no pooling"),
    "teacher_recipe": key(TEXT, "the experiment that trains a teacher for which no weights file is given"),
}
# How teachers answer.
TEACHER_OUTPUTS = {
    "teacher_seeds": key(
        SEEDS,
        "seeds of the recipes; the run with seed s takes entry s modulo their number (docs/teachers.md)",
        identity="teachers",
    ),
    "teacher_source": key(
        choice("cached", "live"),
        "cached: teachers run once per view; live: teachers run in every step",
        identity="teachers",
    ),
    "cache": node("cache.logits=float32", "cached teacher outputs (docs/cache.md)", CACHE, identity="cached"),
}
# How the command works, without a trace in the result.
COMMAND = {
    "expected_defects": key(DEFECTS, "findings that the doctor must report for this method, and no others"),
    "checkpoint_minutes": key(
        number("a number of minutes, 0 or more", lambda v: v >= 0, null=True),
        "minutes between checkpoints; 0: after every step; null: only after every epoch",
    ),
    "resume": key(choice("auto", "never"), "auto: resume an unfinished run; never: start it again"),
    "prepare": key(SWITCH, "true: download, train and build what is missing; false: stop", recipe=True),
    "force": key(SWITCH, "true: train again if the run folder has a result"),
    "doctor": key(SWITCH, "true: check the gradients of the loss terms before training"),
    "traceback": key(SWITCH, "true: print the traceback of an error", recipe=True),
    "debug": key(PRESET, "the selected preset; its run is below <outputs>/debug, not a result", recipe=True),
    "paths": node("paths.data=FOLDER", "folders that all runs share", PATHS, recipe=True),
}
CLASS_WEIGHTS = Rule(
    Literal["balanced"] | list[float] | None, "balanced, a list with a number above 0 per class, or null",
    lambda v: v is None or v == "balanced" or (bool(v) and min(v) > 0),
)  # fmt: skip
TERM = {
    "class_weights": key(
        CLASS_WEIGHTS,
        "of the term ce: weights of the classes; balanced: inverse to their training images",
        required=False,
        identity="set",
    ),
}
ONE_TERM = Key(dict, "a loss term", help="one term", keys=TERM)
# These callbacks leave the result as it is. Any other may change it, also under the same name.
WATCHING = (
    "pytorch_lightning.callbacks.LearningRateMonitor",
    "pytorch_lightning.callbacks.DeviceStatsMonitor",
)
ONE_TEACHER = Key(dict, "a teacher", help="one teacher", keys=TEACHER)
ONE_CALLBACK = Key(dict, "a callback with _target_", help="one callback", required=False)
COEF = key(number("a number"), "coefficient of a loss term; conf/loss has the default")
# Each choice of a group is a file of conf/<group>.
GROUPS = {
    "dataset": node("dataset=digits", "the images and their classes", DATASET, recipe=True),
    "data": node("data=default", "splits, batches and views", DATA, constructed=True),
    "student": node("student=resnet20", "the network to train", STUDENT),
    "teacher": node("teacher=[]", "the teachers, e.g. `'teacher=[resnet32,resnet56]'`", {"*": ONE_TEACHER}),
    "weighting": node("weighting=uniform", "weights of the teachers", constructed=True, identity="teachers"),
    "loss": node("loss=[ce]", "the terms of the loss, e.g. `'loss=[ce,kd]'`", {"*": ONE_TERM}),
    "coef": node("coef.ce=1", "coefficients of the terms; ignored for unselected terms", {"*": COEF}),
    "loop": node("loop=distill", "the training step and its optimisers", constructed=True),
    "execution": node("execution=auto", "how the training step is executed (docs/execution.md)", EXECUTION),
    "optimizer": node("optimizer=sgd", "the optimiser", constructed=True),
    "scheduler": node("scheduler=constant", "the learning-rate schedule", constructed=True),
    "trainer": node("trainer=auto", "devices and number of epochs", TRAINER, constructed=True, label=False),
    "logger": Key(dict, "a list: 'logger=[]'", required=False, help="loggers of curves", identity="never"),
    "callbacks": node("'callbacks=[ema]'", "Lightning's callbacks (docs/loggers.md)", {"*": ONE_CALLBACK}),
}
# The whole configuration of a run.
KEYS: Mapping[str, Key] = {
    **BASICS,
    **{name: replace(each, identity="readers") for name, each in SHARED.items()},
    **TEACHER_OUTPUTS,
    **{name: replace(each, identity="never") for name, each in COMMAND.items()},
    **GROUPS,
}
# Keys that can be typed for a run, but are not in its configuration.
CHOICE = Rule(str | None, "a choice")
COMPOSES: Mapping[str, Key] = {
    "method": key(CHOICE, "loss, weighting, loop and coefficients together"),
    "experiment": key(CHOICE, "data set, networks and settings of an experiment", label=False),
    "sweep": key(CHOICE, "prepared grids and searches", label=False),
    "debug": key(CHOICE, "a short run that is not a result (docs/loggers.md)"),
    "launcher": key(CHOICE, "the launcher of the jobs of a sweep", identity="never"),
    "hydra": Key(dict, "Hydra's settings", help="settings of Hydra itself", identity="never"),
    "benchmark": Key(dict, "settings", help="settings of amtml_pl.benchmark", identity="never"),
}
