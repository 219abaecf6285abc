"""What a credential must be where "verified" is not enough: ``safegen verify --strict``."""

from __future__ import annotations

from safegen.provenance.conformance import Check, check_conformance
from safegen.provenance.credential import Credential, CredentialState
from safegen.provenance.read import UNTRUSTED
from safegen.types import Verdict, VerdictKind

_GOOD = frozenset({VerdictKind.VERIFIED, VerdictKind.RECOVERED})


def check_strictly(
    verdict: Verdict, found: Credential, crjson: object, *, accept_listed: bool = False
) -> tuple[Check, ...]:
    """Return every strict requirement: four of our own (``strict:...``), then the 31 of the conformance programme.

    ``found`` must have been read with a ``Trust``. With ``accept_listed`` a signer of a trust list counts as much as
    this home, and ``unverified``, which only says that the file is not this home's, is no objection.
    """
    good = _GOOD | {VerdictKind.UNVERIFIED} if accept_listed else _GOOD
    ours = found.signer_trusted
    intact = found.signature_valid and found.content_matches is True and found.state in _INTACT
    codes = [code for code in found.failure_codes if code != UNTRUSTED]
    return (
        Check("strict:verdict", "the verdict is good", verdict.verdict in good, _unless(good, verdict.verdict)),
        Check(
            "strict:credential",
            "a credential is there, its signature holds, and it belongs to these very bytes",
            intact,
            "" if intact else ", ".join(codes) or found.problem or f"the credential is {found.state}",
        ),
        Check(
            "strict:signer",
            "the signer is this home, or stands on a trust list" if accept_listed else "the signer is this home",
            ours or (accept_listed and bool(found.listed_by)),
            _signer_problem(found, ours=ours, accept_listed=accept_listed),
        ),
        Check(
            "strict:time-stamp",
            "an authority of a trust list says when it was signed",
            found.timestamp_trusted,
            "" if found.timestamp_trusted else _stamp_problem(found),
        ),
        *check_conformance(crjson),
    )


_INTACT = frozenset({CredentialState.TRUSTED, CredentialState.VALID})


def _unless(good: frozenset[VerdictKind], kind: VerdictKind) -> str:
    return "" if kind in good else str(kind)


def _signer_problem(found: Credential, *, ours: bool, accept_listed: bool) -> str:
    if ours or (accept_listed and found.listed_by):
        return ""
    if not found.signer:
        return "nobody has signed"
    return f"{found.signer}, on the list {found.listed_by}" if found.listed_by else f"{found.signer}, on no list"


def _stamp_problem(found: Credential) -> str:
    if found.timestamp is None:
        return "there is no time-stamp"
    return f"the time-stamp of {found.timestamp} is of an authority on no list"
