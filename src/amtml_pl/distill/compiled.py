"""Compilation of a training step, once, for full batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.errors import UserError, first_line

log = logging.getLogger(__name__)

Part: TypeAlias = Literal["step", "student"]
Function: TypeAlias = Callable[..., Any]
# A part's function, and its loss for an epoch, given the compiled function.
Candidate: TypeAlias = tuple[Function, Callable[[Function, int], Float[Tensor, ""]]]


class CompiledStep:
    """Compiled part of a step: all of it, else the student, else nothing.

    The first full batch compiles. Batches of another size run eagerly and never compile anew. What runs
    thus depends on the batch alone, and a resumed run repeats to the bit.

    Args:
        rows: images of a full batch in this process.
        parts: the parts to try, in order.
        required: raise a UserError where nothing compiles, instead of a warning.
        backend: of ``torch.compile``.

    Attributes:
        part: the part that is compiled; None before the first full batch, and where nothing compiles.
    """

    def __init__(
        self, rows: int, parts: Sequence[Part], *, required: bool, backend: str = "inductor"
    ) -> None:
        self.backend = backend
        self.rows, self.parts, self.required = rows, tuple(parts), required
        self.part: Part | None = None
        self.compiled: Function | None = None
        self.tried = False

    def run(self, part: Part, rows: int, function: Function, *inputs: Any) -> Any:
        """Return ``function(*inputs)``, compiled if it is the compiled part and the batch is full."""
        if torch.compiler.is_compiling() or self.compiled is None or part != self.part or rows != self.rows:
            return function(*inputs)
        with torch.compiler.set_stance("eager_on_recompile"):
            return self.compiled(*inputs)

    def is_due(self, rows: int) -> bool:
        """Return True for the first full batch."""
        return not self.tried and rows == self.rows

    def compile(
        self, candidates: Mapping[Part, Candidate], trained: Sequence[nn.Parameter], epoch: int
    ) -> None:
        """Compile the first part that compiles, forward and backward; train nothing.

        Raises:
            UserError: if no part compiles and compilation is required.
        """
        self.tried, problem = True, ""
        for part in (part for part in self.parts if part in candidates):
            try:
                self.compiled = self.compiled_function(part, candidates[part], trained, epoch)
            except Exception as error:
                problem = first_line(error)
                log.debug("The %s does not compile: %s", part, error)
                continue
            self.part = part
            return
        if self.required:
            raise UserError(
                f"The student cannot be compiled (got {problem!r}, expected execution.compile=true).",
                fix="execution.compile=false",
            )
        log.warning("The student cannot be compiled: %s. The run is eager.", problem)

    def compiled_function(
        self, part: Part, candidate: Candidate, trained: Sequence[nn.Parameter], epoch: int
    ) -> Function:
        """Return a part's compiled function; raise if another epoch would compile it anew."""
        function, loss_of = candidate
        compiled: Function = torch.compile(
            own_copy(function),
            dynamic=False,
            fullgraph=part == "step",
            backend=self.backend,
            options={"fallback_random": True} if self.backend == "inductor" else None,  # as an eager run
        )
        torch.autograd.grad(loss_of(compiled, epoch), trained, allow_unused=True)
        with torch.compiler.set_stance("fail_on_recompile"):
            loss_of(compiled, epoch + 1)
        return compiled


def own_copy(method: Function) -> Function:
    """Return a bound method with code of its own.

    A compiler keeps what it has compiled with the code. Other runs of the process would share it: batches of
    their sizes would run compiled, and their number is limited.
    """
    function = method.__func__  # type: ignore[attr-defined]
    copied = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return MethodType(copied, method.__self__)  # type: ignore[attr-defined]
