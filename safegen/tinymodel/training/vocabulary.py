"""The little world of the embedded model in words and numbers: everything that a caption can name."""

from __future__ import annotations

from dataclasses import dataclass

Rgb = tuple[float, float, float]

SHAPES: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "ball", "sphere", "orb"),
    "cube": ("cube", "cube", "box", "block"),
    "cylinder": ("cylinder", "cylinder", "barrel", "can"),
    "cone": ("cone", "cone", "traffic cone"),
    "pyramid": ("pyramid",),
    "ring": ("ring", "ring", "torus", "donut", "hoop"),
    "star": ("star", "star", "five-pointed star"),
    "heart": ("heart", "heart", "heart shape"),
}
COLORS: dict[str, tuple[Rgb, tuple[str, ...]]] = {
    "red": ((0.85, 0.06, 0.06), ("red", "red", "crimson", "scarlet")),
    "orange": ((0.98, 0.42, 0.02), ("orange",)),
    "yellow": ((0.97, 0.84, 0.05), ("yellow", "yellow", "golden")),
    "green": ((0.06, 0.58, 0.14), ("green", "green", "emerald")),
    "blue": ((0.06, 0.20, 0.85), ("blue", "blue", "royal blue")),
    "purple": ((0.42, 0.10, 0.66), ("purple", "purple", "violet")),
    "pink": ((0.98, 0.46, 0.68), ("pink", "pink", "rose")),
    "white": ((0.95, 0.95, 0.95), ("white",)),
    "black": ((0.03, 0.03, 0.035), ("black",)),
    "brown": ((0.36, 0.19, 0.08), ("brown",)),
}


@dataclass(frozen=True, slots=True)
class Ground:
    """Two albedos, the contrast and pattern between them, and the words."""

    first: Rgb
    second: Rgb
    pattern: str
    words: tuple[str, ...]


GROUNDS: dict[str, Ground] = {
    "grass": Ground(
        (0.14, 0.36, 0.07),
        (0.26, 0.52, 0.13),
        "grain",
        (
            "on grass",
            "on green grass",
            "on the grass",
            "on a grassy field",
            "in a meadow",
            "on a lawn",
            "on a green field",
        ),
    ),
    "sand": Ground(
        (0.84, 0.69, 0.44), (0.73, 0.57, 0.34), "grain", ("on sand", "on the sand", "on a sandy beach", "in the desert")
    ),
    "snow": Ground(
        (0.90, 0.93, 0.98), (0.80, 0.85, 0.94), "grain", ("on snow", "on the snow", "in a snowy field", "in the snow")
    ),
    "water": Ground(
        (0.03, 0.16, 0.30),
        (0.08, 0.30, 0.46),
        "waves",
        ("on water", "on the water", "over the sea", "on a lake", "above the ocean", "on the sea"),
    ),
    "wood": Ground(
        (0.50, 0.29, 0.13),
        (0.36, 0.19, 0.08),
        "planks",
        ("on a wooden floor", "on wooden planks", "on a wooden table", "on wood"),
    ),
    "stone": Ground(
        (0.36, 0.36, 0.38),
        (0.28, 0.28, 0.30),
        "grain",
        ("on grey stone", "on concrete", "on a road", "on asphalt", "on stone"),
    ),
    "checker": Ground(
        (0.80, 0.80, 0.80),
        (0.16, 0.16, 0.18),
        "checker",
        ("on a checkerboard floor", "on a chessboard floor", "on a checkered floor", "on a checkerboard"),
    ),
    "brick": Ground(
        (0.55, 0.20, 0.13),
        (0.42, 0.14, 0.09),
        "bricks",
        ("on red bricks", "on a brick floor", "on bricks", "on a brick pavement"),
    ),
}


@dataclass(frozen=True, slots=True)
class Sky:
    """Colours of zenith, horizon and light, strength of sun and sky light, share of clouds, and the words."""

    zenith: Rgb
    horizon: Rgb
    light: Rgb
    sun: float
    ambient: float
    clouds: float
    words: tuple[str, ...]


