"""C2SP signed notes and transparency-log checkpoints (c2sp.org/signed-note, c2sp.org/tlog-checkpoint). No IO.

A checkpoint is the note text ``origin\\nsize\\nbase64(root)\\n`` signed with Ed25519. Anyone who keeps one outside the
ledger can later tell whether the ledger still holds the entries that it covers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from safegen.errors import LedgerError
from safegen.ledger.merkle import HASH_BYTES

_SIGNATURE_BYTES = 64
_MAX_NOTE_CHARACTERS = 1_000_000  # as golang.org/x/mod: room for sixteen signatures of any type
_MAX_SIGNATURES = 100
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_KEY_ID = re.compile(r"[0-9a-f]{8}")
_KEY_ID_BYTES = 4
_KEY_NAME = re.compile(r"[^\s+]+")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@lru_cache(maxsize=64)
def _key_id(name: str, key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + key).digest()[:_KEY_ID_BYTES]


@dataclass(frozen=True, slots=True)
class NoteKey:
    """An Ed25519 public key with the name that it signs notes under; ``str()`` is its vkey text.

    That is ``name+keyid+base64(type||key)``. What signs under it is told by the type byte of the subclass.
    """

    name: str
    public: bytes  # 32 bytes
    kind: ClassVar[bytes]  # signature type of the signed-note specification
    called: ClassVar[str]
    of_kind: ClassVar[str]

    @classmethod
    def of(cls, name: str, key: Ed25519PublicKey | Ed25519PrivateKey) -> Self:
        """Return the key of an Ed25519 key pair; LedgerError if ``name`` is no valid key name."""
        public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
        return cls(check_name(name), public.public_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a vkey; LedgerError if it is malformed, of another type, or its key id does not fit."""
        parts = text.split("+", 2)
        if len(parts) != 3 or not _KEY_ID.fullmatch(parts[1]):
            raise LedgerError(f"not a {cls.called}: expected name+keyid+base64")
        data = _decode(parts[2], cls.called)
        if data[:1] != cls.kind or len(data) != 33:
            raise LedgerError(f"the {cls.called} is not {cls.of_kind}")
        key = cls(check_name(parts[0]), data[1:])
        if key.key_id.hex() != parts[1]:
            raise LedgerError(f"the {cls.called}'s id does not fit its name and key")
        return key

    @property
    def key_id(self) -> bytes:
        """4 bytes: SHA-256(name || 0x0A || type || key)[:4]."""
        return _key_id(self.name, self.kind + self.public)

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(self.kind + self.public).decode()}"


@dataclass(frozen=True, slots=True)
class VerifierKey(NoteKey):
    """A log's key: it signs checkpoints."""

    kind: ClassVar[bytes] = b"\x01"
    called: ClassVar[str] = "verifier key"
    of_kind: ClassVar[str] = "an Ed25519 key"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: the log's origin, its number of entries and its 32-byte root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The note text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read a note text; extension lines are refused, for nothing would audit them. LedgerError if malformed."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] or not lines[0] or not _SIZE.fullmatch(lines[1]):
            raise LedgerError("not a checkpoint: expected the lines origin, size and root")
        root = _decode(lines[2], "checkpoint root")
        if len(root) != HASH_BYTES:
            raise LedgerError("the checkpoint's root is not 32 bytes")
        return cls(lines[0], int(lines[1]), root)


def check_name(name: str) -> str:
    """Return ``name`` if it can name a key and a log: not empty, no Unicode space, no plus, no control character."""
    if name.split() != [name] or "+" in name or not name.isprintable():
        raise LedgerError(
            f"not a log origin: {name!r}", remedy="use a name like example.com/safegen, without spaces or +"
        )
    return name


def default_origin(key: Ed25519PublicKey | Ed25519PrivateKey) -> str:
    """Return an origin that no other key's log has: safegen.local/ and 16 hex digits of the public key's SHA-256."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return f"safegen.local/{hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]}"


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> str:
    """Return the signed note of ``text``, which must end in a newline and be free of other control characters."""
    if not text.endswith("\n") or _CONTROL.search(text):
        raise LedgerError("a note's text must end in a newline and hold no other control character")
    signature = VerifierKey.of(name, key).key_id + key.sign(text.encode())
    return f"{text}\n— {name} {base64.b64encode(signature).decode()}\n"


def open_note(note: str, *keys: VerifierKey) -> str:
    """Return the text of a signed note if one of ``keys`` signed it.

    Signatures of unknown keys are ignored, as the specification demands. LedgerError if the note is malformed, if a
    known key's signature is wrong, or if none of the keys signed.
    """
    if len(note) > _MAX_NOTE_CHARACTERS or _CONTROL.search(note) or not note.endswith("\n"):
        raise LedgerError("not a signed note")
    text, gap, block = note.rpartition("\n\n")
    lines = block.split("\n")[:-1]
    if not gap or not lines or len(lines) > _MAX_SIGNATURES:
        raise LedgerError("not a signed note: no signature lines")
    try:
        message = (text + "\n").encode()
    except UnicodeEncodeError as exc:
        raise LedgerError("not a signed note: not valid UTF-8") from exc
    signed = False
    for line in lines:
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != "—" or not _KEY_NAME.fullmatch(parts[1]):
            raise LedgerError("not a signed note: malformed signature line")
        data = _decode(parts[2], "signature")
        if len(data) <= _KEY_ID_BYTES:
            raise LedgerError("not a signed note: a signature without bytes")
        for key in keys:
            if parts[1] == key.name and data[:_KEY_ID_BYTES] == key.key_id:
                _check_signature(key, data[_KEY_ID_BYTES:], message)
                signed = True
    if not signed:
        raise LedgerError("the note is not signed by a known key")
    return text + "\n"


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """Return the checkpoint as a signed note; the key's name is the origin."""
    return sign_note(checkpoint.text, checkpoint.origin, key)


def open_checkpoint(note: str, key: VerifierKey) -> Checkpoint:
    """Return the checkpoint in ``note`` after checking its signature and that its origin is the key's name."""
    checkpoint = Checkpoint.parse(open_note(note, key))
    if checkpoint.origin != key.name:
        raise LedgerError(f"the checkpoint is of another log: {checkpoint.origin!r}")
    return checkpoint


def _check_signature(key: VerifierKey, signature: bytes, message: bytes) -> None:
    if len(signature) != _SIGNATURE_BYTES:
        raise LedgerError("the note's signature has the wrong length")
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except InvalidSignature as exc:
        raise LedgerError("the note's signature is wrong") from exc


def _decode(text: str, what: str) -> bytes:
    """Decode canonical standard base64."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise LedgerError(f"the {what} is not base64") from exc
    if base64.b64encode(data).decode() != text:
        raise LedgerError(f"the {what} is not canonical base64")
    return data
