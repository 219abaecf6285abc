"""``safegen recover``: what is given back, what it claims, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from safegen.cli import app
from safegen.errors import InputError, ProvenanceError
from safegen.keys import KeyStore
from safegen.ledger import Ledger
from safegen.media import encode_video
from safegen.provenance.read import read_credential, sidecar_path
from safegen.provenance.restoring import MODE
from safegen.recovery.recover import Outcome, find, recover
from safegen.settings import Home
from safegen.types import Verdict
from safegen.verification.verifier import verify
from tests.marked_clips import clip, levels
from tests.unit.recovery.recovery_samples import ALG, Recorded, record


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    return record(Home(folder / "home"), folder)


@pytest.fixture(scope="module")
def stripped(made: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.stripped(tmp_path_factory.mktemp("stripped") / "stripped.mp4")


def copy_home(made: Recorded, folder: Path) -> Home:
    shutil.copytree(made.home.root, folder / "home")
    return Home(folder / "home")


def assertions(path: Path, home: Home) -> dict[str, Any]:
    """The active manifest's assertions and ingredients as the C2PA library reads them."""
    import c2pa

    from safegen.provenance.engine import make_context

    anchors = KeyStore.load(home, purpose="verify").root_pem
    with path.open("rb") as file, c2pa.Reader("video/mp4", file, None, make_context(anchors)) as reader:
        report = json.loads(reader.json())
    active = report["manifests"][report["active_manifest"]]
    return {a["label"]: a["data"] for a in active["assertions"]} | {"ingredients": active["ingredients"], "all": report}


def ledger_finding(verdict: Verdict) -> Any:
    return next(f for f in verdict.findings if f.basis == "ledger")


