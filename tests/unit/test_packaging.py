"""Four packages stand beside ``safegen/`` in a checkout and inside it when installed, with all that they need."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import setuptools
from packaging.requirements import Requirement

import safegen

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
BESIDE = {name.removeprefix("safegen."): folder for name, folder in SETUP["package-dir"].items() if name != "safegen"}


def folder_of(package: str) -> Path:
    parts = package.split(".")
    return ROOT.joinpath(*(parts[1:] if len(parts) > 1 and parts[1] in BESIDE else parts))


def packages_on_disk() -> set[str]:
    found = set()
    for top in ("safegen", *BESIDE.values()):
        for init in (ROOT / top).rglob("__init__.py"):
            name = ".".join(init.parent.relative_to(ROOT).parts)
            found.add(name if top == "safegen" else f"safegen.{name}")
    return found


@pytest.fixture
def setup_py(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names in setup.py, with what it hands to setuptools under ``packages``."""
    handed: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **given: handed.update(given))
    monkeypatch.chdir(ROOT)
    return runpy.run_path("setup.py") | handed


def test_every_package_ships_but_the_recipes_of_what_ships(setup_py: dict[str, Any]) -> None:
    shipped = setup_py["packages"]
    assert set(shipped) <= packages_on_disk()
    assert {p for p in packages_on_disk() - set(shipped) if "training" not in p.split(".")} == set()
    assert {p for p in shipped if "training" in p.split(".")} == {"safegen.generators.training"}


def test_one_list_of_the_folders_that_stand_beside(setup_py: dict[str, Any]) -> None:
    assert {folder: folder for folder in setup_py["BESIDE"]} == BESIDE
    assert {f"safegen.{name}" for name in BESIDE} == safegen._Beside.names


def test_no_other_folder_of_the_checkout_is_importable_under_safegen() -> None:
    assert importlib.util.find_spec("safegen.watermark") is not None
    for path in ROOT.iterdir():
        if path.is_dir() and path.name.isidentifier() and path.name not in BESIDE:
            assert importlib.util.find_spec(f"safegen.{path.name}") is None, path.name


def small_copy(root: Path, *, inside: bool) -> Path:
    """``safegen`` with a ``watermark`` that says where it stands, as a checkout or as installed."""
    (root / "safegen").mkdir(parents=True)
    for name in ("__init__.py", "version.py"):
        shutil.copy(ROOT / "safegen" / name, root / "safegen")
    for package in ("safegen/watermark", "watermark") if inside else ("watermark",):
        (root / package).mkdir()
        (root / package / "__init__.py").write_text(f"where = {package!r}\n")
    (root / "pyproject.toml").touch()
    return root


@pytest.mark.parametrize("inside", [False, True])
def test_the_copy_that_runs_is_used_whichever_is_installed(tmp_path: Path, inside: bool) -> None:
    """Installed copies keep their own packages, even in a project folder that has one of the four names."""
    code = "import safegen.watermark as w; print(w.where, w.__file__)"
    copy = small_copy(tmp_path, inside=inside)
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=True)
    where = "safegen/watermark" if inside else "watermark"
    assert done.stdout.split() == [where, str(copy / where / "__init__.py")]


