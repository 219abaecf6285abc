"""How far a marked clip is from its unmarked twin: PSNR, SSIM and VMAF. Frames are uint8 RGB ``[T, H, W, 3]``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.watermark.codecs import Frames, raw_input, run_ffmpeg


def psnr(a: Frames, b: Frames) -> float:
    """Peak signal-to-noise ratio over the whole clip in dB; infinite for equal clips."""
    error = float(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2, dtype=np.float64))
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")


def ssim(a: Frames, b: Frames) -> float:
    """Structural similarity of the luma, mean over frames (Wang et al. 2004: Gaussian 11x11, sigma 1.5)."""
    return float(np.mean([_ssim(_luma(x), _luma(y)) for x, y in zip(a, b, strict=True)]))


def _ssim(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5], np.float64)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    return float(np.mean((2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))))


def _luma(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(frame @ np.array([0.299, 0.587, 0.114]), np.float64)


def vmaf(marked: Frames, twin: Frames, fps: float) -> float:
    """VMAF (ffmpeg's libvmaf, default model), mean over frames. Made for 1080p; small clips are scored as they are."""
    with tempfile.TemporaryDirectory() as folder:
        one, two, log = (Path(folder) / name for name in ("marked", "twin", "log.json"))
        one.write_bytes(marked.tobytes())
        two.write_bytes(twin.tobytes())
        graph = (
            "[0:v]format=yuv420p[a];[1:v]format=yuv420p[b];"
            f"[a][b]libvmaf=log_fmt=json:n_threads=1:log_path={log.as_posix()}"
        )
        inputs = [*raw_input(marked, fps, str(one)), *raw_input(twin, fps, str(two))]
        run_ffmpeg([*inputs, "-lavfi", graph, "-f", "null", "-"])
        return float(json.loads(log.read_text("utf-8"))["pooled_metrics"]["vmaf"]["mean"])


def quality(marked: Frames, twin: Frames, fps: float) -> dict[str, float]:
    """All three, and the largest difference of one value."""
    return {
        "psnr_db": psnr(marked, twin),
        "ssim": ssim(marked, twin),
        "vmaf": vmaf(marked, twin, fps),
        "largest_difference": float(np.abs(marked.astype(np.int16) - twin).max()),
    }
