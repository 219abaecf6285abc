"""Checkpoints, tiles, proofs, receipts and cosignatures, judged by implementations that share no code with ours."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pymerkle
import pytest
import scitt_cose
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from safegen.errors import LedgerError
from safegen.ledger import Event, Ledger, VerifierKey, open_checkpoint
from safegen.ledger.cosignature import WitnessKey, cosign, cosignatures
from safegen.ledger.publication import Folder
from safegen.ledger.receipt import make_receipt, verify_receipt
from safegen.ledger.witness import Witness, request_body
from tests.outside import fetched

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WITNESS = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
ORIGIN = "example.com/safegen"
VKEY = VerifierKey.of(ORIGIN, KEY)
WHEN = dt.datetime(2026, 7, 1, 12, 0, tzinfo=dt.UTC)
ENTRIES = 600  # two full tiles and a partial one, and a level above


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    folder = tmp_path_factory.mktemp("ledger")
    with Ledger.open(f"sqlite:///{folder / 'ledger.db'}", key=KEY, origin=ORIGIN) as opened:
        for number in range(ENTRIES):
            opened.append(Event("generated", body={"number": number}))
        yield opened


@pytest.fixture(scope="module")
def aics(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return fetched("aics-tlog", "0.2.1", "aics_tlog", tmp_path_factory.mktemp("wheels"))


def test_another_implementation_computes_the_same_roots(ledger: Ledger) -> None:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in ledger.entries():
        tree.append_entry(entry.leaf.encode())
        if entry.index in (0, 1, 2, 6, 254, 255, 256, 511, 598, 599):
            note = ledger.checkpoint(entry.index + 1)
            assert note is not None
            assert open_checkpoint(note, VKEY).root == tree.get_state()


@pytest.mark.slow
def test_tiles_are_read_and_proved_from_by_another_implementation(
    ledger: Ledger, aics: ModuleType, tmp_path: Path
) -> None:
    published = ledger.publish(Folder(tmp_path), VKEY)
    assert published is not None
    assert published.size == ENTRIES
    reader = aics.FileSystemTileReader(tmp_path)
    note = aics.parse_note((tmp_path / "checkpoint").read_text())
    judged = aics.verify_checkpoint(note, aics.parse_vkey(str(VKEY)), [], quorum=0)
    assert judged.ok
    signed = open_checkpoint((tmp_path / "checkpoint").read_text(), VKEY)
    assert aics.tree_root_from_tiles(reader, ENTRIES) == signed.root
    for index in (0, 255, 256, 511, 512, 599):
        entry = ledger.get(index)
        assert aics.read_entry(reader, index, ENTRIES) == entry.leaf.encode()
        theirs = aics.inclusion_proof_from_tiles(reader, index, ENTRIES)
        ours = [bytes.fromhex(step) for step in ledger.prove(index).path]
        assert theirs == ours
        assert aics.verify_leaf_inclusion(entry.leaf.encode(), index, ENTRIES, ours, signed.root)
        assert not aics.verify_leaf_inclusion(entry.leaf.encode() + b" ", index, ENTRIES, ours, signed.root)
    for old in (1, 255, 256, 300, 512, 599, 600):
        earlier = ledger.checkpoint(old)
        assert earlier is not None
        root = open_checkpoint(earlier, VKEY).root
        assert aics.verify_consistency(old, ENTRIES, root, signed.root, list(ledger.prove_consistency(old)))


def test_receipts_are_accepted_by_another_implementation(ledger: Ledger) -> None:
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for index in (0, 255, 256, 599):
        leaf = ledger.get(index).leaf
        receipt = make_receipt(ledger.prove(index), leaf, KEY, WHEN)
        judged = scitt_cose.verify_receipt(receipt, leaf_entry_hex=leaf.encode().hex(), log_public_key_pem=pem)
        assert judged.ok, judged.errors
        assert (judged.leaf_index, judged.tree_size, judged.issuer) == (index, ENTRIES, ORIGIN)
        claims = verify_receipt(receipt, leaf, KEY.public_key())
        assert claims.root.hex() == judged.root
        assert claims.issued_at == WHEN
        other = leaf.replace('"number"', '"numbed"')
        assert not scitt_cose.verify_receipt(receipt, leaf_entry_hex=other.encode().hex(), log_public_key_pem=pem).ok
        with pytest.raises(LedgerError, match="signature"):
            verify_receipt(receipt, other, KEY.public_key())


def test_receipts_of_another_implementation_are_accepted_by_ours(ledger: Ledger) -> None:
    from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

    leaves = [entry.leaf for entry in ledger.entries(7)]
    receipt = scitt_cose.build_receipt(
        leaf_entry_hex=leaves[3].encode().hex(),
        leaf_index=3,
        tree_entries_hex=[leaf.encode().hex() for leaf in leaves],
        alg="EdDSA",
        log_private_key_pem=KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        iss=ORIGIN,
        sub="entry/3",
        kid=VKEY.key_id,
        iat=int(WHEN.timestamp()),
    )
    claims = verify_receipt(receipt, leaves[3], KEY.public_key())
    assert (claims.index, claims.size, claims.subject) == (3, 7, "entry/3")


def test_cosignatures_agree_with_another_implementation(ledger: Ledger, aics: ModuleType) -> None:
    note = ledger.checkpoint()
    assert note is not None
    text = note.rpartition("\n\n")[0] + "\n"
    ours = WitnessKey.of("witness.example/one", WITNESS)
    cosigned = note + cosign(text, ours.name, WITNESS, WHEN)
    assert str(ours) == str(aics.format_vkey(aics.cosignature_vkey(ours.name, WITNESS.public_key())))
    theirs = aics.parse_vkey(str(ours))
    assert aics.verify_checkpoint(aics.parse_note(cosigned), aics.parse_vkey(str(VKEY)), [theirs], quorum=1).ok
    assert [(c.witness, c.time) for c in cosignatures(cosigned, ours)] == [(ours.name, WHEN)]
    assert WitnessKey.parse(str(ours)) == ours


def test_a_witness_cosigns_what_continues_and_nothing_else(ledger: Ledger) -> None:
    witness = Witness("witness.example/one", WITNESS, {ORIGIN: VKEY})
    notes = {size: ledger.checkpoint(size) or "" for size in (100, 300, 600)}
    first = witness.answer(request_body(0, (), notes[300]), None, WHEN)
    assert first.status == 200
    assert first.store is not None
    assert first.store.size == 300
    proof = ledger.prove_consistency(300)
    assert witness.answer(request_body(300, proof, notes[600]), first.store, WHEN).status == 200
    # Not from where the witness is: it says where that is.
    behind = witness.answer(request_body(0, (), notes[600]), first.store, WHEN)
    assert (behind.status, behind.body, behind.store) == (409, "300\n", None)
    assert witness.answer(request_body(300, (), notes[100]), first.store, WHEN).status == 400
    assert witness.answer(request_body(300, proof[:-1], notes[600]), first.store, WHEN).status == 422
    assert witness.answer(request_body(300, (b"\0" * 32, *proof[1:]), notes[600]), first.store, WHEN).status == 422
    assert witness.answer(request_body(300, (), notes[300]), first.store, WHEN).status == 200  # a second time
    assert witness.answer(request_body(0, (), notes[300].replace("\n300\n", "\n301\n")), None, WHEN).status == 403
    assert Witness("w", WITNESS, {}).answer(request_body(0, (), notes[300]), None, WHEN).status == 404
    for malformed in ("", "old x\n\n" + notes[300], "old 0\n!\n\n" + notes[300], "old 0\n" + notes[300], "x" * 70_000):
        assert witness.answer(malformed, None, WHEN).status == 400


def test_a_witness_refuses_a_second_history(tmp_path: Path, ledger: Ledger) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'fork.db'}", key=KEY, origin=ORIGIN) as fork:
        for number in range(300):
            fork.append(Event("generated", body={"number": -number}))
        other = fork.checkpoint() or ""
    witness = Witness("witness.example/one", WITNESS, {ORIGIN: VKEY})
    seen = witness.answer(request_body(0, (), ledger.checkpoint(300) or ""), None, WHEN).store
    assert witness.answer(request_body(300, (), other), seen, WHEN).status == 409
