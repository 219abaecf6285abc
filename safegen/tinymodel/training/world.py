"""A scene drawn by lot, and what is said of it: templates that paraphrase widely and leave things out as people do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from safegen.tinymodel.training.vocabulary import CAMERAS, COLORS, GROUNDS, MOTIONS, SHAPES, SIZES, SKIES

ASPECTS = ("shape", "color", "size", "motion", "ground", "sky", "camera")
"""What a caption can state of a scene, each a field of ``Named``."""

KINDS: dict[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "color": tuple(COLORS),
    "size": tuple(SIZES),
    "motion": tuple(MOTIONS),
    "ground": tuple(GROUNDS),
    "sky": tuple(SKIES),
    "camera": tuple(CAMERAS),
}


@dataclass(frozen=True, slots=True)
class Named:
    """What of a scene has a name."""

    shape: str
    color: str
    size: str
    motion: str
    ground: str
    sky: str
    camera: str

    def numbers(self) -> list[int]:
        """Return the place of each aspect's kind in ``KINDS``."""
        return [KINDS[aspect].index(getattr(self, aspect)) for aspect in ASPECTS]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Named:
        """Return what ``numbers`` name."""
        return cls(*(KINDS[aspect][n] for aspect, n in zip(ASPECTS, numbers, strict=True)))

    def mirrored(self) -> Named:
        """Return what the mirror image shows: left and right change places."""
        return replace(self, motion=_MIRROR.get(self.motion, self.motion), camera=_MIRROR.get(self.camera, self.camera))


_MIRROR = {"left": "right", "right": "left", "pan_left": "pan_right", "pan_right": "pan_left"}


@dataclass(frozen=True, slots=True)
class Scene:
    """One solid on a ground under a sky. Places in scene units, angles in radians, ``phase`` in turns."""

    named: Named
    x: float
    z: float
    phase: float
    yaw: float
    eye: tuple[float, float, float]  # added to the camera's azimuth, height and distance
    sun: float  # azimuth
    texture: tuple[float, float]  # where in the noise the ground and the clouds begin


def draw_scene(rng: random.Random) -> Scene:
    """Draw a scene by lot. The camera mostly rests where the solid travels: seldom two motions at once."""
    motion = rng.choices(list(MOTIONS), weights=[2, 3, 2.5, 2.5, 2, 2, 1.5, 1.5])[0]
    moves = 0.1 if motion in ("left", "right", "near") else 0.4
    camera = rng.choice(["pan_left", "pan_right", "zoom_in"]) if rng.random() < moves else "static"
    named = Named(
        shape=rng.choice(list(SHAPES)),
        color=rng.choice(list(COLORS)),
        size=rng.choices(list(SIZES), weights=[1, 2, 1])[0],
        motion=motion,
        ground=rng.choices(list(GROUNDS), weights=[1.4, 1, 1, 1, 1, 1, 0.8, 0.8])[0],
        sky=rng.choices(list(SKIES), weights=[1.3, 1.3, 1, 1, 0.8, 0.6])[0],
        camera=camera,
    )
    return Scene(
        named,
        x=rng.uniform(-0.7, 0.7),
        z=rng.uniform(-0.4, 0.4),
        phase=rng.random(),
        yaw=rng.uniform(-0.55, 0.55),
        eye=(rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.5), rng.uniform(-0.3, 0.4)),
        sun=rng.uniform(-1.0, 1.0),
        texture=(rng.random(), rng.random()),
    )


@dataclass(frozen=True, slots=True)
class Caption:
    """A description, and of each of ``ASPECTS`` what it states ("" where it leaves it out)."""

    text: str
    states: tuple[str, ...]


