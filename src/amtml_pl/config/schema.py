"""What YAML values may be where no constructor says so, and whether a value has the type of an argument."""

from __future__ import annotations

import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from beartype import BeartypeConf
from beartype.door import is_bearable


@dataclass(frozen=True)
class Rule:
    """What one value may be.

    Attributes:
        hint: its type.
        expected: the same in words, with the range.
        holds: whether a value of that type is in range.
    """

    hint: Any
    expected: str
    holds: Callable[[Any], bool] = lambda _: True


def switch(default: str) -> Rule:
    """A rule for true or false."""
    return Rule(bool, f"true or false, e.g. {default}")


TEXT_OR_NULL = Rule(str | None, "a text or null")
ROOT = {
    "seed": Rule(int, "a whole number, 0 or more, at most 4294967295", lambda v: 0 <= v < 2**32),
    "temperature": Rule(
        float, "a number above 0 (softmax(z / T)), e.g. temperature=4", lambda v: 0 < v < float("inf")
    ),
    "mixture": Rule(Literal["probabilities", "logits"], "probabilities or logits"),
    "regression_stage": Rule(int | None, "a whole number, 1 or more, or null", lambda v: v is None or v >= 1),
    "regression_grid": Rule(int | None, "a whole number, 1 or more, or null", lambda v: v is None or v >= 1),
    "hint_pool": Rule(int | None, "a whole number, 1 or more, or null", lambda v: v is None or v >= 1),
    "teacher_source": Rule(Literal["cached", "live"], "cached or live"),
    "weighting_lr": Rule(float | None, "a number above 0, or null", lambda v: v is None or v > 0),
    "teacher_recipe": TEXT_OR_NULL,
    "expected_defects": Rule(list[str], "a list of findings of the doctor"),
    "channels_last": switch("channels_last=false"),
    "compile": switch("compile=false"),
    "role": Rule(Literal["student", "teacher"], "student or teacher"),
    "checkpoint_minutes": Rule(
        float | None, "a number of minutes, 0 or more, or null", lambda v: v is None or v >= 0
    ),
    "resume": Rule(Literal["auto", "never"], "auto or never"),
    "prepare": switch("prepare=true"),
    "force": switch("force=false"),
    "doctor": switch("doctor=true"),
    "debug": switch("debug=false"),
}
LIST_GROUPS = ("loss", "logger")
# The nodes of the root, and the command that brings each of them back.
NODES = {
    "paths": "leave it as it is in conf/train.yaml",
    "cache": "leave it as it is in conf/train.yaml",
    "coef": "coef.ce=1",
    "dataset": "dataset=digits",
    "data": "data=default",
    "student": "student=resnet20",
    "weighting": "weighting=uniform",
    "loop": "loop=distill",
    "optimizer": "optimizer=sgd",
    "scheduler": "scheduler=constant",
    "trainer": "trainer=auto",
    "loss": "loss=[ce]",
    "teacher": "teacher=[]",
}
CONSTRUCTED = ("loop", "data", "weighting", "optimizer", "scheduler", "trainer")
MEAN = Rule(list[float], "3 numbers, one per channel", lambda v: len(v) == 3)
STD = Rule(list[float], "3 numbers above 0, one per channel", lambda v: len(v) == 3 and min(v) > 0)
DATASET = {
    "name": Rule(str, "a name", bool),
    "source": Rule(dict, "a data set's source"),
    "num_classes": Rule(int, "a whole number, 2 or more", lambda v: v >= 2),
    "image_size": Rule(int, "a number of pixels, 1 or more", lambda v: v >= 1),
    "train_images": Rule(int | None, "a whole number or null", lambda v: v is None or v >= 1),
    "mean": MEAN,
    "std": STD,
}
TEACHER = {
    "network": Rule(dict, "a network, with its _target_", lambda v: "_target_" in v),
    "pretrained": switch("pretrained=true"),
    "weights": Rule(dict, "a mapping with path, key, strip_prefixes, rename; for a file weights.path=FILE"),
    "recipe": Rule(str | None, "an experiment's name or null"),
    "recipe_overrides": Rule(list[str], "a list of overrides, e.g. ['optimizer.lr=0.01']"),
    "seed": Rule(int, "a whole number, 0 or more", lambda v: 0 <= v < 2**32),
    "mean": MEAN,
    "std": STD,
    "class_map": Rule(list[int] | None, "a list with one output per class, or null"),
    "min_accuracy": Rule(float | None, "a number in [0, 1] or null", lambda v: v is None or 0 <= v <= 1),
    "hint": Rule(str | None, "a module's name or null"),
    "stages": Rule(list[str], "a list of module names, first to last, e.g. [layer1,layer2,layer3]"),
    "pool": Rule(int | None, "a whole number, 1 or more, or null", lambda v: v is None or v >= 1),
}
CACHE = {
    "logits": Rule(Literal["float16", "float32"], "float16 or float32"),
    "hints": Rule(Literal["float32", "float16", "int8"], "float32, float16 or int8"),
    "precision": Rule(Literal["float32", "bfloat16", "float16"], "float32, bfloat16 or float16"),
    "channels_last": switch("cache.channels_last=true"),
    "compile": switch("cache.compile=false"),
    "batch_size": Rule(int, "a whole number, 1 or more", lambda v: v >= 1),
    "device": Rule(Literal["auto", "mapped", "resident"], "auto, mapped or resident"),
    "probe": Rule(int, "a whole number, 0 or more", lambda v: v >= 0),
}
WEIGHTS = {
    "path": Rule(str | None, "a file or null"),
    "key": TEXT_OR_NULL,
    "strip_prefixes": Rule(list[str], "a list of texts, e.g. [module.]"),
    "rename": Rule(dict[str, str] | None, "a mapping of regular expression to replacement, or null"),
}
# What commands take besides a run's configuration.
CACHE_COMMAND = {
    "action": Rule(Literal["build", "verify", "info", "gc"], "build, verify, info or gc"),
    "splits": Rule(
        list[Literal["train", "val", "test"]], "a list of train, val, test, e.g. splits=[train,val]", bool
    ),
    "rows": Rule(int, "a whole number, 1 or more", lambda v: v >= 1),
}
BENCHMARK = {
    "repetitions": Rule(int, "a whole number, 1 or more", lambda v: v >= 1),
    "steps": Rule(int, "a whole number, 2 or more", lambda v: v >= 2),
    "images": Rule(int, "a whole number, 1 or more", lambda v: v >= 1),
}
EVALUATE = {
    "run": Rule(str | None, "the folder of a completed run"),
    "checkpoint": Rule(Literal["best", "last"], "best or last"),
    "split": Rule(Literal["train", "val", "test"], "test, val or train"),
    "corruptions": switch("corruptions=true"),
    "teachers": switch("teachers=false"),
    "latency": switch("latency=false"),
    "seed": Rule(int, "a whole number, 0 or more", lambda v: v >= 0),
    "out": Rule(str | None, "a file or null"),
    "debug": switch("debug=true"),
}
EXPORT = {
    "run": Rule(str | None, "the folder of a completed run"),
    "format": Rule(
        Literal["onnx", "torch_export", "safetensors"],
        "onnx, torch_export or safetensors",
    ),
    "checkpoint": Rule(Literal["best", "last"], "best or last"),
    "int8": switch("int8=true"),
    "int8_drop": Rule(float, "a number in [0, 1]", lambda v: 0 <= v <= 1),
    "out": Rule(str | None, "a file or null"),
    "debug": switch("debug=true"),
}
PREDICT = {
    "model": Rule(str | None, "an exported student or the folder of a completed run"),
    "images": Rule(
        str | list[str] | None, "a file, a folder, a pattern such as 'photos/*.jpg', or a list of them"
    ),
    "top": Rule(int, "a whole number, 1 or more", lambda v: v >= 1),
    "checkpoint": Rule(Literal["best", "last"], "best or last"),
    "trust": switch("trust=true"),
    "out": Rule(str | None, "a file or null"),
    "debug": switch("debug=true"),
}

