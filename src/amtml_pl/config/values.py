"""Find mistakes in the plain values of a configuration; imports neither torch nor a network."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from amtml_pl.config.key import Key
from amtml_pl.config.network_keys import ORIGINS, has_own_weights
from amtml_pl.config.rules import fits, rule_problems, suggestion, value_problem
from amtml_pl.config.schedules import schedule_problems
from amtml_pl.config.schema import KEYS
from amtml_pl.config.value_origin import content_of, folders_of_files

# The list groups, and the key that an entry has only from its own YAML file.
SELECTED = {"loss": "_target_", "logger": "_target_", "callbacks": "_target_", "teacher": "network"}
SET_BY_ENTRY_POINT = (
    "logger", "callbacks", "plugins", "default_root_dir", "enable_progress_bar", "enable_model_summary",
    "num_sanity_val_steps", "use_distributed_sampler", "reload_dataloaders_every_n_epochs",
)  # fmt: skip
NOT_HONOURED = (
    "enable_checkpointing", "fast_dev_run", "check_val_every_n_epoch", "barebones", "overfit_batches",
    "max_steps", "min_steps", "max_time",
)  # fmt: skip
ONLY_DEBUG = ("limit_val_batches", "limit_test_batches")  # a result is measured on all images
INSTEAD = {
    "logger": "use 'logger=[wandb,csv]'",
    "callbacks": "use 'callbacks=[ema]'",
    "fast_dev_run": "use debug=fast",
    "overfit_batches": "use debug=overfit",
    **dict.fromkeys(ONLY_DEBUG, "use debug=fast"),
}


def shape_problems(tree: Any) -> Iterator[str]:
    """Yield nodes that are not mappings, e.g. after ``trainer=null``."""
    for name, key in KEYS.items():
        if key.hint is not dict or (name not in tree and not key.required):
            continue
        node = tree.get(name)
        if not isinstance(node, Mapping):
            yield f"{name}={'null' if node is None else node}: expected {key.expected}"
        elif key.constructed and "_target_" not in node:
            yield f"{name} has no _target_: expected {key.expected}"
    if tree.get("loss") == {}:
        yield "loss=[]: expected at least one term, e.g. 'loss=[ce]'"


def value_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield values that their keys refuse, and values that do not fit together."""
    yield from declared_problems(tree, KEYS, "")
    yield from coefficient_problems(tree["coef"], tree["loss"])
    for name, node in tree["teacher"].items():
        if isinstance(node, Mapping):
            yield from class_map_problems(node, f"teacher.{name}")
            yield from weights_problems(node, f"teacher.{name}")
            yield from head_problems(node, f"teacher.{name}")
    yield from trainer_problems(tree["trainer"], debug=tree["debug"] is not None)
    if type(epochs := tree["trainer"].get("max_epochs")) is int:
        yield from schedule_problems(tree["scheduler"], epochs)
    yield from shared_batch_problems(tree)
    yield from mixup_problems(tree)
    yield from balance_problems(tree)


def declared_problems(node: Mapping[str, Any], keys: Mapping[str, Key], path: str) -> Iterator[str]:
    """Yield mistakes in the declared keys of a node and of all nodes below it."""
    each = keys.get("*")
    constructed = "_target_" in node
    if each is None:
        yield from rule_problems(node, keys, path, known=node.keys() if constructed else ())
    for name, value in node.items():
        key, place = keys.get(str(name), each), f"{path}.{name}" if path else str(name)
        if each is not None:
            yield from value_problem(value, each, place)
        if key is not None and key.keys and isinstance(value, Mapping) and not is_stub(value, path):
            yield from declared_problems(value, key.keys, place)


def coefficient_problems(coefficients: Mapping[str, Any], terms: Mapping[str, Any]) -> Iterator[str]:
    """Yield coefficients of terms that do not exist; those of unselected terms are ignored."""
    if unselected_terms := coefficients.keys() - terms.keys():
        files = [file for folder in folders_of_files() for file in (folder / "loss").glob("*.yaml")]
        in_files = (str(name) for file in files for name in content_of(file).get("loss", content_of(file)))
        known = {*in_files, *terms}
        for name in sorted(unselected_terms - known):
            yield f"coef.{name}: unknown term{suggestion(name, dict.fromkeys(known))}"


