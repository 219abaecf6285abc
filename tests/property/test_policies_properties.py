"""Properties that hold for every text."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.errors import InputError
from safegen.policies.engine.engine import Engine, Request
from safegen.policies.text.views import fold, fold_character, views_of
from safegen.types import Action

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=200)
_ENGINE = Engine.load()


@given(ANY_TEXT)
def test_fold_is_idempotent(text: str) -> None:
    once = fold(text).text
    assert fold(once).text == once


@pytest.mark.slow
def test_fold_is_idempotent_for_every_character() -> None:
    for code in range(sys.maxunicode + 1):
        folded = fold_character.__wrapped__(chr(code))
        assert "".join(map(fold_character, folded)) == folded, hex(code)


@given(ANY_TEXT)
def test_views_map_into_the_text(text: str) -> None:
    for view in views_of(text):
        if view.origin is not None:
            assert len(view.origin) == len(view.text)
            assert all(0 <= i < len(text) for i in view.origin)
        for start, end in view.spelled:
            assert 0 <= start <= end <= len(view.text)


@given(ANY_TEXT)
def test_every_text_gets_a_decision_or_an_input_error(text: str) -> None:
    try:
        decision = _ENGINE.judge(Request(text))
    except InputError:
        assert not text.strip()
        return
    assert decision.action in Action
    assert all(0.0 <= score <= 1.0 for score in decision.scores.values())
    assert all(run.weights_sha256 for run in decision.classifiers)


@pytest.mark.slow
@given(st.lists(st.text(max_size=60).filter(str.strip), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_batch_decides_as_one_by_one(texts: list[str]) -> None:
    together = _ENGINE.judge_many(texts)
    for text, decision in zip(texts, together, strict=True):
        alone = _ENGINE.judge(Request(text))
        assert alone.action is decision.action
        assert [(r.category, r.action, r.view, r.span) for r in alone.reasons] == [
            (r.category, r.action, r.view, r.span) for r in decision.reasons
        ]


@given(st.sampled_from(["a", "n a ", "а", "4a", "a.", "!1", "'", "QUJD", "red dog "]), st.integers(1, 40))
def test_work_grows_linearly_with_the_text(unit: str, times: int) -> None:
    """The views of a text hold at most a fixed multiple of its characters."""
    text = unit * times
    assert sum(len(view.text) for view in views_of(text)) <= 8 * len(text) + 8
