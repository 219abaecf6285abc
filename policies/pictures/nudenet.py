"""Judges frames with NudeNet (exposed body parts and faces), on the CPU.

The weights are those that the ``nudenet`` package ships. Its network is run directly, because the package's own
post-processing drops scores that are not numbers, which would turn a broken model into a clean result. Paper trail:
https://github.com/notAI-tech/NudeNet.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from safegen.errors import PolicyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Imported where they are used: onnxruntime, and what loads cv2.

_SIDE = 320
_BATCH = 4
NUDENET_SHA256 = "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f"
"""Digest of ``320n.onnx`` in nudenet 3.4: other weights would need their own class order and thresholds."""
NUDENET_CLASSES = (
    "FEMALE_GENITALIA_COVERED",
    "FACE_FEMALE",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "ANUS_EXPOSED",
    "FEET_EXPOSED",
    "BELLY_COVERED",
    "FEET_COVERED",
    "ARMPITS_COVERED",
    "ARMPITS_EXPOSED",
    "FACE_MALE",
    "BELLY_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_COVERED",
    "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)


class FrameClassifier(Protocol):
    """Scores frames. Anything that it raises, and any score outside [0, 1], counts as a failed run and blocks."""

    name: str
    version: str
    weights_sha256: str | None
    classes: Sequence[str]

    def score(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return float32 [N, classes], the best score of each class in each uint8 [H, W, 3] RGB frame."""
        ...


class NudeNet:
    """NudeNet 320n. Raises PolicyError when the package, its weights or onnxruntime are missing or altered."""

    name = "nudenet"
    classes: Sequence[str] = NUDENET_CLASSES

    def __init__(self, weights: Path | None = None) -> None:
        path = weights or _shipped_weights()
        try:
            body = path.read_bytes()
            self.version = importlib.metadata.version("nudenet")
        except (OSError, importlib.metadata.PackageNotFoundError) as exc:
            raise PolicyError(f"the frame classifier's weights cannot be read: {exc}", remedy=_REINSTALL) from exc
        self.weights_sha256: str | None = hashlib.sha256(body).hexdigest()
        if self.weights_sha256 != NUDENET_SHA256:
            raise PolicyError(f"the frame classifier's weights were altered: {path.name}", remedy=_REINSTALL)
        try:
            import onnxruntime  # type: ignore[import-untyped, unused-ignore]

            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            self._session: Any = onnxruntime.InferenceSession(body, options, providers=["CPUExecutionProvider"])
            self._input = self._session.get_inputs()[0].name
        except Exception as exc:
            raise PolicyError(f"the frame classifier cannot start: {exc}", remedy=_REINSTALL) from exc

    def score(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return float32 [N, 18]: the best score of each class anywhere in each uint8 [H, W, 3] RGB frame."""
        rows = []
        for at in range(0, len(frames), _BATCH):
            batch = np.concatenate([_blob(frame) for frame in frames[at : at + _BATCH]])
            # [N, 4 box numbers + 18 class scores, places]
            (output,) = self._session.run(None, {self._input: batch})
            rows.append(np.max(output[:, 4:, :], axis=2))  # np.max keeps NaN: the engine must see it
        return np.concatenate(rows).astype(np.float32) if rows else np.zeros((0, len(self.classes)), np.float32)


_REINSTALL = "Reinstall the nudenet and onnxruntime packages: pip install --force-reinstall nudenet onnxruntime"


def _shipped_weights() -> Path:
    spec = importlib.util.find_spec("nudenet")
    if spec is None or spec.origin is None:
        raise PolicyError("the nudenet package is not installed", remedy=_REINSTALL)
    return Path(spec.origin).parent / "320n.onnx"


def _blob(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return float32 [1, 3, 320, 320] as NudeNet expects: padded to a square at the right and bottom, then resized.

    The package reads BGR files, turns them to RGB, and swaps once more on the way in, so the network sees BGR.
    """
    from safegen.opencv import cv2

    side = max(frame.shape[:2])
    square = np.zeros((side, side, 3), np.uint8)
    square[: frame.shape[0], : frame.shape[1]] = frame
    blob: NDArray[np.float32] = cv2.dnn.blobFromImage(
        square, 1 / 255.0, (_SIDE, _SIDE), (0, 0, 0), swapRB=True, crop=False
    )
    return blob


def sample_times(count: int, fps: float, sample_fps: float) -> list[int]:
    """Return the indices of the frames to look at: about ``sample_fps`` a second, always the first and the last."""
    if count <= 0:
        return []
    step = max(1, round(fps / sample_fps)) if fps > 0 else 1
    return sorted({*range(0, count, step), count - 1})
