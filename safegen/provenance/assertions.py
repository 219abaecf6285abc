"""What manifests are made of, as typed values: actions and assertions.

Each has two forms. ``to_json`` is what the C2PA library reads; ``to_cbor`` is what stands in the file, with the types
that JSON lacks: dates, byte strings, and references to ingredient assertions by hash.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Final, Protocol, TypeAlias

import cbor2

from safegen.errors import ProvenanceError
from safegen.types import ContentId, Json
from safegen.version import __version__

GENERATION_LABEL: Final = "org.safegen.generation"
GENERATED: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
TEXT_BY_SOFTWARE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicMedia"
COMPOSITE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
PERHAPS_AI: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/composite"
"""Of several elements, any of which may or may not be generated: all that can be said of an unknown action."""

_DATE: Final = 0  # CBOR tag of an RFC 3339 date, the CDDL's tdate
_TRAINING_USES: Final = ("ai_generative_training", "ai_inference", "ai_training", "data_mining")

References: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Hashed URIs of ingredient assertions, by the ingredients' instance ids."""


class ActionName(StrEnum):
    """The actions that safegen states (C2PA 2.4, actions assertion)."""

    CREATED = "c2pa.created"
    OPENED = "c2pa.opened"
    EDITED = "c2pa.edited"
    WATERMARKED = "c2pa.watermarked.bound"
    ADDED_TEXT = "c2pa.addedText"
    EDITED_METADATA = "c2pa.edited.metadata"
    UNKNOWN = "c2pa.unknown"


@dataclass(frozen=True, slots=True)
class Agent:
    """Software that did something."""

    name: str
    version: str

    def to_json(self) -> dict[str, Json]:
        """Return the generator-info map."""
        return {"name": self.name, "version": self.version}


SAFEGEN: Final = Agent("safegen", __version__)


@dataclass(frozen=True, slots=True)
class ManifestAction:
    """One action. ``when`` is an aware datetime; ``ingredients`` are instance ids of those that it was done with."""

    name: ActionName
    description: str
    agent: Agent | None = None
    when: dt.datetime | None = None
    source_type: str = ""
    ingredients: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """Return the action for the library."""
        return self._form(self.when and rfc3339(self.when), {"ingredientIds": list(self.ingredients)})

    def to_cbor(self, references: References) -> dict[str, Any]:
        """Return the action as it stands in a file."""
        when = None if self.when is None else cbor2.CBORTag(_DATE, rfc3339(self.when))
        return self._form(when, {"ingredients": [references[i] for i in self.ingredients]})

    def _form(self, when: Any, parameters: dict[str, Any]) -> dict[str, Any]:
        fields = {
            "action": str(self.name),
            "softwareAgent": None if self.agent is None else self.agent.to_json(),
            "when": when,
            "digitalSourceType": self.source_type or None,
            "description": self.description,
            "parameters": parameters if self.ingredients else None,
        }
        return {name: value for name, value in fields.items() if value is not None}


class Assertion(Protocol):
    """A statement in a manifest. ``created``: the claim generator vouches for it; other ones it only gathered."""

    label: ClassVar[str]
    created: ClassVar[bool]

    def to_json(self) -> dict[str, Json]:
        """Return its data for the library."""

    def to_cbor(self, references: References) -> dict[str, Any]:
        """Return its data as it stands in a file."""


@dataclass(frozen=True, slots=True)
class Actions:
    """``c2pa.actions.v2``. ``complete``: nothing was done that is not listed."""

    actions: tuple[ManifestAction, ...]
    complete: bool = True
    label: ClassVar[str] = "c2pa.actions.v2"
    created: ClassVar[bool] = True

    def to_json(self) -> dict[str, Json]:
        """See ``Assertion``."""
        return {"actions": [a.to_json() for a in self.actions], "allActionsIncluded": self.complete}

    def to_cbor(self, references: References) -> dict[str, Any]:
        """See ``Assertion``."""
        return {"actions": [a.to_cbor(references) for a in self.actions], "allActionsIncluded": self.complete}


