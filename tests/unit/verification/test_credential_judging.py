"""What a credential is worth, and in which words: an identity is not the bytes, a sidecar is not the file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from safegen.provenance.credential import Credential, CredentialState, Ingredient
from safegen.provenance.read import read_credential, sidecar_path
from safegen.types import ContentId, Status
from safegen.verification.credential_judging import judge_credential, keeps_inside

ID = ContentId("0123456789abcdef")


@pytest.mark.parametrize("name", ["ica-invalid_vc.jpg", "ica-signature_mismatch.jpg"])
def test_an_identity_that_is_not_confirmed_leaves_the_credential_intact(shared_data: Path, name: str) -> None:
    found = read_credential(shared_data / "c2pa" / "cawg" / name)
    judged = judge_credential(found)
    assert (found.state, judged.finding.status) == (CredentialState.VALID, Status.PASS)
    assert found.identity_problems
    assert "identity it names could not be confirmed" in judged.finding.summary


def test_a_sidecar_of_another_file_of_the_same_stem_is_not_this_files(shared_data: Path, tmp_path: Path) -> None:
    """Sidecars named without the file's ending are shared by all files of that stem."""
    data = shared_data / "c2pa"
    media = shutil.copy(data / "rs-video1_no_manifest.mp4", tmp_path / "clip.mp4")
    (tmp_path / "clip.c2pa").write_bytes((data / "rs-cloud_manifest.c2pa").read_bytes())
    found = read_credential(media)
    assert found.state is CredentialState.ABSENT
    assert "clip.c2pa beside it" in found.problem
    assert judge_credential(found).finding.status is Status.ABSENT
    assert sidecar_path(media).name == "clip.mp4.c2pa"


def test_a_foreign_ai_file_is_told_in_words(shared_data: Path) -> None:
    for name in ("foreign-ai-signed.mp4", "foreign-ai-signed.avif"):
        summary = judge_credential(read_credential(shared_data / "cases" / name)).finding.summary
        assert "signed by C2PA Test Signing Cert" in summary
        assert "AI-made" in summary
        assert "Sora-like hosted generator" in summary


@pytest.mark.parametrize(
    ("credential", "words"),
    [
        (Credential(CredentialState.VALID, denies_ai=True), "made by a camera or a person"),
        (Credential(CredentialState.VALID), "nothing of whether AI made it"),
        (Credential(CredentialState.VALID, ai_generated=True, denies_ai=True), "AI-made"),
    ],
)
def test_what_a_foreign_credential_claims(credential: Credential, words: str) -> None:
    assert words in judge_credential(credential).finding.summary


@pytest.mark.parametrize(
    ("code", "explanation", "words"),
    [
        ("assertion.bmffHash.mismatch", "asset hash error, name: jumbf manifest", "bytes were changed"),
        ("assertion.dataHash.mismatch", "invalid exclusion range", "does not meet the specification"),
        ("claim.malformed", "", "is malformed"),
        ("assertion.action.redacted", "", "does not meet the specification"),
    ],
)
def test_kinds_of_failures_are_kept_apart_and_explained(code: str, explanation: str, words: str) -> None:
    broken = Credential(
        CredentialState.INVALID, failure_codes=(code, "signingCredential.untrusted"), explanations={code: explanation}
    )
    finding = judge_credential(broken).finding
    assert finding.status is Status.FAIL
    assert words in finding.summary
    assert explanation in finding.summary
    assert "untrusted" not in finding.summary


def test_a_credential_that_keeps_ours_inside() -> None:
    ours = Ingredient("clip.mp4", "parentOf", "urn:c2pa:1", ID)
    found = judge_credential(Credential(CredentialState.VALID, ingredients=(ours,))).finding
    assert keeps_inside(found, ID)
    assert not keeps_inside(found, ContentId("fedcba9876543210"))
    as_input = Credential(CredentialState.VALID, ingredients=(Ingredient("clip.mp4", "inputTo", "urn:c2pa:1", ID),))
    assert not keeps_inside(judge_credential(as_input).finding, ID)
    spoiled = Credential(CredentialState.INVALID, ingredients=(ours,), failure_codes=("claimSignature.mismatch",))
    assert not keeps_inside(judge_credential(spoiled).finding, ID)
