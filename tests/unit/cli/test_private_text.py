"""Prompts and subjects can be kept out of the command line, which every user of the machine can read."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from safegen.cli.shell import MAX_TEXT_BYTES, private_text
from safegen.errors import InputError


def test_a_text_comes_from_one_place(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("a red ball\n", "utf-8")
    assert private_text("prompt", "a tree", None) == "a tree"
    assert private_text("prompt", "", file) == "a red ball"
    assert private_text("subject", "", None, needed=False) == ""
    with pytest.raises(InputError, match="twice"):
        private_text("prompt", "a tree", file)
    with pytest.raises(InputError, match="No prompt"):
        private_text("prompt", "", None)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a red ball\r\n")))
    assert private_text("prompt", "-", None) == "a red ball"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * (MAX_TEXT_BYTES + 1), None])
def test_a_file_that_is_no_text_of_a_prompts_length(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "prompt.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError):
        private_text("prompt", "", file)
