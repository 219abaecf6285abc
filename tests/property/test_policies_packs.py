"""Properties of packs put together and of prompts rewritten."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.errors import ConfigError
from safegen.policies.engine.rewriting import rewrite_prompt
from safegen.policies.pack.diff import compare_rules
from safegen.policies.pack.loading import Rule, load_pack
from safegen.policies.pack.merging import THRESHOLDS, strictest
from safegen.policies.text.views import views_of

LEVEL = st.integers(1, 20).map(lambda n: n / 20)
_DEFAULT = load_pack("default")


@st.composite
def rules(draw: st.DrawFn) -> dict[str, float]:
    names = draw(st.lists(st.sampled_from(THRESHOLDS), min_size=1, unique=True))
    levels = sorted(draw(st.lists(LEVEL, min_size=len(names), max_size=len(names))))
    return dict(zip([t for t in THRESHOLDS if t in names], levels, strict=True))


def _document(rule: dict[str, float]) -> dict[str, Any]:
    document: dict[str, Any] = dict(_DEFAULT.document)
    return document | {"categories": {**document["categories"], "tried": rule}}


@given(rules(), rules(), st.integers(0, 100).map(lambda n: n / 100))
def test_of_two_packs_the_more_severe_action_is_taken_at_every_score(
    a: dict[str, float], b: dict[str, float], score: float
) -> None:
    both = Rule(**strictest([_document(a), _document(b)])["categories"]["tried"])
    wanted = max((Rule(**r).judge(score)[0] for r in (a, b)), key=lambda action: action.severity)
    assert both.judge(score)[0] is wanted


@given(rules(), rules())
def test_effects_are_opposite_in_opposite_directions(a: dict[str, float], b: dict[str, float]) -> None:
    turned = {"tightened": "loosened", "loosened": "tightened"}
    there, back = compare_rules(Rule(**a), Rule(**b)), compare_rules(Rule(**b), Rule(**a))
    assert back == turned.get(there, there)


@pytest.mark.slow
@given(st.sampled_from(["ncii", "minors_sexual"]), rules(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_overlay_takes_a_milder_action_on_a_locked_rule(category: str, rule: dict[str, float], locked: bool) -> None:
    document = {
        "schema": "safegen.policy/1", "id": "over", "version": "1", "description": "", "extends": "default",
        "categories": {category: {**rule, **({} if locked else {"locked": False})}},
    }  # fmt: skip
    with TemporaryDirectory() as folder:
        path = Path(folder) / "over.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        try:
            pack = load_pack(path)
        except ConfigError:
            return
    assert locked
    assert compare_rules(_DEFAULT.rules[category], pack.rules[category]) in ("tightened", "changed")


@given(st.lists(st.sampled_from(["red", "ball", "Anna", "walks", "meadow"]), min_size=1, max_size=12), st.data())
def test_rewriting_takes_out_what_matched_and_leaves_the_rest(words: list[str], data: st.DataObject) -> None:
    prompt = " ".join(words)
    at = data.draw(st.integers(0, len(words) - 1))
    start = len(" ".join(words[:at])) + (at > 0)
    made = rewrite_prompt(prompt, [("c", (start, start + len(words[at])))], {"c": "someone"})
    kept = [w if w != words[at] else "someone" for w in words]
    if made is None:
        assert len(kept) < 2 or len(words[at]) * words.count(words[at]) > len(prompt) / 2
    else:
        assert made == (" ".join(kept), words.count(words[at]))


@given(st.text("abc 01!&#;%x\\u+/=.,-_\u0430\u200b\U0001f436", max_size=120))
def test_views_of_encodings_end_and_hold_what_was_written(text: str) -> None:
    views = views_of(text)
    assert views[0].written == text
    assert all(not re.search("[A-Z]", view.text) for view in views)
    assert sum(len(view.text) for view in views) <= 80 * len(text) + 80
