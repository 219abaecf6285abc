"""What a denoiser's output says the clean latents are, for the prediction types and schedulers of diffusers.

Every type is linear in what the model saw, x, and in what it said, m: x0 = on_sample x + on_output m. With
x = a x0 + s n (n: noise): epsilon (arXiv:2006.11239) m = n; v (arXiv:2202.00512) m = a n - s x0; sample m = x0; flow
(arXiv:2210.02747) m = n - x0 with a = 1 - s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from safegen.errors import GeneratorError

_FLOW = ("FlowMatchEulerDiscreteScheduler",)
_SIGMAS = ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler")
_EULER = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
_ALPHAS = ("DDIMScheduler", "DDPMScheduler", "LCMScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")

SCHEDULERS = (*_FLOW, *_SIGMAS, *_EULER, *_ALPHAS)
"""Classes whose steps are understood: one call of ``step`` per call of the denoiser."""


@dataclass(frozen=True, slots=True)
class Step:
    """One denoising step: x0 = on_sample x + on_output m, and the share of noise in x, in [0, 1]."""

    on_sample: float
    on_output: float
    level: float


def schedule(scheduler: Any) -> tuple[Step, ...]:
    """Return the steps that ``scheduler``, whose timesteps are set, is going to take.

    Reads its tables once, so that nothing has to be read back from the device at a step. GeneratorError for a scheduler
    or a prediction type that is not understood.
    """
    name = type(scheduler).__name__
    if name in _FLOW:
        inverted = bool(scheduler.config.get("invert_sigmas"))  # Mochi: sigma is the share of the clip, m = x0 - n
        sigmas = _numbers(scheduler.sigmas)[:-1]
        noise = [1 - s if inverted else s for s in sigmas]
        return tuple(Step(1.0, s if inverted else -s, s) for s in noise)
    if name in _SIGMAS or name in _EULER:
        sigmas = _numbers(scheduler.sigmas)[: len(scheduler.timesteps)]
        if scheduler.config.get("use_flow_sigmas") or scheduler.config.get("prediction_type") == "flow_prediction":
            return tuple(_step(scheduler, 1 - s, s) for s in sigmas)
        scales = [1 / math.sqrt(s * s + 1) for s in sigmas]
        steps = tuple(_step(scheduler, a, s * a) for s, a in zip(sigmas, scales, strict=True))
        if name in _EULER:  # x = x0 + sigma n, which is 1 / a times the others' x
            return tuple(Step(p.on_sample * a, p.on_output, p.level) for p, a in zip(steps, scales, strict=True))
        return steps
    if name in _ALPHAS:
        products = scheduler.alphas_cumprod.tolist()
        kept = [products[int(t)] for t in _numbers(scheduler.timesteps)]
        return tuple(_step(scheduler, math.sqrt(p), math.sqrt(1 - p)) for p in kept)
    raise GeneratorError(
        f"what {name} predicts at a step is not known", remedy=f"Latent probes work with: {', '.join(SCHEDULERS)}."
    )


def _numbers(values: Any) -> list[float]:
    return [float(v) for v in values.tolist()]


def _step(scheduler: Any, a: float, s: float) -> Step:
    kind = scheduler.config.get("prediction_type")
    if kind == "epsilon":
        if a < 1e-6:
            raise GeneratorError("a noise prediction says nothing of the clip where there is only noise")
        return Step(1 / a, -s / a, s)
    if kind == "v_prediction":
        return Step(a, -s, s)
    if kind == "sample":
        return Step(0.0, 1.0, s)
    if kind == "flow_prediction":
        return Step(1.0, -s, s)
    raise GeneratorError(f"the prediction type {kind!r} of {type(scheduler).__name__} is not known")
