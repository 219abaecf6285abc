"""The attacks of docs/ledger.md on both databases, with and without one checkpoint kept outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from safegen.ledger import Checkpoint, Event, Ledger, LedgerReport, merkle, sign_checkpoint, triggers
from safegen.ledger.entry import hash_leaf
from tests.postgres import DATABASES, database
from tests.quick import quick

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIZE = 30


def event(n: int) -> Event:
    return Event("generated", f"{n:016x}", {"n": n}, f"{n:064x}", model="tiny")


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, tmp_path) as url:
        with Ledger.open(url, key=KEY, origin="example.com/log") as ledger:
            for first in range(0, SIZE - 5, 5):
                ledger.append_many(event(n) for n in range(first, first + 5))
            for n in range(SIZE - 5, SIZE):
                ledger.append(event(n))
        yield url


def tamper(url: str, *steps: str | Callable[[Connection], object]) -> None:
    """Run SQL with the guards out of the way, which are put back."""
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        dialect = connection.dialect.name
        made = triggers.definitions(dialect)
        for name, text in made.items():
            table = text.partition(" ON ")[2].split()[0]
            connection.exec_driver_sql(f"DROP TRIGGER {name}" + ("" if dialect == "sqlite" else f" ON {table}"))
        for step in steps:
            if callable(step):
                step(connection)
            else:
                assert connection.exec_driver_sql(step).rowcount > 0
        for text in made.values():
            connection.exec_driver_sql(text)
    engine.dispose()


def verify(url: str, *outside: str) -> LedgerReport:
    with Ledger.open(url, create=False, read_only=True) as ledger:
        return ledger.verify(KEY.public_key(), outside=outside)


def rehash(connection: Connection) -> None:
    for index, leaf in connection.exec_driver_sql("SELECT idx, leaf FROM entries").fetchall():
        digest = hash_leaf(leaf).hex()
        connection.exec_driver_sql(f"UPDATE entries SET leaf_hash = '{digest}' WHERE idx = {index}")


def rebuild(connection: Connection, *, sign: bool = False) -> None:
    """Compute hashes, tree and head anew, as somebody with all rights would; with the key, the checkpoints too."""
    rehash(connection)
    tree = merkle.Frontier()
    sizes = set(connection.exec_driver_sql("SELECT size FROM checkpoints").scalars())
    for (digest,) in connection.exec_driver_sql("SELECT leaf_hash FROM entries ORDER BY idx").fetchall():
        tree.push(bytes.fromhex(digest))
        if sign and tree.size in sizes:
            note = sign_checkpoint(Checkpoint("example.com/log", tree.size, tree.root()), KEY)
            connection.execute(
                sqlalchemy.text("UPDATE checkpoints SET note = :note WHERE size = :size"),
                {"note": note, "size": tree.size},
            )
    peaks = " ".join(p.hex() for p in tree.peaks)
    connection.exec_driver_sql(f"UPDATE head SET size = {tree.size}, frontier = '{peaks}'")


LEAF = "UPDATE entries SET leaf = replace(leaf, '\"tiny\"', '\"huge\"') WHERE idx = 12"
BOTH = "UPDATE entries SET leaf = replace(leaf, '\"tiny\"', '\"huge\"'), model = 'huge' WHERE idx = 12"
SHORTER = (
    "DELETE FROM entries WHERE idx >= 20",
    "DELETE FROM entry_facts WHERE entry >= 20",
    "UPDATE daily_counts SET entries = 20",
)

ATTACKS: dict[str, tuple[tuple[str | Callable[[Connection], object], ...], bool]] = {
    "leaf edited": ((LEAF,), True),
    "leaf and column edited": ((BOTH,), True),
    "leaf, column and hash edited": ((BOTH, rehash), True),
    "two entries swapped": (
        (
            "UPDATE entries SET idx = 99 WHERE idx = 12",
            "UPDATE entries SET idx = 12 WHERE idx = 13",
            "UPDATE entries SET idx = 13 WHERE idx = 99",
        ),
        True,
    ),
    "a column edited": (("UPDATE entries SET kind = 'blocked' WHERE idx = 12",), True),
    "edited, the tree rebuilt": ((BOTH, rebuild), True),
    "cut short, the tree rebuilt": ((*SHORTER, rebuild), True),
    "edited, rebuilt, all checkpoints deleted": ((BOTH, rebuild, "DELETE FROM checkpoints"), True),
    "one checkpoint deleted": (("DELETE FROM checkpoints WHERE size = 15",), True),
    "rolled back: cut short, rebuilt, later checkpoints deleted": (
        (*SHORTER, "DELETE FROM checkpoints WHERE size > 20", rebuild),
        False,
    ),
}


FEW = ("leaf, column and hash edited", "edited, the tree rebuilt", "cut short, the tree rebuilt")


@pytest.mark.parametrize("attack", quick(ATTACKS, *FEW))
def test_attacks_are_found_with_and_without_a_checkpoint_outside(url: str, attack: str) -> None:
    with Ledger.open(url, read_only=True) as ledger:
        kept = ledger.checkpoint() or ""
        assert ledger.verify(KEY.public_key(), outside=[kept]).ok
    steps, inside = ATTACKS[attack]
    tamper(url, *steps)
    assert verify(url).ok is not inside
    assert not verify(url, kept).ok


def test_a_rewrite_with_the_key_is_found_with_a_checkpoint_outside_alone(url: str) -> None:
    with Ledger.open(url, read_only=True) as ledger:
        kept = ledger.checkpoint(15) or ""

    def forge(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE entries SET leaf = replace(leaf, '\"n\":', '\"m\":') WHERE idx = 12")
        rebuild(connection, sign=True)

    tamper(url, forge)
    assert verify(url).ok
    report = verify(url, kept)
    assert (14, "outside") in {(p.index, p.column) for p in report.problems}


def test_the_entry_among_a_batch_is_named(url: str) -> None:
    tamper(url, LEAF, "UPDATE entries SET leaf_hash = upper(leaf_hash) WHERE idx = 13")
    assert {(p.index, p.column) for p in verify(url).problems} == {(12, "leaf"), (13, "leaf_hash")}
    tamper(url, BOTH.replace("'\"tiny\"', '\"huge\"'", "'\"n\":', '\"m\":'").replace(", model = 'huge'", ""), rehash)
    found = {(p.index, p.column) for p in verify(url).problems}
    assert (10, "leaf") in found  # of the batch only its first entry is known
