"""Appending, looking up, listing and proving."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import LedgerError
from safegen.ledger import (
    Event,
    EventKind,
    InclusionProof,
    Ledger,
    VerifierKey,
    merkle,
    open_checkpoint,
    verify_inclusion,
)
from safegen.types import ContentId

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
ID = ContentId("0123456789abcdef")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'new folder' / 'led#ger 100%41.db'}"


def test_an_entry_comes_back_as_it_was_appended(url: str) -> None:
    event = Event(EventKind.GENERATED, ID, {"ü€": [1.5, 1e300, -0.25, None], "n": 2**53 - 1}, "a" * 64, "b" * 64, "m")
    with Ledger.open(url, key=KEY) as ledger:
        receipt = ledger.append(event)
        entry = ledger.get(receipt.index)
        assert entry.event == event
        assert (entry.index, entry.kind, entry.content_id, entry.damage) == (0, "generated", ID, "")
        assert entry.leaf_hash == receipt.leaf_hash == merkle.leaf_hash(entry.leaf.encode()).hex()
        assert entry.time.endswith("Z")
        assert entry.to_json()["body"] == event.body
        assert ledger.find_content(ID) == ledger.find_asset("a" * 64) == [entry]
        assert ledger.find_content("f" * 16) == []


def test_each_append_signs_a_checkpoint_over_the_whole_ledger(url: str) -> None:
    frontier = merkle.Frontier()
    with Ledger.open(url, key=KEY, origin="example.com/log") as ledger:
        assert ledger.checkpoint() is None
        assert ledger.vkey is None
        for size in range(1, 6):
            receipt = ledger.append(Event("failed"))
            frontier.push(bytes.fromhex(receipt.leaf_hash))
            signed = open_checkpoint(receipt.checkpoint, VerifierKey.of("example.com/log", KEY))
            assert (signed.size, signed.root) == (size, frontier.root())
            assert ledger.checkpoint() == ledger.checkpoint(size) == receipt.checkpoint
        assert ledger.count() == 5
        assert ledger.checkpoint(99) is None


def test_a_content_id_is_generated_once(url: str) -> None:
    with Ledger.open(url, key=KEY) as ledger:
        ledger.append(Event("blocked", ID))
        ledger.append(Event("generated", ID))
        ledger.append(Event("withdrawn", ID))
        with pytest.raises(LedgerError, match="entry 1"):
            ledger.append(Event("generated", ID))
        assert [e.kind for e in ledger.find_content(ID)] == ["blocked", "generated", "withdrawn"]
        assert ledger.verify().ok


def test_listing(url: str) -> None:
    with Ledger.open(url, key=KEY) as ledger:
        for i in range(300):
            ledger.append(Event("generated" if i % 3 else "blocked", body={"i": i}))
        assert [e.index for e in ledger.entries()] == list(range(300))
        assert [e.index for e in ledger.entries(newest_first=True)] == list(range(299, -1, -1))
        assert [e.index for e in ledger.entries(4, 257)] == [257, 258, 259, 260]
        assert [e.index for e in ledger.entries(280, 10, newest_first=True)] == list(range(289, 9, -1))
        assert [e.index for e in ledger.entries(3, 1, kind="blocked")] == [3, 6, 9]
        assert list(ledger.entries(0)) == []
        assert list(ledger.entries(5, 300)) == []


def test_a_listing_may_be_left_open_while_appending(url: str) -> None:
    with Ledger.open(url, key=KEY) as ledger:
        ledger.append(Event("failed"))
        listing = ledger.entries()
        next(listing)
        ledger.append(Event("failed"))
        assert list(listing) == []
        assert ledger.count() == 2


def test_proofs_of_every_size(url: str) -> None:
    with Ledger.open(url, key=KEY) as ledger:
        notes = []
        for size in range(1, 262):
            notes.append(ledger.append(Event("generated", body={"i": size})).checkpoint)
            if size in (1, 2, 7, 255, 256, 257, 261):
                for index in {0, size // 2, size - 1}:
                    proof, leaf = ledger.prove(index), ledger.get(index).leaf
                    assert verify_inclusion(proof, leaf, PUBLIC)
                    assert not verify_inclusion(proof, leaf + " ", PUBLIC)
        new = open_checkpoint(notes[-1], ledger.vkey or pytest.fail("no key"))
        for size in (1, 3, 128, 255, 256, 261):
            old = open_checkpoint(notes[size - 1], ledger.vkey or pytest.fail("no key"))
            assert merkle.verify_consistency(size, 261, old.root, new.root, ledger.prove_consistency(size))
        with pytest.raises(LedgerError):
            ledger.prove(261)
        with pytest.raises(LedgerError):
            ledger.prove(-1)
        with pytest.raises(LedgerError):
            ledger.prove_consistency(262)


def test_a_proof_is_portable_and_bound_to_key_leaf_and_place(url: str) -> None:
    with Ledger.open(url, key=KEY, origin="example.com/log") as ledger:
        for i in range(5):
            ledger.append(Event("failed", body={"i": i}))
        proof, leaf = ledger.prove(3), ledger.get(3).leaf
    text = proof.to_text()
    assert text.startswith("c2sp.org/tlog-proof@v1\nindex 3\n")
    assert InclusionProof.from_text(text, leaf) == proof
    assert verify_inclusion(proof, leaf, VerifierKey.of("example.com/log", KEY))
    assert not verify_inclusion(proof, leaf, VerifierKey.of("example.com/other", KEY))
    assert not verify_inclusion(proof, leaf, Ed25519PrivateKey.generate().public_key())
    assert not verify_inclusion(InclusionProof.from_text(text.replace("index 3", "index 2"), leaf), leaf, PUBLIC)
    assert not verify_inclusion(InclusionProof.from_text(text, "{}"), leaf, PUBLIC)
    for broken in ("", "x\n\n", text.replace("index 3", "index 03"), text.replace("v1", "v2"), text[:40]):
        with pytest.raises(LedgerError):
            InclusionProof.from_text(broken, leaf)


def test_without_a_key_nothing_is_appended(url: str) -> None:
    with Ledger.open(url) as ledger:
        with pytest.raises(LedgerError, match="reading only"):
            ledger.append(Event("failed"))
        assert ledger.count() == 0
        assert ledger.verify().ok
        with pytest.raises(LedgerError):
            ledger.get(0)
        with pytest.raises(LedgerError, match="empty"):
            ledger.prove(0)
    with Ledger.open(url, key=KEY, read_only=True) as ledger, pytest.raises(LedgerError, match="reading only"):
        ledger.append(Event("failed"))


def test_a_ledger_keeps_its_key_and_origin(url: str) -> None:
    with Ledger.open(url, key=KEY, origin="example.com/log") as ledger:
        ledger.append(Event("failed"))
    with Ledger.open(url, key=Ed25519PrivateKey.generate()) as ledger, pytest.raises(LedgerError, match="another key"):
        ledger.append(Event("failed"))
    with pytest.raises(LedgerError, match="origin"):
        Ledger.open(url, origin="example.com/other")
    with Ledger.open(url, key=KEY) as ledger:
        assert ledger.append(Event("failed")).checkpoint.startswith("example.com/log\n2\n")


def test_a_bad_origin_is_refused(url: str) -> None:
    with Ledger.open(url, key=KEY, origin="two words") as ledger, pytest.raises(LedgerError, match="origin"):
        ledger.append(Event("failed"))


def test_a_malformed_event_leaves_nothing_behind(url: str) -> None:
    with Ledger.open(url, key=KEY) as ledger:
        with pytest.raises(LedgerError):
            ledger.append(Event("failed", body={"x": float("nan")}))
        assert ledger.count() == 0
        ledger.append(Event("failed"))
        assert ledger.verify().ok


def test_a_ledger_in_memory_works(tmp_path: Path) -> None:
    with Ledger.open("sqlite://", key=KEY) as ledger:
        ledger.append(Event("failed"))
        assert ledger.verify().size == 1


def test_full_disk_leaves_nothing_half_written(url: str) -> None:
    with Ledger.open(url, key=KEY) as ledger:
        for _ in range(3):
            ledger.append(Event("failed"))

        writer: Any = ledger._writer
        driver = writer._way._held._connection.connection.driver_connection
        driver.execute("PRAGMA max_page_count = 1")  # SQLite takes the number in use where the limit is smaller
        large = Event("failed", body={"x": "y" * 60_000})  # more than the free pages hold
        with pytest.raises(LedgerError, match="full"):
            ledger.append(large)
        size = ledger.count()
        report = ledger.verify()
        assert (report.ok, report.size, size) == (True, 3, 3)
        # The limit was that connection's, which was closed: as if room had been made.
        assert ledger.append(Event("failed")).index == size
        assert ledger.verify().ok


def test_durable_settings(url: str, tmp_path: Path) -> None:
    with Ledger.open(url, key=KEY) as ledger, ledger._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_the_leaf_is_json_for_any_sql_shell(url: str) -> None:
    with Ledger.open(url, key=KEY) as ledger:
        ledger.append(Event("generated", ID, {"seed": 7}))
    db = sqlite3.connect(url.removeprefix("sqlite:///"))
    assert db.execute("SELECT json_extract(leaf, '$.body.seed'), content_id FROM entries").fetchall() == [(7, ID)]
    db.close()
