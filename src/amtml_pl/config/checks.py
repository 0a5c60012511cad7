"""Whether a composed configuration is sound, in stages."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from amtml_pl.config.allowed_targets import argument_problems, located, users_names
from amtml_pl.config.key import Key
from amtml_pl.config.rules import Rule, fits, readable, rule_problems, suggestion, value_problem
from amtml_pl.config.schedules import schedule_problems
from amtml_pl.config.schema import KEYS
from amtml_pl.config.teacher_recipe import has_own_weights, recipe
from amtml_pl.config.value_origin import folders_of_files, with_origin
from amtml_pl.errors import UserError

# The list groups, and what an entry has that only its own YAML file brings.
SELECTED = {"loss": "_target_", "logger": "_target_", "teacher": "network"}
SET_BY_ENTRY_POINT = (
    "logger", "callbacks", "plugins", "default_root_dir", "enable_progress_bar", "enable_model_summary",
    "num_sanity_val_steps", "use_distributed_sampler", "reload_dataloaders_every_n_epochs",
)  # fmt: skip
NOT_HONOURED = (
    "enable_checkpointing", "fast_dev_run", "limit_val_batches", "check_val_every_n_epoch", "barebones",
    "overfit_batches", "max_steps", "min_steps", "max_time", "limit_test_batches",
)  # fmt: skip


def check(config: DictConfig) -> None:
    """Holds every value against its rule and binds every node to its constructor, before any work.

    Raises:
        UserError: with all mistakes of the first stage that has some.
    """
    check_values(config)
    check_constructors(config)


def check_values(config: DictConfig) -> None:
    """The first stage, of what can be said of plain values; neither torch nor a network is imported.

    The recipes of all teachers without weights of their own are checked too, here and in the second stage.

    Raises:
        UserError: with all mistakes at once, each with its key path and where it was written.
    """
    refuse([*value_mistakes(config)] or [*recipe_problems(config, value_mistakes)])


def check_constructors(config: DictConfig) -> None:
    """The second stage, of a configuration that has passed the first: arguments, their types, the devices.

    Raises:
        UserError: with all mistakes at once, each with its key path and where it was written.
    """
    refuse([*constructor_mistakes(config)] or [*recipe_problems(config, constructor_mistakes)])


def refuse(problems: list[str]) -> None:
    """Lists mistakes.

    Raises:
        UserError: if there are any.
    """
    if problems:
        listed = "\n".join(f"  - {with_origin(problem)}" for problem in problems)
        count = f"{len(problems)} mistake{'s' if len(problems) > 1 else ''}"
        raise UserError(f"The configuration has {count}:\n{listed}")


def check_command(
    values: Mapping[str, Any], rules: Mapping[str, Rule], *, known: Collection[str] = ()
) -> None:
    """Holds what a command takes besides a run's configuration against its rules.

    Args:
        values: what was given.
        rules: what each may be.
        known: what the command takes besides, and is held against other rules.

    Raises:
        UserError: with all mistakes at once.
    """
    if problems := [*rule_problems(plain(values), rules, "", known)]:
        raise UserError("\n".join(problems))


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values without omegaconf's containers."""
    contained: Any = OmegaConf.to_container(OmegaConf.create(dict(values)), resolve=True)
    return dict(contained)


def value_mistakes(config: DictConfig) -> list[str]:
    """What is wrong with the values; first the shape, since all else looks inside the nodes."""
    if misshapen := [*shape_problems(OmegaConf.to_container(config, resolve=False))]:
        return misshapen
    try:
        tree: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error.msg if hasattr(error, "msg") else error).splitlines()[0]
        return [f"it cannot be resolved: {error.full_key}: {reason}"]
    return [*value_problems(tree), *stub_problems(tree)]


def constructor_mistakes(config: DictConfig) -> list[str]:
    """What does not fit the constructors, or the machine."""
    users_names()  # a mistake in it is one message, and not one for each constructor
    tree: Any = OmegaConf.to_container(config, resolve=True)
    return [*node_problems(tree, ""), *loop_problems(tree), *device_problems(tree["trainer"])]


