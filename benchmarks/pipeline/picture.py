"""README's picture: a marked clip, the same clip stripped and re-encoded, and what ``safegen verify`` says of that.

    make picture
    python benchmarks/pipeline/picture.py [--out docs/pictures/stripped.png]

Everything in it is real: the embedded model draws the clip, ffmpeg strips it, the words are those that verify prints.
The stripped file is deleted with the folder that it lies in. The picture keeps its words as a PNG text, for a test.
Needs the font DejaVu Sans Mono.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SEED = 4
PROMPT = "a red ball bouncing on green grass in daylight"
STRIP = "ffmpeg -i clip.mp4 -map_metadata -1 -c:v libx264 -crf 30 stripped.mp4"
VERIFY = "safegen verify stripped.mp4"

SHOWN = 5
WIDTH, EDGE, GAP = 1600, 32, 12  # pixels; shown at half of it
SIDE = (WIDTH - 2 * EDGE - (SHOWN - 1) * GAP) // SHOWN
FONT, SMALL = 23, 22
LINE = 34
INK, PAPER, GREY = (31, 35, 40), (255, 255, 255), (101, 109, 118)
SCREEN, TEXT, DIM, GREEN, AMBER = (22, 27, 34), (230, 237, 243), (139, 148, 158), (86, 211, 100), (227, 179, 65)
SIGNS = {"✓": GREEN, "–": DIM, "?": AMBER, "✗": (248, 81, 73), "·": DIM}
KEY = "safegen verify"


@dataclass(frozen=True, slots=True)
class Shown:
    """The marked clip, its content id, the stripped clip, and what was printed of that."""

    clip: Path
    content_id: str
    stripped: Path
    printed: str


def make(folder: Path) -> Shown:
    """Draw, strip and verify in ``folder``."""
    home = folder / "home"
    environment = os.environ | {"SAFEGEN_HOME": str(home), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}

    def safegen_command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "safegen", *words], cwd=folder, env=environment, check=True, capture_output=True
        )
        return done.stdout.decode()

    safegen_command("keys", "init")
    content_id = _generate(folder, home)
    from safegen.media.ffmpeg_process import executable

    words = STRIP.split()
    subprocess.run([executable(), "-v", "error", *words[1:]], cwd=folder, check=True)
    printed = safegen_command(*VERIFY.split()[1:])
    return Shown(folder / "clip.mp4", content_id, folder / "stripped.mp4", printed)


def _generate(folder: Path, home: Path) -> str:
    from safegen.generation.pipeline import ProtectedPipeline
    from safegen.generation.run import Source
    from safegen.generators import Card, load, resolve
    from safegen.settings import Home

    ref = resolve("tiny")
    card = Card.read(ref)
    safe = ProtectedPipeline(Source(lambda mode: load(ref, mode=mode), ref=ref, fps=card.fps), home=Home(home))
    return str(safe(PROMPT, output=folder / "clip.mp4", seed=SEED, **card.resolve()).content_id)


def draw(shown: Shown) -> Image.Image:
    """Two rows of frames, each under its caption, and a terminal below."""
    lines = shown.printed.splitlines()
    rows = 2 * (LINE + GAP + SIDE) + 2 * GAP
    screen = LINE * (len(lines) + 1) + 2 * GAP
    picture = Image.new("RGB", (WIDTH, EDGE + rows + screen + EDGE), PAPER)
    pen = ImageDraw.Draw(picture)
    y = EDGE
    parts = (
        (shown.clip, "clip.mp4", f"marked, signed, recorded: {shown.content_id}"),
        (shown.stripped, f"$ {STRIP}", "no metadata"),
    )
    for path, left, right in parts:
        right = f"{right}, {path.stat().st_size / 1000:.0f} kB"
        pen.text((EDGE, y), left, INK, _font(SMALL, bold=True))
        pen.text((WIDTH - EDGE, y), right, GREY, _font(SMALL), anchor="ra")
        y += LINE + GAP // 2
        for i, frame in enumerate(_frames(path)):
            scaled = Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            picture.paste(scaled, (EDGE + i * (SIDE + GAP), y))
        y += SIDE + GAP + GAP // 2 + GAP
    pen.rounded_rectangle((EDGE, y, WIDTH - EDGE, y + screen), 12, SCREEN)
    _terminal(pen, lines, y + GAP)
    return picture


def _frames(path: Path) -> NDArray[np.uint8]:
    from safegen.media import read_clip

    frames = read_clip(path).frames
    return frames[np.linspace(0, len(frames) - 1, SHOWN).round().astype(int)]


def _terminal(pen: ImageDraw.ImageDraw, lines: list[str], y: int) -> None:
    left, room = EDGE + 20, WIDTH - 2 * (EDGE + 20)
    font = _font(FONT)
    size = FONT
    while max(font.getlength(line) for line in lines) > room:
        size -= 1
        font = _font(size)
    bold = _font(size, bold=True)
    pen.text((left, y), f"$ {VERIFY}", TEXT, bold)
    for number, line in enumerate(lines, start=1):
        at = y + LINE * number
        pen.text((left, at), line, TEXT, font)
        verdict, _, _ = line.partition(" ")
        if number == 1:
            pen.text((left, at), verdict, GREEN, bold)
        elif line[2:3] in SIGNS:
            pen.text((left, at), line[:3], SIGNS[line[2]], bold)


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSansMono-Bold.ttf" if bold else "DejaVuSansMono.ttf"
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        raise SystemExit(f"{name} is not installed (Debian: fonts-dejavu-core)") from None


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw README's picture.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "stripped.png")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        shown = make(Path(folder))
        picture = draw(shown)
    words = PngInfo()
    words.add_itxt(KEY, shown.printed)
    picture.save(options.out, optimize=True, pnginfo=words)
    print(shown.printed)


if __name__ == "__main__":
    main()
