"""What a manifest says about one generated clip: a typed model, and its C2PA 2.4 manifest definition.

The definition follows C2PA 2.4 with claim v2 and passes the conformance programme's asset rubric: inception action
first among *created* assertions, ``allActionsIncluded``, ``specVersion``, a digital source type on every action that
needs one and none on ``c2pa.opened``. A prompt never enters a manifest; a keyed commitment to it may.

Whoever writes manifests (``safegen.provenance.backends``) takes a ``Statement``: ``ManifestSpec`` here is that of a
generated clip, ``safegen.provenance.restoring`` and ``updating`` have others.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from safegen.errors import ProvenanceError
from safegen.provenance.assertions import (
    COMPOSITE,
    GENERATED,
    GENERATION_LABEL,
    SAFEGEN,
    TEXT_BY_SOFTWARE,
    ActionName,
    Actions,
    Agent,
    AiDisclosure,
    Assertion,
    Generation,
    ManifestAction,
    SoftBinding,
    TrainingMining,
)
from safegen.types import ContentId, Json

__all__ = [
    "COMPOSITE",
    "GENERATED",
    "GENERATION_LABEL",
    "SPEC_VERSION",
    "GeneratorModel",
    "Ingredient",
    "InputFile",
    "KeptManifest",
    "Manifest",
    "ManifestSpec",
    "MediaFormat",
    "Mode",
    "Relationship",
    "SoftBinding",
    "Statement",
]

SPEC_VERSION: Final = "2.4.0"


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
class KeptManifest:
    """A file's earlier manifest store, kept elsewhere, as the parent of that file's new manifest.

    ``report`` is what the library says of the store, held against the file; ``matched`` are the algorithms of the
    marks by which it was found.
    """

    store: bytes = field(repr=False)
    media_format: str
    report: Mapping[str, Json] = field(repr=False)
    matched: tuple[str, ...] = ()
    title: str = "recovered credential"
    instance_id: str = field(default_factory=lambda: f"xmp:iid:{uuid.uuid4()}")
    relationship: Relationship = Relationship.PARENT

    @property
    def resource(self) -> str:
        """The name under which the library is given the store."""
        return f"{self.instance_id.rpartition(':')[2]}.c2pa"

    def definition(self) -> dict[str, Json]:
        """Return the C2PA ingredient definition; the store itself is added as a resource when signing."""
        return {
            "title": self.title,
            "format": self.media_format,
            "relationship": str(self.relationship),
            "instance_id": self.instance_id,
            "active_manifest": self.report.get("active_manifest"),
            "validation_results": self.report.get("validation_results"),
            "manifest_data": {"format": "application/c2pa", "identifier": self.resource},
        }


Ingredient: TypeAlias = InputFile | KeptManifest


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest but for its hard binding: what both writers write.

    ``media_format`` is the container's media type. ``update``: it is an update manifest (C2PA 2.4 §11.2.4), which has
    no hard binding of its own, changes nothing of the content, and has one parent, the manifest that was active before.
    """

    title: str
    media_format: str
    assertions: tuple[Assertion, ...]
    ingredients: tuple[Ingredient, ...] = ()
    update: bool = False

    def __post_init__(self) -> None:
        parents = [i.relationship is Relationship.PARENT for i in self.ingredients]
        if self.update and parents != [True]:
            raise ProvenanceError("an update manifest has one ingredient, its parent")

    def generator(self) -> dict[str, Json]:
        """Return the claim's generator info."""
        return SAFEGEN.to_json() | {"specVersion": SPEC_VERSION}

    def to_json(self) -> dict[str, Json]:
        """Return the manifest definition that the C2PA library reads; input files are added as streams."""
        said: list[Json] = []
        for item in self.assertions:
            flag: dict[str, Json] = {"created": True} if item.created else {}
            said.append({"label": item.label, **flag, "data": item.to_json()})
        definition: dict[str, Json] = {
            "claim_version": 2,
            "title": self.title,
            "format": self.media_format,
            "claim_generator_info": [self.generator()],
            "assertions": said,
        }
        kept: list[Json] = [i.definition() for i in self.ingredients if isinstance(i, KeptManifest)]
        return definition | ({"ingredients": kept} if kept else {})


class Statement(Protocol):
    """What can be signed into a file."""

    @property
    def content_id(self) -> ContentId:
        """The clip that the manifest is about."""

    def manifest(self) -> Manifest:
        """Return the manifest."""


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
    fingerprint: SoftBinding | None = None  # a second one, taken from the pictures instead of put into them
    prompt_commitment: Mapping[str, str] | None = None
    ingredients: tuple[InputFile, ...] = ()
    visible_labels: tuple[str, ...] = ()  # texts drawn onto the frames
    metadata_labels: tuple[str, ...] = ()  # records written into the container, by name
    consents: tuple[tuple[str, str], ...] = ()  # id and SHA-256 of the consent records that the clip rests on
    alterations: tuple[str, ...] = ()  # what moderation did to the frames, a sentence each

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

    def manifest(self) -> Manifest:
        """Return the manifest."""
        said: list[Assertion] = [
            Actions(self._actions()),
            AiDisclosure(self.model.name, self.model.identifier),
            Generation(self.content_id, str(self.mode), self.run_id, self.prompt_commitment, consents=self.consents),
        ]
        said += [binding for binding in (self.soft_binding, self.fingerprint) if binding is not None]
        said.append(TrainingMining())
        return Manifest(self.title, str(self.media_format), tuple(said), self.ingredients)

    def definition(self) -> dict[str, Json]:
        """Return the manifest definition that the C2PA library reads as JSON."""
        return self.manifest().to_json()

    def _actions(self) -> tuple[ManifestAction, ...]:
        parents = tuple(i.instance_id for i in self.ingredients if i.relationship is Relationship.PARENT)
        inputs = tuple(i.instance_id for i in self.ingredients if i.relationship is Relationship.INPUT)
        opened: tuple[ManifestAction, ...] = ()
        name, source_type = ActionName.CREATED, GENERATED
        if parents:
            opened = (ManifestAction(ActionName.OPENED, "Source clip opened", None, self.when, "", parents),)
            name, source_type = ActionName.EDITED, COMPOSITE
        main = ManifestAction(
            name, f"{self.mode} by a generative model", Agent(self.model.name, self.model.version), self.when,
            source_type, inputs,
        )  # fmt: skip
        return (*opened, main, *self._own_actions())

    def _own_actions(self) -> list[ManifestAction]:
        """Return what safegen itself did: nothing may be missing where ``allActionsIncluded`` is said."""
        actions = []
        if self.soft_binding is not None:
            description = f"Invisible watermark {self.soft_binding.alg} embedded during generation"
            actions.append(ManifestAction(ActionName.WATERMARKED, description, SAFEGEN, self.when))
        for description in self.alterations:
            actions.append(ManifestAction(ActionName.EDITED, description, SAFEGEN, self.when, COMPOSITE))
        if self.visible_labels:
            description = f"Visible label on every frame: {', '.join(self.visible_labels)}"
            actions.append(ManifestAction(ActionName.ADDED_TEXT, description, SAFEGEN, self.when, TEXT_BY_SOFTWARE))
        if self.metadata_labels:
            description = f"Record in the file's metadata: {', '.join(self.metadata_labels)}"
            actions.append(ManifestAction(ActionName.EDITED_METADATA, description, SAFEGEN, self.when))
        return actions
