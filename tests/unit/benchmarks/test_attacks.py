"""The benchmark's attacks do what their names say, and the same thing for the same seed."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from benchmarks.watermark import edits, metrics, nulls, peers, pixels, prompts, timeline
from benchmarks.watermark.attacks import ATTACKS, FAMILIES, LISTS, NOTHING, Attack, Context, UnavailableError, chosen
from safegen.types import Clip

LENGTH, EDGE = 9, 64
MODELS = {"own_vae", "other_vae", "redraw_0.1", "redraw_0.2", "redraw_0.3", "mark_again"}


def soft(seed: int) -> np.ndarray:
    """A textured, moving clip [9, 64, 64, 3]."""
    rng = np.random.default_rng(seed)
    frames = edits.background((LENGTH, EDGE, EDGE, 3), rng)
    return edits.each(edits.each(frames, pixels.noise, rng, 0.1), pixels.blur, 1.0)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip(soft(1), 16.0)


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(
        other=soft(2),
        unmarked=soft(3),
        pairs=[(pixels.to_uint8(soft(n) + 1.0), soft(n)) for n in range(64)],
        redraw=lambda frames, strength, _seed: pixels.to_uint8(frames * (1 - strength)),
        own_vae=lambda frames: frames,
        other_vae=lambda frames: frames,
        mark_again=lambda frames: frames,
    )


def ramp(count: int = LENGTH) -> np.ndarray:
    """Frame t is filled with the value t: its order can be read off."""
    return np.repeat(np.arange(count, dtype=np.uint8), 4 * 4 * 3).reshape(count, 4, 4, 3)


def order(frames: np.ndarray) -> list[int]:
    return frames[:, 0, 0, 0].tolist()


def run(name: str, frames: np.ndarray, seed: int = 0, context: Context = NOTHING) -> np.ndarray:
    return ATTACKS[name](Clip(frames, 16.0), seed, context).frames


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=lambda a: a.name)
def test_every_attack_gives_frames_and_the_same_for_one_seed(attack: Attack, clip: Clip, context: Context) -> None:
    before = clip.frames.copy()
    one, two = attack(clip, 7, context), attack(clip, 7, context)
    assert one.frames.dtype == np.uint8
    assert one.frames.ndim == 4
    assert one.frames.shape[3] == 3
    assert 0 not in one.frames.shape
    assert np.array_equal(one.frames, two.frames)
    assert np.array_equal(clip.frames, before), "the attack wrote into its input"
    if attack.family in ("valuemetric", "compression"):
        assert one.frames.shape == clip.frames.shape
    if attack.family == "temporal":
        assert one.frames.shape[1:] == clip.frames.shape[1:]
    if attack.family != "identity" and attack.name not in MODELS | {"blur_sigma_0.1"}:
        same = one.frames.shape == clip.frames.shape and np.array_equal(one.frames, clip.frames)
        assert not same or "_p_" in attack.name or attack.name.startswith("reorder"), "the attack changed nothing"


def test_identity_is_identity(clip: Clip) -> None:
    assert np.array_equal(ATTACKS["identity"](clip, 3).frames, clip.frames)


def test_a_name_stands_for_one_attack_only() -> None:
    for attacks in LISTS.values():
        assert len({a.name for a in attacks}) == len(attacks)
        for attack in attacks:
            assert ATTACKS[attack.name] is attack
            assert attack.family in FAMILIES
    assert {a.name for a in chosen(["seal", "bench"])} == {a.name for n in ("seal", "bench") for a in LISTS[n]}


@pytest.mark.parametrize("name", sorted(MODELS | {"splice_other_after", "splice_amid_unmarked", "averaged_2"}))
def test_an_attack_says_what_it_lacks(name: str, clip: Clip) -> None:
    with pytest.raises(UnavailableError, match="needs"):
        ATTACKS[name](clip, 0)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("crop_0.71", (9, 45, 45, 3)),  # int(0.71 * 64)
        ("resize_0.55", (9, 35, 35, 3)),
        ("resize_area_0.5", (9, 45, 45, 3)),
        ("crop_centre_area_0.3", (9, 35, 35, 3)),
        ("crop_and_resize_0.90", (9, 64, 64, 3)),
        ("letterbox", (9, 86, 64, 3)),
        ("pillarbox_16_9", (9, 64, 114, 3)),
        ("upscale_1.5", (9, 96, 96, 3)),
        ("squeeze_4_3", (9, 64, 48, 3)),
        ("h264_crf50+crop_0.71+brightness_0.5", (9, 45, 45, 3)),
        ("crop_0.71+drop_0.2+h264_crf30", (7, 45, 45, 3)),
        ("split_screen_unmarked", (9, 64, 128, 3)),
    ],
)
def test_sizes(name: str, shape: tuple[int, ...], clip: Clip, context: Context) -> None:
    assert ATTACKS[name](clip, 0, context).frames.shape == shape


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("drop_1", 24),
        ("drop_0.2", 20),
        ("drop_0.5", 13),
        ("insert_copy", 26),
        ("insert_noise", 26),
        ("sigmark_drop_groups", 15),  # 5 runs of round(6 * 25 / 65) = 2
        ("sigmark_insert_groups", 35),
        ("sigmark_cut", 13),
        ("sigmark_cut_head", 13),
        ("trim_25", 19),
        ("trim_50", 12),
        ("trim_75", 6),
        ("speed_2", 12),
        ("speed_0.5", 50),
        ("fps_24_30", 31),
        ("merge_3", 23),
    ],
)
def test_lengths_of_a_clip_of_25_frames(name: str, count: int) -> None:
    assert len(run(name, ramp(25))) == count


def test_orders() -> None:
    assert order(run("reverse", ramp())) == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert order(run("swap_every_4th_pair", ramp(12))) == [1, 0, 2, 3, 4, 5, 6, 7, 9, 8, 10, 11]
    assert order(timeline.reorder(ramp(), np.random.default_rng(0), 4, 1.0)) == [4, 5, 6, 7, 0, 1, 2, 3, 8]
    assert order(timeline.average(ramp(4) * 10, 3)) == [5, 10, 20, 25]
    assert order(run("speed_0.5", ramp(3))) == [0, 0, 1, 1, 2, 2]
    assert order(timeline.rates(ramp(6), 2 / 3, 3 / 2)) == [0, 2, 2, 3, 5, 5]
    assert sorted(order(run("swap_random_two", ramp()))) == list(range(9))
    for seed in range(20):
        kept = order(run("trim_50", ramp(25), seed))
        assert kept == list(range(kept[0], kept[0] + 12))
        assert kept[0] >= 1
        cut = order(run("sigmark_cut", ramp(25), seed))
        assert cut[0] == 0
        assert cut == sorted(set(cut))
    assert order(run("sigmark_cut_head", ramp(25)))[0] == 12


def test_splices_hold_both_clips(clip: Clip, context: Context) -> None:
    first, other, unmarked = clip.frames, context.other, context.unmarked
    assert other is not None
    assert unmarked is not None
    after = run("splice_other_after", first, context=context)
    assert np.array_equal(after, np.concatenate([first, other]))
    halves = run("splice_halves_with_other", first, context=context)
    assert np.array_equal(halves, np.concatenate([first[:5], other[4:]]))
    amid = run("splice_amid_unmarked", first, context=context)
    assert np.array_equal(amid, np.concatenate([unmarked[:4], first, unmarked[4:]]))


def test_averaging_takes_the_common_mark_away(clip: Clip, context: Context) -> None:
    lifted = replace(clip, frames=np.clip(clip.frames, 1, 254))
    out = ATTACKS["averaged_8"](lifted, 0, context).frames
    assert abs(float(np.mean(lifted.frames.astype(float) - out)) - 1) < 0.05


def test_values_follow_torchvision() -> None:
    frame = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    grey = 0.2989 * 200 + 0.587 * 100 + 0.114 * 50
    assert pixels.brightness(frame, 1.5)[0, 0].tolist() == [255, 150, 75]
    assert pixels.contrast(frame, 0.5)[0, 0].tolist() == [round((v + grey) / 2) for v in (200, 100, 50)]
    assert pixels.saturation(frame, 0.5)[0, 0].tolist() == [round((v + grey) / 2) for v in (200, 100, 50)]
    assert pixels.hue(np.full((1, 1, 3), (255, 0, 0), np.uint8), 1 / 3)[0, 0].tolist() == [0, 255, 0]
    assert pixels.hue(frame, 0.25)[0, 0].tolist() == [75, 200, 50]  # 20 degrees become 110
    assert len(set(pixels.grey(frame)[0, 0].tolist())) == 1
    assert pixels.sharpness(frame, 2.0).tolist() == frame.tolist()
    assert pixels.gamma(frame, 1.0).tolist() == frame.tolist()


def test_geometry() -> None:
    frame = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    assert np.array_equal(pixels.mirror(frame), frame[:, ::-1])
    assert np.array_equal(pixels.rotate(frame, 90), np.rot90(frame))
    assert np.array_equal(pixels.rotate(frame, 180), frame[::-1, ::-1])
    white = pixels.rotate(np.full((64, 64, 3), 255, np.uint8), 10)
    assert white[32, 32, 0] == 255
    assert white[0, 0, 0] == 0
    dot = np.zeros((64, 64, 3), np.uint8)
    cv2.circle(dot, (52, 32), 4, (255.0, 255.0, 255.0), -1)
    assert pixels.rotate(dot, 45)[:32].sum() > 0, "a positive angle turns counter-clockwise"
    assert pixels.rotate(dot, 45)[36:].sum() == 0


@pytest.mark.parametrize("codec", ["h264", "h264rgb", "h265"])
def test_a_higher_crf_harms_more(codec: str, clip: Clip) -> None:
    mild, harsh = (metrics.psnr(run(f"{codec}_crf{q}", clip.frames), clip.frames) for q in (23, 50))
    assert mild > harsh + 3


def test_quality_figures(clip: Clip) -> None:
    noisy = run("noise_0.05", clip.frames)
    assert metrics.psnr(clip.frames, clip.frames) == float("inf")
    assert metrics.ssim(clip.frames, clip.frames) == pytest.approx(1)
    assert metrics.psnr(noisy, clip.frames) == pytest.approx(-20 * np.log10(0.05), abs=0.3)
    same, worse = (metrics.vmaf(f, clip.frames, 16) for f in (clip.frames, noisy))
    assert same > 95
    assert worse < same


@pytest.mark.slow
@pytest.mark.parametrize("name", peers.PEERS)
def test_peers_read_their_own_marks(name: str) -> None:
    frames = edits.background((3, 192, 192, 3), np.random.default_rng(4))
    bits = np.random.default_rng(5).integers(0, 2, peers.PEER_BITS).astype(np.uint8)
    peer = peers.PEERS[name]()
    marked = peer.mark(frames, bits)
    assert metrics.psnr(marked, frames) > 30
    agreeing = int((peer.read(marked) == bits).sum())
    assert agreeing >= 26  # by chance once in 4000
    assert int((peer.read(frames) == bits).sum()) < agreeing


def test_the_bits_that_chance_reaches_once_in_a_million() -> None:
    assert peers.enough_bits(32) == 30
    assert peers.enough_bits(32, 2e-6) == 29  # (1 + 32 + 496 + 4960) / 2**32 is 1.28e-6


def test_unmarked_material_and_prompts_come_from_their_number_alone() -> None:
    kinds = [nulls.foreign(n) for n in range(4)]
    assert [k for k, _ in kinds] == list(nulls.KINDS)
    for n, (_, frames) in enumerate(kinds):
        assert frames.shape == (*nulls.SHAPES[0], 3)
        assert np.array_equal(frames, nulls.foreign(n)[1])
    assert len({prompts.prompt(n) for n in range(500)}) == 500
