"""One limit for all the work on a file, and what it may not do: make a verdict out of half a look."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.bombs import stills
from safegen.bounds.timelimit import check_time, current_limit, seconds_for, time_limit
from safegen.errors import InputError, TimeLimitError
from safegen.media import decode, probe
from safegen.settings import Home
from safegen.types import VerdictKind
from safegen.verification.verifier import verify


def test_the_clock_counts_whatever_the_processor_does() -> None:
    with time_limit(0.05) as limit:
        check_time()
        assert not limit.ran_out
        time.sleep(0.1)
        with pytest.raises(TimeLimitError, match=r"time limit of 0\.05 s"):
            check_time()
        assert limit.ran_out
    assert current_limit() is None
    check_time()


def test_larger_files_have_longer() -> None:
    assert seconds_for(0) == seconds_for(10_000_000) == 25.0
    assert seconds_for(30_000_000) == 75.0


@pytest.mark.parametrize("read", [probe, lambda path: list(decode(path))])
def test_reading_ends_with_the_time(read, tmp_path: Path) -> None:
    path = tmp_path / "large.gif"
    path.write_bytes(stills.gif(4096, 4096, 2000, 1))

    def again_and_again() -> None:
        for _ in range(1000):
            read(path)

    with time_limit(0.3) as limit, pytest.raises(TimeLimitError):
        again_and_again()
    assert limit.ran_out


def test_verify_without_time_left_is_inconclusive_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "large.gif"
    path.write_bytes(stills.gif(4096, 4096, 2000, 1))
    verdict = verify(path, home=Home(tmp_path / "home"), time_limit=0.01)
    assert verdict.verdict is VerdictKind.INCONCLUSIVE
    assert all("time limit of 0.01 s ran out" in finding.summary for finding in verdict.findings)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_no_time_at_all_is_refused(seconds: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="time limit"):
        verify(tmp_path / "any.mp4", home=Home(tmp_path), time_limit=seconds)
