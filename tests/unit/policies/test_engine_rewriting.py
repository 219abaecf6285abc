"""A prompt is rewritten by rule and judged again; records hold commitments to both, and clear text only if allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safegen.keys import check_commitment
from safegen.policies.engine.engine import Engine, Request
from safegen.policies.engine.rewriting import rewrite_prompt
from safegen.policies.engine.text_records import text_records
from safegen.policies.pack.loading import load_pack
from safegen.policies.text.lexicon import Lexicon
from safegen.policies.text.views import View
from safegen.types import Action

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load("rewrite")


@pytest.mark.parametrize(
    ("prompt", "found", "expected"),
    [
        ("ada wong walks home", [("likeness", (0, 8))], ("a person walks home", 1)),
        ("Ada Wong and ADA WONG walk home again", [("likeness", (0, 8))], ("a person and a person walk home again", 2)),
        ("a quiet, scary, empty house at night", [("gore", (9, 14))], ("a quiet, empty house at night", 1)),
        ("a big scary house stands there", [("gore", (7, 10))], ("a big house stands there", 1)),  # whole words
        ("one two three four five six seven", [("gore", (4, 13)), ("gore", (8, 18))], ("one five six seven", 1)),
        ("scary", [("gore", (0, 5))], None),
        ("scary house", [("gore", (0, 5))], None),
        ("a scary house here", [("gore", (0, 0))], None),
        ("a scary house here", [("gore", (2, 99))], None),
        ("a very scary house of horrors", [("gore", (2, 29))], None),
    ],
)  # fmt: skip
def test_matched_words_are_replaced_and_nothing_else(
    prompt: str, found: list[Any], expected: tuple[str, int] | None
) -> None:
    assert rewrite_prompt(prompt, found, {"likeness": "a person"}) == expected


def test_rewritten_prompt_passes_and_the_decision_tells(engine: Engine) -> None:
    decision = engine.judge(Request("Maria Kowalski walks a dog along the river"))
    assert decision.action is Action.REWRITE
    assert not decision.action.stops
    assert decision.rewrite is not None
    assert decision.rewrite.prompt == "a person walks a dog along the river"
    assert decision.rewrite.to_json() == {"categories": ["likeness"], "replaced": 1, "rounds": 1}
    assert engine.judge(Request(decision.rewrite.prompt)).action is Action.ALLOW
    assert "river" not in json.dumps(decision.to_json())
    assert [r.name for r in decision.classifiers] == [*engine.pack.text_classifiers] * 2


def test_several_rounds_find_several_names(engine: Engine) -> None:
    decision = engine.judge(Request("Maria Kowalski meets Hiroshi Tanaka in a quiet park near the old town hall"))
    assert decision.rewrite is not None
    assert decision.rewrite.rounds == 2
    assert decision.rewrite.prompt == "a person meets a person in a quiet park near the old town hall"


def test_what_no_rewriting_makes_pass_is_blocked(engine: Engine) -> None:
    decision = engine.judge(Request("Maria Kowalski"))
    assert decision.action is Action.BLOCK
    assert decision.rewrite is None
    assert decision.reasons[0].category == "rewrite_failed"
    names = (
        "Maria Kowalski walks in the green park while Hiroshi Tanaka is sitting on the long wooden bench, John Miller "
        "is looking at the small white boats on the lake, Susan Baker is flying a big red kite on the beach, Thomas "
        "Clark is painting the old wooden fence, Laura Moreno is feeding ducks near the bridge, Kevin Wright is "
        "reading the morning paper in the shade, and Emily Turner is carrying a basket of apples up the hill"
    )
    assert engine.judge(Request(names)).action is Action.BLOCK  # more rounds than the pack allows


def test_more_severe_action_leaves_nothing_to_rewrite(engine: Engine) -> None:
    gore = Lexicon.load().lists["gore"]
    decision = engine.judge(Request(f"Maria Kowalski walks along the river, {gore[3]} everywhere"))
    assert decision.action is Action.BLOCK
    assert decision.rewrite is None


def test_match_in_another_text_cannot_be_rewritten(engine: Engine) -> None:
    request = Request("a quiet river in the morning", enhanced_prompt="Maria Kowalski at a quiet river in the morning")
    assert engine.judge(request).action is Action.BLOCK
    assert engine.judge(Request("a quiet river", negative_prompt="Maria Kowalski")).action is Action.ALLOW


class Placeless:
    name, version, weights_sha256 = "encoder", "1", "0" * 64

    def score(self, texts: Any) -> Any:
        from safegen.policies.text.hits import Hit

        return [[Hit("likeness", 0.6, "clean", (0, 0))] for _ in texts]


def test_match_without_a_place_blocks() -> None:
    engine = Engine(load_pack("rewrite"), text_classifiers={"lexicon": Lexicon.load, "encoder": Placeless})
    assert engine.judge(Request("a quiet river in the morning")).action is Action.BLOCK


def test_batch_rewrites_each_prompt_for_itself(engine: Engine) -> None:
    prompts = ["a tree in a field", "Maria Kowalski walks a dog along the river", "a house on a hill"]
    decisions = engine.judge_many(prompts)
    assert [d.action for d in decisions] == [Action.ALLOW, Action.REWRITE, Action.ALLOW]


# -- what is recorded


def clear_pack(folder: Path, base: str = "default") -> Path:
    path = folder / "clear.yaml"
    path.write_text(
        "schema: safegen.policy/1\nid: clear\nversion: '1'\ndescription: Clear.\n"
        f"extends: {base}\nrecord_text: clear\n",
        encoding="utf-8",
    )
    return path


def test_record_holds_commitments_to_every_text(engine: Engine) -> None:
    prompt = "Maria Kowalski walks a dog along the river"
    decision = engine.judge(Request(prompt, negative_prompt="blurry"))
    records = text_records(engine.pack, decision, [("prompt", prompt), ("negative_prompt", "blurry")], KEY)
    assert set(records) == {"prompt", "negative_prompt", "rewritten_prompt"}
    assert decision.rewrite is not None
    for source, text in (("prompt", prompt), ("rewritten_prompt", decision.rewrite.prompt)):
        assert set(records[source]) == {"commitment"}
        assert check_commitment(text, KEY, records[source]["commitment"])  # type: ignore[arg-type]
        assert not check_commitment(text + "x", KEY, records[source]["commitment"])  # type: ignore[arg-type]


def test_clear_text_only_where_the_pack_says_so(tmp_path: Path) -> None:
    engine = Engine.load(clear_pack(tmp_path))
    prompt = "a red ball bouncing on grass"
    decision = engine.judge(Request(prompt))
    assert text_records(engine.pack, decision, [("prompt", prompt)], KEY)["prompt"]["text"] == prompt
    assert "text" not in text_records(engine.pack, None, [("prompt", prompt)], KEY)["prompt"]


@pytest.mark.parametrize("prompt", ["two children flying a kite on a beach", "a boy and his dog"])
def test_text_that_mentions_minors_is_never_in_clear(tmp_path: Path, prompt: str) -> None:
    engine = Engine.load(clear_pack(tmp_path))
    decision = engine.judge(Request(prompt))
    assert decision.action is Action.ALLOW
    assert decision.words_withheld
    assert "text" not in text_records(engine.pack, decision, [("prompt", prompt)], KEY)["prompt"]


def test_text_is_not_in_clear_where_the_word_rules_did_not_run(tmp_path: Path) -> None:
    class Broken:
        name, version, weights_sha256 = "lexicon", "1", None

        def score(self, texts: list[list[View]]) -> Any:
            raise RuntimeError

    pack = load_pack(clear_pack(tmp_path))
    decision = Engine(pack, text_classifiers={"lexicon": Broken, "encoder": Placeless}).judge(
        Request("a tree on a hill")
    )
    assert decision.words_withheld
    assert "text" not in text_records(pack, decision, [("prompt", "a tree on a hill")], KEY)["prompt"]
