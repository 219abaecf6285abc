"""The training recipe: its world, its drawing, its optimiser, and every stage once at miniature size."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest
import torch

from safegen.generators import Card, load, resolve, sample
from safegen.tinymodel.training import muon
from safegen.tinymodel.training.ray_marched import scenes, world
from safegen.tinymodel.training.ray_marched.presets import PRESETS
from safegen.tinymodel.training.ray_marched.train import train
from safegen.watermark import fastvae

MINIATURE = dataclasses.replace(
    PRESETS["cpu"],
    size=32,
    frames=5,
    clips=1,
    more_clips=1,
    stills=4,
    still_scenes=1,
    vae_seconds=0.01,  # one step
    vae_batch=1,
    dit_seconds=0.01,
    layers=1,
    still_batch=2,
    clip_batch=2,
    log_every=1,
)


def test_drawing_is_determined_by_its_seed() -> None:
    first, again, other = (scenes.render(2, frames=2, size=24, seed=s) for s in (4, 4, 5))
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]
    assert not torch.equal(first[0], other[0])
    assert (first[0].shape, first[0].dtype) == ((2, 2, 24, 24, 4), torch.uint8)


def test_the_mask_marks_solids() -> None:
    video, _ = scenes.render(1, frames=2, size=48, seed=4)
    mask = video[..., 3]
    assert set(mask.unique().tolist()) == {0, 255}


def test_a_clip_moves_and_its_caption_says_what_is_there() -> None:
    for seed in range(6):
        video, (line,) = scenes.render(1, frames=2, size=24, seed=seed)
        shape = world.draw_kinds(random.Random(seed))[0]
        assert any(word in line.lower() for word in world.SHAPE_WORDS[shape])
        assert video[..., :3].float().std() > 5


def test_a_plain_world_has_no_weather() -> None:
    dice = random.Random(0)
    drawn = [world.draw_scene(dice, world.draw_kinds(dice), plain=True) for _ in range(200)]
    assert {s.weather for s in drawn} == {"none"}
    assert "checkered" not in {t.texture for s in drawn for t in s.things}


def test_mirrored_captions_swap_sides_once() -> None:
    line = "a ball rolling to the left, camera panning right"
    assert world.mirrored(line) == "a ball rolling to the right, camera panning left"
    assert world.mirrored(world.mirrored(line)) == line


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_orthogonalised_updates_have_even_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(muon.orthogonalise(torch.randn(2, *shape)))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_muon_minimises() -> None:
    torch.manual_seed(0)
    target, weight = torch.randn(8, 8), torch.nn.Parameter(torch.zeros(8, 8))
    optimiser = muon.Muon([weight])
    losses = []
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.2 * (1 - step / 200)
        optimiser.zero_grad()
        loss = ((weight - target) ** 2).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 20


def test_embeddings_and_thin_weights_go_to_the_other_optimiser() -> None:
    module = torch.nn.ModuleDict({"table": torch.nn.Embedding(40, 40), "wide": torch.nn.Linear(40, 40)})
    big, rest = muon.split(module, 16)
    assert [id(p) for p in big] == [id(module["wide"].weight)]
    assert len(rest) == 2


@pytest.mark.slow
def test_all_stages_end_in_a_pipeline_that_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastvae, "fast_cpu", lambda: False)  # one step each: preparing bfloat16 kernels would not pay
    folder = train(MINIATURE, tmp_path / "run")
    said = capsys.readouterr().out
    assert all(f"{stage} done" in said for stage in ("vae", "dit"))

    again = train(MINIATURE, tmp_path / "run", init=str(folder))  # finds what the stages kept
    assert again == folder
    assert "vae done" not in capsys.readouterr().out

    card = json.loads((folder / "card.json").read_text("utf-8"))
    assert card["trained"] == dataclasses.asdict(MINIATURE)
    ref = resolve(str(folder))
    frames = sample(load(ref), Card.read(ref).resolve(steps=1), prompt="a red ball", seed=0)
    assert frames.shape == (5, 32, 32, 3)
