"""The little world that the embedded model is trained on: its things, its words, and how a scene is drawn by lot."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

Rgb = tuple[float, float, float]

SHAPES = ("ball", "cube", "cylinder", "cone", "ring", "capsule")
SHAPE_WORDS: dict[str, list[str]] = {
    "ball": ["ball", "sphere", "orb"],
    "cube": ["cube", "box", "block"],
    "cylinder": ["cylinder", "barrel", "can"],
    "cone": ["cone", "pyramid-like cone", "traffic cone"],
    "ring": ["ring", "torus", "donut"],
    "capsule": ["capsule", "pill", "rounded rod"],
}
COLORS: dict[str, Rgb] = {
    "red": (0.86, 0.10, 0.10),
    "orange": (0.95, 0.45, 0.06),
    "yellow": (0.96, 0.82, 0.10),
    "green": (0.12, 0.62, 0.20),
    "blue": (0.10, 0.25, 0.85),
    "purple": (0.48, 0.15, 0.70),
    "pink": (0.95, 0.45, 0.65),
    "white": (0.93, 0.93, 0.93),
    "black": (0.05, 0.05, 0.06),
    "brown": (0.42, 0.24, 0.12),
    "cyan": (0.10, 0.75, 0.80),
    "gold": (0.85, 0.62, 0.15),
}
COLOR_WORDS: dict[str, list[str]] = {
    "red": ["red", "crimson", "scarlet"],
    "orange": ["orange"],
    "yellow": ["yellow"],
    "green": ["green", "emerald"],
    "blue": ["blue", "navy blue", "royal blue"],
    "purple": ["purple", "violet"],
    "pink": ["pink", "rose"],
    "white": ["white"],
    "black": ["black", "dark"],
    "brown": ["brown"],
    "cyan": ["cyan", "turquoise", "teal"],
    "gold": ["gold", "golden"],
}
GROUNDS: dict[str, tuple[Rgb, Rgb, list[str]]] = {  # two albedos, caption words
    "checker": (
        (0.74, 0.74, 0.76),
        (0.34, 0.34, 0.38),
        ["on a checkerboard floor", "on a chessboard floor", "on a tiled floor"],
    ),
    "grass": (
        (0.16, 0.42, 0.10),
        (0.26, 0.55, 0.16),
        ["on green grass", "on a grassy field", "in a meadow", "on a lawn"],
    ),
    "sand": ((0.82, 0.68, 0.45), (0.74, 0.60, 0.38), ["on sand", "on a sandy beach", "in the desert"]),
    "snow": ((0.92, 0.94, 0.98), (0.84, 0.88, 0.95), ["on snow", "in a snowy field", "on ice"]),
    "wood": ((0.55, 0.34, 0.18), (0.42, 0.25, 0.12), ["on a wooden floor", "on wooden planks", "on a wooden table"]),
    "water": ((0.05, 0.20, 0.35), (0.08, 0.30, 0.45), ["on water", "over the sea", "on a lake", "above the ocean"]),
    "stone": ((0.42, 0.42, 0.44), (0.34, 0.34, 0.36), ["on grey stone", "on concrete", "on a road", "on asphalt"]),
}
SKIES: dict[str, tuple[Rgb, Rgb, Rgb, float, list[str]]] = {  # zenith, horizon, sun colour, ambient, words
    "day": (
        (0.20, 0.45, 0.85),
        (0.70, 0.82, 0.95),
        (1.0, 0.97, 0.90),
        0.45,
        ["under a clear blue sky", "on a sunny day", "in daylight", "at noon"],
    ),
    "sunset": (
        (0.25, 0.20, 0.45),
        (0.98, 0.55, 0.25),
        (1.0, 0.65, 0.35),
        0.38,
        ["at sunset", "in golden hour light", "in the evening", "at dusk"],
    ),
    "night": (
        (0.01, 0.01, 0.05),
        (0.06, 0.08, 0.18),
        (0.50, 0.58, 0.80),
        0.16,
        ["at night", "under the stars", "under a starry night sky", "in moonlight"],
    ),
    "overcast": (
        (0.55, 0.58, 0.62),
        (0.75, 0.77, 0.80),
        (0.75, 0.75, 0.75),
        0.60,
        ["under a cloudy sky", "on an overcast day", "on a grey day"],
    ),
    "dawn": (
        (0.45, 0.45, 0.75),
        (0.98, 0.75, 0.75),
        (1.0, 0.80, 0.75),
        0.42,
        ["at dawn", "at sunrise", "in the early morning"],
    ),
}
CAMERAS: dict[str, list[str]] = {
    "static": ["", "", "static camera", "the camera is still"],
    "pan_left": ["the camera pans left", "camera panning left"],
    "pan_right": ["the camera pans right", "camera panning right"],
    "zoom_in": ["the camera zooms in", "slow zoom in", "the camera moves closer"],
    "zoom_out": ["the camera zooms out", "slow zoom out", "the camera pulls back"],
    "orbit_left": ["the camera orbits to the left", "camera orbiting left"],
    "orbit_right": ["the camera orbits to the right", "camera orbiting right"],
    "crane_up": ["the camera rises", "crane shot going up", "the camera tilts from above"],
}
MOTIONS: dict[str, list[str]] = {
    "still": ["", "standing still", "resting"],
    "bounce": ["bouncing", "bouncing up and down", "jumping"],
    "right": ["moving to the right", "rolling to the right", "sliding right"],
    "left": ["moving to the left", "rolling to the left", "sliding left"],
    "spin": ["spinning", "rotating", "turning around"],
    "float": ["floating", "hovering", "floating in the air", "levitating"],
    "fall": ["falling", "falling from the sky", "dropping to the ground"],
    "circle": ["moving in a circle", "circling", "orbiting"],
    "grow": ["growing", "getting bigger", "expanding"],
    "shrink": ["shrinking", "getting smaller"],
    "near": ["moving toward the camera", "coming closer"],
    "away": ["moving away", "rolling into the distance"],
}
TEXTURES: dict[str, list[str]] = {"plain": [""], "striped": ["striped"], "checkered": ["checkered", "patterned"]}
MATERIALS: dict[str, list[str]] = {
    "matte": ["", "matte"],
    "glossy": ["glossy", "shiny"],
    "metal": ["metallic", "metal", "chrome"],
}
WEATHER: dict[str, list[str]] = {
    "none": [""],
    "snowfall": ["while snow falls", "in the falling snow", "snowing"],
    "rain": ["in the rain", "while it rains", "rainy"],
}
SIZES: dict[str, tuple[float, list[str]]] = {
    "small": (0.7, ["small", "tiny", "little"]),
    "medium": (1.0, ["", "", "medium-sized"]),
    "large": (1.35, ["large", "big", "huge"]),
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One solid: what it is, how it looks, how it moves, and where it starts (scene units, radians)."""

    shape: str
    color: str
    motion: str
    size: str
    texture: str
    material: str
    x: float
    z: float
    phase: float
    yaw: float


