"""Describe the choices of a group, from their files and from what these build."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import torch
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.filesize import decimal

from amtml_pl.config.build import Config, build_object, plain_values
from amtml_pl.config.headers import summary
from amtml_pl.config.override_errors import options_of, reason
from amtml_pl.config.overrides import key_of
from amtml_pl.config.teacher_recipe import composed
from amtml_pl.config.value_origin import content_of, file_of, folders_of_files
from amtml_pl.data.source import DatasetSource
from amtml_pl.errors import UserError, first_line
from amtml_pl.losses.term import LossTerm
from amtml_pl.models.taps import NetworkCost, TappedNetwork, cost
from amtml_pl.weighting.scheme import Weighting

Row = Mapping[str, str]  # the cells of a choice by the titles of their columns


def students(words: Sequence[str]) -> Iterator[Row]:
    """Yield the networks of ``student=``, each with its costs on a run's data."""
    names = options_of("student", folders_of_files())
    config = run_with(words, teacher=f"[{','.join(names)}]")
    for name in names:
        yield {"student": name, **network_cells(config, name), "what": about("student", name)}


def teachers(words: Sequence[str]) -> Iterator[Row]:
    """Yield the teachers with own files, on the data in their names or a run's."""
    names = [name for name in options_of("teacher", folders_of_files()) if file_of("teacher", name)]
    data = {name: dataset_in(name) for name in names}
    for dataset in dict.fromkeys(data.values()):
        own = [name for name in names if data[name] == dataset]
        others = {} if dataset is None else {"dataset": dataset}
        config = run_with(words, teacher=f"[{','.join(own)}]", **others)
        for name in own:
            cells, node = network_cells(config, name), config.teacher[name]
            needs = ", ".join(filter(None, [cells["needs"], "download" if node.weights.url else ""]))
            source = {"weights": weights_source(node), "needs": needs}
            yield {"teacher": name, **cells, **source, "what": about("teacher", name)}


def methods(words: Sequence[str]) -> Iterator[Row]:
    """Yield the methods, each with its parts and with what these need besides labels."""
    run = run_with(words)
    for name in options_of("method", folders_of_files()):
        config = with_method(run, name)
        terms: list[LossTerm] = [build_object(node) for node in config.loss.values()]
        weighting: Weighting = build_object(config.weighting)
        yield {
            "method": name,
            "loss": ", ".join(map(str, config.loss)),
            "needs": ", ".join(method_needs(terms, weighting)),
            "what": about("method", name),
        }


def datasets(words: Sequence[str]) -> Iterator[Row]:
    """Yield the data sets, with their size and what is missing on this machine."""
    for name in options_of("dataset", folders_of_files()):
        config = run_with(words, dataset=name)
        values = plain_values(config.dataset, resolve=False)
        known = {key: "yours" if value in ("???", None) else str(value) for key, value in values.items()}
        yield {
            "dataset": name,
            "classes": known["num_classes"],
            "pixels": known["image_size"],
            "training images": known["train_images"],
            "needs": images_needed(config),
            "what": about("dataset", name),
        }


TABLES: Mapping[str, Callable[[Sequence[str]], Iterator[Row]]] = {
    "teachers": teachers, "students": students, "methods": methods, "datasets": datasets,
}  # fmt: skip


def run_with(words: Sequence[str], **choices: str) -> Config:
    """Compose a run from overrides and choices, which replace overrides of the same groups.

    Raises:
        UserError: if a choice cannot be composed, such as one of the user's files.
    """
    kept = [word for word in words if key_of(word) not in choices]
    try:
        return composed([*kept, *(f"{group}={choice}" for group, choice in choices.items())])
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"A choice cannot be composed: {reason(error)}") from error


def with_method(run: Config, name: str) -> Config:
    """Return a run with the terms, the weighting and the values of a method.

    The method's file is read here, as Hydra needs 0.2 s to compose a run: ten seconds for all methods.
    """
    terms, weighting, values = parts_of_method(name)
    config = deepcopy(run)
    if terms is not None:
        config.loss = {key: node for term in terms for key, node in content("loss", term)["loss"].items()}
    if weighting is not None:
        config.weighting = content("weighting", weighting)
    OmegaConf.set_struct(config, False)
    config.merge_with(values)
    return config


