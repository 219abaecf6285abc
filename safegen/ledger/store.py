"""The ledger: append entries, look them up, prove them. One transaction brings one signed checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Connection, Engine, Row, Select, select

from safegen.errors import LedgerError
from safegen.ledger import bindings, likeness_index, merkle, schema, tiles
from safegen.ledger.append_results import Receipt
from safegen.ledger.bindings import Binding
from safegen.ledger.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from safegen.ledger.database import connect, parse_url, reading, sqlite_path
from safegen.ledger.entry import COLUMNS, Entry, Event, EventKind, decode_leaf, draft, event_of
from safegen.ledger.fsck import audit
from safegen.ledger.fsck_report import LedgerReport
from safegen.ledger.head_row import parse_head_key
from safegen.ledger.models import checkpoints, entries, head
from safegen.ledger.proof import InclusionProof, TreeReader, damaged
from safegen.ledger.rows import column_faults
from safegen.ledger.tiles import Place, Published
from safegen.ledger.write_modes import Writer
from safegen.ledger.writing import MOST_AT_ONCE
from safegen.settings import LEDGER_BUSY_SECONDS
from safegen.types import ContentId, Json

_PAGE = 256  # rows fetched at once: no read transaction stays open while the caller thinks


class Ledger:
    """An append-only record in SQL. Open it with ``Ledger.open``; use it as a context manager or call ``close``."""

    def __init__(self, engine: Engine, key: Ed25519PrivateKey | None, origin: str, writer: Writer | None) -> None:
        self._engine = engine
        self._key = key
        self._origin = origin
        self._writer = writer

    @classmethod
    def open(
        cls,
        url: str,
        *,
        key: Ed25519PrivateKey | None = None,
        origin: str = "",
        create: bool = True,
        read_only: bool = False,
        busy_seconds: float = LEDGER_BUSY_SECONDS,
        mode: str = "",
    ) -> Self:
        """Open the ledger at a SQLAlchemy URL, and set up an empty database unless ``create`` is false.

        ``key`` signs checkpoints and is needed only to append. ``origin`` names the log; without it a new ledger's
        origin comes from its key and an existing ledger keeps its own. ``mode`` is how appends are written, ``inline``
        or ``sequenced``; without it the database decides (docs/ledger.md). LedgerError if the database is missing,
        unreadable, not writable or no ledger; MigrationRequiredError if its schema is another version's;
        LedgerBusyError if it stays locked for ``busy_seconds``.
        """
        address = parse_url(url)
        engine = connect(address, create=create, read_only=read_only, busy_seconds=busy_seconds)
        try:
            schema.check(engine, create=create and not read_only)
            writer = None
            if key is not None and not read_only:
                writer = Writer(engine, sqlite_path(address), key, origin, mode, busy_seconds)
            ledger = cls(engine, key, origin, writer)
            if origin:
                ledger._check_origin(origin)
        except BaseException:
            engine.dispose()
            raise
        return ledger

    def close(self) -> None:
        """Give the database connections back."""
        if self._writer is not None:
            self._writer.close()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- writing ------------------------------------------------------------------------------------------------------

    def append(self, event: Event) -> Receipt:
        """Record one event under a signed checkpoint: when this returns, it is on the disk.

        The same event about the same asset is recorded once: appended again, after a lost answer say, it gets the
        receipt that it got first. Threads may append at the same time. LedgerError if there is no key, the event is
        malformed, its content id was generated before, the key is not this ledger's; LedgerDamagedError if the tables
        contradict the last checkpoint; LedgerBusyError if other writers hold on: then nothing was recorded.
        """
        return self.append_many([event])[0]

    def append_many(self, events: Iterable[Event]) -> list[Receipt]:
        """Record several events, all or none, in their order and under one checkpoint; raises as ``append``.

        10,000 at most: they are one transaction, which keeps other writers waiting.
        """
        if self._writer is None:
            raise LedgerError("the ledger was opened for reading only", remedy="open it with its signing key")
        drafts = [draft(event) for event in events]
        if len(drafts) > MOST_AT_ONCE:
            raise LedgerError(
                f"{len(drafts):,} events are too many for one transaction", remedy=f"append {MOST_AT_ONCE:,} at a time"
            )
        return self._writer.submit(drafts) if drafts else []

    def _check_origin(self, origin: str) -> None:
        vkey = self.vkey
        if vkey is not None and vkey.name != origin:
            raise LedgerError(
                f"the ledger's origin is {vkey.name!r}, not {origin!r}", remedy="leave the origin out, or open that log"
            )

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def vkey(self) -> VerifierKey | None:
        """The verifier key that the ledger names for itself; None before the first entry."""
        with reading(self._engine) as connection:
            stored = connection.execute(select(head.c.vkey)).scalar()
        return parse_head_key(stored) if stored else None

    def count(self) -> int:
        """Return the number of entries, as the head row has it."""
        with reading(self._engine) as connection:
            size = connection.execute(select(head.c.size)).scalar()
        if not isinstance(size, int):
            raise damaged("its head row is missing or malformed")
        return size

    def get(self, index: int) -> Entry:
        """Return one entry; LedgerError if there is none, LedgerDamagedError if it is gone or contradicts its leaf."""
        found = self._intact(select(entries).where(entries.c.idx == index))
        if not found:
            if 0 <= index < self.count():
                raise damaged(f"entry {index} is missing")
            raise LedgerError(f"the ledger has no entry {index}")
        return found[0]

    def find_content(self, content_id: str) -> list[Entry]:
        """Return all entries about one clip, oldest first; LedgerDamagedError if a row contradicts its leaf."""
        return self._intact(select(entries).where(entries.c.content_id == content_id).order_by(entries.c.idx))

    def content_ids(self, limit: int) -> list[ContentId]:
        """The content ids of the latest ``limit`` generated assets, newest first. Unchecked: names, not proofs."""
        query = (
            select(entries.c.content_id)
            .where(entries.c.kind == str(EventKind.GENERATED), entries.c.content_id.is_not(None))
            .order_by(entries.c.idx.desc())
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [ContentId(value) for value in connection.execute(query).scalars()]

    def find_binding(self, alg: str, value: str, *, limit: int, after: int = -1) -> list[Binding]:
        """The soft bindings of this algorithm and value whose entries come after ``after``, oldest first.

        Each was checked against its entry: LedgerDamagedError if the index says something that the entry does not.
        """
        return self._bindings(bindings.BY_VALUE, {"alg": alg, "value": value, "after": after, "limit": limit})

    def find_manifest(self, manifest_id: str) -> Binding | None:
        """The soft binding that leads to a manifest, by the manifest's id; None if there is none. Checked likewise."""
        found = self._bindings(bindings.BY_MANIFEST, {"manifest_id": manifest_id})
        return found[0] if found else None

    def find_alike(self, keys: Sequence[int], most: int) -> list[Entry]:
        """The entries of clips whose video hashes share most of ``keys`` (``likeness_index.keys_of``): candidates.

        ``most`` at most, best first; raises as ``find_content``.
        """
        with reading(self._engine) as connection:
            indices = likeness_index.candidates(connection, keys, most)
        found = {e.index: e for e in self._intact(select(entries).where(entries.c.idx.in_(indices)))} if indices else {}
        return [found[index] for index in indices if index in found]

    def _bindings(self, query: Select[Any], parameters: dict[str, object]) -> list[Binding]:
        if any("\0" in str(value) for value in parameters.values()):
            return []  # PostgreSQL holds no such text, and SQLite none of ours
        with reading(self._engine) as connection:
            found = [Binding(**row._mapping) for row in connection.execute(query, parameters)]
        for binding in found:
            if bindings.binding_of(binding.entry, self.get(binding.entry).event) != binding:
                raise damaged(f"the soft binding of entry {binding.entry} is not what the entry says")
        return found

    def find_asset(self, sha256: str) -> list[Entry]:
        """Return all entries about one file by its SHA-256 (hex), oldest first; raises as ``find_content``."""
        return self._intact(select(entries).where(entries.c.asset_sha256 == sha256).order_by(entries.c.idx))

    def entries(
        self,
        limit: int | None = None,
        offset: int = 0,
        *,
        kind: str | None = None,
        newest_first: bool = False,
    ) -> Iterator[Entry]:
        """Yield entries in order. A row that contradicts its leaf is yielded with ``damage`` set, not hidden."""
        order = entries.c.idx.desc() if newest_first else entries.c.idx
        query = select(entries).order_by(order)
        if kind is not None:
            query = query.where(entries.c.kind == kind)
        left = limit
        page = query.offset(offset)
        while left is None or left > 0:
            with reading(self._engine) as connection:
                rows = connection.execute(page.limit(_PAGE if left is None else min(left, _PAGE))).all()
            yield from map(_entry, rows)
            if len(rows) < _PAGE:
                return
            left = None if left is None else left - len(rows)
            last = rows[-1].idx
            page = query.where(entries.c.idx < last if newest_first else entries.c.idx > last)

    def checkpoint(self, size: int | None = None) -> str | None:
        """Return the newest signed checkpoint, or that of ``size``; None if there is none. Keep copies elsewhere."""
        query = select(checkpoints.c.note).order_by(checkpoints.c.size.desc()).limit(1)
        if size is not None:
            query = query.where(checkpoints.c.size == size)
        with reading(self._engine) as connection:
            note = connection.execute(query).scalar()
        return None if note is None else str(note)

    # -- proving ------------------------------------------------------------------------------------------------------

    def prove(self, index: int) -> InclusionProof:
        """Return the proof that entry ``index`` lies under the newest checkpoint.

        The proof is checked before it is returned: LedgerDamagedError if the tables contradict the checkpoint.
        """
        with reading(self._engine, snapshot=True) as connection:
            note, signed = _newest(connection)
            if not 0 <= index < signed.size:
                raise LedgerError(f"the ledger has no entry {index}")
            node = TreeReader(connection)
            leaf = node(0, index)
            path = merkle.inclusion_path(index, signed.size, node)
        if not merkle.verify_inclusion(index, signed.size, leaf, path, signed.root):
            raise damaged(f"entry {index} or its neighbours do not fit the last checkpoint")
        return InclusionProof(index, signed.size, leaf.hex(), tuple(p.hex() for p in path), note)

    def prove_consistency(self, old_size: int) -> tuple[bytes, ...]:
        """Return the RFC 9162 proof that the ledger of ``old_size`` entries is a prefix of the newest checkpoint's."""
        with reading(self._engine, snapshot=True) as connection:
            _, signed = _newest(connection)
            if not 0 <= old_size <= signed.size:
                raise LedgerError(f"the ledger has {signed.size} entries, not {old_size}")
            return tuple(merkle.consistency_path(old_size, signed.size, TreeReader(connection)))

    def publish(
        self,
        place: Place,
        key: VerifierKey,
        progress: Callable[[int, int], None] | None = None,
        *,
        note: str | None = None,
    ) -> Published | None:
        """Bring the files at ``place`` (c2sp.org/tlog-tiles) up to the newest checkpoint; None if there is none yet.

        ``note`` is a checkpoint to publish in its place: one of this ledger with cosignatures, say. Raises LedgerError
        if what is there is not an earlier state of this ledger under ``key``, or cannot be read or written;
        LedgerDamagedError if the tables contradict the checkpoint. Nothing that was there is changed.
        """
        note = note or self.checkpoint()
        if note is None:
            return None
        with reading(self._engine, snapshot=True) as connection:
            return tiles.publish(connection, note, open_checkpoint(note, key), place, key, progress)

    def verify(
        self,
        public_key: Ed25519PublicKey | None = None,
        progress: Callable[[int, int], None] | None = None,
        *,
        outside: Sequence[str] = (),
    ) -> LedgerReport:
        """Recompute everything from the leaves and report every contradiction, naming entry and column.

        ``public_key`` is the key that must have signed every checkpoint; without it the key given to ``open`` counts,
        and without either the one that the ledger names for itself, which the report's ``key_trusted`` tells.
        ``outside`` are signed checkpoints that were kept elsewhere: the ledger must still contain what they cover.
        ``progress`` is called with (entries done, entries in all).
        """
        if public_key is None and self._key is not None:
            public_key = self._key.public_key()
        with reading(self._engine, snapshot=True) as connection:
            return audit(connection, public_key, self._origin, outside, progress)

    def _intact(self, query: Select[tuple[object, ...]]) -> list[Entry]:
        with reading(self._engine) as connection:
            found = [_entry(row) for row in connection.execute(query)]
        for entry in found:
            if entry.damage:
                raise damaged(f"entry {entry.index}: {entry.damage}")
        return found


def _newest(connection: Connection) -> tuple[str, Checkpoint]:
    note = connection.execute(select(checkpoints.c.note).order_by(checkpoints.c.size.desc()).limit(1)).scalar()
    if note is None:
        raise LedgerError("the ledger is empty")
    try:
        return str(note), Checkpoint.parse(str(note).rpartition("\n\n")[0] + "\n")
    except LedgerError as exc:
        raise damaged(f"its newest checkpoint: {exc}") from exc


def _entry(row: Row[tuple[object, ...]]) -> Entry:
    """Return the row's entry: what the leaf says, or where the leaf is unreadable what the columns say."""
    faults = ", ".join(column_faults(row))
    try:
        fields: dict[str, Json] = decode_leaf(row.leaf)
    except LedgerError:
        fields = {**{name: getattr(row, name) for name in COLUMNS}, "body": {}}
    event = event_of(fields)
    return Entry(
        int(row.idx), str(fields["time"]), event, str(row.leaf), str(row.leaf_hash), faults and f"wrong {faults}"
    )
