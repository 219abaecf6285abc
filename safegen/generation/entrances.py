"""What a call hands to a pipeline, sorted by whether it can be judged: every argument is an entrance for content.

Texts and pictures are judged wherever they hide, by their type and not by their name. Tensors that stand for texts are
accepted with a token that says safegen made them (``safegen.generation.embeddings``). What is left (latents, other
tensors, objects that nobody knows) cannot be judged, and is refused: a new pipeline's new argument is closed until it
is known. What the pipeline gets are copies of what was judged, so that nothing can change in between.
"""

from __future__ import annotations

import dataclasses
import hashlib
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from safegen.errors import InputError
from safegen.generation.step_callback import CallerCallback
from safegen.media import read_clip
from safegen.types import Clip, Json

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Imported where they are used: torch.

RESERVED: Final[Mapping[str, str]] = {"generator": "seed=", "output_type": "output="}
"""Arguments that safegen sets itself, and what to use instead."""

MAX_PICTURES: Final = 1024
MAX_NUMBERS: Final = 4096
_MAX_DEPTH: Final = 4

_EMBEDDING = re.compile(r"embed|attention_mask|cu_seqlens|text_ids")
_PICTURE = re.compile(r"image|video|frame|mask|picture|photo|pose|control|background|reference")
_MOVING = re.compile(r"video|frames")
_GUIDANCE = re.compile(r"guidance|cfg")
_NO_WEIGHT = re.compile(r"rescale|start|end|interval|step")
TENSOR_NAMES: Final = "callback_on_step_end_tensor_inputs"


@dataclass(slots=True)
class Entrances:
    """One call's arguments, sorted. ``call`` is what the pipeline gets, with copies in place of pictures."""

    call: dict[str, Any] = field(default_factory=dict)
    texts: list[tuple[str, str]] = field(default_factory=list)
    clips: list[tuple[str, Clip]] = field(default_factory=list)
    embeddings: dict[str, Any] = field(default_factory=dict)
    unjudgeable: list[str] = field(default_factory=list)
    plain: list[tuple[str, str]] = field(default_factory=list)  # numbers and switches, as Python writes them
    steers: bool = False  # a weight of guidance below 1: the model draws towards the negative prompt, not away from it

    def describe(self) -> list[Json]:
        """Return what was judged beside the prompts, as a record holds it: names and digests, nothing in clear."""
        said: list[Json] = [{"name": name, "kind": "text"} for name, _ in self.texts]
        for name, clip in self.clips:
            said.append({"name": name, "kind": "pictures", "sha256": digest_pixels(clip.frames)})
        return said + [{"name": name, "kind": "embeddings"} for name in sorted(self.embeddings)]


def sort_call(call: Mapping[str, Any], fps: float, *, tensor_names: Sequence[str] = ()) -> Entrances:
    """Return the arguments of a call, sorted; ``fps`` is the rate at which clips among them are drawn.

    ``tensor_names`` are the tensors that the pipeline lets a step callback see. Raises InputError for arguments that
    safegen sets itself, for names of other tensors, and for pictures that cannot be read or are too many.
    """
    for name, instead in RESERVED.items():
        if call.get(name) is not None:
            raise InputError(f"{name} cannot be given to a protected pipeline.", remedy=f"Use {instead}.")
    sorting = _Sorting(Entrances(), fps)
    for name, value in call.items():
        sorting.out.call[name] = (
            _checked_names(value, tensor_names) if name == TENSOR_NAMES else sorting.argument(name, value)
        )
    return sorting.out


