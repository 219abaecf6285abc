"""The main job, through the shell: generate, verify, strip, re-encode, tamper, recover."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from safegen.keys import KeyStore
from safegen.ledger import Event, Ledger
from safegen.media import probe
from safegen.settings import Home
from tests.e2e.conftest import PROMPT, SMALL, Made, Shell, ffmpeg

BASES = ["metadata", "watermark", "ledger", "forensic", "labels"]


def findings(printed: dict) -> dict[str, str]:
    return {f["basis"]: f["status"] for f in printed["findings"]}


def test_generate_prints_what_scripts_rely_on(made: Made) -> None:
    printed = made.printed
    assert printed["output"] == str(made.path)
    assert len(printed["content_id"]) == 16
    assert printed["entry"] >= 0
    assert printed["decision"]["action"] == "allow"
    assert {c["name"] for c in printed["decision"]["classifiers"] if c["status"] == "ran"} >= {"lexicon", "encoder"}
    assert {c["name"] for c in printed["frames_decision"]["classifiers"] if c["status"] == "ran"} == {"nudenet"}
    stages = {"moderate_prompt", "load_model", "generate", "mark", "moderate_frames", "encode", "read_mark", "sign"}
    assert stages | {"record"} <= printed["milliseconds"].keys()
    assert all(ms > 0 for ms in printed["milliseconds"].values())


def test_the_clip_is_what_was_asked_for(made: Made) -> None:
    info = probe(made.path)
    assert (info.codec, info.frames, info.fps) == ("h264", SMALL["frames"], 16.0)


def test_nothing_else_is_left_beside_the_clip(made: Made) -> None:
    assert [p.name for p in made.path.parent.iterdir()] == ["clip.mp4"]


def test_the_prompt_is_nowhere_in_clear(made: Made, home: Home) -> None:
    for path in [made.path, *(p for p in home.root.rglob("*") if p.is_file())]:
        assert PROMPT.encode() not in path.read_bytes(), path


def test_an_untouched_clip_is_verified(shell: Shell, made: Made) -> None:
    printed = json.loads(shell.apart("verify", made.path, "--json", code=0).stdout)
    assert printed["verdict"] == "verified"
    assert printed["content_id"] == made.printed["content_id"]
    assert printed["entry"] == made.printed["entry"]
    assert [f["basis"] for f in printed["findings"]] == BASES
    assert all(f["summary"].endswith(".") for f in printed["findings"])
    assert findings(printed) == dict.fromkeys(BASES[:3], "pass") | {"forensic": "not_run", "labels": "absent"}


def test_verification_reads_and_changes_nothing(shell: Shell, made: Made) -> None:
    before = made.path.read_bytes(), made.path.stat().st_mtime_ns
    shell("verify", made.path, "--no-neural")
    assert (made.path.read_bytes(), made.path.stat().st_mtime_ns) == before


def test_without_the_neural_parts_the_verdict_stays_open(shell: Shell, made: Made) -> None:
    printed = shell.json("verify", made.path, "--no-neural", code=4)
    assert printed["verdict"] == "inconclusive"
    assert findings(printed) == {
        "metadata": "pass", "watermark": "not_run", "ledger": "pass", "forensic": "not_run", "labels": "absent",
    }  # fmt: skip


@pytest.mark.parametrize(
    "how",
    [["-c", "copy"], ["-c:v", "libx264", "-crf", "23", "-pix_fmt", "yuv420p"]],
    ids=["stripped", "reencoded_crf23"],
)
def test_a_clip_without_its_credential_is_recovered(shell: Shell, made: Made, tmp_path: Path, how: list[str]) -> None:
    changed = tmp_path / "changed.mp4"
    ffmpeg("-i", made.path, *how, changed)
    printed = shell.json("verify", changed, code=0)
    assert printed["verdict"] == "recovered"
    assert printed["content_id"] == made.printed["content_id"]
    assert printed["entry"] == made.printed["entry"]
    assert findings(printed)["metadata"] == "absent"
    ledger = next(f for f in printed["findings"] if f["basis"] == "ledger")
    assert ledger["evidence"]["kept_manifest"] == made.printed["manifest_id"]
    assert ledger["evidence"]["kept_manifest_signature"] == "valid"


def test_a_changed_byte_of_the_media_data_is_tampering(shell: Shell, made: Made, tmp_path: Path) -> None:
    data = bytearray(made.path.read_bytes())
    data[data.rindex(b"mdat") + 3000] ^= 1
    changed = tmp_path / "mdat_bit_flipped.mp4"
    changed.write_bytes(data)
    printed = shell.json("verify", changed, code=1)
    assert printed["verdict"] == "tampered"
    assert findings(printed)["metadata"] == "fail"


def test_two_homes_share_nothing(made: Made, fresh_home: Home) -> None:
    printed = Shell(fresh_home).json("verify", made.path, code=1)
    assert printed["verdict"] == "unverified"
    assert printed["content_id"] is None
    assert findings(printed)["watermark"] == "absent"


def test_a_home_without_keys_has_made_nothing(made: Made, tmp_path: Path) -> None:
    printed = Shell(Home(tmp_path / "empty")).json("verify", made.path, code=1)
    assert printed["verdict"] == "unverified"
    assert not (tmp_path / "empty").exists()


def test_foreign_footage_is_unverified(shell: Shell, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=192x192:r=16:d=1", "-pix_fmt", "yuv420p", foreign)
    printed = shell.json("verify", foreign, code=1)
    assert printed["verdict"] == "unverified"
    assert findings(printed) == dict.fromkeys((*BASES[:3], "labels"), "absent") | {"forensic": "not_run"}


@pytest.fixture
def edited_home(home: Home, tmp_path: Path) -> Home:
    """A copy of the home whose ledger lost its triggers, so that rows can be edited by hand."""
    copy = Home(tmp_path / "edited")
    shutil.copytree(home.root, copy.root)
    with contextlib.closing(sqlite3.connect(copy.root / "ledger.db", isolation_level=None)) as database:
        triggers = [name for (name,) in database.execute("select name from sqlite_master where type = 'trigger'")]
        assert triggers
        for name in triggers:
            database.execute(f'drop trigger "{name}"')
    return copy


def test_an_edited_ledger_row_is_named(edited_home: Home, made: Made) -> None:
    entry = made.printed["entry"]
    with sqlite3.connect(edited_home.root / "ledger.db") as database:
        database.execute("update entries set kind = 'blocked' where idx = ?", (entry,))
    shell = Shell(edited_home)
    report = shell.json("ledger", "fsck", code=1)
    assert report["ok"] is False
    assert (entry, "kind") in {(p["entry"], p["column"]) for p in report["problems"]}
    said = shell("ledger", "fsck", code=1).stdout
    assert f"entry {entry}" in said


def test_a_clip_whose_ledger_row_was_edited_is_tampered(edited_home: Home, made: Made) -> None:
    with sqlite3.connect(edited_home.root / "ledger.db") as database:
        database.execute("update entries set asset_sha256 = ? where idx = ?", ("0" * 64, made.printed["entry"]))
    printed = Shell(edited_home).json("verify", made.path, "--no-neural", code=1)
    assert printed["verdict"] == "tampered"
    assert findings(printed)["ledger"] == "fail"


def test_a_damaged_kept_manifest_is_found(edited_home: Home, made: Made, tmp_path: Path) -> None:
    kept = edited_home.manifests / f"{made.printed['content_id']}.c2pa"
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    stripped = tmp_path / "stripped.mp4"
    ffmpeg("-i", made.path, "-c", "copy", stripped)
    assert Shell(edited_home).json("verify", stripped, code=1)["verdict"] == "tampered"


def test_a_missing_ledger_leaves_the_verdict_open(edited_home: Home, made: Made) -> None:
    for path in edited_home.root.glob("ledger.db*"):
        path.unlink()
    printed = Shell(edited_home).json("verify", made.path, "--no-neural", code=4)
    assert findings(printed)["ledger"] == "not_run"


def test_old_marks_stay_readable_after_new_keys(edited_home: Home, made: Made) -> None:
    KeyStore.init(edited_home, force=True)
    assert Shell(edited_home).json("verify", made.path, code=0)["verdict"] == "verified"


def test_ledger_list_prints_a_line_per_entry(shell: Shell, made: Made) -> None:
    lines = [json.loads(line) for line in shell("ledger", "list", "--json", code=0).stdout.splitlines()]
    assert [e["entry"] for e in lines] == list(range(len(lines)))
    entry = lines[made.printed["entry"]]
    assert (entry["kind"], entry["content_id"]) == ("generated", made.printed["content_id"])
    assert entry["asset_sha256"] == made.printed["sha256"]


def test_ledger_show_gives_a_proof(shell: Shell, made: Made) -> None:
    by_index = shell.json("ledger", "show", str(made.printed["entry"]), code=0)
    by_content = shell.json("ledger", "show", made.printed["content_id"], code=0)
    assert by_index["leaf_hash"] == by_content["leaf_hash"]
    assert by_index["proof"].startswith("c2sp.org/tlog-proof@v1")
    shell("ledger", "show", "999999", code=2)
    shell("ledger", "show", "0123456789abcdef", code=2)


def test_an_outside_checkpoint_reveals_a_roll_back(edited_home: Home, tmp_path: Path) -> None:
    keys, shell, kept = KeyStore.load(edited_home), Shell(edited_home), tmp_path / "checkpoint"
    older = (edited_home.root / "ledger.db").read_bytes()
    with Ledger.open(edited_home.ledger_url, key=keys.ledger_key) as ledger:
        kept.write_text(ledger.append(Event(kind="reviewed")).checkpoint)
    schema = "schema"  # the copy has no triggers, which verification reports too
    report = shell.json("ledger", "fsck", "--checkpoint", kept)
    assert {p["column"] for p in report["problems"]} == {schema}
    for path in edited_home.root.glob("ledger.db*"):
        path.unlink()
    (edited_home.root / "ledger.db").write_bytes(older)
    assert {p["column"] for p in shell.json("ledger", "fsck", code=1)["problems"]} == {schema}
    assert {p["column"] for p in shell.json("ledger", "fsck", "--checkpoint", kept, code=1)["problems"]} > {schema}
    shell("ledger", "fsck", "--checkpoint", tmp_path / "missing", code=2)


def test_a_reader_that_goes_away_changes_no_exit_code(shell: Shell, made: Made) -> None:
    """As ``safegen verify clip.mp4 | head -1`` does, which a script may branch on."""
    verify = shell.start("verify", made.path)
    assert verify.stdout is not None
    verify.stdout.close()
    verify.stdout = None
    _, complaint = verify.communicate(timeout=500)
    assert (verify.returncode, complaint) == (0, "")
