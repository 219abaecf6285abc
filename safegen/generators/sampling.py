"""Running a loaded pipeline: the call, the hooks, and the decode into frames."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from safegen.errors import GeneratorError, InputError, SafegenError
from safegen.generators.loading import autocast, quiet, task_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from safegen.generators.probing import ProbeWatch
    from safegen.watermark.layouts import ClipShape

# Imported where they are used: torch, and what loads it.

StepCallback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]
"""diffusers' ``callback_on_step_end(pipe, step, timestep, {"latents": ...})``; may replace the latents."""


def sample(
    pipe: Any,
    call: Mapping[str, Any],
    *,
    prompt: str,
    negative_prompt: str = "",
    seed: int = 0,
    image: NDArray[np.uint8] | None = None,
    video: NDArray[np.uint8] | None = None,
    strength: float | None = None,
    callback: StepCallback | None = None,
    progress: Callable[[int, int], None] | None = None,
    probes: ProbeWatch | None = None,
) -> NDArray[np.uint8]:
    """Run ``pipe`` once and return the clip, uint8 [T, H, W, 3] RGB.

    ``call`` is what ``Card.resolve`` returned. ``image`` (uint8 [H, W, 3]) and ``video`` (uint8 [T, H, W, 3], at least
    ``num_frames`` long, at the card's frame rate) are for pipelines loaded in these modes; they are cropped to the
    clip's shape. ``strength`` in (0, 1]: how much of a video is redrawn. ``callback`` sees, and may replace, the
    latents after every step; ``progress(step, steps)`` is told afterwards. ``probes`` look on and may stop the run. The
    same seed gives the same clip on the same machine. Raises InputError for unusable inputs, StoppedError (a
    BlockedError) where a probe stops it, and GeneratorError if the model fails; what ``callback`` raises and
    KeyboardInterrupt pass through.
    """
    import torch

    from safegen.watermark import fastvae
    from safegen.watermark.layouts import call_shape

    arguments = _arguments(pipe, call, prompt, negative_prompt, image, video, strength)
    arguments["generator"] = torch.Generator("cpu").manual_seed(seed)
    arguments["callback_on_step_end"] = _hook(callback, progress, call["num_inference_steps"], probes)
    asked = arguments.get("callback_on_step_end_tensor_inputs") or ()
    arguments["callback_on_step_end_tensor_inputs"] = list(dict.fromkeys(["latents", *asked]))
    wan = fastvae.is_wan(pipe.vae)
    try:
        # No inference mode: an embedder in ``callback`` may need gradients with respect to the latents.
        with quiet(), torch.no_grad(), autocast(pipe):
            with contextlib.nullcontext() if probes is None else probes.attached():
                made = pipe(**arguments, output_type="latent" if wan else "np").frames
            if probes is not None:
                probes.finish()
            return decode_latents(pipe, made, call_shape(pipe, call)) if wan else _to_uint8(made[0])
    except SafegenError:
        raise
    except torch.OutOfMemoryError as error:
        raise GeneratorError("the device's memory is too small for this clip", remedy=_SMALLER) from error
    except Exception as error:  # whatever a third-party pipeline raises
        raise GeneratorError(f"the model failed while sampling: {error}", remedy=_SMALLER) from error


def call_defaults(pipe: Any) -> dict[str, int]:
    """Return the clip that a loaded pipeline draws when it is not told otherwise: size, frames and steps.

    From its ``__call__``'s signature, and where that says None (CogVideoX) from its denoiser's configuration, as the
    pipeline itself works it out. What neither says is left out.
    """
    parameters = inspect.signature(pipe.__call__).parameters
    wanted = ("height", "width", "num_frames", "num_inference_steps")
    values = {n: parameters[n].default for n in wanted if n in parameters}
    denoiser = next((d for d in (getattr(pipe, n, None) for n in ("transformer", "unet")) if d is not None), None)
    config: Mapping[str, Any] = {} if denoiser is None else denoiser.config
    stride: int = getattr(pipe, "vae_scale_factor_spatial", 0) or getattr(pipe, "vae_scale_factor", 8)
    for name, key, factor in (
        ("height", "sample_height", stride),
        ("width", "sample_width", stride),
        ("num_frames", "sample_frames", 1),
    ):
        if name in values and not isinstance(values[name], int) and isinstance(config.get(key), int):
            values[name] = config[key] * factor
    return {n: v for n, v in values.items() if isinstance(v, int)}


def check_call(pipe: Any, call: Mapping[str, Any]) -> None:
    """Raise InputError where ``call`` names arguments that the pipeline does not take, or leaves the size open."""
    accepted = inspect.signature(pipe.__call__).parameters
    if unknown := sorted(set(call) - set(accepted)):
        raise InputError(
            f"{type(pipe).__name__} takes no {', '.join(unknown)}", remedy=f"It takes: {', '.join(accepted)}."
        )
    if missing := sorted({"height", "width", "num_frames", "num_inference_steps"} - set(call)):
        raise InputError(f"{type(pipe).__name__} does not say its {', '.join(missing)}", remedy="Pass them.")


_SMALLER = "Try fewer frames or a smaller size; if it persists, the model and the installed diffusers do not fit."


