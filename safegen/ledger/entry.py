"""What a ledger entry says and how it is written: RFC 8785 canonical JSON, whose bytes are the Merkle leaf. No IO."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson
import rfc8785

from safegen.errors import LedgerError
from safegen.ledger.merkle import leaf_hash
from safegen.types import ContentId, Json, parse_content_id

SCHEMA = "safegen.entry/1"
MAX_LEAF_BYTES = 65_535
"""C2SP tlog-tiles entry bundles give an entry's length as a uint16. Log digests; keep big things elsewhere."""

_MAX_DEPTH = 32
_MAX_INTEGER = 2**53 - 1  # beyond it JSON numbers lose digits in other languages (RFC 8785 §3.2.2.3)
_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,31}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

COLUMNS = ("time", "kind", "content_id", "asset_sha256", "manifest_sha256", "model", "policy_sha256", "action")
"""The leaf's fields that are also query columns, under the same names."""


class EventKind(StrEnum):
    """What happened. Other kinds are allowed: any lower-case word of up to 32 characters."""

    GENERATED = "generated"
    BLOCKED = "blocked"
    CANCELLED = "cancelled"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    REVIEWED = "reviewed"
    RECOVERED = "recovered"
    RESIGNED = "resigned"
    CONSENT_REVOKED = "consent_revoked"
    APPROVAL_USED = "approval_used"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing to record. ``body`` is any JSON object; ``*_sha256`` are 64 lower-case hex digits."""

    kind: str
    content_id: str | None = None
    body: Mapping[str, Json] = field(default_factory=dict)
    asset_sha256: str | None = None
    manifest_sha256: str | None = None
    model: str | None = None
    policy_sha256: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A recorded event, read back from its leaf: its index from 0, its time (RFC 3339, UTC), its fields and its leaf.

    ``damage`` is empty when the row's columns and hash agree with the leaf; otherwise it names the columns at fault.
    """

    index: int
    time: str
    event: Event
    leaf: str
    leaf_hash: str  # hex
    damage: str = ""

    @property
    def kind(self) -> str:
        """The event's kind."""
        return self.event.kind

    @property
    def content_id(self) -> ContentId | None:
        """The clip that the event is about."""
        return None if self.event.content_id is None else ContentId(self.event.content_id)

    @property
    def body(self) -> Mapping[str, Json]:
        """The event's body."""
        return self.event.body

    def to_json(self) -> dict[str, Json]:
        """Return the entry as plain JSON values: its fields, the leaf's hash, and the damage if there is any."""
        fields: dict[str, Json] = {"entry": self.index, "time": self.time, "kind": str(self.kind)}
        fields |= {name: getattr(self.event, name) for name in COLUMNS[2:] if name != "action"}
        action = self.event.action
        fields |= {"decision": None if action is None else {"action": str(action)}}
        fields |= {"body": self.event.body, "leaf_hash": self.leaf_hash}
        return fields | ({"damage": self.damage} if self.damage else {})


@dataclass(frozen=True, slots=True)
class Draft:
    """An event as canonical JSON that has no place yet: a leaf is ``before``, the index, ``between``, the time, ``"}``.

    Writers make drafts before they wait for their turn, so that only the index and the time are left to fill in.
    """

    event: Event
    before: bytes
    between: bytes

    def leaf(self, index: int, time: str) -> bytes:
        """Return the leaf at a place and time; LedgerError if it is too long."""
        data = b'%b%d%b%b"}' % (self.before, index, self.between, time.encode())
        if len(data) > MAX_LEAF_BYTES:
            raise LedgerError(
                f"the entry would be {len(data):,} bytes long; the limit is {MAX_LEAF_BYTES:,}",
                remedy="record the SHA-256 of large values and keep the values themselves elsewhere",
            )
        return data


