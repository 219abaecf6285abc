"""Looks one file up in a process of its own, so that what takes too long can be ended.

    python -m safegen.service.lookup_worker FILE [looks]

prints one JSON object. Keys, ledger and manifests are those of ``$SAFEGEN_HOME``. With ``looks`` marks do not count.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Final

from safegen.bounds.process import READER_MEMORY, limit_this_process
from safegen.errors import InputError, SafegenError
from safegen.ledger import Ledger
from safegen.likeness import find_by_pictures
from safegen.media import read_clip
from safegen.recovery.recover import Outcome, find
from safegen.settings import MARK_FRAMES, Home
from safegen.types import LOOKS_ALG, Json

CPU_SECONDS: Final = 600.0
"""Should nobody be there any more who ends it: the service's own limit, a minute by default, ends it sooner."""


def look_up(path: Path, *, looks_alone: bool = False) -> dict[str, Json]:
    """What ``path`` leads to, as plain JSON values; ``error`` where it could not be looked up."""
    try:
        outcome, matches = _looks(path) if looks_alone else _find(path)
    except SafegenError as error:
        return {"error": str(error), "unreadable": isinstance(error, InputError)}
    return {"outcome": outcome, "matches": matches}


def _find(path: Path) -> tuple[str, list[Json]]:
    found = find(path)
    if found.outcome is Outcome.FOUND:
        return str(found.outcome), [[found.manifest_id, found.alg, found.similarity]]
    return str(found.outcome), []  # what is unproven is no answer; looks alone are one only where they are asked for


def _looks(path: Path) -> tuple[str, list[Json]]:
    clip = read_clip(path, max_frames=MARK_FRAMES, tolerant=True)
    with Ledger.open(Home.default().ledger_url, create=False, read_only=True) as ledger:
        alike = find_by_pictures(clip, ledger, Home.default())
    outcome = Outcome.FOUND if alike else Outcome.NO_MARK
    return str(outcome), [[each.manifest_id, LOOKS_ALG, each.similarity] for each in alike]


if __name__ == "__main__":
    limit_this_process(memory=READER_MEMORY, cpu_seconds=CPU_SECONDS)
    sys.stdout.write(json.dumps(look_up(Path(sys.argv[1]), looks_alone="looks" in sys.argv[2:])))
    sys.stdout.flush()
    os._exit(0)  # as the command line leaves: nothing is left to tidy up
