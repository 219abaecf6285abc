"""Verification of a whole ledger: every column, hash, node and checkpoint is computed again and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import ColumnElement, Connection, Row, Table, func, select

from safegen.errors import LedgerError
from safegen.ledger import merkle
from safegen.ledger.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from safegen.ledger.entry import COLUMNS, decode_leaf, hash_leaf
from safegen.ledger.facts import FactsCheck
from safegen.ledger.models import SQLITE_TRIGGERS, checkpoints, entries, head, nodes
from safegen.ledger.proof import TILE_LEVELS
from safegen.ledger.views import missing_views

_PAGE = 1000
_MAX_PROBLEMS = 1000

AnyRow = Row[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Problem:
    """One contradiction: the entry it concerns (None: the ledger as a whole), the column or table, and a sentence."""

    index: int | None
    column: str
    summary: str


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """The outcome of verification. ``root`` is the recomputed root in hex, empty where it could not be computed.

    ``key_trusted`` is false when the caller gave no key: then the signatures were checked against the key that the
    ledger names for itself, which whoever rewrote the whole ledger could have replaced.
    """

    ok: bool
    size: int
    root: str
    problems: tuple[Problem, ...]
    key_trusted: bool


def column_faults(row: AnyRow) -> list[str]:
    """Return the names of an entry row's columns that contradict its leaf; ``leaf`` alone if it is not readable."""
    try:
        fields = decode_leaf(row.leaf)
    except LedgerError:
        return ["leaf"]
    faults = [name for name in COLUMNS if getattr(row, name) != fields[name]]
    if row.idx != fields["index"]:
        faults.insert(0, "idx")
    if row.leaf_hash != hash_leaf(row.leaf).hex():
        faults.append("leaf_hash")
    return faults


def audit(
    connection: Connection,
    public_key: Ed25519PublicKey | None,
    origin: str,
    outside: Sequence[str],
    progress: Callable[[int, int], None] | None,
) -> LedgerReport:
    """Verify the ledger behind ``connection``; see ``Ledger.verify``."""
    return _Audit(connection, public_key, origin, outside, progress).run()


