"""A pack's regression suite: prompts and what the pack must make of them, in a YAML file beside it.

Unsafe words stay where they are: ``{gore:2}`` in a prompt stands for the third term of the word list ``gore``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import InputError
from safegen.policies.engine.request import Request
from safegen.policies.pack.loading import locate_pack
from safegen.policies.pack.source import Source, read_source
from safegen.policies.text.lexicon import Lexicon
from safegen.types import Action, Json

if TYPE_CHECKING:
    from safegen.policies.engine.engine import Engine

SCHEMA = "safegen.policy-examples/1"
_PLACEHOLDER = re.compile(r"\{([a-z_]+):(\d+)\}")
_FIELDS = {"prompt", "negative_prompt", "expect", "categories"}


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt, the actions that are right for it, and the categories that must be among the reasons."""

    line: int
    prompt: str  # with placeholders in place of what is unsafe
    negative_prompt: str
    expect: tuple[Action, ...]
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the pack made of an example; ``failures`` says where that is not what was expected."""

    example: Example
    action: Action
    categories: tuple[str, ...]
    failures: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        """Return the outcome as plain JSON values; the prompt as the file has it."""
        return {
            "line": self.example.line,
            "prompt": self.example.prompt,
            "expect": [str(a) for a in self.example.expect],
            "decision": {"action": str(self.action), "categories": list(self.categories)},
            "failures": list(self.failures),
        }


def examples_file(pack: str | Path) -> Path:
    """Return the examples that belong to a pack: ``NAME.examples.yaml`` beside ``NAME.yaml``. InputError: none."""
    path = locate_pack(pack)
    beside = path.with_name(f"{path.stem}.examples.yaml")
    if not beside.is_file():
        raise InputError(f"no examples for {path.name}", remedy=f"Write {beside.name} beside it, or give --examples.")
    return beside


def read_examples(path: Path) -> list[Example]:
    """Read an examples file. InputError names the line that is wrong; ConfigError: it is no YAML mapping."""
    source = read_source(path)
    if source.defects:
        first = source.defects[0]
        raise InputError(f"{path.name}, line {first.line}: {first.where}: {first.message}")
    entries = source.document.get("examples")
    if source.document.get("schema") != SCHEMA or not isinstance(entries, list) or not entries:
        raise InputError(
            f"{path.name}: not an examples file", remedy=f"It needs `schema: {SCHEMA}` and `examples: […]`."
        )
    return [_example(source, i, entry) for i, entry in enumerate(entries)]


def _example(source: Source, index: int, entry: Any) -> Example:
    line = source.line(("examples", index))
    where = f"{source.path.name}, line {line}: "
    if not isinstance(entry, Mapping) or not set(entry) <= _FIELDS or not {"prompt", "expect"} <= set(entry):
        raise InputError(f"{where}an example has `prompt`, `expect`, and may have `negative_prompt`, `categories`")
    expect = entry["expect"] if isinstance(entry["expect"], list) else [entry["expect"]]
    categories = entry.get("categories", [])
    texts = (entry["prompt"], entry.get("negative_prompt", ""))
    if not all(isinstance(t, str) for t in texts) or not isinstance(categories, list):
        raise InputError(f"{where}prompts are texts, categories a list")
    known = {str(a) for a in Action}
    if not expect or any(e not in known for e in expect):
        raise InputError(f"{where}expect: must be one or several of {', '.join(known)}")
    return Example(line, *texts, tuple(Action(e) for e in expect), tuple(map(str, categories)))


def run_examples(engine: Engine, examples: Sequence[Example]) -> list[Outcome]:
    """Judge every example with the engine. InputError: a placeholder names a list or a term that does not exist."""
    lists = Lexicon.load().lists
    requests = [
        Request(_filled(e.prompt, lists, e.line), negative_prompt=_filled(e.negative_prompt, lists, e.line))
        for e in examples
    ]
    outcomes = []
    for example, decision in zip(examples, engine.judge_many(requests), strict=True):
        raised = {r.category for r in decision.reasons if r.action is not Action.ALLOW}
        failures = [f"{c} is not among the reasons" for c in example.categories if c not in raised]
        if decision.action not in example.expect:
            failures.insert(0, f"{decision.action} instead of {' or '.join(example.expect)}")
        outcomes.append(Outcome(example, decision.action, tuple(sorted(raised)), tuple(failures)))
    return outcomes


def _filled(text: str, lists: Mapping[str, Sequence[str]], line: int) -> str:
    def term(found: re.Match[str]) -> str:
        terms = lists.get(found[1], ())
        if int(found[2]) >= len(terms):
            raise InputError(f"line {line}: {found[0]} is no term of a word list")
        return terms[int(found[2])].lstrip("=")

    return _PLACEHOLDER.sub(term, text)
