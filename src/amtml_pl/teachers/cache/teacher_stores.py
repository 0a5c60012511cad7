"""The stores of one teacher, and the function that loads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from amtml_pl.teachers.cache.catalogue import ExaminedTeacher
from amtml_pl.teachers.cache.store import TensorStore
from amtml_pl.teachers.live import Teacher


@dataclass(frozen=True)
class TeacherStores:
    """The stores of one teacher for one split, and the function that loads it."""

    name: str
    logits: TensorStore
    hints: Mapping[str, TensorStore]
    load: Callable[[], Teacher]
    facts: Callable[[Teacher], ExaminedTeacher]
    summed: tuple[str, ...] = ()  # the hints whose stored rows a build sums, and a run reads the sums of

    @property
    def stores(self) -> dict[str, TensorStore]:
        """All stores by tensor, the logits first."""
        return {"logits": self.logits, **self.hints}

    def missing(self, view: int) -> dict[str, list[int]]:
        """Return the missing shards of a view, by tensor; complete tensors are left out."""
        lacking = {tensor: store.missing(view) for tensor, store in self.stores.items()}
        return {tensor: shards for tensor, shards in lacking.items() if shards}

    def rows_to_compute(self, view: int) -> int:
        """Return how many images the teacher must process for a view."""
        missing = self.missing(view).items()
        return sum(map(len, {self.stores[tensor].rows_of(n) for tensor, shards in missing for n in shards}))


def all_stores(teachers: Iterable[TeacherStores]) -> list[TensorStore]:
    """Return every store of some teachers, teacher by teacher."""
    return [store for teacher in teachers for store in teacher.stores.values()]
