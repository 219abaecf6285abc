"""Cosignatures of witnesses on checkpoints (c2sp.org/tlog-cosignature, version 1, Ed25519). No IO.

A witness signs a checkpoint only if it continues the last one that it signed, so a ledger whose checkpoints carry the
cosignatures of witnesses cannot show different histories to different people.
"""

from __future__ import annotations

import base64
import datetime as dt
from dataclasses import dataclass
from typing import ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from safegen.errors import LedgerError
from safegen.ledger.checkpoint import NoteKey

_TIME_BYTES, _SIGNATURE_BYTES = 8, 64
_MAX_TIME = 1 << 40


@dataclass(frozen=True, slots=True)
class WitnessKey(NoteKey):
    """A witness's key: it cosigns the checkpoints of others."""

    kind: ClassVar[bytes] = b"\x04"
    called: ClassVar[str] = "witness key"
    of_kind: ClassVar[str] = "an Ed25519 cosignature key (type 4)"


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A witness saw a checkpoint, at a time, and it continued what the witness had seen before."""

    witness: str
    time: dt.datetime


def cosign(text: str, name: str, key: Ed25519PrivateKey, when: dt.datetime) -> str:
    """Return the signature line of a witness over a checkpoint's note text, with its line break."""
    time = int(when.timestamp())
    if not 0 < time < _MAX_TIME:
        raise LedgerError(f"no time for a cosignature: {when}")
    signature = WitnessKey.of(name, key).key_id + time.to_bytes(_TIME_BYTES, "big") + key.sign(_message(text, time))
    return f"— {name} {base64.b64encode(signature).decode()}\n"


def cosignatures(note: str, *witnesses: WitnessKey) -> tuple[Cosignature, ...]:
    """Return the cosignatures of ``witnesses`` that a signed note carries; lines of others are passed over.

    LedgerError if a line under a known key does not hold.
    """
    text, _, block = note.rpartition("\n\n")
    found = []
    for line in block.split("\n"):
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != "—":
            continue
        for key in witnesses:
            if parts[1] == key.name and (data := _decoded(parts[2]))[:4] == key.key_id:
                found.append(_checked(text + "\n", key, data[4:]))
    return tuple(found)


def _checked(text: str, key: WitnessKey, data: bytes) -> Cosignature:
    if len(data) != _TIME_BYTES + _SIGNATURE_BYTES:
        raise LedgerError(f"the cosignature of {key.name} has the wrong length")
    time = int.from_bytes(data[:_TIME_BYTES], "big")
    if not 0 < time < _MAX_TIME:
        raise LedgerError(f"the cosignature of {key.name} has no usable time")
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(data[_TIME_BYTES:], _message(text, time))
    except InvalidSignature as error:
        raise LedgerError(f"the cosignature of {key.name} is wrong") from error
    return Cosignature(key.name, dt.datetime.fromtimestamp(time, dt.UTC))


def _message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
