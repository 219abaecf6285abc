"""The training's stages: the quick pass says what diffusers' says, and each stage goes on where it was."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

import safegen.tinymodel
from safegen.generators import Card, load, resolve, sample
from safegen.tinymodel.training import dit, fastdit, latents, text
from safegen.tinymodel.training import vae as vae_stage
from safegen.tinymodel.training.assemble import assemble
from safegen.tinymodel.training.parts import TEXT_TOKENS, make_dit
from safegen.tinymodel.training.run import Run
from safegen.tinymodel.training.vae import train_vae
from safegen.watermark import fastvae

PIPE = Path(safegen.tinymodel.__file__).parent / "pipe"


def test_the_quick_pass_says_what_diffusers_says() -> None:
    torch.manual_seed(0)
    model = make_dit(2)
    x, sigma, states = torch.randn(3, 48, 2, 4, 6), torch.rand(3, 2), torch.randn(3, 9, 256)
    states[1, 5:] = 0  # a shorter caption
    padded = torch.nn.functional.pad(states, (0, 0, 0, TEXT_TOKENS - 9))
    timestep = (sigma * 1000).repeat_interleave(6, 1)
    slow = model(hidden_states=x, timestep=timestep, encoder_hidden_states=padded, return_dict=False)[0]
    weights = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(slow.square().sum(), weights)
    quick = fastdit.forward(model, x, sigma, states, TEXT_TOKENS, torch.float32)
    found = torch.autograd.grad(quick.square().sum(), weights)
    torch.testing.assert_close(quick, slow, rtol=1e-4, atol=1e-4)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= 1e-3 * b.norm() + 1e-4


def test_a_caption_as_long_as_the_text_has_no_padding() -> None:
    torch.manual_seed(0)
    model = make_dit(1)
    x, sigma, states = torch.randn(1, 48, 1, 4, 4), torch.rand(1, 1), torch.randn(1, TEXT_TOKENS, 256)
    with torch.no_grad():
        slow = model(hidden_states=x, timestep=sigma[:, 0] * 1000, encoder_hidden_states=states, return_dict=False)[0]
        quick = fastdit.forward(model, x, sigma, states, TEXT_TOKENS, torch.float32)
    torch.testing.assert_close(quick, slow, rtol=1e-4, atol=1e-4)


def test_cells_take_their_cover_from_the_frames_that_they_stand_for() -> None:
    alpha = torch.zeros(1, 5, 32, 32, dtype=torch.uint8)
    alpha[0, 3, :16, 16:] = 255  # in one of the second latent frame's four
    cover = latents.cell_cover(alpha)
    assert cover[0].tolist() == [[[0, 0], [0, 0]], [[0, 255], [0, 0]]]


def test_solids_weigh_more() -> None:
    """The same error costs more where a solid is."""
    model = torch.nn.Module()
    clean = torch.zeros(1, 48, 1, 4, 4)
    cover = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    cover[..., :2] = 255
    losses = []
    for on_solid in (True, False):
        guess = torch.zeros_like(clean)
        guess[..., :2] += float(on_solid)
        guess[..., 2:] += float(not on_solid)
        torch.manual_seed(0)
        loss = dit.loss_of(model, clean, cover, torch.zeros(1, 3, 256), lambda *_, guess=guess: guess)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(5 * losses[1])


def test_a_run_counts_processor_seconds_and_finds_what_it_kept(tmp_path: Path) -> None:
    run = Run(tmp_path, spent=100.0)
    assert 100 <= run.seconds < 101
    assert not run.due(every=1e6)
    run.save({"a": torch.ones(2)}, "kept.pt")
    assert torch.equal(run.load("kept.pt")["a"], torch.ones(2))
    assert run.load("other.pt") is None
    assert [p.name for p in tmp_path.iterdir()] == ["kept.pt"]


@pytest.mark.slow
def test_all_stages_end_in_a_pipeline_that_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastvae, "fast_cpu", lambda: False)  # one step each: preparing bfloat16 kernels would not pay
    monkeypatch.setattr(vae_stage, "_MEASURED", 1)
    train_vae(tmp_path / "vae", PIPE, 0.5)
    encoder = fastvae.load_vae(tmp_path / "vae").encoder.state_dict()
    train_vae(tmp_path / "vae", tmp_path / "vae", 0.5, decoder_only=True)
    polished = fastvae.load_vae(tmp_path / "vae")
    assert all(torch.equal(v, encoder[k]) for k, v in polished.encoder.state_dict().items())
    text.train_text(tmp_path / "text", 0.1)
    vae, folder = fastvae.load_vae(tmp_path / "vae"), tmp_path / "latents"
    monkeypatch.setitem(latents._AT_ONCE, "stills", 2)
    run = Run(folder)
    run.save(latents.make(vae, random.Random(0), "stills", 2), "stills-00000.pt")
    run.save(latents.make(vae, random.Random(0), "clips", 1), "clips-00000.pt")
    monkeypatch.setattr(dit, "_STILL_BATCH", 2)
    monkeypatch.setattr(dit, "_CLIP_BATCH", 1)
    dit.train_dit(tmp_path / "dit", folder, tmp_path / "text", 0.01, stills_only=0, cool=0)
    dit.train_dit(tmp_path / "dit", folder, tmp_path / "text", 2, stills_only=0, cool=1)  # goes on, with clips
    said = capsys.readouterr().out
    assert all(f"{stage} done" in said for stage in ("vae", "text", "dit"))

    ref = resolve(str(assemble(tmp_path / "pipe", tmp_path / "vae", tmp_path / "text", tmp_path / "dit")))
    frames = sample(load(ref), Card.read(ref).resolve(steps=1), prompt="a red ball", seed=0)
    assert frames.shape == (25, 192, 192, 3)