SET_BY_ENTRY_POINT = (
    "logger", "callbacks", "plugins", "default_root_dir", "enable_progress_bar", "enable_model_summary",
    "num_sanity_val_steps", "use_distributed_sampler", "reload_dataloaders_every_n_epochs",
)  # fmt: skip
NOT_HONOURED = (
    "enable_checkpointing", "fast_dev_run", "limit_val_batches", "check_val_every_n_epoch", "barebones",
    "overfit_batches", "max_steps", "min_steps", "max_time", "limit_test_batches",
)  # fmt: skip
TRAINER = {
    "max_epochs": Rule(int, "a whole number, 1 or more", lambda v: v >= 1),
    "precision": Rule(
        int | str,
        "one of 32-true, 32, bf16-mixed, 16-mixed",
        lambda v: str(v) in ("32-true", "32", "bf16-mixed", "16-mixed"),
    ),
    "devices": Rule(
        int | Literal["auto"], "a whole number, 1 or more, or auto", lambda v: v == "auto" or v >= 1
    ),
    "num_nodes": Rule(int, "a whole number, 1 or more", lambda v: v >= 1),
    "accelerator": Rule(str, "auto, cpu, gpu or another of Lightning's names", bool),
}
DATA_KEYS = (
    "augment", "batch_size", "eval_batch_size", "mixup", "num_workers", "seed", "train_size", "val_size",
    "views",
)  # fmt: skip


