"""Progress where no terminal is: a stage that takes long says so, a quick one writes nothing."""

from __future__ import annotations

import threading

import pytest
import typer

from safegen.cli.shell import Bars


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], threading.Event]:
    """Lines on standard error, and an event that the third one sets."""
    told: list[str] = []
    third = threading.Event()

    def echo(message: str, *, err: bool = False) -> None:
        assert err
        told.append(message)
        if len(told) == 3:
            third.set()

    monkeypatch.setattr(typer, "echo", echo)
    return told, third


def test_a_long_stage_off_a_terminal_wrote_nothing(lines: tuple[list[str], threading.Event]) -> None:
    told, third = lines
    with Bars(patience=0.02) as bars:
        bars("drawing", 3, 25)
        assert third.wait(60)
    assert [line.split(" after ")[0] for line in told[:3]] == ["drawing: 3/25"] * 3


def test_a_stage_that_is_over_writes_nothing(lines: tuple[list[str], threading.Event]) -> None:
    before = threading.active_count()
    with Bars(patience=3600) as bars:
        bars("drawing", 0, 1)
        bars("drawing", 1, 1)
        bars("encoding", 0, 1)
        assert threading.active_count() <= before + 2
    assert lines[0] == []
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(60)
    assert threading.active_count() <= before
