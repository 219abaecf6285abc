"""The scheme for stills end to end: real VAEs, the real diffusers loop, a real H.264 encoder."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import safegen.tinymodel
from safegen.errors import PayloadError, WatermarkError
from safegen.types import ContentId
from safegen.watermark import base, fastvae
from safegen.watermark.payload import Payload
from safegen.watermark.pixel import PixelScheme
from safegen.watermark.still import carrier
from safegen.watermark.still.latent_still import (
    MAX_READ_SIDE,
    Recipe,
    StillEmbedder,
    StillExtractor,
    embed_latents,
    extract_frames,
    load_vae,
    vae_digest,
)

PIPE = Path(safegen.tinymodel.__file__).parent / "pipe"
KEY = bytes(range(32))
PAYLOAD = Payload(ContentId("0123456789abcdef"))


@pytest.fixture(scope="module")
def vae() -> Any:
    return load_vae(PIPE)


@pytest.fixture(scope="module")
def latents(vae: Any) -> torch.Tensor:
    """Latents [1, 48, 3, 10, 10] of a smooth moving picture with some texture, 9 frames of 160x160."""
    y, x = np.mgrid[:160, :160] / 160
    times = np.arange(9)[:, None, None]
    clip = np.stack([np.sin(5 * x + 0.2 * times), np.cos(4 * y - 0.1 * times), np.sin(3 * (x + y) + 0.1 * times)], -1)
    texture = np.random.default_rng(0).standard_normal((1, 20, 20, 3)).repeat(8, 1).repeat(8, 2)
    video = torch.from_numpy(0.6 * clip + 0.1 * texture).float().permute(3, 0, 1, 2)[None]
    with torch.no_grad():
        return fastvae.encode(vae, video)


def tiny_wan_vae(**changes: Any) -> Any:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    config = {
        "base_dim": 8,
        "z_dim": 16,
        "dim_mult": [1, 2, 2, 2],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
        "latents_mean": [0.1] * 16,
        "latents_std": [0.7] * 16,
        **changes,
    }
    return fastvae.prepare(AutoencoderKLWan(**config))


def to_frames(video: torch.Tensor) -> np.ndarray:
    """[1, 3, T, H, W] in [-1, 1] to uint8 [T, H, W, 3]."""
    return ((video[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).contiguous().numpy()


def h264(frames: np.ndarray, crf: int, path: Path) -> np.ndarray:
    import imageio_ffmpeg

    t, h, w, _ = frames.shape
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    quiet = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    encode = [*raw, "-s", f"{w}x{h}", "-r", "16", "-i", "-", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", str(crf)]
    subprocess.run([*quiet, *encode, str(path)], input=frames.tobytes(), check=True)
    out = subprocess.run([*quiet, "-i", str(path), *raw, "-"], stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(out, np.uint8).reshape(t, h, w, 3)


# --- whole-clip VAE passes ---


@pytest.mark.parametrize("changes", [{}, {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}])
@pytest.mark.parametrize("frames", [1, 9])
def test_whole_clip_pass_equals_the_chunked_one(
    changes: dict[str, Any], frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastvae, "fast_cpu", lambda: False)
    small = tiny_wan_vae(**changes)
    latents = torch.randn(1, 16, (frames - 1) // 4 + 1, 4, 4)
    mean, std = fastvae.latent_stats(small)
    with torch.no_grad():
        video = fastvae.decode(small, latents).clamp(-1, 1)
        assert torch.allclose(video, small.decode(latents * std + mean).sample, atol=2e-5)
        chunked = (small.encode(video).latent_dist.mode() - mean) / std
        assert torch.allclose(fastvae.encode(small, video), chunked, atol=2e-5)


def test_recomputed_gradients_equal_stored_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastvae, "fast_cpu", lambda: False)
    small = tiny_wan_vae()
    grads = []
    for recompute in (False, True):
        latents = torch.full((1, 16, 2, 4, 4), 0.3, requires_grad=True)
        back = fastvae.encode(small, fastvae.decode(small, latents, checkpoint=recompute), checkpoint=recompute)
        grads.append(torch.autograd.grad(back.square().sum(), latents)[0])
    assert grads[0].abs().max() > 0
    assert torch.allclose(grads[0], grads[1], rtol=1e-4, atol=1e-6)


# --- inside the real denoising loop ---


def tiny_pipeline(vae: Any) -> Any:
    """A real WanPipeline: random little transformer, the embedded model's VAE, no text encoder."""
    from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

    torch.manual_seed(1)
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=48,
        out_channels=48,
        text_dim=16,
        freq_dim=32,
        ffn_dim=32,
        num_layers=1,
        rope_max_seq_len=32,
    )
    with torch.no_grad():
        transformer.proj_out.weight.mul_(0.1)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipe = WanPipeline(tokenizer=None, text_encoder=None, vae=vae, transformer=transformer, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.slow
def test_hook_marks_the_last_step_of_a_real_pipeline_and_the_output_reads_back(vae: Any, latents: torch.Tensor) -> None:
    """The little transformer knows no pictures, so the loop starts from a picture's latents and hardly moves them."""
    pipe = tiny_pipeline(vae)
    done: list[tuple[int, int]] = []
    seen: list[torch.Tensor] = []
    hook = StillEmbedder(PAYLOAD, KEY, progress=lambda n, total: done.append((n, total)))

    def spy(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        before = kwargs["latents"].clone()
        after = hook(pipe, step, timestep, kwargs)
        seen.append((after["latents"] - before).abs().max())
        return after

    frames = pipe(
        prompt_embeds=torch.randn(1, 4, 16),
        negative_prompt_embeds=torch.randn(1, 4, 16),
        height=160,
        width=160,
        num_frames=9,
        latents=latents,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
        callback_on_step_end=spy,
        callback_on_step_end_tensor_inputs=["latents"],
    ).frames[0]
    assert [float(v) > 0 for v in seen] == [False, False, True]
    assert done == [(i + 1, 3) for i in range(3)]
    assert hook.clean is not None
    assert hook.marked is not None
    found = extract_frames((frames * 255).round().astype(np.uint8), pipe.vae, KEY)
    assert found.status is base.MarkStatus.VERIFIED
    assert found.payload == PAYLOAD


def test_pipeline_that_hands_no_latents_is_refused() -> None:
    class Pipe:
        num_timesteps = 1
        vae = None

    with pytest.raises(WatermarkError, match="no latents"):
        StillEmbedder(PAYLOAD, KEY)(Pipe(), 0, None, {})
    with pytest.raises(WatermarkError, match="last step"):
        StillEmbedder(PAYLOAD, KEY).remark(None, 1.0)


# --- the embedded model's VAE ---


@pytest.fixture(scope="module")
def marked_pair(vae: Any, latents: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(marked, unmarked) frames, uint8 [9, 160, 160, 3]: at strength 1 this picture just misses the threshold."""
    with torch.no_grad():
        marked = embed_latents(vae, latents, PAYLOAD, KEY, strength=1.5)
        assert marked.shape == latents.shape
        assert marked.dtype == latents.dtype
        return to_frames(fastvae.decode(vae, marked)), to_frames(fastvae.decode(vae, latents))


@pytest.mark.slow
def test_mark_survives_h264_and_stays_faint(
    vae: Any, marked_pair: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    marked, unmarked = marked_pair
    found = extract_frames(h264(marked, 23, tmp_path / "clip.mp4"), vae, KEY)
    assert (found.status, found.payload) == (base.MarkStatus.VERIFIED, PAYLOAD)
    error = np.mean((marked.astype(float) - unmarked) ** 2)
    assert 10 * np.log10(255**2 / error) > 32


@pytest.mark.slow
def test_unmarked_clip_and_wrong_key_read_nothing(vae: Any, marked_pair: tuple[np.ndarray, np.ndarray]) -> None:
    marked, unmarked = marked_pair
    assert extract_frames(unmarked, vae, KEY).status is base.MarkStatus.NONE
    assert extract_frames(marked, vae, bytes(32)).status is base.MarkStatus.NONE


@pytest.mark.slow
def test_resized_and_shortened_clip_reads_by_its_shape_hint(
    vae: Any, marked_pair: tuple[np.ndarray, np.ndarray]
) -> None:
    import cv2

    small = np.stack([cv2.resize(f, (128, 128), interpolation=cv2.INTER_AREA) for f in marked_pair[0]])
    found = extract_frames(small, vae, KEY, shapes=[(9, 160, 160)])
    assert found.payload == PAYLOAD
    assert found.hypotheses == 2
    assert found.evidence["shape"] == [9, 160, 160]
    assert StillExtractor(vae).extract_frames(small, KEY).payload is None


def test_digest_names_the_weights_file(vae: Any) -> None:
    assert vae_digest(PIPE) == vae_digest(PIPE / "vae") == vae_digest(vae)
    assert len(vae_digest(PIPE)) == 64


def test_image_vae_with_scaling_factor_gains_the_mark_in_its_own_layout() -> None:
    """[B, C, H, W] latents with scaling_factor and shift_factor. The weights are random, so only the gain is tested."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    image_vae = AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=16,
        norm_num_groups=4,
        scaling_factor=0.5,
        shift_factor=0.1,
    )
    fastvae.prepare(image_vae)
    latents = torch.randn(1, 16, 24, 24)
    with torch.no_grad():
        image = fastvae.decode(image_vae, latents[:, :, None])
        raw = image_vae.decode(latents / 0.5 + 0.1).sample
        assert torch.allclose(image[:, :, 0], raw, atol=0.02)
        mode = image_vae.encode(raw).latent_dist.mode()
        assert torch.allclose(fastvae.encode(image_vae, image)[:, :, 0], (mode - 0.1) * 0.5, atol=0.02)
    marked = embed_latents(image_vae, latents, PAYLOAD, KEY, recipe=Recipe(noise=0.0))
    assert marked.shape == latents.shape

    def statistic(z: torch.Tensor) -> float:
        with torch.no_grad():
            back = fastvae.encode(image_vae, fastvae.decode(image_vae, z[:, :, None]))[0]
        layout = carrier.place(KEY, tuple(back.shape))
        return float(carrier.bit_statistics(carrier.whiten(back), layout) @ carrier.codeword(PAYLOAD, KEY)) / 369**0.5

    assert statistic(marked) > statistic(latents)


# --- refusals ---


@pytest.mark.parametrize("shape", [(1, 144, 64), (1, 7, 48, 12, 12), (1, 3, 7, 12, 12), (48,)])
def test_packed_or_unknown_latents_are_refused(vae: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(WatermarkError, match="fit no layout"):
        embed_latents(vae, torch.zeros(shape), PAYLOAD, KEY)


def test_bad_strength_key_count_and_frames_are_refused(vae: Any) -> None:
    latents = torch.zeros(1, 48, 2, 4, 4)
    with pytest.raises(WatermarkError, match="strength"):
        embed_latents(vae, latents, PAYLOAD, KEY, strength=0)
    with pytest.raises(PayloadError, match="32 bytes"):
        embed_latents(vae, latents, PAYLOAD, b"short")
    with pytest.raises(WatermarkError, match="payloads"):
        embed_latents(vae, latents, [PAYLOAD, PAYLOAD], KEY)
    with pytest.raises(WatermarkError, match="too small"):
        embed_latents(vae, latents, PAYLOAD, KEY)
    with pytest.raises(WatermarkError, match="uint8"):
        extract_frames(np.zeros((2, 32, 32, 3), np.float32), vae, KEY)
    small = extract_frames(np.zeros((1, 32, 32, 3), np.uint8), vae, KEY)
    assert small.status is base.MarkStatus.NONE
    assert small.p_value == 1.0


def test_folder_without_vae_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WatermarkError, match="no VAE"):
        load_vae(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKLWan"}')
    with pytest.raises(WatermarkError, match="could be loaded"):
        load_vae(tmp_path)
    with pytest.raises(WatermarkError, match="weights"):
        vae_digest(tmp_path)


# --- the pixel scheme ---


@pytest.mark.slow
def test_pixel_mark_survives_h264_and_other_keys_read_nothing(tmp_path: Path) -> None:
    y, x = np.mgrid[:192, :192] / 192
    frames = np.stack([np.stack([200 * x, 180 * y + 2 * t, 120 + 60 * np.sin(6 * x)], -1) for t in range(6)])
    frames = frames.astype(np.uint8)
    scheme = PixelScheme()
    marked = scheme.embed_frames(frames, PAYLOAD, KEY)
    seen = h264(marked, 23, tmp_path / "clip.mp4")
    found = scheme.extract_frames(seen, KEY)
    assert (found.status, found.payload) == (base.MarkStatus.VERIFIED, PAYLOAD)
    assert scheme.extract_frames(seen[3:], KEY).payload == PAYLOAD
    assert scheme.extract_frames(seen, bytes(32)).status is base.MarkStatus.NONE
    assert scheme.extract_frames(frames, KEY).status is base.MarkStatus.NONE
    assert scheme.extract_frames(frames[:, :64, :64], KEY).status is base.MarkStatus.NONE
    with pytest.raises(WatermarkError, match="too small"):
        scheme.embed_frames(frames[:, :64, :64], PAYLOAD, KEY)


def test_a_picture_of_a_few_endless_lines_is_refused_and_not_transformed(vae: Any) -> None:
    frames = np.zeros((1, 2, MAX_READ_SIDE + 64, 3), np.uint8)
    with pytest.raises(WatermarkError, match="too long and narrow"):
        extract_frames(frames, vae, KEY)
