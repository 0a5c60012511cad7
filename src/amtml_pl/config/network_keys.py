"""Declare the keys of students, of teachers, and of the weights of teachers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Literal

from amtml_pl.config.data_keys import MEAN, STD
from amtml_pl.config.key import FILE, SEED, SWITCH, TEXT, Key, choice, key, number, whole
from amtml_pl.config.rules import Rule

INPUT_SIZE = number("a whole number from 1 to 4096", lambda v: 1 <= v <= 4096, null=True, hint=int)
STAGES = Rule(list[str], "a list of module names, first to last, e.g. [layer1,layer2,layer3]")
NETWORK = Rule(dict, "a network with _target_", lambda v: "_target_" in v)
CLASS_MAP = Rule(
    list[int | None] | None, "a list with an index of a teacher output, or null, per class; or null"
)
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
SHARE = number("a number in [0, 1]", lambda v: 0 <= v <= 1, null=True)

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


def has_own_weights(teacher: Mapping[Any, Any]) -> bool:
    """Return True if a teacher's weights come from a file, a run or its constructor."""
    given = (teacher["weights"].get(origin) for origin in ORIGINS)
    return bool(teacher.get("pretrained")) or any(origin is not None for origin in given)
