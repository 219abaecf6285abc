"""The steps of one run, from a judged request to a released file. ``generation.pipeline`` says what they are."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from safegen.calibration.vaes import remember_vae
from safegen.errors import BlockedError, CancelledError, InputError, LedgerError, SafegenError
from safegen.files import Scratch, Target, uninterrupted
from safegen.generation.input_credentials import check_input_credentials
from safegen.generation.moderation import Moderation, without_spans
from safegen.generation.request import Generated, Inputs, Source
from safegen.generation.services import Services
from safegen.generators import model_facts, resolve, sample
from safegen.keys import commit_text
from safegen.ledger import Event
from safegen.likeness import binding_of_look
from safegen.media import probe, read_clip
from safegen.privacy.fields import split_run, subject_of_run
from safegen.provenance.manifest import GeneratorModel, InputFile, ManifestSpec, MediaFormat, Relationship, SoftBinding
from safegen.provenance.manifest import Mode as ManifestMode
from safegen.release.labelling import Labelling
from safegen.release.marking import VAE_SCHEMES, Marking, MarkRequest, make_marking
from safegen.release.outgoing import Outgoing
from safegen.release.stopwatch import Stopwatch
from safegen.types import Clip, Decision, Json, new_content_id, soft_binding_alg

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safegen.generation.step_callback import CallerCallback
    from safegen.generators import ModelRef
    from safegen.generators.probing import ProbeWatch
    from safegen.ledger import Receipt

# Imported where they are used: what loads torch.

MAX_SOURCE_FRAMES = 257
"""Frames taken from a source clip where the call does not say how many it uses."""


class Run:
    """One request on its way through the steps. Each step is a method; ``go`` is their order."""

    def __init__(self, source: Source, services: Services, inputs: Inputs, target: Target, watch: Stopwatch) -> None:
        self._source = source
        self._services = services
        self._inputs = inputs
        self._target = target
        self._watch = watch
        self._content_id = new_content_id()
        self._facts: Mapping[str, str] = {}
        self._kept_as = ""  # the name that finds the model, and so its VAE, again
        self._commitment = commit_text(inputs.prompt, services.keys.commitment_key)
        self._moderation = Moderation(
            services, inputs, content_id=self._content_id, model=_model_named(source), fps=source.fps,
            append=self._append,
        )  # fmt: skip
        self._probes_decision: Decision | None = None
        self._callback: CallerCallback | None = None
        self._labelling = Labelling.plan(
            services.engine.pack, inputs.labels, self._content_id, producer=services.keys.ledger_name, call=inputs.call,
            modified=inputs.mode == "video",
        )  # fmt: skip

    def go(self) -> Generated:
        """Run steps (2) to (7)."""
        inputs = self._inputs
        if inputs.subject or inputs.project or self._services.engine.pack.record_clear:
            self._services.personal.ready()  # what cannot be kept as it must is not asked for
        with self._recorded():
            image, video = self._judge_request()
            with self._watch.stage("load_model"):
                self._watch.progress("loading the model", 0, 1)
                pipe = self._source.load(self._inputs.mode)
                self._facts = _model_facts(self._source.ref, pipe)
                self._kept_as = _model_source(self._source.ref, pipe)
                self._watch.progress("loading the model", 1, 1)
            marking, sampled = self._sample(pipe, image, video)
            with self._target.scratch() as scratch:
                return self._release(pipe, marking, sampled, scratch)

    # -- (2) and (4): moderation ---------------------------------------------------------------------------------------

    def _judge_request(self) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None]:
        inputs = self._inputs
        check_input_credentials(path for path in (inputs.image, inputs.video) if path is not None)
        image = video = None
        if inputs.image is not None:
            image = read_clip(inputs.image, max_frames=1).frames[0]
        if inputs.video is not None:
            video = self._read_source(inputs.video)
        with self._watch.stage("moderate_prompt"):
            self._moderation.judge_request(image, video)
        return image, None if video is None else video.frames

    def _read_source(self, path: Path) -> Clip:
        """Read as much of a source clip as the call draws, at the frame rate that it is drawn at."""
        fps = probe(path).fps or self._source.fps
        wanted = self._inputs.call.get("num_frames", MAX_SOURCE_FRAMES)
        clip = read_clip(path, max_frames=math.ceil(wanted * fps / self._source.fps))
        times = [round(i * fps / self._source.fps) for i in range(wanted)]
        return Clip(clip.frames[[t for t in times if t < len(clip.frames)]], self._source.fps)

    def _judge_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with self._watch.stage("moderate_frames"):
            return self._moderation.judge_frames(frames, every=self._from_caller)

    @property
    def _from_caller(self) -> bool:
        """Whether the caller's own step callback has had a hand in the latents."""
        return self._callback is not None and self._callback.changed

    def _refuse(self, decision: Decision, words: str, body: Mapping[str, Json]) -> NoReturn:
        """Record what a probe stopped; nobody can approve that, for what it saw is not kept."""
        entry = self._append("blocked", {"stage": "probes", **body}, action=decision.action).index
        raise BlockedError(f"{words}: {decision.explanation}.", decision, remedy=f"Recorded as ledger entry {entry}.")

    # -- (3) generation ------------------------------------------------------------------------------------------------

    def _sample(
        self, pipe: Any, image: NDArray[np.uint8] | None, video: NDArray[np.uint8] | None
    ) -> tuple[Marking, NDArray[np.uint8]]:
        from safegen.generators.probing import StoppedError

        inputs, call = self._inputs, dict(self._inputs.call)
        self._callback = call.pop("callback_on_step_end", None)
        request = MarkRequest(
            self._content_id, self._services.keys.watermark_key, self._kept_as, call, inputs.seed, self._services.home,
            self._watch.reporter("embedding the mark"), self._callback,
        )  # fmt: skip
        try:
            probes = self._probes(pipe, call)
            with self._watch.stage("prepare_mark"):
                marking = make_marking(self._source.scheme, pipe, request)
            start = time.perf_counter()
            with self._moderation.watching(pipe):
                frames = sample(
                    pipe, call | marking.arguments(), prompt=self._moderation.prompt,
                    negative_prompt=inputs.negative_prompt, seed=inputs.seed, image=image, video=video,
                    callback=marking.on_step_end, progress=self._watch.reporter("generating"), probes=probes,
                )  # fmt: skip
        except StoppedError as stopped:
            spent: dict[str, Json] = {"done": stopped.steps_done, "of": stopped.steps or None}
            when = f"after {stopped.steps_done} of {stopped.steps} steps" if stopped.steps_done else "before any step"
            body = {"probes_decision": without_spans(stopped.decision), "steps": spent}
            self._refuse(stopped.decision, f"The generation was stopped {when}", body)
        self._watch.add("generate", time.perf_counter() - start - marking.seconds)
        self._probes_decision = None if probes is None else probes.decision
        return marking, frames

    def _probes(self, pipe: Any, call: Mapping[str, Any]) -> ProbeWatch | None:
        """Return what asks the probes during this run, None where nobody wants any."""
        from safegen.generators.probing import ProbeWatch
        from safegen.watermark.layouts import call_shape

        if not self._services.probes.held:
            return None
        with self._watch.stage("prepare_probes"):
            return ProbeWatch(pipe, self._services.probes, call_shape(pipe, call))

    # -- (4) to (7): judged, encoded, read back, signed, recorded, placed ----------------------------------------------

    def _release(self, pipe: Any, marking: Marking, sampled: NDArray[np.uint8], scratch: Scratch) -> Generated:
        inputs, services = self._inputs, self._services
        outgoing = Outgoing(
            self._content_id, services.home, services.keys, services.seal, target=self._target, scratch=scratch,
            labelling=self._labelling, fps=self._source.fps, has_inputs=inputs.mode != "text", watch=self._watch,
        )  # fmt: skip
        marked = outgoing.mark(marking, sampled, self._judge_frames)
        decision, frames_decision = self._moderation.decision, self._moderation.frames_decision
        assert decision is not None and frames_decision is not None  # noqa: S101, PT018 - steps (2), (4)
        signed = outgoing.sign(self._manifest(marked.mark, outgoing))
        if marked.mark["scheme"] in VAE_SCHEMES:
            self._remember_vae(pipe, marked.frames, marked.mark)
        receipt = outgoing.release(
            signed, self._append, "generated",
            {
                "mark": dict(marked.mark),
                "frames_decision": without_spans(frames_decision),
                "shape": [int(n) for n in marked.frames.shape[:3]],
                **self._made_from(),
                **self._probed(),
                **({"latents_from_caller": self._callback.to_json()} if self._callback and self._from_caller else {}),
            },
            action=decision.action,
        )  # fmt: skip
        return Generated(
            output=self._target.path, content_id=self._content_id, entry=receipt.index, decision=decision,
            frames_decision=frames_decision, mark=marked.mark, manifest_id=signed.manifest_id,
            sha256=signed.sha256,
            mode=inputs.mode, seed=inputs.seed, model=self._facts, milliseconds=self._watch.milliseconds,
            checkpoint=receipt.checkpoint, probes_decision=self._probes_decision,
            consents=tuple(name for name, _ in self._moderation.relied_on),
            approvals=tuple(approval.word.entry for approval in self._moderation.approvals),
        )  # fmt: skip

    def _manifest(self, mark: Mapping[str, Json], outgoing: Outgoing) -> ManifestSpec:
        inputs = self._inputs
        ingredients = []
        if inputs.image is not None:
            ingredients.append(InputFile(inputs.image, Relationship.INPUT))
        if inputs.video is not None:
            ingredients.append(InputFile(inputs.video, Relationship.PARENT))
        return ManifestSpec(
            # The file's own name may tell the prompt, so the title is the content id.
            title=f"safegen {self._content_id}",
            media_format=MediaFormat.PNG if self._target.still else MediaFormat.MP4,
            mode=ManifestMode(f"{inputs.mode}-to-video"),
            model=GeneratorModel(self._facts["name"], self._facts["id"], self._facts["version"]),
            content_id=self._content_id,
            when=dt.datetime.now(dt.UTC),
            soft_binding=SoftBinding(soft_binding_alg(str(mark["scheme"])), self._content_id),
            fingerprint=binding_of_look(mark["video_hash"]),
            prompt_commitment={k: v for k, v in self._commitment.items() if k != "salt"},
            ingredients=tuple(ingredients),
            visible_labels=outgoing.visible_labels,
            metadata_labels=outgoing.metadata_labels,
            consents=self._moderation.relied_on,
            alterations=self._moderation.alterations,
        )

    def _made_from(self) -> dict[str, Json]:
        """What the entry says about the files that the clip was made from; nothing where there are none."""
        found: list[Json] = []
        for role, path in (("image", self._inputs.image), ("video", self._inputs.video)):
            if path is not None:
                with path.open("rb") as file:
                    found.append({"role": role, "sha256": hashlib.file_digest(file, "sha256").hexdigest()})
        return {"inputs": found} if found else {}

    def _probed(self) -> dict[str, Json]:
        decision = self._probes_decision
        return {} if decision is None else {"probes_decision": without_spans(decision)}

    def _remember_vae(self, pipe: Any, frames: NDArray[np.uint8], mark: Mapping[str, Json]) -> None:
        from safegen.watermark.fastvae import vae_digest

        count, height, width = (int(n) for n in frames.shape[:3])
        scheme = str(mark["scheme"])
        remember_vae(self._services.home, vae_digest(pipe.vae), self._kept_as, scheme, (count, height, width))

    # -- the ledger ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """Record how a run ended that did not end well, and turn Ctrl-C into CancelledError."""
        try:
            yield
        except BlockedError:
            raise  # recorded where it was decided
        except KeyboardInterrupt:
            with uninterrupted():
                self._append("cancelled", {})
            raise CancelledError("Cancelled; no file was written.") from None
        except InputError:
            raise  # nothing was attempted
        except LedgerError:
            raise  # the ledger itself is what failed
        except BaseException as error:
            try:
                self._append("failed", {"error": type(error).__name__})
            except SafegenError as second:
                error.add_note(f"This failure could not be recorded either: {second}")
            raise

    def _append(self, kind: str, body: Mapping[str, Json], **columns: str) -> Receipt:
        """Append an entry about this run; the request's facts stand in every one of them."""
        inputs = self._inputs
        facts: dict[str, Json] = {
            "mode": inputs.mode,
            "seed": inputs.seed,
            "prompt_commitment": dict(self._commitment),
            "model": dict(self._facts) or None,
            "call": {k: v for k, v in inputs.call.items() if isinstance(v, bool | int | float)},
        } | self._moderation.facts()
        said, personal = split_run(facts | dict(body), inputs.subject)
        event = Event(
            kind=kind, content_id=self._content_id, body=said, model=self._facts.get("id"),
            policy_sha256=self._services.engine.pack.sha256, **columns,
        )  # fmt: skip
        return self._services.personal.append(event, subject_of_run(inputs.subject, self._content_id), personal)


def _model_facts(ref: ModelRef | None, pipe: Any) -> dict[str, str]:
    """What manifest and ledger say about the model. Where it lies on this machine is nobody's business."""
    if ref is not None:
        return model_facts(ref)
    name = type(pipe).__name__
    return {"name": name, "id": f"pipeline:{name}", "pipeline": name, "version": "unknown", "license": ""}


def _model_named(source: Source) -> str:
    """Which model a request is for, before its weights are loaded: an approval is for that one alone."""
    if source.ref is not None:
        facts = model_facts(source.ref)
        return f"{facts['id']} {facts['version']}"
    return "pipeline"


def _model_source(ref: ModelRef | None, pipe: Any) -> str:
    """The name under which ``safegen.generators.resolve`` finds the model again, or "" for one that is nowhere kept."""
    if ref is not None:
        return ref.source if ref.kind == "path" else ref.name
    name = str(pipe.config.get("_name_or_path") or "")
    try:
        resolve(name)
    except SafegenError:
        return ""
    return name
