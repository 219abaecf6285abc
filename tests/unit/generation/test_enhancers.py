"""What a pipeline writes for itself is judged: enhancers' output, and every text that reaches the encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from safegen.generation.enhancers import ENHANCERS, watch_texts
from tests.pipelines import random_cogvideox, random_ltx, random_wan

SHORT = {"num_inference_steps": 1, "max_sequence_length": 16, "output_type": "latent"}


class Rewriting:
    """A pipeline that rewrites prompts by one of the known methods."""

    def __init__(self, name: str, made: Any) -> None:
        self.__dict__["encoded"] = []
        self._made = made
        setattr(type(self), name, lambda self, prompt: self._made)

    def encode_prompt(self, prompt: Any, negative_prompt: Any = None, prompt_embeds: Any = None) -> Any:
        self.encoded.append(prompt)
        return prompt


class Stop(Exception):  # noqa: N818 - a signal of these tests
    pass


@pytest.mark.parametrize("name", ENHANCERS)
@pytest.mark.parametrize(
    ("made", "seen"), [("longer", ["longer"]), (["a", "b"], ["a", "b"]), (3, None), ([3], None), (None, None)]
)
def test_what_an_enhancer_writes_is_seen(name: str, made: Any, seen: Any) -> None:
    pipe = type("Pipe", (Rewriting,), {})(name, made)
    told: list[Any] = []
    with watch_texts(pipe, told.append):
        assert getattr(pipe, name)("short") == made
    assert told == [seen]
    getattr(pipe, name)("short")
    assert told == [seen], "afterwards nobody listens"
    assert name not in vars(pipe)


def test_a_method_of_the_instance_is_put_back() -> None:
    pipe = type("Pipe", (Rewriting,), {})("enhance_prompt", "longer")
    own = vars(pipe).setdefault("enhance_prompt", lambda prompt: prompt)

    def stop(_texts: Any) -> None:
        raise Stop

    with pytest.raises(Stop), watch_texts(pipe, stop):
        pipe.enhance_prompt("short")
    assert vars(pipe)["enhance_prompt"] is own


def test_the_encoder_is_given_no_text_unseen() -> None:
    pipe = type("Pipe", (Rewriting,), {})("enhance_prompt", "longer")
    told: list[Any] = []
    with watch_texts(pipe, told.append):
        pipe.encode_prompt("one", negative_prompt="blurry")
        pipe.encode_prompt(prompt=["two", "three"], prompt_embeds=None)
        pipe.encode_prompt(None, prompt_embeds=[1.0])
    assert told == [["one"], ["two", "three"]]


@pytest.mark.parametrize(
    ("make", "frames"), [(random_wan, 5), (random_cogvideox, 9), (random_ltx, 9)], ids=["wan", "cogvideox", "ltx"]
)
def test_real_pipelines_show_what_they_encode(make: Callable[[], Any], frames: int) -> None:
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    told: list[Any] = []
    with watch_texts(pipe, told.append):
        pipe(prompt="a red ball", negative_prompt="blurry", height=32, width=32, num_frames=frames, **SHORT)
    assert told == [["a red ball"]]
    assert "encode_prompt" not in vars(pipe)
