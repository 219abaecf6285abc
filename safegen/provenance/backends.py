"""What can write a manifest into a file: the C2PA library, or the writer of our own. One interface, chosen by name.

Both write from the same ``ManifestSpec``; reading and validating is the library's work in either case.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from safegen.errors import ConfigError, ProvenanceError, UnreadableMediaError
from safegen.keys import KeyStore
from safegen.provenance.engine import guess_format, make_context
from safegen.provenance.manifest import InputFile, ManifestSpec
from safegen.provenance.native.cose import ClaimSigner, Evidence
from safegen.provenance.native.ingredients import collect
from safegen.provenance.native.writer import Request, write
from safegen.provenance.signers import CallbackSigner, Signer, store_signer
from safegen.provenance.timestamps import RELAY_HOST, Stamping, relay

BACKEND_VARIABLE: Final = "SAFEGEN_C2PA_BACKEND"
DEFAULT_BACKEND: Final = "c2pa-python"
READ_BACK_VARIABLE: Final = "SAFEGEN_C2PA_READ_BACK"


class Backend(Protocol):
    """Writes one signed file."""

    @property
    def name(self) -> str:
        """How a setting names it."""
        ...

    def write(
        self,
        source: Path,
        target: BinaryIO,
        spec: ManifestSpec,
        keys: KeyStore,
        signer: Signer | None = None,
        stamping: Stamping | None = None,
    ) -> bytes:
        """Write ``source`` with a signed manifest to ``target``, and return the manifest store (JUMBF).

        ``target`` is open for reading and writing, and empty. ``signer`` is that of ``keys`` by default; ``stamping``
        is told of the time-stamp and asked for it where it names authorities. Raises SafegenError; ``target`` is then
        worthless.
        """
        ...


@dataclass(frozen=True, slots=True)
class LibraryBackend:
    """c2pa-python: every format it knows; reads and writes a file several times."""

    name: str = "c2pa-python"

    def write(
        self,
        source: Path,
        target: BinaryIO,
        spec: ManifestSpec,
        keys: KeyStore,
        signer: Signer | None = None,
        stamping: Stamping | None = None,
    ) -> bytes:
        """See ``Backend.write``."""
        signer, stamping = signer or store_signer(keys), stamping or Stamping()
        call = Remembering(signer)
        try:
            with (
                relay(stamping) as url,
                library_signer(signer, call, url) as made,
                c2pa.Builder(
                    json.dumps(spec.definition()),
                    make_context(keys.root_pem, hosts=(RELAY_HOST,) if url else ()),
                ) as builder,
                source.open("rb") as stream,
            ):
                for ingredient in spec.ingredients:
                    _add(builder, ingredient)
                return bytes(builder.sign(made, str(spec.media_format), stream, target))
        except c2pa.C2paError as error:
            if call.problem is not None:
                raise call.problem from call.problem.__cause__
            if stamping.unavailable:
                raise stamping.error() from error
            raise ProvenanceError(
                f"signing {source} failed: {error}",
                remedy=f"The file must be {spec.media_format}, and the keys intact (`safegen keys show`).",
            ) from error


def library_signer(signer: Signer, call: Remembering, url: str | None) -> Any:
    """Return the library's signer. For a callback it keeps 11 kB more free in the file than for a key that it has."""
    if isinstance(signer, CallbackSigner) and signer.key_pem:
        info = (signer.algorithm.encode(), signer.chain_pem.encode(), signer.key_pem, url.encode() if url else None)
        return c2pa.Signer.from_info(c2pa.C2paSignerInfo(*info))
    return c2pa.Signer.from_callback(call, c2pa.C2paSigningAlg[signer.algorithm.upper()], signer.chain_pem, url)


class Remembering:
    """The signer as the library calls it. The library only logs what a callback raises: it is kept here instead."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self.problem: BaseException | None = None

    def __call__(self, data: bytes) -> bytes:
        """Sign; nothing where that failed."""
        try:
            return self._signer.sign(data)
        except BaseException as error:  # Ctrl-C too must not vanish in foreign code
            self.problem = error
            return b""


def _add(builder: Any, ingredient: InputFile) -> None:
    """Add an input as a stream, so that its manifests come along; inputs that cannot carry any are named only."""
    try:
        with ingredient.path.open("rb") as stream:
            builder.add_ingredient(json.dumps(ingredient.definition()), guess_format(ingredient.path), stream)
    except (OSError, c2pa.C2paError) as error:
        raise ProvenanceError(
            f"cannot record the input {ingredient.path}: {error}",
            remedy="Give an intact image or video file; if its credential is damaged, a copy without it.",
        ) from error


@dataclass(frozen=True, slots=True)
class NativeBackend:
    """The writer of our own: MP4, MOV, PNG and JPEG in one pass, with byte strings, OCSP staple and time-stamp."""

    evidence: Evidence = field(default_factory=Evidence)
    name: str = "native"

    def write(
        self,
        source: Path,
        target: BinaryIO,
        spec: ManifestSpec,
        keys: KeyStore,
        signer: Signer | None = None,
        stamping: Stamping | None = None,
    ) -> bytes:
        """See ``Backend.write``."""
        claim_signer = _claim_signer(signer or store_signer(keys))
        ingredients = collect(spec.ingredients, keys.root_pem)
        evidence = self.evidence
        if stamping is not None and stamping.wanted:
            evidence = replace(evidence, timestamp=stamping.token)
        try:
            return write(source, target, Request(spec, claim_signer, ingredients, evidence)).manifest_bytes
        except UnreadableMediaError as error:
            raise ProvenanceError(f"signing {source} failed: {error}", remedy=error.remedy) from error


_COSE: Final = {"es256": -7, "es384": -35, "es512": -36, "ps256": -37, "ed25519": -8}


def _claim_signer(signer: Signer) -> ClaimSigner:
    chain = x509.load_pem_x509_certificates(signer.chain_pem.encode())
    key: Any = chain[0].public_key()
    size = 64 if signer.algorithm == "ed25519" else (key.key_size + 7) // 8 * (1 if signer.algorithm == "ps256" else 2)
    der = tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
    return ClaimSigner(_COSE[signer.algorithm], der, size, signer.sign)


BACKENDS: Final[dict[str, Backend]] = {b.name: b for b in (LibraryBackend(), NativeBackend())}


@dataclass(frozen=True, slots=True)
class Signing:
    """How files are signed: by what, and whether each is read back and validated before it is handed over."""

    backend: Backend = BACKENDS[DEFAULT_BACKEND]
    read_back: bool = True

    @classmethod
    def from_environment(cls) -> Signing:
        """``$SAFEGEN_C2PA_BACKEND`` (c2pa-python, native) and ``$SAFEGEN_C2PA_READ_BACK`` (1, 0); else the defaults.

        Raises ConfigError for any other value.
        """
        name = os.environ.get(BACKEND_VARIABLE) or DEFAULT_BACKEND
        read_back = os.environ.get(READ_BACK_VARIABLE) or "1"
        if name not in BACKENDS:
            raise ConfigError(f"{BACKEND_VARIABLE} is {name!r}", remedy=f"Set it to one of: {', '.join(BACKENDS)}.")
        if read_back not in ("0", "1"):
            raise ConfigError(f"{READ_BACK_VARIABLE} is {read_back!r}", remedy="Set it to 1 (read back) or 0 (do not).")
        return cls(BACKENDS[name], read_back == "1")
