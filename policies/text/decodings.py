"""Finds the parts of a text that are written in an encoding, and reads them."""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import urllib.parse
from collections.abc import Callable, Iterator

_MAX_DEPTH = 3  # encodings around encodings
_MIN_PLAIN = 6
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{12,}={0,2}")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:0x)?(?:[0-9A-Fa-f]{2}[\s:,]?){6,}(?![0-9A-Za-z])")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2}|[\w.~+-]){2,}")
_ENTITY = re.compile(r"(?:&(?:#\d{2,7}|#[xX][0-9A-Fa-f]{2,6}|[A-Za-z]{2,31});[ ]?|\w){3,}")
_ESCAPE = re.compile(r"(?:\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|U[0-9A-Fa-f]{8})[ ]?|\w){2,}")


def _base64(token: str) -> str:
    body = token.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(body + "=" * (-len(body) % 4), validate=True).decode("utf-8")


def _hex(token: str) -> str:
    return bytes.fromhex(re.sub(r"[\s:,]|^0x", "", token)).decode("utf-8")


def _percent(token: str) -> str:
    return urllib.parse.unquote_plus(token, errors="strict") if "%" in token else ""


def _entities(token: str) -> str:
    return html.unescape(token) if "&" in token else ""


def _escapes(token: str) -> str:
    return codecs.decode(token, "unicode_escape") if "\\" in token and token.isascii() else ""


_READERS: tuple[tuple[str, re.Pattern[str], Callable[[str], str], str], ...] = (
    # A sign that must occur somewhere in the text spares ordinary prompts the search.
    ("base64", _BASE64, _base64, ""),
    ("hex", _HEX, _hex, ""),
    ("percent", _PERCENT, _percent, "%"),
    ("entities", _ENTITY, _entities, "&"),
    ("escapes", _ESCAPE, _escapes, "\\"),
)


def decodings(text: str, depth: int = 1) -> Iterator[tuple[str, int, int, str]]:
    """Yield (encoding, start, end, plain text) for the parts of ``text`` that decode to something readable.

    What decodes to another encoding is read on, three deep; the range is always that in ``text``.
    """
    for name, pattern, read, sign in _READERS:
        if sign and sign not in text:
            continue
        for found in pattern.finditer(text):
            try:
                plain = read(found[0])
            except (binascii.Error, UnicodeError, ValueError):
                continue
            if plain == found[0] or not _readable(plain, strict=name in ("base64", "hex")):
                continue
            yield name, found.start(), found.end(), plain
            if depth < _MAX_DEPTH:
                for inner, _, _, deeper in decodings(plain, depth + 1):
                    yield inner, found.start(), found.end(), deeper


def _readable(plain: str, *, strict: bool) -> bool:
    """Whether decoding gave text. Any long word is base64 by the letter, so there it must look like words."""
    if not plain or not plain.replace("\n", " ").isprintable():
        return False
    return not strict or (len(plain) >= _MIN_PLAIN and (" " in plain.strip() or plain.isascii()))
