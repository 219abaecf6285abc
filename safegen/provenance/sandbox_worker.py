"""What the process of ``sandbox`` runs: it bounds itself, reads one file and writes its report."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from safegen.bounds.process import limit_this_process
from safegen.provenance.examining import examine_whole
from safegen.provenance.sandbox import MAX_ANSWER, Task, out_of_limits


def main() -> None:
    """Read a task from standard input, and write the report to standard output."""
    request = json.load(sys.stdin.buffer)
    _limit(request["memory"], request["seconds"])
    manifest = request["manifest"]
    task = Task(
        Path(request["path"]),
        request["anchors"],
        None if manifest is None else bytes.fromhex(manifest),
        [Path(p) for p in request["fragments"]],
        request["crjson"],
    )
    answer = json.dumps(examine_whole(task, request["seconds"]))
    if len(answer) > MAX_ANSWER:
        answer = json.dumps(out_of_limits("what its manifests say is unreasonably long"))
    sys.stdout.write(answer)
    sys.stdout.flush()
    os._exit(0)  # nothing of the library's is to be taken down any more


def _limit(memory: int, seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # kills also within foreign code
        signal.setitimer(signal.ITIMER_REAL, seconds)
    limit_this_process(memory=memory)
