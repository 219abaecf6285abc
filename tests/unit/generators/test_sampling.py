"""Loading and sampling: the embedded model in its three modes, and other families with random weights."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from safegen.errors import GeneratorError, InputError, WatermarkError
from safegen.generators import Card, decode_latents, load, resolve, sample, sampling
from safegen.watermark.layouts import ClipShape, call_shape
from tests.pipelines import random_cogvideox, random_ltx, random_wan

PROMPT = "a red ball bouncing on grass under a clear blue sky"


def small_call(**changes: Any) -> dict[str, Any]:
    return Card.read(resolve("tiny")).resolve(**({"size": (96, 96), "frames": 9, "steps": 2} | changes))


@pytest.fixture(scope="module")
def tiny() -> Any:
    return load(resolve("tiny"))


@pytest.fixture(scope="module")
def drawn() -> NDArray[np.uint8]:
    """A clip of the kind that the model knows, uint8 [9, 96, 96, 3]."""
    from safegen.tinymodel.training.render import draw

    return draw(random.Random(3), 1, frames=9, size=96)[0][0, ..., :3].numpy()


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean()))


def test_the_embedded_model_draws_a_clip(tiny: Any) -> None:
    steps: list[tuple[int, int]] = []
    frames = sample(tiny, small_call(), prompt=PROMPT, seed=1, progress=lambda i, n: steps.append((i, n)))
    assert (frames.shape, frames.dtype) == ((9, 96, 96, 3), np.uint8)
    assert frames.std() > 5, "a picture, not one colour"
    assert steps == [(1, 2), (2, 2)]


def test_a_seed_names_a_clip(tiny: Any) -> None:
    call = small_call(size=(64, 64), frames=5)
    first, again, other = (sample(tiny, call, prompt=PROMPT, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert psnr(first, other) < 40


def test_prompts_and_negative_prompts_matter(tiny: Any) -> None:
    call = small_call(size=(64, 64), frames=5)
    plain = sample(tiny, call, prompt=PROMPT, seed=1)
    assert not np.array_equal(plain, sample(tiny, call, prompt="a blue cube on snow at night", seed=1))
    assert not np.array_equal(plain, sample(tiny, call, prompt=PROMPT, negative_prompt="snow", seed=1))


def test_an_image_becomes_the_first_frame(drawn: NDArray[np.uint8]) -> None:
    pipe = load(resolve("tiny"), mode="image")
    frames = sample(pipe, small_call(), prompt=PROMPT, seed=1, image=drawn[0])
    assert frames.shape == (9, 96, 96, 3)
    assert psnr(frames[0], drawn[0]) > 20
    stranger = drawn[0, :, ::-1][::-1]  # upside down: the VAE's own blur cannot explain the likeness
    assert psnr(frames[0], drawn[0]) > psnr(frames[0], stranger) + 6


@pytest.mark.slow
def test_a_video_keeps_its_layout_as_far_as_strength_allows(drawn: NDArray[np.uint8]) -> None:
    pipe = load(resolve("tiny"), mode="video")
    call = small_call(size=(64, 64), frames=5, steps=4)
    light, heavy = (
        sample(pipe, call, prompt="a blue cube on snow at night", seed=1, video=drawn, strength=s) for s in (0.25, 1.0)
    )
    assert light.shape == heavy.shape == (5, 64, 64, 3)
    given = np.stack(sampling.fit(drawn[:5], 64, 64))
    assert psnr(light, given) > psnr(heavy, given) + 3
    with pytest.raises(InputError, match="strength"):
        sample(pipe, call, prompt=PROMPT, video=drawn, strength=0.0)
    with pytest.raises(InputError, match="has 3 frames"):
        sample(pipe, call, prompt=PROMPT, video=drawn[:3])
    with pytest.raises(InputError, match="needs an input video"):
        sample(pipe, call, prompt=PROMPT)


def test_an_input_that_the_mode_does_not_take(tiny: Any, drawn: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match="takes no image"):
        sample(tiny, small_call(), prompt=PROMPT, image=drawn[0])


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((8, 8), np.uint8), id="grey"),
        pytest.param(np.zeros((8, 8, 3), np.float32), id="float"),
        pytest.param(np.zeros((0, 8, 3), np.uint8), id="empty"),
        pytest.param(np.zeros((8, 8, 4), np.uint8), id="with_alpha"),
    ],
)
def test_an_image_of_the_wrong_kind(image: Any) -> None:
    with pytest.raises(InputError, match="uint8 RGB"):
        sampling.fit(image[None], 32, 32)


# --- hooks -----------------------------------------------------------------------------------------------------------


def test_the_callback_may_replace_the_latents_and_use_gradients(tiny: Any) -> None:
    def pull_to_zero(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        with torch.enable_grad():
            latents = tensors["latents"].detach().clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad((latents**2).sum() / 2, latents)
        return {"latents": latents.detach() - gradient}

    frames = sample(tiny, small_call(), prompt=PROMPT, seed=1, callback=pull_to_zero)
    blank = decode_latents(tiny, torch.zeros(1, 48, 3, 6, 6), ClipShape(9, 96, 96))
    np.testing.assert_array_equal(frames, blank)


@pytest.mark.parametrize("error", [WatermarkError("no"), KeyboardInterrupt()])
def test_what_the_callback_raises_passes_through(tiny: Any, error: BaseException) -> None:
    def fail(*_: Any) -> dict[str, Any]:
        raise error

    with pytest.raises(type(error)) as caught:
        sample(tiny, small_call(), prompt=PROMPT, callback=fail)
    assert caught.value is error


def test_latents_that_are_not_finite(tiny: Any) -> None:
    def spoil(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"latents": tensors["latents"] * float("nan")}

    with pytest.raises(GeneratorError, match="not finite"):
        sample(tiny, small_call(), prompt=PROMPT, callback=spoil)


def test_a_failing_pipeline_ends_in_our_error(tiny: Any) -> None:
    with pytest.raises(GeneratorError, match="failed while sampling") as caught:
        sample(tiny, small_call() | {"guidance_scale": "much"}, prompt=PROMPT)
    assert caught.value.__cause__ is not None


@pytest.mark.slow
def test_decoding_at_once_equals_decoding_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = load(resolve("tiny"), dtype="float32")
    latents = torch.randn(1, 48, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    whole = decode_latents(pipe, latents, ClipShape(9, 32, 64))
    monkeypatch.setattr(sampling, "WHOLE_CLIP_BYTES", 0)
    by_chunks = decode_latents(pipe, latents, ClipShape(9, 32, 64))
    assert np.abs(whole.astype(int) - by_chunks).max() <= 1


# --- other folders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "size", "frames"),
    [(random_wan, (48, 32), 5), (random_cogvideox, (32, 32), 9), (random_ltx, (64, 32), 9)],
)
def test_other_families_run_by_the_same_path(tmp_path: Path, make: Any, size: tuple[int, int], frames: int) -> None:
    torch.manual_seed(0)
    make().save_pretrained(tmp_path)
    ref = resolve(str(tmp_path))
    call = Card.read(ref).resolve(size=size, frames=frames, steps=2) | {"max_sequence_length": 16}
    pipe = load(ref)
    first, again = (sample(pipe, call, prompt="a red ball", seed=5) for _ in range(2))
    assert (first.shape, first.dtype) == ((frames, size[1], size[0], 3), np.uint8)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(("make", "size", "frames"), [(random_wan, (48, 32), 5), (random_cogvideox, (32, 32), 9)])
def test_latents_decode_to_what_the_pipeline_itself_draws(make: Any, size: tuple[int, int], frames: int) -> None:
    torch.manual_seed(0)
    pipe = make()
    kept: list[Any] = []

    def keep(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        kept[:] = [tensors["latents"]]
        return tensors

    call = {"width": size[0], "height": size[1], "num_frames": frames, "num_inference_steps": 2}
    drawn = sample(pipe, call | {"max_sequence_length": 16}, prompt="a red ball", seed=5, callback=keep)
    again = decode_latents(pipe, kept[0], call_shape(pipe, call))
    assert again.shape == drawn.shape
    assert np.abs(again.astype(int) - drawn).max() <= 2


def skeleton(tmp_path: Path, **index: Any) -> Path:
    """The embedded model's JSON files without weights, with changes to its index."""
    source = Path(resolve("tiny").source)
    shutil.copytree(source, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    path = tmp_path / "m" / "model_index.json"
    path.chmod(0o644)
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | index), "utf-8")
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [("StableDiffusionPipeline", "no video pipeline"), ("StableVideoDiffusionPipeline", "no video from text")],
)
def test_no_text_to_video_pipeline(tmp_path: Path, pipeline: str, message: str) -> None:
    with pytest.raises(InputError, match=message):  # refused although there are no weights to load
        load(resolve(str(skeleton(tmp_path, _class_name=pipeline))))


