"""Attacks on single pictures: values and geometry. Each takes and returns uint8 RGB ``[H, W, 3]``.

Where other papers' figures come from torchvision, its maths is restated here, so that the figures compare: it works on
floats in [0, 1] and clamps; its grey is ITU-R 601; rotations keep the size, fill with black and take the nearest
neighbour; resizing is antialiased.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

_GREY = np.array([0.2989, 0.587, 0.114], np.float32)  # torchvision's rgb_to_grayscale


def to_uint8(values: NDArray[Any]) -> Picture:
    """Values on the scale of 0 to 255, rounded and clamped."""
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)


# Values


def brightness(frame: Picture, factor: float) -> Picture:
    """torchvision's adjust_brightness: values times ``factor``, clamped."""
    return to_uint8(frame * np.float32(factor))


def contrast(frame: Picture, factor: float) -> Picture:
    """torchvision's adjust_contrast: blended with (beyond 1: away from) the frame's mean grey."""
    mean = float((frame @ _GREY).mean())
    return to_uint8(factor * frame.astype(np.float32) + (1 - factor) * mean)


def saturation(frame: Picture, factor: float) -> Picture:
    """torchvision's adjust_saturation: blended with (beyond 1: away from) its own grey."""
    grey = (frame @ _GREY)[..., None]
    return to_uint8(factor * frame.astype(np.float32) + (1 - factor) * grey)


def hue(frame: Picture, turn: float) -> Picture:
    """torchvision's adjust_hue: the HSV hue turned by ``turn`` of the circle (0.25 is 90 degrees)."""
    hsv = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
    return to_uint8(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255)


def grey(frame: Picture) -> Picture:
    """ITU-R 601 luma in all three channels."""
    return np.repeat(to_uint8(frame @ np.array([0.299, 0.587, 0.114], np.float32))[..., None], 3, axis=2)


def gamma(frame: Picture, exponent: float) -> Picture:
    """torchvision's adjust_gamma: ``255 (v / 255) ** exponent``."""
    return to_uint8(255 * (np.arange(256) / 255.0) ** exponent)[frame]


def sharpness(frame: Picture, factor: float) -> Picture:
    """torchvision's adjust_sharpness: away from a 3x3 smoothing (centre 5, others 1, over 13); its border is kept."""
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 1] = 5
    smooth = frame.astype(np.float32)
    smooth[1:-1, 1:-1] = cv2.filter2D(smooth, -1, kernel / 13)[1:-1, 1:-1]
    return to_uint8(factor * frame.astype(np.float32) + (1 - factor) * smooth)


def jpeg(frame: Picture, quality: int) -> Picture:
    """JPEG with 4:2:0 chroma, as Pillow writes it by default."""
    done, data = cv2.imencode(".jpg", frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV could not write a JPEG")
    return np.asarray(cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB), np.uint8)


def blur(frame: Picture, sigma: float, size: int = 0) -> Picture:
    """Gaussian blur with reflected borders; ``size`` is the kernel's edge (default: six sigmas and odd)."""
    size = size or 2 * max(1, round(3 * sigma)) + 1
    return np.asarray(cv2.GaussianBlur(frame, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def kernel_blur(frame: Picture, size: int) -> Picture:
    """torchvision's gaussian_blur where only the kernel is given: sigma = 0.3 ((size - 1) / 2 - 1) + 0.8."""
    return blur(frame, 0.3 * ((size - 1) * 0.5 - 1) + 0.8, size)


def median(frame: Picture, size: int) -> Picture:
    """The true median of a square; VideoSeal takes the median of the rows' medians, which is about the same."""
    return np.asarray(cv2.medianBlur(frame, size), np.uint8)


def noise(frame: Picture, rng: np.random.Generator, sigma: float) -> Picture:
    """Gaussian noise of standard deviation ``sigma`` of full scale."""
    return to_uint8(frame + 255 * sigma * rng.standard_normal(frame.shape, np.float32))


def salt_and_pepper(frame: Picture, rng: np.random.Generator, share: float) -> Picture:
    """Half of ``share`` of all values (each channel alone, as VidSig does) white, half black."""
    drawn = rng.random(frame.shape)
    return np.where(drawn < share / 2, 255, np.where(drawn > 1 - share / 2, 0, frame)).astype(np.uint8)


# Geometry


def resize(frame: Picture, height: int, width: int) -> Picture:
    """Antialiased downwards (area), bilinear upwards."""
    down = height < frame.shape[0] or width < frame.shape[1]
    way = cv2.INTER_AREA if down else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (width, height), interpolation=way), np.uint8)


def scale(frame: Picture, ratio: float) -> Picture:
    """Both edges times ``ratio``, rounded down as VideoSeal does."""
    return resize(frame, int(frame.shape[0] * ratio), int(frame.shape[1] * ratio))


def mirror(frame: Picture) -> Picture:
    """Left and right change places."""
    return np.ascontiguousarray(frame[:, ::-1])


def rotate(frame: Picture, degrees: float) -> Picture:
    """Counter-clockwise about the centre; same size, black corners, nearest neighbour."""
    height, width = frame.shape[:2]
    if degrees % 90 == 0 and height == width:
        return np.ascontiguousarray(np.rot90(frame, round(degrees / 90)))
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    return np.asarray(cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_NEAREST), np.uint8)


def window(frame: Picture, top: int, left: int, height: int, width: int) -> Picture:
    """Cut out a rectangle."""
    return np.ascontiguousarray(frame[top : top + height, left : left + width])


def warp(frame: Picture, corners: NDArray[np.float32]) -> Picture:
    """Move the corners (clockwise from the top left; x, y) there; bilinear, black outside."""
    height, width = frame.shape[:2]
    old = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    matrix = cv2.getPerspectiveTransform(old, corners.astype(np.float32))
    return np.asarray(cv2.warpPerspective(frame, matrix, (width, height), flags=cv2.INTER_LINEAR), np.uint8)


def corners(height: int, width: int, distortion: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """torchvision's random perspective: every corner up to ``distortion`` of half an edge inwards."""
    reach_x, reach_y = int(distortion * (width // 2)) + 1, int(distortion * (height // 2)) + 1
    x, y = rng.integers(0, reach_x, 4), rng.integers(0, reach_y, 4)
    moved = [[x[0], y[0]], [width - 1 - x[1], y[1]], [width - 1 - x[2], height - 1 - y[2]], [x[3], height - 1 - y[3]]]
    return np.array(moved, np.float32)
