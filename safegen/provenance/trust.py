"""Whose signatures and time-stamps count: this home's signers, the C2PA trust lists, and lists of one's own.

A list's copy lies in ``$SAFEGEN_HOME/trust`` once it was updated or added; the official ones also ship with safegen,
with their date. Nothing here uses the network but ``update``, which is called by ``safegen trust update`` alone.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from safegen.errors import ConfigError, InputError
from safegen.files import replace_file
from safegen.keys import KeyStore
from safegen.provenance.certificates import pem_of, read_certificates
from safegen.provenance.signers import Signer
from safegen.settings import Home
from safegen.types import Json

Kind = Literal["signer", "tsa"]

OFFICIAL: Final[Mapping[str, str]] = {
    "c2pa": "https://raw.githubusercontent.com/c2pa-org/conformance-public/main/trust-list/C2PA-TRUST-LIST.pem",
    "c2pa-tsa": "https://raw.githubusercontent.com/c2pa-org/conformance-public/main/trust-list/C2PA-TSA-TRUST-LIST.pem",
}
KINDS: Final[tuple[Kind, ...]] = ("signer", "tsa")
SECONDS: Final = 30.0
MAX_BYTES: Final = 8 << 20
_SAFE_URL: Final = re.compile(r"https://|http://(127\.0\.0\.1|localhost)(:\d+)?/")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class TrustList:
    """Anchors under one name. ``kind``: who signs claims, or whose time-stamps count. ``date``: as of (ISO 8601).

    ``shipped`` is true for the copy that came with safegen.
    """

    name: str
    kind: Kind
    date: str
    source: str
    anchors_pem: str = field(repr=False)
    shipped: bool = False

    @property
    def title(self) -> str:
        """The list's name and date, for people."""
        return f"{self.name} ({self.date[:10]})"

    def describe(self) -> dict[str, Json]:
        """Return what ``safegen trust show`` prints."""
        anchors = x509.load_pem_x509_certificates(self.anchors_pem.encode())
        return {
            "name": self.name,
            "kind": self.kind,
            "date": self.date,
            "source": self.source,
            "shipped": self.shipped,
            "sha256": hashlib.sha256(self.anchors_pem.encode()).hexdigest(),
            "anchors": [
                {"subject": a.subject.rfc4514_string(), "sha256": a.fingerprint(hashes.SHA256()).hex()} for a in anchors
            ],
        }


@dataclass(frozen=True, slots=True)
class Trust:
    """What a reader holds a credential against.

    A credential is this home's own where it lies under ``own_anchors_pem`` *and* its leaf's serial number is one of
    ``own_serials``: a key of ours may be certified by a CA that certifies others too.
    """

    own_anchors_pem: str = ""
    own_serials: frozenset[str] = frozenset()
    lists: tuple[TrustList, ...] = ()

    @classmethod
    def of(cls, home: Home, keys: Sequence[KeyStore]) -> Trust:
        """Return what ``home`` trusts: its key stores, the signers that it has used, and the trust lists."""
        recorded = [read_certificates(p.read_bytes(), str(p)) for p in sorted(_signers(home).glob("*.pem"))]
        anchors = [k.root_pem for k in keys] + [pem_of(chain[-1]) for chain in recorded]
        serials = [k.leaf_serial for k in keys] + [f"{chain[0].serial_number:x}" for chain in recorded]
        return cls("".join(dict.fromkeys(anchors)), frozenset(serials), trust_lists(home))

    def anchors(self, kind: Kind) -> str:
        """Return the anchors of all lists of one kind, as PEM."""
        return "".join(entry.anchors_pem for entry in self.lists if entry.kind == kind)


def own_certificates(home: Home, keys: Sequence[KeyStore]) -> dict[str, str]:
    """Return the chains (PEM) of the home's key stores and of the signers that it has used, by their leaf's SHA-256."""
    pems = [k.certificate_chain_pem for k in keys] + [
        p.read_text("utf-8") for p in sorted(_signers(home).glob("*.pem"))
    ]
    return {read_certificates(pem.encode())[0].fingerprint(hashes.SHA256()).hex(): pem for pem in pems}


def record_signer(home: Home, signer: Signer) -> None:
    """Keep the leaf and the issuer of a signer outside the key store, so that what it signs is known as the home's."""
    leaf = x509.load_pem_x509_certificate(signer.chain_pem.encode())
    path = _signers(home) / f"{leaf.fingerprint(hashes.SHA256()).hex()}.pem"
    if not path.exists():
        _write_file(path, (pem_of(leaf) + signer.issuer_pem).encode())


def trust_lists(home: Home) -> tuple[TrustList, ...]:
    """Return the lists in force: the home's copies, and the shipped ones of which it has none. Sorted by name."""
    found = {entry.name: entry for entry in _shipped()}
    for path in sorted(_folder(home).glob("*.json")):
        entry = _load_list(path)
        found[entry.name] = entry
    return tuple(found[name] for name in sorted(found))


