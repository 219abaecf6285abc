"""What a process that reads files from strangers may take: address space and processor time, held by the system.

Where the system has no such limits (Windows, in part macOS) nothing happens, and the other bounds remain.
"""

from __future__ import annotations

from typing import Final

READER_MEMORY: Final = 6 << 30
"""Address space of a process that reads marks, in bytes. It reserves far more than it uses: torch alone some GB."""

DECODER_MEMORY: Final = 2 << 30
"""Address space of a decoding ffmpeg: enough for two dozen frames of 8K video."""


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


def limit_child(pid: int, *, memory: int) -> None:
    """The same for a child process that runs already, where the system can (Linux)."""
    try:
        import resource

        resource.prlimit(pid, resource.RLIMIT_AS, (memory, memory))
    except (ImportError, AttributeError, OSError, ValueError):  # other systems; a lower limit; a child that has ended
        return
