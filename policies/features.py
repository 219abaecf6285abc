"""Hashed n-gram features of texts, in numpy alone and over many texts at once.

Characters: n-grams of 3 to 5 letters, blanks included. Words: one and two in a row. Every n-gram is hashed into one of
``BUCKETS`` (Weinberger et al., 2009, "Feature hashing for large scale multitask learning"). The arithmetic is modulo
2**64 and the same on every machine, so weights trained anywhere fit everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BITS = 17
BUCKETS = 1 << BITS
_CHARS = (3, 4, 5)
_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SPACE = ord(" ")


@dataclass(frozen=True, slots=True)
class Counts:
    """Sparse counts: row (text), bucket and how often, sorted by row then bucket."""

    rows: NDArray[np.int64]
    buckets: NDArray[np.int64]
    counts: NDArray[np.float32]
    texts: int


def _letters(text: str) -> NDArray[np.uint64]:
    """Return a text's letters and digits as code points, single blanks between words and around the text."""
    code = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    known = ((code >= 97) & (code <= 122)) | ((code >= 48) & (code <= 57)) | (code >= 128)
    code = np.where(known, code, np.uint64(_SPACE))
    code = np.concatenate([[_SPACE], code, [_SPACE]]).astype(np.uint64)
    blank = code == _SPACE
    keep = ~(blank & np.concatenate([[False], blank[:-1]]))
    kept: NDArray[np.uint64] = code[keep]
    return kept


def _mixed(value: NDArray[np.uint64], salt: int) -> NDArray[np.int64]:
    value = (value ^ np.uint64(salt)) * _MIX
    value ^= value >> np.uint64(29)
    value *= _MIX
    return (value >> np.uint64(64 - BITS)).astype(np.int64)


def count(texts: Sequence[str]) -> Counts:
    """Count the n-grams of lower-case texts."""
    if not texts:
        empty = np.zeros(0, np.int64)
        return Counts(empty, empty, np.zeros(0, np.float32), 0)
    parts = [_letters(text) for text in texts]
    rows = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    code = np.concatenate(parts)
    keys = []
    rolling = code.copy()
    for n in range(2, max(_CHARS) + 1):
        rolling = rolling[:-1] * _PRIME + code[n - 1 :]
        if n in _CHARS:
            # An n-gram that would run into the next text is left out.
            inside = rows[: len(rolling)] == rows[n - 1 :]
            keys.append(rows[: len(rolling)][inside] * BUCKETS + _mixed(rolling[inside], n))
    keys.extend(_words(code, rows))
    pairs, number = np.unique(np.concatenate(keys), return_counts=True)
    return Counts(pairs // BUCKETS, pairs % BUCKETS, number.astype(np.float32), len(texts))


def _words(code: NDArray[np.uint64], rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the keys of words and pairs of words."""
    letter = code != _SPACE
    start = np.flatnonzero(letter & ~np.concatenate([[False], letter[:-1]]))
    if not len(start):
        return []
    index = np.cumsum(np.isin(np.arange(len(code)), start, assume_unique=True)) - 1
    place = np.arange(len(code)) - start[np.clip(index, 0, None)]
    power = np.cumprod(np.full(int(place[letter].max()) + 1, _PRIME, np.uint64))
    value = np.zeros(len(start), np.uint64)
    np.add.at(value, index[letter], code[letter] * power[place[letter]])
    owner = rows[start]
    single = owner * BUCKETS + _mixed(value, 101)
    together = owner[:-1] == owner[1:]
    pair = value[:-1][together] * _PRIME + value[1:][together] * _MIX
    return [single, owner[:-1][together] * BUCKETS + _mixed(pair, 102)]
