"""Sound files of older C2PA versions have an answer of their own, and nothing else slips in under it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import c2pa
import pytest

from safegen.cli.verify import _exit_code
from safegen.errors import EXIT_COULD_NOT_RUN, EXIT_DONE, EXIT_NOT_VERIFIED, EXIT_OLDER_VERSION
from safegen.keys import KeyStore
from safegen.provenance.conformance import Check, older_version
from safegen.provenance.credential import Credential
from safegen.provenance.crjson import read_crjson
from safegen.provenance.library import Remembering, library_signer
from safegen.provenance.read import read_credential
from safegen.provenance.signer_sources import store_signer
from safegen.provenance.strict import Strict, check_strictly
from safegen.settings import Home
from safegen.types import Verdict, VerdictKind
from tests.unit.provenance.provenance_samples import make_still

UNVERIFIED = Verdict(VerdictKind.UNVERIFIED, None, None, ())
OPENED = [{"label": "c2pa.actions", "data": {"actions": [{"action": "c2pa.opened"}]}}]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore.init(Home(tmp_path_factory.mktemp("older") / "home"))


@pytest.fixture(scope="module")
def signed(keys: KeyStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture with a claim of version 1."""
    folder = tmp_path_factory.mktemp("older")
    plain, target, signer = make_still(folder / "plain.jpg"), folder / "signed.jpg", store_signer(keys)
    definition = {
        "claim_version": 1,
        "claim_generator_info": [{"name": "an older tool", "version": "1"}],
        "assertions": OPENED,
    }
    with (
        library_signer(signer, Remembering(signer), None) as library,
        c2pa.Builder(json.dumps(definition)) as builder,
        plain.open("rb") as source,
        target.open("w+b") as out,
    ):
        builder.sign(library, "image/jpeg", source, out)
    return target


def strictly(path: Path, keys: KeyStore, *, accept_listed: bool = True, **changes: object) -> Strict:
    found: Credential = replace(
        read_credential(path), listed_by="a list", timestamp="2022-01-24T00:00:00Z", timestamp_trusted=True
    )
    document = read_crjson(path, signers_pem=keys.root_pem, authorities_pem="")
    return check_strictly(UNVERIFIED, replace(found, **changes), document, accept_listed=accept_listed)  # type: ignore[arg-type]


def test_an_older_file_of_a_listed_signer_failed_like_any_other(keys: KeyStore, signed: Path) -> None:
    strict = strictly(signed, keys)
    assert strict.older == "1"
    assert strict.failed
    assert strict.only_older
    assert _exit_code(UNVERIFIED, strict) == EXIT_OLDER_VERSION
    inconclusive = replace(UNVERIFIED, verdict=VerdictKind.INCONCLUSIVE)
    assert _exit_code(inconclusive, strict) == EXIT_COULD_NOT_RUN


@pytest.mark.parametrize(
    "changes",
    [{"accept_listed": False}, {"listed_by": ""}, {"timestamp_trusted": False}, {"signature_valid": False},
     {"content_matches": False}, {"content_matches": None}],
)  # fmt: skip
def test_an_older_file_that_is_not_sound_or_not_listed_is_not_excused(
    changes: dict[str, object], keys: KeyStore, signed: Path
) -> None:
    strict = strictly(signed, keys, **changes)  # type: ignore[arg-type]
    assert not strict.only_older
    assert _exit_code(UNVERIFIED, strict) == EXIT_NOT_VERIFIED


def test_an_older_file_whose_bytes_were_changed_is_not_excused(keys: KeyStore, signed: Path, tmp_path: Path) -> None:
    content = bytearray(signed.read_bytes())
    content[-3] ^= 1
    (tmp_path / "changed.jpg").write_bytes(content)
    strict = strictly(tmp_path / "changed.jpg", keys, content_matches=True, signature_valid=True)
    assert not strict.only_older


@pytest.mark.parametrize(
    ("said", "older"), [("2.3", "2.3"), ("2.3.1", "2.3"), ("1.4", "1.4"), ("2.4.0", ""), ("2.5", ""), ("3.0", ""),
                        ("", ""), ("2", ""), ("x.y", ""), (None, ""), (7, "")],
)  # fmt: skip
def test_the_version_that_a_claim_names(said: object, older: str) -> None:
    claim = {"claim_generator_info": {"specVersion": said}}
    assert older_version({"manifests": [{"claim.v2": claim}]}) == older


@pytest.mark.parametrize("document", [None, [], {}, {"manifests": 1}, {"manifests": [1]}, {"manifests": []}])
def test_what_is_no_document_is_not_older(document: object) -> None:
    assert older_version(document) == ""


def test_all_that_hold_end_with_0() -> None:
    strict = Strict((Check("strict:signer", "", True),), "1")
    assert not strict.only_older
    assert _exit_code(UNVERIFIED, strict) == EXIT_DONE
