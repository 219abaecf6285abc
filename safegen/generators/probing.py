"""Asking probes (docs/probes.md) while a pipeline runs, and stopping it where the policy says so.

    watch = ProbeWatch(pipe, ProbeSet.load(pack), call_shape(pipe, call))
    frames = sample(pipe, call, prompt=prompt, probes=watch)  # raises StoppedError
    watch.decision

A text probe is asked once the prompt is encoded, a latent probe at its own early steps. Features and scores are
computed on the device; one number is read back for each probe that is asked, and nothing at other steps. A run that is
not stopped comes out bit for bit as without probes.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from safegen.errors import BlockedError, GeneratorError
from safegen.generators.observing import Observer, bound_parts, latent_features, part_digest, text_features
from safegen.policies.probes.probe_set import LATENTS, TEXT_STATES, AskedProbe, Probe, ProbeSet
from safegen.watermark.clip.latent_residual import step_count

if TYPE_CHECKING:
    from safegen.types import Decision
    from safegen.watermark.layouts import ClipShape


LEVEL_SLACK = 1e-3
"""By how much a step may be noisier than the one that a probe was trained at."""


class StoppedError(BlockedError):
    """A probe stopped a generation: ``steps_done`` of ``steps`` denoising steps were spent (``steps`` 0: not known)."""

    def __init__(self, message: str, decision: Decision, *, steps_done: int, steps: int) -> None:
        super().__init__(message, decision, remedy="Change the prompt; the policy and its probes decide what is drawn.")
        self.steps_done = steps_done
        self.steps = steps


class ProbeWatch(Observer):
    """The probes of one run."""

    def __init__(self, pipe: Any, probes: ProbeSet, shape: ClipShape) -> None:
        """Sort out which probes fit ``pipe``. Raises StoppedError where the policy wants one that does not."""
        self._case = probes.case()
        digests: dict[str, str] = {}
        waiting = []
        for held in probes.held:
            if held.probe is None:
                continue
            if why := _misfit(pipe, held.probe, digests):
                self._case.not_run(held, why)
            else:
                waiting.append(held)
        super().__init__(pipe, shape, sorted({h.probe.part for h in waiting if h.probe is not None}))
        self._waiting = waiting  # not asked yet
        self._plan: dict[int, list[tuple[AskedProbe, int]]] | None = None
        self._stop_if_refused(0, 0)

    @property
    def decision(self) -> Decision:
        """What was decided so far; complete once the run is over."""
        return self._case.decision()

    def saw_text(self, part: str, states: Tensor, mask: Tensor) -> None:
        """Ask the text probes of this encoder."""
        for held in self._of(TEXT_STATES):
            if held.probe is not None and held.probe.part == part:
                self._ask(held, 0, lambda: text_features(states, mask), "before step 1")
        self._stop_if_refused(0, 0)

    def saw_step(self, step: int) -> None:
        """Ask the latent probes that are due after ``step`` steps."""
        for held in self._of(TEXT_STATES):
            self._give_up(held, "the pipeline encoded no text")
        if self._taps_scheduler:
            self._ask_latents(step)
        self._stop_if_refused(step, step_count(self._pipe))

    def finish(self) -> None:
        """Close the case of probes that the run never came to. Raises StoppedError where one of them is required."""
        for held in tuple(self._waiting):
            self._give_up(held, "the run had no step of its noise level")
        self._stop_if_refused(step_count(self._pipe), step_count(self._pipe))

    def _of(self, source: str) -> tuple[AskedProbe, ...]:
        return tuple(h for h in self._waiting if h.probe is not None and h.probe.source == source)

    def _give_up(self, held: AskedProbe, why: str) -> None:
        self._waiting.remove(held)
        self._case.not_run(held, why)

    def _ask_latents(self, step: int) -> None:
        if self._plan is None:
            try:
                self._plan = self._plan_of(self._of(LATENTS), step)
            except GeneratorError as error:
                self._plan = {}
                for held in self._of(LATENTS):
                    self._give_up(held, str(error))
        due = self._plan.get(step, ())
        if not due:
            return
        features: Tensor | None = None

        def looked() -> Tensor:
            nonlocal features
            features = latent_features(self.clean(step)) if features is None else features
            return features

        for held, row in due:
            self._ask(held, row, looked, f"after step {step} of {step_count(self._pipe)}")

    def _plan_of(self, probes: tuple[AskedProbe, ...], step: int) -> dict[int, list[tuple[AskedProbe, int]]]:
        """Return, per number of steps done, which rows of which probes are due.

        A row is due at the first step at which there is as little noise as where it was trained: with the same schedule
        at the same step. Where several are due at once, the last one is asked.
        """
        first = self.position(step)
        levels = [s.level for s in self.steps()[first:]]
        plan: dict[int, list[tuple[AskedProbe, int]]] = {}
        for held in probes:
            assert held.probe is not None  # noqa: S101 - ``_of`` leaves those out
            rows = {}
            for row, level in enumerate(held.probe.levels):
                at = next((i for i, have in enumerate(levels) if have <= level + LEVEL_SLACK), None)
                if at is not None:
                    rows[step + at] = row
            for at, row in rows.items():
                plan.setdefault(at, []).append((held, row))
        return plan

    def _ask(self, held: AskedProbe, row: int, features: Any, at: str) -> None:
        """Ask one probe; of several clips the one with the highest score decides."""
        if held in self._waiting:
            self._waiting.remove(held)
        start = perf_counter()
        probe = held.probe
        assert probe is not None  # noqa: S101 - those without one are never asked
        try:
            values = features()
            with torch.autocast(values.device.type, enabled=False):
                weight = torch.from_numpy(probe.weight[row]).to(values.device)
                score = float(torch.sigmoid(values @ weight + float(probe.bias[row])).max())
        except Exception as error:  # whatever it raises, the guard did not run
            self._case.failed(held, type(error).__name__, at, 1000 * (perf_counter() - start))
            return
        self._case.judged(held, score, at, 1000 * (perf_counter() - start))

    def _stop_if_refused(self, done: int, steps: int) -> None:
        decision = self._case.decision()
        if decision.action.stops:
            when = f"after step {done} of {steps}" if done else "before its first step"
            raise StoppedError(f"The generation was stopped {when}: {decision.explanation}.", decision,
                               steps_done=done, steps=steps)  # fmt: skip


def _misfit(pipe: Any, probe: Probe, digests: dict[str, str]) -> str:
    """Why a probe is not for this pipeline, "" if it is; ``digests`` are those of parts that were looked at before."""
    wanted = bound_parts(pipe, probe.part)
    if not wanted or set(wanted) != set(probe.binds):
        return "it is for a model of other parts"
    for name in wanted:
        try:
            if name not in digests:
                digests[name] = part_digest(getattr(pipe, name))
        except Exception as error:  # a model whose weights cannot be read is not known to be the right one
            return f"it cannot be told whether it is for this model: {error}"
        if digests[name] != probe.binds[name]:
            return f"it is for another model: the {name} has other weights"
    return ""
