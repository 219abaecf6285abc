"""Embeddings: only what safegen encoded itself from a text that it judged is accepted, and exactly that."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import safegen
from safegen.errors import BlockedError, GeneratorError, InputError
from safegen.generation.embeddings import RETURNS, digest_tensors, embed, refusal, seal
from safegen.keys import KeyStore
from safegen.policies.text.lexicon import Lexicon
from safegen.settings import Home
from tests import families
from tests.families import BUILDERS
from tests.pipelines import random_cogvideox, random_ltx, random_wan
from tests.quick import quick

PROMPT = "a red ball bouncing on grass at sunset"
SHORT = {"max_sequence_length": 16}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    KeyStore.init(home)
    return home


@pytest.fixture(scope="module")
def keys(home: Home) -> KeyStore:
    return KeyStore.load(home)


@pytest.fixture(scope="module")
def made(home: Home) -> safegen.generation.embeddings.Embeddings:
    return embed(random_wan(), PROMPT, negative_prompt="blurry", home=home, **SHORT)


def ask(made: Any, keys: KeyStore, **changes: Any) -> str:
    given = {"tensors": made.tensors, "token": made.token, "prompt": PROMPT, "negative_prompt": "blurry"} | changes
    policy = given.pop("policy_sha256", made.decision.policy_sha256)
    return refusal(**given, keys=keys, policy_sha256=policy)


@pytest.mark.slow
@pytest.mark.parametrize("make", [random_wan, random_cogvideox, random_ltx])
def test_a_pipeline_takes_what_its_own_encoder_made(make: Callable[[], Any], home: Home, keys: KeyStore) -> None:
    pipe = make()
    made = embed(pipe, PROMPT, home=home, **SHORT)
    assert refusal(made.tensors, made.token, PROMPT, "", keys, made.decision.policy_sha256) == ""
    assert set(made.tensors) <= set(RETURNS[next(k for k in RETURNS if type(pipe).__name__.startswith(k))])
    assert PROMPT not in made.token


CHANGES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "no_token": lambda made: {"token": ""},
    "token_of_nobody": lambda made: {"token": "e30.e30"},
    "token_no_text": lambda made: {"token": "\u00e9.\u00e9"},
    "token_cut": lambda made: {"token": made.token[:-4]},
    "token_body_changed": lambda made: {"token": "A" + made.token},
    "one_bit": lambda made: {"tensors": {**made.tensors, "prompt_embeds": _bit(made.tensors["prompt_embeds"])}},
    "other_shape": lambda made: {
        "tensors": {**made.tensors, "prompt_embeds": made.tensors["prompt_embeds"].reshape(2, -1)}
    },
    "other_type": lambda made: {
        "tensors": {**made.tensors, "prompt_embeds": made.tensors["prompt_embeds"].view(torch.int32)}
    },
    "one_more": lambda made: {"tensors": {**made.tensors, "image_embeds": torch.zeros(1)}},
    "one_less": lambda made: {"tensors": {"prompt_embeds": made.tensors["prompt_embeds"]}},
    "swapped": lambda made: {
        "tensors": dict(zip(made.tensors, reversed(list(made.tensors.values())), strict=True)),
    },
    "no_tensor": lambda made: {"tensors": {"prompt_embeds": object()}},
    "other_prompt": lambda made: {"prompt": PROMPT + "."},
    "other_negative_prompt": lambda made: {"negative_prompt": ""},
    "other_policy": lambda made: {"policy_sha256": "0" * 64},
}


def _bit(tensor: torch.Tensor) -> torch.Tensor:
    changed = tensor.clone()
    changed.view(-1)[0] += 1e-3
    return changed


@pytest.mark.parametrize("change", CHANGES)
def test_anything_else_is_refused(change: str, made: Any, keys: KeyStore) -> None:
    assert ask(made, keys) == ""
    assert ask(made, keys, **CHANGES[change](made))


def test_a_token_expires_and_belongs_to_one_home(made: Any, keys: KeyStore, tmp_path: Path) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    old = seal(made.tensors, PROMPT, "blurry", made.decision, keys, past)
    assert "expired" in ask(made, keys, token=old)
    other = KeyStore.init(Home(tmp_path))
    assert "not made in this home" in ask(made, other)


def test_a_prompt_that_is_stopped_is_not_encoded(home: Home) -> None:
    lists = Lexicon.load().lists
    with pytest.raises(BlockedError):
        embed(random_wan(), f"{lists['making'][0]} a {lists['weapon_products'][2]} at home", home=home)


def test_the_encoder_gets_nothing_beside_the_text(home: Home) -> None:
    for smuggled in ({"prompt_embeds": torch.zeros(1, 4, 32)}, {"no_such_argument": 1}):
        with pytest.raises(InputError):
            embed(random_wan(), PROMPT, home=home, **smuggled)
    with pytest.raises(InputError):
        embed(random_wan(), PROMPT, home=home, minutes=0)


def test_encoders_that_are_not_known_or_fail_are_errors_of_ours(home: Home) -> None:
    with pytest.raises(InputError):
        embed(object(), PROMPT, home=home)
    with pytest.raises(GeneratorError):
        embed(families.build("wan21").pipe, PROMPT, home=home)  # it has no text encoder


def test_digests_tell_type_shape_and_bytes_apart() -> None:
    tensors = [torch.zeros(2, 2), torch.zeros(4), torch.zeros(2, 2, dtype=torch.bfloat16), np.zeros((2, 2))]
    digests = [str(digest_tensors("x", t)) for t in tensors]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("name", quick((n for n in BUILDERS if n != "svd"), "wan21", "ltx", "cogvideox"))
def test_embeddings_of_every_family_are_refused_without_a_token(name: str, home: Home, tmp_path: Path) -> None:
    case = families.build(name)
    call = {k: v for k, v in case.call.items() if k != "generator"} | {"num_frames": 5}
    accepted = "num_frames" in __import__("inspect").signature(case.pipe.__call__).parameters
    call = call if accepted else {k: v for k, v in call.items() if k != "num_frames"}
    safe = safegen.protect(case.pipe, home=home)
    with pytest.raises((BlockedError, InputError)) as caught:
        safe(PROMPT, output=tmp_path / "clip.mp4", **call)
    if accepted:
        assert isinstance(caught.value, BlockedError)
        assert {r.category for r in caught.value.decision.reasons} == {"embeddings_without_text"}
    assert list(tmp_path.iterdir()) == []
