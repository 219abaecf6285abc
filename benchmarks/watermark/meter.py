"""What a stage costs: wall and processor seconds, and how far it drives up the process's memory."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import TracebackType

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _memory_mb(field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text("ascii"), re.MULTILINE)
    return int(found.group(1)) / 1024 if found else float("nan")


class Meter:
    """``with Meter() as m: ...``, then ``m.costs``. Memory needs Linux (the kernel's resettable high-water mark)."""

    def __init__(self) -> None:
        self.costs: dict[str, float] = {}

    def __enter__(self) -> Meter:
        try:
            _CLEAR.write_text("5", "ascii")  # resets VmHWM to what is resident now
            self._resident: float | None = _memory_mb("VmRSS")
        except OSError:
            self._resident = None
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.costs = {"wall_s": time.perf_counter() - self._wall, "cpu_s": time.process_time() - self._cpu}
        if self._resident is not None:
            self.costs["peak_mb"] = max(0.0, _memory_mb("VmHWM") - self._resident)


def add(one: dict[str, float], two: dict[str, float]) -> dict[str, float]:
    """Costs of two stages in a row: seconds add up, of peaks the higher one counts."""
    names = dict.fromkeys([*one, *two])
    return {n: max(one.get(n, 0), two.get(n, 0)) if n == "peak_mb" else one.get(n, 0) + two.get(n, 0) for n in names}
