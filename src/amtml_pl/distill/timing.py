"""Cost of a fit, over all its sessions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Spending:
    """Seconds and images of a fit so far; cache building counts apart."""

    teacher_seconds: float = 0.0
    cache_build_seconds: float = 0.0
    images_seen: int = 0
    teacher_passes: dict[str, int] = field(default_factory=dict)
    seconds_before: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def fit_seconds(self) -> float:
        """Seconds of the fit over all sessions, up to each one's last saved state."""
        return self.seconds_before + time.perf_counter() - self.started

    @contextmanager
    def on_teachers(self) -> Iterator[None]:
        """Count the time inside as waiting for the teachers."""
        start = time.perf_counter()
        yield
        self.teacher_seconds += time.perf_counter() - start

    def count_build(self, seconds: float, computed: Mapping[str, int]) -> None:
        """Add the cost of building the cache, and leave it out of the fit's seconds."""
        self.cache_build_seconds += seconds
        self.started += seconds
        self.count_passes(computed)

    def count_passes(self, computed: Mapping[str, int]) -> None:
        """Add to the number of images that each teacher has seen."""
        for name, images in computed.items():
            self.teacher_passes[name] = self.teacher_passes.get(name, 0) + images

    def state(self) -> dict[str, Any]:
        """Return the sums for a checkpoint."""
        return {
            "seconds_before": self.fit_seconds,
            "teacher_seconds": self.teacher_seconds,
            "cache_build_seconds": self.cache_build_seconds,
            "images_seen": self.images_seen,
            "teacher_passes": self.teacher_passes,
        }

    def resume_from(self, state: Mapping[str, Any]) -> None:
        """Add the sums that `state` gave in an earlier session."""
        self.seconds_before += state["seconds_before"]
        self.teacher_seconds += state["teacher_seconds"]
        self.cache_build_seconds += state["cache_build_seconds"]
        self.images_seen += state["images_seen"]
        self.count_passes(state["teacher_passes"])
