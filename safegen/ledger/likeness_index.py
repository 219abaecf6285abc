"""Finding entries by what their clips looked like: the ``hash_bands`` index over the video hashes in entries.

Multi-index hashing (Norouzi, Punjani, Fleet 2012): a hash of 256 bits is cut into ten bands of 24, of which two that
are alike share some. As with all indexes here, a row only says where to look; what counts is the hash in the entry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, TextClause, text

from safegen.errors import LedgerError
from safegen.ledger.entry import Event, EventKind

BANDS: Final = 10
WIDTH: Final = 24
INDEXED: Final = 4
"""Hashes of one clip that are indexed, spread over it: at most INDEXED * BANDS rows."""

PER_KEY: Final = 64
"""Entries looked at for one key, newest first: what half the world has in common finds nothing."""

POSITIONS: Final = tuple(tuple(range(band, BANDS * WIDTH, BANDS)) for band in range(BANDS))
"""The bits of each band, by their places in the hash: far apart, for neighbours flip together."""

_HEX_DIGITS: Final = 64
_QUERIES: Final[dict[str, TextClause]] = {
    "sqlite": text(
        "SELECT (SELECT group_concat(entry) FROM"
        " (SELECT entry FROM hash_bands WHERE key = wanted.value ORDER BY entry DESC LIMIT :most))"
        " FROM json_each(:keys) AS wanted"
    ),
    "postgresql": text(
        "SELECT (SELECT string_agg(CAST(entry AS text), ',') FROM"
        " (SELECT entry FROM hash_bands WHERE key = wanted.key ORDER BY entry DESC LIMIT :most) AS found)"
        " FROM unnest(CAST(:keys AS integer[])) AS wanted(key)"
    ),
}


def keys_of(digest: bytes) -> list[int]:
    """The key of each band of a hash of 32 bytes."""
    digits = f"{int.from_bytes(digest):0256b}"
    return [band << WIDTH | int("".join(digits[p] for p in places), 2) for band, places in enumerate(POSITIONS)]


def rows_of(index: int, event: Event) -> list[tuple[int, int]]:
    """The rows for an entry: of a generated clip, if its video hash is recorded."""
    mark = event.body.get("mark")
    hashes = mark.get("video_hash") if isinstance(mark, Mapping) else None
    if event.kind != EventKind.GENERATED or event.content_id is None or not isinstance(hashes, Sequence):
        return []
    chosen = {round(n * (len(hashes) - 1) / max(1, INDEXED - 1)) for n in range(INDEXED)} if hashes else set()
    digests = [_digest(hashes[n]) for n in sorted(chosen)]
    keys = {key for digest in digests if digest is not None for key in keys_of(digest)}
    return [(key, index) for key in sorted(keys)]


def candidates(connection: Connection, keys: Iterable[int], most: int) -> list[int]:
    """The entries that share the most of these keys, the first ones sharing most; ``most`` at most."""
    wanted = sorted(set(keys))
    query = _QUERIES.get(connection.dialect.name)
    if query is None:
        raise LedgerError("clips are found by their looks in SQLite and PostgreSQL only")
    given: Any = wanted if connection.dialect.name == "postgresql" else str(wanted)
    votes: Counter[int] = Counter()
    for (found,) in connection.execute(query, {"keys": given, "most": PER_KEY}):
        if found:
            votes.update(map(int, found.split(",")))
    return [entry for entry, _ in votes.most_common(most)]


def _digest(value: object) -> bytes | None:
    if not isinstance(value, str) or len(value) != _HEX_DIGITS:
        return None
    try:
        return bytes.fromhex(value)
    except ValueError:
        return None
