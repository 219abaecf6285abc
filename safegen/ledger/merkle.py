"""The Merkle tree of RFC 6962 §2.1 (RFC 9162 §2.1): hashes, frontier, inclusion and consistency proofs. Pure; no IO.

Hashes are SHA-256 digests of 32 bytes. A node is addressed by (level, position): level 0 holds the leaf hashes and
node (l, p) covers the leaves p·2^l to (p+1)·2^l - 1. Only nodes of complete subtrees ever exist in that scheme, so they
never change once written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

NodeReader = Callable[[int, int], bytes]
"""Answers the hash of the complete subtree at (level, position)."""


def leaf_hash(leaf: bytes) -> bytes:
    """Hash one entry: SHA-256(0x00 || leaf)."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash an inner node: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The compact range [0, size): the roots of the complete subtrees that make up a tree, largest first.

    It holds at most log2(size) hashes, is enough to append and to compute the root, and is never enough to forge: the
    root it yields is what checkpoints sign.
    """

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        """Take a stored frontier up again; ValueError if the number or length of the hashes does not fit ``size``."""
        self.size = size
        self.peaks = list(peaks)
        if size < 0 or len(self.peaks) != size.bit_count() or any(len(p) != HASH_BYTES for p in self.peaks):
            raise ValueError(f"a frontier of size {size} needs {max(size, 0).bit_count()} hashes of {HASH_BYTES} bytes")

    def push(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Append one leaf hash; return the inner nodes that it completed, as (level, position, hash)."""
        return self.extend([leaf])

    def extend(self, leaves: Sequence[bytes], step: int = 1) -> list[tuple[int, int, bytes]]:
        """Append leaf hashes; return the inner nodes that they completed, as (level, position, hash), level by level.

        Only those at multiples of ``step`` levels are returned.
        """
        done: list[tuple[int, int, bytes]] = []
        kept: list[bytes] = []  # peaks that stay or come, the smallest first
        row, position, level = list(leaves), self.size, 0
        self.size += len(row)
        sha256 = hashlib.sha256
        while row:
            if position & 1:  # the first one's left sibling is a peak
                row.insert(0, self.peaks.pop())
                position -= 1
            if len(row) & 1:
                kept.append(row[-1])
            row = [sha256(b"\x01" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=False)]
            level, position = level + 1, position >> 1
            if level % step == 0:
                done += [(level, position + i, node) for i, node in enumerate(row)]
        self.peaks += reversed(kept)
        return done

    def root(self) -> bytes:
        """Return the root of the whole tree."""
        if not self.peaks:
            return EMPTY_ROOT
        node = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            node = node_hash(peak, node)
        return node

    def root_with(self, leaf: bytes) -> bytes:
        """Return the root that the tree would have with one more leaf hash, and leave the tree as it is."""
        trial = Frontier(self.size, self.peaks)
        trial.push(leaf)
        return trial.root()


def _split(n: int) -> int:
    """Return the largest power of two smaller than ``n`` (n > 1)."""
    return 1 << (n - 1).bit_length() - 1


def range_root(low: int, high: int, node: NodeReader) -> bytes:
    """Return the hash of the leaves [low, high), a range as RFC 6962's recursion cuts it."""
    width = high - low
    if width & (width - 1) == 0:
        level = width.bit_length() - 1
        return node(level, low >> level)
    middle = low + _split(width)
    return node_hash(range_root(low, middle, node), range_root(middle, high, node))


def tree_root(size: int, node: NodeReader) -> bytes:
    """Return the root of the first ``size`` leaves."""
    return range_root(0, size, node) if size else EMPTY_ROOT


def inclusion_path(index: int, size: int, node: NodeReader) -> list[bytes]:
    """Return the audit path of leaf ``index`` in the tree of ``size`` leaves, sibling first (RFC 6962 §2.1.1)."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    low, high = 0, size
    path: list[bytes] = []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(range_root(middle, high, node))
            high = middle
        else:
            path.append(range_root(low, middle, node))
            low = middle
    return path[::-1]


def consistency_path(old: int, new: int, node: NodeReader) -> list[bytes]:
    """Return the proof that the tree of ``old`` leaves is a prefix of that of ``new`` leaves (RFC 6962 §2.1.2)."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} leaves is no prefix of one of {new}")
    if old in (0, new):
        return []
    low, high = 0, new
    path: list[bytes] = []
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(range_root(middle, high, node))
            high = middle
        else:
            path.append(range_root(low, middle, node))
            low = middle
    if low:  # the verifier has the old root itself when the old tree is one complete subtree
        path.append(range_root(low, high, node))
    return path[::-1]


def root_from_path(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes | None:
    """Return the root that ``path`` leads to from leaf hash ``leaf`` (RFC 9162 §2.1.3.2); None if it fits no tree."""
    if not 0 <= index < size or len(leaf) != HASH_BYTES or any(len(p) != HASH_BYTES for p in path):
        return None
    place, last, node = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if place & 1 or place == last:
            node = node_hash(sibling, node)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        place, last = place >> 1, last >> 1
    return node if last == 0 else None


def verify_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> bool:
    """Whether ``path`` proves that leaf hash ``leaf`` is number ``index`` under ``root`` (RFC 9162 §2.1.3.2)."""
    return root_from_path(index, size, leaf, path) == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether ``path`` proves that the tree under ``old_root`` is a prefix of ``new_root``'s (RFC 9162 §2.1.4.2)."""
    if not 0 <= old <= new or any(len(p) != HASH_BYTES for p in path):
        return False
    if old == new:
        return not path and old_root == new_root
    if old == 0:
        return not path and old_root == EMPTY_ROOT
    nodes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not path:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old_node = new_node = nodes[0]
    for sibling in nodes[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            old_node, new_node = node_hash(sibling, old_node), node_hash(sibling, new_node)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            new_node = node_hash(new_node, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and old_node == old_root and new_node == new_root
