"""The tree, notes, cosignatures, tiles and proofs against the test vectors of others; each file says whose they are."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import LedgerError
from safegen.ledger import merkle
from safegen.ledger.checkpoint import Checkpoint, VerifierKey, open_note, sign_note
from safegen.ledger.cosignature import WitnessKey, _message, cosignatures
from safegen.ledger.proof import InclusionProof, verify_inclusion
from safegen.ledger.tiles import _wanted, bundle_path, tile_path

FOLDER = Path(__file__).parents[2] / "vectors/ledger"


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def b64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


# -- proofs of transparency-dev/merkle, and every way in which its testdata/ spoils them -------------------------------

TREE = load("rfc6962")
LEAVES = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in TREE["leaves"]]
ROOTS = [bytes.fromhex(root) for root in TREE["roots"]]
SOME_HASH = bytes.fromhex("abacaba000000000000000000000000000000000000000000060061e00123456")

Inclusion = tuple[int, int, bytes, list[bytes], bytes]
Consistency = tuple[int, int, bytes, bytes, list[bytes]]


def flipped(path: list[bytes], place: int, bit: int) -> list[bytes]:
    return [bytes([h[0] ^ 1 << bit]) + h[1:] if i == place else h for i, h in enumerate(path)]


def spoiled_inclusions() -> Iterator[tuple[str, Inclusion]]:
    for case in TREE["inclusion"]:
        index, size = case["index"], case["size"]
        leaf, root, path = LEAVES[index], ROOTS[size], [bytes.fromhex(h) for h in case["path"]]
        wrong: dict[str, Inclusion] = {
            "index - 1": (index - 1, size, leaf, path, root),
            "index + 1": (index + 1, size, leaf, path, root),
            "index ^ 2": (index ^ 2, size, leaf, path, root),
            "size * 2": (index, size * 2, leaf, path, root),
            "size / 2": (index, size // 2, leaf, path, root),
            "wrong leaf": (index, size, b"WrongLeaf", path, root),
            "empty root": (index, size, leaf, path, merkle.EMPTY_ROOT),
            "random root": (index, size, leaf, path, SOME_HASH),
            "trailing garbage": (index, size, leaf, [*path, b""], root),
            "trailing root": (index, size, leaf, [*path, root], root),
            "preceding garbage": (index, size, leaf, [b"", *path], root),
            "preceding root": (index, size, leaf, [root, *path], root),
        }
        for place in range(len(path)):
            wrong[f"bit 3 of hash {place}"] = (index, size, leaf, flipped(path, place, 3), root)
        if path:
            wrong["removed component"] = (index, size, leaf, path[:-1], root)
        if len(path) > 1:
            wrong["inserted component"] = (index, size, leaf, [path[0], SOME_HASH, *path[1:]], root)
        yield from ((f"{index} of {size}: {what}", probe) for what, probe in wrong.items())
    for index, size in ((0, 0), (0, 1), (1, 0), (2, 1)):
        for leaf, root in ((SOME_HASH, b""), (b"", merkle.EMPTY_ROOT), (SOME_HASH, merkle.EMPTY_ROOT)):
            yield f"{index} of {size}: {len(leaf)}, {len(root)}", (index, size, leaf, [], root)
    data = merkle.leaf_hash(b"data")
    yield "one leaf: empty leaf", (0, 1, b"", [], data)
    yield "one leaf: empty root", (0, 1, data, [], b"")
    yield "one leaf: both empty", (0, 1, b"", [], b"")


def spoiled_consistencies() -> Iterator[tuple[str, Consistency]]:
    for case in TREE["consistency"]:
        old, new, path = case["old"], case["new"], [bytes.fromhex(h) for h in case["path"]]
        one, two = ROOTS[old], ROOTS[new]
        if not path:
            continue
        wrong: dict[str, Consistency] = {
            "old - 1": (old - 1, new, one, two, path),
            "old + 1": (old + 1, new, one, two, path),
            "old ^ 2": (old ^ 2, new, one, two, path),
            "new * 2": (old, new * 2, one, two, path),
            "new / 2": (old, new // 2, one, two, path),
            "wrong old root": (old, new, b"WrongRoot", two, path),
            "wrong new root": (old, new, one, b"WrongRoot", path),
            "swapped roots": (old, new, two, one, path),
            "empty proof": (old, new, one, two, []),
            "trailing garbage": (old, new, one, two, [*path, b""]),
            "trailing old root": (old, new, one, two, [*path, one]),
            "trailing new root": (old, new, one, two, [*path, two]),
            "preceding garbage": (old, new, one, two, [b"", *path]),
            "preceding old root": (old, new, one, two, [one, *path]),
            "preceding new root": (old, new, one, two, [two, *path]),
            "preceding hash 0": (old, new, one, two, [path[0], *path]),
            "truncated proof": (old, new, one, two, path[:-1]),
        }
        for place in range(len(path)):
            wrong[f"bit 4 of hash {place}"] = (old, new, one, two, flipped(path, place, 4))
        yield from ((f"{old} to {new}: {what}", probe) for what, probe in wrong.items())
    one, two, none = b"don't care 1", b"don't care 2", merkle.EMPTY_ROOT
    for old, new, first, second, proof in (
        (0, 0, one, two, []),
        (1, 1, one, two, []),
        (1, 0, one, two, []),
        (2, 1, one, two, []),
        (1, 2, one, two, []),
        (0, 0, none, two, []),
        (1, 1, none, two, []),
        (0, 0, none, none, [none]),
        (0, 1, none, none, [none]),
        (1, 1, none, none, [none]),
    ):
        yield f"{old} to {new}: {first!r:.9}, {second!r:.9}, {len(proof)}", (old, new, first, second, list(proof))


def test_every_spoiled_inclusion_proof_is_refused() -> None:
    probes = list(spoiled_inclusions())
    assert len(probes) == 92
    assert [name for name, probe in probes if merkle.verify_inclusion(*probe)] == []


def test_every_spoiled_consistency_proof_is_refused() -> None:
    probes = list(spoiled_consistencies())
    assert len(probes) == 89
    assert [name for name, probe in probes if merkle.verify_consistency(*probe)] == []


# -- a public log of nearly a thousand million entries -----------------------------------------------------------------


def test_proofs_of_a_certificate_transparency_log_hold() -> None:
    log = load("argon2020")
    size, root, index, old = log["size"], b64(log["root"]), log["index"], log["old_size"]
    leaf = merkle.leaf_hash(b64(log["leaf"]))
    inclusion, consistency = [b64(h) for h in log["inclusion"]], [b64(h) for h in log["consistency"]]
    old_root = b64(log["old_root"])
    assert merkle.verify_inclusion(index, size, leaf, inclusion, root)
    assert merkle.verify_consistency(old, size, old_root, root, consistency)
    for place in range(len(inclusion)):
        assert not merkle.verify_inclusion(index, size, leaf, flipped(inclusion, place, 0), root)
    for place in range(len(consistency)):
        assert not merkle.verify_consistency(old, size, old_root, root, flipped(consistency, place, 0))
    assert not merkle.verify_inclusion(index ^ 1, size, leaf, inclusion, root)
    assert not merkle.verify_consistency(old + 1, size, old_root, root, consistency)


# -- signed notes ------------------------------------------------------------------------------------------------------

NOTES = load("notes_of_others")


@pytest.mark.parametrize("case", NOTES["signed"], ids=lambda c: c["source"][:30])
def test_notes_signed_by_others_open_under_each_key_alone_and_all_together(case: dict[str, Any]) -> None:
    keys = [VerifierKey.parse(vkey) for vkey in case["vkeys"]]
    for chosen in (*([key] for key in keys), keys):
        assert open_note(case["note"], *chosen) == case["text"]
    with pytest.raises(LedgerError, match="known key"):
        open_note(case["note"])
    for key in keys:
        changed = case["note"].replace(case["text"][-9:], "changed!\n", 1)
        with pytest.raises(LedgerError, match="signature is wrong"):
            open_note(changed, key)


def test_a_real_cosignature_holds_for_its_checkpoint_alone() -> None:
    case = next(c for c in NOTES["signed"] if "witness" in c)
    witness = WitnessKey.parse(case["witness"])
    when = dt.datetime.fromtimestamp(case["cosigned"], dt.UTC)
    assert [(c.witness, c.time) for c in cosignatures(case["note"], witness)] == [(witness.name, when)]
    size = case["text"].split("\n")[1]
    with pytest.raises(LedgerError, match="is wrong"):
        cosignatures(case["note"].replace(size, "42", 1), witness)


def test_what_a_witness_signs_is_what_the_specification_shows() -> None:
    case = NOTES["cosignature_message"]
    text = case["checkpoint"].partition("\n\n")[0] + "\n"
    data = b64(case["line"].split(" ")[2].strip())
    assert int.from_bytes(data[4:12], "big") == case["time"]
    assert _message(text, case["time"]).decode() == case["signed"]


@pytest.mark.parametrize("note", [*NOTES["malformed"]["notes"], "\udcff" + NOTES["signed"][0]["note"]])
def test_malformed_notes_are_refused(note: str) -> None:
    with pytest.raises(LedgerError):
        open_note(note, VerifierKey.parse(NOTES["malformed"]["vkey"]))


@pytest.mark.parametrize("case", NOTES["seeds"], ids=lambda c: c["vkey"][:8])
def test_keys_of_others_have_the_ids_that_they_state(case: dict[str, str]) -> None:
    _, _, name, _, data = case["skey"].split("+", 4)
    key = Ed25519PrivateKey.from_private_bytes(b64(data)[1:])
    assert str(VerifierKey.of(name, key)) == case["vkey"]
    assert open_note(sign_note("hi\n", name, key), VerifierKey.parse(case["vkey"])) == "hi\n"


def test_mangled_keys_are_refused() -> None:
    sound = NOTES["seeds"][0]["vkey"]
    cuts = {sound[i:j] for i in range(len(sound)) for j in range(i, len(sound) + 1)} - {sound}
    bumped = {sound[:i] + chr(ord(c) + 1) + sound[i + 1 :] for i, c in enumerate(sound)}
    for vkey in cuts | bumped | set(NOTES["vkeys_refused"]["vkeys"]):
        with pytest.raises(LedgerError):
            VerifierKey.parse(vkey)


@pytest.mark.parametrize(
    "line",
    [
        "— a+b AAAAAAAA", "— a\u00a0b AAAAAAAA", "— a\u2003b AAAAAAAA", "— example.com/other AAAA",
        "— example.com/other AAAAAA==", "— example.com/other", "—  AAAAAAAA", "- example.com/other AAAAAAAA",
        "— example.com/other AAAAAAAA ",
    ],
)  # fmt: skip
def test_a_malformed_line_of_an_unknown_key_spoils_the_note(line: str) -> None:
    case = NOTES["signed"][0]
    key = VerifierKey.parse(case["vkeys"][0])
    assert open_note(case["note"] + "— example.com/other AAAAAAAA\n", key) == case["text"]
    with pytest.raises(LedgerError, match="not a signed note"):
        open_note(f"{case['note']}{line}\n", key)


def test_sixteen_signatures_of_5000_bytes_are_not_too_many() -> None:
    case = NOTES["signed"][0]
    long = base64.b64encode(bytes(5000)).decode()
    lines = "".join(f"— example.com/{n} {long}\n" for n in range(16))
    assert open_note(case["note"] + lines, VerifierKey.parse(case["vkeys"][0])) == case["text"]


# -- checkpoints, proofs, tiles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", NOTES["heads"]["read"], ids=lambda c: str(c["size"]))
def test_heads_of_others_are_read(case: dict[str, Any]) -> None:
    head = Checkpoint.parse(case["text"])
    assert head.size == case["size"]
    assert head.root == (b64(case["root"]) if "root" in case else merkle.leaf_hash(case["root_of_leaf"].encode()))
    assert head.text == case["text"]


@pytest.mark.parametrize("text", NOTES["heads"]["refused"])
def test_malformed_heads_are_refused(text: str) -> None:
    with pytest.raises(LedgerError):
        Checkpoint.parse(text)


PROOF = load("tlog_proof")


def test_the_example_of_a_proof_is_read_and_proves_nothing() -> None:
    example = PROOF["example"]
    proof = InclusionProof.from_text(example["text"], b"")
    assert (proof.index, proof.size) == (example["index"], example["size"])
    assert [bytes.fromhex(h) for h in proof.path] == [b64(h) for h in example["path"]]
    key = VerifierKey.of("example.com/fancylog", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    assert not verify_inclusion(proof, b"", key)


@pytest.mark.parametrize("front", PROOF["refused_fronts"], ids=lambda f: f[23:43])
def test_malformed_proofs_are_refused(front: str) -> None:
    note = NOTES["signed"][2]["note"]
    InclusionProof.from_text(f"c2sp.org/tlog-proof@v1\nindex 0\n\n{note}", b"")
    with pytest.raises(LedgerError, match="not an inclusion proof"):
        InclusionProof.from_text(front + note, b"")


def test_extra_data_of_a_proof_is_passed_over() -> None:
    key, name, leaf = Ed25519PrivateKey.from_private_bytes(bytes(32)), "example.com/log", b"{}"
    head = Checkpoint(name, 1, merkle.leaf_hash(leaf))
    text = InclusionProof(0, 1, head.root.hex(), (), sign_note(head.text, name, key)).to_text()
    for extra in ("", "extra \n", "extra AAAA\n"):
        proof = InclusionProof.from_text(text.replace("index", f"{extra}index"), leaf)
        assert verify_inclusion(proof, leaf, VerifierKey.of(name, key))
    for extra in ("extra\n", "extra AAA\n", "extra AAAA\nextra AAAA\n", " extra AAAA\n"):
        with pytest.raises(LedgerError, match="not an inclusion proof"):
            InclusionProof.from_text(text.replace("index", f"{extra}index"), leaf)


TILES = load("tiles")


@pytest.mark.parametrize("case", TILES["paths"], ids=lambda c: c["path"])
def test_tiles_lie_where_the_specification_says(case: dict[str, Any]) -> None:
    assert tile_path(case["level"], case["position"], case["width"]) == case["path"]
    bundles = case["path"].replace(f"tile/{case['level']}/", "tile/entries/")
    assert bundle_path(case["position"], case["width"]) == bundles


@pytest.mark.parametrize("case", TILES["trees"], ids=lambda c: str(c["size"]))
def test_a_tree_has_the_tiles_that_the_specification_counts(case: dict[str, Any]) -> None:
    found: dict[str, list[int]] = {}
    for level, _, width in _wanted(0, case["size"]):
        if level is not None:
            counted = found.setdefault(str(level), [0, 0])
            if width == 256:
                counted[0] += 1
            else:
                counted[1] = width
    assert found == case["tiles"]