@dataclass(frozen=True, slots=True)
class Scene:
    """One to three solids on a ground under a sky, seen by a camera in some weather."""

    things: tuple[Thing, ...]
    ground: str
    sky: str
    camera: str
    weather: str


def draw_kinds(rng: random.Random) -> list[str]:
    """Draw the shapes of one to three solids; a batch of scenes shares them."""
    return [rng.choice(SHAPES) for _ in range(rng.choices([1, 2, 3], weights=[6, 3, 0.6])[0])]


def draw_scene(rng: random.Random, kinds: list[str], *, plain: bool = False) -> Scene:
    """Draw a scene of solids of these ``kinds``; a ``plain`` world has few textures and no weather."""
    slots: list[float] = {1: [0.0], 2: [-1.5, 1.5], 3: [-2.3, 0.0, 2.3]}[len(kinds)]
    rng.shuffle(slots)
    colors = rng.sample(list(COLORS), len(kinds))
    things = [_draw_thing(rng, *place) for place in zip(kinds, slots, colors, strict=True)]
    ground = rng.choices(list(GROUNDS), weights=[0.8, 1.3, 1.2, 1, 1.2, 1.2, 1.2])[0]
    sky = rng.choices(list(SKIES), weights=[4, 3, 2, 2, 2])[0]
    camera = rng.choices(list(CAMERAS), weights=[5, 1, 1, 1.5, 1.5, 1, 1, 1])[0]
    weather = rng.choices(list(WEATHER), weights=[14, 1, 0.7])[0]
    if weather == "rain" and sky in ("day", "dawn"):
        sky = "overcast"
    if plain:
        things = [replace(t, texture="plain" if rng.random() < 0.9 else "striped") for t in things]
        weather = "none"
    return Scene(tuple(things), ground, sky, camera, weather)


