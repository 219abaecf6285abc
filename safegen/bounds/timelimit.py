"""How long one look at a file may take in all. Whoever does long work asks, wherever it stands:

    with time_limit(30.0) as limit:
        ...
            check_time()        # TimeLimitError once 30 seconds are over

The limit holds in its own context (``contextvars``): other threads have it only if they are started with a copy.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from safegen.errors import TimeLimitError

SECONDS, SECONDS_PER_MB = 25.0, 2.5
"""How long verifying one file may take if nobody says otherwise: the first, and the second for each MB beyond ten."""


def seconds_for(size: int) -> float:
    """How long verifying a file of ``size`` bytes may take if nobody says otherwise."""
    return SECONDS + SECONDS_PER_MB * max(0.0, size / 1e6 - 10)


class TimeLimit:
    """Seconds from now on, by the clock: whoever waits for an answer waits no longer on a busy machine.

    ``ran_out``: whether something was cut short, or refused, because of the limit.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ran_out = False
        self._start = time.monotonic()

    def left(self) -> float:
        """Seconds that are left; below zero once they are over."""
        return self.seconds - (time.monotonic() - self._start)

    def check(self) -> None:
        """TimeLimitError if the time is over."""
        if self.left() <= 0:
            self.ran_out = True
            raise TimeLimitError(
                f"the time limit of {self.seconds:g} s ran out", remedy="Give it longer (--time-limit)."
            )


_CURRENT: ContextVar[TimeLimit | None] = ContextVar("time limit", default=None)


@contextmanager
def time_limit(seconds: float) -> Iterator[TimeLimit]:
    """Let what is done inside take ``seconds``."""
    limit = TimeLimit(seconds)
    token = _CURRENT.set(limit)
    try:
        yield limit
    finally:
        _CURRENT.reset(token)


def current_limit() -> TimeLimit | None:
    """The limit that holds here, if there is one."""
    return _CURRENT.get()


def check_time() -> None:
    """TimeLimitError if there is a limit here and it is over."""
    limit = _CURRENT.get()
    if limit is not None:
        limit.check()
