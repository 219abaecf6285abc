"""Policy packs: which categories exist, which score takes which action, and what happens when a guard cannot run.

A pack is a YAML file, checked against ``schema.json``. One pack may extend a shipped one; a rule that is locked may
then only be tightened. The digest of the effective pack (canonical JSON, SHA-256) goes into every decision.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from safegen.errors import ConfigError
from safegen.types import Action, Json

_HERE = Path(__file__).parent
_PACKS = _HERE / "packs"
_MAX_PACK_BYTES = 1 << 20
_LEVELS = (Action.BLOCK, Action.REVIEW, Action.FLAG)
LOCKED_FLOOR: Mapping[str, float] = {"minors_sexual": 0.5}
"""Rules that every pack must hold, locked, with a block threshold no higher than this. No pack can turn them off."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One category's thresholds; None: the action is never taken."""

    flag: float | None = None
    review: float | None = None
    block: float | None = None
    locked: bool = False
    withhold_span: bool = False

    def threshold(self, action: Action) -> float | None:
        """Return the score from which ``action`` is taken."""
        return {Action.FLAG: self.flag, Action.REVIEW: self.review, Action.BLOCK: self.block}.get(action)

    def judge(self, score: float) -> tuple[Action, float]:
        """Return the action for a score and the threshold that it reached (the lowest one, where it reached none)."""
        for action in _LEVELS:
            level = self.threshold(action)
            if level is not None and score >= level:
                return action, level
        return Action.ALLOW, self.lowest

    @property
    def lowest(self) -> float:
        """The lowest threshold: nothing happens below it."""
        return min(t for t in (self.flag, self.review, self.block) if t is not None)


@dataclass(frozen=True, slots=True)
class FramePolicy:
    """How frames are judged: the rate they are looked at, how many must hit, and which class means which category."""

    classifiers: tuple[str, ...]
    sample_fps: float
    min_hits: int
    classes: Mapping[str, str]
    rules: Mapping[str, Rule]


@dataclass(frozen=True, slots=True)
class Pack:
    """A validated policy pack. ``document`` is the effective pack as plain JSON values; ``sha256`` is its digest."""

    id: str
    version: str
    description: str
    sha256: str
    on_error: Action
    on_missing_classifier: Action
    on_unsupported_language: Action
    text_classifiers: tuple[str, ...]
    rules: Mapping[str, Rule]
    frames: FramePolicy
    document: Mapping[str, Json]
    labels: tuple[str, ...] = ()  # laws whose labels every clip gets (docs/labels.md)
    content_producer: str = ""  # the maker's code in AIGC records, empty: the home's ledger name


def list_packs() -> tuple[str, ...]:
    """Return the names of the packs that ship with safegen."""
    return tuple(sorted(path.stem for path in _PACKS.glob("*.yaml")))


def load_pack(pack: str | Path) -> Pack:
    """Load a shipped pack by name, or a pack from a YAML file.

    Raises ConfigError, naming the field at fault, when the pack does not exist, does not follow the schema, or loosens
    a locked rule.
    """
    path = _locate(pack)
    document = _read(path)
    if "extends" in document:
        base = document["extends"]
        if base not in list_packs() or path == _PACKS / f"{base}.yaml":
            raise ConfigError(
                f"{path.name}: extends: no such pack: {base!r}", remedy=f"Packs: {', '.join(list_packs())}."
            )
        parent = load_pack(base)
        document = _overlay(parent.document, document)
        _validate(document, path.name)
        _check_not_loosened(parent, document, path.name)
    else:
        _validate(document, path.name)
    return _build(document, path.name)


def _locate(pack: str | Path) -> Path:
    if isinstance(pack, str) and pack in list_packs():
        return _PACKS / f"{pack}.yaml"
    path = Path(pack)
    if not path.is_file():
        raise ConfigError(
            f"no policy pack {str(pack)!r}",
            remedy=f"Name one of {', '.join(list_packs())}, or the path of a YAML file.",
        )
    return path


class _Loader(yaml.SafeLoader):
    """Refuses a key that occurs twice: the second would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
        if len(raw) > _MAX_PACK_BYTES:
            raise ConfigError(f"{path.name}: larger than {_MAX_PACK_BYTES} bytes")
        document = yaml.load(raw, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{path.name}: cannot be read as YAML: {exc}", remedy="See policies/schema.json.") from exc
    if not isinstance(document, dict) or not all(isinstance(k, str) for k in document):
        raise ConfigError(f"{path.name}: a policy pack is a mapping of fields", remedy="See policies/schema.json.")
    return document


@lru_cache(maxsize=1)
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads((_HERE / "schema.json").read_text(encoding="utf-8")))


def _check_finite(value: object, name: str, where: str = "") -> None:
    """Refuse NaN and infinity: they would pass every comparison below."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_finite(inner, name, f"{where}.{key}" if where else str(key))
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name}: {where}: must be a finite number")


