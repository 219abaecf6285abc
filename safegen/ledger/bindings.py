"""From what a mark says to the manifest of its clip: the ``soft_bindings`` index over the entries.

Entries are the record; a row here only says where to look. ``Ledger`` compares every row with its entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import bindparam, select

from safegen.ledger.entry import Event, EventKind
from safegen.ledger.models import soft_bindings
from safegen.types import ContentId, soft_binding_alg

MAX_NAME = 100
"""Characters of a scheme's name at most, and MAX_ID of a manifest's: longer ones are nothing that safegen writes."""
MAX_ID = 255

_ALL = select(soft_bindings.c.entry, soft_bindings.c.alg, soft_bindings.c.value, soft_bindings.c.manifest_id)
BY_VALUE = (
    _ALL.where(
        soft_bindings.c.value == bindparam("value"),
        soft_bindings.c.alg == bindparam("alg"),
        soft_bindings.c.entry > bindparam("after"),
    )
    .order_by(soft_bindings.c.entry)
    .limit(bindparam("limit"))
)
BY_MANIFEST = (
    _ALL.where(soft_bindings.c.manifest_id == bindparam("manifest_id")).order_by(soft_bindings.c.entry).limit(1)
)


@dataclass(frozen=True, slots=True)
class Binding:
    """A soft binding and the manifest (a URN) that it leads to, by the index of the entry that says so.

    ``value`` is the content id that the mark carries, as hex digits.
    """

    entry: int
    alg: str
    value: str
    manifest_id: str

    @property
    def content_id(self) -> ContentId:
        """The clip that the binding names."""
        return ContentId(self.value)

    def row(self) -> tuple[object, ...]:
        """The row of the table."""
        return (self.entry, self.alg, self.value, self.manifest_id)


def binding_of(index: int, event: Event) -> Binding | None:
    """The soft binding that an entry records: a generated clip's mark; None if it records none."""
    mark, manifest_id = event.body.get("mark"), event.body.get("manifest_id")
    scheme = mark.get("scheme") if isinstance(mark, Mapping) else None
    if event.kind != EventKind.GENERATED or event.content_id is None:
        return None
    if not isinstance(scheme, str) or not 0 < len(scheme) <= MAX_NAME:
        return None
    if not isinstance(manifest_id, str) or not 0 < len(manifest_id) <= MAX_ID:
        return None
    if "\0" in scheme + manifest_id:  # what no database need hold
        return None
    return Binding(index, soft_binding_alg(scheme), str(event.content_id), manifest_id)
