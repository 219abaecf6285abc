"""Several writers on one SQLite ledger, and writers that die."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.ledger import Event, Ledger

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))

WRITER = """
import sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safegen.ledger import Event, Ledger
url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
with Ledger.open(url, key=key) as ledger:
    for i in range(count):
        print(ledger.append(Event("generated", f"{name}{i:015x}", {"x": "y" * 500})).index, flush=True)
"""


def writer(url: str, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, url, name, str(count)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_several_processes_create_and_fill_one_ledger(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    writers = [writer(url, name, 20) for name in "abc"]
    told = [[int(line) for line in w.communicate()[0].split()] for w in writers]
    assert [w.returncode for w in writers] == [0, 0, 0]
    assert sorted(index for indices in told for index in indices) == list(range(60))
    with Ledger.open(url) as ledger:
        report = ledger.verify(KEY.public_key())
        assert (report.ok, report.size) == (True, 60)
        assert {str(e.content_id) for e in ledger.entries()} == {f"{n}{i:015x}" for n in "abc" for i in range(20)}
        for name, indices in zip("abc", told, strict=True):
            assert [ledger.get(i).content_id for i in indices] == [f"{name}{i:015x}" for i in range(20)]


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_that_it_confirmed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    confirmed = -1
    for name in "abc":
        process = writer(url, name, 100_000)
        assert process.stdout is not None
        for _ in range(12):
            confirmed = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with Ledger.open(url, key=KEY) as ledger:
            report = ledger.verify(KEY.public_key())
            assert report.ok
            assert report.size > confirmed
            assert ledger.append(Event("failed")).index == report.size
            assert ledger.verify().ok


def test_two_ledger_objects_in_one_process_take_turns(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger.open(url, key=KEY) as one, Ledger.open(url, key=KEY) as two:
        indices = [ledger.append(Event("failed")).index for _ in range(5) for ledger in (one, two)]
        assert indices == list(range(10))
        assert one.verify().ok
