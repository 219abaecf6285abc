"""Lists of files, and work on each of them in processes."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from safegen.batch.local import gather, run_each
from safegen.errors import InputError, SafegenError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


def threads_of(item: int) -> tuple[int, str, int]:
    time.sleep(0.05 * (3 - item % 3))  # later ones are ready first
    return item, os.environ.get("OMP_NUM_THREADS", ""), os.getpid()


def die(item: int) -> int:
    if item == 1:
        os._exit(9)
    return item


def refuse(item: int) -> int:
    raise InputError(f"not {item}", remedy="none")


def sleep(item: int) -> int:
    time.sleep(0.01 if item == 0 else 3600)
    return item


@pytest.mark.slow
def test_results_come_in_order_from_processes_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = list(run_each(threads_of, range(7), 2))
    assert [item for item, _, _ in found] == list(range(7))
    assert {threads for _, threads, _ in found} == {"1"}
    assert os.getpid() not in {process for _, _, process in found}
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_one_job_runs_in_this_process() -> None:
    assert {process for _, _, process in run_each(threads_of, range(3), 1)} == {os.getpid()}
    assert list(run_each(threads_of, [], 4)) == []


@pytest.mark.slow
def test_a_worker_that_dies_is_an_error_and_no_result() -> None:
    with pytest.raises(SafegenError, match="died"):
        list(run_each(die, range(4), 2))


@pytest.mark.slow
def test_workers_are_ended_when_nobody_asks_any_more() -> None:
    """As by Ctrl-C: what runs is not waited for."""
    before = set(multiprocessing.active_children())
    answers = run_each(sleep, range(6), 2)
    assert next(answers) == 0
    answers.close()  # type: ignore[attr-defined]
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.slow
def test_what_work_raises_reaches_the_caller() -> None:
    with pytest.raises(InputError, match="not 0"):
        list(run_each(refuse, range(3), 2))


def test_folders_are_searched_and_damaged_clips_are_not_passed_over(tmp_path: Path) -> None:
    for name, content in {
        "b/2.mp4": b"", "b/1.png": PNG, "a/no-suffix": PNG, "a/notes.txt": b"hello",
        ".hidden/x.png": PNG, ".y.png": PNG,
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found, others = gather([tmp_path, tmp_path / "b" / "1.png", tmp_path / "absent"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/no-suffix", "b/1.png", "b/2.mp4", "absent"]
    assert others == 1


def test_a_folder_without_media_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="no video or image"):
        gather([tmp_path])
