"""``safegen resign`` on a recorded clip: what is written, what verification says of it, and every way to fail."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from safegen.errors import ConfigError, InputError, LedgerError, ProvenanceError, SafegenError
from safegen.files import Target
from safegen.keys import KeyStore
from safegen.ledger import Ledger
from safegen.provenance import updating
from safegen.provenance.read import read_credential
from safegen.provenance.trust import Trust, add_list
from safegen.recovery.recover import recover
from safegen.recovery.resign import resign
from safegen.settings import Home
from safegen.types import Basis, Finding, Verdict
from safegen.verification.verifier import verify
from tests.unit.provenance.ocsp_samples import Responder
from tests.unit.provenance.pki_samples import TimeStampAuthority
from tests.unit.provenance.provenance_samples import make_clip, make_spec
from tests.unit.recovery.recovery_samples import Recorded, record


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("resign")
    return record(Home(folder / "home"), folder)


@pytest.fixture
def own(made: Recorded, tmp_path: Path) -> Home:
    """The home with its clip, for a test that changes keys or ledger."""
    shutil.copytree(made.home.root, tmp_path / "home")
    return replace(made.home, root=tmp_path / "home")


def ledger_finding(verdict: Verdict) -> Finding:
    return next(f for f in verdict.findings if f.basis is Basis.LEDGER)


def trusted_root(home: Home) -> Trust:
    return Trust.of(home, (KeyStore.load(home), *KeyStore.retired(home)))


@pytest.mark.slow
def test_a_file_signed_again_after_a_rotation_is_verified(made: Recorded, own: Home, tmp_path: Path) -> None:
    KeyStore.renew(own)
    before = made.signed.path.read_bytes()
    done = resign(made.signed.path, tmp_path / "out.mp4", home=own)
    assert (done.content_id, done.previous, done.previous_entry) == (made.content_id, made.signed.manifest_id, 0)
    found = read_credential(done.output, trust=trusted_root(own))
    assert (found.state, found.leaf_serial) == ("trusted", KeyStore.load(own).leaf_serial)
    verdict = verify(done.output, home=own)
    assert (verdict.verdict, verdict.content_id, verdict.entry) == ("verified", made.content_id, 0)
    assert ledger_finding(verdict).evidence["resigned"] == done.entry
    assert "signed again" in ledger_finding(verdict).summary
    assert verify(made.signed.path, home=own).verdict == "verified"
    assert made.signed.path.read_bytes() == before
    with Ledger.open(own.ledger_url, create=False, read_only=True) as ledger:
        entry = ledger.get(done.entry)
        assert ledger.verify().ok
    assert (entry.kind, entry.body["previous_manifest_id"]) == ("resigned", made.signed.manifest_id)
    assert entry.body["signature"] == dict(done.signature)


@pytest.mark.slow
def test_again_and_after_new_keys_altogether(made: Recorded, own: Home, tmp_path: Path) -> None:
    first = resign(made.signed.path, tmp_path / "1.mp4", home=own)
    KeyStore.init(own, force=True)
    second = resign(first.output, tmp_path / "2.mp4", home=own)
    assert (second.previous, second.previous_entry) == (first.manifest_id, first.entry)
    verdict = verify(second.output, home=own)
    assert (verdict.verdict, ledger_finding(verdict).evidence["resigned"]) == ("verified", second.entry)


@pytest.mark.slow
def test_it_brings_the_time_stamp_and_the_ocsp_answer_that_were_missing(
    made: Recorded, own: Home, tmp_path: Path
) -> None:
    """With another signer, whose CA runs a responder: all of it from the home's settings."""
    responder = Responder()
    key = tmp_path / "signer.pem"
    key.write_text(responder.pki.chain_pem + responder.pki.leaf.key_pem.decode())
    assert read_credential(made.signed.path, trust=trusted_root(own)).timestamp is None
    (tmp_path / "tsa").mkdir()
    with TimeStampAuthority(tmp_path / "tsa").serve() as authority:
        home = replace(own, signer=f"file:{key}", ocsp="require", timestamp_authorities=authority.url)
        done = resign(made.signed.path, tmp_path / "out.mp4", home=home)
        responder.mood = "revoked"
        with pytest.raises(ProvenanceError, match="was revoked at"):
            resign(made.signed.path, tmp_path / "revoked.mp4", home=home)
    responder.close()
    assert not (tmp_path / "revoked.mp4").exists()
    add_list(own, "tsa", "tsa", authority.authority.root.pem.encode(), source="test", now=dt.datetime.now(dt.UTC))
    found = read_credential(done.output, trust=trusted_root(own))
    assert (found.state, found.timestamp_trusted, found.signer) == ("trusted", True, "Signer")
    with Ledger.open(own.ledger_url, create=False, read_only=True) as ledger:
        signature = ledger.get(done.entry).body["signature"]
    assert isinstance(signature, dict)
    assert (signature["ocsp"]["status"], signature["timestamp"]["status"]) == ("stapled", "stamped")
    assert verify(done.output, home=own).verdict == "verified"


