"""Views of a text: each disguise comes off, and every match can be traced back to what was written."""

from __future__ import annotations

import base64
import codecs

import pytest

from safegen.policies.text.language import legible, unreadable
from safegen.policies.text.views import fold, views_of


def _texts(text: str) -> dict[str, str]:
    return {view.name: view.text for view in views_of(text)}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a quiet meadow", "a quiet meadow"),
        ("A QUIET\nMeadow", "a quiet meadow"),
        ("а quiеt mеаdоw", "a quiet meadow"),  # Cyrillic look-alikes
        ("q\u200bui\u200de\ufefft meadow", "quiet meadow"),
        ("ｑｕｉｅｔ meadow", "quiet meadow"),
        ("𝐪𝐮𝐢𝐞𝐭 meadow", "quiet meadow"),
        ("q\u0336u\u0336iet mea\u0301dow", "quiet meadow"),
        ("q_u_i_e_t meadow", "quiet meadow"),
        ("q u i e t meadow", "quiet meadow"),
        ("q.u.i.e.t meadow", "quiet meadow"),
        ("qu.iet mea-dow", "quiet meadow"),
        ("q u i e t  m e a d o w", "quiet meadow"),
        ("qu1et m34d0w", "quiet meadow"),
        ("q u 1 3 t meadow", "quiet meadow"),
        ("quiiiiet meadowwww", "quiet meadow"),
        (base64.b64encode(b"a quiet meadow").decode(), "a quiet meadow"),
        (codecs.encode("quiet meadow", "rot13"), "quiet meadow"),
        ("wodaem teiuq", "quiet meadow"),
    ],
)
def test_disguise_comes_off(written: str, read: str) -> None:
    assert read in _texts(written).values()


@pytest.mark.parametrize("text", ["a 4k video of 3d cubes, 16 fps", "the 2nd of 10 1920x1080 frames at 5pm"])
def test_units_and_ordinals_are_no_disguise(text: str) -> None:
    assert "leet" not in _texts(text)


def test_plain_english_costs_no_view_beyond_the_chance_readings() -> None:
    assert [v.name for v in views_of("a red ball on grass")] == ["clean", "rot13", "reversed"]


def test_origin_points_at_the_written_characters() -> None:
    text = "see the m\u200be\u200ba.d.o.w here"
    view = next(v for v in views_of(text) if "meadow" in v.text)
    at = view.text.index("meadow")
    start, end = view.raw_range(at, at + len("meadow"))
    assert text[start:end] == "m\u200be\u200ba.d.o.w"


def test_origin_of_ligature_is_the_one_character() -> None:
    view = fold("a\ufb03x")
    assert view.text == "affix"
    assert view.raw_range(1, 4) == (1, 2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a dog runs along the beach at sunset", ""),
        ("bond", ""),
        ("α waves and a Gauß curve in a café", ""),
        ("一只猫在草地上", "script"),
        ("a dog and кошка run on the beach", "script"),
        ("eine rote Kugel hüpft bei Sonnenuntergang über grünes Gras", "vocabulary"),
        ("xq zzkt brrl vwxq plmk", "vocabulary"),
        ("a d\u043eg runs along the beach", ""),  # one look-alike letter is a disguise, not a language
    ],
)
def test_unreadable_names_what_the_classifiers_cannot_read(text: str, reason: str) -> None:
    assert unreadable(text, views_of(text)) == reason


def test_a_disguise_is_not_judged_beside_what_it_hides() -> None:
    text = "a red ball bounces slowly across the green grass while the sun sets"
    disguised = base64.b64encode(text.encode()).decode()
    views = legible(views_of(disguised))
    assert [view.text for view in views] == [text]
    assert legible(views_of(text))
    assert legible(views_of("eine rote kugel rollt bei sonnenuntergang"))  # nothing reads as English: all are judged
