"""Shared fixtures, and how tests run wherever they run."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import typer.testing

from tests.costs import Costs

# A shell starts background jobs with SIGINT ignored, and children inherit it. Tests of interruption would fail there.
signal.signal(signal.SIGINT, signal.default_int_handler)

# One thread: on two cores that others used too, a clip of the embedded model took 10 s of CPU with one, and 23 s with
# two, which wait for each other. Further cores serve further workers (pytest -n).
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Typer builds all commands for every call, which takes longer than most of them.
typer.testing._get_command = functools.cache(typer.main.get_command)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--costs", type=Path, help="write what each test cost, in seconds of CPU, to this JSON file")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Costs(config.getoption("--costs")))


@pytest.fixture
def shared_data() -> Path:
    """The project's shared data folder; the test is skipped where it does not lie beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the shared data folder beside the checkout")
    return folder


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, and float32 also where the machine multiplies bfloat16 natively."""
    import torch

    from safegen.watermark import fastvae

    monkeypatch.setattr(fastvae, "fast_cpu", lambda: False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
