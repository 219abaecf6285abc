"""A step callback of the caller's own looks on, and what it changes is bounded and on record."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from safegen.errors import InputError
from safegen.generation.step_callback import CallerCallback

LATENTS = torch.linspace(-1, 1, 24).reshape(1, 2, 3, 4)


def ask(answer: Any) -> tuple[CallerCallback, dict[str, Any]]:
    """A callback that answers so, and what comes of one step."""
    wrapped = CallerCallback(lambda _pipe, _step, _timestep, tensors: answer(tensors))
    return wrapped, wrapped(None, 0, 0, {"latents": LATENTS, "prompt_embeds": torch.ones(3)})


def test_latents_alone_are_taken() -> None:
    wrapped, out = ask(lambda _: {"latents": LATENTS * 2, "prompt_embeds": torch.zeros(3)})
    assert torch.equal(out["latents"], LATENTS * 2)
    assert torch.equal(out["prompt_embeds"], torch.ones(3))
    assert wrapped.changed
    assert wrapped.to_json() == {"steps": 1, "largest_change": 1.0}


@pytest.mark.parametrize("answer", [lambda tensors: tensors, lambda _: {}, lambda _: None])
def test_who_only_looks_on_changes_nothing(answer: Any) -> None:
    wrapped, out = ask(answer)
    assert torch.equal(out["latents"], LATENTS)
    assert not wrapped.changed


def test_changes_in_place_reach_nobody() -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        for tensor in tensors.values():
            tensor.zero_()

    wrapped, out = ask(spoil)
    assert torch.equal(out["latents"], LATENTS)
    assert torch.equal(out["prompt_embeds"], torch.ones(3))
    assert LATENTS.abs().sum() > 0
    assert not wrapped.changed


def test_what_was_returned_cannot_be_changed_afterwards() -> None:
    kept = LATENTS * 2
    _, out = ask(lambda _: {"latents": kept})
    kept.zero_()
    assert torch.equal(out["latents"], LATENTS * 2)


class Pretends(torch.Tensor):
    """A tensor that is not what it shows."""


@pytest.mark.parametrize(
    "latents", [LATENTS[:, :1], LATENTS.double(), LATENTS.numpy(), 2, LATENTS.as_subclass(Pretends)], ids=str
)
def test_latents_of_another_kind_are_refused(latents: Any) -> None:
    with pytest.raises(InputError, match="latents of another kind"):
        ask(lambda _: {"latents": latents})


def test_the_largest_change_is_a_number_whatever_comes_back() -> None:
    wrapped, _ = ask(lambda _: {"latents": LATENTS * float("nan")})
    assert wrapped.to_json() == {"steps": 1, "largest_change": 1e6}
