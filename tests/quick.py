"""Of a test with many parameters a few are run while one works (``-m "not slow"``), and all by ``make test``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def quick(values: Iterable[Any], *few: Any) -> list[Any]:
    """The parameters ``values``, all but ``few`` of them marked slow."""
    of = list(values)
    assert set(few) <= set(of), f"no such parameters: {set(few) - set(of)}"
    return [value if value in few else pytest.param(value, marks=pytest.mark.slow) for value in of]
