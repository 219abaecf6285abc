"""Having a file's mark read by a worker process, within a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safegen.errors import ResolutionError, UnreadableMediaError
from safegen.recovery import Outcome
from safegen.settings import Home


@dataclass(frozen=True, slots=True)
class Reading:
    """How the look-up by a file's mark ended, and the manifest it led to. ``similarity``: 0 to 100, if compared."""

    outcome: Outcome
    alg: str = ""
    manifest_id: str = ""
    similarity: int | None = None


async def read_asset(path: Path, home: Home) -> Reading:
    """Look up ``path`` by its mark. Cancel it (``asyncio.timeout``) to end the worker and all that it started.

    Raises UnreadableMediaError if the file cannot be decoded, ResolutionError if the worker failed.
    """
    # The service's own token is nothing for a process that decodes what strangers send.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SAFEGEN_RESOLUTION_")}
    environment = inherited | {"SAFEGEN_HOME": str(home.root), "SAFEGEN_LEDGER_URL": home.ledger_url_override}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "safegen.resolution.worker", str(path), env=environment, start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        printed, complaint = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):  # ffmpeg is in the worker's group
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    try:
        said: Any = json.loads(printed)
        if "error" in said:
            if said["unreadable"]:
                raise UnreadableMediaError(said["error"])
            raise ResolutionError(said["error"])
        return Reading(Outcome(said["outcome"]), said["alg"], said["manifest_id"], said["similarity"])
    except (ValueError, KeyError, TypeError) as error:
        last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise ResolutionError(f"the reader ended with {process.returncode}: {last[:500]}") from error
