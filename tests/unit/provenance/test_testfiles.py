"""Public C2PA files of several vendors: each ends in its documented state, with its documented codes."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from safegen.provenance.credential import CredentialState
from safegen.provenance.read import UNTRUSTED, read_credential
from tests.unit.provenance.reading_samples import reference

OFFICIAL, TEST_ROOTS = "reader_official_trust", "reader_official+c2pa-rs_test_roots"
ERRORS = {"C2paManifestNotFound": CredentialState.ABSENT, "C2paNotSupported": CredentialState.ABSENT}


def expected(text: str) -> tuple[CredentialState, set[str]]:
    """Translate the table's words into a state and failure codes."""
    head, found, codes = text.partition("; fail=")
    if found:
        states = {
            "Valid": CredentialState.VALID,
            "Trusted": CredentialState.TRUSTED,
            "Invalid": CredentialState.INVALID,
        }
        return states[head], set(filter(None, codes.split(",")))
    if "must fetch remote" in text:
        return CredentialState.ABSENT, set()
    return ERRORS.get(text.split(":")[0], CredentialState.UNREADABLE), set()


@pytest.fixture
def table(shared_data: Path) -> dict[str, dict[str, str]]:
    with (shared_data / "c2pa" / "MANIFEST.tsv").open() as file:
        return {row["file"]: row for row in csv.DictReader(file, delimiter="\t")}


def test_table_names_every_file(shared_data: Path, table: dict[str, dict[str, str]]) -> None:
    folder = shared_data / "c2pa"
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert {f for f in files if not f.startswith("trust/")} - {
        "MANIFEST.tsv",
        "asset-rubric-conformance0.2-spec2.4.yml",
    } == set(table)
    assert len(table) > 50


@pytest.mark.slow
@pytest.mark.parametrize("column", [OFFICIAL, TEST_ROOTS])
def test_documented_states_and_codes(shared_data: Path, table: dict[str, dict[str, str]], column: str) -> None:
    folder = shared_data / "c2pa"
    anchors = (folder / "trust" / "C2PA-TRUST-LIST.pem").read_text()
    if column == TEST_ROOTS:
        anchors += (folder / "trust" / "c2pa-rs-test-roots.pem").read_text()
    wrong, states = [], set()
    for name, row in table.items():
        found = read_credential(folder / name, trust_anchors_pem=anchors)
        state, codes = expected(row[column])
        states.add(state)
        if codes - {UNTRUSTED} and all(c.startswith("cawg.") or c == UNTRUSTED for c in codes):
            # An identity that is not confirmed is no fault of the credential.
            state = CredentialState.VALID if UNTRUSTED in codes else CredentialState.TRUSTED
        if state is CredentialState.UNREADABLE and found.problem.startswith("the file holds a manifest store"):
            state = CredentialState.INVALID
        if found.state is not state or not codes <= {*found.failure_codes, *found.identity_problems}:
            wrong.append((name, found.state, found.failure_codes, row[column]))
        if found.state is CredentialState.INVALID:  # never "invalid" without saying why, ingredients included
            assert found.failure_codes or found.problem, name
        assert found == reference(folder / name, anchors), name  # what only our codes name is of ingredients
    assert wrong == []
    assert states >= set(CredentialState) - ({CredentialState.TRUSTED} if column == OFFICIAL else set())


def test_remote_manifest_is_named(shared_data: Path) -> None:
    found = read_credential(shared_data / "c2pa" / "py-cloud.jpg")
    assert found.state is CredentialState.ABSENT
    assert (found.remote_url or "").startswith("https://")


@pytest.mark.slow
def test_truncated_and_flipped(shared_data: Path, tmp_path: Path) -> None:
    chance = random.Random(11)
    for path in sorted((shared_data / "c2pa").iterdir()):
        if not path.is_file() or path.stat().st_size > 300_000:
            continue
        content = path.read_bytes()
        for _ in range(2):
            bad = bytearray(content[: chance.randrange(1, len(content) + 1)])
            for _ in range(chance.randrange(4)):
                bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
            target = tmp_path / path.name
            target.write_bytes(bad)
            assert read_credential(target) == reference(target, ""), path.name


def test_a_manifest_from_before_version_1_was_called_damaged(shared_data: Path) -> None:
    found = read_credential(shared_data / "c2pa" / "rs-prerelease.jpg")
    assert found.state is CredentialState.UNREADABLE  # which ends as inconclusive, never as fine
    assert "before C2PA 1.0" in found.problem