def rule_problems(
    node: Mapping[str, Any], rules: Mapping[str, Rule], path: str, known: Collection[str] = ()
) -> Iterator[str]:
    """Keys of a node that are missing, unknown, or hold what their rule refuses.

    Args:
        node: the values.
        rules: what each may be.
        path: of the node, "" for the root.
        known: keys beside those with a rule.
    """
    prefix = f"{path}." if path else ""
    for key in node.keys() - rules.keys() - set(known):
        yield f"{prefix}{key}: there is no such key{suggestion(str(key), {**rules, **dict.fromkeys(known)})}"
    for key, rule in rules.items():
        if key not in node:
            yield f"{prefix}{key} is missing: expected {rule.expected}"
        elif not fits(node[key], rule.hint) or not rule.holds(node[key]):
            yield f"{prefix}{key}={node[key]!r}: expected {rule.expected}"


def teacher_problems(node: Mapping[str, Any], path: str) -> Iterator[str]:
    """What is wrong with a teacher's own values."""
    yield from rule_problems(node, TEACHER, path)
    weights = node.get("weights")
    if isinstance(weights, Mapping):
        yield from rule_problems(weights, WEIGHTS, f"{path}.weights")
        trained_here = weights.get("path") is None and not node.get("pretrained")
        if trained_here and node.get("class_map") is not None:
            yield (
                f"{path}.class_map={node['class_map']!r}: expected null for a teacher without own weights, "
                "which its recipe trains on the data's own classes"
            )


def trainer_problems(node: Mapping[str, Any]) -> Iterator[str]:
    """What Lightning's trainer would take and this project cannot."""
    given = {key: rule for key, rule in TRAINER.items() if key in node or key != "precision"}
    yield from rule_problems(node, given, "trainer", known=node.keys())
    for key in node.keys() & set(SET_BY_ENTRY_POINT):
        yield f"trainer.{key}: is set by the entry point; remove it"
    if node.get("accelerator") == "cpu" and str(node.get("precision")) == "16-mixed":
        yield "trainer.precision=16-mixed: the CPU has bfloat16 only; expected bf16-mixed or 32-true"
    if node.get("accelerator") == "cpu" and node.get("sync_batchnorm"):
        yield "trainer.sync_batchnorm=True: batch norm is synchronised on GPUs only; expected false"
    if node.get("strategy") not in (None, "auto", "ddp"):
        yield (
            f"trainer.strategy={node['strategy']}: several processes always share batches by DDP here; "
            "expected none"
        )
    if node.get("limit_train_batches") == 0:
        yield "trainer.limit_train_batches=0: a run trains; expected 1 or more"
    for key in node.keys() & set(NOT_HONOURED):
        yield f"trainer.{key}: cannot be honoured by this version, which validates and saves every epoch"


def fits(value: Any, hint: Any) -> bool:  # noqa: ANN401
    """Whether a YAML value has the type of an argument: paths come as strings, tuples as lists.

    True is no number and a text no sequence of letters here, as opposed to Python.
    """
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    if union:
        return any(fits(value, alternative) for alternative in typing.get_args(hint))
    if isinstance(value, bool) and hint in (int, float, complex):
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if isinstance(value, str) and typing.get_origin(hint) in (Sequence, Iterable, Collection):
        return False
    if isinstance(value, list) and any(isinstance(v, bool) for v in value):
        inner = (
            () if typing.get_origin(hint) is Literal else typing.get_args(hint)
        )  # whose arguments are values
        if inner and not any(fits(True, each) for each in inner if each is not Ellipsis):
            return False
    conf = BeartypeConf(is_pep484_tower=True)
    candidates: list[object] = [value]
    if isinstance(value, str):
        candidates.append(Path(value))
    if isinstance(value, list):
        candidates.append(tuple(value))
    if not any(is_bearable(candidate, hint, conf=conf) for candidate in candidates):
        return False
    # beartype looks at one item of a list only
    items = typing.get_args(hint) if isinstance(value, list) else ()
    kind = typing.get_origin(hint)
    return not (len(items) == 1 and kind in (list, Sequence, Iterable, Collection)) or all(
        fits(v, items[0]) for v in value
    )


def readable(hint: object) -> str:
    """A type as a person would write it."""
    return hint.__name__ if inspect.isclass(hint) else re.sub(r"(typing|collections\.abc)\.", "", str(hint))


def suggestion(name: str, known: Mapping[str, Any]) -> str:
    """Asks whether a close known name was meant; lists the known ones where none is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it takes {sorted(known)}"