@pytest.fixture(scope="module")
def restored(made: Recorded, stripped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("restored") / "restored.mp4"
    done = recover(stripped, output, home=made.home)
    assert (done.outcome, done.output, done.sidecar) == (Outcome.RESTORED, output, None)
    assert (done.content_id, done.recovered) == (made.content_id, made.signed.manifest_id)
    assert sorted(p.name for p in output.parent.iterdir()) == ["restored.mp4"]
    return output


def test_the_kept_manifest_is_found_by_the_mark(made: Recorded, stripped: Path) -> None:
    found = find(stripped, home=made.home)
    assert (found.outcome, found.content_id, found.entry) == (Outcome.FOUND, made.content_id, 0)
    assert (found.manifest, found.manifest_id) == (made.signed.manifest_bytes, made.signed.manifest_id)
    assert (found.alg, found.whole) == (ALG, True)
    assert found.similarity is not None
    assert 50 < found.similarity <= 100


def test_the_restored_file_claims_to_be_a_new_asset(made: Recorded, restored: Path) -> None:
    said = assertions(restored, made.home)
    [parent] = said["ingredients"]
    assert (parent["relationship"], parent["active_manifest"]) == ("parentOf", made.signed.manifest_id)
    failures = [item["code"] for item in parent["validation_results"]["activeManifest"]["failure"]]
    assert failures == ["assertion.bmffHash.mismatch"], "the ingredient says that its bytes were others"
    actions = said["c2pa.actions.v2"]
    assert [a["action"] for a in actions["actions"]] == ["c2pa.opened", "c2pa.unknown"]
    assert actions["allActionsIncluded"] is False
    assert [a.get("digitalSourceType", "").rsplit("/")[-1] for a in actions["actions"]] == ["", "composite"]
    generation = said["org.safegen.generation"]
    assert generation == {
        "contentId": made.content_id, "mode": MODE,
        "softBindingsMatched": True, "softBindingAlgorithmsMatched": [ALG],
    }  # fmt: skip
    assert "c2pa.soft-binding" not in said, "the mark is bound to the recovered manifest, not to this one"
    assert said["all"]["active_manifest"] != made.signed.manifest_id
    assert said["all"]["validation_state"] == "Trusted"


def test_an_independent_verifier_trusts_the_restored_file(made: Recorded, restored: Path) -> None:
    encypher = pytest.importorskip("encypher_c2pa")
    root = KeyStore.load(made.home).root_pem
    report = encypher.verify(str(restored), trust_pem=root, no_default_trust=True, telemetry=False, online=False)
    assert report["validation_state"] == "Trusted"


def test_the_restored_file_still_says_that_it_is_generated(made: Recorded, restored: Path) -> None:
    found = read_credential(restored, trust_anchors_pem=KeyStore.load(made.home).root_pem)
    assert (found.state, found.ai_generated, found.content_matches) == ("trusted", True, True)


def test_the_restored_file_is_recovered_and_not_verified(made: Recorded, restored: Path) -> None:
    verdict = verify(restored, home=made.home)
    assert (verdict.verdict, verdict.content_id, verdict.entry) == ("recovered", made.content_id, 0)
    finding = ledger_finding(verdict)
    assert finding.evidence["restored"] > 0
    assert "given back" in finding.summary
    assert verify(made.signed.path, home=made.home).verdict == "verified"


def test_what_was_restored_is_recorded(made: Recorded, restored: Path) -> None:
    with Ledger.open(made.home.ledger_url, create=False, read_only=True) as ledger:
        entry = next(e for e in ledger.find_content(made.content_id) if e.kind == "recovered")
        assert ledger.verify().ok
    assert (entry.body["recovered_manifest_id"], entry.body["recovered_entry"]) == (made.signed.manifest_id, 0)
    assert entry.body["manifest_id"] != made.signed.manifest_id


@pytest.mark.slow
def test_a_restored_file_can_lose_and_regain_its_credential(made: Recorded, restored: Path, tmp_path: Path) -> None:
    from tests.unit.provenance.provenance_samples import ffmpeg

    ffmpeg("-i", restored, "-c", "copy", tmp_path / "again.mp4")
    done = recover(tmp_path / "again.mp4", tmp_path / "out.mp4", home=made.home)
    assert (done.outcome, done.recovered) == (Outcome.RESTORED, made.signed.manifest_id)


@pytest.mark.slow
def test_a_restored_credential_on_other_bytes_is_tampered(made: Recorded, restored: Path, tmp_path: Path) -> None:
    content = bytearray(restored.read_bytes())
    content[content.index(b"mdat") + 3000] ^= 1
    (tmp_path / "edited.mp4").write_bytes(content)
    assert verify(tmp_path / "edited.mp4", home=made.home).verdict == "tampered"


@pytest.mark.slow
def test_a_restored_file_that_nobody_recorded_is_tampered(made: Recorded, stripped: Path, tmp_path: Path) -> None:
    """Signed with the home's key outside ``recover``, or restored in a copy of the home whose ledger is gone."""
    elsewhere = copy_home(made, tmp_path)
    recover(stripped, tmp_path / "out.mp4", home=elsewhere)
    assert verify(tmp_path / "out.mp4", home=elsewhere).verdict == "recovered"
    assert verify(tmp_path / "out.mp4", home=made.home).verdict == "tampered"


@pytest.mark.slow
@pytest.mark.parametrize("in_place", [False, True])
def test_a_sidecar_leaves_the_media_alone(made: Recorded, stripped: Path, in_place: bool, tmp_path: Path) -> None:
    source = shutil.copy(stripped, tmp_path / "source.mp4")
    output = source if in_place else tmp_path / "out.mp4"
    done = recover(source, output, sidecar=True, home=made.home)
    assert (done.outcome, done.sidecar) == (Outcome.RESTORED, sidecar_path(output))
    assert output.read_bytes() == stripped.read_bytes()
    wanted = {"source.mp4", output.name, sidecar_path(output).name}
    assert {p.name for p in tmp_path.iterdir()} == wanted
    assert read_credential(output).origin == "sidecar"
    assert verify(output, home=made.home).verdict == "recovered"


@pytest.mark.slow
def test_a_format_that_carries_no_manifest_takes_a_sidecar(made: Recorded, tmp_path: Path) -> None:
    source = made.stripped(tmp_path / "clip.mkv")
    with pytest.raises(InputError) as caught:
        recover(source, tmp_path / "out.mkv", home=made.home)
    assert "--sidecar" in caught.value.remedy
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mkv"]
    recover(source, tmp_path / "out.mkv", sidecar=True, home=made.home)
    assert verify(tmp_path / "out.mkv", home=made.home).verdict == "recovered"


@pytest.mark.slow
@pytest.mark.parametrize("sidecar", [False, True])
def test_where_no_authority_stamps_the_time(made: Recorded, stripped: Path, sidecar: bool, tmp_path: Path) -> None:
    must = replace(made.home, timestamp_authorities="http://127.0.0.1:9/")
    with pytest.raises(ProvenanceError, match="time-stamp"):
        recover(stripped, tmp_path / "out.mp4", sidecar=sidecar, home=must)
    assert list(tmp_path.iterdir()) == []
    may = replace(made.home, timestamp_authorities="http://127.0.0.1:9/,none")
    done = recover(stripped, tmp_path / "out.mp4", sidecar=sidecar, home=may)
    assert done.entry is not None
    with Ledger.open(made.home.ledger_url, create=False, read_only=True) as ledger:
        signature: Any = ledger.get(done.entry).body["signature"]
    assert signature["algorithm"] == "es256"
    assert "127.0.0.1" in json.dumps(signature["timestamp"])


@pytest.mark.slow
def test_a_copied_mark_is_refused(made: Recorded, tmp_path: Path) -> None:
    mark = made.frames.astype(float) - made.frames.mean(axis=0)
    still = np.repeat(clip(91, 1, 96, 128), len(mark), axis=0)
    encode_video(levels(still + mark), 16, tmp_path / "forged.mp4")
    done = recover(tmp_path / "forged.mp4", tmp_path / "out.mp4", home=made.home)
    assert (done.outcome, done.output) == (Outcome.COPIED, None)
    assert [p.name for p in tmp_path.iterdir()] == ["forged.mp4"]


def test_a_mark_whose_clip_has_no_pictures_kept_is_not_signed_for(
    made: Recorded, stripped: Path, tmp_path: Path
) -> None:
    home = copy_home(made, tmp_path)
    (home.manifests / f"{made.content_id}.pictures").unlink()
    verdict = verify(stripped, home=home)
    assert (verdict.verdict, verdict.content_id) == ("inconclusive", made.content_id)
    done = recover(stripped, tmp_path / "out.mp4", home=home)
    assert (done.outcome, done.output, done.entry) == (Outcome.UNPROVEN, None, None)
    assert "no longer kept here" in done.summary
    assert done.sidecar == tmp_path / "out.mp4.kept.c2pa"
    assert done.sidecar.read_bytes() == made.signed.manifest_bytes
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.slow
def test_kept_pictures_that_were_exchanged_vouch_for_nothing(made: Recorded, stripped: Path, tmp_path: Path) -> None:
    home = copy_home(made, tmp_path)
    kept = home.manifests / f"{made.content_id}.pictures"
    kept.write_bytes(kept.read_bytes() + b"\0")
    assert "not what the ledger recorded" in find(stripped, home=home).summary
    assert verify(stripped, home=home).verdict == "inconclusive"


@pytest.mark.slow
def test_a_clip_beside_as_much_foreign_footage_is_not_signed_for(made: Recorded, tmp_path: Path) -> None:
    encode_video(np.concatenate([made.frames, clip(91, 33, 96, 128)]), 16, tmp_path / "spliced.mp4")
    found = find(tmp_path / "spliced.mp4", home=made.home)
    assert (found.outcome, found.whole) == (Outcome.FOUND, False)
    done = recover(tmp_path / "spliced.mp4", tmp_path / "out.mp4", home=made.home)
    assert (done.outcome, (tmp_path / "out.mp4").exists()) == (Outcome.UNPROVEN, False)
    assert "only part" in done.summary


def test_the_new_manifest_says_what_was_found_over_which_frames(made: Recorded, restored: Path) -> None:
    said = assertions(restored, made.home)["c2pa.actions.v2"]["actions"][0]["description"]
    assert "found in frames 0 to 32 (0.0 to 2.06 s)" in said
    assert "explain 100 % of the file's time and 100 % of its area" in said


@pytest.mark.slow
def test_without_a_mark_there_is_nothing_to_recover(made: Recorded, tmp_path: Path) -> None:
    encode_video(clip(5, 33, 96, 128), 16, tmp_path / "plain.mp4")
    done = recover(tmp_path / "plain.mp4", tmp_path / "out.mp4", home=made.home)
    assert (done.outcome, done.output) == (Outcome.NO_MARK, None)


@pytest.mark.slow
def test_a_manifest_that_is_gone_or_changed(made: Recorded, stripped: Path, tmp_path: Path) -> None:
    home = copy_home(made, tmp_path)
    kept = home.manifests / f"{made.content_id}.c2pa"
    kept.write_bytes(kept.read_bytes() + b"\0")
    assert find(stripped, home=home).outcome is Outcome.DAMAGED
    kept.unlink()
    assert find(stripped, home=home).outcome is Outcome.NOT_KEPT


def test_a_clip_that_no_entry_records(made: Recorded, stripped: Path, tmp_path: Path) -> None:
    home = copy_home(made, tmp_path)
    for path in home.root.glob("ledger.db*"):
        path.unlink()
    keys = KeyStore.load(home)
    from safegen.ledger import Event

    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        ledger.append(Event("failed"))
    assert find(stripped, home=home).outcome is Outcome.UNRECORDED


def test_a_file_with_a_credential_is_refused(made: Recorded, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="carries a credential"):
        recover(made.signed.path, tmp_path / "out.mp4", home=made.home)


def test_outputs_that_cannot_be_written(made: Recorded, stripped: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not end"):
        recover(stripped, tmp_path / "out.mov", home=made.home)
    with pytest.raises(InputError, match="file itself"):
        recover(stripped, stripped, home=made.home)
    (tmp_path / "out.mp4").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists already"):
        recover(stripped, tmp_path / "out.mp4", home=made.home)
    (tmp_path / "out.mp4").unlink()
    (tmp_path / "out.mp4.c2pa").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists already"):
        recover(stripped, tmp_path / "out.mp4", sidecar=True, home=made.home)
    assert (tmp_path / "out.mp4.c2pa").read_bytes() == b"mine"


@pytest.mark.slow
def test_the_command(made: Recorded, stripped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEGEN_HOME", str(made.home.root))
    done = CliRunner().invoke(app, ["recover", str(stripped), "-o", str(tmp_path / "out.mp4"), "--json"])
    printed = json.loads(done.stdout)
    assert (done.exit_code, printed["outcome"], printed["content_id"]) == (0, "restored", made.content_id)
    assert printed["recovered_manifest_id"] == made.signed.manifest_id
    (made.home.manifests / f"{made.content_id}.c2pa").rename(tmp_path / "kept")
    try:
        done = CliRunner().invoke(app, ["recover", str(stripped), "-o", str(tmp_path / "no.mp4")])
    finally:
        (tmp_path / "kept").rename(made.home.manifests / f"{made.content_id}.c2pa")
    assert (done.exit_code, "NOT KEPT" in done.stdout) == (1, True)
    assert not (tmp_path / "no.mp4").exists()