def draft(event: Event) -> Draft:
    """Return an event as canonical JSON; LedgerError if it is malformed."""
    action, model = _checked_text(event.action, "action", 32), _checked_text(event.model, "model", 512)
    asset, manifest = _digest(event.asset_sha256, "asset_sha256"), _digest(event.manifest_sha256, "manifest_sha256")
    policy, content_id = _digest(event.policy_sha256, "policy_sha256"), _content_id(event.content_id)
    kind = _kind(event.kind)
    try:
        before = b'{"action":%b,"asset_sha256":%b,"body":%b,"content_id":%b,"index":' % (
            _dumps(action), _dumps(asset), canonical(event.body), _dumps(content_id)
        )  # fmt: skip
        between = b',"kind":%b,"manifest_sha256":%b,"model":%b,"policy_sha256":%b,"schema":"%b","time":"' % (
            _dumps(kind), _dumps(manifest), _dumps(model), _dumps(policy), SCHEMA.encode()
        )  # fmt: skip
    except (rfc8785.CanonicalizationError, ValueError, TypeError) as exc:
        raise LedgerError(f"the event cannot be written as canonical JSON: {exc}") from exc
    return Draft(event, before, between)


def encode_leaf(event: Event, index: int, time: str) -> bytes:
    """Return the canonical JSON of an event at a place and time; LedgerError if it is malformed or too long."""
    return draft(event).leaf(index, time)


def canonical(body: Mapping[str, Any]) -> bytes:
    """Return a JSON object as RFC 8785 canonical JSON; LedgerError naming what JSON cannot express.

    orjson writes the same bytes many times as fast, where neither numbers nor keys are unusual.
    """
    try:
        if type(body) is dict:
            plain = _ordinary(body, 0)
            made = _dumps(plain, option=orjson.OPT_SORT_KEYS)
            if made.isascii() or _ascii_keys(plain):
                return made
    except (_UnusualError, TypeError):
        pass
    return rfc8785.dumps(_body(body))


class _UnusualError(Exception):
    """Something that orjson might write otherwise than RFC 8785, or that may be no JSON at all."""


_dumps = orjson.dumps


def _ordinary(value: object, depth: int) -> object:
    """Return ``value`` as it may be given to orjson; ``_UnusualError`` if RFC 8785 is to be asked.

    Both write the shortest digits of a float, and from 1e-4 up to 2^53 both without exponent. Both sort ASCII keys
    alike; others are sorted by UTF-16 units there, and by UTF-8 bytes here.
    """
    if depth > _MAX_DEPTH:
        raise _UnusualError
    if type(value) is dict:
        made = {}
        for key, item in value.items():
            kind = type(item)
            if (
                kind is str
                or item is None
                or kind is bool
                or (kind is int and -_MAX_INTEGER <= item <= _MAX_INTEGER)
                or (kind is float and 1e-4 <= item < _MAX_INTEGER and not item.is_integer())
            ):
                made[key] = item
            else:
                made[key] = _ordinary(item, depth + 1)
        return made
    if type(value) is list or type(value) is tuple:
        return [_ordinary(item, depth + 1) for item in value]
    if value is None or type(value) is str or type(value) is bool:
        return value
    if isinstance(value, str):
        return str(value)
    return _number(value)


def _ascii_keys(value: object) -> bool:
    if isinstance(value, dict):
        return all(key.isascii() and _ascii_keys(item) for key, item in value.items())
    return all(map(_ascii_keys, value)) if isinstance(value, list) else True


def _number(value: Any) -> int | float:
    kind = type(value)
    if kind is int and -_MAX_INTEGER <= value <= _MAX_INTEGER:
        return value  # type: ignore[no-any-return]
    if kind is float:
        if value.is_integer() and -_MAX_INTEGER <= value <= _MAX_INTEGER:
            return int(value)
        if 1e-4 <= abs(value) < _MAX_INTEGER:
            return value  # type: ignore[no-any-return]
    raise _UnusualError


