"""What a process that reads files from strangers may take: address space and processor time, held by the system.

Where the system has no such limits (Windows, in part macOS) nothing happens, and the other bounds remain.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

READER_MEMORY: Final = 6 << 30
"""Address space of a process that reads marks, in bytes. It reserves far more than it uses: torch alone some GB."""

DECODER_MEMORY: Final = 576 << 20
"""Memory that an ffmpeg which decodes up to 4K may use, in bytes: for all frames that standards let it refer to."""

RESERVED: Final = 1536 << 20
"""Address space that it may reserve beyond that, for threads and allocators."""


def limit_this_process(*, memory: int, cpu_seconds: float | None = None) -> None:
    """Refuse this process, and those that it starts, more than ``memory`` bytes each, or ``cpu_seconds`` each.

    A process that asks for more memory gets none; one whose time is over is killed. No core is dumped. A limit that is
    lower already stays.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    wanted = [(resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)]
    if cpu_seconds is not None:
        wanted.append((resource.RLIMIT_CPU, max(1, round(cpu_seconds))))
    for which, value in wanted:
        _, most = resource.getrlimit(which)
        if most == resource.RLIM_INFINITY or value < most:
            try:
                resource.setrlimit(which, (value, value))
            except (OSError, ValueError):  # the system has no such limit
                continue


def resident(pid: int) -> int:
    """Bytes of memory that a process uses; 0 where the system does not say (others than Linux), or it has ended."""
    try:
        with Path(f"/proc/{pid}/statm").open("rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def limit_child(pid: int, *, memory: int) -> None:
    """The same for a child process that runs already, where the system can (Linux)."""
    try:
        import resource

        resource.prlimit(pid, resource.RLIMIT_AS, (memory, memory))
    except (ImportError, AttributeError, OSError, ValueError):  # other systems; a lower limit; a child that has ended
        return
