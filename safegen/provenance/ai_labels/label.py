"""One label as it was found, and the words of a file in which labels are looked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from safegen.types import Json


class Kind(StrEnum):
    """What sort of label it is."""

    AIGC = "aigc"
    IPTC = "iptc"
    PARAMETERS = "parameters"
    REFERENCE = "reference"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class AiLabel:
    """A label: where it stands, what it says in words, and whether that is that AI made the file.

    ``ai`` is False where a camera or a person is named as the origin, None where the label says neither.
    """

    kind: Kind
    place: str
    says: str
    ai: bool | None = None
    values: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """As the finding's evidence says it."""
        return {"kind": str(self.kind), "place": self.place, "says": self.says, "ai": self.ai, **dict(self.values)}


@dataclass(frozen=True, slots=True)
class Word:
    """A named text of a file's metadata. ``key`` is the container's own name; of XMP ``{namespace}name``."""

    place: str
    key: str
    value: str
