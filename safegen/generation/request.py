"""One request: what is asked for, what draws it, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safegen.generation.entrances import Entrances
from safegen.types import ContentId, Decision, Json

if TYPE_CHECKING:
    from safegen.consent.record import SignedConsent
    from safegen.generators import ModelRef

Mode = Literal["text", "image", "video"]


@dataclass(frozen=True, slots=True)
class Inputs:
    """One request. ``call`` holds arguments for the pipeline itself."""

    prompt: str
    negative_prompt: str
    mode: Mode
    seed: int
    image: Path | None
    video: Path | None
    call: Mapping[str, Any]  # as the pipeline gets it: with copies of what was judged
    labels: tuple[str, ...] = ()  # added to those of the policy
    entrances: Entrances = field(default_factory=Entrances)
    consents: tuple[SignedConsent, ...] = ()
    project: str = ""  # what the clip is for, as the caller names it; consents may be for some projects alone
    embeddings_token: str = ""
    asked_seed: int | None = None  # None where the seed was drawn at random
    subject: str = ""  # for whom it is made; personal fields of its entries are under their key


@dataclass(frozen=True, slots=True)
class Source:
    """What draws the frames: how to get the pipeline (loaded only when it is needed), and what is known of it."""

    load: Callable[[Mode], Any]
    ref: ModelRef | None  # None for a pipeline that the caller has loaded
    fps: float
    scheme: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)  # arguments of the call, unless it says otherwise


@dataclass(frozen=True, slots=True)
class Generated:
    """What came out of one run: the file and everything that was decided, measured and recorded on the way."""

    output: Path
    content_id: ContentId
    entry: int
    decision: Decision
    frames_decision: Decision
    mark: Mapping[str, Json]
    manifest_id: str
    sha256: str
    mode: Mode
    seed: int
    model: Mapping[str, str]
    milliseconds: Mapping[str, float]
    checkpoint: str = field(repr=False, default="")
    probes_decision: Decision | None = None  # where policy or call ask for probes (docs/probes.md)
    consents: tuple[str, ...] = ()  # ids of the consent records that it rests on (docs/consent.md)
    approvals: tuple[int, ...] = ()  # ledger entries of the reviewers' approvals that it used (docs/review.md)

    def to_json(self) -> dict[str, Json]:
        """Return the result as plain JSON values, in the documented shape."""
        return {
            "output": str(self.output), "content_id": self.content_id, "entry": self.entry,
            "decision": self.decision.to_json(), "frames_decision": self.frames_decision.to_json(),
            "mark": dict(self.mark), "manifest_id": self.manifest_id, "sha256": self.sha256,
            "mode": self.mode, "seed": self.seed, "model": dict(self.model),
            "milliseconds": {name: round(ms, 1) for name, ms in self.milliseconds.items()},
            "checkpoint": self.checkpoint,
            **({} if self.probes_decision is None else {"probes_decision": self.probes_decision.to_json()}),
            "consents": list(self.consents), "approvals": list(self.approvals),
        }  # fmt: skip
