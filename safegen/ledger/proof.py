"""Proofs read from a ledger's tables, and the portable form of an inclusion proof (c2sp.org/tlog-proof)."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import BindParameter, Connection, Dialect, bindparam, select

from safegen.errors import LedgerDamagedError, LedgerError
from safegen.ledger import merkle
from safegen.ledger.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from safegen.ledger.models import entries, nodes
from safegen.ledger.statements import Statement

TILE_LEVELS = 8
"""Stored nodes lie this many levels apart: a tile of 256 rows stands for one row of the next."""

TILE_WIDTH = 1 << TILE_LEVELS
_KEPT_TILES = 256

_HEADER = "c2sp.org/tlog-proof@v1"
_EXTRA = "extra "
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """Proof that an entry lies in the ledger that a checkpoint covers. Hashes are hex, sibling of the leaf first."""

    index: int
    size: int
    leaf_hash: str
    path: tuple[str, ...]
    checkpoint: str

    def to_text(self) -> str:
        """Return the proof as a C2SP tlog-proof, which any verifier of that format checks offline."""
        hashes = "".join(base64.b64encode(bytes.fromhex(h)).decode() + "\n" for h in self.path)
        return f"{_HEADER}\nindex {self.index}\n{hashes}\n{self.checkpoint}"

    @classmethod
    def from_text(cls, text: str, leaf: str | bytes) -> InclusionProof:
        """Read a tlog-proof about ``leaf`` (its canonical JSON); LedgerError if it is malformed. Proves nothing yet.

        The extra data that a proof may carry is authenticated by nothing: it is checked for its form and passed over.
        """
        front, gap, checkpoint = text.partition("\n\n")
        header, *lines = front.split("\n")
        if lines and lines[0].startswith(_EXTRA):
            _decoded(lines.pop(0).removeprefix(_EXTRA))
        index = _INDEX.fullmatch(lines[0]) if lines else None
        if not gap or header != _HEADER or index is None:
            raise LedgerError(f"not an inclusion proof: expected {_HEADER}, an index, hashes and a checkpoint")
        path = tuple(_decoded(line).hex() for line in lines[1:])
        if any(len(step) != 2 * merkle.HASH_BYTES for step in path):
            raise LedgerError("not an inclusion proof: a hash is not 32 bytes")
        size = Checkpoint.parse(checkpoint.rpartition("\n\n")[0] + "\n").size
        return cls(int(index[1]), size, merkle.leaf_hash(_bytes(leaf)).hex(), path, checkpoint)


def verify_inclusion(proof: InclusionProof, leaf: str | bytes, key: Ed25519PublicKey | VerifierKey) -> bool:
    """Whether ``proof`` shows that ``leaf`` (an entry's canonical JSON) lies in the ledger that ``key`` signs.

    With a bare public key any origin is accepted; with a VerifierKey the checkpoint must carry that origin.
    """
    try:
        if isinstance(key, Ed25519PublicKey):
            key = VerifierKey.of(proof.checkpoint.partition("\n")[0], key)
        checkpoint = open_checkpoint(proof.checkpoint, key)
        digest = merkle.leaf_hash(_bytes(leaf))
        path = [bytes.fromhex(h) for h in proof.path]
    except (LedgerError, ValueError):
        return False
    if checkpoint.size != proof.size or digest.hex() != proof.leaf_hash:
        return False
    return merkle.verify_inclusion(proof.index, proof.size, digest, path, checkpoint.root)


@lru_cache(maxsize=8)
def _statements(dialect: Dialect) -> tuple[Statement, Statement]:
    """Return the queries for rows of leaf hashes and of nodes, by place."""
    first: BindParameter[int] = bindparam("first")
    end: BindParameter[int] = bindparam("end")
    leaf, node = entries.c.idx, nodes.c.position
    leaves = select(leaf, entries.c.leaf_hash).where(leaf >= first, leaf < end).order_by(leaf)
    inner = select(node, nodes.c.hash).where(nodes.c.level == bindparam("level"), node >= first, node < end)
    return Statement(leaves, dialect), Statement(inner.order_by(node), dialect)


class TreeReader:
    """A ``merkle.NodeReader`` over the tables; LedgerError where a row is missing.

    Rows are read by whole tiles: a path asks for neighbours at each of a tile's levels, and statements cost more than
    rows.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tiles: dict[tuple[int, int], list[bytes]] = {}
        self._leaves, self._nodes = _statements(connection.dialect)

    def __call__(self, level: int, position: int) -> bytes:
        """Return the hash of the complete subtree at (level, position), from at most 128 stored rows."""
        base = level - level % TILE_LEVELS
        width = 1 << level - base
        tile, offset = divmod(position * width, TILE_WIDTH)
        row = self._tile(base, tile)[offset : offset + width]
        if len(row) != width:
            raise damaged(f"hashes are missing at level {base} from {position * width}")
        while len(row) > 1:
            row = [merkle.node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=True)]
        return row[0]

    def row(self, level: int, first: int, count: int) -> list[bytes]:
        """Return the stored hashes of ``count`` nodes from ``first`` on; ``level`` is a multiple of ``TILE_LEVELS``."""
        row = self._stored_hashes(level, first, count)
        if len(row) != count:
            raise damaged(f"hashes are missing at level {level} from {first}")
        return row

    def _tile(self, level: int, number: int) -> list[bytes]:
        found = self._tiles.get((level, number))
        if found is None:
            if len(self._tiles) >= _KEPT_TILES:
                self._tiles.clear()
            found = self._tiles[level, number] = self._stored_hashes(level, number * TILE_WIDTH, TILE_WIDTH)
        return found

    def _stored_hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """Return the stored hashes from ``first`` on, up to the first that is missing."""
        values = {"first": first, "end": first + count}
        if level == 0:
            found = self._leaves.fetch_all(self._connection, values)
        else:
            found = self._nodes.fetch_all(self._connection, values | {"level": level})
        try:
            return [bytes.fromhex(digest) for place, (n, digest) in enumerate(found, first) if n == place]
        except (ValueError, TypeError) as exc:
            raise damaged(f"a hash at level {level} is not hex") from exc


def damaged(detail: str) -> LedgerDamagedError:
    """Return the error for tables that contradict themselves."""
    return LedgerDamagedError(f"the ledger is damaged: {detail}", remedy="run: safegen ledger fsck")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise LedgerError("not an inclusion proof: a line is not base64") from exc


def _bytes(leaf: str | bytes) -> bytes:
    return leaf.encode("utf-8", "surrogateescape") if isinstance(leaf, str) else leaf