def add_list(
    home: Home, name: str, kind: str, content: bytes, *, source: str, now: dt.datetime, force: bool = False
) -> TrustList:
    """Keep the certificates in ``content`` as the trust list ``name``; with ``force`` in place of one of that name.

    Raises InputError for a bad name, kind or certificate, for the name of an official list and for one that is taken
    by a list of another kind; ConfigError where it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name for a trust list", remedy="Use a to z, digits, dot, dash, underscore.")
    if kind not in KINDS:
        raise InputError(f"there is no kind {kind!r} of trust list", remedy="Use signer or tsa.")
    if name in OFFICIAL:
        raise InputError(f"{name} is an official list", remedy="Use another name; `safegen trust update` replaces it.")
    path = _folder(home) / f"{name}.json"
    if path.exists():
        if (there := _load_list(path)).kind != kind:
            raise InputError(f"there is a list {name} of kind {there.kind} already", remedy="Use another name.")
        if not force:
            raise InputError(f"there is a list {name} already", remedy="Use another name, or replace it with --force.")
    return _keep_list(home, name, kind, content, source=source, now=now)


def _keep_list(home: Home, name: str, kind: str, content: bytes, *, source: str, now: dt.datetime) -> TrustList:
    certificates = read_certificates(content, source)
    for certificate in certificates:
        basic = _basic_constraints(certificate)
        if basic is None or not basic.ca:
            raise InputError(
                f"{certificate.subject.rfc4514_string()} in {source} is no certification authority",
                remedy="A trust list holds roots and issuing CAs, not the certificates that they issue.",
            )
    pem = "".join(map(pem_of, certificates))
    date = now.astimezone(dt.UTC).isoformat(timespec="seconds")
    entry = TrustList(name, "tsa" if kind == "tsa" else "signer", date, source, pem)
    head = {"name": name, "kind": kind, "date": date, "source": source, "anchors": pem}
    _write_file(_folder(home) / f"{name}.json", json.dumps(head, indent=2).encode() + b"\n")
    return entry


def update(home: Home, name: str, *, url: str = "", file: Path | None = None, now: dt.datetime) -> TrustList:
    """Fetch an official list (or what ``url`` names in its place, or what lies in ``file``) and keep it in ``home``.

    The present copy stays where anything fails. Raises InputError for an unknown name, ConfigError where the list
    cannot be fetched, is empty or is no list.
    """
    if name not in OFFICIAL:
        raise InputError(f"there is no official list {name!r}", remedy=f"Use one of {', '.join(OFFICIAL)}.")
    source = url or OFFICIAL[name] if file is None else str(file.absolute())
    content = _fetched(source) if file is None else _read_list(file)
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{source} is longer than {MAX_BYTES} bytes", remedy="That is no trust list.")
    try:
        return _keep_list(home, name, "tsa" if name.endswith("-tsa") else "signer", content, source=source, now=now)
    except InputError as error:
        raise ConfigError(f"{source} is no trust list: {error}", remedy="The list in use stays.") from error


def _read_list(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}", remedy="Give a file with certificates.") from error


def _fetched(source: str) -> bytes:
    if not _SAFE_URL.match(source):
        raise InputError(
            f"{source} is no https:// address", remedy="Who can change a trust list in transit is trusted."
        )
    try:
        with urllib.request.urlopen(source, timeout=SECONDS) as answer:  # noqa: S310 - https, or this machine
            return bytes(answer.read(MAX_BYTES + 1))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot fetch {source}: {error}",
            remedy="The list in use stays. Fetch it elsewhere and name it: `safegen trust update c2pa --file FILE`.",
        ) from error


def _basic_constraints(certificate: x509.Certificate) -> x509.BasicConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        return None


def _shipped() -> list[TrustList]:
    folder = resources.files("safegen.provenance") / "trustlists"
    index: dict[str, dict[str, Any]] = json.loads((folder / "lists.json").read_text("utf-8"))
    return [
        TrustList(
            name, entry["kind"], entry["date"], OFFICIAL[name], _certificates_only(folder / entry["file"]), shipped=True
        )
        for name, entry in index.items()
    ]


def _certificates_only(path: Any) -> str:
    """The PEM blocks without the lines of comment between them."""
    blocks = re.findall(
        r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", path.read_text("utf-8"), re.DOTALL
    )
    return "".join(blocks)


def _load_list(path: Path) -> TrustList:
    try:
        head = json.loads(path.read_text("utf-8"))
        entry = TrustList(*(str(head[name]) for name in ("name", "kind", "date", "source", "anchors")))  # type: ignore[arg-type]
        if entry.kind not in KINDS or entry.name != path.stem:
            raise ValueError("name or kind are wrong")
        read_certificates(entry.anchors_pem.encode(), str(path))
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        raise ConfigError(
            f"the trust list {path} is damaged: {error}", remedy="Delete the file, or add the list again."
        ) from error
    return entry


def _folder(home: Home) -> Path:
    return home.root / "trust"


def _signers(home: Home) -> Path:
    return home.root / "signers"


def _write_file(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error}", remedy="Check the folder's owner and free space.") from error
