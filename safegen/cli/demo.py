"""``make demo``: one clip from a prompt, and what can be known of it afterwards, in a folder of its own.

    python -m safegen.cli.demo FOLDER

Runs the commands that it prints, in one process, with ``SAFEGEN_HOME`` inside FOLDER, and draws a contact sheet.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import typer

from safegen.cli import app
from safegen.media import read_clip, write_contact_sheet

PROMPT = "a red ball bouncing on grass at sunset"
COLUMNS = 5


def main(folder: Path) -> int:
    """Generate, verify and draw; return the first exit code that is not 0."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["SAFEGEN_HOME"] = str(folder.absolute() / "home")
    clip = folder / "clip.mp4"
    commands = [
        ["generate", PROMPT, "-o", str(clip), "--seed", "6", "--force"],
        ["verify", str(clip)],
        ["ledger", "fsck"],
    ]
    if not (folder / "home" / "keys").exists():
        commands.insert(0, ["keys", "init"])
    typer.echo(f"$ export SAFEGEN_HOME={shlex.quote(str(folder / 'home'))}")
    for arguments in commands:
        if code := _run(arguments):
            return code
    _draw(clip, folder / "clip.png")
    return 0


def _run(arguments: list[str]) -> int:
    typer.echo(f"\n$ safegen {shlex.join(arguments)}")
    try:
        code = app(arguments, standalone_mode=False)
    except typer.Exit as done:
        code = done.exit_code
    return code if isinstance(code, int) else 0


def _draw(clip: Path, sheet: Path) -> None:
    frames = read_clip(clip).frames
    shown = frames[:: max(1, (len(frames) - 1) // (2 * COLUMNS - 1))][: 2 * COLUMNS]
    write_contact_sheet(shown, COLUMNS, sheet)
    typer.echo(f"\nThe clip is {clip}; its frames at a glance are in {sheet}.")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