def _validate(document: Mapping[str, Any], name: str) -> None:
    _check_finite(document, name)
    errors = sorted(_validator().iter_errors(document), key=lambda e: [str(p) for p in e.absolute_path])
    if errors:
        first = errors[0]
        where = ".".join(str(part) for part in first.absolute_path) or "(top)"
        raise ConfigError(f"{name}: {where}: {first.message}", remedy="See policies/schema.json.")
    for group, where in (
        (document["categories"], "categories"),
        (document["frames"]["categories"], "frames.categories"),
    ):
        for category, rule in group.items():
            levels = [rule[k] for k in ("flag", "review", "block") if k in rule]
            if not levels:
                raise ConfigError(f"{name}: {where}.{category}: needs one of flag, review, block")
            if levels != sorted(levels):
                raise ConfigError(f"{name}: {where}.{category}: thresholds must rise from flag over review to block")
    known = document["frames"]["categories"]
    for label, category in document["frames"]["classes"].items():
        if category not in known:
            raise ConfigError(f"{name}: frames.classes.{label}: {category!r} is not in frames.categories")
    for category, highest in LOCKED_FLOOR.items():
        rule = document["categories"].get(category, {})
        if not rule.get("locked") or not rule.get("withhold_span"):
            raise ConfigError(f"{name}: categories.{category}: must keep locked: true and withhold_span: true")
        if rule.get("block", 2.0) > highest:
            raise ConfigError(f"{name}: categories.{category}.block: locked, may not be above {highest}")


def _overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``over`` laid on ``base``: mappings merge, except that a rule's thresholds are replaced as one."""
    merged = dict(base)
    merged.pop("extends", None)
    for key, value in over.items():
        if key == "extends":
            continue
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            if set(value) & {"flag", "review", "block"}:
                kept = {k: v for k, v in old.items() if k in ("locked", "withhold_span")}
                merged[key] = {**kept, **value}
            else:
                merged[key] = _overlay(old, value)
        else:
            merged[key] = value
    return merged


def _check_not_loosened(parent: Pack, document: Mapping[str, Any], name: str) -> None:
    for category, rule in parent.rules.items():
        if not rule.locked:
            continue
        new = document["categories"].get(category, {})
        where = f"{name}: categories.{category}"
        if not new.get("locked"):
            raise ConfigError(f"{where}.locked: {parent.id} locks this rule; it may only be tightened")
        if rule.withhold_span and not new.get("withhold_span"):
            raise ConfigError(f"{where}.withhold_span: {parent.id} locks this rule; it may only be tightened")
        for action in _LEVELS:
            level = rule.threshold(action)
            # A milder action may disappear only where a more severe one takes over at the same score.
            severer = [new[a] for a in ("flag", "review", "block")[action.severity - 1 :] if a in new]
            if level is not None and (not severer or min(severer) > level):
                raise ConfigError(f"{where}.{action}: {parent.id} locks this rule at {level}; it may only be tightened")


def _rule(entry: Mapping[str, Any]) -> Rule:
    return Rule(**entry)


def _build(document: Mapping[str, Any], name: str) -> Pack:
    try:
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"{name}: holds a value that is not plain JSON: {exc}") from exc
    frames = document["frames"]
    return Pack(
        id=document["id"],
        version=document["version"],
        description=document["description"],
        sha256=hashlib.sha256(canonical.encode()).hexdigest(),
        on_error=Action(document["defaults"]["on_error"]),
        on_missing_classifier=Action(document["defaults"]["on_missing_classifier"]),
        on_unsupported_language=Action(document["defaults"]["on_unsupported_language"]),
        text_classifiers=tuple(document["text"]["classifiers"]),
        rules={category: _rule(entry) for category, entry in document["categories"].items()},
        frames=FramePolicy(
            classifiers=tuple(frames["classifiers"]),
            sample_fps=float(frames["sample_fps"]),
            min_hits=int(frames["min_hits"]),
            classes=dict(frames["classes"]),
            rules={category: _rule(entry) for category, entry in frames["categories"].items()},
        ),
        document=json.loads(canonical),
        labels=tuple(document.get("labels", ())),
        content_producer=str(document.get("content_producer", "")),
    )
