"""What a pack must fulfil beyond being YAML: the schema, sense, and the locked rules."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from safegen.policies.pack.merging import THRESHOLDS
from safegen.policies.pack.model import KEEPER, LOCKED_FLOOR, WITHHELD, spec_of
from safegen.policies.pack.source import Defect, FieldPath, Source

SCHEMA_FILE = Path(__file__).parents[1] / "schema.json"
FAMILIES = ("qwen3guard", "llamaguard", "shieldgemma", "graniteguardian")
_MODEL = {"path", "model", "revision", "sha256", "mode", "device", "dtype"}
OPTIONS: Mapping[str, set[str]] = {
    **{family: _MODEL | ({"criteria"} if family == "graniteguardian" else set()) for family in FAMILIES},
    "openai_compatible": {"url", "model", "api_key_env", "mode", "timeout_s", "retries", "budget"},
    "person_ner": {"model"},
}
"""Which options each kind of classifier has. Those that are not listed here, the embedded ones, have none."""


@cache
def schema() -> tuple[dict[str, Any], str]:
    """Return the JSON Schema of packs and the SHA-256 of its file."""
    raw = SCHEMA_FILE.read_bytes()
    return json.loads(raw), hashlib.sha256(raw).hexdigest()


@cache
def _validator() -> Any:
    return Draft202012Validator(schema()[0])


def schema_defects(source: Source) -> list[Defect]:
    """Return everything in which one file does not follow the schema."""
    found = list(source.defects)
    found += [source.defect(where, "must be a finite number") for where in _not_finite(source.document, ())]
    for error in _validator().iter_errors(source.document):
        where = tuple(error.absolute_path)
        if error.validator == "oneOf":  # say what is wrong inside the form that was meant
            inner = [e for e in error.context if e.validator != "type"] or list(error.context)
            found += [source.defect((*where, *e.relative_path), e.message) for e in inner]
        elif error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
            known = error.schema.get("properties", {})
            found += [source.defect((*where, k), "no such field") for k in error.instance if k not in known]
        else:
            found.append(source.defect(where, error.message[:300]))
    return sorted(set(found), key=lambda d: (d.line, d.where, d.message))


def _not_finite(value: object, where: FieldPath) -> Iterator[FieldPath]:
    """Find NaN and infinity: they would pass every comparison."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _not_finite(inner, (*where, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _not_finite(inner, (*where, i))
    elif isinstance(value, float) and not math.isfinite(value):
        yield where


def sense_defects(source: Source, document: Mapping[str, Any]) -> list[Defect]:
    """Return what contradicts itself in the effective ``document``; ``source`` gives the lines."""
    found = [source.defect(w, m) for w, m in _rules(document)]
    found += [source.defect(w, m) for w, m in _floor(document)]
    found += [source.defect(w, m) for w, m in _classifiers(source, document)]
    known = document["frames"]["categories"]
    for label, category in document["frames"]["classes"].items():
        if category not in known:
            found.append(source.defect(("frames", "classes", label), f"{category!r} is not in frames.categories"))
    for category in document.get("rewrite", {}).get("replacements", {}):
        if "rewrite" not in document["categories"].get(category, {}):
            where = ("rewrite", "replacements", category)
            found.append(source.defect(where, "the category has no rewrite threshold"))
    return found


def _rules(document: Mapping[str, Any]) -> Iterator[tuple[FieldPath, str]]:
    groups: tuple[tuple[FieldPath, Mapping[str, Any]], ...] = (
        (("categories",), document["categories"]),
        (("frames", "categories"), document["frames"]["categories"]),
    )
    for where, group in groups:
        for category, rule in group.items():
            levels = [rule[k] for k in THRESHOLDS if k in rule]
            if not levels:
                yield (*where, category), "needs one of flag, rewrite, review, block"
            if levels != sorted(levels):
                yield (*where, category), "thresholds must rise from flag over rewrite and review to block"
            if rule.get("locked") and "rewrite" in rule:
                yield (*where, category, "rewrite"), "a locked rule is never rewritten"


