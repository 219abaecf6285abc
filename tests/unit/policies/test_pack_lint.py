"""Lint names every defect with its line; what extends what; what changes between packs; examples as a suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from safegen.errors import ConfigError, InputError
from safegen.policies.engine.engine import Engine, known_classifiers
from safegen.policies.pack.checks import SCHEMA_FILE
from safegen.policies.pack.diff import compare_rules, diff_packs
from safegen.policies.pack.examples import examples_file, read_examples, run_examples
from safegen.policies.pack.loading import Rule, lint_pack, list_packs, load_pack
from safegen.policies.pack.merging import strictest
from safegen.types import Action

HEAD = "schema: safegen.policy/1\nid: mine\nversion: '1'\ndescription: Mine.\n"  # four lines


def write(folder: Path, body: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(HEAD + body, encoding="utf-8")
    return path


def lint(path: Path) -> list[tuple[int, str, str]]:
    return [(d.line, d.where, d.level) for d in lint_pack(path, known_classifiers())]


@pytest.mark.parametrize("name", list_packs())
def test_shipped_pack_has_no_defect(name: str) -> None:
    assert lint_pack(name, known_classifiers()) == []


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("extends: default\n", []),
        ("extends: nothing\n", [(5, "extends")]),
        ("extends: [eu, nothing]\n", [(5, "extends.1")]),
        ("extends: default\ncolour: red\n", [(6, "colour")]),
        ("extends: default\ncategories:\n  sexual: {block: 1.5}\n  gore: {blok: 0.5}\n",
         [(7, "categories.sexual.block"), (8, "categories.gore.blok")]),
        ("extends: default\ncategories:\n  sexual: {flag: 0.9, block: 0.5}\n", [(7, "categories.sexual")]),
        ("extends: default\ncategories:\n  sexual: {block: .nan}\n", [(7, "categories.sexual.block")]),
        ("extends: default\ncategories:\n  sexual: {block: 0.5}\n  sexual: {block: 0.6}\n", [(8, "categories.sexual")]),
        ("extends: default\ncategories:\n  7: {block: 0.5}\n", [(7, "categories")]),
        ("extends: default\ncategories:\n  ncii:\n    rewrite: 0.4\n    block: 0.5\n",
         [(8, "categories.ncii.rewrite")]),
        ("extends: default\ncategories:\n  minors_sexual: {block: 0.9}\n",
         [(7, "categories.minors_sexual.block")] * 2),
        ("extends: default\ncategories:\n  ncii: {locked: false}\n", [(7, "categories.ncii.locked")] * 2),
        ("extends: default\ndefaults: {on_error: allow}\n", [(6, "defaults.on_error")]),
        ("extends: default\ndefaults: {time_limit_s: 0}\n", [(6, "defaults.time_limit_s")]),
        ("extends: default\nrecord_text: always\n", [(6, "record_text")]),
        ("extends: default\nrewrite: {replacements: {sexual: x}}\n", [(6, "rewrite.replacements.sexual")]),
        ("extends: default\nframes:\n  classes: {FACE_MALE: nobody}\n", [(7, "frames.classes.FACE_MALE")]),
        ("extends: default\ntext:\n  classifiers: [{use: lexicon, required: false}]\n", [(7, "text.classifiers")]),
        ("extends: default\ntext:\n  classifiers: [{use: qwen3guard}]\n", [(7, "text.classifiers.0")]),
        ("extends: default\ntext:\n  classifiers:\n    - {use: qwen3guard, path: /x, model: y}\n",
         [(8, "text.classifiers.0")]),
        ("extends: default\ntext:\n  classifiers:\n    - {use: openai_compatible, path: /x}\n",
         [(8, "text.classifiers.0"), (8, "text.classifiers.0.path")]),
        ("extends: default\ntext:\n  classifiers:\n    - {use: shieldgemma, path: /x, colour: red}\n",
         [(8, "text.classifiers.0")]),
        ("defaults: {}\n", [(1, "(top)")] * 3 + [(5, "defaults")] * 3),
    ],
)  # fmt: skip
def test_every_defect_is_named_with_its_line(tmp_path: Path, body: str, found: list[tuple[int, str]]) -> None:
    path = write(tmp_path, body)
    got = [(line, where) for line, where, level in lint(path) if level == "error"]
    assert got == found
    if found:
        with pytest.raises(ConfigError, match=rf"line {got[0][0]}: "):
            load_pack(path)
    else:
        load_pack(path)


@pytest.mark.parametrize(
    ("body", "line", "where"),
    [
        ("extends: default\ndefaults: {on_error: review}\n", 6, "defaults.on_error"),
        ("extends: default\nrecord_text: clear\n", 6, "record_text"),
        ("extends: default\ntext:\n  classifiers:\n    - {use: crystal_ball}\n", 8, "text.classifiers.0"),
    ],
)
def test_warnings_do_not_keep_a_pack_from_loading(tmp_path: Path, body: str, line: int, where: str) -> None:
    path = write(tmp_path, body)
    assert lint(path) == [(line, where, "warning")]
    load_pack(path)


def test_pack_may_extend_files_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "extends: eu\ncategories:\n  gore: {block: 0.5}\n", "company.yaml")
    team = load_pack(write(tmp_path, "extends: company.yaml\ncategories:\n  sexual: {block: 0.6}\n", "team.yaml"))
    assert (team.rules["gore"], team.rules["sexual"]) == (Rule(block=0.5), Rule(block=0.6))
    assert team.rules["likeness"] == load_pack("eu").rules["likeness"]


def test_defect_below_is_named_with_its_file(tmp_path: Path) -> None:
    write(tmp_path, "extends: default\ncategories:\n  gore: {block: 7}\n", "company.yaml")
    (defect,) = lint_pack(write(tmp_path, "extends: company.yaml\n", "team.yaml"), known_classifiers())
    assert (defect.where, "company.yaml, line 7" in defect.message) == ("extends", True)


def test_circle_of_packs_is_refused(tmp_path: Path) -> None:
    a = write(tmp_path, "extends: b.yaml\n", "a.yaml")
    write(tmp_path, "extends: a.yaml\n", "b.yaml")
    with pytest.raises(ConfigError, match="in turn"):
        load_pack(a)
    with pytest.raises(ConfigError, match="in turn"):
        load_pack(write(tmp_path, "extends: [self.yaml]\n", "self.yaml"))


def test_of_several_packs_the_strictest_rule_holds(tmp_path: Path) -> None:
    both = load_pack(write(tmp_path, "extends: [eu, us, cn, in, kr, gb]\n"))
    for name in ("eu", "us", "cn", "in", "kr", "gb"):
        loosened = [c for c in diff_packs(load_pack(name), both) if c.effect in ("loosened", "mixed")]
        assert loosened == [], name
    assert both.labels == ("cn", "in")
    assert both.document["jurisdictions"] == ["EU", "US", "CN", "IN", "KR", "GB"]
    assert both.sha256 != load_pack(write(tmp_path, "extends: [eu, us]\n", "two.yaml")).sha256


def test_customer_overlay_on_several_cannot_loosen_what_is_locked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="may only be tightened"):
        load_pack(write(tmp_path, "extends: [eu, us]\ncategories:\n  ncii: {review: 0.5, block: 0.8}\n"))


def test_packs_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "extends: default\ncontent_producer: ONE\n", "one.yaml")
    write(tmp_path, "extends: default\ncontent_producer: TWO\n", "two.yaml")
    with pytest.raises(ConfigError, match=r"extends: contradictory: content_producer"):
        load_pack(write(tmp_path, "extends: [one.yaml, two.yaml]\n"))
    for name, path in (("one", "/a"), ("two", "/b")):
        body = f"extends: default\ntext:\n  classifiers: [{{use: llamaguard, path: {path}}}]\n"
        write(tmp_path, body, f"{name}.yaml")
    with pytest.raises(ConfigError, match=r"contradictory: text\.classifiers"):
        load_pack(write(tmp_path, "extends: [one.yaml, two.yaml]\n"))


def test_overlay_adds_classifiers_and_cannot_drop_the_word_rules(tmp_path: Path) -> None:
    pack = load_pack(write(tmp_path, "extends: default\ntext:\n  classifiers: [{use: llamaguard, path: /x}]\n"))
    assert pack.text_classifiers == (*load_pack("default").text_classifiers, "llamaguard")
    whole = dict(load_pack("default").document)
    whole["text"] = {"classifiers": ["encoder"]}
    path = tmp_path / "without.yaml"
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"text\.classifiers: must hold lexicon"):
        load_pack(path)


@pytest.mark.slow
def test_packs_of_aliases_and_depth_are_refused(tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
        f"{n}: &{n} [*{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}]\n"
        for p, n in zip("abcdefg", "bcdefgh", strict=True)
    )
    for body in (
        bomb,
        "loop: &loop [*loop]\n",
        "deep: " + "[" * 5000 + "]" * 5000 + "\n",
        "date: 2026-11-01\n<<: {a: 1}\n",
    ):
        with pytest.raises(ConfigError):
            load_pack(write(tmp_path, body))


def test_schema_is_published_and_its_digest_is_in_decisions() -> None:
    import hashlib

    from jsonschema import Draft202012Validator

    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    pack = load_pack("default")
    Draft202012Validator(schema).validate(pack.document)
    decision = Engine.load().judge_many(["a tree"])[0]
    assert decision.schema_sha256 == hashlib.sha256(SCHEMA_FILE.read_bytes()).hexdigest() == pack.schema_sha256
    assert decision.policy_version == pack.version


# -- differences


@pytest.mark.parametrize(
    ("old", "new", "effect"),
    [
        (Rule(block=0.8), Rule(block=0.7), "tightened"),
        (Rule(block=0.8), Rule(block=0.9), "loosened"),
        (Rule(flag=0.4, block=0.8), Rule(review=0.5, block=0.8), "mixed"),
        (Rule(flag=0.4), Rule(rewrite=0.4), "tightened"),
        (Rule(review=0.4), Rule(rewrite=0.4), "loosened"),
        (None, Rule(block=0.5), "tightened"),
        (Rule(block=0.5), None, "loosened"),
        (Rule(block=0.5), Rule(block=0.5, locked=True), "tightened"),
        (Rule(block=0.5), Rule(review=0.5, block=0.5), "changed"),
    ],
)
def test_rule_change_is_judged_over_all_scores(old: Rule | None, new: Rule | None, effect: str) -> None:
    assert compare_rules(old, new) == effect


def test_no_difference_to_oneself_and_opposite_backwards() -> None:
    a, b = load_pack("default"), load_pack("strict")
    assert diff_packs(a, a) == []
    assert {c.effect for c in diff_packs(a, b)} == {"tightened"}
    assert {c.effect for c in diff_packs(b, a)} == {"loosened"}


def test_classifier_that_becomes_optional_is_loosened(tmp_path: Path) -> None:
    before = load_pack(
        write(tmp_path, "extends: default\ntext: {classifiers: [{use: llamaguard, path: /x}]}\n", "a.yaml")
    )
    after = load_pack(
        write(
            tmp_path,
            "extends: default\ntext: {classifiers: [{use: llamaguard, path: /x, required: false}]}\n",
            "b.yaml",
        )
    )
    (change,) = diff_packs(before, after)
    assert (change.where, change.effect) == ("text.classifiers.llamaguard", "loosened")
    assert [c.effect for c in diff_packs(load_pack("default"), before)] == ["tightened"]


def test_strictest_of_one_is_itself() -> None:
    document: dict[str, Any] = dict(load_pack("strict").document)
    assert strictest([document]) == document
    assert strictest([document, document]) == document


# -- examples


@pytest.mark.parametrize("name", list_packs())
def test_shipped_examples_come_out_as_expected(name: str) -> None:
    outcomes = run_examples(Engine.load(name), read_examples(examples_file(name)))
    assert [o.to_json() for o in outcomes if o.failures] == []
    assert {Action.ALLOW, Action.BLOCK} <= {o.action for o in outcomes}


@pytest.mark.slow
def test_example_that_comes_out_otherwise_says_how(tmp_path: Path) -> None:
    path = tmp_path / "mine.examples.yaml"
    path.write_text(
        "schema: safegen.policy-examples/1\nexamples:\n  - {prompt: a tree, expect: block, categories: [gore]}\n"
    )
    (outcome,) = run_examples(Engine.load(), read_examples(path))
    assert outcome.example.line == 3
    assert outcome.failures == ("allow instead of block", "gore is not among the reasons")


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "schema: other/1\nexamples: [{prompt: a, expect: allow}]",
        "schema: safegen.policy-examples/1\nexamples: []",
        "schema: safegen.policy-examples/1\nexamples: [{prompt: a}]",
        "schema: safegen.policy-examples/1\nexamples: [{prompt: a, expect: maybe}]",
        "schema: safegen.policy-examples/1\nexamples: [{prompt: 7, expect: allow}]",
        "schema: safegen.policy-examples/1\nexamples: [{prompt: a, expect: allow, colour: red}]",
        "schema: safegen.policy-examples/1\nexamples: [{prompt: a, expect: allow}]\nexamples: []",
    ],
)
def test_file_that_is_no_examples_is_refused(tmp_path: Path, body: str) -> None:
    path = tmp_path / "mine.examples.yaml"
    path.write_text(body)
    with pytest.raises((InputError, ConfigError)):
        read_examples(path)


@pytest.mark.parametrize("prompt", ["{gore:9999}", "{no_such_list:0}"])
def test_placeholder_without_a_term_is_refused(tmp_path: Path, prompt: str) -> None:
    path = tmp_path / "mine.examples.yaml"
    path.write_text(f"schema: safegen.policy-examples/1\nexamples:\n  - {{prompt: '{prompt}', expect: allow}}\n")
    with pytest.raises(InputError, match="line 3"):
        run_examples(Engine.load(), read_examples(path))


def test_pack_without_examples_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        examples_file(write(tmp_path, "extends: default\n"))
    assert "mine.examples.yaml" in caught.value.remedy
