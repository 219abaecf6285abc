"""Rules over word lists: conjunctions, distances, context, names, and the categories that only a video can have."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from safegen.errors import PolicyError
from safegen.policies.engine.engine import Engine, Request
from safegen.policies.pack.loading import load_pack
from safegen.policies.text import people
from safegen.policies.text.lexicon import DATA, Lexicon, LexiconRule
from safegen.policies.text.views import views_of
from safegen.types import Action

FILLER = "zzunused"


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load()


def tiny(lists: dict[str, Sequence[str]], **rule: object) -> Lexicon:
    made = LexiconRule(**({"id": "r", "category": "c", "every": (("a",), ("b",)), "score": 0.8, "within": 0,
                           "unless": (), "unless_score": 0.0} | rule))  # type: ignore[arg-type]  # fmt: skip
    return Lexicon({name: tuple(terms) for name, terms in lists.items()}, [made], "0" * 64, "test")


def scores(lexicon: Lexicon, text: str) -> dict[str, float]:
    (hits,) = lexicon.score([views_of(text)])
    best: dict[str, float] = {}
    for hit in hits:
        best[hit.category] = max(best.get(hit.category, 0.0), hit.score)
    return best


def test_all_lists_must_match_within_the_distance() -> None:
    rules = tiny({"a": ["alphaword"], "b": ["betaword"]}, within=3)
    assert scores(rules, "alphaword one two betaword") == {"c": 0.8}
    assert scores(rules, "alphaword one two three betaword") == {}
    assert scores(rules, "alphaword alone") == {}


def test_context_lowers_the_score() -> None:
    rules = tiny({"a": ["alphaword"], "b": ["betaword"], "m": ["museum"]}, unless=("m",), unless_score=0.3)
    assert scores(rules, "alphaword betaword in a museum") == {"c": 0.3}


def test_one_word_is_not_both_sides_of_a_rule() -> None:
    rules = tiny({"a": ["doubleword"], "b": ["doubleword"]})
    assert scores(rules, "a doubleword here") == {}
    assert scores(rules, "a doubleword and a doubleword") == {"c": 0.8}


def test_exact_terms_have_no_other_forms() -> None:
    rules = tiny({"a": ["=alphaword"], "b": ["betaberry"]})
    assert scores(rules, "alphaword betaberries") == {"c": 0.8}
    assert scores(rules, "alphawords betaberry") == {}


def test_names_stand_for_a_list() -> None:
    rules = tiny({"b": ["betaword"]}, every=(("named_people",), ("b",)), within=6)
    assert scores(rules, "maria kowalski betaword") == {"c": 0.8}
    assert scores(rules, "a rose garden betaword") == {}


@pytest.mark.parametrize(
    ("category", "cue", "harm", "extra"),
    [
        ("temporal_change", "change_cues", "gore", ""),
        ("temporal_context", "assembly_cues", "slurs", ""),
        ("temporal_sequence", "order_cues", "violence_strong", " people"),
    ],
)
def test_what_only_order_change_or_sum_makes_harmful(
    lexicon: Lexicon, category: str, cue: str, harm: str, extra: str
) -> None:
    word = next(t for t in lexicon.lists[harm] if t.isalpha() and len(t) > 4)
    found = scores(lexicon, f"a quiet scene {lexicon.lists[cue][0]} {word}{extra}")
    assert found[category] >= 0.7
    assert category not in scores(lexicon, f"a quiet scene {lexicon.lists[cue][0]} a green meadow with people")
    assert load_pack("default").rules[category].judge(found[category])[0].stops


def test_known_falsehood_as_news_is_worse_than_alone(lexicon: Lexicon) -> None:
    claim = lexicon.lists["false_claims"][9]
    alone = scores(lexicon, f"a film about {claim}")["misinformation"]
    news = scores(lexicon, f"{lexicon.lists['news_frames'][1]}: {claim}")["misinformation"]
    assert 0.5 <= alone < 0.7 < news


def test_grave_violence_beside_an_age_cue_is_locked() -> None:
    """The lists are replaced by neutral placeholders: the rule is tested, not its words."""
    real = Lexicon.load()
    lists = dict.fromkeys(real.lists, (FILLER,)) | {"age_cues": ("agecue",), "gore": ("harmcue",)}
    placeholder = Lexicon(lists, real.rules, "0" * 64, "test")
    pack = load_pack("default")
    engine = Engine(pack, text_classifiers={**_others(pack.text_classifiers), "lexicon": lambda: placeholder})
    decision = engine.judge(Request("an agecue and a harmcue in a quiet room"))
    assert decision.action is Action.BLOCK
    assert pack.rules["minors_harm"].locked
    assert {r.span for r in decision.reasons} == {""}
    assert decision.words_withheld
    assert engine.judge(Request("an agecue walks past a green hedge")).words_withheld
    assert not engine.judge(Request("a harmless walk past a green hedge")).words_withheld


def _others(names: Sequence[str]) -> dict[str, object]:
    from safegen.policies.engine.engine import TEXT_CLASSIFIERS

    return {name: TEXT_CLASSIFIERS[name] for name in names if name in TEXT_CLASSIFIERS}


def test_every_category_of_a_rule_is_in_the_default_pack(lexicon: Lexicon) -> None:
    known = set(load_pack("default").rules)
    assert {rule.category for rule in lexicon.rules} - known == {"minors_present"}


@pytest.mark.parametrize("file", ["given.names", "family.names", "ambiguous.names"])
def test_missing_names_are_a_policy_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    folder = tmp_path / "data"
    shutil.copytree(DATA, folder)
    (folder / file).unlink()
    monkeypatch.setattr(people, "_DATA", folder)
    people._names.cache_clear()
    try:
        with pytest.raises(PolicyError):
            Lexicon.load(folder)
    finally:
        monkeypatch.undo()
        people._names.cache_clear()
    Lexicon.load()


@pytest.mark.parametrize(
    "rule",
    [
        {"id": "x"},
        {"id": "x", "category": "c", "every": [["no_such_list"]], "score": 1},
        "text",
        {"id": "x", "score": "high"},
    ],
)
def test_rule_that_is_none_is_a_policy_error(tmp_path: Path, rule: object) -> None:
    folder = tmp_path / "data"
    shutil.copytree(DATA, folder)
    (folder / "rules.yaml").write_text(yaml.safe_dump({"version": "1", "rules": [rule]}), encoding="utf-8")
    with pytest.raises(PolicyError):
        Lexicon.load(folder)
