"""Two plots, drawn with OpenCV: survival by family of attack, and against the encoder's CRF."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.watermark.attacks import FAMILIES

COLOURS = ((178, 114, 0), (0, 94, 213), (115, 158, 0), (0, 159, 230), (167, 121, 204), (60, 60, 60))  # BGR, Okabe-Ito
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 1100, 520, 80, 70, 60
CRFS = (23, 30, 40, 50)
Canvas = NDArray[np.uint8]


def write(results: dict[str, Any], folder: Path) -> None:
    """families.png and crf.png."""
    for name, canvas in (("families", families(results["schemes"])), ("crf", crf(results["schemes"]))):
        cv2.imwrite(str(folder / f"benchmark-{name}.png"), canvas)


def _text(canvas: Canvas, text: str, x: float, y: float, size: float = 0.5) -> None:
    cv2.putText(canvas, text, (int(x), int(y)), 0, size, (40.0, 40.0, 40.0), 1, cv2.LINE_AA)


def _axes(title: str, schemes: list[str]) -> Canvas:
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    _text(canvas, title, LEFT, 24, 0.6)
    for percent in range(0, 101, 20):
        y = _y(percent / 100)
        cv2.line(canvas, (LEFT, y), (WIDTH - 20, y), (220.0, 220.0, 220.0), 1)
        _text(canvas, f"{percent} %", 20, y + 5)
    for i, name in enumerate(schemes):
        cv2.rectangle(canvas, (LEFT + 190 * i, 34), (LEFT + 190 * i + 14, 48), COLOURS[i], -1)
        _text(canvas, name, LEFT + 190 * i + 20, 47)
    return canvas


def _y(rate: float) -> int:
    return round(HEIGHT - BOTTOM - rate * (HEIGHT - BOTTOM - TOP))


def families(schemes: dict[str, Any]) -> Canvas:
    """Bars: mean rate of exact payloads in each family of attacks."""
    canvas = _axes("Exact payloads by family of attack", list(schemes))
    group = (WIDTH - 20 - LEFT) / len(FAMILIES)
    bar = group * 0.8 / max(1, len(schemes))
    for f, family in enumerate(FAMILIES):
        _text(canvas, family, LEFT + f * group + 10, HEIGHT - BOTTOM + 24)
        for i, scheme in enumerate(schemes.values()):
            rate = scheme["by_family"][family]["exact"]
            if rate is not None:
                x = LEFT + f * group + 0.1 * group + i * bar
                cv2.rectangle(canvas, (int(x), _y(rate)), (int(x + bar) - 2, _y(0)), COLOURS[i], -1)
    return canvas


def crf(schemes: dict[str, Any]) -> Canvas:
    """Lines: rate of exact payloads against the CRF; circles for H.264, squares for H.265; schemes side by side."""
    canvas = _axes("Exact payloads after H.264 (circles) and H.265 (squares)", list(schemes))

    def x(value: int) -> int:
        return round(LEFT + 60 + (value - CRFS[0]) / (CRFS[-1] - CRFS[0]) * (WIDTH - LEFT - 160))

    for value in CRFS:
        _text(canvas, f"CRF {value}", x(value) - 25, HEIGHT - BOTTOM + 24)
    for i, scheme in enumerate(schemes.values()):
        for codec in ("h264", "h265"):
            seen = [(x(q) + 9 * i, _y(a["exact"])) for q in CRFS if (a := scheme["attacks"].get(f"{codec}_crf{q}"))]
            for one, two in pairwise(seen):
                cv2.line(canvas, one, two, COLOURS[i], 2, cv2.LINE_AA)
            for px, py in seen:
                if codec == "h264":
                    cv2.circle(canvas, (px, py), 6, COLOURS[i], -1, cv2.LINE_AA)
                else:
                    cv2.rectangle(canvas, (px - 5, py - 5), (px + 5, py + 5), COLOURS[i], -1)
    return canvas
