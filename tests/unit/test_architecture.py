"""The house holds: no module imports itself round about, none imports from a floor above, and each has its floor.

The floors stand in pyproject.toml, where import-linter holds them too; the search for circles is its own.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
FLOORS = [[room.strip() for room in floor.split("|")] for floor in CONTRACTS[0]["layers"]]
OWNERS = {"sqlalchemy": {"ledger", "migrations"}, "c2pa": {"provenance"}}
MOST_AT_THE_TOP = 9
MOST_LINES = 400
SINGLE_FILE = {"safegen/audit/bundle/verify_bundle.py"}  # handed out alone, so that who gets it reads one file
BESIDE = ("watermark", "detectors", "policies", "migrations")

Graph = Mapping[str, set[str]]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Every module and what it imports, wherever in it: in functions and for type checkers alone too."""
    tree = tmp_path_factory.mktemp("tree")
    runpy.run_path(str(ROOT / "tools" / "tree.py"))["lay"](tree)
    code = """
import grimp, json
graph = grimp.build_graph("safegen", cache_dir=None)
print(json.dumps({module: sorted(graph.find_modules_directly_imported_by(module)) for module in graph.modules}))
"""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=environment, capture_output=True, text=True, check=True
    )
    return {module: set(imported) for module, imported in json.loads(done.stdout).items()}


def ancestors(module: str) -> Iterator[str]:
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def with_packages(graph: Graph) -> Graph:
    """Importing a.b.c runs the ``__init__`` of a and a.b first, unless one comes from within them."""
    return {
        module: imported | {p for each in imported for p in ancestors(each) if not f"{module}.".startswith(f"{p}.")}
        for module, imported in graph.items()
    }


def circles(graph: Graph) -> list[list[str]]:
    """Return the strongly connected sets of more than one module (Tarjan 1972), and modules that import themselves."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in graph[module]:
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[-len(group) :]
            if len(group) > 1 or module in graph[module]:
                found.append(sorted(group))

    for module in graph:
        if module not in index:
            visit(module)
    return sorted(found)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_the_search_finds_circles() -> None:
    graph: Graph = {
        "s": set(),
        "s.a": {"s.b"},
        "s.b": {"s.c.d"},  # which runs s/c/__init__.py first, and that needs s.a
        "s.c": {"s.c.d", "s.a"},
        "s.c.d": set(),
        "s.e": {"s.e"},
    }
    assert circles(graph) == [["s.e"]]
    assert circles(with_packages(graph)) == [["s.a", "s.b", "s.c"], ["s.e"]]


def test_no_module_imports_itself_round_about(graph: Graph) -> None:
    assert len(graph) > 300
    assert circles(with_packages(graph)) == []


def test_no_import_runs_upward_or_to_a_neighbour(graph: Graph) -> None:
    height = {room: -number for number, floor in enumerate(FLOORS) for room in floor}
    wrong = {
        f"{module} imports {other}"
        for module, imported in graph.items()
        for other in imported
        if room_of(module) and room_of(module) != room_of(other)
        if height[room_of(other)] >= height[room_of(module)]
    }
    assert wrong == set()


def test_every_room_has_a_floor_and_keeps_the_contracts(graph: Graph) -> None:
    rooms = {room_of(module) for module in graph} - {""}
    assert sorted(room for floor in FLOORS for room in floor) == sorted(rooms)
    for contract in CONTRACTS[1:]:
        bound = {room_of(module) for module in contract["source_modules"]}
        assert bound == rooms - OWNERS[contract["forbidden_modules"][0]], contract["name"]


def test_nothing_imports_recipes(graph: Graph) -> None:
    """Recipes of what ships are missing from an installed copy, and the others need the extra ``train``."""

    def recipe(module: str) -> str:
        package, found, _ = module.partition(".training")
        return package if found else ""

    uses = {f"{m} imports {o}" for m, imported in graph.items() for o in imported if recipe(o) not in ("", recipe(m))}
    assert uses == set()


def test_few_modules_at_the_top_and_none_too_long() -> None:
    at_the_top = sorted(path.name for path in (ROOT / "safegen").glob("*.py"))
    assert len(at_the_top) <= MOST_AT_THE_TOP, at_the_top
    lines = {
        str(path.relative_to(ROOT)): len(path.read_bytes().splitlines())
        for top in ("safegen", *BESIDE)
        for path in (ROOT / top).rglob("*.py")
    }
    assert {path for path, count in lines.items() if count > MOST_LINES} == SINGLE_FILE
