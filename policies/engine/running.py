"""Runs classifiers so that whatever they do ends in a record: loaded or not, in time or not, sane or not."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Generic, TypeVar

from safegen.policies.pack.model import ClassifierSpec
from safegen.policies.text.hits import NotAvailableError
from safegen.types import ClassifierRun, Json, RunStatus

_C = TypeVar("_C")
_R = TypeVar("_R")
_MAX_HUNG = 3
_MAX_DETAIL = 200


class Runner(Generic[_C]):
    """One classifier of a pack. ``failure`` is the run to record where it could not be loaded, else None."""

    def __init__(self, spec: ClassifierSpec, load: Callable[[], _C] | None) -> None:
        self.spec = spec
        self.failure: ClassifierRun | None = None
        self._classifier: _C | None = None
        self._hung = 0
        self._lock = threading.Lock()
        started = perf_counter()
        try:
            if load is None:
                raise NotAvailableError("this build has no such classifier")
            self._classifier = load()
        except NotAvailableError as exc:
            self.failure = self._run(RunStatus.NOT_RUN, started, 1, str(exc))
        except Exception as exc:  # whatever a loader raises, the guard did not run: block, and say why
            self.failure = self._run(RunStatus.FAILED, started, 1, str(exc) or type(exc).__name__)

    @property
    def classifier(self) -> _C:
        """The loaded classifier."""
        if self._classifier is None:
            raise NotAvailableError(f"{self.spec.name} is not loaded")
        return self._classifier

    def call(self, work: Callable[[_C], _R]) -> _R:
        """Return ``work(classifier)``. TimeoutError after the time limit; else whatever it raises.

        The work goes on in its thread, as nothing can end it; after three such, no more are begun until one is over.
        """
        limit = self.spec.time_limit_s
        with self._lock:
            if self._hung >= _MAX_HUNG:
                raise TimeoutError("still busy with texts that took too long")
        done: queue.SimpleQueue[tuple[_R | None, BaseException | None]] = queue.SimpleQueue()
        state = {"late": False}

        def run() -> None:
            try:
                outcome: tuple[_R | None, BaseException | None] = (work(self.classifier), None)
            except BaseException as exc:
                outcome = (None, exc)
            with self._lock:
                if state["late"]:
                    self._hung -= 1
            done.put(outcome)

        threading.Thread(target=run, name=f"classifier {self.spec.name}", daemon=True).start()
        try:
            value, error = done.get(timeout=limit)
        except queue.Empty:
            with self._lock:
                state["late"] = True
                self._hung += 1
            raise TimeoutError(f"took longer than {limit:g} s") from None
        if error is not None:
            raise error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
        return value  # type: ignore[return-value]

    def ran(self, started: float, shared_by: int = 1, detail: str = "") -> ClassifierRun:
        """Return the record of a run that ended well, begun at ``started`` (perf_counter)."""
        return self._run(RunStatus.RAN, started, shared_by, detail)

    def failed(self, started: float, error: BaseException) -> ClassifierRun:
        """Return the record of a run that ended in ``error``."""
        # What a library says may quote the text that it choked on; our own errors and time-outs never do.
        ours = isinstance(error, TimeoutError | NotAvailableError)
        return self._run(RunStatus.FAILED, started, 1, f"{type(error).__name__}{f': {error}' if ours else ''}")

    def _run(self, status: RunStatus, started: float, shared_by: int, detail: str) -> ClassifierRun:
        spent = (perf_counter() - started) * 1000 / max(shared_by, 1)
        held = self._classifier
        version, digest = str(getattr(held, "version", "")), getattr(held, "weights_sha256", None)
        name, required = self.spec.name, self.spec.required
        return ClassifierRun(name, version, digest, status, spent, detail[:_MAX_DETAIL], required)

    def posture(self) -> dict[str, Json]:
        """Return name, whether it is ready, and in which version, as plain JSON values."""
        told: dict[str, Json] = {"name": self.spec.name, "use": self.spec.use, "required": self.spec.required}
        if self.failure is not None:
            return told | {"status": str(self.failure.status), "detail": self.failure.detail}
        version, digest = getattr(self._classifier, "version", ""), getattr(self._classifier, "weights_sha256", None)
        return told | {"status": "ready", "version": version, "weights_sha256": digest}


def loader(
    spec: ClassifierSpec,
    factories: Mapping[str, Callable[[], _C]],
    guards: Mapping[str, Callable[[ClassifierSpec], _C]] | None = None,
) -> Callable[[], _C] | None:
    """Return what loads the classifier that ``spec`` asks for, or None where this build has none of the kind."""
    if guards is not None and spec.use in guards:
        make = guards[spec.use]
        return lambda: make(spec)
    return factories.get(spec.use)
