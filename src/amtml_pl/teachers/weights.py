"""Load weights from files of other people, without running code that a pickle may hold."""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from pickle import UnpicklingError

import safetensors.torch
from torch import Tensor, nn

from amtml_pl.errors import UserError
from amtml_pl.system.checkpoint_file import mismatched_tensors, read_torch_file

# Common keys of the state dict in a checkpoint.
_KNOWN_KEYS = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema")
_LISTED = 5


def load_weights(
    network: nn.Module,
    path: Path | str,
    *,
    key: str | None = None,
    strip_prefixes: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
) -> None:
    """Load a file's weights into a network; raise a UserError unless all of them fit.

    If one prefix gives all tensors of the network, such as ``module.`` or ``model.``, it is removed, and
    tensors without it are ignored. Only batch norm's count of batches, which evaluation does not read, may
    be missing.
    """
    given = read_state_dict(path, key=key, strip_prefixes=strip_prefixes, rename=rename)
    expected = network.state_dict()
    wrong = _mismatches(given, expected)
    if any(wrong.values()) and (fitting := _prefixed_networks(given, expected)):
        if len(fitting) > 1:
            first = next(iter(fitting)).removesuffix(".")
            raise UserError(
                f"The file {path} contains several networks that fit (got the prefixes {list(fitting)}, "
                "expected one).",
                fix=f"select one of them: teacher.NAME.weights.key={first}, or below a key of the file, such "
                f"as state_dict.{first}",
            )
        [given] = fitting.values()
        wrong = {}
    if any(wrong.values()):
        wrong["of another shape"] = [
            f"{name}: got {tuple(given[name].shape)}, expected {tuple(expected[name].shape)}"
            for name in wrong["of another shape"]
        ]
        kinds = zip(("Missing keys", "Unexpected keys", "Wrong shapes"), wrong.values(), strict=True)
        listed = " ".join(f"{kind}: {len(names)} ({_some(names)})." for kind, names in kinds if names)
        renamed = ", or rename the keys with weights.rename in the YAML file of the teacher"
        raise UserError(
            f"The file {path} does not fit {type(network).__name__} ({len(expected)} tensors). {listed}",
            fix=_prefix_hint(given, expected, strip_prefixes)
            or f"choose the network whose weights the file contains{renamed if wrong['missing'] else ''} "
            "(docs/teachers.md, 'Give the network weights')",
        )
    network.load_state_dict(given, strict=False)


def _mismatches(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, list[str]]:
    wrong = mismatched_tensors(given, expected)
    wrong["missing"] = [name for name in wrong["missing"] if not name.endswith("num_batches_tracked")]
    return wrong


