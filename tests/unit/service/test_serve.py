"""``safegen serve`` in a process of its own, and what it refuses to do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safegen.cli import app
from safegen.service.client import RemoteMatch, ResolutionClient
from safegen.settings import Home
from tests.unit.recovery.recovery_samples import ALG, record


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("SAFEGEN_")]:
        monkeypatch.delenv(name)


@pytest.mark.slow
def test_it_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    made = record(Home(tmp_path / "home"), tmp_path)
    environment = os.environ | {"SAFEGEN_HOME": str(made.home.root), "SAFEGEN_RESOLUTION_TOKEN": "t0ken"}
    command = [sys.executable, "-m", "safegen", "serve", "--port", "0", "--json"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            said = json.loads(server.stdout.readline())
            assert said["token"] is True
            with ResolutionClient(said["url"], token="t0ken") as client:
                assert client.by_binding(ALG, made.content_id) == [RemoteMatch(made.signed.manifest_id)]
                assert client.manifest(made.signed.manifest_id) == made.signed.manifest_bytes
        finally:
            server.send_signal(signal.SIGINT)
            _, complaints = server.communicate(timeout=60)
    assert "Traceback" not in complaints


def run(home: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["serve", "--json", *arguments], env={"SAFEGEN_HOME": str(home), **environment})
    return done.exit_code, json.loads(done.stdout)["error"]["message"]


def test_it_does_not_open_itself_to_everybody_by_accident(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7", "example.org"):
        code, message = run(tmp_path, "--host", host)
        assert (code, "no token is set" in message) == (4, True)


def test_a_home_without_a_ledger_is_refused_at_once(tmp_path: Path) -> None:
    code, message = run(tmp_path)
    assert (code, "no ledger" in message) == (4, True)


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    record(Home(tmp_path / "home"), tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, message = run(tmp_path / "home", "--port", str(taken.getsockname()[1]))
    assert (code, "Cannot listen" in message) == (2, True)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, message = run(tmp_path)
    assert (code, "uvicorn" in message) == (4, True)
