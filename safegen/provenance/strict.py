"""What a credential must be where "verified" is not enough: ``safegen verify --strict``."""

from __future__ import annotations

from dataclasses import dataclass

from safegen.provenance.conformance import CONFORMANCE, Check, check_conformance, older_version
from safegen.provenance.credential import Credential, CredentialState
from safegen.provenance.read import UNTRUSTED
from safegen.types import Verdict, VerdictKind

_GOOD = frozenset({VerdictKind.VERIFIED, VerdictKind.RECOVERED})


_OF_ANY_VERSION = frozenset(
    f"{CONFORMANCE}{name}"
    for name in ("well_formed_data_present", "well_formed_success", "valid_data_present", "valid_success")
)
"""Checks of the programme that ask for nothing which an older version of C2PA did not ask for."""


@dataclass(frozen=True, slots=True)
class Strict:
    """All requirements, each with its outcome. ``older`` is the version of C2PA, if before ours, that was followed."""

    checks: tuple[Check, ...]
    older: str = ""

    @property
    def passed(self) -> bool:
        """Whether every requirement holds."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The requirements that do not hold."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def only_older(self) -> bool:
        """Whether all that does not hold are rules that the version did not have which was followed."""
        rules = all(c.id.startswith(CONFORMANCE) and c.id not in _OF_ANY_VERSION for c in self.failed)
        return bool(self.older) and bool(self.failed) and rules


def check_strictly(verdict: Verdict, found: Credential, crjson: object, *, accept_listed: bool = False) -> Strict:
    """Return every strict requirement: four of our own (``strict:...``), then the 31 of the conformance programme.

    ``found`` must have been read with a ``Trust``. With ``accept_listed`` a signer of a trust list counts as much as
    this home, and ``unverified``, which only says that the file is not this home's, is no objection.
    """
    good = _GOOD | {VerdictKind.UNVERIFIED} if accept_listed else _GOOD
    ours = found.signer_trusted
    intact = found.signature_valid and found.content_matches is True and found.state in _INTACT
    codes = [code for code in found.failure_codes if code != UNTRUSTED]
    checks = (
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
    return Strict(checks, older_version(crjson))


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
