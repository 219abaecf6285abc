"""Leaves: golden bytes, and events that must be refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from safegen.errors import LedgerError
from safegen.ledger.entry import MAX_LEAF_BYTES, Event, EventKind, decode_leaf, encode_leaf, hash_leaf

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "vectors/ledger/entries.json").read_text())
TIME = "2026-01-02T03:04:05.678901Z"


def nested(depth: int) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for _ in range(depth):
        body = {"x": body}
    return body


@pytest.mark.parametrize("case", VECTORS, ids=lambda c: c["name"])
def test_golden_leaves(case: dict[str, Any]) -> None:
    leaf = encode_leaf(Event(**case["event"]), case["index"], case["time"])
    assert leaf.decode() == case["leaf"]
    assert hash_leaf(case["leaf"]).hex() == hashlib.sha256(b"\x00" + leaf).hexdigest() == case["leaf_hash"]
    assert decode_leaf(case["leaf"])["index"] == case["index"]


def test_mappings_tuples_and_enums_are_written_as_json() -> None:
    leaf = encode_leaf(Event(EventKind.REVIEWED, body={"k": EventKind.BLOCKED, "t": (1, True, None)}), 4, TIME)
    assert decode_leaf(leaf.decode())["body"] == {"k": "blocked", "t": [1, True, None]}


@pytest.mark.parametrize(
    "body",
    [
        {"x": float("nan")},
        {"x": float("inf")},
        {"x": 2**53},
        {"x": -(10**400)},
        {"x": b"bytes"},
        {"x": {1, 2}},
        {"x": object()},
        {1: "x"},
        {"x": {None: 1}},
        {"x": "lone \ud800 surrogate"},
        {"\udfff": 1},
        nested(33),
        ["no", "object"],
        "text",
        None,
    ],
    ids=lambda body: ascii(body).split(" at 0x")[0][:30],  # the same in every worker, and no lone surrogate
)
def test_bodies_that_json_cannot_express(body: Any) -> None:
    with pytest.raises(LedgerError):
        encode_leaf(Event("generated", body=body), 0, TIME)


def test_endlessly_nested_body() -> None:
    with pytest.raises(LedgerError, match="nested"):
        encode_leaf(Event("generated", body=nested(5000)), 0, TIME)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": ""},
        {"kind": "Generated"},
        {"kind": "x" * 33},
        {"kind": None},
        {"content_id": "123"},
        {"content_id": "ABCDEF0123456789"},
        {"content_id": 5},
        {"asset_sha256": "ab"},
        {"manifest_sha256": "G" * 64},
        {"policy_sha256": 7},
        {"model": ""},
        {"model": "m" * 513},
        {"model": "\ud800"},
        {"action": "a" * 33},
    ],
    ids=repr,
)
def test_malformed_fields(fields: dict[str, Any]) -> None:
    with pytest.raises(LedgerError):
        encode_leaf(Event(**({"kind": "generated"} | fields)), 0, TIME)


def test_length_limit_is_exact() -> None:
    empty = len(encode_leaf(Event("generated", body={"x": ""}), 0, TIME))
    full = encode_leaf(Event("generated", body={"x": "y" * (MAX_LEAF_BYTES - empty)}), 0, TIME)
    assert len(full) == MAX_LEAF_BYTES
    with pytest.raises(LedgerError, match="65,536"):
        encode_leaf(Event("generated", body={"x": "y" * (MAX_LEAF_BYTES - empty + 1)}), 0, TIME)


@pytest.mark.parametrize(
    "leaf",
    ["", "[]", "{", "null", '{"schema":"other"}', '{"schema":"safegen.entry/1"}', "[" * 100_000, b"{}", None, 3],
    ids=lambda v: repr(v)[:30],
)
def test_unreadable_leaves(leaf: Any) -> None:
    with pytest.raises(LedgerError):
        decode_leaf(leaf)


def test_leaf_with_a_field_of_the_wrong_type() -> None:
    fields = json.loads(VECTORS[0]["leaf"])
    for change in ({"kind": 3}, {"index": True}, {"index": "0"}, {"body": []}):
        with pytest.raises(LedgerError):
            decode_leaf(json.dumps(fields | change))
