"""What each test costs in CPU time, which says on a busy machine nearly what it says on a quiet one."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

SLOW_SECONDS = 2.0
"""A test that takes more has to be marked slow; one of a second may be. What several share is the first one's cost."""
SHOWN = 20


class Costs:
    """Counts each test's CPU seconds, those of processes that it waited for included, in whichever worker runs it."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._before = 0.0
        self._spent: dict[str, float] = {}
        self._marked: set[str] = set()

    def pytest_runtest_logstart(self) -> None:
        self._before = _cpu()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.when == "teardown":
            slow = item.get_closest_marker("slow") is not None
            report.user_properties += [("cpu", round(_cpu() - self._before, 2)), ("slow", slow)]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = dict(report.user_properties)
        if report.when == "teardown" and "cpu" in said:
            self._spent[report.nodeid] = said["cpu"]
            self._marked |= {report.nodeid} if said["slow"] else set()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        ranked = sorted(self._spent.items(), key=lambda item: -item[1])
        if self._file is not None:
            self._file.write_text(json.dumps(dict(ranked), indent=1) + "\n", "utf-8")
        unmarked = [(name, cpu) for name, cpu in ranked if cpu > SLOW_SECONDS and name not in self._marked]
        if unmarked:
            terminalreporter.section(f"not marked slow, and over {SLOW_SECONDS:g} s of CPU: {len(unmarked)}")
            for name, cpu in unmarked[:SHOWN]:
                terminalreporter.write_line(f"{cpu:6.1f} s  {name}")


def _cpu() -> float:
    return sum(os.times()[:4])
