"""Reading in a process of its own, which can be killed: for files that are, or may be, very much work to read.

It is a fresh interpreter rather than a fork: the program around may have threads, and may have loaded a model. What
comes back from it is text, for a process that has read a hostile file is no longer believed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safegen.bounds.timelimit import current_limit
from safegen.errors import ConfigError, VerificationError

SECONDS_VARIABLE: Final = "SAFEGEN_READ_SECONDS"
BYTES_PER_SECOND: Final = 20 << 20
"""A slow disk. A file may take the time limit, and what reading all of it takes at this rate."""

MAX_ANSWER: Final = 64 << 20
_LEAST: Final = 0.1  # seconds: a timer of zero would never go off
_STARTING: Final = 10.0  # seconds, for the interpreter on a busy machine
_MAIN: Final = "from safegen.provenance.sandbox_worker import main; main()"


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What reading one file may take, beyond one pass over its bytes. ``memory`` is that of the separate process."""

    seconds: float = 30.0
    memory: int = 1 << 30

    @classmethod
    def from_environment(cls) -> ReadLimits:
        """``$SAFEGEN_READ_SECONDS``, else the defaults. Raises ConfigError for what is no positive number."""
        text = os.environ.get(SECONDS_VARIABLE, "")
        if not text:
            return cls()
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < 1e6:
            raise ConfigError(f"{SECONDS_VARIABLE} is {text!r}", remedy="Set it to a number of seconds.")
        return cls(seconds)

    def seconds_for(self, size: int) -> float:
        """Return how long a file of ``size`` bytes may take."""
        return self.seconds + size / BYTES_PER_SECOND


@dataclass(frozen=True, slots=True)
class Task:
    """What the process is to read, and with which anchors; ``crjson``: in which form it answers."""

    path: Path
    anchors: str
    manifest: bytes | None
    fragments: Sequence[Path]
    crjson: bool = False


def run(task: Task, limits: ReadLimits, seconds: float) -> dict[str, Any]:
    """Return the fields of the process's report; those of a report about the limit that it ran into, if it did.

    Raises VerificationError where no process can be started.
    """
    request = {
        "path": os.fspath(task.path.absolute()),
        "anchors": task.anchors,
        "manifest": None if task.manifest is None else task.manifest.hex(),
        "fragments": [os.fspath(p.absolute()) for p in task.fragments],
        "crjson": task.crjson,
        "memory": limits.memory,
        "seconds": seconds,
    }
    limit = current_limit()
    if limit is not None:
        request["seconds"] = seconds = min(seconds, max(limit.left(), _LEAST))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _MAIN],
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds + _STARTING,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return too_slow(seconds)
    except OSError as error:
        raise VerificationError(f"cannot start a process to read {task.path}: {error}") from error
    if done.returncode == -signal.SIGALRM:
        return too_slow(seconds)
    try:
        answer = json.loads(done.stdout) if done.returncode == 0 and len(done.stdout) <= MAX_ANSWER else None
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        return answer
    return out_of_limits(f"reading it took too much memory, or crashed (the process ended with {done.returncode})")


def too_slow(seconds: float) -> dict[str, Any]:
    """Return a report: reading did not end in time."""
    return out_of_limits(f"reading it took longer than {seconds:.3g} s (see {SECONDS_VARIABLE})")


def out_of_limits(problem: str) -> dict[str, Any]:
    """Return the fields of a report that ends with the error ``Limit``."""
    return {"error": "Limit", "problem": problem}
