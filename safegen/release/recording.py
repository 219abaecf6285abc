"""A file takes its name only once its entry stands in the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from safegen.errors import SafegenError
from safegen.files import uninterrupted
from safegen.types import Json

if TYPE_CHECKING:
    from safegen.ledger import Event, Ledger, Receipt


def record_and_place(ledger: Ledger, event: Event, place: Callable[[], None]) -> Receipt:
    """Append ``event``, then ``place`` the file that it is about; no signal comes between the two.

    Where placing fails the entry stands, as all entries do; a second one says that its file never came to be. Raises
    what either raises.
    """
    from safegen.ledger import Event, EventKind

    with uninterrupted():
        receipt = ledger.append(event)
        try:
            place()
        except SafegenError:
            body: dict[str, Json] = {
                "error": "the file could not be moved into place",
                f"{event.kind}_entry": receipt.index,
            }
            ledger.append(Event(kind=EventKind.WITHDRAWN, content_id=event.content_id, body=body))
            raise
    return receipt
