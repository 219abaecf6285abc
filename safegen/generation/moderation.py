"""The moderation of one run: what the policy decides of its inputs and frames, and what people said that changes it.

Three things can change a decision, in this order, and each is on record: a consent record lifts the review of a
likeness, a reviewer's approval lifts any review of this very request, and a pack may have spans of frames pixelated or
dropped instead of stopping the clip. Nothing lifts a block.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from safegen.consent.check import Circumstances, apply_consents
from safegen.consent.trust import revocations, signers
from safegen.errors import BlockedError
from safegen.generation.embeddings import digest_tensors, refusal
from safegen.generation.enhancers import watch_texts
from safegen.policies.engine.engine import Request
from safegen.policies.engine.text_records import text_records
from safegen.policies.pictures.repair import repair, repairable
from safegen.review.queue import Approval, Reviews, Stage, Word, commit_request, request_text
from safegen.types import Action, Decision, Json, Reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safegen.consent.check import ConsentCheck
    from safegen.generation.request import Inputs
    from safegen.generation.services import Services
    from safegen.ledger import Receipt
    from safegen.types import Clip, ContentId

Append = Callable[..., "Receipt"]
"""``append(kind, body, action=...)``: records an entry about the run."""


class Moderation:
    """Judges one run. ``decision`` and ``frames_decision`` are what it came to; a refusal raises BlockedError."""

    def __init__(
        self, services: Services, inputs: Inputs, *, content_id: ContentId, model: str, fps: float, append: Append
    ) -> None:
        self.decision: Decision | None = None
        self.frames_decision: Decision | None = None
        self.consents: tuple[ConsentCheck, ...] = ()
        self.approvals: tuple[Approval, ...] = ()
        self._services = services
        self._inputs = inputs
        self._content_id = content_id
        self._fps = fps
        self._append = append
        self._request: Request | None = None
        self._enhanced: tuple[str, ...] = ()
        self._texts: Mapping[str, Json] | None = None
        self._text = request_text(_fields(inputs, model, services.engine.pack.sha256))
        self._reviews = Reviews(
            services.ledger, key=services.keys.commitment_key, public_key=services.keys.ledger_public_key
        )

    @property
    def prompt(self) -> str:
        """What is generated from: the prompt, or what the policy had it rewritten to."""
        rewrite = None if self.decision is None else self.decision.rewrite
        return self._inputs.prompt if rewrite is None else rewrite.prompt

    # -- the request ---------------------------------------------------------------------------------------------------

    def judge_request(self, image: NDArray[np.uint8] | None, video: Clip | None) -> None:
        """Judge all that the call brings, together; BlockedError where it is stopped."""
        inputs, engine = self._inputs, self._services.engine
        self._request = Request(
            inputs.prompt, negative_prompt=inputs.negative_prompt, images=() if image is None else (image,),
            video=video, texts=tuple(_texts(inputs)), clips=tuple(inputs.entrances.clips),
        )  # fmt: skip
        decision = engine.judge(self._request)
        decision = self._consented(decision)
        for name in dict.fromkeys(inputs.entrances.unjudgeable):
            decision = _blocked(decision, "not_judgeable", name)
        if inputs.entrances.embeddings:
            why = refusal(
                inputs.entrances.embeddings, inputs.embeddings_token, inputs.prompt, inputs.negative_prompt,
                self._services.keys, engine.pack.sha256,
            )  # fmt: skip
            if not why and decision.rewrite is not None:
                why = "the policy rewrites their text"
            for name in inputs.entrances.embeddings if why else ():
                decision = _blocked(decision, "embeddings_without_text", name, why)
        self.decision = self._approved(decision, "request")
        if self.decision.action.stops:
            self._refuse(self.decision, "request", "The request was refused")

    def watching(self, pipe: Any) -> AbstractContextManager[None]:
        """Judge what the pipeline's own prompt enhancer makes of the prompt, before the pipeline draws from it."""
        return watch_texts(pipe, self._judge_enhanced)

    def _judge_enhanced(self, made: list[str] | None) -> None:
        assert self._request is not None  # noqa: S101 - the request is judged before the pipeline runs
        known = {text for _, text in self._request.all_texts()} | {self.prompt, *self._enhanced}
        for text in [""] if made is None else made:
            if made is not None and text in known:
                continue
            self._enhanced = (*self._enhanced, text)
            decision = self._consented(self._services.engine.judge(replace(self._request, enhanced_prompt=text)))
            if made is None:
                decision = _blocked(decision, "not_judgeable", "enhanced_prompt")
            if decision.action.stops:
                said: dict[str, Json] = {"enhanced_decision": without_spans(decision)}
                self._refuse(decision, "enhanced", "What the model's enhancer made of the prompt was refused", said)

    def _consented(self, decision: Decision) -> Decision:
        inputs, services = self._inputs, self._services
        if not inputs.consents:
            return decision
        given = Circumstances(
            signers(services.home), revocations(services.ledger), dt.datetime.now(dt.UTC), inputs.project
        )
        assert self._request is not None  # noqa: S101 - set where this is called from
        people = services.engine.people([*self._request.all_texts(), *(("enhanced", t) for t in self._enhanced)])
        decision, self.consents = apply_consents(
            decision, inputs.consents, given, pack=services.engine.pack, people=people, images=_pictured(inputs)
        )
        return decision

    # -- the frames ----------------------------------------------------------------------------------------------------

    def judge_frames(self, frames: NDArray[np.uint8], *, every: bool = False) -> NDArray[np.uint8]:
        """Judge generated frames, uint8 [T, H, W, 3], and return those that may leave; BlockedError where none may.

        ``every``: all of them are looked at, and not as many a second as the pack asks for.

        Where the pack has spans taken out, the result is another clip: its mark is yet to be read back.
        """
        engine, text = self._services.engine, " ".join((self.prompt, *self._enhanced))
        decision = engine.judge_frames(frames, self._fps, text, every=every)
        if repairable(decision):
            repaired = repair(frames, self._fps, decision.spans)
            again = None if repaired is None else engine.judge_frames(repaired, self._fps, text, every=every)
            if repaired is not None and again is not None and not again.action.stops:
                frames, decision = repaired, _mended(decision, again)
        decision = self._approved(decision, "frames")
        self.frames_decision = decision
        if decision.action.stops:
            said: dict[str, Json] = {"frames_decision": without_spans(decision)}
            self._refuse(decision, "frames", f"The generated frames were refused{_when(decision)}", said)
        return frames

    @property
    def alterations(self) -> tuple[str, ...]:
        """What was done to the frames, a sentence each, for the manifest."""
        spans = () if self.frames_decision is None else self.frames_decision.spans
        done = {"pixelate": "pixelated", "drop": "left out"}
        return tuple(
            f"Frames from {s.start_s:.2f} s to {s.end_s:.2f} s {done[s.remedy]} by moderation"
            for s in spans if s.remedy and s.action.stops and self._altered
        )  # fmt: skip

    @property
    def _altered(self) -> bool:
        return self.frames_decision is not None and any(r.view == "repaired" for r in self.frames_decision.reasons)

    # -- people's word -------------------------------------------------------------------------------------------------

    def _approved(self, decision: Decision, stage: Stage) -> Decision:
        """Lift a review that a person has approved for this very request; the approval is used up by it."""
        if decision.action is not Action.REVIEW:
            return decision
        for held in self.approvals:  # a stronger mark's frames are judged again: one run uses an approval once
            if held.covers(decision, stage):
                return _lifted(decision, held)
        answer = self._reviews.answer(self._text, stage, self._inputs.seed, decision)
        if isinstance(answer, Word):
            denial = Reason("denied", Action.BLOCK, 1.0, 1.0, "review", f"entry:{answer.entry}")
            return replace(decision, action=Action.BLOCK, reasons=(denial, *decision.reasons))
        if answer is None or not self._reviews.use(answer, self._content_id):
            return decision
        self.approvals = (*self.approvals, answer)
        return _lifted(decision, answer)

    def _refuse(self, decision: Decision, stage: str, words: str, said: Mapping[str, Json] | None = None) -> NoReturn:
        inputs, services = self._inputs, self._services
        body: dict[str, Json] = {"stage": stage, **(said or {})}
        waits = decision.action is Action.REVIEW and stage in ("request", "frames")
        if decision.action is Action.REVIEW:
            body["request_commitment"] = dict(commit_request(self._text, services.keys.commitment_key))
        entry = self._append("blocked", body, action=decision.action).index
        remedy = f"Recorded as ledger entry {entry}."
        if waits:
            same = f"with --seed {inputs.seed}" if stage == "frames" else "as it is"
            remedy += f" It waits for a person: `safegen review approve {entry}`, then repeat the request {same}."
        raise BlockedError(
            f"{words}: {decision.explanation}.", decision,
            remedy=f"{remedy} `safegen policy check` shows what a prompt triggers.",
        )  # fmt: skip

    def facts(self) -> dict[str, Json]:
        """What every entry about the run says of its moderation; texts in clear only where the pack wants that."""
        inputs = self._inputs
        said: dict[str, Json] = {"decision": None if self.decision is None else without_spans(self.decision)}
        if self.decision is not None and (texts := self._text_records(self.decision)):
            said["texts"] = texts
        if entrances := inputs.entrances.describe():
            said["entrances"] = entrances
        if self.consents:
            said["consents"] = [check.to_json() for check in self.consents]
        if inputs.project:
            said["project"] = inputs.project
        if self.approvals:
            said["approvals"] = [approval.to_json() for approval in self.approvals]
        return said

    def _text_records(self, decision: Decision) -> Mapping[str, Json]:
        """Commitments to the texts beside the prompt, made once, so that all entries of the run hold the same."""
        if self._texts is None:
            asked, pack = self._inputs, self._services.engine.pack
            named = [("prompt", asked.prompt), ("negative_prompt", asked.negative_prompt)]
            made = text_records(pack, decision, named, self._services.keys.commitment_key)
            if not pack.record_clear:
                made.pop("prompt", None)  # every entry holds its commitment anyway
            self._texts = made
        return self._texts

    @property
    def relied_on(self) -> tuple[tuple[str, str], ...]:
        """(id, SHA-256) of the consent records that hold for somebody in this clip, for the manifest."""
        return tuple((check.id, check.digest) for check in self.consents if check.valid)


