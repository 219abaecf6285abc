"""Names are found by list and by rule, and words that only look like names are left alone."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from safegen.policies.engine.engine import Engine, Request
from safegen.policies.guards.person_names import DEFAULT_MODEL, PersonRecogniser
from safegen.policies.pack.loading import ClassifierSpec
from safegen.policies.text.hits import NotAvailableError
from safegen.policies.text.lexicon import Lexicon, tokens
from safegen.policies.text.people import find_people
from safegen.policies.text.views import views_of
from safegen.types import Action


def names(text: str) -> list[str]:
    return [text[start:end] for start, end, _ in find_people(text, tokens(text))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("maria kowalski walks a dog", ["maria kowalski"]),
        ("hiroshi tanaka and john miller talk", ["hiroshi tanaka", "john miller"]),
        ("john f. miller waves", ["john f. miller"]),
        ("senator petrov waves", ["senator petrov"]),
        ("rose kowalski in a garden", ["rose kowalski"]),  # a word, but the family name is none
        ("a rose garden in may", []),
        ("the hunter will mark a tree", []),
        ("a teddy bear on a bed", []),
        ("dr brown", []),  # a colour as likely as a name
        ("maria, kowalski", []),
        ("", []),
        ("maria", []),
    ],
)
def test_names_are_pairs_of_a_given_and_a_family_name(text: str, found: list[str]) -> None:
    assert names(text) == found


@pytest.mark.slow
def test_every_known_figure_is_flagged_and_reviewed_in_europe() -> None:
    people = Lexicon.load().lists["public_figures"]
    assert len(people) > 600
    prompts = [f"{name} waves at a camera in a park" for name in people]
    assert not [p for p, d in zip(prompts, Engine.load().judge_many(prompts), strict=True) if d.action is Action.ALLOW]
    assert all(d.action.stops for d in Engine.load("eu").judge_many(prompts))


@pytest.mark.parametrize(
    "name", ["M.a.r.i.a K.o.w.a.l.s.k.i", "Mаriа Kоwаlski", "MARIA KOWALSKI", "ｍａｒｉａ ｋｏｗａｌｓｋｉ"]
)
def test_disguised_name_is_found(name: str) -> None:
    decision = Engine.load().judge(Request(f"{name} waves at a camera in a park"))
    assert "likeness" in {r.category for r in decision.reasons}


def test_named_person_in_undress_is_blocked() -> None:
    word = Lexicon.load().lists["nudity"][0]
    decision = Engine.load().judge(Request(f"maria kowalski {word} at a window"))
    assert decision.action is Action.BLOCK
    assert "ncii" in {r.category for r in decision.reasons}


@pytest.mark.parametrize(("source", "most"), [("VBench", 0.03), ("COCO", 0.03), ("PartiPrompts", 0.03)])
def test_few_ordinary_captions_name_anybody(shared_data: Path, source: str, most: float) -> None:
    lexicon = Lexicon.load()
    lines = (shared_data / "moderation" / f"{source}.jsonl").read_text(encoding="utf-8").splitlines()[:1500]
    views = [views_of(json.loads(line)["text"]) for line in lines]
    found = sum(bool({"public_figures", "named_people"} & lexicon.lists_in(v)) for v in views)
    assert found / len(views) < most


def test_model_for_names_is_asked_or_not_available() -> None:
    spec = ClassifierSpec("person_ner", "person_ner")
    if importlib.util.find_spec("spacy") is None or importlib.util.find_spec(DEFAULT_MODEL) is None:
        with pytest.raises(NotAvailableError, match=r"safegen\[ner\]"):
            PersonRecogniser.load(spec)
        return
    model = PersonRecogniser.load(spec)
    texts = ["Maria Kowalski waves at a camera", "a red ball bouncing on grass"]
    named, nobody = model.score([views_of(t) for t in texts])
    assert [(h.category, texts[0][h.span[0] : h.span[1]]) for h in named] == [("likeness", "Maria Kowalski")]
    assert nobody == []


def test_model_for_names_that_is_not_installed_is_not_available() -> None:
    with pytest.raises(NotAvailableError):
        PersonRecogniser.load(ClassifierSpec("person_ner", "person_ner", options={"model": "no_such_package"}))
