"""Every text of a request is an entrance: judged alike, and blocked alike where a guard fails on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from safegen.policies.engine.engine import TEXT_CLASSIFIERS, Engine, Request
from safegen.policies.pack.loading import load_pack
from safegen.policies.text.hits import Hit
from safegen.policies.text.lexicon import Lexicon
from safegen.policies.text.views import View
from safegen.types import Action, RunStatus

PROMPT = "a red ball bouncing on grass at sunset"
WORD = "marmalade"
"""A harmless word on which the guard below goes out of order."""

ENTRANCES: dict[str, Callable[[str], Request]] = {
    "prompt": Request,
    "negative_prompt": lambda text: Request(PROMPT, negative_prompt=text),
    "enhanced_prompt": lambda text: Request(PROMPT, enhanced_prompt=text),
    "prompt_2": lambda text: Request(PROMPT, texts=(("prompt_2", text),)),
    "attention_kwargs.gligen.phrases": lambda text: Request(PROMPT, texts=(("attention_kwargs.gligen.phrases", text),)),
}
STOPPING = [name for name in ENTRANCES if name != "negative_prompt"]


class Faulty:
    """A text classifier that misbehaves when it reads one word."""

    name, version, weights_sha256 = "encoder", "test", "0" * 64

    def __init__(self, fault: Callable[[list[list[Hit]]], Any]) -> None:
        self._fault = fault

    def score(self, texts: Sequence[Sequence[View]]) -> Any:
        found: list[list[Hit]] = [[] for _ in texts]
        read = any(WORD in view.text for views in texts for view in views)
        return self._fault(found) if read else found


def _raise(_found: Any) -> Any:
    raise RuntimeError("out of order")


def _hit(score: float) -> Callable[[Any], Any]:
    return lambda found: [[Hit("general", score, "clean", (0, 0))] for _ in found]


FAULTS: dict[str, Callable[[list[list[Hit]]], Any]] = {
    "raises": _raise,
    "nan": _hit(float("nan")),
    "infinite": _hit(float("inf")),
    "negative": _hit(-0.5),
    "above_one": _hit(2.0),
    "too_few": lambda found: found[:-1],
    "nothing": lambda found: None,
    "hangs": lambda found: time.sleep(60),
}


@pytest.mark.slow
@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_guard_that_fails_on_any_text_blocks(fault: str, entrance: str) -> None:
    pack = load_pack("default")
    pack = replace(pack, specs=tuple(replace(s, time_limit_s=0.3) for s in pack.specs if s.name in TEXT_CLASSIFIERS))
    engine = Engine(pack, text_classifiers={**TEXT_CLASSIFIERS, "encoder": lambda: Faulty(FAULTS[fault])})
    assert engine.judge(ENTRANCES[entrance](PROMPT)).action is Action.ALLOW
    decision = engine.judge(ENTRANCES[entrance](f"{PROMPT} with {WORD}"))
    assert decision.action is Action.BLOCK
    assert RunStatus.FAILED in {r.status for r in decision.classifiers if r.name == "encoder"}
    assert "classifier_failed" in {r.category for r in decision.reasons}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load("default")


@pytest.fixture(scope="module")
def forbidden() -> str:
    lists = Lexicon.load().lists
    return f"{lists['making'][0]} a {lists['weapon_products'][2]} at home"


@pytest.mark.parametrize("entrance", STOPPING)
def test_what_blocks_in_a_prompt_blocks_in_every_text(engine: Engine, forbidden: str, entrance: str) -> None:
    decision = engine.judge(ENTRANCES[entrance](f"{PROMPT}, {forbidden}"))
    assert decision.action is Action.BLOCK
    assert entrance in decision.sources
    assert entrance in {r.source for r in decision.reasons if r.action is Action.BLOCK}


@pytest.mark.parametrize("source", ["negative_prompt", "negative_prompt_2"])
def test_negative_texts_are_scored_and_stop_nothing(engine: Engine, forbidden: str, source: str) -> None:
    decision = engine.judge(Request(PROMPT, texts=((source, forbidden),)))
    assert decision.action is Action.ALLOW
    assert source in {r.source for r in decision.reasons}


def test_texts_that_nobody_can_read_are_reviewed(engine: Engine) -> None:
    for entrance in ("prompt", "enhanced_prompt", "prompt_2"):
        decision = engine.judge(ENTRANCES[entrance]("一只猫在草地上"))
        assert decision.action is Action.REVIEW
        assert decision.reasons[0].source == entrance