@pytest.mark.slow
def test_a_restored_file_signed_again_stays_a_restored_one(made: Recorded, own: Home, tmp_path: Path) -> None:
    restored = recover(made.stripped(tmp_path / "stripped.mp4"), tmp_path / "restored.mp4", home=own)
    assert restored.output is not None
    done = resign(restored.output, tmp_path / "out.mp4", home=own)
    assert done.previous_entry == restored.entry
    verdict = verify(done.output, home=own)
    assert verdict.verdict == "recovered"
    evidence = ledger_finding(verdict).evidence
    assert (evidence["resigned"], evidence["restored"]) == (done.entry, restored.entry)


@pytest.mark.slow
def test_changed_after_it_was_signed_again(made: Recorded, own: Home, tmp_path: Path) -> None:
    done = resign(made.signed.path, tmp_path / "out.mp4", home=own)
    content = bytearray(done.output.read_bytes())
    content[content.index(b"mdat") + 3000] ^= 1
    done.output.write_bytes(content)
    assert verify(done.output, home=own).verdict == "tampered"
    with pytest.raises(InputError, match="does not hold"):
        resign(done.output, tmp_path / "again.mp4", home=own)
    assert not (tmp_path / "again.mp4").exists()


def test_signed_with_the_homes_key_past_the_ledger(made: Recorded, own: Home, tmp_path: Path) -> None:
    """An update that nobody recorded is no file of the home, whatever its signature says."""
    keys = KeyStore.load(own)
    updating.update_file(made.signed.path, tmp_path / "out.mp4", keys, anchors_pem=keys.root_pem)
    assert verify(tmp_path / "out.mp4", home=own).verdict == "tampered"
    with pytest.raises(InputError, match="not a file that the ledger records"):
        resign(tmp_path / "out.mp4", tmp_path / "again.mp4", home=own)


@pytest.mark.parametrize("kind", ["unsigned", "stripped", "stranger", "damaged", "sidecar", "missing", "no media"])
def test_files_that_are_refused(made: Recorded, own: Home, tmp_path: Path, kind: str) -> None:
    source, words = tmp_path / "source.mp4", "no credential"
    if kind == "unsigned":
        make_clip(source)
    elif kind == "stripped":
        made.stripped(source)
    elif kind == "stranger":
        keys, words = KeyStore.init(Home(tmp_path / "stranger")), "not by this home"
        from safegen.provenance.file_signing import sign_file

        sign_file(make_clip(tmp_path / "plain.mp4"), source, make_spec(), keys)
    elif kind == "damaged":
        content, words = bytearray(made.signed.path.read_bytes()), "does not hold"
        content[content.index(b"mdat") + 3000] ^= 1
        source.write_bytes(content)
    elif kind == "sidecar":
        words = "beside it"
        recover(made.stripped(source), source, sidecar=True, home=own)
    elif kind == "no media":
        source.write_bytes(b"no media at all" * 99)
    with pytest.raises(InputError, match=None if kind in ("missing", "no media") else words) as caught:
        resign(source, tmp_path / "out.mp4", home=own)
    if kind in ("unsigned", "stripped"):
        assert "safegen recover" in caught.value.remedy
    assert not (tmp_path / "out.mp4").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("force", [False, True])
def test_the_output_is_the_file_itself(made: Recorded, own: Home, tmp_path: Path, force: bool) -> None:
    before = made.signed.path.read_bytes()
    link = tmp_path / "link.mp4"
    link.symlink_to(made.signed.path)
    for output in (made.signed.path, link):
        with pytest.raises(InputError, match="the file itself"):
            resign(made.signed.path, output, force=force, home=own)
    assert made.signed.path.read_bytes() == before


