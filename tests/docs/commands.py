"""``safegen`` for shell blocks, from the tree under test: a server that has imported everything, and forks.

    python -m tests.docs.commands SOCKET

Starting Python and importing torch takes seconds, which pages with forty commands need not pay forty times. A command
hands over its arguments, folder, environment and the three standard streams, and runs ``safegen.cli.main``.
``generate`` makes smaller clips than the model's card asks for, unless the page says how large.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import sys
from pathlib import Path

IMPORTED = (
    "torch", "diffusers.pipelines.wan.pipeline_wan", "transformers", "onnxruntime", "cv2", "c2pa", "alembic",
    "rich.console", "safegen.cli", "safegen.generation.pipeline", "safegen.verification.verifier",
)  # fmt: skip

CLIENT = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({socket!r})
    said = json.dumps({{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}).encode()
    socket.send_fds(server, [len(said).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(said)
    sys.exit(int(server.recv(4) or b"70"))
"""


def serve(path: str) -> None:
    """Answer until killed; a line on standard output says that the socket is there."""
    for name in IMPORTED:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(8)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            client, _ = listening.accept()
            _reap()
            if os.fork() == 0:
                listening.close()
                _answer(client)
            client.close()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(client: socket.socket) -> None:
    size, streams, _, _ = socket.recv_fds(client, 4, 3)
    said = b""
    while len(said) < int.from_bytes(size, "big"):
        said += client.recv(1 << 16)
    child = os.fork()
    if child == 0:
        client.close()
        _run(json.loads(said), streams)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    client.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def _smaller(arguments: list[str]) -> list[str]:
    if arguments[:1] != ["generate"] or "--steps" in arguments:
        return arguments
    return [*arguments, "--frames", "13", "--steps", "2"]


def _run(said: dict[str, object], streams: list[int]) -> None:
    from safegen.cli import main

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(said["environment"])  # type: ignore[arg-type]
    os.chdir(str(said["folder"]))
    sys.argv = ["safegen", *_smaller(said["arguments"])]  # type: ignore[arg-type]
    main()


if __name__ == "__main__":
    serve(str(Path(sys.argv[1])))
