"""COSE Receipts (RFC 9942): an inclusion proof as one CBOR object, for verifiers of SCITT (RFC 9943). No IO.

A receipt says the same as a C2SP proof and can ride in a COSE header or a C2PA assertion. Its signature is over the
tree's root, which its reader computes from the leaf and the path; the payload is therefore detached.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from safegen.errors import LedgerError
from safegen.ledger import merkle
from safegen.ledger.checkpoint import VerifierKey
from safegen.ledger.proof import InclusionProof, verify_inclusion

ALG: Final = 1
KEY_ID: Final = 4
CLAIMS: Final = 15
STRUCTURE: Final = 395
PROOFS: Final = 396
EDDSA: Final = -8
RFC9162_SHA256: Final = 1
INCLUSION: Final = -1
_ISSUER, _SUBJECT, _ISSUED_AT = 1, 2, 6
_TAG: Final = 18  # COSE_Sign1
_MAX_BYTES: Final = 1 << 14
_MAX_PATH: Final = 64


@dataclass(frozen=True, slots=True)
class ReceiptClaims:
    """What a verified receipt says: where the leaf lies, in a tree of which size and root, and who says so when."""

    index: int
    size: int
    root: bytes
    issuer: str
    subject: str
    issued_at: dt.datetime


def make_receipt(proof: InclusionProof, leaf: str, key: Ed25519PrivateKey, when: dt.datetime) -> bytes:
    """Return the receipt of an entry from its inclusion proof, signed with the ledger's key.

    The issuer is the ledger's origin, the subject ``entry/<index>``. LedgerError if the proof does not hold under
    ``key``: a receipt states nothing that no checkpoint states.
    """
    origin = proof.checkpoint.partition("\n")[0]
    verifier = VerifierKey.of(origin, key)
    if not verify_inclusion(proof, leaf, verifier):
        raise LedgerError("the inclusion proof does not hold under this key", remedy="Prove the entry again.")
    path = [bytes.fromhex(h) for h in proof.path]
    root = _root(proof.index, proof.size, bytes.fromhex(proof.leaf_hash), path)
    claims = {_ISSUER: origin, _SUBJECT: f"entry/{proof.index}", _ISSUED_AT: int(when.timestamp())}
    protected = _dump({ALG: EDDSA, KEY_ID: verifier.key_id, CLAIMS: claims, STRUCTURE: RFC9162_SHA256})
    unprotected = {PROOFS: {INCLUSION: [_dump([proof.size, proof.index, path])]}}
    signature = key.sign(_dump(["Signature1", protected, b"", root]))
    return _dump(cbor2.CBORTag(_TAG, [protected, unprotected, None, signature]))


def verify_receipt(receipt: bytes, leaf: str | bytes, key: Ed25519PublicKey) -> ReceiptClaims:
    """Check a receipt for ``leaf`` (an entry's canonical JSON) under the ledger's key; LedgerError says what fails."""
    protected, unprotected, signature = _parts(receipt)
    header = _map(_load(protected), "protected header")
    if header.get(ALG) != EDDSA or header.get(STRUCTURE) != RFC9162_SHA256 or 2 in header:  # 2: crit
        raise LedgerError("the receipt is not one of an RFC 9162 tree signed with Ed25519")
    size, index, path = _proof(_map(unprotected.get(PROOFS), "proofs").get(INCLUSION))
    digest = merkle.leaf_hash(leaf.encode("utf-8", "surrogateescape") if isinstance(leaf, str) else leaf)
    root = _root(index, size, digest, path)
    try:
        key.verify(signature, _dump(["Signature1", protected, b"", root]))
    except InvalidSignature as error:
        raise LedgerError("the receipt's signature does not hold for this entry") from error
    claims = _map(header.get(CLAIMS), "claims")
    issuer, subject, issued = (claims.get(name) for name in (_ISSUER, _SUBJECT, _ISSUED_AT))
    if not isinstance(issuer, str) or not isinstance(subject, str) or type(issued) is not int or not 0 <= issued < 1e11:
        raise LedgerError("the receipt lacks its issuer, subject or time")
    return ReceiptClaims(index, size, root, issuer, subject, dt.datetime.fromtimestamp(issued, dt.UTC))


def _root(index: int, size: int, digest: bytes, path: list[bytes]) -> bytes:
    root = merkle.root_from_path(index, size, digest, path)
    if root is None:
        raise LedgerError("the inclusion path does not fit its index and size")
    return root


def _parts(receipt: bytes) -> tuple[bytes, dict[Any, Any], bytes]:
    if len(receipt) > _MAX_BYTES:
        raise LedgerError(f"not a receipt: over {_MAX_BYTES} bytes")
    message = _load(receipt)
    parts = message.value if isinstance(message, cbor2.CBORTag) and message.tag == _TAG else None
    if not isinstance(parts, list | tuple) or len(parts) != 4 or parts[2] is not None:
        raise LedgerError("not a receipt: expected COSE_Sign1 with a detached payload")
    protected, unprotected, _, signature = parts
    if not isinstance(protected, bytes) or not isinstance(signature, bytes):
        raise LedgerError("not a receipt: its header or signature is no byte string")
    return protected, _map(unprotected, "unprotected header"), signature


def _proof(proofs: object) -> tuple[int, int, list[bytes]]:
    if not isinstance(proofs, list | tuple) or len(proofs) != 1 or not isinstance(proofs[0], bytes):
        raise LedgerError("the receipt holds no inclusion proof, or several")
    parts = _load(proofs[0])
    if not isinstance(parts, list | tuple) or len(parts) != 3:
        raise LedgerError("the receipt's inclusion proof is malformed")
    size, index, path = parts
    whole = type(size) is int and type(index) is int and isinstance(path, list | tuple) and len(path) <= _MAX_PATH
    if not whole or not all(isinstance(step, bytes) for step in path):
        raise LedgerError("the receipt's inclusion proof is malformed")
    return size, index, list(path)


def _map(value: object, what: str) -> dict[Any, Any]:
    if not hasattr(value, "items"):
        raise LedgerError(f"the receipt's {what} is no map")
    return dict(value.items())


def _load(data: bytes) -> Any:
    try:
        value = cbor2.loads(data)
    except Exception as error:
        raise LedgerError("the receipt is not CBOR") from error
    return value


def _dump(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)
