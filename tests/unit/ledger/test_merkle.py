"""The tree against the reference vectors of certificate transparency."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safegen.ledger import merkle

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors/ledger/rfc6962.json").read_text())
LEAVES = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]
ROOTS = [bytes.fromhex(root) for root in VECTORS["roots"]]
NODES = {(lv, p): bytes.fromhex(h) for lv, row in enumerate(VECTORS["nodes"]) for p, h in enumerate(row)}


def node(level: int, position: int) -> bytes:
    return NODES[level, position]


def hashes(path: list[str]) -> list[bytes]:
    return [bytes.fromhex(h) for h in path]


def test_frontier_reaches_every_reference_root_and_node() -> None:
    frontier = merkle.Frontier()
    done = {}
    for i, leaf in enumerate(LEAVES):
        assert frontier.root() == ROOTS[i]
        assert frontier.root_with(leaf) == ROOTS[i + 1]
        assert frontier.size == i
        done.update({(level, position): h for level, position, h in frontier.push(leaf)})
    assert frontier.root() == ROOTS[8]
    assert done == {k: v for k, v in NODES.items() if k[0] > 0}


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda c: f"{c['index']}of{c['size']}")
def test_inclusion_vectors(case: dict[str, Any]) -> None:
    index, size, path = case["index"], case["size"], hashes(case["path"])
    assert merkle.inclusion_path(index, size, node) == path
    assert merkle.verify_inclusion(index, size, LEAVES[index], path, ROOTS[size])
    assert not merkle.verify_inclusion(index + 1, size, LEAVES[index], path, ROOTS[size])
    assert not merkle.verify_inclusion(index, size, LEAVES[index], [*path, ROOTS[size]], ROOTS[size])
    assert not merkle.verify_inclusion(index, size, LEAVES[index], [ROOTS[size], *path], ROOTS[size])
    assert not merkle.verify_inclusion(index, size, LEAVES[index], path, ROOTS[0])
    for i in range(len(path)):
        flipped = [*path[:i], bytes([path[i][0] ^ 8]) + path[i][1:], *path[i + 1 :]]
        assert not merkle.verify_inclusion(index, size, LEAVES[index], flipped, ROOTS[size])


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda c: f"{c['old']}to{c['new']}")
def test_consistency_vectors(case: dict[str, Any]) -> None:
    old, new, path = case["old"], case["new"], hashes(case["path"])
    assert merkle.consistency_path(old, new, node) == path
    assert merkle.verify_consistency(old, new, ROOTS[old], ROOTS[new], path)
    assert not merkle.verify_consistency(old, new, ROOTS[0], ROOTS[new], path)
    assert not merkle.verify_consistency(old, new, ROOTS[old], ROOTS[0], path)
    assert not merkle.verify_consistency(old, new, ROOTS[old], ROOTS[new], [*path, ROOTS[1]])
    if path:
        assert not merkle.verify_consistency(old, new, ROOTS[old], ROOTS[new], path[:-1])
        assert not merkle.verify_consistency(old, new, ROOTS[old], ROOTS[new], [])


def test_tree_of_nothing() -> None:
    assert merkle.tree_root(0, node) == ROOTS[0]
    assert merkle.verify_consistency(0, 3, ROOTS[0], ROOTS[3], [])
    assert not merkle.verify_consistency(0, 3, ROOTS[1], ROOTS[3], [])
    assert not merkle.verify_inclusion(0, 0, LEAVES[0], [], ROOTS[0])


def test_proofs_outside_the_tree_are_refused() -> None:
    with pytest.raises(ValueError):
        merkle.inclusion_path(8, 8, node)
    with pytest.raises(ValueError):
        merkle.consistency_path(5, 4, node)
    assert not merkle.verify_consistency(5, 4, ROOTS[5], ROOTS[4], [])


@pytest.mark.parametrize(("size", "peaks"), [(3, 1), (4, 2), (-1, 0), (0, 1)])
def test_frontier_of_wrong_length_is_refused(size: int, peaks: int) -> None:
    with pytest.raises(ValueError):
        merkle.Frontier(size, [ROOTS[1]] * peaks)