def _prefixed_networks(
    given: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """Return the tensors below each prefix that gives the whole network."""
    if given.keys() & expected.keys():
        return {}
    some = next(iter(expected))
    prefixes = [name.removesuffix(some) for name in given if name.endswith(f".{some}")]
    below = {p: {n.removeprefix(p): t for n, t in given.items() if n.startswith(p)} for p in prefixes}
    return {
        prefix: found for prefix, found in below.items() if not any(_mismatches(found, expected).values())
    }


def read_state_dict(
    path: Path | str,
    *,
    key: str | None = None,
    strip_prefixes: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU.

    Args:
        path: a ``.safetensors`` file, or one that ``torch.save`` wrote.
        key: where the state dict lies in the file, dotted for deeper levels; None takes the usual place if
            there is exactly one (``state_dict``, ``model``, …), else the top level.
        strip_prefixes: removed, in this order, from the names that start with them.
        rename: regular expressions and their replacements, applied in this order by ``re.sub``.

    Raises:
        UserError: if the file is missing, damaged, without weights or runs code, or an argument is wrong.
    """
    if isinstance(strip_prefixes, str):
        raise UserError(
            f"teacher.NAME.weights.strip_prefixes is a string (got {strip_prefixes!r}, expected a list).",
            fix=f"'teacher.NAME.weights.strip_prefixes=[{strip_prefixes}]'",
        )
    found = _select(_read(Path(path)), key, path)
    renamed: dict[str, Tensor] = {}
    for old, tensor in found.items():
        new = _new_name(old, strip_prefixes, rename or {})
        if new in renamed:
            raise UserError(
                f"Two tensors of {path} get the same new name {new!r} (the second is {old!r}).",
                fix="make teacher.NAME.weights.rename or teacher.NAME.weights.strip_prefixes more specific",
            )
        renamed[new] = tensor
    return renamed


def _read(path: Path) -> object:
    if not path.is_file():
        fix = "set teacher.NAME.weights.path to an existing file"
        raise UserError(f"The weights file {path.absolute()} does not exist.", fix=fix)
    try:
        return safetensors.torch.load_file(path) if path.suffix == ".safetensors" else read_torch_file(path)
    except Exception as error:  # damaged bytes make the readers fail in every possible way
        if _would_run_code(path, error):
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f"The file {path} contains more than tensors{f' ({named[1]})' if named else ''}"
            raise UserError(
                f"{what}. Loading would execute code from the file, so nothing was loaded.",
                fix="save only the tensors of the file: safetensors.torch.save_file(TENSORS, FILE)",
            ) from None
        raise UserError(
            f"The file {path} ({path.stat().st_size} bytes) cannot be read as network weights "
            f"({error if type(error) is ValueError else type(error).__name__!s}). It is damaged "
            "or has another format.",
            fix="download the file again, or use a file from safetensors or torch.save",
        ) from None


def _would_run_code(path: Path, error: Exception) -> bool:
    """Return True if torch refused a pickle because it would run code."""
    if "GLOBAL" in str(error) or "TorchScript" in str(error):
        return True
    try:  # torch may fail at an instruction before it reaches a global; listing them runs nothing
        with path.open("rb") as file:
            instructions = {instruction.name for instruction, _, _ in pickletools.genops(file)}
    except Exception:  # the file is damaged
        return False
    return isinstance(error, UnpicklingError) and "REDUCE" in instructions


def _select(content: object, key: str | None, path: Path | str) -> dict[str, Tensor]:
    """Return the state dict inside a file's content."""
    if key is None and isinstance(content, dict):
        nested = [name for name in _KNOWN_KEYS if isinstance(content.get(name), dict)]
        if len(nested) > 1:
            raise UserError(
                f"The file {path} contains several state dicts (got {nested}, expected one).",
                fix=f"select one of them: teacher.NAME.weights.key={nested[0]}",
            )
        content = content[nested[0]] if nested else content
    elif key is not None:
        content = _at(content, key, path)
    place = f"key {key!r}" if key else "the top level"
    fix = "set teacher.NAME.weights.key to the key of the state dict in the file, such as model.state_dict"
    if not isinstance(content, dict) or not content:
        found = f"{'an empty' if content == {} else 'a'} {type(content).__name__}"
        problem = f"The file {path} has no state dict at {place} (got {found}, expected a dict of tensors)."
        raise UserError(problem, fix=fix)
    if other := [str(name) for name, value in content.items() if not isinstance(value, Tensor)]:
        what = f"The file {path} has values at {place} that are not tensors: {_some(other)}."
        raise UserError(what, fix=fix)
    return {str(name): tensor for name, tensor in content.items()}


def _at(content: object, key: str, path: Path | str, above: str = "") -> object:
    """Return the value under a key of several levels, or the values below a prefix."""
    level = content if isinstance(content, dict) else {}
    if key in level:
        return level[key]
    first, _, rest = key.partition(".")
    if first in level and rest:
        return _at(level[first], rest, path, f"{above}{first}.")
    names = (name for name in level if str(name).startswith(f"{key}."))
    if below := {str(name).removeprefix(f"{key}."): level[name] for name in names}:
        return below
    raise UserError(
        f"The file {path} has no key {above + key!r} (available: {_some([f'{above}{k}' for k in level])}).",
        fix="set teacher.NAME.weights.key to an existing key",
    )


def _new_name(name: str, strip_prefixes: Sequence[str], rename: Mapping[str, str]) -> str:
    for prefix in strip_prefixes:
        name = name.removeprefix(prefix)
    for pattern, replacement in rename.items():
        try:
            name = re.sub(pattern, replacement, name)
        except (re.error, IndexError) as error:
            raise UserError(
                "teacher.NAME.weights.rename contains an invalid regular expression or replacement "
                f"(got {pattern!r}: {replacement!r}, {error}).",
                fix="write teacher.NAME.weights.rename as for Python's re.sub, with \\. for a dot",
            ) from None
    return name


def _prefix_hint(
    given: Iterable[str], expected: Mapping[str, Tensor], strip_prefixes: Sequence[str]
) -> str | None:
    """Return advice to strip a common prefix; None if it does not help."""
    names = list(given)
    fitting = {"": sum(name in expected for name in names)}
    for prefix in accumulate(re.findall(r"[^.]*\.", names[0])):
        if all(name.startswith(prefix) for name in names):
            fitting[prefix] = sum(name.removeprefix(prefix) in expected for name in names)
    best = max(fitting, key=fitting.__getitem__)
    advice = "remove the common prefix of all keys: teacher.NAME.weights.strip_prefixes="
    return f"{advice}{[*strip_prefixes, best]}" if best else None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more if names else "nothing"