class _Audit:
    """One pass over the entries and checkpoints side by side, with the tree rebuilt on the way."""

    def __init__(
        self,
        connection: Connection,
        public_key: Ed25519PublicKey | None,
        origin: str,
        outside: Sequence[str],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._connection = connection
        self._progress = progress
        self._trusted = public_key is not None
        self._problems: list[Problem] = []
        self._more = 0
        self._tree = merkle.Frontier()
        self._broken = False  # the tree is known to differ from what was signed, so later roots tell nothing new
        self._tiles: dict[tuple[int, int], bytes] = {}
        self._head = connection.execute(select(head)).one_or_none()
        self._key = self._choose_key(public_key, origin)
        self._outside = self._read_outside(outside)
        self._facts = FactsCheck(connection, self._add)

    def run(self) -> LedgerReport:
        total = self._connection.execute(select(func.count()).select_from(entries)).scalar() or 0
        notes = _Peekable(_pages(self._connection, checkpoints, checkpoints.c.size))
        expected = 0
        for done, row in enumerate(_pages(self._connection, entries, entries.c.idx), 1):
            expected = self._entry(row, expected, notes)
            if self._progress is not None and (done % _PAGE == 0 or done == total):
                self._progress(done, total)
        for extra in notes:
            self._add(
                _before(extra.size), "checkpoints.size", f"checkpoint {extra.size!r} covers entries that are missing"
            )
        self._check_nodes()
        self._check_head(expected)
        for size in sorted(self._outside):
            self._add(None, "outside", f"a checkpoint kept outside covers {size} entries; the ledger has {expected}")
        self._check_triggers()
        for name in missing_views(self._connection):
            self._add(None, "schema", f"the view {name} is missing, or says something else")
        if not self._problems:  # they follow from entries that are all there and as they were
            self._facts.rest(expected)
        if self._more:
            self._add_anyway(Problem(None, "", f"and {self._more} more problems"))
        root = "" if self._broken else self._tree.root().hex()
        return LedgerReport(not self._problems, expected, root, tuple(self._problems), self._trusted)

    # -- one entry ----------------------------------------------------------------------------------------------------

    def _entry(self, row: AnyRow, expected: int, notes: _Peekable) -> int:
        """Check one row and the checkpoint over it; return the index that the next row should have."""
        index = row.idx
        if not isinstance(index, int) or index < expected:
            self._add(_index(index), "idx", f"no entry can have the index {index!r}")
            return expected
        if index > expected and "idx" in column_faults(row):
            self._add(index, "idx", f"the row stands at {index}; its leaf says {decode_leaf(row.leaf)['index']}")
            return expected
        if index > expected:
            last = f" to {index - 1}" if index > expected + 1 else ""
            self._add(expected, "idx", f"missing: entries {expected}{last}" if last else f"entry {expected} is missing")
            self._broken = True
            # One problem per gap is enough: the checkpoints over the missing rows have nothing to be compared with.
            while (note := notes.peek()) is not None and _whole(note.size) and note.size <= index:
                next(notes)
        signed = self._note_for(index, notes)
        leaf_hash = self._leaf(row, index, signed)
        for level, position, node in self._tree.push(leaf_hash):
            if level % TILE_LEVELS == 0:
                self._tiles[level, position] = node
        self._compare_root(index, signed)
        if not self._broken and isinstance(row.leaf, str) and hash_leaf(row.leaf) == leaf_hash:
            self._facts.entry(index, row.leaf)
        return index + 1

    def _leaf(self, row: AnyRow, index: int, signed: Checkpoint | None) -> bytes:
        """Report what is wrong in the row; return the leaf hash to build on: the one that the checkpoint confirms."""
        faults = column_faults(row)
        stored = _digest(row.leaf_hash)
        computed = hash_leaf(row.leaf) if isinstance(row.leaf, str) else None
        if stored == computed and stored is not None:
            for name in faults:
                self._add(index, name, f"{name} does not agree with the leaf")
            return stored
        # One of leaf and leaf_hash was changed. The signed root tells which, as long as the tree before them is sound.
        confirmed = None
        if signed is not None and not self._broken:
            confirmed = next((h for h in (computed, stored) if h and self._tree.root_with(h) == signed.root), None)
        if confirmed is None:
            self._broken = True
            self._add(
                index, "leaf", "the leaf and leaf_hash do not agree, and no valid checkpoint tells which is right"
            )
            return computed or stored or merkle.EMPTY_ROOT
        if confirmed == computed:
            for name in faults:
                self._add(index, name, f"{name} does not agree with the leaf, which the checkpoint confirms")
        else:
            self._add(index, "leaf", "the leaf was changed: the checkpoint confirms leaf_hash instead")
        return confirmed

    def _compare_root(self, index: int, signed: Checkpoint | None) -> None:
        root = self._tree.root()
        wrong = self._broken or signed is None
        if signed is not None and not self._broken and signed.root != root:
            self._broken = wrong = True
            self._add(index, "leaf", f"the signed checkpoint {signed.size} covers another entry here: it was replaced")
        kept = self._outside.pop(index + 1, None)
        if kept is not None and kept.root != root:
            blame = "changed" if not wrong else "changed, see the other problems"
            self._add(index, "outside", f"a checkpoint kept outside over {index + 1} entries does not fit: {blame}")
            self._broken = True

    def _note_for(self, index: int, notes: _Peekable) -> Checkpoint | None:
        """Return the checkpoint over the entries up to ``index`` if it is there and validly signed."""
        size = index + 1
        while (note := notes.peek()) is not None and (not _whole(note.size) or note.size < size):
            next(notes)
            self._add(_before(note.size), "checkpoints.size", f"no checkpoint can have the size {note.size!r}")
        if note is None or note.size != size:
            self._add(index, "checkpoints.size", f"the checkpoint of size {size} is missing")
            return None
        next(notes)
        if self._key is None:
            return None
        try:
            signed = open_checkpoint(note.note if isinstance(note.note, str) else "", self._key)
        except LedgerError as exc:
            self._add(index, "checkpoints.note", f"checkpoint {size}: {exc}")
            return None
        if signed.size != size:
            self._add(index, "checkpoints.size", f"the row of size {size} holds the checkpoint of size {signed.size}")
            return None
        return signed

    # -- the rest -----------------------------------------------------------------------------------------------------

    def _check_nodes(self) -> None:
        stored: set[tuple[object, object]] = set()
        query = select(nodes).order_by(nodes.c.level, nodes.c.position)
        for row in self._connection.execute(query):
            place = (row.level, row.position)
            stored.add(place)
            wanted = self._tiles.get(place) if all(map(_whole, place)) else None
            if wanted is None:
                self._add(None, "nodes.position", f"no node belongs at level {row.level!r}, position {row.position!r}")
            elif row.hash != wanted.hex() and not self._broken:
                first = row.position << row.level
                last = first + (1 << row.level) - 1
                self._add(first, "nodes.hash", f"the node over entries {first} to {last} is wrong")
        for level, position in sorted(self._tiles.keys() - stored):
            first = position << level
            self._add(first, "nodes.position", f"the node at level {level} over the entries from {first} is missing")

    def _check_head(self, size: int) -> None:
        if self._head is None:
            self._add(None, "head.id", "the head row is missing")
            return
        if self._head.size != size:
            self._add(None, "head.size", f"the head says {self._head.size!r} entries; there are {size}")
        peaks = " ".join(peak.hex() for peak in self._tree.peaks)
        if self._head.frontier != peaks and not self._broken:
            self._add(None, "head.frontier", "the head's frontier does not follow from the entries")

    def _check_triggers(self) -> None:
        if self._connection.dialect.name != "sqlite":
            return
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        present = {name for (name,) in self._connection.exec_driver_sql(query)}
        for name in sorted(SQLITE_TRIGGERS - present):
            self._add(None, "schema", f"the trigger {name} that refuses changes is missing")

    def _choose_key(self, public_key: Ed25519PublicKey | None, origin: str) -> VerifierKey | None:
        """Return the key that checkpoints must be signed with; a head that names another one is a problem."""
        stored = self._head.vkey if self._head is not None else ""
        named = None
        if stored:
            try:
                named = VerifierKey.parse(str(stored))
            except LedgerError as exc:
                self._add(None, "head.vkey", str(exc))
        if public_key is None:
            return named
        name = origin or (named.name if named else self._first_origin())
        if not name:
            return None  # an empty ledger: nothing is signed yet
        try:
            key = VerifierKey.of(name, public_key)
        except LedgerError as exc:
            self._add(None, "head.vkey", str(exc))
            return None
        if stored and named is not None and named != key:
            self._add(None, "head.vkey", f"the head names another key: {named}")
        elif not stored:
            self._add(None, "head.vkey", "the head names no key")
        return key

    def _first_origin(self) -> str:
        note = self._connection.execute(select(checkpoints.c.note).order_by(checkpoints.c.size).limit(1)).scalar()
        return str(note or "").partition("\n")[0]

    def _read_outside(self, outside: Sequence[str]) -> dict[int, Checkpoint]:
        kept: dict[int, Checkpoint] = {}
        for note in outside:
            if self._key is None:
                self._add(None, "outside", "a checkpoint kept outside covers entries, but the ledger has none signed")
                continue
            try:
                checkpoint = open_checkpoint(note, self._key)
            except LedgerError as exc:
                raise LedgerError(
                    f"the checkpoint kept outside is not one of this ledger: {exc}",
                    remedy="give the checkpoint as it was saved, and the ledger's own public key",
                ) from exc
            earlier = kept.setdefault(checkpoint.size, checkpoint)
            if earlier.root != checkpoint.root:
                self._add(
                    checkpoint.size - 1, "outside", f"two checkpoints of size {checkpoint.size} contradict each other"
                )
        kept.pop(0, None)
        return kept

    def _add(self, index: int | None, column: str, summary: str) -> None:
        if len(self._problems) < _MAX_PROBLEMS:
            self._add_anyway(Problem(index, column, summary))
        else:
            self._more += 1

    def _add_anyway(self, problem: Problem) -> None:
        self._problems.append(problem)


class _Peekable:
    """An iterator over rows whose next one can be looked at."""

    def __init__(self, rows: Iterator[AnyRow]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def peek(self) -> AnyRow | None:
        return self._next

    def __iter__(self) -> _Peekable:
        return self

    def __next__(self) -> AnyRow:
        row = self._next
        if row is None:
            raise StopIteration
        self._next = next(self._rows, None)
        return row


def _pages(connection: Connection, table: Table, key: ColumnElement[int]) -> Iterator[AnyRow]:
    """Yield a table's rows in order of ``key`` without holding them all: by pages, for drivers that cannot stream."""
    query = select(table).order_by(key)
    page = query
    while rows := connection.execute(page.limit(_PAGE)).all():
        yield from rows
        page = query.where(key > getattr(rows[-1], str(key.key)))


def _whole(value: object) -> bool:
    return type(value) is int


def _index(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _before(size: object) -> int | None:
    return size - 1 if isinstance(size, int) else None


def _digest(value: object) -> bytes | None:
    """Return a stored leaf hash as bytes; None unless it is 64 lower-case hex digits."""
    try:
        digest = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return None
    return digest if len(digest) == merkle.HASH_BYTES and digest.hex() == value else None