def test_no_symbolic_links() -> None:
    """A default checkout on Windows turns them into text files."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line for line in listed.stdout.splitlines() if line.startswith("120000")] == []


@pytest.mark.parametrize("links", [True, False])
def test_the_tree_for_tools_holds_every_module(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """import-linter reads its graph from there, so a package that it cannot see would be under no contract."""
    if not links:
        monkeypatch.setattr(Path, "symlink_to", refused)
    tree = runpy.run_path(str(ROOT / "tools" / "tree.py"))
    tree["lay"](tmp_path)
    tree["lay"](tmp_path)  # again, over what is there
    assert any(path.is_symlink() for path in (tmp_path / "safegen").iterdir()) is links
    modules = {
        f"{package}.{path.stem}".removesuffix(".__init__")
        for package in packages_on_disk()
        for path in folder_of(package).glob("*.py")
    }
    assert set(imports_in(tmp_path)) == modules


IMPORTS = """
import grimp, json
graph = grimp.build_graph("safegen", cache_dir=None)
print(json.dumps({module: sorted(graph.find_modules_directly_imported_by(module)) for module in graph.modules}))
"""


def imports_in(tree: Path) -> dict[str, list[str]]:
    """What each module of a tree imports of the others, inside functions too."""
    command, environment = [sys.executable, "-c", IMPORTS], os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True)
    imports: dict[str, list[str]] = json.loads(done.stdout)
    return imports


def test_what_ships_imports_nothing_that_stays_behind(tmp_path: Path, setup_py: dict[str, Any]) -> None:
    runpy.run_path(str(ROOT / "tools" / "tree.py"))["lay"](tmp_path)
    behind = packages_on_disk() - set(setup_py["packages"])
    assert behind  # the recipes of what ships
    for module, imports in imports_in(tmp_path).items():
        if not belongs(module, behind):
            assert not [name for name in imports if belongs(name, behind)], module


@pytest.mark.slow
def test_what_the_code_imports_is_asked_for_by_name() -> None:
    """What merely comes with another requirement goes with it one day."""
    distributions = {name: {canonical(d) for d in given} for name, given in packages_distributions().items()}
    extras = PROJECT["optional-dependencies"]
    asked_for = {canonical(line) for line in PROJECT["dependencies"]}
    asked_for |= {canonical(line) for extra in extras if extra not in {"dev", "docs"} for line in extras[extra]}
    for package in packages_on_disk():
        for path in folder_of(package).glob("*.py"):
            for name in imported(path) - sys.stdlib_module_names - {"safegen"}:
                assert distributions.get(name, set()) & asked_for, f"{path}: {name}"


def test_the_lock_holds_what_the_project_asks_for() -> None:
    """All but the clouds' own clients, which no test has."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {canonical(line): line.partition("==")[2] for line in lines if not line.startswith("#")}
    extras = PROJECT["optional-dependencies"]
    asked_for = [
        *PROJECT["dependencies"],
        *(line for extra in extras if extra not in {"aws", "gcp"} for line in extras[extra]),
    ]
    for line in asked_for:
        assert Requirement(line).specifier.contains(pins[canonical(line)]), line


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def canonical(requirement: str) -> str:
    (name,) = re.findall(r"^[\w.-]+", requirement)
    return name.lower().replace("_", "-")


def belongs(module: str, packages: set[str]) -> bool:
    return module in packages or module.rpartition(".")[0] in packages


def refused(*_args: object, **_kwargs: object) -> None:
    raise OSError("A required privilege is not held by the client")


def test_every_folder_with_code_is_a_package() -> None:
    for package in packages_on_disk():
        for path in folder_of(package).iterdir():
            if path.is_dir() and list(path.glob("*.py")):
                assert (path / "__init__.py").exists(), path


@pytest.mark.parametrize("package", sorted(SETUP["package-data"]))
def test_every_data_pattern_finds_something(package: str) -> None:
    for pattern in SETUP["package-data"][package]:
        assert list(folder_of(package).glob(pattern)), pattern


def test_every_data_file_ships(setup_py: dict[str, Any]) -> None:
    """Files beside the code that are no code: each must match a pattern, or it is missing from the wheel."""
    folders = {package: folder_of(package) for package in packages_on_disk()}
    for package in setup_py["packages"]:
        folder = folders[package]
        shipped = {p for pattern in SETUP["package-data"].get(package, []) for p in folder.glob(pattern)}
        inner = {other for other in folders.values() if folder in other.parents}
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix not in {".py", ".pyc"} and not inner & set(path.parents):
                assert path in shipped, f"{path.relative_to(ROOT)} would be missing from the wheel"


def test_the_source_distribution_holds_every_file_of_the_repository() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    words = [line.split() for line in (ROOT / "MANIFEST.in").read_text().splitlines()]
    folders = {folder for verb, *rest in words if verb == "graft" for folder in rest}
    patterns = [pattern for verb, *rest in words if verb == "include" for pattern in rest]
    patterns += ["LICENSE", "MANIFEST.in", "NOTICE", "setup.py"]  # taken by themselves
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for path in listed.stdout.splitlines():
        top, _, inner = path.partition("/")
        assert top in folders if inner else any(Path(top).match(pattern) for pattern in patterns), path


def test_the_index_page_leads_to_no_file_of_the_repository(setup_py: dict[str, Any]) -> None:
    """An index shows the README on its own: relative pictures would be broken there, and relative links dead."""
    index = setup_py["_for_an_index"]
    sample = "A.\n\n![drawn](docs/x.png)\n\n[page](docs/y.md), [web](https://example.org), [below](#z)\n"
    assert index(sample) == "A.\n\npage, [web](https://example.org), [below](#z)\n"
    targets = re.findall(r"\]\(([^)]*)\)", setup_py["long_description"])
    assert [target for target in targets if not target.startswith(("https:", "#"))] == []
    assert "safegen" in setup_py["long_description"]
