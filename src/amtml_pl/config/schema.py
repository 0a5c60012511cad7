"""Declare every key once; checks, names of runs, help and reference derive from it.

A root key has its default in ``conf/train.yaml`` or in its group's folder of ``conf/``, and becomes a typed
field in ``training/settings.py`` or, within a node, in ``training/options.py``. All have the same order. A
constructor's signature checks its arguments; declared here are those with a range, an identity or a label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Literal

from amtml_pl.config.key import FILE, FOLDER, SEED, SEEDS, SWITCH, TEXT, Key, choice, key, node, number, whole
from amtml_pl.config.rules import Rule

MEAN = Rule(list[float], "3 numbers, one per channel", lambda v: len(v) == 3)
STD = Rule(list[float], "3 numbers above 0, one per channel", lambda v: len(v) == 3 and min(v) > 0)
NAME = Rule(str, "a name", bool)
INPUT_SIZE = number("a whole number from 1 to 4096", lambda v: 1 <= v <= 4096, null=True, hint=int)
STAGES = Rule(list[str], "a list of module names, first to last, e.g. [layer1,layer2,layer3]")
NETWORK = Rule(dict, "a network with _target_", lambda v: "_target_" in v)
CLASS_MAP = Rule(
    list[int | None] | None, "a list with an index of a teacher output, or null, per class; or null"
)
CLASSES = Rule(
    list[int] | None, "a list of two or more classes by position, e.g. [0,1,2], or null",
    lambda v: v is None or (len(set(v)) == len(v) > 1 and min(v) >= 0),
)  # fmt: skip
RENAME = Rule(dict[str, str] | None, "a mapping from regular expressions to replacements, or null")
URL = Rule(
    str | None,
    "an http(s) address that ends with a file's name, or null",
    lambda v: v is None or re.fullmatch(r"https?://[^/?#]+/([^?#]*/)?[^/?#]*[^/?#.]", v) is not None,
)
SHA256 = Rule(
    str | None,
    "8 to 64 hexadecimal digits in quotes, or null",
    lambda v: v is None or re.fullmatch("[0-9a-fA-F]{8,64}", v) is not None,
)
MEMBER = Rule(
    str | None,
    "the name of a file in a tar archive, or null",
    lambda v: v is None or (bool(v) and v[0] != "/" and v == str(PurePosixPath(v)) and ".." not in v),
)
PRESET = Rule(Literal["fast", "overfit", "profiler"] | None, "fast, overfit or profiler, or null")
PRECISIONS = ("32-true", "32", "bf16-mixed", "16-mixed")
PRECISION = Rule(int | str, f"one of {', '.join(PRECISIONS)}", lambda v: str(v) in PRECISIONS)
PROFILER = Rule(
    Literal["simple", "advanced", "pytorch"] | dict | None, "simple, advanced or pytorch, or null"
)
DEFECTS = Rule(list[str], "a list of doctor findings, e.g. [dead-term/kd]")
DEVICES = Rule(int | Literal["auto"], "a whole number, 1 or more, or auto", lambda v: v == "auto" or v >= 1)
VIEWS = Rule(int | Literal["all"], "a whole number, 1 or more, or all")
SHARE = number("a number in [0, 1]", lambda v: 0 <= v <= 1, null=True)
VAL_SIZE = Rule(  # a share of 0.0 would be another run than 0 images
    int | float,
    "a whole number of images, 0 for no validation split, or a fraction between 0 and 1, e.g. 0.1",
    lambda v: v >= 0 if isinstance(v, int) else 0 < v < 1,
)

MIRRORS = Key(Any, "a list of URLs", required=False, help="folders with the archive", identity="never")
DATASET = {
    "name": key(NAME, "name in folders and tables"),
    "source": node("dataset=digits", "source of the images", {"mirrors": MIRRORS}),
    "num_classes": key(whole(2), "number of classes"),
    "image_size": key(whole(1), "height and width of an image in pixels"),
    "train_images": key(whole(1, null=True), "training images, to plan the first run", identity="never"),
    "mean": key(MEAN, "mean pixel of the training split"),
    "std": key(STD, "standard deviation of pixels in the training split"),
}
DATA = {
    "augment": key(Rule(Any, "operations, e.g. augment=none"), "operations that make a view"),
    "balanced": key(
        SWITCH, "true: an epoch draws as many images of every class (docs/data.md)", identity="set"
    ),
    "batch_size": key(whole(1), "training images per step, in all processes together"),
    "classes": key(CLASSES, "classes whose images every split keeps; null: all (docs/teachers.md)"),
    "clip_train_size": key(
        SWITCH, "true: the nearest possible number for an impossible train_size", identity="set", recipe=True
    ),
    "device": key(
        choice("auto", "cpu", "device"),
        "where batches are made; auto: on the GPU if all images fit into half of its free memory",
        identity="never",
        recipe=True,
    ),
    "eval_batch_size": key(whole(1), "images per batch in evaluation", identity="never"),
    "mixup": key(number("a number, 0 or more", lambda v: v >= 0), "mixup's alpha; needs teacher_source=live"),
    "num_workers": key(whole(0), "worker processes of the data loader", identity="never", recipe=True),
    "seed": key(SEED, "seed of the validation split, training subset and augmentation", recipe=True),
    "train_size": key(whole(1, null=True), "training images; null: all outside the val split", recipe=True),
    "val_size": key(VAL_SIZE, "images of the validation split; 0: none, the last epoch counts", recipe=True),
    "views": key(VIEWS, "augmented versions of every image"),
}
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
ORIGINS = ("path", "url", "run")  # of weights; at most one is given
WEIGHTS = {
    "path": key(FILE, "a safetensors or torch file; null: the recipe trains the teacher"),
    "url": key(URL, "the address of a published file, or of a tar archive that holds it"),
    "sha256": key(SHA256, "the first digits of the SHA-256 of the published file"),
    "mirrors": key(
        Rule(list[str], "a list of URLs"), "folders that also hold the published file", identity="never"
    ),
    "member": key(MEMBER, "the name of the file in the archive"),
    "run": key(
        Rule(str | None, "a folder path or null"),
        "the folder of a completed run, whose student is the teacher",
    ),
    "key": key(TEXT, "key of the state dict in the file; null: state_dict or model, if present"),
    "strip_prefixes": key(Rule(list[str], "a list, e.g. [module.]"), "prefixes to remove from tensor names"),
    "rename": key(RENAME, "renames tensors: {regular expression: replacement}, in order"),
}
MAP_READING = {
    "tokens": key(
        choice("patches", "class", "mean"), "which tokens of a transformer its taps read", required=False
    ),
    "prefix_tokens": key(
        whole(0, null=True), "tokens before the patches; null: as timm says, or 0", required=False
    ),
    "map_format": key(
        Rule(Literal["NCHW", "NHWC"] | None, "NCHW, NHWC or null"),
        "NHWC: maps of the network have channels last; null: as timm says, or NCHW",
        required=False,
    ),
}
NETWORK_FILE = {
    "network": key(NETWORK, "constructor of the network, and its arguments"),
    "stages": key(STAGES, "modules whose feature maps loss terms read, from first to last"),
    "hint": key(Rule(str | None, "a module's name or null"), "module that returns the last feature map"),
    "input_size": key(INPUT_SIZE, "height and width that images are resized to; null: dataset.image_size"),
    **MAP_READING,
    "protocol_lr": key(
        number("a number above 0", lambda v: v > 0),
        "learning rate of the protocol cifar100_crd for this network",
        required=False,
        identity="never",  # optimizer.lr counts, which refers to it
    ),
    "channels_last": key(
        SWITCH, "of a student: what execution.channels_last=auto takes on a CPU", required=False
    ),
}
# A student's taps count where a term reads them. Those of a teacher always count.
STUDENT = {
    **NETWORK_FILE,
    **{name: replace(NETWORK_FILE[name], identity="readers") for name in ("stages", "hint")},
    **{name: replace(NETWORK_FILE[name], identity="teachers") for name in MAP_READING},
}
TEACHER = {
    **NETWORK_FILE,
    "channels_last": replace(NETWORK_FILE["channels_last"], identity="never"),
    "pretrained": key(SWITCH, "true: the constructor loads trained network weights (timm: pretrained=true)"),
    "weights": Key(dict, "a mapping, e.g. weights.path=FILE", keys=WEIGHTS, help="network weights in a file"),
    "recipe": key(Rule(str | None, "an experiment's name or null"), "the experiment that trains the teacher"),
    "recipe_overrides": key(Rule(list[str], "a list, e.g. ['optimizer.lr=0.01']"), "overrides of the recipe"),
    "seed": key(SEED, "seed of the recipe"),
    "mean": key(MEAN, "mean pixel of the teacher's training data"),
    "std": key(STD, "standard deviation of pixels in the teacher's training data"),
    "class_map": key(
        CLASS_MAP,
        "entry c: the teacher output for class c of the data, null: an unknown class; null: the same order",
    ),
    "head": key(
        Rule(Literal["none", "linear"] | None, "null, none or linear"),
        "null: the network returns logits; none: hints alone; linear: a classifier is fitted on its features",
    ),
    "min_accuracy": key(
        SHARE, "smallest accuracy on validation, else training images; the run stops below", identity="never"
    ),
    "pool": key(whole(1, null=True), "height and width that the teacher's hints are pooled to"),
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
