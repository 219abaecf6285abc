"""The key store on disk: its files, its life cycle, and what may be shown of it."""

from __future__ import annotations

import datetime as dt
import json
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, NoReturn, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from safegen.errors import KeyStoreError
from safegen.files import fsync_folder
from safegen.keys import wrapping
from safegen.keys.commitment import KEY_BYTES
from safegen.keys.files import check_mode, occupied, read_private, write_private
from safegen.keys.pki import issue_pki, private_pem, public_id, public_pem, symmetric_id
from safegen.settings import Home
from safegen.types import Json

Purpose = Literal["sign", "verify"]
_T = TypeVar("_T")

STORE_VERSION: Final = 1

_STORE: Final = "store.json"
_CHAIN: Final = "chain.pem"
_ROOT: Final = "root.pem"
_SIGNING: Final = "signing.key"
_LEDGER: Final = "ledger.key"
_LEDGER_PUBLIC: Final = "ledger.pub"
_WATERMARK: Final = "watermark.key"
_COMMITMENT: Final = "commitment.key"
_FOR_VERIFY: Final = (_STORE, _CHAIN, _ROOT, _LEDGER_PUBLIC, _WATERMARK)
_FOR_SIGN: Final = (*_FOR_VERIFY, _SIGNING, _LEDGER, _COMMITMENT)

_INIT: Final = "Run `safegen keys init` to make a key store."
_INIT_FORCE: Final = (
    "Run `safegen keys init --force`: the present folder is set aside, not deleted, and stays usable for verification."
)
_RENEW: Final = "Run `safegen keys renew`: a new certificate is issued, and all other keys stay."


@dataclass(frozen=True, slots=True)
class KeyIds:
    """Public names of the keys: 16 hex digits each, safe to print, log and store."""

    signing: str
    ledger: str
    watermark: str
    commitment: str


