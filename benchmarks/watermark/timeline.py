"""Attacks in time. Each takes frames, uint8 ``[T, H, W, 3]``, and returns others; none is empty."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


def take(frames: Frames, indices: NDArray[np.integer] | list[int]) -> Frames:
    """The frames at ``indices``, in that order."""
    return np.ascontiguousarray(frames[np.asarray(indices, np.int64)])


def resample(frames: Frames, ratio: float) -> Frames:
    """``ratio`` times as many frames, each the nearest old one in time: a change of speed or of frame rate."""
    count = max(1, round(len(frames) * ratio))
    times = (np.arange(count) + 0.5) / ratio - 0.5
    return take(frames, np.floor(times + 0.5).clip(0, len(frames) - 1).astype(np.int64))


def blend(frames: Frames, ratio: float) -> Frames:
    """``ratio`` times as many frames, each blended from its two neighbours in time, as frame interpolation does."""
    count = max(1, round(len(frames) * ratio))
    times = ((np.arange(count) + 0.5) / ratio - 0.5).clip(0, len(frames) - 1)
    low = np.floor(times).astype(np.int64)
    high = np.minimum(low + 1, len(frames) - 1)
    part = (times - low).astype(np.float32)[:, None, None, None]
    return np.asarray(np.rint(frames[low] * (1 - part) + frames[high] * part), np.uint8)


def rates(frames: Frames, *ratios: float) -> Frames:
    """Several changes of frame rate in a row."""
    for ratio in ratios:
        frames = resample(frames, ratio)
    return frames


def average(frames: Frames, size: int) -> Frames:
    """Every frame becomes the mean of the window around it, cut off at the ends (VideoSeal with alpha 1)."""
    before, after = (size - 1) // 2, size // 2
    kept = frames.astype(np.float32)
    means = [kept[max(0, i - before) : i + after + 1].mean(axis=0) for i in range(len(frames))]
    return np.asarray(np.rint(np.stack(means)), np.uint8)


def merge(frames: Frames, rng: np.random.Generator, count: int) -> Frames:
    """``count`` frames in a row become one, their mean (VidSig's frame average)."""
    count = min(count, len(frames))
    start = int(rng.integers(0, len(frames) - count + 1))
    mean = np.rint(frames[start : start + count].astype(np.float32).mean(axis=0, keepdims=True)).astype(np.uint8)
    return np.concatenate([frames[:start], mean, frames[start + count :]])


def drop(frames: Frames, rng: np.random.Generator, count: int) -> Frames:
    """``count`` frames at random places are gone."""
    gone = rng.choice(len(frames), min(count, len(frames) - 1), replace=False)
    return np.delete(frames, gone, axis=0)


def drop_share(frames: Frames, rng: np.random.Generator, share: float) -> Frames:
    """That share of the frames is gone, the number rounded."""
    return drop(frames, rng, max(1, round(share * len(frames))))


def replace_by_neighbour(frames: Frames, rng: np.random.Generator, chance: float) -> Frames:
    """VideoSeal's DropFrame: with this chance, a frame is overwritten by the one before or after it (cyclic)."""
    steps = np.where(rng.random(len(frames)) < 0.5, -1, 1) * (rng.random(len(frames)) < chance)
    return take(frames, (np.arange(len(frames)) + steps) % len(frames))


def remove(frames: Frames, rng: np.random.Generator, chance: float) -> Frames:
    """VideoMarkBench's removal: every frame goes with this chance, but never all of them."""
    kept = rng.random(len(frames)) >= chance
    kept[int(rng.integers(len(frames)))] = True
    return np.ascontiguousarray(frames[kept])


def trim(frames: Frames, rng: np.random.Generator, keep: float, first: int = 0) -> Frames:
    """A run of ``keep`` of the frames, from a random place not before ``first``."""
    count = max(1, round(keep * len(frames)))
    start = int(rng.integers(min(first, len(frames) - count), len(frames) - count + 1))
    return np.ascontiguousarray(frames[start : start + count])


def cut(frames: Frames, rng: np.random.Generator, share: float, *, head: bool) -> Frames:
    """Delete one run of ``share`` of the frames: the clip's head, or a random run that spares frame 0 (SIGMark)."""
    count = min(max(1, round(share * len(frames))), len(frames) - 1)
    start = 0 if head else int(rng.integers(1, len(frames) - count + 1))
    return np.delete(frames, np.arange(start, start + count), axis=0)


def _groups(total: int, rng: np.random.Generator, groups: int, size: int) -> list[int]:
    """Starts of ``groups`` runs of ``size`` that do not overlap."""
    groups = max(1, min(groups, (total - 1) // size))
    slack = np.sort(rng.integers(0, total - groups * size + 1, groups))
    return [int(s) + i * size for i, s in enumerate(slack)]


def drop_groups(frames: Frames, rng: np.random.Generator, groups: int, share: float) -> Frames:
    """``groups`` runs, each of ``share`` of the clip, are gone (SIGMark: 5 runs of 6 of 65 frames)."""
    size = max(1, round(share * len(frames)))
    starts = _groups(len(frames), rng, groups, size)
    return np.delete(frames, [s + i for s in starts for i in range(size)], axis=0)


def insert_groups(frames: Frames, rng: np.random.Generator, groups: int, share: float) -> Frames:
    """``groups`` runs of noise frames, each of ``share`` of the clip, are put in (SIGMark: 5 of 6 to 65)."""
    size = max(1, round(share * len(frames)))
    for place in sorted((int(p) for p in rng.integers(0, len(frames) + 1, groups)), reverse=True):
        frames = np.insert(frames, place, noise_frames(frames, rng, size), axis=0)
    return frames


def noise_frames(frames: Frames, rng: np.random.Generator, count: int) -> Frames:
    """Frames of uniform noise, of the clip's size."""
    return rng.integers(0, 256, (count, *frames.shape[1:]), np.uint8)


def insert_copy(frames: Frames, rng: np.random.Generator) -> Frames:
    """One frame appears a second time, anywhere."""
    place, which = int(rng.integers(len(frames) + 1)), int(rng.integers(len(frames)))
    return np.insert(frames, place, frames[which], axis=0)


def insert_noise(frames: Frames, rng: np.random.Generator) -> Frames:
    """One frame of noise, anywhere."""
    return np.insert(frames, int(rng.integers(len(frames) + 1)), noise_frames(frames, rng, 1)[0], axis=0)


def swap_two(frames: Frames, rng: np.random.Generator) -> Frames:
    """Two random frames change places."""
    order = np.arange(len(frames))
    a, b = rng.choice(len(frames), 2, replace=False)
    order[[a, b]] = order[[b, a]]
    return take(frames, order)


def swap_pairs(frames: Frames, every: int) -> Frames:
    """Of the pairs (0, 1), (2, 3), ... every ``every``-th is swapped, the first included (VideoShield)."""
    order = np.arange(len(frames))
    for i in range(0, len(frames) - 1, 2 * every):
        order[[i, i + 1]] = order[[i + 1, i]]
    return take(frames, order)


def swap_neighbours(frames: Frames, rng: np.random.Generator, chance: float) -> Frames:
    """VideoMarkBench's swap: every frame, in turn, changes places with the next one with this chance."""
    order = np.arange(len(frames))
    for i in range(len(frames) - 1):
        if rng.random() < chance:
            order[[i, i + 1]] = order[[i + 1, i]]
    return take(frames, order)


def reorder(frames: Frames, rng: np.random.Generator, size: int, chance: float) -> Frames:
    """VideoSeal's TemporalReorder: of runs of ``size`` frames, pairs of neighbours change places with this chance."""
    runs = [list(range(i, i + size)) for i in range(0, len(frames) - size + 1, size)]
    rest = list(range(len(runs) * size, len(frames)))
    for i in range(0, len(runs) - 1, 2):
        if rng.random() < chance:
            runs[i], runs[i + 1] = runs[i + 1], runs[i]
    return take(frames, [i for run in runs for i in run] + rest)


def reverse(frames: Frames) -> Frames:
    """Backwards."""
    return np.ascontiguousarray(frames[::-1])
