"""Questions that auditors ask, each a page of one view (``docs/audit.md``). ``AuditLedger`` answers them.

Every page is found by an index, whatever the size of the ledger; tests ask the databases' planners. What a row says is
compared with its entry's leaf, for rows come from columns and indexes that follow from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, Row, TextClause, bindparam, select, text

from safegen.errors import LedgerError
from safegen.ledger import merkle
from safegen.ledger.checkpoint import VerifierKey, open_checkpoint
from safegen.ledger.database import reading
from safegen.ledger.entry import COLUMNS, Event, decode_leaf
from safegen.ledger.facts import MOST_CHARACTERS, facts_of
from safegen.ledger.models import entries
from safegen.ledger.proof import InclusionProof, TreeReader, damaged
from safegen.ledger.rows import column_faults
from safegen.ledger.statements import Statement
from safegen.ledger.store import Ledger
from safegen.ledger.views import COLUMNS as VIEW_COLUMNS
from safegen.types import Json

PAGE: Final = 500
DAILY_COLUMNS: Final = ("day", "kind", "model", "policy_sha256", "decision", "entries")
_LOOKED_BY: Final = {"audit_facts": ("name", "value"), "audit_consents": ("consent", "consent_state")}


@dataclass(frozen=True, slots=True)
class Query:
    """One question: a view, what its columns must equal, a range of times, and which page of the answer.

    ``begin`` (inclusive) and ``end`` (exclusive) are times as entries have them, or "". ``after`` is the last entry of
    the page before; -1 for the first. ``among`` are the entries that it is about, where they are known otherwise.
    """

    view: str = "audit_entries"
    equal: Mapping[str, str] = field(default_factory=dict)
    begin: str = ""
    end: str = ""
    after: int = -1
    limit: int = PAGE
    among: tuple[int, ...] | None = None

    @property
    def by_time(self) -> bool:
        """Whether rows come in the order of their times, which follows that of the entries but for clocks set back."""
        return bool(self.begin or self.end) and not self.equal and self.among is None and self.view == "audit_entries"

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the answer's columns."""
        return (*_LOOKED_BY.get(self.view, ()), *VIEW_COLUMNS, "damage")

    def statement(self) -> tuple[TextClause, dict[str, object]]:
        """Return the SELECT and its parameters, the same for SQLite and PostgreSQL."""
        where = [f"{name} = :{name}" for name in self.equal]
        given: dict[str, object] = {name: value[:MOST_CHARACTERS] for name, value in self.equal.items()}
        if self.among is not None:
            where.append(f"entry IN ({', '.join(str(int(one)) for one in self.among) or 'NULL'})")
        if self.begin:
            where.append("time >= :begin")
        if self.end:
            where.append("time < :end")
        if self.by_time and self.after >= 0:
            where.append("(time, entry) > ((SELECT a.time FROM entries a WHERE a.idx = :after), :after)")
        elif self.after >= 0:
            where.append("entry > :after")
        given |= {k: v for k, v in {"begin": self.begin, "end": self.end}.items() if v}
        given |= {"after": self.after} if self.after >= 0 else {}
        condition = f" WHERE {' AND '.join(where)}" if where else ""
        order = "time, entry" if self.by_time else "entry"
        query = text(f"SELECT * FROM {self.view}{condition} ORDER BY {order} LIMIT :page")  # noqa: S608 - our own names
        return query, given | {"page": self.limit}


def by_fact(name: str, value: str) -> Query:
    """Entries by a fact (``safegen.ledger.facts``): ``certificate``, ``signer``, ``policy``, ``policy.block``, ..."""
    return Query("audit_facts", {"name": name, "value": value})


@dataclass(frozen=True, slots=True)
class Link:
    """One step of a derivation: ``entry`` came from ``parent``, or from a file that the ledger does not know."""

    entry: int
    relation: str  # "input", or what the later entry is: "recovered", "resigned", "withdrawn"
    parent: int | None
    sha256: str | None  # of the file that it came from


@dataclass(frozen=True, slots=True)
class Chain:
    """Entries that are derived from one another, by index, and the links between them. ``whole``: no more exist."""

    rows: Mapping[int, Mapping[str, Json]]
    links: tuple[Link, ...]
    whole: bool


