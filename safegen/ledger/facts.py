"""What auditors look entries up by: the ``entry_facts`` index over what leaves say, and the counts of each day.

Entries are the record. Both tables follow from the leaves: every append fills them, ``FactsCheck``
derives them again when the ledger is verified, and a row that an entry contradicts, or that is missing, is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from sqlalchemy import Column, Connection, Index, PrimaryKeyConstraint, String, Table, bindparam, select, text

from safegen.ledger.entry import Event, EventKind
from safegen.ledger.models import Big, entries, metadata
from safegen.ledger.statements import Statement, pages
from safegen.types import Json

MOST_CHARACTERS: Final = 512
"""Longer values are cut: a row of an index must fit a page of every database."""

ORIGINS: Final = ("recovered_entry", "previous_entry", "resigned_entry")
"""Where a body names the entry that its own came from."""

_DAY: Final = ("kind", "model", "policy_sha256", "action")
_KEY: Final = ("name", "value", "entry")
_WINDOW: Final = 200_000
_MOST_NAMED: Final = 10_000

Fact = tuple[str, str]

_GENERATED: Final = str(EventKind.GENERATED)
_EMPTY: Final[Mapping[str, Json]] = {}

_SELDOM: Final = frozenset({"consent_id", "consents", "inputs", *ORIGINS})

entry_facts = Table(
    "entry_facts",
    metadata,
    Column("entry", Big, nullable=False),
    Column("name", String(64), nullable=False),
    Column("value", String(MOST_CHARACTERS), nullable=False),
    PrimaryKeyConstraint(*_KEY),
    sqlite_with_rowid=False,
)
"""What an entry says, by name and value: ``facts_of`` lists the names.

Only origins are also looked up by entry: the migration adds partial indexes for those, as only some databases know.
"""

daily_counts = Table(
    "daily_counts",
    metadata,
    Column("day", String(10), nullable=False),
    *(Column(name, String(entries.c[name].type.length), nullable=False) for name in _DAY),  # type: ignore[attr-defined]
    Column("entries", Big, nullable=False),
    PrimaryKeyConstraint("day", *_DAY),
    sqlite_with_rowid=False,
)
"""How many entries of each sort a day (UTC) brought; "" stands for what does not apply."""

Index("ix_entries_time", entries.c.time, entries.c.idx)
Index("ix_entries_kind", entries.c.kind, entries.c.idx)
Index("ix_entries_model", entries.c.model, entries.c.idx)
Index("ix_entries_policy", entries.c.policy_sha256, entries.c.idx)
Index("ix_entries_decision", entries.c.policy_sha256, entries.c.action, entries.c.idx)

COUNT: Final = text(
    "INSERT INTO daily_counts (day, kind, model, policy_sha256, action, entries)"
    " VALUES (:day, :kind, :model, :policy_sha256, :action, :entries)"
    " ON CONFLICT (day, kind, model, policy_sha256, action)"
    " DO UPDATE SET entries = daily_counts.entries + excluded.entries"
)


def facts_of(event: Event) -> frozenset[Fact]:
    """Return what an event says that entries are looked up by, as (name, value).

    ``certificate`` (SHA-256 of the leaf) and ``signer`` (URI) of its signature, ``policy`` (id) and ``policy.ACTION``,
    ``consent`` (record ids), ``input`` (SHA-256 of files that it was made from), ``parent`` (the entry it came from),
    and ``unmarked``: a file was released whose mark was not read back.
    """
    return facts_from(event.kind, event.content_id, event.asset_sha256, event.action, event.body)


def facts_from(
    kind: str, content_id: str | None, asset_sha256: str | None, action: str | None, body: Mapping[str, Json]
) -> frozenset[Fact]:
    """Return ``facts_of`` an event with these fields."""
    found: list[tuple[str, Any]] = []
    if signature := _object(body.get("signature")):
        found += [("certificate", signature.get("leaf_sha256")), ("signer", signature.get("signer"))]
    if decision := _object(body.get("decision")):
        policy = decision.get("policy_id")
        found += [("policy", policy), (f"policy.{action}", policy)] if action else [("policy", policy)]
    if kind == _GENERATED and asset_sha256 is not None:
        read = _object(body.get("mark")).get("content_id")
        if read != content_id or not isinstance(read, str):
            found.append(("unmarked", _GENERATED))
    if not _SELDOM.isdisjoint(body):
        found += _seldom(body)
    return frozenset([(name, value[:MOST_CHARACTERS]) for name, value in found if value and _is_text(name, value)])


def _is_text(name: str, value: object) -> bool:
    """Whether these are texts that every database can hold."""
    return isinstance(value, str) and "\0" not in value and "\0" not in name


def _seldom(body: Mapping[str, Json]) -> Iterator[tuple[str, object]]:
    """Yield what few entries say: whose consent they rest on, what they were made from."""
    yield "consent", body.get("consent_id")
    yield from (("consent", _object(one).get("id")) for one in _items(body.get("consents")))
    yield from (("input", _object(one).get("sha256")) for one in _items(body.get("inputs")))
    yield from (("parent", _index(body.get(name))) for name in ORIGINS)


def rows_of(index: int, event: Event) -> list[tuple[int, str, str]]:
    """Return the rows of ``entry_facts`` for an entry."""
    return [(index, name, value) for name, value in facts_of(event)]


def counts_of(days: Iterable[tuple[str, ...]]) -> list[dict[str, object]]:
    """Return what to add to ``daily_counts`` for entries by their ``day_of``."""
    names = ("day", *_DAY)
    return [{**dict(zip(names, day, strict=True)), "entries": n} for day, n in Counter(days).items()]


def day_of(time: str, event: Event) -> tuple[str, ...]:
    """Return the key of the row of ``daily_counts`` that counts an entry."""
    return day_from(time, event.kind, event.model, event.policy_sha256, event.action)


def day_from(time: str, kind: str, model: str | None, policy_sha256: str | None, action: str | None) -> tuple[str, ...]:
    """Return ``day_of`` an entry with these fields."""
    return (time[:10], str(kind), str(model or ""), str(policy_sha256 or ""), str(action or ""))


class Tally:
    """What follows from some entries: how many of each sort a day brought, and a sum over all that they say."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], int] = {}
        self.total = 0  # of hash((entry, name, value)); Python keys its hashes anew in every process

    def add(self, index: int, day: tuple[str, ...], said: frozenset[Fact]) -> None:
        """Take in an entry, by its ``day_of`` and ``facts_of``."""
        self.counts[day] = self.counts.get(day, 0) + 1
        for name, value in said:
            self.total += hash((index, name, value))

    def take(self, other: Tally) -> None:
        """Take in all that another tally has."""
        self.total += other.total
        for day, count in other.counts.items():
            self.counts[day] = self.counts.get(day, 0) + count


