"""What can write a manifest into a file: the C2PA library, or the writer of our own. One interface, chosen by name.

Both write from the same ``Statement``; reading and validating is the library's work in either case.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from safegen.errors import ConfigError, MediaError, ProvenanceError, UnreadableMediaError
from safegen.provenance.library import Remembering, library_signer, open_builder
from safegen.provenance.manifest import MediaFormat, Statement
from safegen.provenance.native.boxes import OtherLayoutError
from safegen.provenance.native.cose import ClaimSigner, Evidence
from safegen.provenance.native.ingredients import collect
from safegen.provenance.native.writer import Request, write, write_in_place
from safegen.provenance.signers import Signer
from safegen.provenance.timestamps import RELAY_HOST, Stamping, relay

BACKEND_VARIABLE: Final = "SAFEGEN_C2PA_BACKEND"
DEFAULT_BACKEND: Final = "native"
READ_BACK_VARIABLE: Final = "SAFEGEN_C2PA_READ_BACK"


@dataclass(frozen=True, slots=True)
class Order:
    """One file to be signed: what is said, and who signs it.

    ``anchors_pem``: the roots whose signatures the assertions about ingredients call trusted. ``stamping`` is told of
    the time-stamp, and asked for it where it names authorities. ``staple``: a DER OCSPResponse for the leaf, or none.
    """

    statement: Statement
    signer: Signer
    anchors_pem: str = ""
    stamping: Stamping = field(default_factory=Stamping)
    staple: bytes = b""


class Backend(Protocol):
    """Writes one signed file."""

    @property
    def name(self) -> str:
        """How a setting names it."""
        ...

    @property
    def staples(self) -> bool:
        """Whether it can attach OCSP answers."""
        ...

    def write(self, source: Path, target: BinaryIO, order: Order) -> bytes:
        """Write ``source`` with a signed manifest to ``target``, and return the manifest store (JUMBF).

        ``target`` is open for reading and writing, and empty. Raises SafegenError; ``target`` is then worthless.
        """
        ...

    def sign_in_place(self, path: Path, order: Order) -> bytes | None:
        """Sign the file itself, where there is room in it, and return the manifest store; None where that cannot be.

        Raises SafegenError. The file then is, as where None is returned, what it was before.
        """
        ...


@dataclass(frozen=True, slots=True)
class LibraryBackend:
    """c2pa-python: every format it knows; reads and writes a file several times."""

    name: str = "c2pa-python"
    staples: bool = False

    def write(self, source: Path, target: BinaryIO | None, order: Order) -> bytes:
        """See ``Backend.write``. Without ``target`` the store is made for a file of its own, beside ``source``."""
        manifest, call = order.statement.manifest(), Remembering(order.signer)
        try:
            with (
                relay(order.stamping) as url,
                library_signer(order.signer, call, url) as signer,
                open_builder(manifest, order.anchors_pem, hosts=(RELAY_HOST,) if url else ()) as builder,
                source.open("rb") as stream,
            ):
                if target is None:
                    builder.set_no_embed()
                    target = io.BytesIO()
                return bytes(builder.sign(signer, manifest.media_format, stream, target))
        except c2pa.C2paError as error:
            if call.problem is not None:
                raise call.problem from call.problem.__cause__
            if order.stamping.unavailable:
                raise order.stamping.error() from error
            raise ProvenanceError(
                f"signing {source} failed: {error}",
                remedy=f"The file must be {manifest.media_format}, and the keys intact (`safegen keys show`).",
            ) from error

    def sign_in_place(self, path: Path, order: Order) -> bytes | None:
        """See ``Backend.sign_in_place``: never."""
        return None


@dataclass(frozen=True, slots=True)
class NativeBackend:
    """The writer of our own: MP4, MOV, PNG and JPEG in one pass, with byte strings, OCSP staple and time-stamp.

    Files whose layout it does not know are left to the library.
    """

    evidence: Evidence = field(default_factory=Evidence)
    name: str = "native"
    staples: bool = True

    def write(self, source: Path, target: BinaryIO, order: Order) -> bytes:
        """See ``Backend.write``."""
        try:
            return write(source, target, self._request(order)).manifest_bytes
        except OtherLayoutError as error:
            if order.staple:  # which the library would leave out
                raise ProvenanceError(f"signing {source} failed: {error}", remedy=error.remedy) from error
            target.seek(0)
            target.truncate()
            return LIBRARY.write(source, target, order)
        except UnreadableMediaError as error:
            raise ProvenanceError(f"signing {source} failed: {error}", remedy=error.remedy) from error

    def sign_in_place(self, path: Path, order: Order) -> bytes | None:
        """See ``Backend.sign_in_place``: MP4 and MOV whose muxer left room before the media."""
        try:
            return write_in_place(path, self._request(order)).manifest_bytes
        except (MediaError, OtherLayoutError):
            return None
        except UnreadableMediaError as error:
            raise ProvenanceError(f"signing {path} failed: {error}", remedy=error.remedy) from error

    def _request(self, order: Order) -> Request:
        evidence = self.evidence
        if order.staple:
            evidence = replace(evidence, ocsp=order.staple)
        if order.stamping.wanted:
            evidence = replace(evidence, timestamp=order.stamping.token)
        ingredients = collect(order.statement.manifest().ingredients, order.anchors_pem)
        return Request(order.statement, _claim_signer(order.signer), ingredients, evidence)


_COSE: Final = {"es256": -7, "es384": -35, "es512": -36, "ps256": -37, "ed25519": -8}


def _claim_signer(signer: Signer) -> ClaimSigner:
    chain = x509.load_pem_x509_certificates(signer.chain_pem.encode())
    key: Any = chain[0].public_key()
    size = 64 if signer.algorithm == "ed25519" else (key.key_size + 7) // 8 * (1 if signer.algorithm == "ps256" else 2)
    der = tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
    return ClaimSigner(_COSE[signer.algorithm], der, size, signer.sign)


LIBRARY: Final = LibraryBackend()
BACKENDS: Final[dict[str, Backend]] = {b.name: b for b in (LIBRARY, NativeBackend())}


@dataclass(frozen=True, slots=True)
class Signing:
    """How files are signed: by what, and whether each is read back and validated before it is handed over."""

    backend: Backend = BACKENDS[DEFAULT_BACKEND]
    read_back: bool = True

    @classmethod
    def from_environment(cls) -> Signing:
        """``$SAFEGEN_C2PA_BACKEND`` (native, c2pa-python) and ``$SAFEGEN_C2PA_READ_BACK`` (1, 0); else the defaults.

        Raises ConfigError for any other value.
        """
        name = os.environ.get(BACKEND_VARIABLE) or DEFAULT_BACKEND
        read_back = os.environ.get(READ_BACK_VARIABLE) or "1"
        if name not in BACKENDS:
            raise ConfigError(f"{BACKEND_VARIABLE} is {name!r}", remedy=f"Set it to one of: {', '.join(BACKENDS)}.")
        if read_back not in ("0", "1"):
            raise ConfigError(f"{READ_BACK_VARIABLE} is {read_back!r}", remedy="Set it to 1 (read back) or 0 (do not).")
        return cls(BACKENDS[name], read_back == "1")

    def backend_for(self, media_format: str) -> Backend:
        """Return what writes files of a media type: the library where the writer of our own does not know it."""
        return self.backend if media_format in set(MediaFormat) else LIBRARY