class AuditLedger(Ledger):
    """A ledger as auditors read it: pages of views, chains of derivations, proofs under one checkpoint."""

    def page(self, query: Query) -> list[dict[str, Json]]:
        """Return one page, oldest first; a row whose entry contradicts it says so in ``damage``."""
        statement, given = query.statement()
        if any(isinstance(value, str) and "\0" in value for value in given.values()):
            return []  # PostgreSQL holds no such text, and SQLite none of ours
        with reading(self._engine) as connection:
            rows = [dict(row._mapping) for row in connection.execute(statement, given)]
            return _checked(connection, rows) if rows and "entry" in rows[0] else rows

    def rows(self, query: Query, limit: int | None = None) -> Iterator[dict[str, Json]]:
        """Yield the whole answer, or ``limit`` rows of it, page by page."""
        left = limit
        while left is None or left > 0:
            wanted = PAGE if left is None else min(PAGE, left)
            found = self.page(replace(query, limit=wanted))
            yield from found
            if len(found) < wanted:
                return
            left = None if left is None else left - len(found)
            query = replace(query, after=int(str(found[-1]["entry"])))

    def daily(self, begin: str = "", end: str = "") -> list[dict[str, Json]]:
        """Return how many entries of each sort the days from ``begin`` to ``end`` (YYYY-MM-DD, inclusive) brought."""
        with reading(self._engine) as connection:
            found = Statement(_DAILY, self._engine.dialect).fetch_all(
                connection, {"begin": begin, "end": end or "9999-12-31"}
            )
        return [
            {"day": day, "kind": kind, "model": model, "policy_sha256": policy, "decision": decision, "entries": n}
            for day, kind, model, policy, decision, n in found
        ]

    def chain(self, start: Sequence[int], most: int = 1000) -> Chain:
        """Return all that the entries ``start`` came from and all that came from them; ``most`` entries at most."""
        with reading(self._engine, snapshot=True) as connection:
            walk = _Walk(connection, most)
            walk.run(start)
            known = sorted(walk.seen)
            rows: list[dict[str, Json]] = []
            for first in range(0, len(known), PAGE):
                found = connection.execute(_ROWS, {"entries": known[first : first + PAGE]})
                rows += _checked(connection, [dict(row._mapping) for row in found])
        links = tuple(sorted(walk.links, key=lambda one: (one.entry, one.relation, one.parent or -1, one.sha256 or "")))
        return Chain({int(str(row["entry"])): row for row in rows}, links, walk.whole)

    def prove_all(self, indices: Sequence[int], key: VerifierKey) -> tuple[str, Iterator[InclusionProof]]:
        """Return the newest checkpoint, and proofs under it; each is checked before it is yielded.

        LedgerError if the ledger is empty or the checkpoint not signed by ``key``; LedgerDamagedError if the tables
        contradict it. Entries that are appended meanwhile do not matter.
        """
        note = self.checkpoint()
        if note is None:
            raise LedgerError("the ledger is empty", remedy="generate something first")
        signed = open_checkpoint(note, key)
        return note, self._proofs(indices, note, signed.size, signed.root)

    def _proofs(self, indices: Sequence[int], note: str, size: int, root: bytes) -> Iterator[InclusionProof]:
        with reading(self._engine, snapshot=True) as connection:
            node = lru_cache(maxsize=1 << 17)(TreeReader(connection))  # neighbours share most of their paths
            for index in indices:
                leaf, path = node(0, index), merkle.inclusion_path(index, size, node)
                if not merkle.verify_inclusion(index, size, leaf, path, root):
                    raise damaged(f"entry {index} or its neighbours do not fit the last checkpoint")
                yield InclusionProof(index, size, leaf.hex(), tuple(step.hex() for step in path), note)

    def consistency_with(self, old: int, new: int) -> tuple[bytes, ...]:
        """Return the RFC 9162 proof that the first ``old`` entries are a prefix of the first ``new``."""
        if not 0 <= old <= new <= self.count():
            raise LedgerError(f"the ledger has {new} entries, not {old}", remedy="give a checkpoint of this ledger")
        with reading(self._engine, snapshot=True) as connection:
            return tuple(merkle.consistency_path(old, new, TreeReader(connection)))