def recipe_problems(config: DictConfig, mistakes: Callable[[DictConfig], list[str]]) -> Iterator[str]:
    """Mistakes in the recipes of the teachers that have to be trained."""
    for name, node in config.teacher.items():
        if has_own_weights(config, str(name)):
            continue
        try:
            own = recipe(config, str(name))
        except UserError as error:
            yield str(error)
            continue
        for problem in mistakes(own) or [*recipe_problems(own, mistakes)]:
            yield f"teacher.{name}.recipe={node.recipe}: {problem}"


def shape_problems(tree: Any) -> Iterator[str]:  # noqa: ANN401
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
        yield "loss=[]: expected at least one term, e.g. loss=[ce]"


def value_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield values that their keys refuse, and values that do not fit together."""
    yield from declared_problems(tree, KEYS, "")
    yield from coefficient_problems(tree["coef"], tree["loss"])
    for name, node in tree["teacher"].items():
        if isinstance(node, Mapping):
            yield from class_map_problems(node, f"teacher.{name}")
    yield from trainer_problems(tree["trainer"])
    if type(epochs := tree["trainer"].get("max_epochs")) is int:
        yield from schedule_problems(tree["scheduler"], epochs)
    yield from shared_batch_problems(tree)
    yield from mixup_problems(tree)


def declared_problems(node: Mapping[str, Any], keys: Mapping[str, Key], path: str) -> Iterator[str]:
    """Yield what the declared keys of a node, and of all nodes below it, refuse."""
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
    """Yield coefficients of terms that do not exist; those of terms that are not selected are ignored."""
    if strangers := coefficients.keys() - terms.keys():
        known = known_terms() | terms.keys()
        for name in sorted(strangers - known):
            yield f"coef.{name}: there is no such term{suggestion(name, dict.fromkeys(known))}"


def known_terms() -> set[str]:
    """Return the names of all terms that the files of ``loss`` bring."""
    files = (file for folder in folders_of_files() for file in (folder / "loss").glob("*.yaml"))
    contents: list[Any] = [OmegaConf.to_container(OmegaConf.load(file), resolve=False) for file in files]
    return {str(name) for content in contents for name in content.get("loss", content)}


def class_map_problems(node: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield a class map of a teacher that its recipe trains on the data's own classes."""
    weights = node.get("weights")
    if not isinstance(weights, Mapping) or node.get("class_map") is None:
        return
    if weights.get("path") is None and not node.get("pretrained"):
        yield (
            f"{path}.class_map={node['class_map']!r}: expected null for a teacher without own weights, "
            "which its recipe trains on the data's own classes"
        )


def trainer_problems(node: Mapping[str, Any]) -> Iterator[str]:
    """Yield what Lightning's trainer would take and this project cannot."""
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


def loop_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """What a loop that steps its optimisers itself cannot have: options that Lightning would apply."""
    name, trainer = tree["loop"]["_target_"], tree["trainer"]
    try:
        if not getattr(located(name), "steps_itself", False):
            return
    except UserError:  # which `node_problems` reports
        return
    if trainer.get("accumulate_grad_batches", 1) != 1:
        yield (
            f"trainer.accumulate_grad_batches={trainer['accumulate_grad_batches']}: the training loop {name} "
            "steps its optimisers itself, in every batch; expected 1"
        )
    if trainer.get("gradient_clip_val"):
        yield (
            f"trainer.gradient_clip_val={trainer['gradient_clip_val']}: the training loop {name} steps its "
            "optimisers itself, where Lightning clips nothing; expected null"
        )


