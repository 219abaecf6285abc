"""What the documents show is run: every shell and Python block, page by page, in one folder with one home."""

from __future__ import annotations

import contextlib
import io
import json
import re
from typing import Any

import pytest
import yaml

from tests.docs import scenes
from tests.docs.conftest import Scene
from tests.docs.pages import KNOWN, RUN, Block, blocks, pages

MOST_NOT_RUN = 11
"""Blocks that say why they are not run. Lower it when one is; nobody should need to raise it."""

PAGES = {page: list(blocks(page)) for page in pages()}
ALL = [block for found in PAGES.values() for block in found]


@pytest.mark.parametrize("block", ALL, ids=str)
def test_every_block_says_what_it_is(block: Block) -> None:
    assert block.language in KNOWN, f"{block}: ```{block.language} is none of {', '.join(KNOWN)}"


def test_few_blocks_are_not_run_and_all_of_them_say_why() -> None:
    skipped = [f"{block}: {block.not_run}" for block in ALL if block.not_run]
    assert len(skipped) <= MOST_NOT_RUN, "\n".join(skipped)
    idle = [str(block) for block in ALL if block.not_run and block.language not in RUN]
    assert not idle, f"not run in any case: {idle}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, found in PAGES.items() if any(b.language != "text" for b in found)])
def test_blocks_of_a_page_run(page: str, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scene.folder)
    with scenes.prepared(page, scene) as names:
        for block in PAGES[page]:
            if block.title:
                (scene.folder / block.title).write_text(block.text)
        for block in PAGES[page]:
            for name, value in scene.environment.items():
                monkeypatch.setenv(name, value)
            if not block.not_run:
                _run(block, scene, names)


def _run(block: Block, scene: Scene, names: dict[str, Any]) -> None:
    match block.language:
        case "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile("\n" * block.line + block.text, block.page, "exec"), names)
        case "sh":
            _shell(block, scene, block.text)
        case "console":
            for command, expected in _typed(block):
                _compare(block, command, expected, _shell(block, scene, command, stop=False))
        case "sql":
            _query(block, scene)
        case "yaml":
            assert yaml.safe_load(block.text)
        case "json":
            assert json.loads(block.text)


def _shell(block: Block, scene: Scene, script: str, *, stop: bool = True) -> str:
    done = scene.sh(script, stop=stop)
    assert done.returncode == 0, f"{block}: exit {done.returncode}\n{script}\n{done.stdout}"
    return done.stdout


def _typed(block: Block) -> list[tuple[str, str]]:
    """What follows each ``$``, lines that end in a backslash included, and what is shown below it."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not parts[0].strip(), f"{block}: begins with no $"
    found = []
    for part in parts[1:]:
        command = re.match(r"(?:.*\\\n)*.*\n", part)
        assert command is not None
        found.append((command[0], part[command.end() :]))
    return found


def _compare(block: Block, command: str, expected: str, printed: str) -> None:
    """``…`` and ``...`` stand for anything; blanks count as one. What is not shown at all is not compared."""
    if not expected.strip():
        return
    pattern = r"\s+".join(
        ".*?".join(re.escape(part) for part in re.split(r"…|\.\.\.", word)) for word in expected.split()
    )
    assert re.fullmatch(rf"\s*{pattern}\s*", printed, re.DOTALL), f"{block}: {command}printed\n{printed}"


def _query(block: Block, scene: Scene) -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(scene.home / "ledger.db")) as database:
        for statement in block.text.split(";\n"):
            database.execute(statement).fetchall()