def weights_problems(node: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield errors for weights from several places, and for a checksum without an address."""
    weights = node.get("weights")
    if not isinstance(weights, Mapping):
        return
    if len(given := [origin for origin in ORIGINS if weights.get(origin) is not None]) > 1:
        yield f"{path}.weights names several files ({' and '.join(given)}): set all but one to null"
    if weights.get("url") is None:
        for name in ("sha256", "mirrors", "member"):
            if weights.get(name):
                yield f"{path}.weights.{name} needs {path}.weights.url (got null, expected an address)"


def class_map_problems(node: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield an error for a class map of a teacher that its recipe trains."""
    weights = node.get("weights")
    if not isinstance(weights, Mapping) or node.get("class_map") is None:
        return
    if not has_own_weights(node):
        yield (
            f"{path}.class_map={node['class_map']!r}: its recipe trains the teacher on the run's classes "
            "(expected null)"
        )


def head_problems(node: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield keys of a teacher that do not fit its head."""
    head, weights = node.get("head"), node.get("weights")
    if head not in ("none", "linear") or not isinstance(weights, Mapping):
        return
    if not has_own_weights(node):
        yield (
            f"{path}.head={head}: its recipe trains the network with a classifier (expected null; or, for a "
            f"trained backbone, {path}.weights.path=FILE or {path}.pretrained=true)"
        )
    elif node.get("class_map") is not None:
        yield (
            f"{path}.class_map={node['class_map']!r}: it orders the outputs of the network's own classifier, "
            f"which head={head} does not read (expected null)"
        )
    if head == "none" and node.get("min_accuracy") is not None:
        yield f"{path}.min_accuracy={node['min_accuracy']}: hints alone have no accuracy (expected null)"


def trainer_problems(node: Mapping[str, Any], *, debug: bool) -> Iterator[str]:
    """Yield options of Lightning's trainer that this project does not support."""
    for key in node.keys() & set(SET_BY_ENTRY_POINT):
        yield f"trainer.{key} is set by amtml_pl and cannot be changed; {INSTEAD.get(key, 'remove the key')}"
    for key in sorted(node.keys() & {*NOT_HONOURED, *(() if debug else ONLY_DEBUG)}):
        instead = INSTEAD.get(key, "remove the key")
        yield f"trainer.{key} is not supported, because every epoch is validated and saved; {instead}"
    if node.get("accelerator") == "cpu" and str(node.get("precision")) == "16-mixed":
        yield "trainer.precision=16-mixed: the CPU needs bf16-mixed or 32-true"
    if node.get("accelerator") == "cpu" and node.get("sync_batchnorm"):
        yield "trainer.sync_batchnorm=True: batch norm is synchronised only on GPUs (expected false)"
    if node.get("strategy") not in (None, "auto", "ddp"):
        yield f"trainer.strategy={node['strategy']}: several processes always use DDP (expected auto or ddp)"
    if node.get("limit_train_batches") == 0:
        yield "trainer.limit_train_batches=0: a run needs training batches (expected 1 or more)"


def mixup_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield an error for mixup with a cache, which has no outputs of blended images."""
    if tree["data"].get("mixup") and tree["teacher"] and tree["teacher_source"] == "cached":
        yield (
            f"data.mixup={tree['data']['mixup']}: mixup blends images of a batch, but the cache holds the "
            "teachers' outputs for single images (expected 0, or teacher_source=live)"
        )


def balance_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield an error for unequal classes that sampling and loss both correct."""
    ce = tree["loss"].get("ce")
    if tree["data"].get("balanced") and isinstance(ce, Mapping) and ce.get("class_weights") == "balanced":
        yield (
            "loss.ce.class_weights=balanced: data.balanced=true already draws all classes equally often "
            "(expected null, or data.balanced=false)"
        )


def shared_batch_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield batch settings that several processes cannot share."""
    devices, nodes = tree["trainer"].get("devices"), tree["trainer"].get("num_nodes", 1)
    batch_size, mixup = tree["data"].get("batch_size"), tree["data"].get("mixup")
    if not fits(devices, int) or not fits(nodes, int) or devices * nodes < 2:
        return
    ranks = devices * nodes
    if fits(batch_size, int) and batch_size % ranks:
        yield (
            f"data.batch_size={batch_size}: the {ranks} processes (trainer.devices={devices}, "
            f"trainer.num_nodes={nodes}) need equal shares (expected a multiple of {ranks}, e.g. "
            f"{-(-batch_size // ranks) * ranks})"
        )
    if mixup:
        yield f"data.mixup={mixup}: mixup needs the whole batch (expected 0 with {ranks} processes)"


def stub_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield entries of a list group with settings that are not selected."""
    for group in SELECTED:
        entries = tree.get(group, {})
        selected = [name for name, node in entries.items() if not is_stub(node, group)]
        for name in entries.keys() - set(selected):
            yield unselected(group, name, selected)


def unselected(group: str, name: str, selected: Collection[str]) -> str:
    """Return the message for settings of an entry that is not selected."""
    return (
        f"{group}.{name} has settings, but it is not selected (selected: {[*selected]}); add {name} to "
        f"{group}=[...], or remove the setting"
    )


def is_stub(node: object, group: str) -> bool:
    """Return True if an entry of a list group lacks its YAML file."""
    return group in SELECTED and not (isinstance(node, Mapping) and SELECTED[group] in node)
