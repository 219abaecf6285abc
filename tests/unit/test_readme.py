"""README tells the truth: its figures are the committed ones, its commands exist, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

from safegen.cli import app
from safegen.cli.verify import EXIT_CODE, MEANING
from safegen.errors import SafegenError
from safegen.types import VerdictKind

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "benchmarks" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(group: object = None, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, command in (group or get_command(app)).commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[prefix + name] = command
    return found


def test_every_figure_of_the_documents_is_a_committed_one() -> None:
    module = figures()
    for name, rendered in module.DOCUMENTS.items():
        assert rendered() in (ROOT / name).read_text("utf-8"), f"{name}: run: python benchmarks/figures.py"


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_is_in_readme(name: str) -> None:
    parts = name.split()
    line = next((text for text in README.splitlines() if text.startswith(f"safegen {parts[0]}")), "")
    assert parts[-1] in line


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_and_option_has_help_and_json(name: str) -> None:
    command = commands()[name]
    assert command.help  # type: ignore[attr-defined]
    options = {flag: p for p in command.params for flag in p.opts}  # type: ignore[attr-defined]
    assert "--json" in options
    assert all(getattr(p, "help", None) for p in options.values()), name


def test_every_option_of_generate_is_in_readme() -> None:
    for parameter in commands()["generate"].params:  # type: ignore[attr-defined]
        for flag in parameter.opts:
            if flag.startswith("--") and flag not in ("--output", "--help"):
                assert flag in README, flag


def test_exit_codes_agree_with_the_table() -> None:
    section = README[README.index("| exit code |") :].split("\n\n")[0]
    table = {int(code): text for code, text in re.findall(r"^\| (\d) \| (.*?) \|$", section, re.MULTILINE)}
    assert sorted(table) == [0, 1, 2, 3, 4]
    for kind in VerdictKind:
        assert f"`{kind}`" in table[EXIT_CODE[kind]]
        assert MEANING[kind]
    families = {SafegenError, *(c for c in SafegenError.__subclasses__())}
    assert {c.exit_code for c in families} <= {2, 3, 4}


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert "://" not in link, "README links inside the repository only"
    assert (ROOT / link).exists()


def test_readme_opens_with_the_two_commands() -> None:
    head = README[: README.index("docs/demo.png")]
    assert re.search(r"^make demo ", head, re.MULTILINE)
    assert re.search(r"^make test ", head, re.MULTILINE)


def test_ci_runs_what_readme_names() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    verbs = re.findall(r"^make (\w+)$", script, re.MULTILINE)
    assert verbs
    for verb in verbs:
        assert f"make {verb}" in README
        assert re.search(rf"^{verb}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
