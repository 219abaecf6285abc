"""The world in words: what captions say is so, they vary, and mirror images keep their captions true."""

from __future__ import annotations

import random

import pytest

from safegen.tinymodel.training.text import foreign
from safegen.tinymodel.training.vocabulary import CAMERAS, COLORS, GROUNDS, MOTIONS, SHAPES, SIZES, SKIES
from safegen.tinymodel.training.world import ASPECTS, KINDS, Caption, Named, caption, draw_scene

WORDS = {
    "shape": SHAPES,
    "color": {k: v[1] for k, v in COLORS.items()},
    "size": {k: v[1] for k, v in SIZES.items()},
    "motion": {k: v.doing + v.does for k, v in MOTIONS.items()},
    "ground": {k: v.words for k, v in GROUNDS.items()},
    "sky": {k: v.words for k, v in SKIES.items()},
    "camera": CAMERAS,
}


@pytest.fixture(scope="module")
def captions() -> list[tuple[Named, Caption]]:
    rng = random.Random(3)
    scenes = [draw_scene(rng).named for _ in range(3000)]
    return [(s, caption(rng, s)) for s in scenes]


def test_a_caption_says_what_it_states_and_states_what_is_there(captions: list[tuple[Named, Caption]]) -> None:
    for scene, made in captions:
        for aspect, stated in zip(ASPECTS, made.states, strict=True):
            said = [w for w in WORDS[aspect][getattr(scene, aspect)] if w in made.text.lower()]
            assert stated in ("", getattr(scene, aspect))
            assert said or not stated, (made.text, aspect)


def test_captions_reach_every_kind_and_leave_things_out(captions: list[tuple[Named, Caption]]) -> None:
    for i, aspect in enumerate(ASPECTS):
        stated = {made.states[i] for _, made in captions}
        assert stated == {*KINDS[aspect], *([""] if aspect != "shape" else [])}


def test_captions_paraphrase(captions: list[tuple[Named, Caption]]) -> None:
    rng = random.Random(0)
    scene = captions[0][0]
    assert len({caption(rng, scene).text.lower() for _ in range(200)}) > 150
    assert len({made.text for _, made in captions}) > 0.99 * len(captions)


def test_a_scene_is_named_by_numbers(captions: list[tuple[Named, Caption]]) -> None:
    for scene, _ in captions[:100]:
        assert Named.of(scene.numbers()) == scene


def test_what_a_mirror_shows_goes_the_other_way(captions: list[tuple[Named, Caption]]) -> None:
    scene = captions[0][0]
    for motion, camera, other, other_camera in (
        ("left", "pan_right", "right", "pan_left"),
        ("bounce", "zoom_in", "bounce", "zoom_in"),
    ):
        shown = Named(scene.shape, scene.color, scene.size, motion, scene.ground, scene.sky, camera)
        assert (shown.mirrored().motion, shown.mirrored().camera) == (other, other_camera)
        assert shown.mirrored().mirrored() == shown


def test_a_foreign_word_comes_between_and_takes_nothing_away() -> None:
    rng = random.Random(0)
    line = "a red ball on grass"
    for _ in range(20):
        words = foreign(rng, line).split(" ")
        assert len(words) == 6
        assert [w for w in words if w in line.split(" ")] == line.split(" ") or len(set(words)) < 6
