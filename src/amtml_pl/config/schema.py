"""Declare every key once; checks, names of runs, help and reference derive from it.

A root key has its default in ``conf/train.yaml`` or in its group's folder of ``conf/``, and becomes a typed
field in ``training/settings.py``. All three have the same order. A constructor's signature checks its
arguments; declared here are those with a range, an identity or a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from amtml_pl.config.key import FILE, FOLDER, SEED, SWITCH, TEXT, Key, choice, key, node, number, whole
from amtml_pl.config.rules import Rule

MEAN = Rule(list[float], "3 numbers, one per channel", lambda v: len(v) == 3)
STD = Rule(list[float], "3 numbers above 0, one per channel", lambda v: len(v) == 3 and min(v) > 0)
NAME = Rule(str, "a name", bool)
STAGES = Rule(list[str], "a list of module names, first to last, e.g. [layer1,layer2,layer3]")
NETWORK = Rule(dict, "a network, with its _target_", lambda v: "_target_" in v)
CLASS_MAP = Rule(list[int] | None, "a list with one output per class, or null")
RENAME = Rule(dict[str, str] | None, "a mapping of regular expression to replacement, or null")
PRECISIONS = ("32-true", "32", "bf16-mixed", "16-mixed")
PRECISION = Rule(int | str, f"one of {', '.join(PRECISIONS)}", lambda v: str(v) in PRECISIONS)
DEFECTS = Rule(list[str], "a list of findings of the doctor")
DEVICES = Rule(int | Literal["auto"], "a whole number, 1 or more, or auto", lambda v: v == "auto" or v >= 1)
VIEWS = Rule(int | Literal["all"], "a whole number, 1 or more, or all")
SHARE = number("a number in [0, 1]", lambda v: 0 <= v <= 1, null=True)
VAL_SIZE = Rule(int | float | None, "a number of images, or a fraction", lambda v: v is None or v >= 0)

MIRRORS = Key(Any, "a list of URLs", required=False, help="where it is downloaded from", identity="never")
DATASET = {
    "name": key(NAME, "its name, in folders and tables"),
    "source": node("dataset=digits", "where its images come from", {"mirrors": MIRRORS}),
    "num_classes": key(whole(2), "classes"),
    "image_size": key(whole(1), "side of an image, in pixels"),
    "train_images": key(whole(1, null=True), "for the plan's estimate before packing", identity="never"),
    "mean": key(MEAN, "of the pixels of the training split"),
    "std": key(STD, "of the pixels of the training split"),
}
DATA = {
    "augment": key(Rule(Any, "a view's operations, e.g. augment=none"), "what a view does to an image"),
    "batch_size": key(whole(1), "over all ranks together"),
    "eval_batch_size": key(whole(1), "of evaluation", identity="never"),
    "mixup": key(number("a number, 0 or more", lambda v: v >= 0), "alpha; needs teacher_source=live"),
    "num_workers": key(whole(0), "processes that prepare batches", identity="never", recipe=True),
    "seed": key(SEED, "validation split, training subset and augmentation", recipe=True),
    "train_size": key(whole(1, null=True), "images to train on; null: all others", recipe=True),
    "val_size": key(VAL_SIZE, "images of the validation split", recipe=True),
    "views": key(VIEWS, "versions of every image"),
}
TRAINER = {
    "max_epochs": key(whole(1), "epochs"),
    "precision": key(PRECISION, "of the student's arithmetic", required=False),
    "devices": key(DEVICES, "processes on each machine"),
    "num_nodes": key(whole(1), "machines"),
    "accelerator": key(Rule(str, "auto, cpu, gpu or another of Lightning's names", bool), "what computes"),
}
WEIGHTS = {
    "path": key(FILE, "a safetensors or torch file; null trains the recipe"),
    "key": key(TEXT, "where the state dict is nested; null finds state_dict and model by itself"),
    "strip_prefixes": key(Rule(list[str], "a list, e.g. [module.]"), "prefixes of keys to remove"),
    "rename": key(RENAME, "{regular expression: replacement}, in order"),
}
NETWORK_FILE = {
    "network": key(NETWORK, "its constructor and arguments"),
    "stages": key(STAGES, "its maps from first to last, for terms that read stages"),
    "hint": key(Rule(str | None, "a module's name or null"), "the module that returns its last map"),
}
# A student's taps count where a term reads them. Those of a teacher always count.
STUDENT = {
    name: each if name == "network" else replace(each, identity="readers")
    for name, each in NETWORK_FILE.items()
}
TEACHER = {
    **NETWORK_FILE,
    "pretrained": key(SWITCH, "the network's constructor loads weights (timm's pretrained=true)"),
    "weights": Key(dict, "a mapping, e.g. weights.path=FILE", keys=WEIGHTS, help="a file's weights"),
    "recipe": key(Rule(str | None, "an experiment's name or null"), "the experiment that trains it"),
    "recipe_overrides": key(Rule(list[str], "a list, e.g. ['optimizer.lr=0.01']"), "of the recipe"),
    "seed": key(SEED, "the recipe's seed"),
    "mean": key(MEAN, "of the pixels that it was trained on"),
    "std": key(STD, "of the pixels that it was trained on"),
    "class_map": key(CLASS_MAP, "position c: the teacher's output for our class c; null: as they are"),
    "min_accuracy": key(SHARE, "on the validation split; below it the run stops", identity="never"),
    "pool": key(whole(1, null=True), "side of the grid that its hints are pooled to"),
}
CACHE = {
    "logits": key(choice("float16", "float32"), "how logits are kept"),
    "hints": key(choice("float32", "float16", "int8"), "how hints are kept; int8 with a scale per channel"),
    "precision": key(choice("float32", "bfloat16", "float16"), "of the teachers' forward, by autocast"),
    "channels_last": key(SWITCH, "memory layout of the teachers while the cache is built", identity="never"),
    "compile": key(SWITCH, "torch.compile the teachers while the cache is built", identity="never"),
    "batch_size": key(whole(1), "images per teacher pass while the cache is built", identity="never"),
    "placement": key(
        choice("auto", "mapped", "resident"),
        "auto: on the accelerator where all views fit; mapped: from disk; resident: always on the device",
        identity="never",
    ),
    "probe": key(whole(0), "random images compared with the cache at every start", identity="never"),
}
PATHS = {
    "data": key(FOLDER, "images; packed files lie in <data>/packed (AMTML_DATA)"),
    "outputs": key(FOLDER, "runs (AMTML_OUTPUTS)"),
    "cache": key(FOLDER, "teachers' outputs (AMTML_CACHE)"),
    "teachers": key(FOLDER, "trained teachers (AMTML_TEACHERS)"),
}
# Read by every run.
BASICS = {
    "seed": key(SEED, "initial weights and batch order; splits and views: data.seed", label=False),
    "role": key(choice("student", "teacher"), "teacher: the run's folder is kept under paths.teachers"),
}
AUTO_SWITCH = Rule(bool | Literal["auto"], "true, false or auto")
EXECUTION = {
    "channels_last": key(AUTO_SWITCH, "memory layout of the student"),
    "compile": key(AUTO_SWITCH, "torch.compile the step; auto: where the time that it saves pays for it"),
    "fused": key(AUTO_SWITCH, "one kernel for the optimiser; optimizer.fused overrides it"),
}
# Read by terms, weightings and teachers.
SHARED = {
    "temperature": key(
        number("a number above 0 (softmax(z / T)), e.g. temperature=4", lambda v: 0 < v < float("inf")),
        "T of every softened output",
    ),
    "mixture": key(choice("probabilities", "logits"), "mixed to soft targets; the paper: probabilities"),
    "hint_pool": key(whole(1, null=True), "side of the grid that hints are pooled to; null keeps all"),
    "teacher_recipe": key(TEXT, "the experiment that trains a teacher without weights"),
}
# How teachers answer.
TEACHER_OUTPUTS = {
    "teacher_source": key(
        choice("cached", "live"),
        "cached: teachers run once per view; live: in every step",
        identity="teachers",
    ),
    "cache": node("conf/train.yaml", "of the teachers' outputs (docs/cache.md)", CACHE, identity="cached"),
}
# How the command works, without a trace in the result.
COMMAND = {
    "expected_defects": key(DEFECTS, "of the method; the doctor must find exactly these"),
    "checkpoint_minutes": key(
        number("a number of minutes, 0 or more", lambda v: v >= 0, null=True),
        "between checkpoints within an epoch; 0 saves after every step, null at its end only",
    ),
    "resume": key(choice("auto", "never"), "auto: continue an unfinished run; never: start it over"),
    "prepare": key(SWITCH, "download, pack, train and build what is missing; else an error", recipe=True),
    "force": key(SWITCH, "start over where the run's folder already holds a result"),
    "doctor": key(SWITCH, "examine the step before it is trained"),
    "debug": key(SWITCH, "show the traceback of an error", recipe=True),
    "paths": node("conf/train.yaml", "folders that all runs share", PATHS, recipe=True),
}
ONE_TEACHER = Key(dict, "a teacher", help="one teacher", keys=TEACHER)
COEF = key(number("a number"), "multiplier of a term; the default is in conf/loss")
# Each choice of a group is a file of conf/<group>.
GROUPS = {
    "dataset": node("dataset=digits", "where images come from", DATASET, recipe=True),
    "data": node("data=default", "splits, batches and views", DATA, constructed=True),
    "student": node("student=resnet20", "the network to train", STUDENT),
    "teacher": node("teacher=[]", "the teachers: `teacher=[resnet32,resnet56]`", {"*": ONE_TEACHER}),
    "weighting": node("weighting=uniform", "of the teachers", constructed=True, identity="teachers"),
    "loss": node("loss=[ce]", "the terms of the loss: `loss=[ce,kd]`"),
    "coef": node("coef.ce=1", "multipliers of the terms; those of unselected ones are ignored", {"*": COEF}),
    "loop": node("loop=distill", "the training step, and which optimisers take it", constructed=True),
    "execution": node("execution=auto", "how the student's step is computed", EXECUTION),
    "optimizer": node("optimizer=sgd", "the optimiser", constructed=True),
    "scheduler": node("scheduler=constant", "the learning rate over the epochs", constructed=True),
    "trainer": node("trainer=auto", "where, and for how long", TRAINER, constructed=True, label=False),
    "logger": Key(dict, "a list, e.g. logger=[]", required=False, help="of the curves", identity="never"),
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
    "method": key(CHOICE, "loss, weighting, loop and their strength at once"),
    "experiment": key(CHOICE, "problems and published experiments", label=False),
    "sweep": key(CHOICE, "ready multiruns", label=False),
    "launcher": key(CHOICE, "where the jobs of a multirun run", identity="never"),
    "hydra": Key(dict, "Hydra's settings", help="Hydra's own", identity="never"),
    "benchmark": Key(dict, "its settings", help="how amtml_pl.benchmark measures", identity="never"),
}
