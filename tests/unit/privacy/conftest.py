"""Homes with keys, whose ledger lies in either database or in SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from safegen.settings import Home
from tests.postgres import DATABASES, database
from tests.unit.privacy.privacy_samples import make_home


@pytest.fixture(params=DATABASES)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    with database(request.param, tmp_path) as url:
        yield make_home(tmp_path, url)


@pytest.fixture
def sqlite_home(tmp_path: Path) -> Home:
    return make_home(tmp_path)
