"""What changes from one policy pack to another, and whether that is stricter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from safegen.policies.pack.merging import THRESHOLDS
from safegen.policies.pack.model import LEVELS, Pack, Rule, spec_of
from safegen.types import Action, Json

_ORDER = ("allow", "flag", "review", "block")


@dataclass(frozen=True, slots=True)
class Change:
    """One field's change. ``effect``: tightened, loosened, mixed (either, by score), or changed (neither)."""

    where: str
    before: Json
    after: Json
    effect: str

    def to_json(self) -> dict[str, Json]:
        """Return the change as plain JSON values."""
        return {"field": self.where, "before": self.before, "after": self.after, "effect": self.effect}


def diff_packs(a: Pack, b: Pack) -> list[Change]:
    """Return what changes from ``a`` to ``b``, field by field."""
    changes = [*_rules("categories", a.rules, b.rules), *_rules("frames.categories", a.frames.rules, b.frames.rules)]
    for part in ("text", "frames"):
        changes += _classifiers(part, a.document, b.document)
    old, new = _settings(a), _settings(b)
    for where in old:
        if old[where] != new[where]:
            changes.append(Change(where, old[where], new[where], _effect(where, old[where], new[where])))
    return changes


def _rules(group: str, a: Mapping[str, Rule], b: Mapping[str, Rule]) -> Iterator[Change]:
    for category in (*a, *(c for c in b if c not in a)):
        old, new = a.get(category), b.get(category)
        if old == new:
            continue
        yield Change(f"{group}.{category}", _shown(old), _shown(new), compare_rules(old, new))


def compare_rules(old: Rule | None, new: Rule | None) -> str:
    """Return whether ``new`` is tightened, loosened, mixed or merely changed against ``old``, over all scores."""
    levels = {0.0, 1.0}
    for rule in (old, new):
        levels |= {t for t in (rule.threshold(a) for a in LEVELS) if t is not None} if rule else set()
    steps = {_severity(new, level) - _severity(old, level) for level in levels}
    tighter = any(s > 0 for s in steps)
    looser = any(s < 0 for s in steps)
    if tighter and looser:
        return "mixed"
    if tighter or looser:
        return "tightened" if tighter else "loosened"
    before, after = ((bool(r and r.locked), bool(r and r.withhold_span)) for r in (old, new))
    return "tightened" if after > before else "loosened" if after < before else "changed"


def _severity(rule: Rule | None, score: float) -> int:
    return (Action.ALLOW if rule is None else rule.judge(score)[0]).severity


def _shown(rule: Rule | None) -> Json:
    if rule is None:
        return None
    values: dict[str, Json] = {k: getattr(rule, k) for k in THRESHOLDS if getattr(rule, k) is not None}
    return values | {k: True for k in ("locked", "withhold_span") if getattr(rule, k)}


def _classifiers(part: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Change]:
    old, new = ({(s := spec_of(e, 1.0)).name: (s, e) for e in d[part]["classifiers"]} for d in (a, b))
    for name in (*old, *(n for n in new if n not in old)):
        before, after = old.get(name), new.get(name)
        if before is not None and after is not None and before[1] == after[1]:
            continue
        if before is None or after is None:
            effect = "tightened" if before is None else "loosened"
        elif before[0].required != after[0].required:
            effect = "tightened" if after[0].required else "loosened"
        else:
            effect = "changed"
        yield Change(f"{part}.classifiers.{name}", before and before[1], after and after[1], effect)


def _settings(pack: Pack) -> dict[str, Json]:
    return {
        "defaults.on_error": str(pack.on_error),
        "defaults.on_missing_classifier": str(pack.on_missing_classifier),
        "defaults.on_unsupported_language": str(pack.on_unsupported_language),
        "defaults.time_limit_s": pack.document["defaults"].get("time_limit_s"),  # type: ignore[union-attr]
        "record_text": "clear" if pack.record_clear else "commitment",
        "rewrite.rounds": pack.rewrite_rounds,
        "rewrite.replacements": dict(pack.replacements),
        "frames.sample_fps": pack.frames.sample_fps,
        "frames.min_hits": pack.frames.min_hits,
        "frames.classes": dict(pack.frames.classes),
        "labels": list(pack.labels),
        "content_producer": pack.content_producer,
    }


def _effect(where: str, old: Any, new: Any) -> str:
    if where.startswith("defaults.on_"):
        return "tightened" if _ORDER.index(new) > _ORDER.index(old) else "loosened"
    if where == "frames.sample_fps":
        return "tightened" if new > old else "loosened"
    if where == "frames.min_hits":
        return "tightened" if new < old else "loosened"
    if where == "labels" and set(new) != set(old):
        return "tightened" if set(new) > set(old) else "loosened" if set(new) < set(old) else "mixed"
    return "changed"
