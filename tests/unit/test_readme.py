"""README and its neighbours tell the truth: figures are the committed ones, names exist, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from itertools import takewhile
from pathlib import Path
from types import ModuleType

import pytest

from safegen.cli.verify import MEANING
from safegen.types import VerdictKind

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FIRST_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")

MOST_LINES = 150
MOST_FIGURES = 12
PICTURE = "docs/pictures/stripped.png"


def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "benchmarks" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def links() -> list[tuple[str, str]]:
    found = [(page, link) for page in FIRST_PAGES for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text())]
    return [(page, link) for page, link in found if page != "CHANGELOG.md" or "://" not in link]


def table_below(text: str, head: str) -> list[str]:
    """The rows of the table that begins with ``head``, without its two first lines."""
    return list(takewhile(lambda line: line.startswith("|"), text[text.index(head) :].splitlines()[2:]))


def test_every_figure_of_the_documents_is_a_committed_one() -> None:
    module = figures()
    for name, rendered in module.DOCUMENTS.items():
        assert rendered() in (ROOT / name).read_text("utf-8"), f"{name}: run: python benchmarks/figures.py"


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= MOST_LINES
    assert len(table_below(README, "| what | figure |")) <= MOST_FIGURES


def test_the_table_of_extras_is_that_of_the_project() -> None:
    named = [extra for row in table_below(README, "| extra |") for extra in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert sorted(named) == sorted(PROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize("page", FIRST_PAGES)
def test_what_is_installed_in_brackets_is_an_extra(page: str) -> None:
    for asked in re.findall(r'pip install "(?:\.|safegen)\[([^\]]+)\]', (ROOT / page).read_text()):
        assert set(asked.split(",")) <= set(PROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize(("page", "link"), links())
def test_links_lead_somewhere(page: str, link: str) -> None:
    assert "://" not in link, "links inside the repository only"
    file, _, anchor = link.partition("#")
    assert (ROOT / file).exists()
    headings = re.findall(r"^#+ (.*)$", (ROOT / (file or page)).read_text("utf-8"), re.MULTILINE) if anchor else []
    assert not anchor or anchor in [re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings]


def test_the_first_screen_is_a_picture_and_two_commands() -> None:
    screen = "\n".join(README.splitlines()[:20])
    assert f"]({PICTURE})" in screen
    assert re.search(r"^make demo ", screen, re.MULTILINE)
    assert re.search(r"^make test ", screen, re.MULTILINE)


def test_the_picture_shows_what_verify_says_today() -> None:
    from PIL import Image

    with Image.open(ROOT / PICTURE) as picture:
        assert picture.width == 1600
        printed = picture.text["safegen verify"]  # type: ignore[attr-defined]
    assert printed.startswith(f"RECOVERED  stripped.mp4: {MEANING[VerdictKind.RECOVERED]}\n"), "run: make picture"


@pytest.mark.slow
def test_the_picture_is_drawn_from_a_run(tmp_path: Path) -> None:
    from PIL import Image

    from benchmarks.pipeline import picture

    picture.main(["--out", str(tmp_path / "drawn.png")])
    with Image.open(tmp_path / "drawn.png") as drawn, Image.open(ROOT / PICTURE) as committed:
        assert drawn.size == committed.size
        printed = drawn.text["safegen verify"]  # type: ignore[attr-defined]
    assert printed.startswith("RECOVERED  stripped.mp4:")


def test_what_is_made_has_a_rule() -> None:
    rules = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in FIRST_PAGES:
        assert set(re.findall(r"(?:`|^)make (\w+)", (ROOT / page).read_text(), re.MULTILINE)) <= rules, page
    for verb in re.findall(r"^make (\w+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE):
        assert f"make {verb}" in README


def test_the_picture_of_the_house_is_the_contract() -> None:
    drawn = re.search(r"<!-- floors -->\n```text\n(.*?)```\n<!-- end of floors -->", CONTRIBUTING, re.DOTALL)
    assert drawn is not None
    floors = re.sub(r"\|\n +", "| ", drawn[1])
    names = [re.split(r" {2,}", line)[0] for line in floors.splitlines()]
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    assert [line.split(" | ") for line in names] == [layer.split(" | ") for layer in contract]
