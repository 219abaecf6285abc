"""Which phase each frame shows, whatever was done to the clip in time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from safegen.watermark.clip import alignment
from safegen.watermark.clip.pattern import PHASES

Path = NDArray[np.int64]


def noisy(path: Path, height: float, seed: int, *, bounded: bool = False) -> NDArray[np.float64]:
    """Scores [T, PHASES] of a clip that goes through ``path``; -1 is a frame that shows no phase."""
    random = np.random.default_rng(seed)
    size = (len(path), PHASES)
    scores = random.uniform(-1, 1, size) if bounded else random.normal(size=size)
    known = np.flatnonzero(path >= 0)
    scores[known, path[known]] += height
    return scores


def cost_of(path: Path) -> float:
    steps = np.diff(path) % PHASES
    costs = {0: 0.0, 1: alignment.STEP_COST, PHASES - 1: alignment.BACK_COST}
    return sum(costs.get(int(s), alignment.JUMP_COST) for s in steps)


@st.composite
def edited_paths(draw: st.DrawFn) -> Path:
    """The phases of a clip after a few edits: trims, drops, doublings, inserts, reversals, changes of speed, cuts."""
    frames = list(range(draw(st.integers(9, 60))))
    for _ in range(draw(st.integers(0, 4))):
        n = len(frames)
        a, b = sorted((draw(st.integers(0, n - 1)), draw(st.integers(0, n - 1))))
        edit = draw(st.sampled_from(["trim", "drop", "double", "insert", "reverse", "fast", "slow", "swap"]))
        if edit == "trim":
            frames = frames[a : b + 1]
        elif edit == "drop" and b - a < n - 1:
            frames = frames[:a] + frames[b + 1 :]
        elif edit == "double":
            frames = frames[: a + 1] + frames[a:]
        elif edit == "insert":  # frames of another marked clip
            frames = frames[:a] + list(range(b, b + 5)) + frames[a:]
        elif edit == "reverse":
            frames = frames[:a] + frames[a : b + 1][::-1] + frames[b + 1 :]
        elif edit == "fast":
            frames = frames[::2]
        elif edit == "slow":
            frames = [f for f in frames for _ in range(2)]
        elif edit == "swap":
            frames = frames[b:] + frames[:b]
    whole = alignment.untouched(max(frames) + 1)
    edited: Path = whole[np.array(frames[:200])]
    return edited


@settings(deadline=None, max_examples=150)
@given(edited_paths(), st.integers(0, 2**32 - 1))
def test_follow_recovers_any_edit_from_clear_scores(path: Path, seed: int) -> None:
    """Where each frame's phase stands out by more than two cuts cost, no other path can score as much."""
    scores = noisy(path, 2 * alignment.JUMP_COST + 2.1, seed, bounded=True)
    found, score = alignment.follow(scores)
    assert found.tolist() == path.tolist()
    assert score == pytest.approx(scores[np.arange(len(path)), path].sum() - cost_of(path))


@settings(deadline=None, max_examples=60)
@given(edited_paths(), st.integers(0, 2**32 - 1))
def test_follow_never_scores_less_than_the_true_path(path: Path, seed: int) -> None:
    scores = noisy(path, 2.0, seed)
    found, score = alignment.follow(scores)
    assert found.shape == path.shape
    assert found.min() >= 0
    assert found.max() < PHASES
    assert score == pytest.approx(scores[np.arange(len(found)), found].sum() - cost_of(found))
    assert score >= scores[np.arange(len(path)), path].sum() - cost_of(path) - 1e-9


def edits() -> dict[str, Path]:
    whole = alignment.untouched(49)
    return {
        "untouched": whole,
        "trim": whole[7:],
        "drop": np.delete(whole, [5, 6, 17, 30, 31, 32]),
        "duplicate": np.repeat(whole, np.where(np.arange(49) % 5 == 0, 2, 1)),
        "reverse": whole[::-1],
        "fast": whole[::2],
        "slow": np.repeat(whole, 2),
        "cut": np.concatenate([whole[:20], whole[33:], whole[20:33]]),
    }


@pytest.mark.parametrize("name", list(edits()))
def test_follow_recovers_common_edits_from_noisy_scores(name: str) -> None:
    """At 4 standard deviations a frame, about what H.264 leaves, nine frames in ten are placed right."""
    path = edits()[name]
    right = [(alignment.follow(noisy(path, 4.0, seed))[0] == path).mean() for seed in range(20)]
    assert float(np.mean(right)) > 0.9


def test_frames_without_a_mark_between_marked_ones_do_not_lead_astray() -> None:
    whole = alignment.untouched(33)
    path = np.insert(whole, [9, 9, 9, 20, 20], -1)
    for seed in range(10):
        found, _ = alignment.follow(noisy(path, 5.0, seed))
        assert float((found == path)[path >= 0].mean()) > 0.85


def test_follow_takes_a_single_frame_and_scores_without_any_signal() -> None:
    assert alignment.follow(np.eye(PHASES)[[3]])[0].tolist() == [3]
    path, score = alignment.follow(np.zeros((12, PHASES)))
    assert len(set(path.tolist())) == 1  # staying is free
    assert score == 0


def test_untouched_is_the_path_of_a_clip_as_generated() -> None:
    assert alignment.untouched(10).tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2, 3]
    assert alignment.untouched(0).shape == (0,)


def test_path_score_is_standard_normal_for_a_path_chosen_beforehand() -> None:
    path = alignment.untouched(25)
    scores = [alignment.path_score(noisy(np.full(25, -1), 0, seed), path) for seed in range(400)]
    assert abs(float(np.mean(scores))) < 0.25
    assert 0.85 < float(np.std(scores)) < 1.15
    assert alignment.path_score(noisy(path, 4.0, 0), path) > 15