_DAILY: Final = text(
    f"SELECT {', '.join(DAILY_COLUMNS)} FROM audit_daily WHERE day >= :begin AND day <= :end"  # noqa: S608 - our own
    " ORDER BY day, kind, model, policy_sha256, decision"
)
_ROWS: Final = text("SELECT * FROM audit_entries WHERE entry IN :entries").bindparams(
    bindparam("entries", expanding=True)
)
_UP: Final = text(
    "SELECT entry, kind, relation, parent_entry, parent_sha256 FROM audit_derivations WHERE entry = :entry"
)
_DOWN: Final = text(
    "SELECT entry, kind, relation, parent_entry, parent_sha256 FROM audit_derivations"
    " WHERE relation = :relation AND parent = :parent ORDER BY entry LIMIT :most"
)
_LOOSE: Final = text(  # a clip's later entries that name none before them
    "SELECT entry, kind FROM audit_entries WHERE content_id = :content_id AND entry > :entry"
    " AND kind IN ('recovered', 'resigned', 'withdrawn')"
    " AND NOT EXISTS (SELECT 1 FROM entry_facts f WHERE f.entry = audit_entries.entry AND f.name = 'parent')"
    " ORDER BY entry LIMIT :most"
)
_SELF: Final = text("SELECT kind, content_id, asset_sha256 FROM entries WHERE idx = :entry")


class _Walk:
    """A walk over derivations in both directions, each entry once."""

    def __init__(self, connection: Connection, most: int) -> None:
        self._connection = connection
        self._most = most
        self.seen: set[int] = set()
        self.links: set[Link] = set()
        self.whole = True

    def run(self, start: Sequence[int]) -> None:
        waiting = list(start)
        while waiting:
            entry = waiting.pop()
            if entry in self.seen:
                continue
            if len(self.seen) >= self._most:
                self.whole = False
                return
            this = self._connection.execute(_SELF, {"entry": entry}).one_or_none()
            if this is None:
                continue
            self.seen.add(entry)
            found = [self._link(row) for row in self._connection.execute(_UP, {"entry": entry})]
            found += self._children(entry, this)
            self.links |= set(found)
            waiting += [one for link in found for one in (link.entry, link.parent) if one is not None]

    def _children(self, entry: int, this: Any) -> list[Link]:
        found = []
        for relation, parent in (("parent", str(entry)), ("input", this.asset_sha256)):
            if parent is not None:
                given = {"relation": relation, "parent": parent, "most": self._most + 1}
                found += [self._link(row) for row in self._connection.execute(_DOWN, given)]
        if this.kind == "generated" and this.content_id is not None:
            given = {"content_id": this.content_id, "entry": entry, "most": self._most + 1}
            loose = self._connection.execute(_LOOSE, given)
            found += [Link(row.entry, row.kind, entry, this.asset_sha256) for row in loose]
        return found

    @staticmethod
    def _link(row: Any) -> Link:
        relation = "input" if row.relation == "input" else str(row.kind)
        return Link(row.entry, relation, row.parent_entry, row.parent_sha256)


def _checked(connection: Connection, rows: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """Compare rows with their entries' leaves; say in ``damage`` what does not agree."""
    query = select(entries).where(entries.c.idx.in_([row["entry"] for row in rows]))
    stored = {row.idx: row for row in connection.execute(query)}
    for row in rows:
        entry = stored.get(int(str(row["entry"])))
        faults = ["entry"] if entry is None else _faults(entry, row)
        if faults:
            row["damage"] = f"wrong {', '.join(faults)}"
    return rows


def _faults(entry: Row[Any], row: Mapping[str, Json]) -> list[str]:
    faults = column_faults(entry)
    looked_by = ("consent", row["consent"]) if "consent" in row else (row.get("name"), row.get("value"))
    if faults == ["leaf"] or looked_by[0] is None:
        return faults
    fields = decode_leaf(entry.leaf)
    event = Event(**{name: fields[name] for name in COLUMNS[1:]}, body=fields["body"])  # type: ignore[arg-type]
    return faults if looked_by in facts_of(event) else [*faults, "entry_facts"]
