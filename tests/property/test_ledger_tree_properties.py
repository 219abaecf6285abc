"""Proofs of any tree against the naive recursion of RFC 6962 §2.1."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.ledger import merkle

LEAVES = [merkle.leaf_hash(str(i).encode()) for i in range(300)]


def naive(leaves: list[bytes]) -> bytes:
    if not leaves:
        return merkle.EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return merkle.node_hash(naive(leaves[:k]), naive(leaves[k:]))


def node(level: int, position: int) -> bytes:
    return naive(LEAVES[position << level : (position + 1) << level])


@given(st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_frontier_root_is_the_naive_root(size: int) -> None:
    frontier = merkle.Frontier()
    for leaf in LEAVES[:size]:
        for level, position, done in frontier.push(leaf):
            assert done == node(level, position)
    assert frontier.root() == naive(LEAVES[:size]) == merkle.tree_root(size, node)
    assert merkle.Frontier(size, frontier.peaks).root() == frontier.root()


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_inclusion(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_path(index, size, node)
    root = naive(LEAVES[:size])
    assert merkle.verify_inclusion(index, size, LEAVES[index], path, root)
    other = data.draw(st.integers(0, 400).filter(lambda i: i != index))
    assert not merkle.verify_inclusion(other, size, LEAVES[index], path, root)
    if path:
        i = data.draw(st.integers(0, len(path) - 1))
        assert not merkle.verify_inclusion(index, size, LEAVES[index], path[:i] + path[i + 1 :], root)


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_consistency(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 300))
    old = data.draw(st.integers(1, new))
    path = merkle.consistency_path(old, new, node)
    old_root, new_root = naive(LEAVES[:old]), naive(LEAVES[:new])
    assert merkle.verify_consistency(old, new, old_root, new_root, path)
    forged = naive([merkle.leaf_hash(b"forged"), *LEAVES[1:old]])
    assert not merkle.verify_consistency(old, new, forged, new_root, path)
    if path:
        i = data.draw(st.integers(0, len(path) - 1))
        assert not merkle.verify_consistency(old, new, old_root, new_root, path[:i] + path[i + 1 :])