def _floor(document: Mapping[str, Any]) -> Iterator[tuple[FieldPath, str]]:
    for category, highest in LOCKED_FLOOR.items():
        rule = document["categories"].get(category, {})
        if not rule.get("locked"):
            yield ("categories", category, "locked"), "must stay locked: true"
        if category in WITHHELD and not rule.get("withhold_span"):
            yield ("categories", category, "withhold_span"), "must stay withhold_span: true"
        if rule.get("block", 2.0) > highest:
            yield ("categories", category, "block"), f"locked, may not be above {highest}"


def _place(source: Source, part: str, name: str, number: int = 1) -> FieldPath:
    """Return where a file itself speaks of the classifier ``name`` for the ``number``-th time."""
    own = source.document.get(part, {}).get("classifiers", [])
    places = [i for i, entry in enumerate(own) if spec_of(entry, 1.0).name == name]
    return (part, "classifiers", places[min(number, len(places)) - 1]) if places else (part, "classifiers")


def _classifiers(source: Source, document: Mapping[str, Any]) -> Iterator[tuple[FieldPath, str]]:
    for part in ("text", "frames"):
        entries = document[part]["classifiers"]
        specs = [spec_of(entry, 1.0) for entry in entries]
        own = [spec_of(entry, 1.0).name for entry in source.document.get(part, {}).get("classifiers", [])]
        for name in sorted({n for n in own if own.count(n) > 1}):
            yield _place(source, part, name, 2), f"a second classifier called {name!r}: give it a `name`"
        for spec in specs:
            at = _place(source, part, spec.name)
            for option in spec.options:
                if option not in OPTIONS.get(spec.use, set()):
                    yield (*at, option), f"{spec.use} has no such option"
            yield from _needs(spec.use, spec.options, at)
        if part == "text" and not any(s.use == KEEPER and s.name == KEEPER and s.required for s in specs):
            yield ("text", "classifiers"), f"must hold {KEEPER}, required: it finds what the locked rules are about"


def _needs(use: str, options: Mapping[str, object], at: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    if use in FAMILIES and ("path" in options) == ("model" in options):
        yield at, f"{use} needs either `path`, a folder, or `model`, a hub id"
    if use == "openai_compatible" and "url" not in options:
        yield at, "openai_compatible needs `url`"


def loosening_defects(source: Source, base: Mapping[str, Any], document: Mapping[str, Any]) -> list[Defect]:
    """Return where ``document`` loosens what ``base`` locks."""
    found = []
    name = base["id"]
    for category, rule in base["categories"].items():
        if not rule.get("locked"):
            continue
        new = document["categories"].get(category, {})
        where: FieldPath = ("categories", category)
        for mark in ("locked", "withhold_span"):
            if rule.get(mark) and not new.get(mark):
                found.append(source.defect((*where, mark), f"{name} locks this rule; it may only be tightened"))
        for at, action in enumerate(THRESHOLDS):
            # A milder action may disappear only where a more severe one takes over at the same score.
            severer = [new[a] for a in THRESHOLDS[at:] if a in new]
            if action in rule and (not severer or min(severer) > rule[action]):
                message = f"{name} locks this rule at {rule[action]}; it may only be tightened"
                found.append(source.defect((*where, action), message))
    return found


def warnings(source: Source, document: Mapping[str, Any], known: Mapping[str, frozenset[str]]) -> list[Defect]:
    """Return what is allowed and probably not meant. ``known``: the classifiers of this build, for text and frames."""
    found = []
    for part in ("text", "frames"):
        for entry in document[part]["classifiers"]:
            spec = spec_of(entry, 1.0)
            if spec.use not in known[part]:
                message = f"this build has no classifier {spec.use!r}: " + (
                    "everything is blocked" if spec.required else "it never runs"
                )
                found.append(source.defect(_place(source, part, spec.name), message, "warning"))
    for key in ("on_error", "on_missing_classifier"):
        if document["defaults"][key] != "block":
            found.append(source.defect(("defaults", key), "a guard that cannot run only asks for review", "warning"))
    if document.get("record_text") == "clear":
        found.append(source.defect(("record_text",), "records hold prompts in clear", "warning"))
    return found
