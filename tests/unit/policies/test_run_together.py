"""Words without blanks, in humps, in invisible tag characters or in regional indicators are read, or go to a person."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.policies.engine.engine import Engine
from safegen.policies.text.language import unreadable
from safegen.policies.text.lexicon import Lexicon
from safegen.policies.text.run_together import cuts, humps
from safegen.policies.text.views import views_of
from safegen.types import Action


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load("default")


@pytest.fixture(scope="module")
def forbidden() -> str:
    """Words that the default pack stops, joined here from lists of the product."""
    lists = Lexicon.load().lists
    return f"{lists['making'][0]} a {lists['weapon_products'][2]} at home"


def texts(raw: str) -> list[str]:
    return [view.text for view in views_of(raw) if view.reliable]


DISGUISES = {
    "humps": lambda text: "".join(word.capitalize() for word in text.split()),
    "no_blanks": lambda text: text.replace(" ", ""),
    "tag_characters": lambda text: "a lake" + "".join(chr(0xE0000 + ord(c)) for c in f" {text}"),
    "regional_indicators": lambda text: " ".join(
        "".join(chr(0x1F1E6 + ord(c) - ord("a")) if c.isalpha() else c for c in word) for word in text.lower().split()
    ),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_disguised_request_is_stopped_as_the_plain_one_is(disguise: str, engine: Engine, forbidden: str) -> None:
    assert engine.judge_many([forbidden])[0].action.stops
    assert engine.judge_many([DISGUISES[disguise](forbidden)])[0].action.stops


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("ARedBallBouncingOnGrass", "a red ball bouncing on grass"),
        ("aredballbouncingongrass", "ball bouncing on grass"),
        ("goldenhourphotography", "golden hour photography"),
        ("\U0001f1f7\U0001f1ea\U0001f1e9 ball", "red ball"),
        ("a lake\U000e0020\U000e0072\U000e0065\U000e0064", "a lake red"),
    ],
)
def test_what_is_read(written: str, read: str) -> None:
    assert any(read in text for text in texts(written))


def test_what_cannot_be_cut_into_words_goes_to_a_person(engine: Engine) -> None:
    hidden = "zzxxyyqqkkwwjjvvbbnnmm in a field"
    assert unreadable(hidden, views_of(hidden)) == "run together"
    assert engine.judge_many([hidden])[0].action is Action.REVIEW


@pytest.mark.parametrize(
    "text", ["a MacBook on a desk", "#goldenhourphotography of a lake", "hyperrealistic wheat field"]
)
def test_honest_compounds_pass(text: str, engine: Engine) -> None:
    assert not engine.judge_many([text])[0].action.stops


def test_a_flag_is_no_hidden_text(engine: Engine) -> None:
    assert not engine.judge_many(["a flag \U0001f1eb\U0001f1f7 over a town hall on a windy day"])[0].action.stops


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz", max_size=60))
def test_cuts_lie_within_the_word_in_order(word: str) -> None:
    found = cuts(word)
    assert list(found) == sorted(set(found))
    assert all(0 < at < len(word) for at in found)


@given(st.text(max_size=80))
def test_any_text_has_views_and_offsets_that_fit(text: str) -> None:
    assert all(0 <= at <= len(text) for at in humps(text))
    for view in views_of(text):
        assert view.origin is None or len(view.origin) == len(view.text)
