"""A step callback of the caller's own, held to what it may do: look on, and change the latents on record.

It gets copies, so that nothing changes unless it is returned; what it returns counts as latents alone, must be of their
shape, and is measured. A caller who replaces the latents draws the pictures himself, whatever the prompt says: the
entry then says so, and every frame is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from safegen.errors import InputError
from safegen.types import Json

# Imported where they are used: torch.


class CallerCallback:
    """diffusers' ``callback_on_step_end`` around the caller's."""

    def __init__(self, callback: Callable[..., Any]) -> None:
        self._callback = callback
        self.steps = 0
        self.largest = 0.0

    @property
    def changed(self) -> bool:
        """Whether the caller has replaced the latents after any step so far."""
        return self.steps > 0

    def __call__(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Ask the caller's callback; InputError where it returns something that cannot be the latents."""
        returned = self._callback(pipe, step, timestep, {name: _copied(value) for name, value in tensors.items()})
        latents = returned.get("latents") if isinstance(returned, Mapping) else None
        if latents is None:
            return tensors
        return {**tensors, "latents": self._taken(latents, tensors["latents"])}

    def to_json(self) -> dict[str, Json]:
        """What the entry says: after how many steps, and the largest change relative to the latents' own size."""
        return {"steps": self.steps, "largest_change": round(min(self.largest, 1e6), 4)}

    def _taken(self, latents: Any, before: Any) -> Any:
        import torch

        if type(latents) is not torch.Tensor or latents.shape != before.shape or latents.dtype != before.dtype:
            raise InputError(
                "callback_on_step_end returned latents of another kind than it was given.",
                remedy="Return a plain tensor of the same shape and type, or nothing.",
            )
        latents = latents.detach().to(before.device).clone()
        if torch.equal(latents, before):
            return before
        change = (latents.float() - before.float()).norm() / before.float().norm().clamp_min(1e-6)
        self.steps += 1
        self.largest = max(self.largest, float(change.nan_to_num(1e6, 1e6, 1e6)))
        return latents


def _copied(value: Any) -> Any:
    import torch

    return value.detach().clone() if isinstance(value, torch.Tensor) else value
