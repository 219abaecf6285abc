"""The table of docs/verdicts.md, line by line, on findings alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from safegen.provenance.credential import Credential, CredentialState
from safegen.types import Basis, ContentId, Finding, Status, VerdictKind
from safegen.verification.credential_judging import judge_credential
from safegen.verification.mark_reading import Mark
from safegen.verification.verifier import _decide
from safegen.watermark.base import MarkStatus

ID, OTHER = ContentId("0123456789abcdef"), ContentId("fedcba9876543210")
OURS = Credential(CredentialState.TRUSTED, content_id=ID, ai_generated=True)
FOREIGN_AI = Credential(CredentialState.VALID, signer="Someone", ai_generated=True)
FOREIGN_CAMERA = Credential(CredentialState.VALID, signer="Someone", denies_ai=True)
FOREIGN_SILENT = Credential(CredentialState.VALID, signer="Someone")
FOREIGN_COMPOSITE = Credential(CredentialState.VALID, signer="Someone", denies_ai=True, ai_generated=True)
NONE = Credential(CredentialState.ABSENT)
BROKEN = Credential(CredentialState.INVALID, failure_codes=("assertion.bmffHash.mismatch",))
UNREADABLE = Credential(CredentialState.UNREADABLE, problem="odd boxes")
PASS, FAIL, ABSENT, OPEN, NOT_RUN = Status.PASS, Status.FAIL, Status.ABSENT, Status.INCONCLUSIVE, Status.NOT_RUN


@pytest.mark.parametrize(
    ("credential", "mark", "named", "ledger", "verdict"),
    [
        (OURS, PASS, ID, PASS, "verified"),
        (BROKEN, PASS, ID, PASS, "tampered"),
        (BROKEN, ABSENT, None, ABSENT, "tampered"),
        (OURS, PASS, ID, FAIL, "tampered"),
        (NONE, PASS, ID, FAIL, "tampered"),
        (OURS, ABSENT, None, PASS, "tampered"),
        (OURS, PASS, OTHER, PASS, "tampered"),
        (OURS, PASS, ID, ABSENT, "tampered"),
        (OURS, NOT_RUN, None, PASS, "inconclusive"),
        (OURS, OPEN, None, PASS, "inconclusive"),
        (OURS, PASS, ID, NOT_RUN, "inconclusive"),
        (OURS, FAIL, ID, PASS, "tampered"),
        (NONE, FAIL, ID, PASS, "tampered"),
        (FOREIGN_CAMERA, FAIL, ID, PASS, "tampered"),
        (NONE, PASS, ID, PASS, "recovered"),
        (FOREIGN_AI, PASS, ID, PASS, "recovered"),
        (FOREIGN_SILENT, PASS, ID, PASS, "recovered"),
        (FOREIGN_COMPOSITE, PASS, ID, PASS, "recovered"),
        (UNREADABLE, PASS, ID, PASS, "inconclusive"),
        (FOREIGN_CAMERA, PASS, ID, PASS, "tampered"),
        (NONE, PASS, ID, ABSENT, "tampered"),
        (NONE, PASS, ID, NOT_RUN, "inconclusive"),
        (NONE, ABSENT, None, ABSENT, "unverified"),
        (FOREIGN_CAMERA, ABSENT, None, ABSENT, "unverified"),
        (FOREIGN_AI, ABSENT, None, ABSENT, "unverified"),
        (FOREIGN_SILENT, ABSENT, None, ABSENT, "unverified"),
        (NONE, NOT_RUN, None, ABSENT, "inconclusive"),
        (NONE, OPEN, None, ABSENT, "inconclusive"),
        (UNREADABLE, ABSENT, None, ABSENT, "inconclusive"),
    ],
)
def test_rule(credential: Credential, mark: Status, named: ContentId | None, ledger: Status, verdict: str) -> None:
    metadata = judge_credential(credential)
    found = Mark(Finding(Basis.WATERMARK, mark, ""), named)
    assert _decide(metadata, found, Finding(Basis.LEDGER, ledger, "")) == VerdictKind(verdict)


@pytest.mark.parametrize(
    ("mark", "named", "ledger", "verdict"),
    [
        (PASS, ID, PASS, "recovered"),
        (PASS, OTHER, PASS, "tampered"),
        (FAIL, ID, PASS, "tampered"),
        (ABSENT, None, PASS, "tampered"),
        (PASS, ID, FAIL, "tampered"),
        (NOT_RUN, None, PASS, "inconclusive"),
    ],
)
def test_a_restored_file_is_never_verified(mark: Status, named: ContentId | None, ledger: Status, verdict: str) -> None:
    found = Mark(Finding(Basis.WATERMARK, mark, ""), named)
    entry = Finding(Basis.LEDGER, ledger, "", {"restored": 3})
    assert _decide(judge_credential(OURS), found, entry) == VerdictKind(verdict)


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        ({}, "recovered"),
        ({"beyond": []}, "recovered"),
        ({"beyond": ["It has 2 video tracks."]}, "partial"),
        ({"pictures": {"same": True, "whole": True}}, "recovered"),
        ({"pictures": {"same": True, "whole": False}}, "partial"),
    ],
)
def test_a_clip_that_is_not_all_of_the_file_is_partial(evidence: dict[str, object], verdict: str) -> None:
    found = Mark(Finding(Basis.WATERMARK, PASS, "", evidence), ID)  # type: ignore[arg-type]
    assert _decide(judge_credential(NONE), found, Finding(Basis.LEDGER, PASS, "")) == VerdictKind(verdict)
    whole = _decide(judge_credential(OURS), found, Finding(Basis.LEDGER, PASS, ""))
    assert whole is VerdictKind.VERIFIED  # the ledger holds the hash of this very file


def test_an_expired_certificate_alone_makes_nothing_ours() -> None:
    expired = Credential(
        CredentialState.INVALID, content_id=ID, signature_valid=True, failure_codes=("signingCredential.expired",)
    )
    judged = judge_credential(expired)
    assert expired.only_expired
    assert judged.finding.status is PASS
    assert not judged.ours


def test_only_our_own_trust_makes_a_credential_ours() -> None:
    assert judge_credential(OURS).ours
    assert not any(judge_credential(c).ours for c in (FOREIGN_AI, FOREIGN_CAMERA, NONE, BROKEN, UNREADABLE))


def test_the_table_is_documented() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "verdicts.md").read_text()
    assert all(f"`{kind}`" in text for kind in VerdictKind)
    assert all(f"`{status}`" in text for status in Status)
    assert f"`{MarkStatus.COPIED}`" in text
