"""Reads one file's mark in a process of its own, so that a reading that takes too long can be ended.

    python -m safegen.resolution.worker FILE

prints one JSON object. Keys, ledger and manifests are those of ``$SAFEGEN_HOME``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from safegen.errors import InputError, SafegenError
from safegen.types import Json


def look_up(path: Path) -> dict[str, Json]:
    """What the mark of ``path`` leads to, as plain JSON values; ``error`` where it could not be looked for."""
    from safegen.recovery import find

    try:
        found = find(path)
    except SafegenError as error:
        return {"error": str(error), "unreadable": isinstance(error, InputError)}
    return {
        "outcome": str(found.outcome),
        "alg": found.alg,
        "manifest_id": found.manifest_id,
        "similarity": found.similarity,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look_up(Path(sys.argv[1]))))
    sys.stdout.flush()
    os._exit(0)  # as the command line leaves: nothing is left to tidy up
