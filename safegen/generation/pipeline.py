"""From a prompt to a file that can be trusted: moderate, generate with the mark, check, encode, sign, record.

    import safegen

    made = safegen.generate("a red ball bouncing on grass at sunset", output="clip.mp4")

    safe = safegen.protect(my_diffusers_pipeline)
    made = safe("a red ball bouncing on grass at sunset", output="clip.mp4", num_inference_steps=30)

Both run the same steps in the same order, and nothing leaves unless all of them have happened:

 (1) the output path, the inputs and the sizes are checked; no weights are loaded yet;
 (2) the prompt and every conditioning input are judged by the policy; a refusal is recorded and ends here;
 (3) the model generates, watched by probes where policy or call ask for them, and the embedder puts the mark into its
     latents inside the denoising loop;
 (4) the frames are judged;
 (5) labels that policy or call ask for are drawn, the frames are encoded, and the mark is read back from the encoded
     file by the blind extractor;
 (6) an AIGC record is written where one is due, the file is signed (C2PA), the manifest store is kept, the ledger
     entry is committed;
 (7) only then the file takes its name.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from safegen.consent.record import read_consent
from safegen.errors import InputError
from safegen.files import Target
from safegen.generation.entrances import sort_call
from safegen.generation.request import Generated, Inputs, Mode, Source
from safegen.generation.run import Run
from safegen.generation.services import Services
from safegen.generators import Card, call_defaults, check_call, load, parse_size, resolve
from safegen.privacy.fields import check_requester
from safegen.release.stopwatch import Stopwatch
from safegen.settings import Home
from safegen.types import Progress

__all__ = ["Generated", "ProtectedPipeline", "generate", "protect"]

MAX_SEED = 2**32 - 1

Consents: TypeAlias = "str | Path | Sequence[str | Path]"
"""Files of consent records: one, or several."""


def generate(
    prompt: str,
    *,
    output: str | Path,
    negative_prompt: str = "",
    seed: int | None = None,
    frames: int | None = None,
    size: str | tuple[int, int] | None = None,
    steps: int | None = None,
    image: str | Path | None = None,
    video: str | Path | None = None,
    model: str = "tiny",
    policy: str | Path = "default",
    labels: Sequence[str] = (),
    probes: Sequence[str | Path] = (),
    consent: Consents = (),
    project: str = "",
    subject: str = "",
    force: bool = False,
    home: Home | None = None,
    progress: Progress | None = None,
) -> Generated:
    """Generate a clip with ``model`` and write it to ``output``: moderated, marked, signed and recorded.

    ``size`` is "WIDTHxHEIGHT" or (width, height) in pixels; size, ``frames`` and ``steps`` default to the model's card.
    ``image`` is the first frame (image-to-video), ``video`` the source (video-to-video). ``output`` ends in ``.mp4``,
    or in ``.png`` for one frame. ``labels`` adds visible labels ("eu", "cn", "in"; docs/labels.md) to the policy's own,
    ``probes`` names or files of probes that may stop the run early (docs/probes.md). ``consent``: files of consent
    records for persons whom the clip depicts, ``project`` what the clip is for, where they ask (docs/consent.md).
    ``subject`` names for whom it is made, by an account's id, say: the ledger keeps that and the like under a key of
    theirs, which can be destroyed (docs/privacy.md).

    Raises InputError for unusable arguments, BlockedError where the policy stops the request (it carries the decision
    and is recorded), CancelledError on Ctrl-C (recorded), and other SafegenErrors where something could not run; in all
    of these cases no file is left.
    """
    ref = resolve(model)
    wanted = parse_size(size) if isinstance(size, str) else size
    card = Card.read(ref)
    call = card.resolve(size=wanted, frames=frames, steps=steps)
    source = Source(lambda mode: load(ref, mode=mode), ref=ref, fps=card.fps)
    protected = ProtectedPipeline(source, policy=policy, home=home, probes=probes)
    return protected(
        prompt, output=output, negative_prompt=negative_prompt, seed=seed, image=image, video=video,
        labels=labels, consent=consent, project=project, subject=subject, force=force, progress=progress, **call,
    )  # fmt: skip


def protect(
    pipe: Any,
    *,
    fps: float = 16.0,
    scheme: str | None = None,
    policy: str | Path = "default",
    probes: Sequence[str | Path] = (),
    home: Home | None = None,
) -> ProtectedPipeline:
    """Wrap a diffusers video pipeline that you have loaded already.

    The result is called like the pipeline, with ``output=`` and ``seed=`` beside its own arguments, and writes a file
    instead of returning frames. ``fps`` is the frame rate of what the pipeline draws. ``scheme`` names the watermark
    scheme; by default the in-latent one, or the pixel one where the pipeline's latents are out of reach. ``probes`` are
    asked besides the policy's own. Raises InputError for what is no loaded pipeline.
    """
    if isinstance(pipe, type) or not callable(pipe) or not hasattr(pipe, "components"):
        what = f"the class {pipe.__name__}" if isinstance(pipe, type) else f"a {type(pipe).__name__}"
        raise InputError(
            f"protect needs a diffusers pipeline that is loaded, and got {what}.",
            remedy="Load it first: DiffusionPipeline.from_pretrained(...). safegen.generate(model=...) takes a name.",
        )
    source = Source(lambda _mode: pipe, ref=None, fps=fps, scheme=scheme, defaults=call_defaults(pipe))
    return ProtectedPipeline(source, policy=policy, home=home, probes=probes)


class ProtectedPipeline:
    """A video pipeline that nothing leaves unchecked, unmarked or unrecorded. Made by ``protect`` or ``generate``."""

    def __init__(
        self,
        source: Source,
        *,
        policy: str | Path = "default",
        home: Home | None = None,
        probes: Sequence[str | Path] = (),
    ) -> None:
        self._source = source
        self._policy = policy
        self._probes = tuple(probes)
        self._home = home or Home.default()

    def __call__(
        self,
        prompt: str,
        *,
        output: str | Path,
        negative_prompt: str = "",
        seed: int | None = None,
        image: str | Path | None = None,
        video: str | Path | None = None,
        labels: Sequence[str] = (),
        consent: Consents = (),
        project: str = "",
        subject: str = "",
        embeddings_token: str = "",
        force: bool = False,
        progress: Progress | None = None,
        **call: Any,
    ) -> Generated:
        """Run the steps of the module's docstring once. ``call`` holds further arguments of the pipeline's own.

        Texts and pictures among them are judged with the prompt. Embeddings need the ``embeddings_token`` that
        ``safegen.embed`` made for them. Raises as ``safegen.generate`` does; BlockedError too for what cannot be judged
        (``safegen.generation.entrances``).
        """
        if not isinstance(prompt, str) or not isinstance(negative_prompt, str):
            raise InputError("A prompt must be one text.", remedy="Call once per clip: each has its own mark.")
        call = {**self._source.defaults, **call}
        if image is not None and video is not None:
            raise InputError("Both an image and a video were given.", remedy="Give one of them, or none.")
        mode: Mode = "image" if image is not None else "video" if video is not None else "text"
        asked_seed = seed
        if seed is None:
            seed = secrets.randbelow(MAX_SEED + 1)
        elif not 0 <= seed <= MAX_SEED:
            raise InputError(f"The seed {seed} is out of range.", remedy=f"Use 0 to {MAX_SEED}.")
        target = Target.check(Path(output), suffix=".png" if call.get("num_frames") == 1 else ".mp4", force=force)
        subject = check_requester(subject)

        loaded = self._source.load(mode) if self._source.ref is None else None
        names = getattr(loaded, "_callback_tensor_inputs", ())
        entrances = sort_call(call, self._source.fps, tensor_names=names)
        watch = Stopwatch(progress)
        with watch.stage("open"):
            services = Services.open(self._home, self._policy, self._probes)
        with services.ledger:
            if loaded is not None:
                check_call(loaded, call)
            request = Inputs(
                prompt, negative_prompt, mode, seed, _path(image), _path(video), entrances.call, tuple(labels),
                entrances, tuple(read_consent(path) for path in _paths(consent)), project, embeddings_token, asked_seed,
                subject,
            )  # fmt: skip
            return Run(self._source, services, request, target, watch).go()


def _paths(consent: Consents) -> tuple[str | Path, ...]:
    return (consent,) if isinstance(consent, str | Path) else tuple(consent)


def _path(value: str | Path | None) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | Path):
        raise InputError(
            f"Conditioning inputs are given as files, not as {type(value).__name__}.",
            remedy="Save it first: its own credential, if it has one, becomes part of the clip's.",
        )
    return Path(value).expanduser()
