"""The attacks on a mark, by name and in lists: those that others' papers and benchmarks use, and our own.

Every attack is a pure function of a clip, a seed and, for a few, a context: further clips, or models to redraw with.
Frames are uint8 RGB ``[T, H, W, 3]``; what an attack returns may be longer, shorter, larger or smaller.

* ``SEAL``: VideoSeal's validation list for video (OmniSealBench's too), parameters unchanged, and the attacks in time
  that its source defines but does not run.
* ``TEMPORAL``: VideoShield's, VideoMark's and SIGMark's edits in time (run lengths scaled from SIGMark's 65 frames to
  the clip's), trims, changes of speed and of frame rate.
* ``BENCH``: VideoMarkBench's perturbations and strengths, less the attacks that need thousands of queries.
* ``VIDSIG``: VidSig's list; its script takes most strengths as arguments, so those are ours where they are not named.
* ``OURS``: chains of real encoders, borders, inserts, overlays, a filmed screen, splices, redrawing, averaging, marking
  again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.watermark import edits, pixels, timeline
from benchmarks.watermark.codecs import Frames, transcode
from safegen.types import Clip

FAMILIES = ("identity", "valuemetric", "geometric", "compression", "temporal", "compound")


class UnavailableError(Exception):
    """This attack needs something that the context does not bring; the message says what."""


@dataclass(frozen=True)
class Context:
    """What some attacks need besides the clip. Every part may be missing: the attack is then unavailable."""

    other: Frames | None = None  # a clip of the same key that carries another payload
    unmarked: Frames | None = None
    pairs: Sequence[tuple[Frames, Frames]] = ()  # other clips of the key, marked, each with its unmarked twin
    redraw: Callable[[Frames, float, int], Frames] | None = None  # video-to-video: frames, strength, seed
    own_vae: Callable[[Frames], Frames] | None = None  # encode and decode by the generator's own VAE
    other_vae: Callable[[Frames], Frames] | None = None
    mark_again: Callable[[Frames], Frames] | None = None  # with a second key and another payload


NOTHING = Context()
Change = Callable[[Clip, np.random.Generator, Context], Clip]


@dataclass(frozen=True)
class Attack:
    """One attack. Call it with a clip and a seed; the same seed gives the same frames."""

    name: str
    family: str
    change: Change

    def __call__(self, clip: Clip, seed: int, context: Context = NOTHING) -> Clip:
        """Return the attacked clip; UnavailableError if ``context`` lacks what it needs."""
        return self.change(clip, np.random.default_rng([seed, zlib.crc32(self.name.encode())]), context)


# How the functions of the other modules become changes: by frame, by clip, with dice, through an encoder.


def _frame(function: Callable[..., pixels.Picture], *parameters: Any) -> Change:
    return lambda clip, _rng, _context: Clip(edits.each(clip.frames, function, *parameters), clip.fps)


def _dice_frame(function: Callable[..., pixels.Picture], *parameters: Any) -> Change:
    return lambda clip, rng, _context: Clip(edits.each(clip.frames, function, rng, *parameters), clip.fps)


def _clip(function: Callable[..., Frames], *parameters: Any, **named: Any) -> Change:
    return lambda clip, _rng, _context: Clip(function(clip.frames, *parameters, **named), clip.fps)


def _dice(function: Callable[..., Frames], *parameters: Any, **named: Any) -> Change:
    return lambda clip, rng, _context: Clip(function(clip.frames, rng, *parameters, **named), clip.fps)


def _codec(codec: str, crf: int | None, fps: float | None = None) -> Change:
    return lambda clip, _rng, _context: Clip(transcode(clip.frames, fps or clip.fps, codec, crf), clip.fps)


def _chain(*changes: Change) -> Change:
    def change(clip: Clip, rng: np.random.Generator, context: Context) -> Clip:
        for one in changes:
            clip = one(clip, rng, context)
        return clip

    return change


def _needed(value: Any, what: str) -> Any:
    if value is None:
        raise UnavailableError(f"needs {what}")
    return value


def _with_clip(function: Callable[[Frames, Frames], Frames], name: str) -> Change:
    what = {"other": "a clip with another payload", "unmarked": "unmarked footage"}[name]
    return lambda clip, _rng, context: Clip(function(clip.frames, _needed(getattr(context, name), what)), clip.fps)


def _with_model(name: str, what: str, *parameters: Any) -> Change:
    return lambda clip, _rng, context: Clip(_needed(getattr(context, name), what)(clip.frames, *parameters), clip.fps)


def _averaged(count: int) -> Change:
    def change(clip: Clip, _rng: np.random.Generator, context: Context) -> Clip:
        if len(context.pairs) < count:
            raise UnavailableError(f"needs {count} other clips of the key")
        return Clip(edits.subtract(clip.frames, edits.mean_residue(context.pairs, count)), clip.fps)

    return change


def _size(ratio: float) -> Change:
    """Enlarge or shrink by a ratio, to even edges as video players need them."""

    def change(clip: Clip, _rng: np.random.Generator, _context: Context) -> Clip:
        height, width = (max(2, 2 * round(n * ratio / 2)) for n in clip.frames.shape[1:3])
        return Clip(edits.fit(clip.frames, height, width), clip.fps)

    return change


def _back_to_size(inner: Change) -> Change:
    def change(clip: Clip, rng: np.random.Generator, context: Context) -> Clip:
        return Clip(edits.fit(inner(clip, rng, context).frames, *clip.frames.shape[1:3]), clip.fps)

    return change


valuemetric, geometric = partial(Attack, family="valuemetric"), partial(Attack, family="geometric")
compression, temporal = partial(Attack, family="compression"), partial(Attack, family="temporal")
compound = partial(Attack, family="compound")

IDENTITY = Attack("identity", "identity", lambda clip, _rng, _context: clip)
BRIGHTNESS = {f: valuemetric(f"brightness_{f}", change=_frame(pixels.brightness, f)) for f in (0.5, 1.5)}
CONTRAST = {f: valuemetric(f"contrast_{f}", change=_frame(pixels.contrast, f)) for f in (0.5, 1.5)}
SATURATION = {f: valuemetric(f"saturation_{f}", change=_frame(pixels.saturation, f)) for f in (0.5, 1.5)}
HUE = valuemetric("hue_0.25", change=_frame(pixels.hue, 0.25))
JPEG = {q: compression(f"jpeg_{q}", change=_frame(pixels.jpeg, q)) for q in (90, 80, 60, 40, 20)}
NOISE = {s: valuemetric(f"noise_{s}", change=_dice_frame(pixels.noise, s)) for s in (0.01, 0.05, 0.1, 0.15, 0.2)}
DROP_ONE = temporal("drop_1", change=_dice(timeline.drop, 1))
SWAP_TWO = temporal("swap_random_two", change=_dice(timeline.swap_two))
INSERT_COPY = temporal("insert_copy", change=_dice(timeline.insert_copy))
INSERT_NOISE = temporal("insert_noise", change=_dice(timeline.insert_noise))
AVERAGE = {n: temporal(f"window_average_{n}", change=_clip(timeline.average, n)) for n in (2, 3, 4, 5)}

_FPS = 24  # VideoSeal writes at 24, and the rate control of the encoders depends on it

SEAL: tuple[Attack, ...] = (
    IDENTITY,
    geometric("hflip", change=_frame(pixels.mirror)),
    *(geometric(f"rotate_{a}", change=_frame(pixels.rotate, a)) for a in (10, 90)),
    *(geometric(f"resize_{r}", change=_frame(pixels.scale, r)) for r in (0.55, 0.71)),
    *(geometric(f"crop_{r}", change=_dice(edits.crop, r)) for r in (0.55, 0.71)),
    geometric("perspective_0.5", change=_dice(edits.perspective, 0.5)),
    *BRIGHTNESS.values(),
    *CONTRAST.values(),
    *SATURATION.values(),
    HUE,
    valuemetric("grayscale", change=_frame(pixels.grey)),
    JPEG[40],
    valuemetric("gaussian_blur_9", change=_frame(pixels.kernel_blur, 9)),
    valuemetric("median_9", change=_frame(pixels.median, 9)),
    *(
        compression(f"{c}_crf{q}", change=_codec(c, q, _FPS))
        for c in ("h264", "h264rgb", "h265")
        for q in (23, 30, 40, 50)
    ),
    # Upstream asks VP9 for no quality and gets its binding's 1 Mbit/s, next to lossless here; ffmpeg's own is CRF 32.
    compression("vp9", change=_codec("vp9", None, _FPS)),
    *(
        compound(
            f"h264_crf{q}+crop_0.71+brightness_0.5",
            change=_chain(_codec("h264", q, _FPS), _dice(edits.crop, 0.71), _frame(pixels.brightness, 0.5)),
        )
        for q in (23, 30, 40, 50)
    ),
    # Defined upstream, but not run there. Its speed of 2 keeps the first half and doubles every frame; ours is a speed.
    temporal("speed_0.5", change=_clip(timeline.resample, 2.0)),
    temporal("speed_2", change=_clip(timeline.resample, 0.5)),
    AVERAGE[3],
    *(temporal(f"neighbour_{p}", change=_dice(timeline.replace_by_neighbour, p)) for p in (0.2, 0.5)),
    *(temporal(f"drop_{p}", change=_dice(timeline.drop_share, p)) for p in (0.2, 0.5)),
    temporal("reorder_4_0.7", change=_dice(timeline.reorder, 4, 0.7)),
)

TEMPORAL: tuple[Attack, ...] = (
    IDENTITY,
    temporal("swap_every_4th_pair", change=_clip(timeline.swap_pairs, 4)),
    INSERT_COPY,
    INSERT_NOISE,
    DROP_ONE,
    SWAP_TWO,
    temporal("sigmark_drop_groups", change=_dice(timeline.drop_groups, 5, 6 / 65)),
    temporal("sigmark_insert_groups", change=_dice(timeline.insert_groups, 5, 6 / 65)),
    temporal("sigmark_cut", change=_dice(timeline.cut, 30 / 65, head=False)),
    temporal("sigmark_cut_head", change=_dice(timeline.cut, 30 / 65, head=True)),
    *(temporal(f"trim_{p}", change=_dice(timeline.trim, 1 - p / 100, 1)) for p in (25, 50, 75)),
    temporal("fps_24_16_24", change=_clip(timeline.rates, 2 / 3, 3 / 2)),
    temporal("fps_16_24", change=_clip(timeline.resample, 3 / 2)),
    temporal("fps_24_30", change=_clip(timeline.resample, 5 / 4)),
    temporal("fps_16_24_blended", change=_clip(timeline.blend, 3 / 2)),
    temporal("reverse", change=_clip(timeline.reverse)),
    *(temporal(f"speed_{s}", change=_clip(timeline.resample, 1 / s)) for s in (0.8, 1.25)),
)

BENCH: tuple[Attack, ...] = (
    IDENTITY,
    *NOISE.values(),
    *(valuemetric(f"blur_sigma_{s}", change=_frame(pixels.blur, s)) for s in (0.1, 0.5, 1.0, 1.5)),
    *JPEG.values(),
    *(
        geometric(f"crop_and_resize_{r:.2f}", change=_dice(edits.crop_and_resize, r))
        for r in (0.98, 0.96, 0.94, 0.92, 0.9)
    ),
    *AVERAGE.values(),
    *(temporal(f"swap_p_{p:.2f}", change=_dice(timeline.swap_neighbours, p)) for p in (0.05, 0.1, 0.15, 0.2)),
    *(temporal(f"remove_p_{p:.2f}", change=_dice(timeline.remove, p)) for p in (0.05, 0.1, 0.15, 0.2)),
    *(compression(f"h264_own_fps_crf{q}", change=_codec("h264", q)) for q in (18, 28, 36)),
)

VIDSIG: tuple[Attack, ...] = (
    IDENTITY,
    NOISE[0.05],
    valuemetric("salt_and_pepper_0.05", change=_dice_frame(pixels.salt_and_pepper, 0.05)),
    *BRIGHTNESS.values(),
    *CONTRAST.values(),
    *SATURATION.values(),
    HUE,
    *(valuemetric(f"gamma_{g}", change=_frame(pixels.gamma, g)) for g in (0.5, 1.5)),
    valuemetric("sharpness_2", change=_frame(pixels.sharpness, 2.0)),
    valuemetric("blur_9_sigma_2", change=_frame(pixels.blur, 2.0, 9)),
    *(geometric(f"resize_area_{a}", change=_frame(pixels.scale, a**0.5)) for a in (0.5, 0.3)),
    *(geometric(f"crop_centre_area_{a}", change=_clip(edits.crop_centre, a)) for a in (0.5, 0.3)),
    temporal("merge_3", change=_dice(timeline.merge, 3)),
    DROP_ONE,
    SWAP_TWO,
    INSERT_COPY,
    INSERT_NOISE,
)

_LADDER = _chain(_size(2 / 3), _codec("h264", 26))
OURS: tuple[Attack, ...] = (
    IDENTITY,
    compression("h264_28_then_h265_32", change=_chain(_codec("h264", 28), _codec("h265", 32))),
    compression("three_generations", change=_chain(_codec("h264", 28), _codec("h265", 30), _codec("vp9", None))),
    compression("av1_crf35", change=_codec("av1", 35)),
    compression("av1_crf50", change=_codec("av1", 50)),
    compound("ladder_540_360_540", change=_chain(_codec("h264", 23), _back_to_size(_LADDER), _codec("h264", 23))),
    geometric("upscale_1.5", change=_size(1.5)),
    geometric(
        "squeeze_4_3",
        change=lambda c, _rng, _x: Clip(
            edits.fit(c.frames, c.frames.shape[1], round(c.frames.shape[2] * 3 / 4)), c.fps
        ),
    ),
    *(geometric(f"rotate_{a}", change=_frame(pixels.rotate, a)) for a in (2, 5, 45, 180)),
    geometric("letterbox", change=_clip(edits.bars, 1 / 6, 0.0)),
    geometric("pillarbox_16_9", change=_clip(edits.bars, 0.0, 7 / 18)),
    compound("picture_in_picture_0.5", change=_dice(edits.picture_in_picture, 0.5)),
    compound("picture_in_picture_0.71", change=_dice(edits.picture_in_picture, 0.71)),
    compound("logo_and_subtitle", change=_clip(edits.overlay)),
    compound("filmed_screen", change=_dice(edits.filmed)),
    compound("filmed_screen+h264_28", change=_chain(_dice(edits.filmed), _codec("h264", 28))),
    compound(
        "crop_0.71+drop_0.2+h264_crf30",
        change=_chain(_dice(edits.crop, 0.71), _dice(timeline.drop_share, 0.2), _codec("h264", 30)),
    ),
    compound(
        "social_media",  # a landscape clip posted upright: resized, barred, at another frame rate, encoded anew
        change=_chain(_size(0.8), _clip(edits.bars, 1 / 4, 0.0), _clip(timeline.resample, 3 / 2), _codec("h264", 28)),
    ),
    temporal("splice_other_after", change=_with_clip(edits.splice, "other")),
    temporal("splice_halves_with_other", change=_with_clip(edits.halves, "other")),
    temporal("splice_amid_unmarked", change=_with_clip(edits.amid, "unmarked")),
    temporal("splice_halves_with_unmarked", change=_with_clip(edits.halves, "unmarked")),
    compound("split_screen_unmarked", change=_with_clip(edits.split_screen, "unmarked")),
    compound("own_vae", change=_with_model("own_vae", "the generator's VAE (--redraw)")),
    compound("other_vae", change=_with_model("other_vae", "another VAE (--other-vae)")),
    *(
        compound(f"redraw_{s}", change=_with_model("redraw", "a video-to-video pipeline (--redraw)", s, 1))
        for s in (0.1, 0.2, 0.3)
    ),
    compound("mark_again", change=_with_model("mark_again", "a scheme that marks finished frames")),
    *(compound(f"averaged_{n}", change=_averaged(n)) for n in (2, 4, 8, 16, 32, 64)),
)

LISTS: dict[str, tuple[Attack, ...]] = {
    "seal": SEAL,
    "temporal": TEMPORAL,
    "bench": BENCH,
    "vidsig": VIDSIG,
    "ours": OURS,
}
ATTACKS: dict[str, Attack] = {a.name: a for attacks in LISTS.values() for a in attacks}
SPLICES = tuple(a.name for a in OURS if a.name.startswith("splice_"))


def chosen(names: Sequence[str]) -> tuple[Attack, ...]:
    """The attacks of the named lists, each once; KeyError for an unknown list."""
    return tuple({a.name: a for name in names for a in LISTS[name]}.values())