def test_outputs_that_cannot_be(made: Recorded, own: Home, tmp_path: Path) -> None:
    there = tmp_path / "there.mp4"
    there.write_bytes(b"precious")
    for output, words in (
        (there, "exists already"), (tmp_path / "no" / "out.mp4", "does not exist"), (tmp_path / "out.mov", "end in"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            resign(made.signed.path, output, home=own)
    assert there.read_bytes() == b"precious"
    assert resign(made.signed.path, there, force=True, home=own).output.read_bytes() != b"precious"


def test_without_a_ledger(made: Recorded, own: Home, tmp_path: Path) -> None:
    (own.root / "ledger.db").unlink()
    with pytest.raises((LedgerError, InputError)):
        resign(made.signed.path, tmp_path / "out.mp4", home=own)
    assert not (tmp_path / "out.mp4").exists()


def test_no_authority_answers(made: Recorded, own: Home, tmp_path: Path) -> None:
    with pytest.raises(ProvenanceError, match="time-stamp"):
        resign(made.signed.path, tmp_path / "out.mp4", home=replace(own, timestamp_authorities="http://127.0.0.1:9/"))
    with pytest.raises(ConfigError, match="SAFEGEN_OCSP"):
        resign(made.signed.path, tmp_path / "out.mp4", home=replace(own, ocsp="perhaps"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home"]
    without = replace(own, timestamp_authorities="http://127.0.0.1:9/ none")
    done = resign(made.signed.path, tmp_path / "out.mp4", home=without)
    assert done.signature["timestamp"]["status"] == "unavailable"  # type: ignore[call-overload, index]


def test_a_file_that_cannot_be_moved_into_place_is_withdrawn(
    made: Recorded, own: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: Target, _finished: Path) -> None:
        raise ProvenanceError("no")

    monkeypatch.setattr(Target, "place", broken)
    with pytest.raises(SafegenError, match="no"):
        resign(made.signed.path, tmp_path / "out.mp4", home=own)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home"]
    with Ledger.open(own.ledger_url, create=False, read_only=True) as ledger:
        kinds = [e.kind for e in ledger.find_content(made.content_id)]
    assert kinds == ["generated", "resigned", "withdrawn"]


NOBODY = 65534


@pytest.fixture
def anyones() -> Iterator[Path]:
    """A folder in which other users may work too: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


SCRIPT = """
import os, resource, signal, sys, time
from pathlib import Path
from safegen.settings import Home
from safegen.recovery.resign import resign
from safegen.provenance.native import streaming
how, source, target, home = sys.argv[1:]
if how == "full":  # a limit of the file's size stands in for a full disk; SIGXFSZ is ignored as EFBIG
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    passing = streaming._pass
    def limited(*arguments):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        passing(*arguments)
    streaming._pass = limited
if how == "killed":
    def slowly(*arguments):
        print("writing", flush=True)
        time.sleep(60)
    streaming._pass = slowly
import safegen.keys, safegen.ledger, safegen.provenance.updating  # while modules can be read for certain
if how == "read-only" and os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    resign(Path(source), Path(target), home=Home(Path(home)))
except Exception as error:
    print("refused:", type(error).__name__, error)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits, modes and signals")
@pytest.mark.parametrize("how", ["full", "killed", "read-only"])
def test_the_source_is_never_harmed(made: Recorded, how: str, anyones: Path) -> None:
    shutil.copytree(made.home.root, anyones / "home")
    own = replace(made.home, root=anyones / "home")
    place = anyones / "place"
    place.mkdir()
    source = place / "clip.mp4"
    shutil.copy(made.signed.path, source)
    before = source.read_bytes()
    if how == "read-only" and os.geteuid() == 0:  # root may write anywhere, so the child steps down
        for path in (anyones, *anyones.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    place.chmod(0o555 if how == "read-only" else 0o755)
    command = [sys.executable, "-c", SCRIPT, how, str(source), str(place / "out.mp4"), str(own.root)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = child.stdout.readline()
    if how == "killed":
        assert said == "writing\n"
        child.send_signal(signal.SIGKILL)
    else:
        assert said.startswith("refused: "), said
        assert {"full": "File too large", "read-only": "is not writable"}[how] in said
    child.wait(60)
    child.stdout.close()
    place.chmod(0o755)
    assert source.read_bytes() == before
    left = [p.name for p in place.iterdir() if p != source]
    assert "out.mp4" not in left
    assert all(name.startswith(".out.") for name in left), left
    assert how == "killed" or not left
