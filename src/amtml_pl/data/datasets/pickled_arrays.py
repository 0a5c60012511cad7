"""A pickle of arrays and plain containers, such as CIFAR's batches, read without running what it asks for.

A pickle is a program. Its instructions are looked at first, which runs nothing: only those that build
containers, numbers, text and arrays are let through, and none that claims more than the file holds. Then an
unpickler runs them that knows three names, each of which is a stand-in of ours and not the real thing.
"""

from __future__ import annotations

import math
import pickle
import pickletools
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np

from amtml_pl.errors import UserError

INSTRUCTIONS = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "INT", "LONG", "BININT", "BININT1",
    "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    "GET", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
))  # fmt: skip
TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
STORES = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
MOST_TUPLES = 1000
DTYPES = frozenset(f"{kind}{size}" for kind, sizes in {"u": "1248", "i": "1248", "f": "248", "b": "1"}.items()
                   for size in sizes)  # fmt: skip


def read_pickled_arrays(content: bytes, where: str) -> dict[str, Any]:
    """The dictionary that a pickle holds: text keys; arrays of numbers, lists, text and numbers as values.

    Args:
        content: of the file.
        where: what a message calls the file.

    Raises:
        UserError: if it asks for code, is damaged, or holds anything but a dictionary with text keys.
    """
    try:
        refuse_instructions(content)
        found = _ArrayUnpickler(BytesIO(content), where).load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle fails in any way
        raise UserError(
            f"{where} is damaged, or no pickle of arrays: {error!s:.200}.",
            fix="delete it, and repeat the command",
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"{where} holds a {type(found).__name__}, expected a dictionary.")
    if wrong := [type(key).__name__ for key in found if not isinstance(key, str | bytes)]:
        raise UserError(f"{where} holds a key that is a {wrong[0]}, expected text.")
    return {text(key): value.values if isinstance(value, _Array) else value for key, value in found.items()}


def text(value: str | bytes) -> str:
    """Text as text: Python 2 wrote bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else value


def refuse_instructions(content: bytes) -> None:
    """Looks at the instructions of a pickle without running them.

    Two tricks need no forbidden instruction. A store under a huge number makes the unpickler reserve memory
    for all numbers below it. And tuples that hold one another several times are small to write but endless
    to hash.

    Raises:
        ValueError: if the pickle is damaged, or has an instruction that arrays and containers do not need.
    """
    stored_tuples: set[int] = set()
    stored: set[int] = set()
    tuples = 0
    before = ""
    listed: Iterator[tuple[Any, Any, Any]] = pickletools.genops(content)
    for instruction, argument, place in listed:
        name = instruction.name
        if name not in INSTRUCTIONS:
            raise ValueError(f"it has the instruction {name} at byte {place}, which arrays do not need")
        if name in STORES:
            number = len(stored) if name == "MEMOIZE" else int(argument)
            if number > len(content):
                raise ValueError(f"it claims to hold {number:,} values in {len(content):,} bytes")
            stored.add(number)
            (stored_tuples.add if before in TUPLES else stored_tuples.discard)(number)
        elif name in ("GET", "BINGET", "LONG_BINGET") and int(argument) in stored_tuples:
            raise ValueError("it uses one tuple several times")
        tuples += name in TUPLES
        before = name
    if tuples > MOST_TUPLES:
        raise ValueError(f"it has {tuples:,} tuples, expected at most {MOST_TUPLES:,}")


class _Array:
    """In place of numpy's array: checks the state that numpy has written before numpy sees it."""

    __slots__ = ("values",)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if (
            not isinstance(shape, tuple)
            or not isinstance(dtype, _Dtype)
            or not isinstance(content, bytes | str)
        ):
            raise TypeError("an array is not made of a shape, a type and bytes")
        raw = content.encode("latin1") if isinstance(content, str) else content
        kind = dtype.checked()
        if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) * kind.itemsize != len(raw):
            raise ValueError(f"an array of shape {shape!s:.60} and type {kind} has {len(raw):,} bytes")
        self.values = np.frombuffer(bytearray(raw), kind).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """In place of numpy's dtype: a plain number's name and its byte order."""

    __slots__ = ("name", "order")

    def __init__(self, name: object) -> None:
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = text(state[1])

    def checked(self) -> np.dtype[Any]:
        name = text(self.name) if isinstance(self.name, str | bytes) else ""
        if name not in DTYPES or self.order not in ("|", "<", ">", "="):
            raise TypeError("an array is of another type than plain numbers")
        return np.dtype(name if self.order == "|" else f"{self.order}{name}")


class _Called:
    """What a pickle may call; without attributes, so that it cannot change what it is given."""

    __slots__ = ()


class _Reconstruct(_Called):
    def __call__(self, *_: object) -> _Array:
        return _Array()


class _MakeDtype(_Called):
    def __call__(self, name: object, *_: object) -> _Dtype:
        return _Dtype(name)


class _Encode(_Called):
    """In place of ``codecs.encode``, which Python 3 uses for the bytes in a protocol 2 pickle."""

    def __call__(self, value: str, *_: object) -> bytes:
        return value.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Knows numpy's names for an array, and refuses every other."""

    def __init__(self, file: BytesIO, where: str) -> None:
        super().__init__(file, encoding="latin1")  # the official files were written by Python 2
        self._where = where

    def find_class(self, module: str, name: str) -> object:
        known = {
            ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
            ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
            ("numpy", "ndarray"): _Called(),
            ("numpy", "dtype"): _MakeDtype(),
            ("_codecs", "encode"): _Encode(),
        }
        if (module, name) not in known:
            raise UserError(
                f"{self._where} is a pickle that asks to run {module:.80}.{name:.80}. A data set needs only "
                "arrays; the file was refused and nothing in it was run.",
                fix="delete it, and take the official archive",
            )
        return known[module, name]