def without_spans(decision: Decision) -> dict[str, Json]:
    """The decision as the ledger keeps it: a matched span is a piece of the prompt, which is not kept in clear."""
    return replace(decision, reasons=tuple(replace(r, span="") for r in decision.reasons)).to_json()


def _fields(inputs: Inputs, model: str, policy_sha256: str) -> dict[str, Json]:
    """All that a request asks for: whatever differs here is another request, and needs another approval."""
    entrances = inputs.entrances
    embeddings: dict[str, Any] = {name: digest_tensors(name, value) for name, value in entrances.embeddings.items()}
    return {
        "prompt": inputs.prompt, "negative_prompt": inputs.negative_prompt, "mode": inputs.mode,
        "seed": inputs.asked_seed, "image": _file_digest(inputs.image), "video": _file_digest(inputs.video),
        "call": "\n".join(sorted(f"{name}={value}" for name, value in entrances.plain)),
        "texts": "\n".join(f"{name}={text!r}" for name, text in entrances.texts), "entrances": entrances.describe(),
        "embeddings": embeddings, "labels": list(inputs.labels), "model": model, "project": inputs.project,
        "policy_sha256": policy_sha256,
    }  # fmt: skip


def _texts(inputs: Inputs) -> Iterator[tuple[str, str]]:
    """The texts that stand beside the prompts; a negative prompt that the model is drawn towards is judged as one."""
    yield from inputs.entrances.texts
    if inputs.entrances.steers:
        negative = [text for name, text in inputs.entrances.texts if "negative" in name]
        yield from (("prompt_by_guidance", text) for text in (inputs.negative_prompt, *negative) if text.strip())


