"""What is asked of the engine, and what makes it no request at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from safegen.errors import InputError
from safegen.settings import MAX_PROMPT_CHARACTERS
from safegen.types import Clip

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks to generate.

    ``images``: conditioning images, uint8 [H, W, 3] RGB. ``video``: a conditioning clip, or None. ``enhanced_prompt``:
    what a pipeline's own enhancer made of the prompt. ``texts`` and ``clips``: whatever else conditions the call, by
    the name of its argument; texts whose name begins with "negative" are judged like the negative prompt, all others
    like the prompt.
    """

    prompt: str
    negative_prompt: str = ""
    images: tuple[NDArray[np.uint8], ...] = ()
    video: Clip | None = None
    enhanced_prompt: str = ""
    texts: tuple[tuple[str, str], ...] = ()
    clips: tuple[tuple[str, Clip], ...] = ()

    def all_texts(self) -> list[tuple[str, str]]:
        """Return (source, text) of every text that says something; the prompt comes first, even if it is empty."""
        more = (("negative_prompt", self.negative_prompt), ("enhanced_prompt", self.enhanced_prompt), *self.texts)
        return [("prompt", self.prompt), *((name, text) for name, text in more if text.strip())]


def check_request(request: Request, where: str = "") -> None:
    """Raise InputError, opened by ``where``, unless the request can be judged."""
    texts = (("prompt", request.prompt), ("negative prompt", request.negative_prompt))
    for name, text in (*texts, ("enhanced prompt", request.enhanced_prompt), *request.texts):
        if not isinstance(text, str):
            raise InputError(f"{where}the {name} must be text, not {type(text).__name__}")
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise InputError(f"{where}the {name} has {len(text)} characters; the limit is {MAX_PROMPT_CHARACTERS}")
    if not request.prompt.strip():
        raise InputError(f"{where}the prompt is empty", remedy="Describe the video in a few words.")
    for image in request.images:
        check_frames(image[None] if isinstance(image, np.ndarray) else image, 0.0)
    if request.video is not None:
        check_frames(request.video.frames, request.video.fps)
    for _, clip in request.clips:
        check_frames(clip.frames, clip.fps)


def check_frames(frames: object, fps: float) -> None:
    """Raise InputError unless ``frames`` is a uint8 array [T, H, W, 3] that holds something."""
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise InputError("frames must be a uint8 array [T, H, W, 3] in RGB (images: [H, W, 3])")
    if 0 in frames.shape:
        raise InputError("there are no frames to judge")
    if not (math.isfinite(fps) and fps >= 0):
        raise InputError(f"frames per second must be zero or more, not {fps}")
