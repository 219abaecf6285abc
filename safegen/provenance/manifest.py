"""What a manifest says about one generated clip: a typed model, and its C2PA 2.4 manifest definition.

The definition follows C2PA 2.4 with claim v2 and passes the conformance programme's asset rubric: inception action
first among *created* assertions, ``allActionsIncluded``, ``specVersion``, a digital source type on every action that
needs one and none on ``c2pa.opened``. A prompt never enters a manifest; a keyed commitment to it may.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from safegen.errors import ProvenanceError
from safegen.types import ContentId, Json
from safegen.version import __version__

SPEC_VERSION: Final = "2.4.0"
GENERATION_LABEL: Final = "org.safegen.generation"
GENERATED: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
TEXT_BY_SOFTWARE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicMedia"
COMPOSITE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
AI_SOURCE_TYPES: Final = frozenset({GENERATED, COMPOSITE})

_SAFEGEN: Final[dict[str, Json]] = {"name": "safegen", "version": __version__}
_TRAINING_USES: Final = ("ai_generative_training", "ai_inference", "ai_training", "data_mining")


class MediaFormat(StrEnum):
    """The container that is signed."""

    MP4 = "video/mp4"
    MOV = "video/quicktime"
    PNG = "image/png"
    JPEG = "image/jpeg"


class Mode(StrEnum):
    """What the clip was made from; decides its inception action."""

    TEXT = "text-to-video"
    IMAGE = "image-to-video"
    VIDEO = "video-to-video"


class Relationship(StrEnum):
    """How an ingredient relates to the clip (C2PA 2.4, ingredient assertion)."""

    PARENT = "parentOf"
    COMPONENT = "componentOf"
    INPUT = "inputTo"


@dataclass(frozen=True, slots=True)
class GeneratorModel:
    """The model that made the clip: a name for people, an identifier (repository or path), and a version."""

    name: str
    identifier: str
    version: str


@dataclass(frozen=True, slots=True)
class SoftBinding:
    """A watermark's algorithm name (reverse DNS) and the value it carries, as text (hex of the payload in ours)."""

    alg: str
    value: str


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that went into the clip. Its own manifests are kept; ``title`` is public, so it is neutral by default."""

    path: Path
    relationship: Relationship
    title: str = ""
    instance_id: str = field(default_factory=lambda: f"xmp:iid:{uuid.uuid4()}")

    def definition(self) -> dict[str, Json]:
        """Return the C2PA ingredient definition; the file itself is added as a stream when signing."""
        neutral = "source video" if self.relationship is Relationship.PARENT else "generation input"
        return {
            "title": self.title or neutral,
            "relationship": str(self.relationship),
            "instance_id": self.instance_id,
        }


@dataclass(frozen=True, slots=True)
class ManifestSpec:
    """Everything that one manifest says. ``title`` is public: a file name derived from a prompt would tell the prompt.

    ``when`` is an aware datetime. ``prompt_commitment`` is what ``safegen.keys.commit_text`` returns; its salt stays
    out of the manifest, so that deleting the salt elsewhere makes the commitment untestable for good.
    """

    title: str
    media_format: MediaFormat
    mode: Mode
    model: GeneratorModel
    content_id: ContentId
    when: dt.datetime
    run_id: str = ""
    soft_binding: SoftBinding | None = None
    prompt_commitment: Mapping[str, str] | None = None
    ingredients: tuple[InputFile, ...] = ()
    visible_labels: tuple[str, ...] = ()  # texts drawn onto the frames
    metadata_labels: tuple[str, ...] = ()  # records written into the container, by name

    def __post_init__(self) -> None:
        if self.when.tzinfo is None:
            raise ProvenanceError("a manifest needs a time with a time zone", remedy="Pass datetime.now(UTC).")
        parents = sum(i.relationship is Relationship.PARENT for i in self.ingredients)
        inputs = sum(i.relationship is Relationship.INPUT for i in self.ingredients)
        fits = {
            Mode.TEXT: not self.ingredients,
            Mode.IMAGE: parents == 0 and inputs == len(self.ingredients) >= 1,
            Mode.VIDEO: parents == 1 and parents + inputs == len(self.ingredients),
        }[self.mode]
        if not fits:
            found = ", ".join(i.relationship for i in self.ingredients) or "none"
            raise ProvenanceError(
                f"{self.mode} does not go with these ingredients: {found}",
                remedy="text: none; image: inputTo; video: one parentOf, and inputTo for what else was used.",
            )

    @property
    def source_type(self) -> str:
        """The IPTC digital source type of the clip as a whole."""
        return COMPOSITE if self.mode is Mode.VIDEO else GENERATED

    def definition(self) -> dict[str, Json]:
        """Return the manifest definition that the C2PA library reads as JSON."""
        created: list[Json] = [
            _assertion("c2pa.actions.v2", {"actions": self._actions(), "allActionsIncluded": True}),
            _assertion(
                "c2pa.ai-disclosure",
                {
                    "modelType": "c2pa.types.model",
                    "modelName": self.model.name,
                    "modelIdentifier": self.model.identifier,
                    "contentProfile": {"humanOversightLevel": "prompt_guided"},
                },
            ),
            _assertion(GENERATION_LABEL, self._generation()),
        ]
        if self.soft_binding is not None:
            blocks: Json = [{"scope": {}, "value": self.soft_binding.value}]
            name = "safegen in-latent watermark"
            data: dict[str, Json] = {"alg": self.soft_binding.alg, "name": name, "blocks": blocks, "pad": []}
            created.append(_assertion("c2pa.soft-binding", data))
        entries: dict[str, Json] = {f"cawg.{use}": {"use": "notAllowed"} for use in _TRAINING_USES}
        return {
            "claim_version": 2,
            "title": self.title,
            "format": str(self.media_format),
            "claim_generator_info": [{**_SAFEGEN, "specVersion": SPEC_VERSION}],
            # cawg.* is gathered, not created: the CAWG defines it and the claim generator does not vouch for it.
            "assertions": [*created, {"label": "cawg.training-mining", "data": {"entries": entries}}],
        }

    def _actions(self) -> list[Json]:
        when = self.when.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        agent: dict[str, Json] = {"name": self.model.name, "version": self.model.version}
        parents: list[Json] = [i.instance_id for i in self.ingredients if i.relationship is Relationship.PARENT]
        inputs: list[Json] = [i.instance_id for i in self.ingredients if i.relationship is Relationship.INPUT]
        main: dict[str, Json] = {"softwareAgent": agent, "when": when}
        if inputs:
            main["parameters"] = {"ingredientIds": inputs}
        actions: list[Json] = []
        if parents:
            actions.append({"action": "c2pa.opened", "when": when, "parameters": {"ingredientIds": parents}})
            main |= {"action": "c2pa.edited", "digitalSourceType": COMPOSITE}
        else:
            main |= {"action": "c2pa.created", "digitalSourceType": GENERATED}
        main["description"] = f"{self.mode} by a generative model"
        actions.append(main)
        if self.soft_binding is not None:
            description = f"Invisible watermark {self.soft_binding.alg} embedded during generation"
            actions.append(
                {
                    "action": "c2pa.watermarked.bound",
                    "softwareAgent": _SAFEGEN,
                    "when": when,
                    "description": description,
                }
            )
        return actions + self._label_actions(when)

    def _label_actions(self, when: str) -> list[Json]:
        """Return what was done after the mark: nothing may be missing where ``allActionsIncluded`` is said."""
        common: dict[str, Json] = {"softwareAgent": _SAFEGEN, "when": when}
        actions: list[Json] = []
        if self.visible_labels:
            description = f"Visible label on every frame: {', '.join(self.visible_labels)}"
            text = {"action": "c2pa.addedText", "digitalSourceType": TEXT_BY_SOFTWARE, "description": description}
            actions.append(common | text)
        if self.metadata_labels:
            description = f"Record in the file's metadata: {', '.join(self.metadata_labels)}"
            actions.append(common | {"action": "c2pa.edited.metadata", "description": description})
        return actions

    def _generation(self) -> dict[str, Json]:
        data: dict[str, Json] = {"contentId": self.content_id, "mode": str(self.mode)}
        if self.run_id:
            data["runId"] = self.run_id
        if self.prompt_commitment is not None:
            try:
                data["promptCommitment"] = {name: self.prompt_commitment[name] for name in ("alg", "value")}
            except KeyError as error:
                raise ProvenanceError(f"the prompt commitment lacks {error}", remedy="Use commit_text().") from error
        return data


def _assertion(label: str, data: dict[str, Json]) -> dict[str, Json]:
    return {"label": label, "created": True, "data": data}
