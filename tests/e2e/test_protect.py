"""Library use: ``safegen.protect`` around a pipeline that is loaded already, and other kinds of input and output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import safegen
from safegen.errors import BlockedError, InputError
from safegen.generators import call_defaults, load, resolve
from safegen.ledger import Ledger
from safegen.media import probe, read_clip
from safegen.provenance.read import read_credential
from safegen.settings import Home
from tests.e2e.conftest import PROMPT, SMALL, Made
from tests.pipelines import random_cogvideox, random_ltx, random_wan

CALL = {
    "height": 192,
    "width": 192,
    "num_frames": 13,
    "num_inference_steps": 2,
    "guidance_scale": 3.0,
    "max_sequence_length": 64,
}


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load(resolve("tiny"))


def test_a_protected_pipeline_writes_a_verified_clip(pipe: Any, fresh_home: Home, tmp_path: Path) -> None:
    seen = []

    def callback(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append((step, tuple(tensors["latents"].shape)))
        return tensors

    safe = safegen.protect(pipe, fps=8, home=fresh_home)
    made = safe(PROMPT, output=tmp_path / "clip.mp4", seed=3, callback_on_step_end=callback, **CALL)
    assert [step for step, _ in seen] == [0, 1]
    assert probe(made.output).fps == 8
    assert made.mark["scheme"] == "latent-residual"
    verdict = safegen.verify(made.output, home=fresh_home)
    assert (verdict.verdict, verdict.content_id, verdict.entry) == ("verified", made.content_id, made.entry)


def test_latents_that_the_caller_replaces_are_on_record(pipe: Any, fresh_home: Home, tmp_path: Path) -> None:
    def replace(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"latents": tensors["latents"] * 0.9} if step == 0 else {}

    asked = {"callback_on_step_end": replace, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    made = safegen.protect(pipe, fps=8, home=fresh_home)(PROMPT, output=tmp_path / "clip.mp4", seed=3, **asked, **CALL)
    with Ledger.open(fresh_home.ledger_url, create=False, read_only=True) as ledger:
        body = ledger.get(made.entry).body
    assert body["latents_from_caller"] == {"steps": 1, "largest_change": pytest.approx(0.1, abs=0.01)}
    looked = [run.detail for run in made.frames_decision.classifiers]
    assert any("13 of 13 frames" in note for note in looked), looked


def test_the_pixel_scheme_stands_behind_the_same_interface(pipe: Any, fresh_home: Home, tmp_path: Path) -> None:
    safe = safegen.protect(pipe, scheme="pixel", home=fresh_home)
    made = safe(PROMPT, output=tmp_path / "clip.mp4", seed=3, **CALL | {"num_frames": 5})
    assert made.mark["scheme"] == "pixel"
    verdict = safegen.verify(made.output, home=fresh_home)
    assert (verdict.verdict, verdict.content_id) == ("verified", made.content_id)


def test_arguments_that_the_pipeline_does_not_take(pipe: Any, fresh_home: Home, tmp_path: Path) -> None:
    safe = safegen.protect(pipe, home=fresh_home)
    with pytest.raises(InputError, match="num_inference_step"):
        safe(PROMPT, output=tmp_path / "clip.mp4", num_inference_step=2)
    with pytest.raises(InputError, match="scheme"):
        safegen.protect(pipe, home=fresh_home, scheme="no-such")(PROMPT, output=tmp_path / "clip.mp4", **CALL)


def test_a_vae_that_is_kept_nowhere_cannot_carry_a_stills_mark(fresh_home: Home, tmp_path: Path) -> None:
    safe = safegen.protect(random_wan(), home=fresh_home, scheme="latent-still")
    with pytest.raises(InputError, match="found again"):
        safe(PROMPT, output=tmp_path / "clip.mp4", height=32, width=32, num_frames=5, num_inference_steps=1)


def test_defaults_come_from_the_pipeline_itself() -> None:
    assert call_defaults(random_wan()) == {"height": 480, "width": 832, "num_frames": 81, "num_inference_steps": 50}
    assert call_defaults(random_cogvideox()) == {"height": 32, "width": 32, "num_frames": 9, "num_inference_steps": 50}


def test_clips_of_a_vae_that_does_not_draw_the_pattern_get_it_in_their_pixels(fresh_home: Home, tmp_path: Path) -> None:
    torch.manual_seed(0)
    call = {"height": 192, "width": 192, "num_frames": 9, "num_inference_steps": 2, "max_sequence_length": 16}
    made = safegen.protect(random_ltx(), fps=24, home=fresh_home)(PROMPT, output=tmp_path / "c.mp4", seed=1, **call)
    assert (made.mark["scheme"], made.mark["drawn_as"]) == ("latent-residual", "clip-pixels")
    assert made.model["pipeline"] == "LTXPipeline"
    assert safegen.verify(made.output, home=fresh_home).verdict == "verified"


def test_embeddings_without_text_are_refused(pipe: Any, fresh_home: Home, tmp_path: Path) -> None:
    safe = safegen.protect(pipe, home=fresh_home)
    with pytest.raises(BlockedError):
        safe(PROMPT, output=tmp_path / "clip.mp4", prompt_embeds=np.zeros((1, 64, 256)), **CALL)
    for reserved in ({"generator": object()}, {"output_type": "pil"}):
        with pytest.raises(InputError):
            safe(PROMPT, output=tmp_path / "clip.mp4", **reserved, **CALL)
    with pytest.raises(InputError):
        safe([PROMPT, PROMPT], output=tmp_path / "clip.mp4", **CALL)
    assert not (tmp_path / "clip.mp4").exists()


def test_a_still_is_marked_signed_and_verified(fresh_home: Home, tmp_path: Path) -> None:
    made = safegen.generate(PROMPT, output=tmp_path / "still.png", frames=1, steps=2, seed=4, home=fresh_home)
    assert probe(made.output).kind == "image"
    assert safegen.verify(made.output, home=fresh_home).verdict == "verified"


@pytest.mark.slow
def test_an_input_whose_identity_is_not_confirmed_costs_no_generation(
    fresh_home: Home, tmp_path: Path, shared_data: Path
) -> None:
    for name in ("py-C_with_CAWG_data.jpg", "cawg/ica-signature_mismatch.jpg"):
        output = tmp_path / f"{Path(name).stem}.mp4"
        made = safegen.generate(
            PROMPT, output=output, image=shared_data / "c2pa" / name, seed=5, home=fresh_home, **SMALL
        )
        (ingredient,) = read_credential(made.output).ingredients
        assert ingredient.manifest_id
        assert safegen.verify(made.output, home=fresh_home).verdict == "verified"


@pytest.mark.parametrize(
    "suffix", ["png", pytest.param("avif", marks=pytest.mark.slow), pytest.param("heic", marks=pytest.mark.slow)]
)
def test_an_image_becomes_an_ingredient(suffix: str, fresh_home: Home, tmp_path: Path) -> None:
    if suffix == "heic":
        pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif").register_heif_opener()
    ramp = np.linspace(0, 255, 192, dtype=np.uint8)
    image = tmp_path / f"first.{suffix}"
    Image.fromarray(np.stack([np.tile(ramp, (192, 1))] * 3, -1)).save(image)
    made = safegen.generate(PROMPT, output=tmp_path / "clip.mp4", image=image, seed=5, home=fresh_home, **SMALL)
    credential = read_credential(made.output)
    assert [i.relationship for i in credential.ingredients] == ["inputTo"]
    assert "image" in made.decision.sources
    assert safegen.verify(made.output, home=fresh_home).verdict == "verified"


def test_a_signed_source_clip_stays_in_the_chain(made: Made, home: Home, tmp_path: Path) -> None:
    derived = safegen.generate(PROMPT, output=tmp_path / "derived.mp4", video=made.path, seed=6, home=home, **SMALL)
    credential = read_credential(derived.output)
    assert [(i.relationship, i.content_id) for i in credential.ingredients] == [
        ("parentOf", made.printed["content_id"])
    ]
    assert "video" in derived.decision.sources
    verdict = safegen.verify(derived.output, home=home)
    assert (verdict.verdict, verdict.content_id) == ("verified", derived.content_id)


def test_the_same_seed_draws_the_same_scene_with_another_mark(pipe: Any, fresh_home: Home, tmp_path: Path) -> None:
    safe = safegen.protect(pipe, home=fresh_home)
    one, two = (safe(PROMPT, output=tmp_path / f"{n}.mp4", seed=3, **CALL) for n in range(2))
    assert one.content_id != two.content_id
    a, b = (read_clip(c.output).frames.astype(float) for c in (one, two))
    assert 10 * np.log10(255**2 / np.mean((a - b) ** 2)) > 30
    with Ledger.open(fresh_home.ledger_url, create=False, read_only=True) as ledger:
        assert [e.content_id for e in ledger.entries()] == [one.content_id, two.content_id]


def test_inputs_that_exclude_each_other(fresh_home: Home, made: Made, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        safegen.generate(PROMPT, output=tmp_path / "clip.mp4", image=made.path, video=made.path, home=fresh_home)
