"""Whether the personal fields that leaves commit to are there, or an entry says that they were erased (fsck's part).

Deleting the rows of a field behind safegen's back would otherwise look like a field that nobody ever kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, select

from safegen.ledger.personal_records import PERSONAL
from safegen.ledger.subject_encryption import erasures, personal_fields

_BATCH: Final = 500

Add = Callable[[int | None, str, str], None]


class PersonalCheck:
    """Takes in what leaves say, in order; ``finish`` names what does not agree with the tables."""

    def __init__(self, connection: Connection, add: Add) -> None:
        self._connection = connection
        self._add = add
        self._waiting: dict[str, tuple[int, list[str]]] = {}
        self._recorded: set[str] = set()  # erasures that leaves tell of
        self._claimed: dict[str, int] = {}  # erasures that fields were given up to, and an entry that has such a field

    def take(self, index: int, kind: object, body: Mapping[str, Any]) -> None:
        """Take in one entry whose leaf is as it was signed."""
        if kind in ("erased", "expired"):
            self._recorded.add(str(body.get("erasure")))
        personal = body.get(PERSONAL)
        if isinstance(personal, Mapping) and isinstance(fields := personal.get("fields"), Mapping):
            self._waiting[str(personal.get("record"))] = (index, list(fields))
            if len(self._waiting) >= _BATCH:
                self._look()

    def finish(self) -> None:
        """Judge what is left, and the erasures that fields name."""
        self._look()
        query = select(erasures.c.id).where(erasures.c.state != "recorded")
        under_way = {str(row.id) for row in self._connection.execute(query)}
        for erasure, index in sorted(self._claimed.items(), key=lambda item: item[1]):
            if erasure not in self._recorded and erasure not in under_way:
                self._add(index, "personal", f"a personal field names the erasure {erasure}, which no entry records")

    def _look(self) -> None:
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        table = personal_fields.c
        query = select(table.record, table.field, table.sealed.is_(None), table.erasure).where(
            table.record.in_(waiting)
        )
        found = {(record, field): (empty, erasure) for record, field, empty, erasure in self._connection.execute(query)}
        for record, (index, fields) in waiting.items():
            for field in fields:
                empty, erasure = found.get((record, field), (True, None))
                if not empty:
                    continue
                if erasure is None:
                    self._add(index, "personal", f"its personal field {field!r} is gone, and no erasure says so")
                else:
                    self._claimed.setdefault(str(erasure), index)
