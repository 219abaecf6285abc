"""Templates: what the classifier learns from beside other people's prompts."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from safegen.errors import InputError
from safegen.policies.text.lexicon import Lexicon
from safegen.policies.text.views import views_of
from safegen.policies.training.rows import HEADS
from safegen.policies.training.templates import NAMES, Grammar, Template, read_grammar


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return read_grammar()


def test_every_template_expands_to_plain_text(grammar: Grammar) -> None:
    draw = random.Random(0)
    for template in grammar.templates:
        text = grammar.prompt(template, draw)
        assert text
        assert not set("[]{}|%@") & set(text.replace(" | ", " ")), template.topic


def test_every_head_but_the_general_one_has_templates_and_every_topic_has_twins(grammar: Grammar) -> None:
    assert {label for t in grammar.templates for label in t.labels} == set(HEADS) - {"general"}
    topics = {t.topic for t in grammar.templates}
    assert {t.topic for t in grammar.templates if not t.labels} == topics


@pytest.mark.slow
def test_no_template_brings_minors_near_anything_sexual(grammar: Grammar) -> None:
    lexicon = Lexicon.load()
    draw = random.Random(1)
    prompts = [grammar.expand(t.text, draw) for t in grammar.templates for _ in range(8)]
    found = lexicon.score([views_of(p) for p in prompts])
    assert not [hit for hits in found for hit in hits if hit.category == "minors_sexual" and hit.score >= 0.5]


def test_same_seed_gives_the_same_prompts(grammar: Grammar) -> None:
    one, two = random.Random(3), random.Random(3)
    assert [grammar.prompt(t, one) for t in grammar.templates[:50]] == [
        grammar.prompt(t, two) for t in grammar.templates[:50]
    ]


@pytest.mark.slow
def test_names_that_are_kept_back_never_reach_training(grammar: Grammar) -> None:
    draw = random.Random(0)
    for slot in NAMES:
        shown = {grammar.expand(f"{{{slot}}}", draw, held_out=False) for _ in range(1500)}
        kept = {grammar.expand(f"{{{slot}}}", draw, held_out=True) for _ in range(1500)}
        assert shown
        assert kept
        assert not shown & kept


def write(folder: Path, **files: str) -> Path:
    body = {"slots": "thing: cup | [red|blue] ball", "styles": "[plain]\n%", "topic": "+ gore: a {thing}\n- a cup"}
    for name, text in {**body, **files}.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def test_choices_nest_in_slots(tmp_path: Path) -> None:
    grammar = read_grammar(write(tmp_path))
    assert grammar.templates == (
        Template("a {thing}", frozenset({"gore"}), "topic"),
        Template("a cup", frozenset(), "topic"),
    )
    draw = random.Random(0)
    assert {grammar.prompt(grammar.templates[0], draw) for _ in range(50)} == {"a cup", "a red ball", "a blue ball"}


@pytest.mark.parametrize("line", ["a line without a sign", "+ no colon", "-"])
def test_line_that_is_no_template_is_an_input_error(tmp_path: Path, line: str) -> None:
    with pytest.raises(InputError, match="topic"):
        read_grammar(write(tmp_path, topic=line))


def test_unknown_slot_and_endless_expansion_are_input_errors(tmp_path: Path) -> None:
    grammar = read_grammar(write(tmp_path, slots="loop: {loop} {loop}"))
    for text in ("{nothing}", "{loop}"):
        with pytest.raises(InputError):
            grammar.expand(text, random.Random(0))


def test_folder_without_templates_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_grammar(tmp_path)