def parts_of_method(name: str) -> tuple[list[str] | None, str | None, dict[str, Any]]:
    """Return a method's choices of loss and weighting, and its values, with inherited ones."""
    values = dict(content("method", name))
    terms: list[str] | None = None
    weighting: str | None = None
    inherited: dict[str, Any] = {}
    for entry in values.pop("defaults", ()):
        if isinstance(entry, Mapping):
            terms, weighting = entry.get("override /loss", terms), entry.get("override /weighting", weighting)
        elif entry != "_self_":
            terms, weighting, inherited = parts_of_method(entry)
    return terms, weighting, {**inherited, **values}


def content(group: str, name: str) -> Any:
    """Return the content of a choice's file; raise a UserError without one."""
    if (file := file_of(group, name)) is None:
        raise UserError(f"A choice cannot be composed: {group}={name} has no file.")
    return content_of(file)


def network_cells(config: Config, name: str) -> dict[str, str]:
    """Return the costs of a teacher's network; without them, why it cannot be built."""
    node, size = config.teacher[name], config.dataset.image_size
    network = plain_values(node.network)
    of_timm = "timm." in json.dumps(network)
    cells = {"pixels": str(node.input_size or size), "needs": "timm" if of_timm else ""}
    try:
        found = measured(json.dumps(network), size, node.input_size)
    except UserError as error:
        return {"parameters": "", "MACs": "", **cells, "needs": first_line(error)}
    return {"parameters": f"{found.parameters:,}", "MACs": f"{found.macs / 1e6:,.1f} M", **cells}


@lru_cache
def measured(network: str, image_size: int, input_size: int | None) -> NetworkCost:
    """Return the costs of a network in JSON; many teachers are the same network."""
    with torch.device("meta"):
        built = build_object(json.loads(network))
        neutral: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": input_size}
        return cost(TappedNetwork(built, **neutral), image_size)


def weights_source(node: Config) -> str:
    """Return where a teacher's weights come from."""
    if node.weights.url:
        address = urlsplit(node.weights.url)
        return "/".join([address.netloc, *address.path.split("/")[1:3]])
    given = node.weights.run or node.weights.path or ("its constructor" if node.pretrained else None)
    return str(given or f"recipe {node.recipe or 'of the experiment'}")


def method_needs(terms: Sequence[LossTerm], weighting: Weighting) -> Iterator[str]:
    """Yield what a method reads besides the labels of its batch."""

    def overridden(name: str) -> bool:
        return any(getattr(type(term), name) is not getattr(LossTerm, name) for term in terms)

    if not any(term.needs_teachers for term in terms):
        return
    yield "teachers"
    if overridden("hints"):
        yield "feature maps"
    if overridden("head_names"):
        yield "classifiers"
    if overridden("summed_hints"):
        yield "teacher_source=cached"
    chooses = type(weighting).set_teacher_accuracy is not Weighting.set_teacher_accuracy
    if weighting.needs_held_out or chooses:
        yield "validation labels" + ("" if weighting.needs_held_out else " (several teachers)")


def images_needed(config: Config) -> str:
    """Return what a data set needs that this machine lacks; empty for nothing."""
    try:
        source: DatasetSource = build_object(config.dataset.source)
    except (UserError, OmegaConfBaseException):  # a folder that the user has to name
        return "your files"
    if source.missing() is None:
        return ""
    size = source.download_bytes()
    return "your files" if size is None else f"download of {decimal(size)}"


def about(group: str, name: str) -> str:
    """Return the first sentence of a choice's file."""
    file = file_of(group, name)
    return "" if file is None else summary(file)


def dataset_in(teacher: str) -> str | None:
    """Return the data set that a published teacher's name begins with; None for none."""
    names = sorted(options_of("dataset", folders_of_files()), key=len, reverse=True)
    return next((name for name in names if teacher.startswith(f"{name}_")), None)
