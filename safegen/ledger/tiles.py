"""The ledger as static files that any C2SP log client reads (c2sp.org/tlog-tiles): checkpoint, hash tiles, entries.

A tile of level L holds up to 256 hashes of complete subtrees of 256^L leaves; a bundle holds the leaves themselves.
Full tiles never change, so a copy is brought up to date by writing what is new, and the checkpoint last: whoever
fetches it finds everything that it covers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection, select

from safegen.errors import LedgerError
from safegen.ledger import merkle
from safegen.ledger.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from safegen.ledger.entry import hash_leaf
from safegen.ledger.models import entries
from safegen.ledger.proof import TILE_LEVELS, TILE_WIDTH, TreeReader, damaged


class Place(Protocol):
    """Where files are published: a folder, a web server, an object store. Paths are relative, with slashes."""

    def read(self, path: str) -> bytes | None:
        """Return what is there; None if nothing is. LedgerError if that cannot be told."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Put ``data`` there, whole or not at all. LedgerError if that fails."""
        ...


@dataclass(frozen=True, slots=True)
class Published:
    """What an export did: the size of the tree that the place now holds, and how many files were written."""

    size: int
    files: int
    checkpoint: str


def tile_path(level: int, position: int, width: int = TILE_WIDTH) -> str:
    """Return the path of a hash tile; ``width`` under 256 names a partial one."""
    return f"tile/{level}/{_number(position)}{_partial(width)}"


def bundle_path(position: int, width: int = TILE_WIDTH) -> str:
    """Return the path of an entry bundle."""
    return f"tile/entries/{_number(position)}{_partial(width)}"


def _number(position: int) -> str:
    """Write 1234067 as x001/x234/067: no folder holds more than a thousand names."""
    digits = f"{position:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


def _partial(width: int) -> str:
    return "" if width == TILE_WIDTH else f".p/{width}"


def bundle(leaves: list[str]) -> bytes:
    """Return leaves as an entry bundle: each after its length, 16 bits, most significant byte first."""
    parts = [leaf.encode("utf-8", "surrogateescape") for leaf in leaves]
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def publish(
    connection: Connection,
    note: str,
    signed: Checkpoint,
    place: Place,
    key: VerifierKey,
    progress: Callable[[int, int], None] | None = None,
) -> Published:
    """Bring ``place`` up to the checkpoint ``note``, which ``signed`` is; every tile is checked before it is written.

    The place's own checkpoint must be an earlier one of this log, signed by ``key``: LedgerError if it is not, or if
    the ledger does not continue it (a fork), and nothing is written then.
    """
    kept = place.read("checkpoint")
    known = 0 if kept is None else _known(connection, signed, kept, key)
    files = list(_wanted(known, signed.size))
    reader = TreeReader(connection)
    if merkle.tree_root(signed.size, reader) != signed.root:
        raise damaged("its tree does not have the root that the last checkpoint states")
    leaves: list[str] = []
    for done, (level, position, width) in enumerate(files):
        if level is None:
            leaves = _leaves(connection, position, width)
            place.write(bundle_path(position, width), bundle(leaves))
        else:
            row = reader.row(level * TILE_LEVELS, position * TILE_WIDTH, width)
            if level == 0 and row != [hash_leaf(leaf) for leaf in leaves]:
                raise damaged(f"the entries from {position * TILE_WIDTH} do not have the hashes that the tree holds")
            place.write(tile_path(level, position, width), b"".join(row))
        if progress is not None:
            progress(done + 1, len(files))
    renewed = kept != note.encode()  # perhaps by a cosignature alone
    if renewed:
        place.write("checkpoint", note.encode())
    return Published(signed.size, len(files) + renewed, note)


def _leaves(connection: Connection, position: int, width: int) -> list[str]:
    first = position * TILE_WIDTH
    where = (entries.c.idx >= first, entries.c.idx < first + width)
    rows = connection.execute(select(entries.c.leaf).where(*where).order_by(entries.c.idx)).scalars()
    found = [str(leaf) for leaf in rows]
    if len(found) != width:
        raise damaged(f"entries are missing from {first}")
    return found


def _known(connection: Connection, signed: Checkpoint, kept: bytes, key: VerifierKey) -> int:
    """Return how much of the ledger the place has: the size of its checkpoint, once that proves to be ours."""
    try:
        before = open_checkpoint(kept.decode(), key)
    except (LedgerError, UnicodeDecodeError) as error:
        raise LedgerError(
            f"the checkpoint published there is not this ledger's: {error}", remedy="Publish to a place of its own."
        ) from error
    if before.size > signed.size:
        raise LedgerError(
            f"the place holds {before.size} entries and the ledger {signed.size}: the ledger was rolled back",
            remedy="Keep both as they are and find out what happened; the place holds the longer record.",
        )
    if merkle.tree_root(before.size, TreeReader(connection)) != before.root:
        raise LedgerError(
            f"the ledger does not continue the {before.size} entries published there: one of the two was rewritten",
            remedy="Keep both as they are and find out what happened.",
        )
    return before.size


def _wanted(known: int, size: int) -> Iterator[tuple[int | None, int, int]]:
    """Yield (level, position, width) of the files that a tree of ``size`` has and one of ``known`` has not.

    Level None is an entry bundle, which comes before its hashes; hashes come from the leaves upwards.
    """
    for level in range(8):
        old, new = known >> level * TILE_LEVELS, size >> level * TILE_LEVELS
        for position in range(old // TILE_WIDTH, -(-new // TILE_WIDTH)):
            width = min(TILE_WIDTH, new - position * TILE_WIDTH)
            if position * TILE_WIDTH + width > old:
                if level == 0:
                    yield None, position, width
                yield level, position, width
