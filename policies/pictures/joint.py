"""Judges pictures together with the text that comes with them: a face and words, each harmless, may be an undressing.

The rules are data (``data/joint.yaml``): what a frame classifier must see, and which words or topics must stand in the
text. They raise the categories that the pack judges anyway, so its thresholds and locks hold for them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

from safegen.errors import PolicyError
from safegen.policies.pictures.judging import Looked, confirmed, streaks

Where = Literal["conditioning", "frames"]

RULES = Path(__file__).parents[1] / "data" / "joint.yaml"


@dataclass(frozen=True, slots=True)
class JointRule:
    """One rule of the file: ``score`` for ``category`` where the classes are seen and the text has what is asked."""

    id: str
    category: str
    classes: tuple[str, ...]
    at: float
    words: tuple[str, ...]
    topics: tuple[str, ...]
    where: tuple[str, ...]
    score: float


@dataclass(frozen=True, slots=True)
class JointHit:
    """A rule that holds for one clip; ``frame`` is the first that was seen to hit, None in stills."""

    rule: JointRule
    frame: int | None


@lru_cache(maxsize=4)
def joint_rules(path: Path = RULES) -> tuple[JointRule, ...]:
    """Read the rules; PolicyError if the file is missing or malformed."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        seen: Mapping[str, Sequence[str]] = document["detections"]
        return tuple(_rule(entry, seen) for entry in document["rules"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as exc:
        raise PolicyError(
            f"the joint rules in {path} cannot be read: {exc}", remedy="Reinstall safegen: its data files are damaged."
        ) from exc


def _rule(entry: Mapping[str, Any], seen: Mapping[str, Sequence[str]]) -> JointRule:
    return JointRule(
        id=str(entry["id"]),
        category=str(entry["category"]),
        classes=tuple(seen[entry["sees"]]),
        at=float(entry["at"]),
        words=tuple(entry.get("words", ())),
        topics=tuple(entry.get("topics", ())),
        where=tuple(entry["where"]),
        score=float(entry["score"]),
    )


def joint_hits(
    looked: Looked, where: Where, min_hits: int, words: AbstractSet[str], topics: AbstractSet[str]
) -> list[JointHit]:
    """Return the rules that hold: ``words`` are the word lists found in the text, ``topics`` the categories raised."""
    hits = []
    for rule in joint_rules():
        asks = bool(rule.words or rule.topics)
        if where not in rule.where or (asks and not (words & set(rule.words) or topics & set(rule.topics))):
            continue
        scores = looked.highest(rule.classes)
        if confirmed(looked, scores, min_hits) < rule.at:
            continue
        first = [streak.first for streak in streaks(looked, scores, min_hits, rule.at)] if looked.fps > 0 else []
        hits.append(JointHit(rule, first[0] if first else None))
    return hits
