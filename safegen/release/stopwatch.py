"""How long the stages of a run take, and how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from safegen.types import Progress


class Stopwatch:
    """Milliseconds per stage, and where progress is reported to."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress: Progress = progress or (lambda _stage, _done, _total: None)
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; several stretches under one name add up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add (or, negative, take away) time under a stage's name."""
        self.milliseconds[name] = self.milliseconds.get(name, 0.0) + 1000 * seconds

    def reporter(self, stage: str) -> Callable[[float, float], None]:
        """Return ``progress`` for one stage."""
        return lambda done, total: self.progress(stage, done, total)
