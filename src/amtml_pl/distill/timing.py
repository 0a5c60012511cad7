"""Cost of a fit, over all its sessions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Spending:
    """Seconds and images of a fit so far, over all its sessions."""

    teacher_seconds: float = 0.0  # in which steps waited for the teachers
    cache_build_seconds: float = 0.0  # not part of the fit's seconds
    compile_seconds: float = 0.0  # likewise
    images_seen: int = 0  # training images of all ranks, each time that one was seen
    teacher_passes: Counter[str] = field(default_factory=Counter)  # images that each teacher has seen
    seconds_before: float = 0.0  # the fit's seconds in earlier sessions
    started: float = field(default_factory=time.perf_counter)  # this session's begin, moved by cache building

    @property
    def fit_seconds(self) -> float:
        """Seconds of the fit over all sessions, up to each one's last saved state."""
        return self.seconds_before + time.perf_counter() - self.started

    @contextmanager
    def timing_teachers(self) -> Iterator[None]:
        """Count the time inside as waiting for the teachers."""
        start = time.perf_counter()
        yield
        self.teacher_seconds += time.perf_counter() - start

    def count_build(self, seconds: float, computed: Mapping[str, int]) -> None:
        """Add the cost of building the cache, and leave it out of the fit's seconds."""
        self.cache_build_seconds += seconds
        self.started += seconds
        self.teacher_passes.update(computed)

    def count_compilation(self, seconds: float) -> None:
        """Add the cost of compiling the step, and leave it out of the fit's seconds."""
        self.compile_seconds += seconds
        self.started += seconds

    def state(self) -> dict[str, Any]:
        """Return the sums for a checkpoint."""
        seconds = {"seconds_before": self.fit_seconds, "teacher_seconds": self.teacher_seconds}
        counts = {"images_seen": self.images_seen, "teacher_passes": dict(self.teacher_passes)}
        beside = {
            "cache_build_seconds": self.cache_build_seconds,
            "compile_seconds": self.compile_seconds,
        }
        return {**seconds, **beside, **counts}

    def resume_from(self, state: Mapping[str, Any]) -> None:
        """Add the sums that `state` gave in an earlier session."""
        for name in (
            "seconds_before", "teacher_seconds", "cache_build_seconds", "compile_seconds", "images_seen",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + state[name])
        self.teacher_passes.update(state["teacher_passes"])
