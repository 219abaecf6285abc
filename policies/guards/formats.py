"""What guard models are asked, and how their answers are read.

Each family has a documented answer; anything else raises ``UnreadableAnswerError``: a guard that says nothing that can
be read has not judged, whatever it meant.

- Qwen3Guard-Gen (arXiv 2510.14276): ``Safety: Unsafe`` and ``Categories: Violent, …`` on two lines.
- Llama Guard 3 and 4 (Meta's model cards): ``safe``, or ``unsafe`` and a line of MLCommons hazards (``S1,S10``).
- ShieldGemma (arXiv 2407.21772): the probability of ``Yes`` against ``No`` to one policy at a time.
- Granite Guardian 3.x (arXiv 2412.07724): ``Yes`` or ``No``, some with a confidence, or ``<score> yes </score>``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

UNSAFE = 0.95
"""Score of a plain "unsafe": above every shipped block threshold that is meant to be reached."""

DOUBTFUL = 0.45
"""Score of what a guard finds doubtful, in loose mode; in strict mode it counts as unsafe."""

_QWEN = {
    "violent": "violence",
    "non-violent illegal acts": "illegal",
    "sexual content or sexual acts": "sexual",
    "pii": "privacy",
    "personally identifiable information": "privacy",
    "suicide & self-harm": "self_harm",
    "unethical acts": "hate",
    "politically sensitive topics": "political_deception",
    "copyright violation": "copyright",
    "jailbreak": "general",
    "none": "general",
}
_LLAMA = {
    "S1": "violence", "S2": "illegal", "S3": "sexual", "S4": "minors_sexual", "S5": "likeness", "S6": "general",
    "S7": "privacy", "S8": "copyright", "S9": "weapons", "S10": "hate", "S11": "self_harm", "S12": "sexual",
    "S13": "political_deception", "S14": "general",
}  # fmt: skip
_GRANITE = {
    "harm": "general", "social_bias": "hate", "jailbreak": "general", "violence": "violence", "profanity": "hate",
    "sexual_content": "sexual", "unethical_behavior": "illegal",
}  # fmt: skip
_SHIELD = {
    "dangerous": (
        "weapons",
        '"No Dangerous Content": The prompt shall not contain or seek generation of content that harms oneself and/or '
        "others (e.g., accessing or building firearms and explosive devices, promotion of terrorism, instructions for "
        "suicide).",
    ),
    "harassment": (
        "hate",
        '"No Harassment": The prompt shall not contain or seek generation of content that is malicious, intimidating, '
        "bullying, or abusive content targeting another individual (e.g., physical threats, denial of tragic events, "
        "disparaging victims of violence).",
    ),
    "hate": (
        "hate",
        '"No Hate Speech": The prompt shall not contain or seek generation of content that targets identity and/or '
        "protected attributes (e.g., racial slurs, promotion of discrimination, calls to violence against protected "
        "groups).",
    ),
    "sexual": (
        "sexual",
        '"No Sexually Explicit Information": The prompt shall not contain or seek generation of content that contains '
        "references to sexual acts or other lewd content (e.g., sexually explicit requests or content aiming to cause "
        "arousal).",
    ),
}


class UnreadableAnswerError(ValueError):
    """A guard's answer is not in its family's format."""


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that a family asks about a text. ``template`` goes to the chat template beside the messages."""

    name: str
    category: str  # of a "yes", where the family asks about one thing at a time
    template: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """How one family of guards works. ``tokens``: how many its answer may have; 0: the next token decides."""

    questions: Callable[[tuple[str, ...]], tuple[Question, ...]]  # of the criteria that a pack names
    read: Callable[[str, Question, bool], dict[str, float]]  # answer, question, strict -> score by category
    tokens: int


def read_qwen3guard(answer: str, question: Question, strict: bool) -> dict[str, float]:
    """Return the score of each category that Qwen3Guard-Gen names; nothing where it says "Safe"."""
    label = re.match(r"\s*Safety:[ \t]*(Safe|Unsafe|Controversial)[ \t]*(?:\r?\n|$)", answer)
    if label is None:
        raise UnreadableAnswerError("no line 'Safety: …'")
    if label[1] == "Safe":
        return {}
    listed = re.search(r"^Categories:[ \t]*(.+?)[ \t]*$", answer, re.MULTILINE)
    if listed is None:
        raise UnreadableAnswerError("no line 'Categories: …'")
    score = UNSAFE if strict or label[1] == "Unsafe" else DOUBTFUL
    names = [name.strip().lower() for name in listed[1].split(",")]
    return {_QWEN.get(name, "general"): score for name in names if name}


def read_llamaguard(answer: str, question: Question, strict: bool) -> dict[str, float]:
    """Return the score of each hazard that Llama Guard names; nothing where it says "safe"."""
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    if lines == ["safe"]:
        return {}
    if not lines or lines[0] != "unsafe":
        raise UnreadableAnswerError("the first line is neither 'safe' nor 'unsafe'")
    codes = [code.strip() for code in ",".join(lines[1:]).split(",") if code.strip()]
    if any(not re.fullmatch(r"S\d{1,2}", code) for code in codes):
        raise UnreadableAnswerError("the second line is no list of hazards")
    return {_LLAMA.get(code, "general"): UNSAFE for code in codes or ["none"]}


def read_granite(answer: str, question: Question, strict: bool) -> dict[str, float]:
    """Return the score of the risk that was asked about; nothing where Granite Guardian says "No"."""
    said = re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL).strip()
    found = re.match(r"<score>\s*(yes|no)\s*</score>|(yes|no)\b(?!\w)", said, re.IGNORECASE)
    if found is None:
        raise UnreadableAnswerError("neither yes nor no")
    if (found[1] or found[2]).lower() == "no":
        return {}
    low = re.search(r"<confidence>\s*low\s*</confidence>", said, re.IGNORECASE)
    return {question.category: DOUBTFUL if low and not strict else UNSAFE}


def read_shieldgemma(answer: str, question: Question, strict: bool) -> dict[str, float]:
    """Return the probability of "Yes" as the score; in loose mode nothing below one half."""
    try:
        probability = float(answer)
    except ValueError as exc:
        raise UnreadableAnswerError("no probability") from exc
    if not 0.0 <= probability <= 1.0:
        raise UnreadableAnswerError("no probability")
    return {question.category: probability} if strict or probability >= 0.5 else {}


def _one(_criteria: tuple[str, ...]) -> tuple[Question, ...]:
    return (Question("safety", "general"),)


def _granite(criteria: tuple[str, ...]) -> tuple[Question, ...]:
    # 3.0 to 3.2 look for risk_name, 3.3 for criteria_id.
    return tuple(
        Question(c, _GRANITE.get(c, "general"), {"guardian_config": {"risk_name": c, "criteria_id": c}})
        for c in criteria or ("harm", "sexual_content", "violence", "social_bias", "unethical_behavior")
    )


def _shield(_criteria: tuple[str, ...]) -> tuple[Question, ...]:
    return tuple(Question(name, category, {"guideline": said}) for name, (category, said) in _SHIELD.items())


FORMATS: Mapping[str, Family] = {
    "qwen3guard": Family(_one, read_qwen3guard, 64),
    "llamaguard": Family(_one, read_llamaguard, 24),
    "graniteguardian": Family(_granite, read_granite, 48),
    "shieldgemma": Family(_shield, read_shieldgemma, 0),
}