class FactsCheck:
    """Compares both tables with leaves, which are told once each. ``add(index, column, summary)`` reports.

    Mostly all is well, and then it is enough that both sides add up to the same, whatever their order. Otherwise
    the caller tells the leaves again, in ascending order, and each is compared with its rows.
    """

    def __init__(self, connection: Connection, add: Callable[[int | None, str, str], None]) -> None:
        self._connection = connection
        self._add = add
        self.sound = Tally()
        """What the entries say that are as they were signed."""
        self._stored: dict[int, set[Fact]] = {}
        self._until = -1  # facts of the entries before this one have been read
        low, high = entry_facts.c.entry >= bindparam("low"), entry_facts.c.entry < bindparam("high")
        self._window = Statement(select(entry_facts).where(low, high), connection.dialect)

    def adds_up(self) -> bool:
        """Whether the index holds what the entries say, after the last one."""
        try:
            return self.sound.total == sum(sum(map(hash, rows)) for rows in pages(self._connection, entry_facts, *_KEY))
        except UnicodeEncodeError:  # a text that is none: nothing of ours
            return False

    def closely(self, index: int, wanted: frozenset[Fact]) -> None:
        """Compare what is stored of an entry with its ``facts_of``."""
        stored = self._facts(index)
        if wanted == stored:
            return
        for name, value in sorted(wanted - stored):
            self._add(index, "entry_facts.value", f"the index lacks what the leaf says: {name} {value}")
        for name, value in sorted(stored - wanted, key=repr):
            self._add(index, "entry_facts.value", f"the index says what the leaf does not: {name} {value}")

    def rest(self, size: int) -> None:
        """Compare what lies outside the entries, and the counts; of a ledger whose entries are all there."""
        beyond = select(entry_facts.c.entry).where((entry_facts.c.entry < 0) | (entry_facts.c.entry >= size))
        for (index,) in self._connection.execute(beyond.distinct().order_by(entry_facts.c.entry).limit(_MOST_NAMED)):
            self._add(index, "entry_facts.entry", "the index tells of an entry that does not exist")
        stored = {tuple(row[:-1]): row[-1] for row in self._connection.execute(select(daily_counts))}
        counts = self.sound.counts
        for key in sorted(stored.keys() | counts.keys(), key=repr):
            if stored.get(key, 0) != counts.get(key, 0):
                what = " ".join(str(part) for part in key if part)
                self._add(None, "daily_counts", f"{what}: {stored.get(key, 0)!r} counted, {counts.get(key, 0)} there")

    def _facts(self, index: int) -> set[Fact]:
        if index >= self._until:
            self._until = index + _WINDOW  # the table has no index by entry: each window reads it all
            self._stored = {}
            for entry, name, value in self._window.fetch_all(self._connection, {"low": index, "high": self._until}):
                self._stored.setdefault(entry, set()).add((name, value))
        return self._stored.get(index, set())


def _index(value: object) -> str | None:
    """Return an index's digits; canonical JSON writes a whole float as it writes the integer."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return str(value) if type(value) is int and value.bit_length() <= 53 else None  # else read as a float


def _object(value: Any) -> Mapping[str, Json]:
    return value if type(value) is dict or (value is not None and isinstance(value, Mapping)) else _EMPTY


def _items(value: Any) -> Iterator[Any]:
    return iter(value if isinstance(value, list | tuple) else ())