SKIES: dict[str, Sky] = {
    "day": Sky(
        (0.16, 0.42, 0.86),
        (0.66, 0.82, 0.97),
        (1.0, 0.98, 0.93),
        0.75,
        0.45,
        0.25,
        ("under a clear blue sky", "under a blue sky", "on a sunny day", "in daylight", "at noon", "in the sunshine"),
    ),
    "sunset": Sky(
        (0.26, 0.16, 0.42),
        (1.0, 0.52, 0.14),
        (1.0, 0.72, 0.45),
        0.65,
        0.40,
        0.35,
        ("at sunset", "at sunset", "in golden hour light", "in the evening", "at dusk", "while the sun sets"),
    ),
    "night": Sky(
        (0.005, 0.008, 0.04),
        (0.04, 0.06, 0.16),
        (0.66, 0.74, 1.0),
        0.32,
        0.22,
        0.0,
        ("at night", "at night", "under the stars", "under a starry sky", "in moonlight", "in the dark of night"),
    ),
    "overcast": Sky(
        (0.42, 0.45, 0.49),
        (0.66, 0.68, 0.71),
        (0.88, 0.90, 0.93),
        0.25,
        0.70,
        0.5,
        ("under a cloudy sky", "on an overcast day", "on a grey day", "under grey clouds", "under an overcast sky"),
    ),
    "dawn": Sky(
        (0.50, 0.48, 0.80),
        (1.0, 0.70, 0.74),
        (1.0, 0.88, 0.88),
        0.55,
        0.48,
        0.3,
        ("at dawn", "at sunrise", "in the early morning", "at daybreak", "under a pink morning sky"),
    ),
    "fog": Sky(
        (0.80, 0.82, 0.83),
        (0.84, 0.85, 0.86),
        (0.95, 0.96, 0.97),
        0.20,
        0.72,
        0.0,
        ("in the fog", "in thick fog", "on a foggy day", "in the mist", "on a misty day"),
    ),
}


@dataclass(frozen=True, slots=True)
class Motion:
    """Participles ("rolling left") and finite forms ("rolls left")."""

    doing: tuple[str, ...]
    does: tuple[str, ...]


MOTIONS: dict[str, Motion] = {
    "still": Motion(("standing still", "resting", "sitting", "standing"), ("stands still", "rests", "sits", "stands")),
    "bounce": Motion(("bouncing", "bouncing", "bouncing up and down", "jumping"), ("bounces", "jumps up and down")),
    "left": Motion(
        ("moving to the left", "moving left", "rolling to the left", "sliding left", "going left"),
        ("moves to the left", "rolls to the left", "slides left", "moves left"),
    ),
    "right": Motion(
        ("moving to the right", "moving right", "rolling to the right", "sliding right", "going right"),
        ("moves to the right", "rolls to the right", "slides right", "moves right"),
    ),
    "float": Motion(
        ("floating", "hovering", "floating in the air", "levitating"), ("floats in the air", "hovers", "levitates")
    ),
    "fall": Motion(
        ("falling", "falling from the sky", "dropping to the ground", "falling down"),
        ("falls down", "falls from the sky", "drops to the ground"),
    ),
    "spin": Motion(("spinning", "rotating", "turning around"), ("spins", "rotates", "turns around")),
    "near": Motion(
        ("moving toward the camera", "coming closer", "approaching"),
        ("comes closer", "moves toward the camera", "approaches"),
    ),
}
CAMERAS: dict[str, tuple[str, ...]] = {
    "static": ("static camera", "the camera is still", "fixed camera"),
    "pan_left": ("the camera pans left", "camera panning left", "pan left", "the camera turns left"),
    "pan_right": ("the camera pans right", "camera panning right", "pan right", "the camera turns right"),
    "zoom_in": ("the camera zooms in", "slow zoom in", "the camera moves closer", "camera zooming in"),
}
SIZES: dict[str, tuple[float, tuple[str, ...]]] = {
    "small": (0.85, ("small", "little", "tiny")),
    "medium": (1.1, ("medium-sized",)),
    "large": (1.38, ("large", "big", "huge")),
}
