"""Looking on while a pipeline runs: its text encoder's hidden states, and the clean latents that it predicts.

Nothing is changed on the way: tensors are only referred to, and computed with where a subclass asks for it. What is
computed stays on the device.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from safegen.errors import GeneratorError
from safegen.generators.clean import Step, schedule

if TYPE_CHECKING:
    from torch import Tensor

    from safegen.watermark.layouts import ClipShape

# Imported where they are used: torch, and what loads it.

GRID = 4
"""Cells per side of the coarse picture that latent features hold of every channel."""

SAMPLED = 64
"""Values of each parameter that a part's digest covers, evenly spaced."""

_DENOISERS = ("transformer", "transformer_2", "unet", "unet_2")


def part_digest(part: Any) -> str:
    """SHA-256 (hex) that tells one model's weights from another's: names, shapes, and some values of each parameter.

    Values are rounded to bfloat16, so that weights loaded in float32 and in bfloat16 have the same digest, and a model
    of 14 billion parameters takes no longer than a small one. It tells models apart; it is no seal against forgery.
    GeneratorError where weights are not in memory.
    """
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(getattr(part, "_orig_mod", part).state_dict().items()):
        if not isinstance(value, torch.Tensor):
            continue
        if value.is_meta:
            raise GeneratorError("the weights are not in memory", remedy="Load the model without sequential offload.")
        flat = value.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // SAMPLED)][:SAMPLED].to("cpu", torch.bfloat16)
        digest.update(f"{name} {tuple(value.shape)} ".encode() + some.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def bound_parts(pipe: Any, part: str) -> tuple[str, ...]:
    """Return the parts that features depend on: the text encoder ``part``, or for "latents" denoisers and VAE."""
    names = (*_DENOISERS, "vae") if part == "latents" else (part,)
    return tuple(n for n in names if getattr(pipe, n, None) is not None)


def text_features(states: Tensor, mask: Tensor) -> Tensor:
    """Return float32 [B, 2 D] of hidden states [B, L, D]: mean and maximum over the tokens in ``mask`` [B, L]."""
    import torch

    with torch.autocast(states.device.type, enabled=False):
        kept = mask.to(states.device).bool()[..., None]
        values = states.float()
        mean = (values * kept).sum(dim=1) / kept.sum(dim=1)
        return torch.cat([mean, values.masked_fill(~kept, -torch.inf).amax(dim=1)], dim=1)


def latent_features(clean: Tensor) -> Tensor:
    """Return float32 [B, C (GRID² + 1)] of clean latents [B, C, T, h, w], any size: coarse pictures, and spreads."""
    import torch
    from torch.nn import functional

    values = clean.float()
    picture = functional.adaptive_avg_pool2d(values.mean(dim=2), GRID)
    return torch.cat([picture.flatten(1), values.std(dim=(2, 3, 4), correction=0)], dim=1)


class Observer:
    """Looks on at one call of ``pipe``, from ``attached()`` on. Subclasses override ``saw_text`` and ``saw_step``."""

    def __init__(self, pipe: Any, shape: ClipShape, parts: Sequence[str]) -> None:
        """``parts``: the text encoders to look at, and "latents"."""
        self._pipe = pipe
        self._shape = shape
        self._encoders = tuple(p for p in parts if p != "latents")
        self._taps_scheduler = "latents" in parts
        self._encoded: set[str] = set()
        self._seen: tuple[Any, Any, Any] | None = None  # what the denoiser said, what it saw, and tokens' own times
        self._steps: tuple[Step, ...] | None = None

    def saw_text(self, part: str, states: Tensor, mask: Tensor) -> None:
        """Take the prompt's hidden states [B, L, D] and the mask [B, L] of its tokens; nothing is denoised yet."""

    def saw_step(self, step: int) -> None:
        """Take note that ``step`` denoising steps are done."""

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Attach to the pipeline and, whatever happens, detach again."""
        with contextlib.ExitStack() as stack:
            for part in self._encoders:
                hook = functools.partial(self._on_encoded, part)
                stack.callback(getattr(self._pipe, part).register_forward_hook(hook, with_kwargs=True).remove)
            if self._taps_scheduler:
                stack.enter_context(self._tapped(self._pipe.scheduler))
            yield

    def on_step_end(self, step: int) -> None:
        """Be told by diffusers' ``callback_on_step_end`` that ``step``, counted from 0, is done."""
        self.saw_step(step + 1)
        self._seen = None

    # -- text ----------------------------------------------------------------------------------------------------------

    def _on_encoded(self, part: str, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Pass on the first call in a run: diffusers' pipelines encode the prompt before the negative prompt."""
        if part in self._encoded:
            return
        self._encoded.add(part)
        states = getattr(output, "last_hidden_state", None)
        states = output[0] if states is None else states
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        self.saw_text(part, states, self._mask(part, given, states))

    def _mask(self, part: str, given: dict[str, Any], states: Tensor) -> Tensor:
        """Which tokens are no padding: as the encoder was told, else by the tokenizer's padding token."""
        import torch

        mask = given.get("attention_mask")
        if mask is not None and tuple(mask.shape) == tuple(states.shape[:2]):
            return mask  # type: ignore[no-any-return]
        ids = given.get("input_ids")
        padding = getattr(getattr(self._pipe, part.replace("text_encoder", "tokenizer"), None), "pad_token_id", None)
        if ids is None or padding is None or tuple(ids.shape) != tuple(states.shape[:2]):
            return torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        return ids != padding  # type: ignore[no-any-return]

    # -- latents -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _tapped(self, scheduler: Any) -> Iterator[None]:
        """Note what this scheduler's ``step`` is given: after guidance, so once per clip, whatever the family batches.

        By a subclass and not by an attribute: some pipelines copy their scheduler, and a copy must step itself.
        """
        own = type(scheduler)
        signature = inspect.signature(own.step)
        observer = self

        @functools.wraps(own.step)
        def step(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self is scheduler:
                given = signature.bind(self, *args, **kwargs).arguments
                observer._seen = given["model_output"], given["sample"], given.get("per_token_timesteps")
            return own.step(self, *args, **kwargs)

        scheduler.__class__ = type(own.__name__, (own,), {"step": step, "__module__": own.__module__})
        try:
            yield
        finally:
            scheduler.__class__ = own

    def steps(self) -> tuple[Step, ...]:
        """Return all steps of the scheduler, whose timesteps must be set; read from it once. Raises GeneratorError."""
        if self._steps is None:
            self._steps = schedule(self._pipe.scheduler)
        return self._steps

    def position(self, step: int) -> int:
        """Return where in ``steps()`` the ``step``-th step of this run is, from 0: video-to-video starts late."""
        from safegen.watermark.clip.latent_residual import step_count

        done = getattr(self._pipe.scheduler, "step_index", None)
        return step - 1 + len(self.steps()) - step_count(self._pipe) if done is None else int(done) - 1

    def clean(self, step: int) -> Tensor:
        """Return the clean latents predicted at the step just done: float32 [B, C, T, h, w], normalised for the VAE."""
        import torch

        from safegen.watermark.layouts import Layout

        if self._seen is None:
            raise GeneratorError("the scheduler was given nothing at this step")
        output, sample, times = self._seen
        at = self.steps()[self.position(step)]
        with torch.autocast(sample.device.type, enabled=False):
            if times is None:
                clean = at.on_sample * sample.float() + at.on_output * output.float()
            else:  # LTX's flow with a time for each token, whose steps are given the velocity's negative
                sigmas = times.float() / self._pipe.scheduler.config.num_train_timesteps
                clean = sample.float() + sigmas[..., None] * output.float()
            return Layout.of(self._pipe.vae, clean, self._shape).unify(clean)
