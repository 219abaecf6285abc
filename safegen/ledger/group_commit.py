"""Threads that append at the same time share one transaction, one signature and one wait for the disk."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from safegen.errors import LedgerBusyError, LedgerDamagedError, LedgerError
from safegen.ledger.append_results import Outcome, Receipt
from safegen.ledger.entry import Draft

MOST_TOGETHER: Final = 1000
"""Events of one transaction, as long as no single call brings more."""

Commit = Callable[[Sequence[Sequence[Draft]]], Sequence[Outcome]]
"""Appends several jobs, each all or nothing, and answers each; what it raises concerns them all."""


class _Job:
    """One call's events, and what became of them."""

    __slots__ = ("drafts", "outcome")

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self.drafts = drafts
        self.outcome: Outcome | None = None


class GroupCommit:
    """Whoever has the turn commits what all have brought by then, first come first served."""

    def __init__(self, commit: Commit, busy_seconds: float) -> None:
        self._commit = commit
        self._seconds = busy_seconds
        self._turn = threading.Lock()
        self._guard = threading.Lock()  # of the queue
        self._queue: deque[_Job] = deque()

    def submit(self, drafts: Sequence[Draft]) -> list[Receipt]:
        """Append the events, all or none, and return their receipts; raises what kept them from being appended."""
        job = _Job(drafts)
        with self._guard:
            self._queue.append(job)
        until = time.monotonic() + self._seconds
        while job.outcome is None:
            if not self._turn.acquire(timeout=max(0.0, until - time.monotonic())):
                if self._withdraw(job):
                    raise LedgerBusyError(
                        "other threads are writing to the ledger and did not finish in time", remedy="try again"
                    )
                self._turn.acquire()  # it is being committed: whoever does so keeps to its own time limit
            try:
                if job.outcome is None:
                    self._lead()
            finally:
                self._turn.release()
        if isinstance(job.outcome, LedgerError):
            raise job.outcome
        return job.outcome

    def _withdraw(self, job: _Job) -> bool:
        with self._guard:
            if job in self._queue:
                self._queue.remove(job)
                return True
        return False

    def _lead(self) -> None:
        """Commit the jobs that wait, the oldest first."""
        jobs: list[_Job] = []
        with self._guard:
            count = 0
            while self._queue and (not jobs or count + len(self._queue[0].drafts) <= MOST_TOGETHER):
                jobs.append(self._queue.popleft())
                count += len(jobs[-1].drafts)
        try:
            for job, outcome in zip(jobs, self._commit([job.drafts for job in jobs]), strict=True):
                job.outcome = outcome
        except LedgerError as exc:
            for job in jobs:  # an error object each: every thread raises its own
                job.outcome = _again(exc)
        finally:
            for job in jobs:  # an interrupt came between: nobody may wait for ever
                job.outcome = job.outcome or LedgerError(
                    "the ledger's writer was interrupted; the entry may or may not be there",
                    remedy="append it again: an event that names its asset is never recorded twice",
                )


def each_alone(
    commit: Callable[[Sequence[Draft]], list[Receipt]], jobs: Sequence[Sequence[Draft]]
) -> Sequence[Outcome]:
    """Commit several jobs at once, or one by one if that fails for a reason that may be one job's alone."""
    try:
        receipts = commit([draft for job in jobs for draft in job])
    except (LedgerBusyError, LedgerDamagedError):
        raise
    except LedgerError as exc:
        if len(jobs) == 1:
            return [exc]
        return [outcome for job in jobs for outcome in each_alone(commit, [job])]
    found = iter(receipts)
    return [[next(found) for _ in job] for job in jobs]


def _again(error: LedgerError) -> LedgerError:
    same = type(error)(str(error), remedy=error.remedy)
    same.__cause__ = error
    return same
