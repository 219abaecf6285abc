"""The tamper table of docs/ledger.md: hand edits behind the ledger's back, and what verification says about each.

The edits are made with plain SQL after dropping the triggers, which are put back, so that every report below is the
whole report: no problem more and none less.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import LedgerDamagedError, LedgerError
from safegen.ledger import Event, Ledger, LedgerReport, merkle
from safegen.ledger.entry import encode_leaf, hash_leaf

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PUBLIC = KEY.public_key()
SIZE = 260  # more than one tile of 256
ORIGIN = "example.com/log"


def event(i: int) -> Event:
    digest = f"{i:064x}"
    return Event("generated", f"{i:016x}", {"n": i}, digest, digest, "tiny", digest, "allow")


def build(path: Path, key: Ed25519PrivateKey = KEY, size: int = SIZE, kind: str = "generated") -> None:
    with Ledger.open(f"sqlite:///{path}", key=key, origin=ORIGIN) as ledger:
        for i in range(size):
            ledger.append(event(i) if i != 7 else Event(kind, f"{i:016x}"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    build(path)
    return path


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sound, tmp_path / "ledger.db"))


def tamper(path: Path, *statements: str | Callable[[sqlite3.Connection], object]) -> None:
    """Run SQL with the triggers out of the way; a statement that changes nothing fails the test."""
    db = sqlite3.connect(path)
    triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        if callable(statement):
            statement(db)
        else:
            assert db.execute(statement).rowcount > 0
    for _, sql in triggers:
        db.execute(sql)
    db.commit()
    db.close()


def verify(path: Path, outside: tuple[str, ...] = (), public: bool = True) -> LedgerReport:
    with Ledger.open(f"sqlite:///{path}", create=False, read_only=True) as ledger:
        return ledger.verify(PUBLIC if public else None, outside=outside)


def places(report: LedgerReport) -> set[tuple[int | None, str]]:
    assert report.ok == (not report.problems)
    return {(problem.index, problem.column) for problem in report.problems}


def test_a_sound_ledger_verifies(path: Path) -> None:
    ticks: list[tuple[int, int]] = []
    with Ledger.open(f"sqlite:///{path}") as ledger:
        report = ledger.verify(PUBLIC, lambda done, total: ticks.append((done, total)))
        notes = [ledger.checkpoint(size) or "" for size in (1, 200, SIZE)]
        assert ledger.verify(PUBLIC, outside=notes) == report
    assert (report.ok, report.size, report.problems, report.key_trusted) == (True, SIZE, (), True)
    assert ticks == [(SIZE, SIZE)]


@pytest.mark.parametrize("table", ["entries", "checkpoints", "nodes"])
@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET {} = {}", "DELETE FROM {}", "INSERT OR REPLACE INTO {0} SELECT * FROM {0}"]
)
def test_triggers_refuse_changes(path: Path, table: str, statement: str) -> None:
    column = {"entries": "kind", "checkpoints": "note", "nodes": "hash"}[table]
    with sqlite3.connect(path) as db, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute(statement.format(table, column, "'x'"))
    assert verify(path).ok


def test_trigger_refuses_to_replace_a_generated_entry_through_its_content_id(path: Path) -> None:
    with sqlite3.connect(path) as db, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute(
            "INSERT OR REPLACE INTO entries (idx, time, kind, content_id, leaf, leaf_hash)"
            f" VALUES ({SIZE}, '', 'generated', '{5:016x}', '', '')"
        )


def test_a_missing_trigger_is_named(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER entries_no_update")
    report = verify(path)
    assert places(report) == {(None, "schema")}
    assert "entries_no_update" in report.problems[0].summary


EDITED_COLUMNS = {
    "time": "'2020-01-01T00:00:00.000000Z'",
    "kind": "'blocked'",
    "content_id": "'ffffffffffffffff'",
    "asset_sha256": "NULL",
    "manifest_sha256": "'x'",
    "model": "'other'",
    "policy_sha256": "x'00ff'",
    "action": "3",
    "leaf_hash": f"'{'0' * 64}'",
    "leaf": "replace(leaf, 'tiny', 'huge')",
}


@pytest.mark.parametrize("column", EDITED_COLUMNS)
@pytest.mark.parametrize("index", [0, 100, SIZE - 1])
def test_an_edited_column_is_named(path: Path, column: str, index: int) -> None:
    tamper(path, f"UPDATE entries SET {column} = {EDITED_COLUMNS[column]} WHERE idx = {index}")
    assert places(verify(path)) == {(index, column)}


def test_every_column_of_entries_is_in_the_table() -> None:
    from safegen.ledger.models import entries

    assert {*EDITED_COLUMNS, "idx"} == {column.name for column in entries.columns}


@pytest.mark.parametrize(
    "value",
    [
        "x'ff00'",
        "''",
        "'{}'",
        "cast(x'ff' || leaf as text)",
        "leaf || ' '",
        "upper(leaf)",
        "replace(leaf, '100', '1e2')",
    ],
)
def test_a_mangled_leaf_is_named(path: Path, value: str) -> None:
    tamper(path, f"UPDATE entries SET leaf = {value} WHERE idx = 100")
    assert places(verify(path)) == {(100, "leaf")}


@pytest.mark.parametrize("value", ["''", "upper(leaf_hash)", "x'00'", "5", "leaf_hash || ' '"])
def test_a_mangled_leaf_hash_is_named(path: Path, value: str) -> None:
    tamper(path, f"UPDATE entries SET leaf_hash = {value} WHERE idx = 100")
    assert places(verify(path)) == {(100, "leaf_hash")}


def rehash(db: sqlite3.Connection, index: int) -> None:
    (leaf,) = db.execute("SELECT leaf FROM entries WHERE idx = ?", (index,)).fetchone()
    db.execute("UPDATE entries SET leaf_hash = ? WHERE idx = ?", (hash_leaf(leaf).hex(), index))


ROW_100 = 'leaf = replace(leaf, \'"kind":"generated"\', \'"kind":"reviewed"\')'

TABLE: dict[str, tuple[list[str | Callable[[sqlite3.Connection], object]], set[tuple[int | None, str]]]] = {
    "leaf, its hash and its column edited together": (
        [f"UPDATE entries SET {ROW_100}, kind = 'reviewed' WHERE idx = 100", lambda db: rehash(db, 100)],
        {(100, "leaf")},
    ),
    "two entries edited": (
        ["UPDATE entries SET model = 'x' WHERE idx IN (3, 258)"],
        {(3, "model"), (258, "model")},
    ),
    "entry renumbered": (["UPDATE entries SET idx = 9999 WHERE idx = 100"], {(100, "idx"), (9999, "idx")}),
    "entry renumbered below zero": (["UPDATE entries SET idx = -4 WHERE idx = 100"], {(100, "idx"), (-4, "idx")}),
    "two entries swapped": (
        [
            "UPDATE entries SET idx = -1 WHERE idx = 100",
            "UPDATE entries SET idx = 100 WHERE idx = 101",
            "UPDATE entries SET idx = 101 WHERE idx = -1",
        ],
        {(100, "idx"), (101, "idx"), (100, "leaf")},
    ),
    "entry deleted": (["DELETE FROM entries WHERE idx = 100"], {(100, "idx")}),
    "last entry deleted": (
        [f"DELETE FROM entries WHERE idx = {SIZE - 1}"],
        {(SIZE - 1, "checkpoints.size"), (None, "head.size"), (None, "head.frontier")},
    ),
    "all entries deleted": (
        ["DELETE FROM entries"],
        {(i, "checkpoints.size") for i in range(SIZE)}
        | {(None, "nodes.position"), (None, "head.size"), (None, "head.frontier")},
    ),
    "checkpoint's signature edited": (
        ["UPDATE checkpoints SET note = substr(note, 1, length(note) - 6) || 'AAAA=' || char(10) WHERE size = 101"],
        {(100, "checkpoints.note")},
    ),
    "checkpoint's size edited": (
        ["UPDATE checkpoints SET note = replace(note, char(10) || '101', char(10) || '102') WHERE size = 101"],
        {(100, "checkpoints.note")},
    ),
    "checkpoint is not text": (["UPDATE checkpoints SET note = x'ff' WHERE size = 101"], {(100, "checkpoints.note")}),
    "checkpoint replaced by another": (
        ["UPDATE checkpoints SET note = (SELECT note FROM checkpoints WHERE size = 90) WHERE size = 101"],
        {(100, "checkpoints.size")},
    ),
    "checkpoint deleted": (["DELETE FROM checkpoints WHERE size = 101"], {(100, "checkpoints.size")}),
    "checkpoint renumbered": (
        ["UPDATE checkpoints SET size = 5000 WHERE size = 101"],
        {(100, "checkpoints.size"), (4999, "checkpoints.size")},
    ),
    "node edited": (["UPDATE nodes SET hash = leaf_hash FROM entries WHERE idx = 0"], {(0, "nodes.hash")}),
    "node deleted": (["DELETE FROM nodes"], {(0, "nodes.position")}),
    "node moved": (["UPDATE nodes SET position = 1"], {(0, "nodes.position"), (None, "nodes.position")}),
    "node on another level": (["UPDATE nodes SET level = 'x'"], {(0, "nodes.position"), (None, "nodes.position")}),
    "head's size edited": (["UPDATE head SET size = size - 1"], {(None, "head.size")}),
    "head's size is not a number": (["UPDATE head SET size = 'many'"], {(None, "head.size")}),
    "head's frontier edited": (["UPDATE head SET frontier = upper(frontier)"], {(None, "head.frontier")}),
    "head's key emptied": (["UPDATE head SET vkey = ''"], {(None, "head.vkey")}),
    "head's key garbled": (["UPDATE head SET vkey = 'x'"], {(None, "head.vkey")}),
    "head deleted": (["DELETE FROM head"], {(None, "head.id"), (None, "head.vkey")}),
}


@pytest.mark.parametrize("case", TABLE)
def test_tampering_is_found_and_named(path: Path, case: str) -> None:
    statements, expected = TABLE[case]
    tamper(path, *statements)
    assert places(verify(path)) == expected


def test_a_row_appended_without_the_key_is_named(path: Path) -> None:
    leaf = encode_leaf(Event("reviewed"), SIZE, "2026-01-01T00:00:00.000000Z").decode()

    def insert(db: sqlite3.Connection) -> None:
        row = (SIZE, "2026-01-01T00:00:00.000000Z", "reviewed", leaf, hash_leaf(leaf).hex())
        db.execute("INSERT INTO entries (idx, time, kind, leaf, leaf_hash) VALUES (?, ?, ?, ?, ?)", row)

    tamper(path, insert)
    assert places(verify(path)) == {(SIZE, "checkpoints.size"), (None, "head.size"), (None, "head.frontier")}


def test_a_trigger_replaced_by_one_that_does_nothing_is_named(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER entries_no_update")
        db.execute("CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries BEGIN SELECT 1; END")
        db.execute("CREATE TRIGGER more AFTER INSERT ON entries BEGIN SELECT 1; END")
    report = verify(path)
    assert places(report) == {(None, "schema")}
    assert [p.summary for p in report.problems] == [
        "the trigger entries_no_update was changed",
        "the trigger more is none of the ledger's",
    ]
    with sqlite3.connect(path) as db:
        db.execute("UPDATE entries SET kind = 'blocked' WHERE idx = 100")
    assert places(verify(path)) == {(None, "schema"), (100, "kind")}


def test_a_false_entry_by_the_holder_of_the_key_is_not_detected(path: Path) -> None:
    with Ledger.open(f"sqlite:///{path}", key=KEY) as ledger:
        ledger.append(Event("reviewed", body={"claim": "false"}))
    assert verify(path).ok


def test_an_entry_hidden_from_lookup_is_found_by_verification_alone(path: Path) -> None:
    tamper(path, "UPDATE entries SET content_id = NULL WHERE idx = 100")
    with Ledger.open(f"sqlite:///{path}", read_only=True) as ledger:
        assert ledger.find_content(f"{100:016x}") == []
    assert places(verify(path)) == {(100, "content_id")}


def test_an_entry_edited_and_the_tree_rebuilt_without_the_key(path: Path) -> None:
    def rebuild(db: sqlite3.Connection) -> None:
        rehash(db, 100)
        frontier, tiles = merkle.Frontier(), []
        for (leaf,) in db.execute("SELECT leaf_hash FROM entries ORDER BY idx").fetchall():
            tiles += [n for n in frontier.push(bytes.fromhex(leaf)) if n[0] == 8]
        db.execute("UPDATE nodes SET hash = ?", (tiles[0][2].hex(),))
        db.execute("UPDATE head SET frontier = ?", (" ".join(p.hex() for p in frontier.peaks),))

    tamper(path, f"UPDATE entries SET {ROW_100}, kind = 'reviewed' WHERE idx = 100", rebuild)
    assert places(verify(path)) == {(100, "leaf")}


def test_everything_rewritten_and_signed_with_another_key(tmp_path: Path) -> None:
    forged = tmp_path / "forged.db"
    build(forged, OTHER_KEY, 10)
    assert places(verify(forged)) == {(None, "head.vkey")} | {(i, "checkpoints.note") for i in range(10)}
    # Not detected without the true key, and the report says that no key was given.
    unaided = verify(forged, public=False)
    assert unaided.ok
    assert not unaided.key_trusted


def test_everything_rewritten_with_the_true_key_needs_an_outside_checkpoint(path: Path, tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{path}") as ledger:
        early, late = ledger.checkpoint(7) or "", ledger.checkpoint(10) or ""
    rewritten = tmp_path / "rewritten.db"
    build(rewritten, KEY, 12, kind="blocked")
    assert verify(rewritten).ok
    assert places(verify(rewritten, (early, late))) == {(6, "outside"), (9, "outside")}


def test_rollback_needs_an_outside_checkpoint(path: Path) -> None:
    with Ledger.open(f"sqlite:///{path}") as ledger:
        kept, newest = ledger.checkpoint(150) or "", ledger.checkpoint() or ""

    def shorten(db: sqlite3.Connection) -> None:
        frontier = merkle.Frontier()
        for (leaf,) in db.execute("SELECT leaf_hash FROM entries ORDER BY idx").fetchall():
            frontier.push(bytes.fromhex(leaf))
        db.execute("UPDATE head SET size = 200, frontier = ?", (" ".join(p.hex() for p in frontier.peaks),))

    tamper(
        path,
        "DELETE FROM entries WHERE idx >= 200",
        "DELETE FROM checkpoints WHERE size > 200",
        "DELETE FROM nodes",
        "DELETE FROM entry_facts WHERE entry >= 200",
        "UPDATE daily_counts SET entries = (SELECT count(*) FROM entries e WHERE substr(e.time, 1, 10) = day"
        " AND coalesce(e.policy_sha256, '') = daily_counts.policy_sha256)",
        shorten,
    )
    assert verify(path).ok
    assert verify(path, (kept,)).ok
    report = verify(path, (kept, newest))
    assert places(report) == {(None, "outside")}
    assert "260" in report.problems[0].summary


def test_an_outside_checkpoint_of_another_log_is_an_error(path: Path, tmp_path: Path) -> None:
    build(tmp_path / "other.db", OTHER_KEY, 1)
    with Ledger.open(f"sqlite:///{tmp_path / 'other.db'}") as ledger:
        note = ledger.checkpoint() or ""
    with pytest.raises(LedgerError, match="outside"):
        verify(path, (note,))


def test_reading_a_tampered_row_fails_and_listing_shows_it(path: Path) -> None:
    tamper(path, "UPDATE entries SET model = 'other' WHERE idx = 100", "UPDATE entries SET leaf = 'x' WHERE idx = 101")
    with Ledger.open(f"sqlite:///{path}", read_only=True) as ledger:
        for index in (100, 101):
            with pytest.raises(LedgerDamagedError):
                ledger.get(index)
            with pytest.raises(LedgerDamagedError):
                ledger.find_content(f"{index:016x}")
        damage = {e.index: e.damage for e in ledger.entries() if e.damage}
        assert damage == {100: "wrong model", 101: "wrong leaf"}
        assert [e.to_json()["damage"] for e in ledger.entries(2, 100)] == ["wrong model", "wrong leaf"]


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("UPDATE entries SET leaf_hash = '00' WHERE idx = 100", 90),
        (f"UPDATE entries SET leaf_hash = '{'0' * 64}' WHERE idx = 100", 90),
        (f"UPDATE entries SET leaf_hash = '{'0' * 64}' WHERE idx = 100", 100),
        ("DELETE FROM nodes", 258),
        ("DELETE FROM entries WHERE idx = 100", 101),
    ],
)
def test_no_proof_is_given_from_damaged_tables(path: Path, statement: str, index: int) -> None:
    tamper(path, statement)
    with Ledger.open(f"sqlite:///{path}", read_only=True) as ledger, pytest.raises(LedgerDamagedError):
        ledger.prove(index)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE head SET size = 3",
        "UPDATE head SET frontier = ''",
        "UPDATE head SET size = 0, frontier = ''",
        "UPDATE head SET size = 'x'",
        "UPDATE head SET vkey = 'x'",
        "UPDATE checkpoints SET note = replace(note, '260', '261') WHERE size = 260",
        "DELETE FROM checkpoints WHERE size = 260",
        "DELETE FROM entries WHERE idx = 259",
        "DELETE FROM head",
    ],
)
def test_nothing_is_signed_on_top_of_a_damaged_head(path: Path, statement: str) -> None:
    tamper(path, statement)
    with Ledger.open(f"sqlite:///{path}", key=KEY) as ledger, pytest.raises(LedgerDamagedError):
        ledger.append(Event("reviewed"))
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT max(size) FROM checkpoints").fetchone()[0] <= SIZE