@dataclass(frozen=True, slots=True)
class _Sorting:
    out: Entrances
    fps: float
    numbers: list[int] = field(default_factory=lambda: [0])  # of one argument, counted so far

    def argument(self, name: str, value: Any) -> Any:
        self.numbers[0] = 0
        if _EMBEDDING.search(name) and not _is_plain(value):
            own = _own_tensors(value)
            if own is None:  # what looks like a tensor may answer for itself: nobody can say what it holds
                self.out.unjudgeable.append(name)
                return value
            self.out.embeddings[name] = own
            return own
        if name == "callback_on_step_end" and callable(value):
            return CallerCallback(value)
        return self._value(name, name, value, 0)

    def _value(self, where: str, name: str, value: Any, depth: int) -> Any:
        """Sort one value; ``where`` is its full name, ``name`` the last part that is one."""
        if _is_plain(value):
            self.numbers[0] += _count_numbers(value, 0)
            if self.numbers[0] > MAX_NUMBERS:  # many short lists are one long one
                self.out.unjudgeable.append(where)
            self.out.plain.append((where, repr(value)))
            self.out.steers |= bool(_GUIDANCE.search(name) and not _NO_WEIGHT.search(name)) and _is_below_one(value)
            return value
        if isinstance(value, Path) or (isinstance(value, str) and _PICTURE.search(name) and _is_file(value)):
            return self._pictures(where, name, _read_pictures(Path(value)))
        if isinstance(value, str):
            self.out.texts.append((where, value))
            return value
        pictures = _as_pictures(where, value)
        if pictures is not None:
            return self._pictures(where, name, pictures, single=not isinstance(value, list | tuple))
        if depth < _MAX_DEPTH:
            deeper = depth + 1
            if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
                return {key: self._value(f"{where}.{key}", key, item, deeper) for key, item in value.items()}
            if isinstance(value, list | tuple):
                items = [self._value(where, name, item, deeper) for item in value]
                return items if isinstance(value, list) else tuple(items)
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                parts = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
                return dataclasses.replace(
                    value, **{n: self._value(f"{where}.{n}", n, v, deeper) for n, v in parts.items()}
                )
        self.out.unjudgeable.append(where)
        return value

    def _pictures(self, where: str, name: str, pictures: list[Any], *, single: bool = False) -> Any:
        if len(pictures) > MAX_PICTURES:
            raise InputError(f"{where} has {len(pictures)} pictures; the limit is {MAX_PICTURES}")
        try:
            copies = [picture.copy() for picture in pictures]
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for files that it opened unread
            raise InputError(f"a picture in {where} cannot be read: {error}") from error
        moving = len(copies) > 1 and bool(_MOVING.search(name))
        groups: dict[tuple[int, int], list[NDArray[np.uint8]]] = {}
        for picture in copies:
            groups.setdefault(picture.size, []).append(np.asarray(picture.convert("RGB"), np.uint8))
        for frames in groups.values():
            self.out.clips.append((where, Clip(np.stack(frames), self.fps if moving else 0.0)))
        return copies[0] if single and len(copies) == 1 else copies


def _is_plain(value: Any) -> bool:
    """Numbers, switches and short lists of numbers: schedules, sizes, places. Too little to hold a picture."""
    return _count_numbers(value, 0) <= MAX_NUMBERS


def _count_numbers(value: Any, depth: int) -> int:
    if value is None or isinstance(value, numbers.Number):
        return 1
    if isinstance(value, list | tuple) and depth < 2:
        return sum(min(_count_numbers(item, depth + 1), MAX_NUMBERS + 1) for item in value[: MAX_NUMBERS + 1])
    return MAX_NUMBERS + 1


def _is_file(text: str) -> bool:
    try:
        return len(text) < 4096 and Path(text).expanduser().is_file()
    except (OSError, ValueError):
        return False


def _read_pictures(path: Path) -> list[Any]:
    return [Image.fromarray(frame) for frame in read_clip(path.expanduser(), max_frames=MAX_PICTURES).frames]


def _as_pictures(where: str, value: Any) -> list[Any] | None:
    """Return a value's pictures as PIL images: one, a list of them, or uint8 RGB arrays; None where it holds none."""
    if isinstance(value, list | tuple):
        found = [_as_pictures(where, item) for item in value]
        if not value or any(pictures is None or len(pictures) != 1 for pictures in found):
            return None
        return [pictures[0] for pictures in found if pictures]
    if isinstance(value, Image.Image):
        return [value]
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and 0 not in value.shape:
        if value.ndim in (3, 4) and value.shape[-1] == 3:
            frames = value if value.ndim == 4 else value[None]
            if len(frames) > MAX_PICTURES:
                raise InputError(f"{where} has {len(frames)} pictures; the limit is {MAX_PICTURES}")
            return [Image.fromarray(frame) for frame in frames]
        if value.ndim == 2:
            return [Image.fromarray(value)]
    return None


def _checked_names(value: Any, known: Sequence[str]) -> Any:
    """The caller's list of tensors for his callback; InputError unless the pipeline has them all."""
    if value is None:
        return None
    names = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(name, str) and name in known for name in names):
        raise InputError(
            f"{TENSOR_NAMES} names something that the pipeline does not show to callbacks.",
            remedy=f"It shows: {', '.join(known)}." if known else "Leave it out: this pipeline takes no callback.",
        )
    return names


def _own_tensors(value: Any) -> Any:
    """Copies of plain tensors and arrays, one or a list of them, that nobody else holds; None for anything else."""
    import torch

    if isinstance(value, list | tuple):
        items = [_own_tensors(item) for item in value]
        return None if not items or any(item is None for item in items) else type(value)(items)
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        return value.detach().clone()
    return value.copy() if type(value) is np.ndarray else None


def _is_below_one(value: Any) -> bool:
    """Whether a weight, or one of several, is below 1, or no number at all."""
    if isinstance(value, list | tuple):
        return any(_is_below_one(item) for item in value)
    if value is None or isinstance(value, bool):
        return False
    return not (isinstance(value, numbers.Real) and float(value) >= 1)


def digest_pixels(frames: NDArray[np.uint8]) -> str:
    """SHA-256 (hex) over pictures' shape and pixels, uint8 [T, H, W, 3]."""
    shape = "x".join(str(n) for n in frames.shape)
    return hashlib.sha256(shape.encode() + b"\0" + frames.tobytes()).hexdigest()
