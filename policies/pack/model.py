"""What a policy pack says, as values: rules, classifiers, frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from safegen.types import Action, Json

LEVELS = (Action.BLOCK, Action.REVIEW, Action.REWRITE, Action.FLAG)
"""The actions that a score can reach, most severe first."""

LOCKED_FLOOR: Mapping[str, float] = {"minors_sexual": 0.5, "ncii": 0.8}
"""Rules that every pack must hold, locked, with a block threshold no higher than this. No pack can turn them off."""

WITHHELD = ("minors_sexual",)
"""Locked rules whose words no record may hold."""

KEEPER = "lexicon"
"""The classifier that finds what the locked rules are about: no pack may do without it."""

TIME_LIMIT_S = 30.0
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Rule:
    """One category's thresholds; None: the action is never taken."""

    flag: float | None = None
    review: float | None = None
    block: float | None = None
    locked: bool = False
    withhold_span: bool = False
    rewrite: float | None = None

    def threshold(self, action: Action) -> float | None:
        """Return the score from which ``action`` is taken."""
        return {
            Action.FLAG: self.flag,
            Action.REWRITE: self.rewrite,
            Action.REVIEW: self.review,
            Action.BLOCK: self.block,
        }.get(action)

    def judge(self, score: float) -> tuple[Action, float]:
        """Return the action for a score and the threshold that it reached (the lowest one, where it reached none)."""
        for action in LEVELS:
            level = self.threshold(action)
            if level is not None and score >= level:
                return action, level
        return Action.ALLOW, self.lowest

    @property
    def lowest(self) -> float:
        """The lowest threshold: nothing happens below it."""
        return min(t for t in (self.flag, self.rewrite, self.review, self.block) if t is not None)


@dataclass(frozen=True, slots=True)
class ClassifierSpec:
    """A classifier that a pack asks for. ``options`` are those of its kind (docs/moderation.md lists them)."""

    name: str  # how records call it
    use: str  # what it is
    required: bool = True
    time_limit_s: float = TIME_LIMIT_S
    options: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FramePolicy:
    """How frames are judged: the rate they are looked at, how many must hit, and which class means which category."""

    classifiers: tuple[str, ...]
    sample_fps: float
    min_hits: int
    classes: Mapping[str, str]
    rules: Mapping[str, Rule]
    specs: tuple[ClassifierSpec, ...] = ()
    remedies: Mapping[str, str] = field(default_factory=dict)  # categories whose spans are pixelated or dropped


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
    specs: tuple[ClassifierSpec, ...] = ()  # of the text classifiers, in order
    schema_sha256: str = ""  # digest of the JSON Schema that it was checked against
    record_clear: bool = False  # records may hold the texts in clear, but for those about minors
    rewrite_rounds: int = ROUNDS
    replacements: Mapping[str, str] = field(default_factory=dict)


def spec_of(entry: str | Mapping[str, Json], time_limit_s: float) -> ClassifierSpec:
    """Return a pack's entry under ``classifiers`` as a value."""
    if isinstance(entry, str):
        return ClassifierSpec(entry, entry, time_limit_s=time_limit_s)
    use = str(entry["use"])
    limit = entry.get("time_limit_s", time_limit_s)
    return ClassifierSpec(
        name=str(entry.get("name", use)),
        use=use,
        required=bool(entry.get("required", True)),
        time_limit_s=float(limit) if isinstance(limit, int | float) else time_limit_s,
        options={k: v for k, v in entry.items() if k not in ("use", "name", "required", "time_limit_s")},
    )