def _draw_thing(rng: random.Random, kind: str, slot: float, color: str) -> Thing:
    motion = rng.choices(list(MOTIONS), weights=[2, 4, 3, 3, 3, 2.5, 2, 2, 1, 1, 1.5, 1.5])[0]
    return Thing(
        shape=kind,
        color=color,
        motion=motion,
        size=rng.choice(list(SIZES)),
        texture=rng.choices(list(TEXTURES), weights=[10, 2, 0.7])[0],
        material=rng.choices(list(MATERIALS), weights=[4, 3, 2])[0],
        x=slot + rng.uniform(-0.3, 0.3),
        z=rng.uniform(-0.8, 0.8),
        phase=rng.uniform(0, 1),
        yaw=rng.uniform(0, 6.28),
    )


def caption(rng: random.Random, scene: Scene) -> str:
    """Describe ``scene`` in words drawn by lot, leaving some things out as people do."""
    pick = rng.choice
    parts = []
    for thing in scene.things:
        words = [
            pick(SIZES[thing.size][1]),
            pick(MATERIALS[thing.material]),
            pick(TEXTURES[thing.texture]),
            pick(COLOR_WORDS[thing.color]),
            pick(SHAPE_WORDS[thing.shape]),
        ]
        name = " ".join(w for w in words if w)
        article = "an" if name[0] in "aeiou" else "a"
        parts.append(f"{article} {name} {pick(MOTIONS[thing.motion])}".strip())
    text = " and ".join(parts) if len(parts) < 3 else f"{parts[0]}, {parts[1]} and {parts[2]}"
    tail = [
        pick(GROUNDS[scene.ground][2]) if rng.random() < 0.9 else "",
        pick(SKIES[scene.sky][4]) if rng.random() < 0.85 else "",
    ]
    text = " ".join([text] + [t for t in tail if t])
    extra = [pick(WEATHER[scene.weather]), pick(CAMERAS[scene.camera])]
    text = ", ".join([text] + [e for e in extra if e])
    if rng.random() < 0.12:
        text = pick(["a video of ", "footage of ", "cinematic shot of ", "3d render of "]) + text
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:] + rng.choice([".", ""])
    return text


def captions(count: int, seed: int, *, plain: bool = False) -> list[str]:
    """Return captions of ``count`` scenes, without drawing them: enough text to learn a vocabulary from."""
    rng = random.Random(seed)  # noqa: S311  # scenes are drawn by lot, keys are not
    return [caption(rng, draw_scene(rng, draw_kinds(rng), plain=plain)) for _ in range(count)]


_MIRROR = {"left": "right", "right": "left"}


def mirrored(line: str) -> str:
    """Return the caption of the mirror image: left and right change places."""
    return re.sub(r"\b(left|right)\b", lambda m: _MIRROR[m.group()], line)