@dataclass(frozen=True, slots=True, repr=False)
class KeyStore:
    """The keys of one home, read into memory.

    ``certificate_chain_pem`` is leaf then issuing CA, ``root_pem`` the trust anchor. ``watermark_key`` has 32 bytes.
    ``ledger_name`` is the origin line of ledger checkpoints. The private keys that only signing needs are behind
    ``signing_key``, ``ledger_key`` and ``commitment_key``; these raise KeyStoreError where the file is absent.
    """

    folder: Path
    organisation: str
    created: str
    certificate_chain_pem: str
    root_pem: str
    ledger_name: str
    ledger_public_key: Ed25519PublicKey
    watermark_key: bytes
    ids: KeyIds
    _signing_key: bytes | None
    _ledger_key: Ed25519PrivateKey | None
    _commitment_key: bytes | None

    @classmethod
    def init(cls, home: Home, *, organisation: str = "safegen development", force: bool = False) -> KeyStore:
        """Make fresh keys in ``home.keys`` and return them.

        With ``force`` an existing folder is renamed to ``keys.retired-<time>`` and never deleted: marks, manifests and
        checkpoints made with the old keys stay verifiable through ``KeyStore.retired``. The ledger key is carried over
        where it can be read, because a ledger is one log under one key, and so is what wraps the keys of its personal
        fields. Raises KeyStoreError if keys exist and ``force`` is false, or if the folder cannot be written.
        """
        target = home.keys
        if not force and occupied(target):
            raise KeyStoreError(f"there are keys in {target} already", remedy=_INIT_FORCE)
        return cls._place(home, _fresh_files(organisation, _readable_ledger_key(home) | _wrapping_key(home)))

    @classmethod
    def renew(cls, home: Home) -> KeyStore:
        """Issue a new claim-signing certificate under a new root; ledger, watermark and commitment keys stay the same.

        For an expired certificate: the ledger goes on under its name and old marks stay readable by the present store.
        The old folder is set aside as in ``init``. Raises KeyStoreError if the other keys cannot be read.
        """
        old = cls.load(home, purpose="verify")
        carried = {
            name: read_private(home.keys / name, _INIT_FORCE)
            for name in (_LEDGER, _LEDGER_PUBLIC, _WATERMARK, _COMMITMENT)
        } | _wrapping_key(home)
        return cls._place(home, _fresh_files(old.organisation, carried))

    @classmethod
    def _place(cls, home: Home, files: Mapping[str, bytes]) -> KeyStore:
        target = home.keys
        aside: Path | None = None
        building: Path | None = None
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            building = Path(tempfile.mkdtemp(prefix="keys.new-", dir=target.parent))  # mkdtemp makes it 0700
            for name, content in files.items():
                write_private(building / name, content)
            fsync_folder(building)
            if occupied(target):
                aside = _retired_name(target)
                target.rename(aside)
            building.rename(target)
            fsync_folder(target.parent)
        except OSError as error:
            raise KeyStoreError(
                f"cannot write keys to {target}: {error}",
                remedy="Check the folder's owner and the free space, or set SAFEGEN_HOME to another folder.",
            ) from error
        finally:  # an interrupt too must leave either the old keys or the new ones in place
            if aside is not None and not target.exists():
                aside.rename(target)
            if building is not None:
                shutil.rmtree(building, ignore_errors=True)
        return cls.load(home)

    @classmethod
    def load(cls, home: Home, *, purpose: Purpose = "sign") -> KeyStore:
        """Read the key store of ``home``.

        ``purpose="sign"`` wants every file and a certificate that is valid now. ``purpose="verify"`` wants public parts
        and the watermark key, and does not mind an expired certificate. Raises KeyStoreError with what is wrong.
        """
        return _load(home.keys, purpose)

    @classmethod
    def retired(cls, home: Home) -> tuple[KeyStore, ...]:
        """Return the stores set aside by ``init(force=True)`` and ``renew``, newest first, for verification."""
        folders = sorted(home.root.glob(f"{home.keys.name}.retired-*"), reverse=True)
        return tuple(_load(folder, "verify") for folder in folders)

    @property
    def signing_key(self) -> bytes:
        """The claim-signing private key, PKCS#8 PEM."""
        return self._need(self._signing_key, _SIGNING)

    @property
    def ledger_key(self) -> Ed25519PrivateKey:
        """The key that signs ledger checkpoints."""
        return self._need(self._ledger_key, _LEDGER)

    @property
    def commitment_key(self) -> bytes:
        """The 32-byte key of salted commitments to prompts."""
        return self._need(self._commitment_key, _COMMITMENT)

    @property
    def leaf_fingerprint(self) -> str:
        """SHA-256 of the claim-signing certificate's DER, 64 hex digits."""
        return self._leaf().fingerprint(hashes.SHA256()).hex()

    @property
    def leaf_serial(self) -> str:
        """Serial number of the claim-signing certificate, lower-case hex: ``Credential.leaf_serial`` of our files."""
        return f"{self._leaf().serial_number:x}"

    @property
    def leaf_valid_until(self) -> dt.datetime:
        """When the claim-signing certificate expires (UTC)."""
        return self._leaf().not_valid_after_utc

    def describe(self) -> dict[str, Json]:
        """Return what may be shown to anyone: names, fingerprints, validity. No private material."""
        leaf = self._leaf()
        root = x509.load_pem_x509_certificate(self.root_pem.encode())
        return {
            "folder": str(self.folder),
            "created": self.created,
            "purpose": "development: self-signed, trusted by no verifier but this home",
            "key_protection": "software (unencrypted files, readable by their owner only)",
            "certificate": {
                "subject": leaf.subject.rfc4514_string(),
                "issuer": leaf.issuer.rfc4514_string(),
                "sha256": self.leaf_fingerprint,
                "not_before": leaf.not_valid_before_utc.isoformat(),
                "not_after": leaf.not_valid_after_utc.isoformat(),
                "valid_now": leaf.not_valid_before_utc <= _now() <= leaf.not_valid_after_utc,
            },
            "root": {"subject": root.subject.rfc4514_string(), "sha256": root.fingerprint(hashes.SHA256()).hex()},
            "ledger_name": self.ledger_name,
            "key_ids": asdict(self.ids),
            "can_sign": self._signing_key is not None,
        }

    def __repr__(self) -> str:
        return f"KeyStore({str(self.folder)!r}, {self.ids!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KeyStore is not pickled: private keys stay in their folder")

    def _leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate_chain_pem.encode())

    def _need(self, value: _T | None, name: str) -> _T:
        if value is None:
            raise KeyStoreError(f"{self.folder / name} is missing: these keys can verify but not sign", remedy=_INIT)
        return value


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _fresh_files(organisation: str, carried: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """Return the content of every file of a new store; ``carried`` replaces freshly drawn keys."""
    ledger = Ed25519PrivateKey.generate()
    pki = issue_pki(organisation, _now())
    files = {
        _ROOT: pki.root,
        _CHAIN: pki.chain,
        _SIGNING: pki.signing_key,
        _LEDGER: private_pem(ledger),
        _LEDGER_PUBLIC: public_pem(ledger.public_key()),
        _WATERMARK: secrets.token_hex(KEY_BYTES).encode() + b"\n",
        _COMMITMENT: secrets.token_hex(KEY_BYTES).encode() + b"\n",
    }
    files |= carried or {}
    ids = KeyIds(
        signing=public_id(x509.load_pem_x509_certificate(files[_CHAIN]).public_key()),
        ledger=public_id(serialization.load_pem_public_key(files[_LEDGER_PUBLIC])),
        watermark=symmetric_id(bytes.fromhex(files[_WATERMARK].decode()), "watermark"),
        commitment=symmetric_id(bytes.fromhex(files[_COMMITMENT].decode()), "commitment"),
    )
    store = {
        "version": STORE_VERSION,
        "created": _now().isoformat(timespec="seconds"),
        "organisation": organisation,
        "ledger_name": f"safegen.local/{ids.ledger[:8]}",
        "key_ids": asdict(ids),
    }
    files[_STORE] = json.dumps(store, indent=2).encode() + b"\n"
    return files


def _retired_name(folder: Path) -> Path:
    stamp = _now().strftime("%Y%m%dT%H%M%S.%fZ")
    return folder.with_name(f"{folder.name}.retired-{stamp}")


def _load(folder: Path, purpose: Purpose) -> KeyStore:
    signing = purpose == "sign"
    if not folder.is_dir():
        raise KeyStoreError(f"there is no key store at {folder}", remedy=_INIT)
    check_mode(folder, 0o700)
    raw: dict[str, bytes] = {}
    for name in _FOR_SIGN:
        path = folder / name
        if not path.is_file():
            if signing or name in _FOR_VERIFY:
                remedy = f"Put {name} back from a backup, or: {_INIT_FORCE}"
                raise KeyStoreError(f"the key store lacks {path}", remedy=remedy)
            continue
        check_mode(path, 0o600)
        raw[name] = read_private(path, _INIT_FORCE)
    try:
        store = _parse(folder, raw)
    except KeyStoreError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise KeyStoreError(
            f"a file in {folder} is damaged: {error or type(error).__name__}",
            remedy=f"Put the folder back from a backup, or: {_INIT_FORCE}",
        ) from error
    if signing:
        _check_validity(store)
    return store


def _parse(folder: Path, raw: Mapping[str, bytes]) -> KeyStore:
    """Build the store from file contents and hold every key against its recorded id."""
    head = json.loads(raw[_STORE])
    if head["version"] != STORE_VERSION:
        raise KeyStoreError(
            f"{folder / _STORE} has version {head['version']!r}; this safegen reads {STORE_VERSION}",
            remedy="Use the version of safegen that made the keys.",
        )
    ids = KeyIds(**{name: str(value) for name, value in head["key_ids"].items()})
    root = x509.load_pem_x509_certificate(raw[_ROOT])
    chain = x509.load_pem_x509_certificates(raw[_CHAIN])
    for certificate, issuer in zip(chain, [*chain[1:], root], strict=True):
        certificate.verify_directly_issued_by(issuer)
    ledger_public = serialization.load_pem_public_key(raw[_LEDGER_PUBLIC])
    if not isinstance(ledger_public, Ed25519PublicKey):
        raise TypeError(f"{_LEDGER_PUBLIC} holds no Ed25519 key")
    watermark = _symmetric(raw[_WATERMARK], _WATERMARK)
    commitment = _symmetric(raw[_COMMITMENT], _COMMITMENT) if _COMMITMENT in raw else None
    found = {
        "signing": {public_id(chain[0].public_key())},
        "ledger": {public_id(ledger_public)},
        "watermark": {symmetric_id(watermark, "watermark")},
        "commitment": {ids.commitment if commitment is None else symmetric_id(commitment, "commitment")},
    }
    if _SIGNING in raw:
        key = serialization.load_pem_private_key(raw[_SIGNING], None)
        found["signing"].add(public_id(key.public_key()))
    ledger: Ed25519PrivateKey | None = None
    if _LEDGER in raw:
        loaded = serialization.load_pem_private_key(raw[_LEDGER], None)
        if not isinstance(loaded, Ed25519PrivateKey):
            raise TypeError(f"{_LEDGER} holds no Ed25519 key")
        ledger = loaded
        found["ledger"].add(public_id(ledger.public_key()))
    for name, values in found.items():
        if values != {getattr(ids, name)}:
            raise ValueError(f"the {name} key is not the one that {_STORE} names")
    return KeyStore(
        folder=folder,
        organisation=str(head["organisation"]),
        created=str(head["created"]),
        certificate_chain_pem=raw[_CHAIN].decode(),
        root_pem=raw[_ROOT].decode(),
        ledger_name=str(head["ledger_name"]),
        ledger_public_key=ledger_public,
        watermark_key=watermark,
        ids=ids,
        _signing_key=raw.get(_SIGNING),
        _ledger_key=ledger,
        _commitment_key=commitment,
    )


def _readable_ledger_key(home: Home) -> dict[str, bytes]:
    """Return the ledger's key files as they are, or nothing where they are absent or damaged."""
    try:
        KeyStore.load(home, purpose="verify")
        return {name: read_private(home.keys / name, _INIT_FORCE) for name in (_LEDGER, _LEDGER_PUBLIC)}
    except KeyStoreError:
        return {}


def _wrapping_key(home: Home) -> dict[str, bytes]:
    """Return the file that opens the ledger's personal fields as it is, nothing where there is none."""
    path = home.keys / wrapping.FILE
    return {wrapping.FILE: read_private(path, _INIT_FORCE)} if path.is_file() else {}


def _check_validity(store: KeyStore) -> None:
    leaf = x509.load_pem_x509_certificate(store.certificate_chain_pem.encode())
    now, start, end = _now(), leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now > end:
        raise KeyStoreError(f"the signing certificate in {store.folder} expired on {end:%Y-%m-%d}", remedy=_RENEW)
    if now < start:
        raise KeyStoreError(
            f"the signing certificate in {store.folder} is not valid before {start:%Y-%m-%d %H:%M} UTC",
            remedy=f"Check this machine's clock. If it is right: {_INIT_FORCE}",
        )


def _symmetric(raw: bytes, name: str) -> bytes:
    key = bytes.fromhex(raw.decode("ascii"))
    if len(key) != KEY_BYTES:
        raise ValueError(f"{name} holds {len(key)} bytes instead of {KEY_BYTES}")
    return key
