"""Writes docs/cli.md from the commands' own help.

    python tools/cli_page.py           # write the page
    python tools/cli_page.py --check   # exit 1 where it differs

Texts are edited in safegen/cli; a test holds the page to them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from safegen.cli import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """\
# Commands

<!-- Written by tools/cli_page.py from the commands' own help. Change the help, then run it. -->

What each exit code means: [exit codes](exit-codes.md). Settings that are no options: [environment](environment.md).
"""


def commands(group: Any = None, prefix: tuple[str, ...] = ("safegen",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that runs something, with the words that call it, in the order of the help."""
    group = group or get_command(app)
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name), command


def render() -> str:
    """The whole page."""
    found = list(commands())
    parts = [HEAD, _overview(found)]
    parts += [_section(words, command) for words, command in found]
    return "\n".join(parts)


def _overview(found: list[tuple[tuple[str, ...], Any]]) -> str:
    rows = [
        f"| [`{' '.join(words)}`](#{'-'.join(words)}) | {_bars(_plain((command.help or '').split(chr(10) * 2)[0]))} |"
        for words, command in found
    ]
    return "\n".join(["| command | does |", "|---|---|", *rows, ""])


def _section(words: tuple[str, ...], command: Any) -> str:
    context = command.context_class(command, info_name=" ".join(words))
    lines = [f"## `{' '.join(words)}`", "", _plain(command.help, between="\n\n"), ""]
    lines += ["```text", command.get_usage(context).removeprefix("Usage: "), "```", ""]
    records = [record for p in command.params if (record := p.get_help_record(context))]
    if records:
        lines += ["| argument or option | meaning |", "|---|---|"]
        lines += [f"| `{_bars(name)}` | {_bars(_plain(text))} |" for name, text in records] + [""]
    return "\n".join(lines)


def _plain(text: str | None, *, between: str = " ") -> str:
    paragraphs = (" ".join(part.split()) for part in (text or "").split("\n\n"))
    return between.join(paragraphs).replace("<", "&lt;")


def _bars(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    text = render()
    if "--check" in arguments:
        return 0 if PAGE.is_file() and PAGE.read_text("utf-8") == text else 1
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
