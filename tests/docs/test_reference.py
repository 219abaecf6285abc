"""The reference pages say what the code says: commands, exit codes, environment, Python."""

from __future__ import annotations

import re
from typing import Any

import pytest

import safegen
from safegen.cli.verify import EXIT_CODE
from safegen.errors import SafegenError
from safegen.types import VerdictKind
from tests.docs.pages import ROOT
from tools import cli_page

SOURCES = ("safegen", "policies", "watermark", "detectors", "migrations")
VARIABLE = re.compile(r"\bSAFEGEN_[A-Z][A-Z0-9_]*[A-Z0-9]\b")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def test_the_page_of_commands_is_what_their_help_says() -> None:
    assert page("cli.md") == cli_page.render(), "run: python tools/cli_page.py"


@pytest.mark.parametrize(
    ("words", "command"), cli_page.commands(), ids=lambda value: "-".join(value) if type(value) is tuple else ""
)
def test_every_command_and_option_has_help_and_json(words: tuple[str, ...], command: Any) -> None:
    assert command.help
    options = {flag: parameter for parameter in command.params for flag in parameter.opts}
    assert "--json" in options
    assert all(getattr(parameter, "help", None) for parameter in options.values()), words


def test_exit_codes_agree_with_the_table() -> None:
    table = {
        int(code): text for code, text in re.findall(r"^\| (\d) \| (.*?) \|$", page("exit-codes.md"), re.MULTILINE)
    }
    assert sorted(table) == [0, 1, 2, 3, 4, 5]
    for kind in VerdictKind:
        assert f"`{kind}`" in table[EXIT_CODE[kind]]
    assert {family.exit_code for family in (SafegenError, *SafegenError.__subclasses__())} <= {2, 3, 4}


def test_every_environment_variable_is_documented_and_read() -> None:
    read = {
        name
        for folder in SOURCES
        for file in (ROOT / folder).rglob("*.py")
        for name in VARIABLE.findall(file.read_text())
    }
    limits = (ROOT / "safegen" / "service" / "limits.py").read_text()  # reads SAFEGEN_RESOLUTION_ and each of these
    read |= {f"SAFEGEN_RESOLUTION_{name}" for name in re.findall(r'number\("([A-Z_]+)"', limits)}
    tests = {name for file in (ROOT / "tests").rglob("*.py") for name in VARIABLE.findall(file.read_text())}
    documented = set(VARIABLE.findall(page("environment.md")))
    assert read - {"SAFEGEN_RESOLUTION"} <= documented
    assert documented <= read | tests


def test_what_the_package_offers_is_on_the_page() -> None:
    text = page("api.md")
    for name in set(safegen.__all__) - {"__version__"}:
        assert re.search(rf"\b{name}\b", text) or name.endswith("Error"), name
    assert "::: safegen.errors" in text
