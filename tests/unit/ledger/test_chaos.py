"""Writers that are killed again and again: nothing confirmed is lost, nothing stands there twice, nothing forks."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ledger.chaos import chaos
from tests.postgres import DATABASES, database


@pytest.mark.slow
@pytest.mark.parametrize("kind", DATABASES)
def test_killed_writers_lose_and_double_nothing(kind: str, tmp_path: Path) -> None:
    with database(kind, tmp_path) as url:
        found = chaos(url, tmp_path, writers=4, each=300, kills=8, seed=5)
    assert (found["lost"], found["doubled"], found["contradictions"]) == (0, 0, 0), found
    assert found["entries"] == 1200
    assert found["killed"] >= 1  # fewer than asked for where the work is done before