_STATED = {"color": 0.97, "motion": 0.85, "ground": 0.93, "sky": 0.88}
_PREFIXES = (
    "a video of ",
    "footage of ",
    "cinematic shot of ",
    "3d render of ",
    "an animation of ",
    "a clip of ",
    "show me ",
    "make a video of ",
    "a short film of ",
    "please draw ",
)
_ADJECTIVES = ("shiny", "smooth", "glossy", "beautiful", "simple", "nice", "bright", "plain", "single", "round-edged")
_ADVERBS = ("slowly", "gently", "quickly", "quietly", "happily", "smoothly")
_OPENINGS = ("a", "a", "a", "one", "the", "")


def caption(rng: random.Random, scene: Named) -> Caption:
    """Describe ``scene`` in words drawn by lot."""
    pick = rng.choice
    said = {"shape": True} | {aspect: rng.random() < share for aspect, share in _STATED.items()}
    said["size"] = rng.random() < (0.1 if scene.size == "medium" else 0.75)
    said["camera"] = rng.random() < (0.15 if scene.camera == "static" else 0.9)
    color = pick(COLORS[scene.color][1]) if said["color"] else ""
    size = pick(SIZES[scene.size][1]) if said["size"] else ""
    shape = pick(SHAPES[scene.shape])
    filler = pick(_ADJECTIVES) if rng.random() < 0.08 else ""
    opening = pick(_OPENINGS)
    if color and rng.random() < 0.04:
        noun = _article(opening, " ".join(w for w in (size, filler, shape) if w)) + f" that is {color}"
    else:
        noun = _article(opening, " ".join(w for w in (size, filler, color, shape) if w))
    ground = pick(GROUNDS[scene.ground].words) if said["ground"] else ""
    sky = pick(SKIES[scene.sky].words) if said["sky"] else ""
    camera = pick(CAMERAS[scene.camera]) if said["camera"] else ""
    action = _action(rng, scene.motion) if said["motion"] else ""
    text = _assemble(rng, noun, action, ground, sky)
    if camera:
        text = f"{camera}: {text}" if rng.random() < 0.1 else f"{text}, {camera}"
    if rng.random() < 0.12:
        text = pick(_PREFIXES) + text
    if rng.random() < 0.35:
        text = text[0].upper() + text[1:] + pick([".", "", "!"])
    states = tuple(getattr(scene, aspect) if said[aspect] else "" for aspect in ASPECTS)
    return Caption(text, states)


def captions(count: int, seed: int) -> list[str]:
    """Return captions of ``count`` scenes, without drawing them."""
    rng = random.Random(seed)  # noqa: S311  # scenes are drawn by lot, keys are not
    return [caption(rng, draw_scene(rng).named).text for _ in range(count)]


def _article(opening: str, noun: str) -> str:
    if opening == "a" and noun[0] in "aeiou":
        return f"an {noun}"
    return f"{opening} {noun}".strip()


def _action(rng: random.Random, motion: str) -> str:
    words = MOTIONS[motion]
    kind = rng.random()
    text = rng.choice(words.doing) if kind < 0.6 else rng.choice(words.does)
    if 0.6 > kind > 0.5:
        text = f"is {text}"
    elif kind > 0.93:
        text = f"that {text}"
    if rng.random() < 0.08:
        text = f"{text} {rng.choice(_ADVERBS)}"
    return text


def _assemble(rng: random.Random, noun: str, action: str, ground: str, sky: str) -> str:
    """Put the parts in one of several orders: the usual one, place or time first, or a list of tags."""
    main = f"{noun} {action}".strip()
    order = rng.random()
    if order < 0.62:
        return " ".join(w for w in (main, ground, sky) if w)
    if order < 0.74:
        return " ".join(w for w in (main, sky, ground) if w)
    if order < 0.82 and sky:
        return f"{sky}, " + " ".join(w for w in (main, ground) if w)
    if order < 0.88 and ground:
        return f"{ground}, " + " ".join(w for w in (main, sky) if w)
    if order < 0.94:
        return ", ".join(w for w in (main, ground, sky) if w)
    return "there is " + " ".join(w for w in (main, ground, sky) if w)