def mixup_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Blended images, of which a cache has no outputs."""
    if tree["data"].get("mixup") and tree["teacher"] and tree["teacher_source"] == "cached":
        yield (
            f"data.mixup={tree['data']['mixup']}: mixup blends images of a batch, and a cache holds what the "
            "teachers gave for single images; expected 0, or teacher_source=live: they see the blended ones"
        )


def shared_batch_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """What several processes cannot share."""
    devices, nodes = tree["trainer"].get("devices"), tree["trainer"].get("num_nodes", 1)
    batch_size, mixup = tree["data"].get("batch_size"), tree["data"].get("mixup")
    if not fits(devices, int) or not fits(nodes, int) or devices * nodes < 2:
        return
    ranks = devices * nodes
    if fits(batch_size, int) and batch_size % ranks:
        yield (
            f"data.batch_size={batch_size}: expected a multiple of the {ranks} processes that share it "
            f"(trainer.devices={devices}, trainer.num_nodes={nodes}), e.g. {-(-batch_size // ranks) * ranks}"
        )
    if mixup:
        yield f"data.mixup={mixup}: blends images of a whole batch; expected 0 with {ranks} processes"


def device_problems(trainer: Mapping[str, Any]) -> Iterator[str]:
    """An accelerator that this machine has not."""
    import torch  # only here: what has been said so far needs none

    accelerator = trainer.get("accelerator")
    found = torch.cuda.is_available() or (accelerator == "gpu" and torch.backends.mps.is_available())
    if accelerator in ("gpu", "cuda") and not found:
        yield f"trainer.accelerator={accelerator}: none is found on this machine; expected auto or cpu"


def stub_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Entries of a list group that only hold a setting for an entry that is not selected."""
    for group in SELECTED:
        entries = tree.get(group, {})
        selected = [name for name, node in entries.items() if not is_stub(node, group)]
        for name in entries.keys() - set(selected):
            yield (
                f"{group}.{name} has settings but is not selected: add it to {group}=[...], "
                f"or remove the setting (selected: {selected})"
            )


def is_stub(node: object, group: str) -> bool:
    """Return True for an entry of a list group that lacks what only its own YAML file brings."""
    return group in SELECTED and not (isinstance(node, Mapping) and SELECTED[group] in node)


def node_problems(node: object, path: str) -> Iterator[str]:
    """Mistakes in a node and in all nodes below it."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield from target_problems(node, path)
        for key, child in node.items():
            yield from node_problems(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for position, child in enumerate(node):
            yield from node_problems(child, f"{path}[{position}]")


def target_problems(node: Mapping[str, Any], path: str) -> Iterator[str]:
    """Whether a node's arguments fit the signature of its target."""
    try:
        target = located(node["_target_"])
    except UserError as error:
        yield f"{path}._target_={node['_target_']!s:.80}: {error.what}; to fix it: {error.fix}"
        return
    yield from (f"{path}: {problem}" for problem in argument_problems(node))
    parameters = inspect.signature(target).parameters
    arguments = {str(key): value for key, value in node.items() if not str(key).startswith("_")}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in arguments.keys() - parameters.keys():
        if not takes_any:
            yield f"{path}.{name}: {node['_target_']} has no such argument{suggestion(name, parameters)}"
    required = {
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    if not node.get("_partial_", False):
        for name in sorted(required - arguments.keys() - given_by_entry_point(path)):
            yield f"{path}: {node['_target_']} needs the argument {name!r}"
    hints = type_hints(target)
    for name, value in arguments.items():
        hint = hints.get(name)
        if isinstance(value, list) and holds_nodes(value) and not all(isinstance(v, Mapping) for v in value):
            yield f"{path}.{name} mixes nodes with other values; expected nodes alone"
        if hint is not None and not fits(value, hint) and not becomes(value, hint):
            yield f"{path}.{name}={value!r}: expected {readable(hint)}"


def given_by_entry_point(path: str) -> set[str]:
    """Arguments that the entry points pass themselves, and YAML therefore leaves out."""
    if path == "data":
        return {"packed", "order_seed"}
    if path == "loop":
        return {"student", "terms", "coef", "num_classes", "optimizer"}
    return {"save_dir"} if path.startswith("logger.") else set()


def type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """The types of a callable's arguments; without those whose annotation cannot be evaluated.

    Foreign annotations may name what is imported for type checkers alone; most of that is of these modules.
    """
    for_checkers = {**vars(collections.abc), **vars(typing)}
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        alone = SimpleNamespace(__annotations__={name: annotation})
        with suppress(Exception):
            hints |= typing.get_type_hints(alone, {**for_checkers, **getattr(function, "__globals__", {})})
    return hints


def becomes(value: object, hint: object) -> bool:
    """Return whether nodes in a value become objects, of which the type is not known before."""
    is_group = isinstance(value, Mapping) and "_target_" not in value
    return holds_nodes(value) and not (is_group and inspect.isclass(hint))


def holds_nodes(value: object) -> bool:
    """Whether a value is, or contains, a node that becomes an object of its own."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(holds_nodes(child) for child in value.values())
    return isinstance(value, list) and any(holds_nodes(child) for child in value)
