"""The pixel reader's block values are those of the library that writes them, and a clip may be read in one pass."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from safegen.types import ContentId
from safegen.watermark.base import MarkStatus
from safegen.watermark.payload import Payload
from safegen.watermark.pixel import PixelScheme, PixelSums, frame_step, largest_values

KEY = bytes(range(32))
PAYLOAD = Payload(ContentId("0123456789abcdef"))


def of_the_library(frame: NDArray[np.uint8]) -> list[float]:
    from imwatermark.dwtDctSvd import EmbedDwtDctSvd

    values: list[float] = []

    def infer(block: NDArray[np.float64], scale: float) -> int:
        values.append(float(np.linalg.svd(cv2.dct(block), compute_uv=False)[0]))
        return 0

    blocks = (frame.shape[0] // 8) * (frame.shape[1] // 8)
    coder = EmbedDwtDctSvd([0] * blocks, wmLen=blocks, scales=[0, 36, 0])
    coder.infer_dct_svd = infer
    coder.decode(np.ascontiguousarray(frame[:, :, ::-1]))
    return values[:blocks]


@pytest.mark.parametrize("shape", [(64, 80), (100, 75), (61, 203)])
@pytest.mark.parametrize("kind", ["noise", "smooth", "stripes", "black"])
def test_block_values_are_the_library_s(shape: tuple[int, int], kind: str) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    if kind == "smooth":
        frame = cv2.GaussianBlur(frame, (0, 0), 5).astype(np.uint8)
    elif kind == "stripes":  # two strong values in a block
        frame[:] = (0, 0, 255)
        frame[::3] = (255, 255, 0)
    elif kind == "black":
        frame[:] = 0
    np.testing.assert_allclose(largest_values(frame), of_the_library(frame), atol=1e-6)


def test_a_clip_read_frame_by_frame_says_what_it_says_as_a_whole() -> None:
    rng = np.random.default_rng(1)
    still = cv2.resize(rng.integers(60, 200, (12, 16, 3), np.uint8), (256, 192), interpolation=cv2.INTER_CUBIC)
    clip = np.repeat(still[None], 40, axis=0).astype(np.uint8)
    marked = PixelScheme().embed_frames(clip, PAYLOAD, KEY)
    whole = PixelScheme().extract_frames(marked, KEY)
    sums = PixelSums()
    for frame in marked[:: frame_step(len(marked))]:
        sums.add(frame)
    sums.add(marked[0, :64, :64])  # of another size: passed over
    assert sums.extraction(KEY) == whole
    assert (whole.status, whole.payload) == (MarkStatus.VERIFIED, PAYLOAD)
    assert sums.extraction(bytes(32)).status is MarkStatus.NONE


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (300, 7), (8, 8)])
def test_frames_without_a_block_say_nothing(shape: tuple[int, int]) -> None:
    sums = PixelSums()
    sums.add(np.full((*shape, 3), 90, np.uint8))
    assert sums.extraction(KEY).status is MarkStatus.NONE


def test_no_frame_at_all_says_nothing() -> None:
    assert PixelSums().extraction(KEY).status is MarkStatus.NONE
