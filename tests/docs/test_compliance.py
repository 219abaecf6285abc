"""docs/compliance.md names commands, settings and fields that exist, on a clip that was really made."""

from __future__ import annotations

import json
import re

import pytest

from tests.docs.conftest import Scene
from tests.docs.pages import ROOT
from tools import cli_page

PAGE = (ROOT / "docs" / "compliance.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| duty")
]
DUTIES = [row for row in ROWS if not row[0].startswith("**")]
WHERE = [name for row in DUTIES for name in re.findall(r"`([^`]+)`", row[2])]
COMMANDS = {" ".join(words): command for words, command in cli_page.commands()}


def test_every_row_says_what_is_done_or_what_is_missing() -> None:
    assert len(DUTIES) > 30
    for duty, done, where, gap in DUTIES:
        assert done or gap, duty
        assert not where or done, f"{duty}: a command, but nothing that it does"
        assert re.search(r"\((?:[^()]*\b(?:text|reported)\b[^()]*)\)$", duty) or duty == "Real persons", (
            f"{duty}: text or reported?"
        )


def test_the_regimes_are_there() -> None:
    regimes = [row[0] for row in ROWS if row[0].startswith("**")]
    for name in ("50(2)", "Code of Practice", "50(4)", "California", "Washington", "China", "India", "Korea"):
        assert any(name in regime for regime in regimes), name


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(safegen [^`]+)`", PAGE))))
def test_every_command_exists_with_its_options(name: str) -> None:
    command = next((COMMANDS[known] for known in COMMANDS if name == known or name.startswith(f"{known} ")), None)
    assert command is not None, name
    options = {flag for parameter in command.params for flag in parameter.opts}
    assert set(re.findall(r"--[\w-]+", name)) <= options, name


@pytest.mark.slow
def test_every_field_is_in_a_clip_that_was_made(scene: Scene) -> None:
    scene.prepare(
        "ffmpeg -v error -i clip.mp4 -frames:v 1 first.png\n"
        "safegen generate 'a red ball' -o labelled.mp4 --label eu --label cn --image first.png --json > made.json\n"
        "safegen verify labelled.mp4 --json > verdict.json\n"
        "safegen verify labelled.mp4 --crjson > manifest.json\n"
        "safegen ledger show 1 --json > entry.json\n"
    )
    said = "".join((scene.folder / f"{name}.json").read_text() for name in ("made", "verdict", "manifest", "entry"))
    missing = []
    for name in WHERE:
        if name.startswith(("safegen", "SAFEGEN_", "--")):
            continue
        missing += [
            part
            for part in ([name] if "." in name and f'"{name}' in said else name.split("."))
            if f'"{part}' not in said
        ]
    assert json.loads((scene.folder / "verdict.json").read_text())["verdict"] == "verified"
    assert not missing
