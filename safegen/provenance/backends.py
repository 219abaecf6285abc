"""What can write a manifest into a file: the C2PA library, or the writer of our own. One interface, chosen by name.

Both write from the same ``ManifestSpec``; reading and validating is the library's work in either case.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import c2pa

from safegen.errors import ConfigError, ProvenanceError, UnreadableMediaError
from safegen.keys import KeyStore
from safegen.provenance.engine import guess_format, make_context
from safegen.provenance.manifest import InputFile, ManifestSpec
from safegen.provenance.native.cose import ClaimSigner, Evidence
from safegen.provenance.native.ingredients import collect
from safegen.provenance.native.writer import Request, write

BACKEND_VARIABLE: Final = "SAFEGEN_C2PA_BACKEND"
READ_BACK_VARIABLE: Final = "SAFEGEN_C2PA_READ_BACK"


class Backend(Protocol):
    """Writes one signed file."""

    @property
    def name(self) -> str:
        """How a setting names it."""
        ...

    def write(self, source: Path, target: BinaryIO, spec: ManifestSpec, keys: KeyStore) -> bytes:
        """Write ``source`` with a manifest signed by ``keys`` to ``target``, and return the manifest store (JUMBF).

        ``target`` is open for reading and writing, and empty. Raises SafegenError; ``target`` is then worthless.
        """
        ...


@dataclass(frozen=True, slots=True)
class LibraryBackend:
    """c2pa-python: every format it knows; reads and writes a file several times."""

    name: str = "c2pa-python"

    def write(self, source: Path, target: BinaryIO, spec: ManifestSpec, keys: KeyStore) -> bytes:
        """See ``Backend.write``."""
        info = (b"es256", keys.certificate_chain_pem.encode(), keys.signing_key, None)
        try:
            with (
                c2pa.Signer.from_info(c2pa.C2paSignerInfo(*info)) as signer,
                c2pa.Builder(json.dumps(spec.definition()), make_context(keys.root_pem)) as builder,
                source.open("rb") as stream,
            ):
                for ingredient in spec.ingredients:
                    _add(builder, ingredient)
                return bytes(builder.sign(signer, str(spec.media_format), stream, target))
        except c2pa.C2paError as error:
            raise ProvenanceError(
                f"signing {source} failed: {error}",
                remedy=f"The file must be {spec.media_format}, and the keys intact (`safegen keys show`).",
            ) from error


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

    def write(self, source: Path, target: BinaryIO, spec: ManifestSpec, keys: KeyStore) -> bytes:
        """See ``Backend.write``."""
        signer = ClaimSigner.from_pem(keys.certificate_chain_pem, keys.signing_key)
        ingredients = collect(spec.ingredients, keys.root_pem)
        try:
            return write(source, target, Request(spec, signer, ingredients, self.evidence)).manifest_bytes
        except UnreadableMediaError as error:
            raise ProvenanceError(f"signing {source} failed: {error}", remedy=error.remedy) from error


BACKENDS: Final[dict[str, Backend]] = {b.name: b for b in (LibraryBackend(), NativeBackend())}


@dataclass(frozen=True, slots=True)
class Signing:
    """How files are signed: by what, and whether each is read back and validated before it is handed over."""

    backend: Backend = BACKENDS["c2pa-python"]
    read_back: bool = True

    @classmethod
    def from_environment(cls) -> Signing:
        """``$SAFEGEN_C2PA_BACKEND`` (c2pa-python, native) and ``$SAFEGEN_C2PA_READ_BACK`` (1, 0); else the defaults.

        Raises ConfigError for any other value.
        """
        name = os.environ.get(BACKEND_VARIABLE) or "c2pa-python"
        read_back = os.environ.get(READ_BACK_VARIABLE) or "1"
        if name not in BACKENDS:
            raise ConfigError(f"{BACKEND_VARIABLE} is {name!r}", remedy=f"Set it to one of: {', '.join(BACKENDS)}.")
        if read_back not in ("0", "1"):
            raise ConfigError(f"{READ_BACK_VARIABLE} is {read_back!r}", remedy="Set it to 1 (read back) or 0 (do not).")
        return cls(BACKENDS[name], read_back == "1")
