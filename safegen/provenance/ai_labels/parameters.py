"""What image generators leave beside a picture so that it can be made again: settings, prompts, graphs of nodes.

A table of programs. Which one it was is told; what was asked of it is not repeated: a prompt may be private.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from safegen.provenance.ai_labels.label import AiLabel, Kind, Word


@dataclass(frozen=True, slots=True)
class _Program:
    """A program's own words: in which texts (lower case; empty for any), and what stands in them."""

    name: str
    keys: frozenset[str]
    pattern: re.Pattern[str]


def _keys(words: str) -> frozenset[str]:
    return frozenset(words.split())


_COMMENTS: Final = _keys("usercomment comment description imagedescription")
_PROGRAMS: Final = (
    # SwarmUI: JSON, as its page about the image metadata format says.
    _Program("SwarmUI", _keys("parameters") | _COMMENTS, re.compile(r'"sui_image_params"')),
    # Fooocus.
    _Program("Fooocus", _keys("fooocus_scheme"), re.compile(r"\w")),
    # AUTOMATIC1111 stable-diffusion-webui, and the programs that follow it.
    _Program(
        "AUTOMATIC1111's web UI or a relative", _keys("parameters") | _COMMENTS, re.compile(r"\bSteps: \d{1,6}, \w")
    ),
    # ComfyUI: the graph that ran, and the one that was drawn.
    _Program("ComfyUI", _keys("prompt make model") | _COMMENTS, re.compile(r'"class_type"\s*:')),
    _Program("ComfyUI", _keys("workflow make model") | _COMMENTS, re.compile(r'"last_node_id"\s*:')),
    # InvokeAI, now and in its earlier forms.
    _Program(
        "InvokeAI", _keys("invokeai_metadata invokeai_graph invokeai_workflow sd-metadata dream"), re.compile(r"\S")
    ),
    # NovelAI's image metadata: Title, Software, Source, Comment.
    _Program("NovelAI", _keys("software title source imagedescription"), re.compile(r"NovelAI\b")),
)


def find(words: Sequence[Word]) -> Iterator[AiLabel]:
    """Yield one label for each program and place."""
    seen: set[tuple[str, str]] = set()
    for word in words:
        key = word.key.lower()
        for program in _PROGRAMS:
            if key in program.keys and (program.name, word.place) not in seen and program.pattern.search(word.value):
                seen.add((program.name, word.place))
                says = f"generation settings as {program.name} writes them"
                yield AiLabel(Kind.PARAMETERS, word.place, says, True, {"program": program.name, "key": word.key[:80]})
                break
