"""Work in another process: a fork of this one, or an interpreter of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

NOBODY = 65534
PATIENCE = 300
"""Seconds after which a process that hangs is ended: a test then fails by itself, and in time."""


def in_fork(act: Callable[[], object], *, unprivileged: bool = False) -> int:
    """Run ``act`` in a fork of this process; its exit status: 0, 1 where it raises, negative for a signal.

    A fork has none of this process's other threads, but the locks that they held: ``act`` may use nothing that they do.
    ``unprivileged``: not as root, who may read and write everything.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(PATIENCE)
            if unprivileged and os.geteuid() == 0:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_own_interpreter(function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function``, of a module's top level, returns or raises in a fresh interpreter, which has one thread."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result(timeout=PATIENCE)
        except TimeoutError:
            for process in pool._processes.values():
                process.kill()
            raise
