"""The table of idempotency keys against the entries that it follows from."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, select

from safegen.ledger import models
from safegen.ledger.rows import closer_look, entry_rows, index_or_none, quick_look
from safegen.ledger.statements import Statement


class SubmissionsCheck:
    """Compares the table with entries, which are told once each. ``add(index, column, summary)`` reports.

    Each key must lead to the first entry that has it. In most ledgers no key comes twice: then it is enough that both
    sides add up to the same, whatever their order.
    """

    def __init__(self, connection: Connection, add: Callable[[int | None, str, str], None]) -> None:
        self._connection = connection
        self._add = add
        self._sum = 0  # of hash((key, entry)); Python keys its hashes anew in every process

    def entry(self, index: int, key: str) -> None:
        """Take in an entry that has a key."""
        self._sum += hash((key, index))

    def rest(self) -> None:
        """Compare, after the last entry; of a ledger whose entries are all there."""
        rows = Statement(select(models.submissions), self._connection.dialect).fetch_all(self._connection)
        if self._sum == sum(hash((key, entry)) for key, entry in rows):
            return
        stored: dict[object, object] = dict(rows)
        seen: set[str] = set()
        for row in entry_rows(self._connection):
            said = quick_look(row) or closer_look(row)
            if said is None or said.key is None or said.key in seen:
                continue
            seen.add(said.key)
            if stored.pop(said.key, None) != row.idx:
                self._add(row.idx, "submissions.key", "the key of the entry is missing, or leads elsewhere")
        for key in sorted(map(str, stored)):
            self._add(index_or_none(stored[key]), "submissions.key", f"no entry has the key {key}")
