"""What every stage of a training shares: a folder that outlives it, budgets in processor seconds, a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

SAVE_EVERY = 240.0  # processor seconds


@dataclass(slots=True)
class Run:
    """One stage's run: what it keeps lies in ``out`` and is found again.

    Budgets are processor seconds, for a training may run beside other work and be stopped and resumed.
    """

    out: Path
    spent: float = 0.0  # processor seconds of earlier runs
    step: int = 0
    _saved: float = field(default_factory=time.process_time)
    _began: float = field(default_factory=time.process_time)

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)

    @property
    def seconds(self) -> float:
        """Processor seconds of this stage, those of earlier runs included."""
        return self.spent + time.process_time() - self._began

    def due(self, every: float = SAVE_EVERY) -> bool:
        """Whether it is time to save; if so, the next time is counted from now."""
        if time.process_time() - self._saved < every:
            return False
        self._saved = time.process_time()
        return True

    def save(self, value: Any, name: str) -> None:
        """Keep ``value``, whole or not at all: a stopped run must not find half a file."""
        partial = self.out / (name + ".tmp")
        torch.save(value, partial)
        partial.replace(self.out / name)

    def load(self, name: str) -> Any:
        """Return what was kept under ``name``, or None."""
        path = self.out / name
        return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None

    def log(self, text: str) -> None:
        """Write one line with the stage's processor seconds."""
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} [{self.seconds:7.1f}] {text}\n")
        sys.stdout.flush()


def halved(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return copies in bfloat16: half the bytes, and nothing overflows."""
    return [t.detach().to(torch.bfloat16) for t in tensors]


def restore(targets: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    """Copy ``values`` into ``targets`` in place."""
    with torch.no_grad():
        for target, value in zip(targets, values, strict=True):
            target.copy_(value)
