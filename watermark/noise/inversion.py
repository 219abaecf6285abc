"""Back along the flow: from a clip's final latents to an estimate of the noise that it was made from.

A flow-matching model's state is x = (1 - sigma) * data + sigma * noise and it predicts v = noise - data, or the data,
which says the same: v = (x - data) / sigma. Sampling steps
x down from sigma 1 to 0 with v(x, sigma) taken at the start of each step; going back, that start is unknown, so v is
taken at the known end of the step, at the start's sigma (the usual first-order inversion, as in DDIM inversion). Four
steps read about as well as fifty (T2SMark, NeurIPS 2025), and one step worse than none.

The call of the denoiser is the family's own business: only Wan's is known here (text-to-video, one or two stages, and
Wan 2.2's per-token timesteps).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from safegen.errors import SafegenError, WatermarkError
from safegen.watermark import fastvae

MOST_STEPS = 5

_FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler", "DPMSolverMultistepScheduler")


def check(pipe: Any) -> None:
    """Raise WatermarkError unless ``pipe`` is a Wan pipeline whose denoiser and scheduler are understood."""
    remedy = "Read with the pipeline's VAE alone (steps=0), or mark with another scheme."
    transformer: Any = getattr(pipe, "transformer", None)
    scheduler: Any = getattr(pipe, "scheduler", None)
    if type(transformer).__name__ != "WanTransformer3DModel":
        raise WatermarkError(
            f"noise can be traced back through Wan's denoiser only, not through {type(pipe).__name__}'s", remedy=remedy
        )
    if transformer.config.in_channels != transformer.config.out_channels:
        raise WatermarkError("this Wan checkpoint wants an image with every call; its noise is lost", remedy=remedy)
    config = getattr(scheduler, "config", {})
    flow = type(scheduler).__name__ == _FLOW_SCHEDULERS[0] or (
        config.get("use_flow_sigmas") and config.get("prediction_type") in ("flow_prediction", "sample")
    )
    if type(scheduler).__name__ not in _FLOW_SCHEDULERS or not flow or config.get("use_dynamic_shifting"):
        raise WatermarkError(f"the schedule of {type(scheduler).__name__} is not a fixed flow", remedy=remedy)


def invert(latents: Tensor, sigmas: Sequence[float], velocity: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Step ``latents`` up the ``sigmas`` (falling, the last one 0) to the first; same shape.

    ``velocity(x, i)`` is the model's prediction for state x at ``sigmas[i]``.
    """
    x = latents
    for i in reversed(range(len(sigmas) - 1)):
        x = x + (sigmas[i] - sigmas[i + 1]) * velocity(x, i)
    return x


def invert_wan(pipe: Any, latents: Tensor, steps: int, max_sequence_length: int) -> Tensor:
    """Estimate the initial noise of final latents [1, C, T, h, w] with an empty prompt, unguided, in ``steps`` steps.

    Returns float32 of the same shape on the denoiser's device. The pipeline's own scheduler is left as it is. Raises
    WatermarkError where ``check`` does, for latents that are no whole patches, or if the model fails.
    """
    check(pipe)
    rows, columns = pipe.transformer.config.patch_size[1:]
    if latents.shape[-2] % rows or latents.shape[-1] % columns:
        raise WatermarkError(
            f"latents of {latents.shape[-2]}x{latents.shape[-1]} are no whole {rows}x{columns} patches",
            remedy="Read the clip at the size that it was generated in.",
        )
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    try:
        with torch.inference_mode(), fastvae.autocast(pipe.vae):
            scheduler.set_timesteps(steps)
            prompt, _ = pipe.encode_prompt("", None, False, max_sequence_length=max_sequence_length)
            sigmas = [float(s) for s in scheduler.sigmas]
            call = _wan_velocity(pipe, prompt, [float(t) for t in scheduler.timesteps], sigmas)
            start = latents.to(pipe.transformer.device, torch.float32)
            return invert(start, sigmas, call)
    except SafegenError:
        raise
    except Exception as error:  # whatever a third-party model raises
        raise WatermarkError(f"the denoiser failed while tracing noise back: {error}") from error


def _wan_velocity(
    pipe: Any, prompt: Tensor, timesteps: Sequence[float], sigmas: Sequence[float]
) -> Callable[[Tensor, int], Tensor]:
    """One unguided call of the denoiser that serves the timestep, as WanPipeline makes it."""
    of_data = pipe.scheduler.config.get("prediction_type") == "sample"
    ratio = pipe.config.get("boundary_ratio")
    boundary = None if ratio is None else ratio * pipe.scheduler.config.num_train_timesteps

    def velocity(x: Tensor, i: int) -> Tensor:
        t = timesteps[i]
        model = pipe.transformer if boundary is None or t >= boundary else pipe.transformer_2
        time = torch.full((len(x),), t, device=x.device)
        if pipe.config.get("expand_timesteps"):
            depth, rows, columns = model.config.patch_size
            tokens = (x.shape[2] // depth) * (x.shape[3] // rows) * (x.shape[4] // columns)
            time = time[:, None].expand(-1, tokens)
        out = model(
            hidden_states=x.to(model.dtype),
            timestep=time,
            encoder_hidden_states=prompt.to(model.device, model.dtype),
            return_dict=False,
        )
        found: Tensor = out[0].float()
        return (x - found) / sigmas[i] if of_data else found

    return velocity