@dataclass(frozen=True, slots=True)
class AiDisclosure:
    """``c2pa.ai-disclosure``: which model, and how far people had a hand in it."""

    model_name: str
    model_identifier: str
    oversight: str = "prompt_guided"
    label: ClassVar[str] = "c2pa.ai-disclosure"
    created: ClassVar[bool] = True

    def to_json(self) -> dict[str, Json]:
        """See ``Assertion``."""
        return {
            "modelType": "c2pa.types.model",
            "modelName": self.model_name,
            "modelIdentifier": self.model_identifier,
            "contentProfile": {"humanOversightLevel": self.oversight},
        }

    def to_cbor(self, _references: References) -> dict[str, Any]:
        """See ``Assertion``."""
        return self.to_json()


@dataclass(frozen=True, slots=True)
class Generation:
    """``org.safegen.generation``: which clip this is, and how it came to be.

    ``prompt_commitment`` is what ``safegen.keys.commit_text`` returns; its salt is left out. ``matched`` are the
    algorithms of the marks by which a lost credential was found again. ``consents`` are (id, SHA-256) of the consent
    records under which a likeness was drawn (docs/consent.md).
    """

    content_id: ContentId
    mode: str
    run_id: str = ""
    prompt_commitment: Mapping[str, str] | None = None
    matched: tuple[str, ...] = ()
    consents: tuple[tuple[str, str], ...] = ()
    label: ClassVar[str] = GENERATION_LABEL
    created: ClassVar[bool] = True

    def to_json(self) -> dict[str, Json]:
        """See ``Assertion``. ProvenanceError if the commitment is malformed."""
        data: dict[str, Json] = {"contentId": self.content_id, "mode": self.mode}
        if self.run_id:
            data["runId"] = self.run_id
        if self.prompt_commitment is not None:
            try:
                data["promptCommitment"] = {name: self.prompt_commitment[name] for name in ("alg", "value")}
            except KeyError as error:
                raise ProvenanceError(f"the prompt commitment lacks {error}", remedy="Use commit_text().") from error
        if self.matched:
            data["softBindingsMatched"] = True
            data["softBindingAlgorithmsMatched"] = list(self.matched)
        if self.consents:
            data["consents"] = [{"id": name, "alg": "sha256", "hash": digest} for name, digest in self.consents]
        return data

    def to_cbor(self, _references: References) -> dict[str, Any]:
        """See ``Assertion``."""
        return self.to_json()


@dataclass(frozen=True, slots=True)
class SoftBinding:
    """``c2pa.soft-binding``: a watermark's or a fingerprint's algorithm (reverse DNS) and its value, as text.

    The value of ours is the hex of the mark's payload, or of a video hash. A file holds the bytes; the library's JSON
    can only hold the text.
    """

    alg: str
    value: str
    name: str = "safegen in-latent watermark"
    label: ClassVar[str] = "c2pa.soft-binding"
    created: ClassVar[bool] = True

    def to_json(self) -> dict[str, Json]:
        """See ``Assertion``."""
        return self._form(self.value, [])

    def to_cbor(self, _references: References) -> dict[str, Any]:
        """See ``Assertion``. C2PA 2.4 §18.10 wants byte strings: hex is decoded, other text written as UTF-8."""
        try:
            return self._form(bytes.fromhex(self.value), b"")
        except ValueError:
            return self._form(self.value.encode(), b"")

    def _form(self, value: Any, pad: Any) -> dict[str, Any]:
        blocks = [{"scope": {}, "value": value}]
        return {"alg": self.alg, "name": self.name, "blocks": blocks, "pad": pad}


@dataclass(frozen=True, slots=True)
class TrainingMining:
    """``cawg.training-mining``: no training, no mining. Gathered: the generator passes on what the CAWG defines."""

    label: ClassVar[str] = "cawg.training-mining"
    created: ClassVar[bool] = False

    def to_json(self) -> dict[str, Json]:
        """See ``Assertion``."""
        return {"entries": {f"cawg.{use}": {"use": "notAllowed"} for use in _TRAINING_USES}}

    def to_cbor(self, _references: References) -> dict[str, Any]:
        """See ``Assertion``."""
        return self.to_json()


def rfc3339(when: dt.datetime) -> str:
    """Return an aware datetime as RFC 3339 text in UTC, to the second."""
    return when.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
