"""Having a file looked at by a worker process, within a time limit."""

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
from safegen.recovery.recover import Outcome
from safegen.settings import Home


@dataclass(frozen=True, slots=True)
class ReadMatch:
    """A manifest that a file led to, and by what. ``similarity``: 0 to 100, if pictures were compared."""

    manifest_id: str
    alg: str
    similarity: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """How the look-up of a file ended, and the manifests it led to: one by a mark, or those of clips like it where
    those were asked for.
    """

    outcome: Outcome
    matches: tuple[ReadMatch, ...] = ()


async def read_asset(path: Path, home: Home, *, looks_alone: bool = False) -> Reading:
    """Look up ``path`` by its mark, or by what it looks like.

    Cancel it (``asyncio.timeout``) to end the worker and all that it started. Raises UnreadableMediaError if the file
    cannot be decoded, ResolutionError if the worker failed.
    """
    # The service's own token is nothing for a process that decodes what strangers send.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SAFEGEN_RESOLUTION_")}
    environment = inherited | {"SAFEGEN_HOME": str(home.root), "SAFEGEN_LEDGER_URL": home.ledger_url_override}
    command = [sys.executable, "-m", "safegen.service.lookup_worker", str(path), *(["looks"] if looks_alone else [])]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, start_new_session=True, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
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
        return Reading(Outcome(said["outcome"]), tuple(ReadMatch(*match) for match in said["matches"]))
    except (ValueError, KeyError, TypeError) as error:
        last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise ResolutionError(f"the reader ended with {process.returncode}: {last[:500]}") from error
