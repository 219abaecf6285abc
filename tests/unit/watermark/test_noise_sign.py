"""Keyed initial noise: its law, its readers, and that nothing else reads as it."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from safegen.errors import PayloadError, WatermarkError
from safegen.types import ContentId
from safegen.watermark.base import MarkStatus, conclude
from safegen.watermark.noise import inversion, noise_sign
from safegen.watermark.noise.noise_sign import NoiseSignExtractor, initial_noise, nonce_of, read_latents
from safegen.watermark.payload import Payload
from tests.quick import quick

KEY = bytes(range(32))
PAYLOAD = Payload(ContentId("0123456789abcdef"))
SHAPE = (1, 16, 6, 16, 16)
TAIL = 0.6744897501960817


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(payload: Payload = PAYLOAD, key: bytes = KEY, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return initial_noise(shape, payload, key, generator=seeded(seed))


def plain(seed: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed))


def status_of(reading: noise_sign.Reading) -> MarkStatus:
    """The verdict that one reader comes to, as the extractor draws it."""
    return conclude("noise-sign", reading.statistic, reading.payload, noise_sign.NONCES, {}).status


def normal_cdf(x: np.ndarray) -> np.ndarray:
    return 0.5 * torch.special.erfc(-torch.from_numpy(x).double() / math.sqrt(2)).numpy()


def kolmogorov_smirnov(values: np.ndarray) -> float:
    """sqrt(n) times the largest distance of the empirical law from N(0, 1); 1.95 is exceeded with probability 0.001."""
    cdf = normal_cdf(np.sort(values))
    n = len(cdf)
    steps = np.arange(n + 1) / n
    return math.sqrt(n) * float(max((steps[1:] - cdf).max(), (cdf - steps[:-1]).max()))


# -- the law ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    """Noise under 40 keys, each with a clip (hence a nonce) of its own: float64 [40, 16, 6, 16, 16]."""
    rng = np.random.default_rng(7)
    clips = []
    for seed in range(40):
        payload = Payload(ContentId(rng.bytes(8).hex()))
        generator = seeded(seed)
        clips.append(initial_noise(SHAPE, payload, rng.bytes(32), generator=generator, dtype=torch.float64)[0])
    return torch.stack(clips).numpy()


def test_the_marginal_law_is_normal(many: np.ndarray) -> None:
    assert kolmogorov_smirnov(many.ravel()) < 1.95
    for frame in range(SHAPE[2]):  # frame 0, which is free, and the others alike
        assert kolmogorov_smirnov(many[:, :, frame].ravel()) < 2.2


def test_the_law_test_has_teeth(many: np.ndarray) -> None:
    signs_kept, magnitudes_wrong = np.sign(many), np.abs(many) * 1.02
    assert kolmogorov_smirnov((signs_kept * magnitudes_wrong).ravel()) > 1.95


@pytest.mark.parametrize("axis", [1, 2, 3, 4])
def test_neighbours_are_uncorrelated_in_value_and_in_size(many: np.ndarray, axis: int) -> None:
    first, second = np.delete(many, -1, axis).ravel(), np.delete(many, 0, axis).ravel()
    for f in (np.asarray, np.abs, lambda v: np.abs(v) > TAIL):
        r = np.corrcoef(f(first), f(second))[0, 1]
        assert abs(r) * math.sqrt(len(first)) < 4.0


def test_positions_are_unbiased_over_keys(many: np.ndarray) -> None:
    z = many.mean(axis=0) * math.sqrt(len(many))  # 24576 values of N(0, 1) if every position is fair
    assert kolmogorov_smirnov(z.ravel()) < 1.95
    tails = (np.abs(many) > TAIL).mean(axis=0)
    assert abs(tails.mean() - 0.5) < 4 * 0.5 / math.sqrt(many.size)


def test_clips_under_one_key_with_other_nonces_are_uncorrelated() -> None:
    other = next(p for i in range(9) if nonce_of(p := Payload(ContentId(f"{i:016x}")), KEY) != nonce_of(PAYLOAD, KEY))
    a, b = noise(seed=1).flatten(), noise(other, seed=2).flatten()
    for f in (torch.sign, torch.abs):
        assert abs(float(torch.corrcoef(torch.stack([f(a), f(b)]))[0, 1])) * math.sqrt(len(a)) < 4.0


# -- what decides about the noise ----------------------------------------------------------------------------------


def test_same_seed_same_noise() -> None:
    assert torch.equal(noise(seed=3), noise(seed=3))
    assert not torch.equal(noise(seed=3), noise(seed=4))


def test_different_payloads_and_keys_give_different_noise() -> None:
    other = Payload(ContentId("fedcba9876543210"))
    for changed in (noise(other), noise(key=bytes(32))):
        assert float((changed.sign() != noise().sign()).float().mean()) > 0.2
        assert torch.equal(changed[:, :, 0], noise()[:, :, 0])  # frame 0 is the generator's alone


def test_a_batch_carries_one_payload_each() -> None:
    payloads = [Payload(ContentId(f"{i:016x}")) for i in range(2)]
    batch = initial_noise((2, *SHAPE[1:]), payloads, KEY, generator=seeded(0))
    assert [read_latents(clip, KEY).payload for clip in batch] == payloads


def test_dtype_and_device_are_as_asked() -> None:
    made = initial_noise(SHAPE, PAYLOAD, KEY, generator=seeded(0), dtype=torch.bfloat16, device="cpu")
    assert (made.dtype, tuple(made.shape)) == (torch.bfloat16, SHAPE)
    assert read_latents(made[0], KEY).payload == PAYLOAD


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr_db", quick([0, -12, -16], -12))
def test_the_payload_reads_exactly_through_noise(snr_db: int) -> None:
    for seed in range(5):
        seen = 10 ** (snr_db / 20) * noise(seed=seed) + plain(100 + seed)
        found = read_latents(seen[0], KEY)
        assert found.payload == PAYLOAD
        assert status_of(found) is MarkStatus.VERIFIED


def test_a_mark_far_below_the_noise_reads_as_none() -> None:
    found = read_latents((10 ** (-40 / 20) * noise() + plain(1))[0], KEY)
    assert found.payload is None
    assert status_of(found) is MarkStatus.NONE


def test_whitening_finds_the_mark_under_strong_low_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.mgrid[:16, :16] * (2 * np.pi / 16)
    content = torch.from_numpy(20 * np.sin(x + 2 * y)).float() * plain(5, (16, 6, 1, 1))
    seen = 0.2 * noise()[0] + content + plain(6)[0]
    assert read_latents(seen, KEY).payload == PAYLOAD
    monkeypatch.setattr(noise_sign, "whiten", lambda latents: latents)
    assert read_latents(seen, KEY).payload is None


def test_a_clip_cut_at_its_end_still_reads() -> None:
    assert read_latents(noise()[0, :, :4], KEY).payload == PAYLOAD


@pytest.mark.slow
def test_a_wrong_key_reads_none() -> None:
    for n in range(3):
        found = read_latents(noise()[0], bytes([n + 1] * 32))
        assert found.payload is None
        assert status_of(found) is MarkStatus.NONE


@pytest.mark.slow
def test_50_unmarked_noises_read_none(monkeypatch: pytest.MonkeyPatch) -> None:
    # Fewer nonces spare time and lower the threshold, so that they make it harder to stay silent.
    monkeypatch.setattr(noise_sign, "NONCES", 128)
    readings = [read_latents(plain(seed)[0], KEY) for seed in range(50)]
    assert {status_of(r) for r in readings} == {MarkStatus.NONE}
    # The bound is worth its name only if unmarked statistics come close to what best-of-many codewords can reach.
    assert max(r.statistic for r in readings) > 8


def test_a_payload_under_a_nonce_that_is_not_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = (nonce_of(PAYLOAD, KEY) + 1) % noise_sign.NONCES
    with monkeypatch.context() as patch:
        patch.setattr(noise_sign, "nonce_of", lambda payload, key: wrong)
        moved = noise()
    found = read_latents(moved[0], KEY)
    assert found.nonce == wrong
    assert found.payload is None
    assert status_of(found) is MarkStatus.PRESENT


@pytest.mark.parametrize("latents", [torch.zeros(SHAPE[1:]), torch.full(SHAPE[1:], math.nan), plain(0)[0, :, :1]])
def test_nothing_to_read_is_none(latents: torch.Tensor) -> None:
    found = read_latents(latents, KEY)
    assert (found.payload, status_of(found)) == (None, MarkStatus.NONE)


@pytest.mark.parametrize("shape", [(16, 6, 16, 16), (1, 16, 1, 64, 64), (1, 16, 2, 16, 16), (1, 4, 600, 2, 2)])
def test_shapes_that_cannot_carry_a_payload_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(WatermarkError, match="cannot carry"):
        initial_noise(shape, PAYLOAD, KEY)


def test_malformed_input_is_refused() -> None:
    with pytest.raises(PayloadError):
        noise(key=b"short")
    with pytest.raises(WatermarkError, match="2 payloads"):
        initial_noise((2, *SHAPE[1:]), PAYLOAD, KEY)
    with pytest.raises(WatermarkError, match="one clip"):
        read_latents(noise(), KEY)


# -- from frames, through a VAE that loses nothing and one that is real ---------------------------------------------


class FoldVae(torch.nn.Module):
    """Folds 8 x 8 pixels into 192 channels and back: all of the noise arrives in the picture, at a quarter of its size.

    With it and a denoiser that changes nothing, a clip *is* its initial noise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Identity()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.config: dict[str, Any] = {"latents_mean": [0.0] * 192, "latents_std": [0.25] * 192, "z_dim": 192}

    def encode(self, video: torch.Tensor) -> Any:
        folded = torch.nn.functional.pixel_unshuffle(video.transpose(1, 2), 8).transpose(1, 2)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: folded))

    @staticmethod
    def frames(latents: torch.Tensor) -> np.ndarray:
        video = torch.nn.functional.pixel_shuffle(0.25 * latents.transpose(1, 2), 8)[0]
        return ((video.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def h264(frames: np.ndarray, crf: int, path: Path) -> np.ndarray:
    import imageio_ffmpeg

    t, h, w, _ = frames.shape
    ffmpeg, raw = imageio_ffmpeg.get_ffmpeg_exe(), ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    encode = [*raw, "-s", f"{w}x{h}", "-i", "-", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", str(crf), str(path)]
    subprocess.run([ffmpeg, "-y", "-v", "error", *encode], input=frames.tobytes(), check=True)
    out = subprocess.run([ffmpeg, "-v", "error", "-i", str(path), *raw, "-"], capture_output=True, check=True).stdout
    return np.frombuffer(out, np.uint8).reshape(t, h, w, 3)


@pytest.mark.slow
def test_frames_read_after_h264_where_the_noise_reaches_the_picture(tmp_path: Path) -> None:
    marked = FoldVae.frames(noise(shape=(1, 192, 5, 8, 8)))
    extractor = NoiseSignExtractor(FoldVae())
    for frames in (marked, h264(marked, 23, tmp_path / "clip.mp4")):
        found = extractor.extract_frames(frames, KEY)
        assert (found.status, found.payload, found.scheme) == (MarkStatus.VERIFIED, PAYLOAD, "noise-sign")
        assert found.hypotheses == noise_sign.NONCES
        assert found.evidence["nonce"] == nonce_of(PAYLOAD, KEY)
        assert extractor.extract_frames(frames, bytes(32)).status is MarkStatus.NONE


def test_a_flat_clip_and_a_still_read_none() -> None:
    extractor = NoiseSignExtractor(FoldVae())
    assert extractor.extract_frames(np.full((5, 64, 64, 3), 90, np.uint8), KEY).status is MarkStatus.NONE
    assert extractor.extract_frames(np.zeros((1, 64, 64, 3), np.uint8), KEY).status is MarkStatus.NONE
    with pytest.raises(WatermarkError, match="uint8"):
        extractor.extract_frames(np.zeros((5, 64, 64), np.uint8), KEY)


# -- back along the flow -----------------------------------------------------------------------------------------------


def gaussian_velocity(sigmas: list[float], mean: torch.Tensor, spread: float) -> Any:
    """The exact v(x, sigma) = E[noise - data | x] of data that are N(mean, spread**2)."""

    def velocity(x: torch.Tensor, i: int) -> torch.Tensor:
        s = sigmas[i]
        variance = s * s + (1 - s) ** 2 * spread**2
        return (x - (1 - s) * mean) * (s - (1 - s) * spread**2) / variance - mean

    return velocity


@pytest.mark.parametrize(("steps", "likeness"), [(64, 0.98), (5, 0.4), (4, 0.4)])
def test_steps_back_along_a_known_flow_find_the_noise(steps: int, likeness: float) -> None:
    mean = 3 * plain(9)  # what the prompt asks for: a hundred times the power that the noise leaves in the data
    fine, few = [[float(s) for s in np.linspace(1, 0, n + 1)] for n in (64, steps)]
    x = start = noise()
    velocity = gaussian_velocity(fine, mean, 0.3)
    for i in range(64):
        x = x + (fine[i + 1] - fine[i]) * velocity(x, i)
    back = inversion.invert(x, few, gaussian_velocity(few, mean, 0.3))
    near = float(torch.corrcoef(torch.stack([back.flatten(), start.flatten()]))[0, 1])
    far = float(torch.corrcoef(torch.stack([x.flatten(), start.flatten()]))[0, 1])
    assert near > likeness > 0.2 > far
    assert read_latents(back[0], KEY).payload == PAYLOAD


@pytest.fixture(scope="module")
def wan() -> Any:
    """A real Wan pipeline with random weights, whose denoiser is made to answer 0: a clip's latents are its noise."""
    from tests import pipelines

    pipe = pipelines.random_wan()
    torch.nn.init.zeros_(pipe.transformer.proj_out.weight)
    torch.nn.init.zeros_(pipe.transformer.proj_out.bias)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_wan_takes_the_noise_and_gives_it_back(wan: Any) -> None:
    start = noise()
    with torch.no_grad():
        arguments = {"height": 128, "width": 128, "num_frames": 21, "num_inference_steps": 3, "guidance_scale": 1.0}
        final = wan(
            prompt="a red ball", latents=start, output_type="latent", max_sequence_length=16, **arguments
        ).frames
    assert torch.allclose(final, start, atol=1e-5)
    before = wan.scheduler.timesteps.clone()
    back = inversion.invert_wan(wan, final, 4, 16)
    assert torch.allclose(back, start, atol=1e-5)
    assert torch.equal(wan.scheduler.timesteps, before)
    assert read_latents(back[0], KEY).payload == PAYLOAD


@pytest.mark.parametrize("expand", [False, True])
def test_the_denoiser_is_called_as_wan_calls_it(wan: Any, expand: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[tuple[int, ...], float]] = []

    def record(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        calls.append((tuple(kwargs["timestep"].shape), float(kwargs["timestep"].flatten()[0])))

    handle = wan.transformer.register_forward_pre_hook(record, with_kwargs=True)
    wan.register_to_config(expand_timesteps=expand)
    try:
        with torch.no_grad():
            arguments = {"height": 128, "width": 128, "num_frames": 5, "num_inference_steps": 4, "guidance_scale": 1.0}
            wan(prompt="", output_type="latent", max_sequence_length=16, **arguments)
        forward = calls.copy()
        calls.clear()
        inversion.invert_wan(wan, plain(0, (1, 16, 2, 16, 16)), 4, 16)
    finally:
        handle.remove()
        wan.register_to_config(expand_timesteps=False)
    assert calls == forward[::-1]


def test_a_denoiser_that_predicts_the_data_goes_back_the_same_way() -> None:
    from diffusers import UniPCMultistepScheduler

    from tests import pipelines

    wan = pipelines.random_wan()
    flow = {"use_flow_sigmas": True, "flow_shift": 3.0}
    final, own = plain(1, (1, 16, 2, 16, 16)), wan.transformer.forward
    torch.manual_seed(0)
    torch.nn.init.normal_(wan.transformer.proj_out.weight, std=0.1)
    wan.scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", **flow)
    expected = inversion.invert_wan(wan, final, 4, 16)

    def clean(hidden_states: torch.Tensor, timestep: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor]:
        velocity = own(hidden_states=hidden_states, timestep=timestep, **kwargs)[0]
        return (hidden_states - timestep.flatten()[0] / 1000 * velocity,)

    wan.transformer.forward = clean
    wan.scheduler = UniPCMultistepScheduler(prediction_type="sample", **flow)
    back = inversion.invert_wan(wan, final, 4, 16)
    moved = (expected - final).norm()
    assert moved > 0.05 * final.norm()
    assert (back - expected).norm() < 0.02 * moved, "times are rounded to whole ones, and bfloat16 rounds too"


@pytest.mark.slow
def test_both_readers_are_paid_for(wan: Any) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (21, 128, 128, 3), np.uint8)
    found = NoiseSignExtractor(wan, steps=2, max_sequence_length=16).extract_frames(frames, KEY)
    assert (found.status, found.hypotheses) == (MarkStatus.NONE, 2 * noise_sign.NONCES)
    assert NoiseSignExtractor(wan, steps=0).extract_frames(frames, KEY).hypotheses == noise_sign.NONCES


def test_other_families_are_refused_by_name() -> None:
    from tests import pipelines

    with pytest.raises(WatermarkError, match="CogVideoXPipeline"):
        NoiseSignExtractor(pipelines.random_cogvideox())
    with pytest.raises(WatermarkError, match="steps"):
        NoiseSignExtractor(FoldVae(), steps=50)


def test_schedules_that_are_no_fixed_flow_are_refused(wan: Any) -> None:
    from diffusers import DDIMScheduler

    other = SimpleNamespace(vae=wan.vae, transformer=wan.transformer, scheduler=DDIMScheduler())
    with pytest.raises(WatermarkError, match="DDIMScheduler"):
        NoiseSignExtractor(other)
