"""Imports stand at the top of a module; in functions only those that would make every start slow, or may be missing.

What counts as slow is measured by ``python -X importtime``. The command line starts for ``--help`` too, so a command
imports what it needs when it runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SLOW = {
    "torch", "diffusers", "transformers", "tokenizers", "huggingface_hub", "cv2", "imwatermark", "c2pa", "onnxruntime",
    "sqlalchemy", "alembic", "sklearn", "onnx",
}  # fmt: skip
EXTRAS = {"httpx", "starlette", "uvicorn", "psycopg", "fsspec", "pyarrow", "pillow_heif"}
SYSTEMS = {"fcntl", "msvcrt", "resource"}  # not there on every system
REASON = "# Imported where they are used: "
GROUND_FLOORS = {"files", "errors", "settings", "types", "version"}
START = ("safegen", "safegen.__main__", "safegen.cli.app")


def _files() -> dict[str, Path]:
    found = {}
    for top in ("safegen", "watermark", "detectors", "policies"):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if top == "safegen" else ("safegen", *parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


FILES = _files()


@cache
def imports(module: str, *, in_functions: bool) -> tuple[str, ...]:
    """What a module imports when it runs: modules of safegen, and others by the name that is imported."""

    def walk(node: ast.AST, inside: bool) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import) and inside == in_functions:
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and inside == in_functions:
                for alias in child.names:
                    name = f"{child.module}.{alias.name}"
                    yield name if name in FILES else str(child.module)
            elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
                yield from walk(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    return tuple(walk(ast.parse(FILES[module].read_text()), False))


@cache
def loaded_with(module: str) -> frozenset[str]:
    """What importing a module loads: modules of safegen, and the top names of others."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in FILES:
            seen.add(name.partition(".")[0])
        elif name not in seen:
            seen.add(name)
            waiting += [name.rpartition(".")[0], *imports(name, in_functions=False)] if "." in name else []
    return frozenset(seen)


@cache
def at_start() -> frozenset[str]:
    return frozenset().union(*map(loaded_with, START))


def may_wait(module: str, imported: str) -> bool:
    """Whether ``module`` may leave an import to the function that needs it."""
    return bool((loaded_with(imported) - loaded_with(module)) & (SLOW | EXTRAS | SYSTEMS))


def waits_for_its_command(module: str) -> bool:
    return module in at_start() or module.startswith("safegen.cli.")


def test_the_command_line_starts_with_little() -> None:
    assert at_start() & (SLOW | EXTRAS | {"numpy", "cryptography", "cbor2", "filelock"}) == set()
    rooms = {".".join(name.split(".")[:2]) for name in at_start() if name in FILES}
    assert rooms - {"safegen", "safegen.__main__", "safegen.cli"} <= {f"safegen.{name}" for name in GROUND_FLOORS}


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_in_functions_keep_something_slow_out(module: str) -> None:
    if FILES[module].name == "__init__.py" or waits_for_its_command(module):
        return  # packages give some names on demand
    waiting = set(imports(module, in_functions=True))
    assert {each for each in waiting if not may_wait(module, each)} == set()
    says_why = [line for line in FILES[module].read_text().splitlines() if line.startswith(REASON)]
    assert len(says_why) == (1 if {each.partition(".")[0] for each in waiting} - SYSTEMS else 0)