def _arguments(
    pipe: Any,
    call: Mapping[str, Any],
    prompt: str,
    negative_prompt: str,
    image: NDArray[np.uint8] | None,
    video: NDArray[np.uint8] | None,
    strength: float | None,
) -> dict[str, Any]:
    """Return the pipeline's arguments: those of ``call`` that this task's class takes, and its inputs."""
    accepted = inspect.signature(pipe.__call__).parameters
    arguments = {n: v for n, v in call.items() if n in accepted}
    if arguments.get("prompt_embeds") is None:  # diffusers takes a text or its embeddings, not both
        arguments["prompt"] = prompt
    if negative_prompt and "negative_prompt" in accepted and arguments.get("negative_prompt_embeds") is None:
        arguments["negative_prompt"] = negative_prompt
    height, width, frames = call["height"], call["width"], call["num_frames"]
    for name, given in (("image", image), ("video", video)):
        if (task_of(pipe) == name) != (given is not None):
            which = "needs an input" if given is None else "takes no"
            raise InputError(f"{type(pipe).__name__} {which} {name}", remedy="Load the pipeline in the fitting mode.")
    if image is not None:
        arguments["image"] = fit(image[None], height, width)[0]
    if video is not None:
        if len(video) < frames:
            raise InputError(
                f"the video has {len(video)} frames, {frames} are needed",
                remedy="Give a longer video, or fewer frames.",
            )
        arguments["video"] = fit(video[:frames], height, width)
        if strength is not None:
            if not 0 < strength <= 1:
                raise InputError(f"strength {strength} is not possible", remedy="Use a number above 0 and up to 1.")
            arguments["strength"] = strength
    return arguments


def _hook(
    callback: StepCallback | None,
    progress: Callable[[int, int], None] | None,
    steps: int,
    probes: ProbeWatch | None,
) -> StepCallback:
    def on_step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if probes is not None:
            probes.on_step_end(step)
        out = tensors if callback is None else callback(pipe, step, timestep, tensors)
        if progress is not None:
            progress(step + 1, int(getattr(pipe, "num_timesteps", steps)))
        return out

    return on_step_end


def fit(frames: NDArray[np.uint8], height: int, width: int) -> list[Any]:
    """Return uint8 [T, H, W, 3] as PIL images of the given size: scaled to cover it, and cropped around the centre."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or str(frames.dtype) != "uint8" or 0 in frames.shape:
        raise InputError(f"expected uint8 RGB frames [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    return [ImageOps.fit(Image.fromarray(f), (width, height), Image.Resampling.LANCZOS) for f in frames]


def decode_latents(pipe: Any, latents: Any, shape: ClipShape) -> NDArray[np.uint8]:
    """Return the frames, uint8 [T, H, W, 3], of one clip's final latents, of any family that the mark can reach.

    ``shape`` is the clip that the pipeline was asked for.
    For Wan in one pass over the whole clip where its features fit ``WHOLE_CLIP_BYTES``, else chunk by chunk as
    diffusers does: the same numbers. GeneratorError if the latents are not finite.
    """
    import torch

    from safegen.watermark import fastvae
    from safegen.watermark.layouts import Layout

    if not torch.isfinite(latents).all():
        raise GeneratorError(
            "the model's latents are not finite", remedy="Load it in float32, or with a smaller guidance scale."
        )
    vae = pipe.vae
    latents = latents.to(vae.device, torch.float32)
    with torch.no_grad(), autocast(pipe):
        if not fastvae.is_wan(vae):
            made = fastvae.decode(vae, Layout.of(vae, latents, shape).unify(latents))[0]
        elif _decode_bytes(vae, latents.shape) <= WHOLE_CLIP_BYTES:
            made = fastvae.decode(vae, latents)[0]
        else:
            mean, std = fastvae.latent_stats(vae)
            made = vae.decode((latents * std + mean).to(vae.dtype), return_dict=False)[0][0]
    return _to_uint8(((made.float() + 1) / 2).permute(1, 2, 3, 0).cpu().numpy())


WHOLE_CLIP_BYTES = 4 << 30
"""Estimated features of a whole-clip decode above which the slower, chunked one is used."""

_LIVE_TENSORS = 6  # feature maps of the last, largest stage that are alive at once


def _decode_bytes(vae: Any, shape: tuple[int, ...]) -> int:
    """Estimate what decoding latents [1, C, t, h, w] at once takes: the decoder's last stage, in float32."""
    config = vae.config
    stride, width = config.scale_factor_spatial // (config.patch_size or 1), config.decoder_base_dim or config.base_dim
    return int(shape[2] * config.scale_factor_temporal * shape[3] * shape[4] * stride**2 * width * 4 * _LIVE_TENSORS)


def _to_uint8(frames: Any) -> NDArray[np.uint8]:
    """Frames in [0, 1] as uint8, rounded; GeneratorError if they are not finite."""
    values = np.asarray(frames)
    if not np.isfinite(values).all():
        raise GeneratorError("the decoded frames are not finite", remedy="Load the model in float32.")
    rounded: NDArray[np.uint8] = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return rounded