def _file_digest(path: Any) -> str | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None  # unreadable: what reads it next says so


def _pictured(inputs: Inputs) -> list[str]:
    """Digests of everything that may show somebody: of files, and of pixels where there is no file to name."""
    files = [digest for path in (inputs.image, inputs.video) if (digest := _file_digest(path)) is not None]
    return files + [str(e["sha256"]) for e in inputs.entrances.describe() if isinstance(e, dict) and "sha256" in e]


def _blocked(decision: Decision, category: str, source: str, why: str = "") -> Decision:
    reason = Reason(category, Action.BLOCK, 1.0, 1.0, source, f"engine:{why}" if why else "engine")
    return replace(
        decision, action=Action.BLOCK, reasons=(reason, *decision.reasons), sources=(*decision.sources, source)
    )


def _lifted(decision: Decision, approval: Approval) -> Decision:
    """The decision with its reviews answered; they stay on record as flags."""
    reasons = tuple(replace(r, action=Action.FLAG) if r.action is Action.REVIEW else r for r in decision.reasons)
    word = Reason("approved", Action.FLAG, 1.0, 1.0, "review", f"entry:{approval.word.entry}")
    action = max((r.action for r in (*reasons, word)), key=lambda a: a.severity)
    return replace(decision, action=action, reasons=(*reasons, word))


def _mended(decision: Decision, again: Decision) -> Decision:
    """What is said of a repaired clip: its own decision, and as flags what was there before."""
    before = tuple(replace(r, action=Action.FLAG, view="repaired") for r in decision.reasons if r.action.stops)
    action = max(again.action, Action.FLAG, key=lambda a: a.severity)
    return replace(
        again, action=action, reasons=(*again.reasons, *before), spans=decision.spans,
        milliseconds=again.milliseconds + decision.milliseconds,
    )  # fmt: skip


def _when(decision: Decision) -> str:
    times = [r.time_s for r in decision.reasons if r.action.stops and r.time_s is not None]
    return f" from {min(times):.2f} s on" if times else ""
