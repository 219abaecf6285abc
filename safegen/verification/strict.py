"""More than a verdict: the strict requirements beyond it, and a file's C2PA validation as crJSON for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import VerificationError
from safegen.provenance.trust import Trust
from safegen.settings import Home
from safegen.types import Verdict
from safegen.verification.verifier import key_stores

if TYPE_CHECKING:
    from safegen.provenance.strict import Strict

# Imported where they are used: what loads c2pa.


def strict_checks(
    path: str | Path, verdict: Verdict, *, accept_listed: bool = False, home: Home | None = None
) -> Strict:
    """Hold a file, beyond its ``verdict``, against the strict requirements (docs/conformance.md); each is returned.

    ``accept_listed``: a signer of a trust list counts as much as this home. Manifests that cannot be read at all fail
    every check. Raises as ``verify`` does.
    """
    from safegen.provenance.crjson import read_crjson
    from safegen.provenance.read import read_credential
    from safegen.provenance.strict import check_strictly

    trust, path = _trust(home), Path(path)
    found = read_credential(path, trust=trust)
    signers = trust.own_anchors_pem + trust.anchors("signer")
    try:
        document = read_crjson(path, signers_pem=signers, authorities_pem=trust.anchors("tsa"))
    except VerificationError:  # the credential's own state says what is wrong
        document = {}
    return check_strictly(verdict, found, document, accept_listed=accept_listed)


def crjson(
    path: str | Path,
    *,
    trust_anchors: Path | None = None,
    tsa_anchors: Path | None = None,
    home: Home | None = None,
) -> dict[str, Any]:
    """Return the C2PA validation of a file as crJSON, for conformance tests and other tools.

    The two files hold the certificates that signers, and time-stamps, are held against. Where neither is given, this
    home's own roots and its trust lists are. Raises as ``safegen.provenance.crjson.read_crjson`` does, and InputError
    for a file without certificates.
    """
    from safegen.provenance.crjson import read_anchors, read_crjson

    if trust_anchors is None and tsa_anchors is None:
        trust = _trust(home)
        signers, authorities = trust.own_anchors_pem + trust.anchors("signer"), trust.anchors("tsa")
    else:
        signers, authorities = ("" if f is None else read_anchors(f) for f in (trust_anchors, tsa_anchors))
    return read_crjson(Path(path), signers_pem=signers, authorities_pem=authorities)


def _trust(home: Home | None) -> Trust:
    home = home or Home.default()
    return Trust.of(home, key_stores(home)[0])
