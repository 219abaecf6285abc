"""Drawn scenes: solids are where and what their scene says, edges are smooth, and drawing is quick."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from safegen.tinymodel.training import render, solids, world
from safegen.tinymodel.training.vocabulary import COLORS, MOTIONS, SHAPES

SIZE = 96


def scene(seed: int = 0, **named: str) -> world.Scene:
    drawn = world.draw_scene(random.Random(seed))
    plain = {"size": "medium", "motion": "still", "sky": "day", "camera": "static", "ground": "grass"}
    return replace(drawn, named=replace(drawn.named, **(plain | named)))


def centre(cover: Tensor) -> tuple[float, float, float]:
    """Column, row and area of the solid in [S, S] coverage."""
    weight = cover.float() / 255
    grid = torch.arange(len(cover), dtype=torch.float32)
    total = weight.sum().item()
    return (weight.sum(0) @ grid).item() / total, (weight.sum(1) @ grid).item() / total, total


def test_drawing_is_determined_by_its_seed() -> None:
    first, again, other = (render.draw(random.Random(s), 2, 5, 32) for s in (4, 4, 5))
    assert torch.equal(first[0], again[0])
    assert first[1:] == again[1:]
    assert not torch.equal(first[0], other[0])
    assert (first[0].shape, first[0].dtype) == ((2, 5, 32, 32, 4), torch.uint8)


@pytest.mark.parametrize("ground", ["grass", "water"])
@pytest.mark.parametrize("camera", ["static", "zoom_in"])
def test_a_frame_does_not_depend_on_those_drawn_with_it(ground: str, camera: str) -> None:
    drawn, t = scene(1, ground=ground, camera=camera, motion="left"), render.moments(7)
    together = render.render(drawn, t, SIZE)
    alone = torch.cat([render.render(drawn, t[i : i + 1], SIZE) for i in range(7)])
    assert (together.int() - alone.int()).abs().max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_distances_never_overshoot(shape: str) -> None:
    """No distance grows faster than the way between two points: a traced ray cannot step through."""
    torch.manual_seed(0)
    p = torch.rand(3, 20_000) * 4 - 2
    q = p + torch.randn(3, 20_000) * 0.05
    change = (solids.DISTANCES[shape](*p) - solids.DISTANCES[shape](*q)).abs()
    assert (change <= (p - q).norm(dim=0) * 1.02 + 1e-5).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_solids_lie_within_their_reach_and_rest_on_the_ground(shape: str) -> None:
    side = torch.linspace(-2, 2, 121)
    x, y, z = torch.meshgrid(side, side, side, indexing="ij")
    inside = solids.DISTANCES[shape](x, y, z) <= 0
    assert (x * x + y * y + z * z).sqrt()[inside].max() <= solids.REACH[shape] + 1e-3
    drawn = scene(shape=shape)
    way = solids.path(drawn, torch.zeros(1))
    assert y[inside].min() * way.half + way.y.item() == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize("color", COLORS)
def test_the_solid_has_its_color(color: str) -> None:
    """Of all the world's colours, the middle of a ball by day is nearest to its own in hue and brightness."""
    picture = render.render(scene(2, shape="ball", color=color), torch.zeros(1), SIZE)[0]
    seen = picture[picture[..., 3] == 255][:, :3].float().square().mean(0) / 255**2  # linear
    own = {name: torch.tensor(rgb) for name, (rgb, _) in COLORS.items()}

    def far(rgb: Tensor) -> float:
        hue = 1 - torch.cosine_similarity(seen, rgb, dim=0).item()
        return hue + 0.2 * abs(seen.mean().item() - rgb.mean().item())

    assert min(own, key=lambda name: far(own[name])) == color


def test_edges_are_smooth() -> None:
    cover = render.render(scene(shape="ball"), torch.zeros(1), SIZE)[0, ..., 3]
    partial = ((cover > 0) & (cover < 255)).sum().item()
    around = 2 * (3.1416 * (cover > 127).sum().item()) ** 0.5
    assert 0.5 * around < partial < 3 * around


def test_a_bare_scene_lacks_the_solid_and_its_shadow() -> None:
    drawn, t = scene(shape="cube"), torch.zeros(1)
    full, bare = (render.render(drawn, t, SIZE, bare=b)[0].int() for b in (False, True))
    assert bare[..., 3].max() == 0
    differs = (full[..., :3] - bare[..., :3]).abs().sum(-1) > 6
    assert (differs & (full[..., 3] == 0)).sum() > 30  # the shadow
    assert not differs[: SIZE // 6].any()


DIRECTIONS: dict[str, Callable[[float, float, float], bool]] = {
    "left": lambda x, y, area: x < -10,
    "right": lambda x, y, area: x > 10,
    "fall": lambda x, y, area: y > 10,
    "near": lambda x, y, area: area > 200,
    "still": lambda x, y, area: max(abs(x), abs(y), abs(area)) < 1,
}


@pytest.mark.parametrize("motion", DIRECTIONS)
def test_solids_move_as_named(motion: str) -> None:
    clip = render.render(scene(motion=motion, shape="ball"), torch.tensor([0.15, 0.85]), SIZE)
    before, after = centre(clip[0, ..., 3]), centre(clip[1, ..., 3])
    assert DIRECTIONS[motion](*(b - a for a, b in zip(before, after, strict=True)))


@pytest.mark.parametrize("motion", ["bounce", "float"])
def test_what_leaves_the_ground_comes_back(motion: str) -> None:
    clip = render.render(scene(motion=motion, shape="ball"), render.moments(25), SIZE)
    rows = torch.tensor([centre(f[..., 3])[1] for f in clip])
    assert rows.max() - rows.min() > (10 if motion == "bounce" else 2)
    assert abs(rows[0] - rows[-1]) < 3


def test_the_camera_turns_and_nears() -> None:
    for camera, check in (
        ("pan_left", lambda a, b: b[0] > a[0] + 10),  # what stands moves to the right
        ("pan_right", lambda a, b: b[0] < a[0] - 10),
        ("zoom_in", lambda a, b: b[2] > 1.5 * a[2]),
    ):
        clip = render.render(scene(camera=camera, shape="ball"), torch.tensor([0.0, 1.0]), SIZE)
        assert check(centre(clip[0, ..., 3]), centre(clip[1, ..., 3])), camera


def test_every_solid_is_seen() -> None:
    """In the middle of a clip it fills some share of the picture, whatever it does."""
    rng = random.Random(5)
    for motion in MOTIONS:
        for _ in range(6):
            drawn = world.draw_scene(rng)
            drawn = replace(drawn, named=replace(drawn.named, motion=motion))
            picture = render.render(drawn, torch.tensor([0.5]), SIZE)[0]
            assert 0.01 < (picture[..., 3] > 127).float().mean() < 0.5


@pytest.mark.slow
def test_a_clip_costs_no_more_than_some_hundred_products_of_its_pixels() -> None:
    def seconds(work: Callable[[], object]) -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pixels = torch.rand(25, 192, 192)
        product = min(seconds(lambda: [pixels.mul(1.0001) for _ in range(40)]) for _ in range(3)) / 40
        rng = random.Random(0)
        clip = min(seconds(lambda: render.draw(rng, 4, 25, 192)) for _ in range(2)) / 4
    finally:
        torch.set_num_threads(threads)
    assert clip < 1500 * product