def split_leaf(leaf: str, index: int, time: str) -> tuple[str, str] | None:
    """Take a leaf apart into what ``Draft`` holds; None if no draft at this index and time would give it."""
    end = f'{time}"}}'
    start = leaf.rfind(f',"index":{index},"kind":')  # nothing after it can hold these quotes
    if start < 0 or not leaf.endswith(f',"time":"{end}'):
        return None
    middle = start + len(f',"index":{index}')
    return leaf[: start + len(',"index":')], leaf[middle : -len(end)]


def decode_leaf(leaf: object) -> dict[str, Json]:
    """Return a leaf's fields; LedgerError if it is not a leaf of a schema that this version knows."""
    if not isinstance(leaf, str):
        raise LedgerError("the leaf is not text")
    try:
        fields = json.loads(leaf, parse_int=_whole)
    except (ValueError, RecursionError) as exc:
        raise LedgerError("the leaf is not JSON") from exc
    if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
        raise LedgerError(f"the leaf is not of schema {SCHEMA}")
    body = fields.get("body")
    columns = (fields.get(name, 0) for name in COLUMNS)  # 0 where missing: None is a value
    if type(fields.get("index")) is not int or not isinstance(body, dict):
        raise LedgerError("the leaf lacks its index or body")
    if not all(value is None or isinstance(value, str) for value in columns):
        raise LedgerError("the leaf lacks a field, or one has the wrong type")
    return fields


def event_of(fields: Mapping[str, Any]) -> Event:
    """Return the event that a leaf's fields tell of."""
    return Event(**{name: fields[name] for name in COLUMNS[1:]}, body=fields["body"])


def hash_leaf(leaf: str) -> bytes:
    """Hash a leaf as it is stored; bytes that are no UTF-8 were read with surrogateescape."""
    return leaf_hash(leaf.encode("utf-8", "surrogateescape"))


def _whole(digits: str) -> int | float:
    """Read whole digits: RFC 8785 writes a large float without exponent, and it must come back as that float."""
    number = int(digits) if len(digits) <= 17 else float(digits)
    return number if abs(number) <= _MAX_INTEGER else float(number)


def _kind(kind: object) -> str:
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise LedgerError(f"not an event kind: {kind!r}", remedy="use a lower-case word of at most 32 characters")
    return str(kind)


def _content_id(content_id: object) -> str | None:
    if content_id is None:
        return None
    try:
        return str(parse_content_id(content_id))  # type: ignore[arg-type]
    except (ValueError, TypeError) as exc:
        raise LedgerError(f"not a content id (16 lower-case hex digits): {content_id!r}") from exc


def _digest(digest: object, name: str) -> str | None:
    if digest is None:
        return None
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise LedgerError(f"{name} is not a SHA-256 digest (64 lower-case hex digits): {digest!r}")
    return str(digest)


def _checked_text(text: object, name: str, limit: int) -> str | None:
    if text is None:
        return None
    if not isinstance(text, str) or not 0 < len(text) <= limit:
        raise LedgerError(f"{name} is not a text of 1 to {limit} characters")
    return str(text)


def _body(body: object) -> dict[str, Any]:
    if not isinstance(body, Mapping):
        raise LedgerError(f"an event's body is a JSON object, not {type(body).__name__}")
    plain = _plain(body, "body", 0)
    return plain if isinstance(plain, dict) else {}


def _plain(value: object, where: str, depth: int) -> object:
    """Return ``value`` in the types that JSON knows; LedgerError naming the place of the first that it does not."""
    if depth > _MAX_DEPTH:
        raise LedgerError(f"{where[:80]} is nested more than {_MAX_DEPTH} deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        if abs(value) > _MAX_INTEGER:
            raise LedgerError(f"{where} exceeds 2^53 - 1", remedy="write large numbers as strings")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise LedgerError(f"{where} is {value}, which JSON cannot express")
        return float(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise LedgerError(f"{where} has a key that is not text")
        return {str(key): _plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    raise LedgerError(f"{where} is no JSON value: {type(value).__name__}")