def test_pipeline_that_this_diffusers_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match="NoSuchPipeline"):
        load(resolve(str(skeleton(tmp_path, _class_name="NoSuchPipeline"))))


def test_family_without_video_to_video(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no video from video"):
        load(resolve(str(skeleton(tmp_path, _class_name="LTXPipeline"))), mode="video")


def test_wan_that_was_not_trained_for_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not trained to start from an image"):
        load(resolve(str(skeleton(tmp_path, expand_timesteps=False))), mode="image")


def test_weights_missing(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match="cannot load"):
        load(resolve(str(skeleton(tmp_path))))


def test_weights_truncated(tmp_path: Path) -> None:
    folder = skeleton(tmp_path)
    for path in Path(resolve("tiny").source).rglob("*.safetensors"):
        (folder / path.parent.name / path.name).write_bytes(path.read_bytes()[:1000])
    with pytest.raises(GeneratorError, match="cannot load"):
        load(resolve(str(folder)))


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    folder = skeleton(tmp_path)
    for part in ("vae", "transformer"):
        (folder / part / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    (folder / "text_encoder" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(GeneratorError, match="cannot load"):
        load(resolve(str(folder)))
    assert not Path("opened").exists()


@pytest.mark.parametrize("wrong", [{"device": "toaster"}, {"dtype": "float8"}])
def test_device_and_dtype_by_name(wrong: dict[str, str]) -> None:
    with pytest.raises(InputError, match="no such"):
        load(resolve("tiny"), **wrong)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_cuda_without_a_gpu() -> None:
    with pytest.raises(InputError, match="CUDA"):
        load(resolve("tiny"), device="cuda")
