"""Bundles for auditors: what their verifier, run as an auditor would, says of them and of every way to spoil them."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.audit.bundle import verify_bundle
from safegen.audit.bundle.export import Exported, Selection, export
from safegen.errors import InputError, LedgerDamagedError
from safegen.keys import KeyStore
from safegen.ledger import Event, Ledger, VerifierKey, merkle, sign_note
from safegen.ledger.audit_queries import AuditLedger
from safegen.provenance.kept_manifests import store_manifest
from safegen.provenance.trust import own_certificates
from safegen.settings import Home
from safegen.types import ContentId

CLIPS = 11
SOURCE = Path(verify_bundle.__file__)


def content_id(number: int) -> str:
    return f"{number:016x}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    keys = KeyStore.init(home)
    (leaf,) = own_certificates(home, (keys,))
    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        for number in range(CLIPS):
            kept = store_manifest(home, ContentId(content_id(number)), b"manifest %d" % number)
            body = {"signature": {"leaf_sha256": leaf if number else "0" * 64}, "text": "ö\u2028\0"}
            ledger.append(Event("generated", content_id(number), body, f"{number:064x}", kept, action="allow"))
            if number == 6:
                (home.root / "earlier").write_text(ledger.checkpoint() or "")
        ledger.append(Event("blocked", content_id(3), action="block"))
    return home


@pytest.fixture(scope="module")
def keys(home: Home) -> KeyStore:
    return KeyStore.load(home)


@pytest.fixture(scope="module")
def vkey(keys: KeyStore) -> str:
    return str(VerifierKey.of(keys.ledger_name, keys.ledger_public_key))


def write(home: Home, path: Path, **asked: object) -> Exported:
    with AuditLedger.open(home.ledger_url, create=False, read_only=True) as ledger:
        return export(ledger, KeyStore.load(home), home, path, Selection(**asked))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bundle(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    done = write(home, path, manifests=True, since=(home.root / "earlier").read_text())
    assert (done.entries, done.size, done.manifests, done.files) == (CLIPS + 1, CLIPS + 1, CLIPS, len(read(path)))
    return path


@pytest.fixture(scope="module")
def whole(bundle: Path) -> dict[str, bytes]:
    return read(bundle)


def read(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def run(script: Path, *arguments: object, code: int = 0, python: str = sys.executable) -> str:
    """Run a verifier as on a machine without safegen: no site packages, no environment."""
    command = [python, "-I", "-S", str(script), *map(str, arguments)]
    done = subprocess.run(command, env={}, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def faults(files: dict[str, bytes], vkey: str = "", earlier: bytes = b"") -> list[str]:
    result = verify_bundle.check_bundle(files, vkey, earlier)
    assert result.holds == all(good for good, _ in result.checks)
    return [words for good, words in result.checks if not good]


# -- bundles that hold -------------------------------------------------------------------------------------------------


def test_an_auditor_checks_a_folder_with_python_alone(bundle: Path, vkey: str, home: Home) -> None:
    told = run(bundle / "verify.py", "--key", vkey, "--earlier", home.root / "earlier")
    assert told.splitlines()[-1] == "THE BUNDLE HOLDS"
    assert told.count("  holds\n") == CLIPS + 1
    assert "these are all entries of the ledger" in told
    assert "the 7 entries of the earlier checkpoint are still there" in told
    assert "1 certificates are not included: 0000" in told
    said = json.loads(run(bundle / "verify.py", bundle, "--json", "--key", vkey))
    assert (said["holds"], said["vouched"], [row["entry"] for row in said["entries"]]) == (True, True, [*range(12)])


def test_a_bundle_under_nothing_but_its_own_key_was_said_to_hold(bundle: Path, vkey: str, home: Home) -> None:
    told = run(bundle / "verify.py", code=5)
    assert "THE BUNDLE HOLDS UNDER ITS OWN KEY\n" in told
    assert vkey in told.splitlines()[-1]  # asks to compare the key
    said = json.loads(run(bundle / "verify.py", bundle, "--json", code=5))
    assert (said["holds"], said["vouched"]) == (True, False)
    run(bundle / "verify.py", "--earlier", home.root / "earlier")  # signed with the same key, and kept elsewhere
    other = VerifierKey.of("other.example", Ed25519PrivateKey.generate())
    assert "WRONG the bundle's key" in run(bundle / "verify.py", "--key", other, code=1)


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_the_oldest_python_will_do_and_a_new_one(bundle: Path, vkey: str, version: str) -> None:
    found = [shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for python in map(str, filter(None, found)):
        if subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            assert "THE BUNDLE HOLDS" in run(bundle / "verify.py", "--key", vkey, python=python)
            return
    pytest.skip(f"there is no Python {version} here")


def test_a_zip_file_is_the_same_in_every_byte(home: Home, tmp_path: Path, vkey: str) -> None:
    for name in ("a.zip", "b.zip"):
        write(home, tmp_path / name, content_ids=(content_id(3), content_id(1)))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.zip", "b.zip"]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == sorted(archive.namelist())
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        archive.extract("verify.py", tmp_path)
    told = run(tmp_path / "verify.py", tmp_path / "a.zip", "--key", vkey)
    assert "3 of 3 entries" in told
    assert "none is left out" not in told


def test_what_is_asked_for_is_what_is_in_it(home: Home, tmp_path: Path) -> None:
    with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
        times = [entry.time for entry in ledger.entries()]
    write(home, tmp_path / "b", begin=times[2], end=times[5])
    files = read(tmp_path / "b")
    assert faults(files) == []
    assert [json.loads(line)["index"] for line in files["entries.jsonl"].splitlines()] == [2, 3, 4]
    assert not any(name.startswith(("manifests/", "earlier", "consistency")) for name in files)
    write(home, tmp_path / "none", begin="2999")
    assert faults(read(tmp_path / "none")) == []
    (words,) = {line for line in files["README.txt"].decode().splitlines() if line.startswith("This folder")}
    assert words == f"This folder holds 3 of its 12 entries, from {times[2]} on, before {times[5]}."


def test_it_holds_what_leaves_say_and_public_keys_and_nothing_more(bundle: Path, home: Home) -> None:
    secrets = [p.read_bytes() for p in home.keys.iterdir() if p.suffix == ".key"]
    assert secrets
    content = b"".join(read(bundle).values())
    assert not any(secret.strip().splitlines()[-2 if b"BEGIN" in secret else -1] in content for secret in secrets)
    assert str(home.root).encode() not in content


# -- bundles that were spoilt ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_file_that_is_altered_emptied_or_lost_is_found(whole: dict[str, bytes]) -> None:
    for name, content in whole.items():
        flipped = bytes([content[0] ^ 1]) + content[1:]
        for spoilt in (flipped, content[:-1], content + b"\n", b""):
            assert faults(whole | {name: spoilt}), name
        assert faults({other: data for other, data in whole.items() if other != name}), name
    assert faults(whole | {"more.txt": b""})
    assert faults(whole) == []


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bit_that_is_flipped_is_found(whole: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(whole)))
    place = data.draw(st.integers(0, 8 * len(whole[name]) - 1))
    spoilt = bytearray(whole[name])
    spoilt[place // 8] ^= 1 << place % 8
    assert faults(whole | {name: bytes(spoilt)})


@pytest.mark.parametrize("name", ["README.txt", "entries.jsonl", "proofs/4.tlog-proof", "checkpoint", "SIGNATURE"])
def test_the_program_says_so(bundle: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / name).write_bytes((copy / name).read_bytes().replace(b"e", b"f"))
    told = run(copy / "verify.py", code=1)
    assert told.splitlines()[-1] == "THE BUNDLE DOES NOT HOLD"
    assert "WRONG " in told
    assert json.loads(run(copy / "verify.py", "--json", code=1))["holds"] is False


def resign(files: dict[str, bytes], key: Ed25519PrivateKey, name: str) -> dict[str, bytes]:
    """What somebody can do who has a signing key: write CONTENTS and SIGNATURE anew."""
    rest = {n: data for n, data in files.items() if n not in ("CONTENTS", "SIGNATURE")}
    contents = "".join(f"{hashlib.sha256(data).hexdigest()}  {n}\n" for n, data in sorted(rest.items())).encode()
    note = f"{verify_bundle.FORMAT}\nsha256 {hashlib.sha256(contents).hexdigest()}\n"
    return rest | {"CONTENTS": contents, "SIGNATURE": sign_note(note, name, key).encode()}


Edit = Callable[[dict[str, bytes]], dict[str, bytes]]
EDITS: dict[str, tuple[Edit, str]] = {
    "entry edited": (lambda f: {"entries.jsonl": f["entries.jsonl"].replace(b'"allow"', b'"block"', 1)}, "11 of 12"),
    "entry left out": (lambda f: {"entries.jsonl": f["entries.jsonl"].split(b"\n", 1)[1]}, "selection.json"),
    "entry twice": (
        lambda f: {"entries.jsonl": f["entries.jsonl"].splitlines(True)[0] + f["entries.jsonl"]}, "12 of 13",
    ),
    "line broken off": (lambda f: {"entries.jsonl": f["entries.jsonl"][:-9]}, "all lines are whole"),
    "line of no JSON": (lambda f: {"entries.jsonl": b"[]\n" + f["entries.jsonl"]}, "12 of 13"),
    "proof of another entry": (lambda f: {"proofs/3.tlog-proof": f["proofs/4.tlog-proof"]}, "11 of 12"),
    "proof renumbered": (
        lambda f: {"proofs/3.tlog-proof": f["proofs/4.tlog-proof"].replace(b"index 4", b"index 3")}, "11 of 12",
    ),
    "proof of nothing": (lambda f: {"proofs/77.tlog-proof": f["proofs/4.tlog-proof"]}, "every proof is of an entry"),
    "proof garbled": (lambda f: {"proofs/3.tlog-proof": b"\xff"}, "11 of 12"),
    "checkpoint replaced": (lambda f: {"checkpoint": f["earlier-checkpoint"]}, "0 of 12"),
    "checkpoint garbled": (lambda f: {"checkpoint": f["checkpoint"].replace(b"12", b"13", 1)}, "signature is wrong"),
    "selection lies": (
        lambda f: {"selection.json": f["selection.json"].replace(b'om": ""', b'om": "2999"')}, "selection.json",
    ),
    "selection of no JSON": (lambda f: {"selection.json": b"[]"}, "selection.json"),
    "certificate renamed": (
        lambda f: {f"certificates/{'1' * 64}.pem": next(d for n, d in f.items() if n.startswith("cert"))},
        "certificates/1111",
    ),
    "certificate garbled": (lambda f: {next(n for n in f if n.startswith("cert")): b"x"}, "certificates/"),
    "manifest replaced": (lambda f: {f"manifests/{content_id(2)}.c2pa": b"other"}, content_id(2)),
    "manifest of nothing": (lambda f: {"manifests/x.c2pa": b"other"}, "manifests/x"),
    "history of another": (lambda f: {"earlier-checkpoint": f["checkpoint"]}, "consistency"),
    "history garbled": (lambda f: {"consistency": f["consistency"].replace(b"old 7", b"old 6")}, "consistency"),
    "history lost": (lambda f: {"consistency": b""}, "consistency"),
}  # fmt: skip


@pytest.mark.parametrize("case", EDITS)
def test_what_the_key_holder_spoils_is_found_by_what_was_signed_before(
    whole: dict[str, bytes], keys: KeyStore, vkey: str, case: str
) -> None:
    edit, expected = EDITS[case]
    files = resign(whole | edit(whole), keys.ledger_key, keys.ledger_name)
    found = faults(files, vkey)
    assert any(expected in words for words in found), found
    assert not any(words.startswith(("CONTENTS", "SIGNATURE")) for words in found)


def test_a_bundle_that_another_key_signed_needs_the_true_one(home: Home, tmp_path: Path, vkey: str) -> None:
    forger = Home(tmp_path / "forger")
    forged = KeyStore.init(forger)
    with Ledger.open(forger.ledger_url, key=forged.ledger_key, origin=vkey.partition("+")[0]) as ledger:
        ledger.append(Event("generated", content_id(1)))
        note = ledger.checkpoint() or ""
    with pytest.raises(InputError, match="not one of this ledger"):
        write(home, tmp_path / "b", since=note)
    with AuditLedger.open(forger.ledger_url, create=False, read_only=True) as ledger:
        store = KeyStore.load(forger)
        object.__setattr__(store, "ledger_name", vkey.partition("+")[0])
        export(ledger, store, forger, tmp_path / "b", Selection())
    files = read(tmp_path / "b")
    assert faults(files) == []
    assert faults(files, vkey) == ["the bundle's key is the one that you gave"]


def test_a_checkpoint_that_the_auditor_kept_counts(whole: dict[str, bytes], home: Home, tmp_path: Path) -> None:
    with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
        other = (ledger.checkpoint(5) or "").encode()
    assert faults(whole, earlier=whole["earlier-checkpoint"]) == []
    assert faults(whole, earlier=other) == ["it is the checkpoint that you kept"]
    assert faults(whole, earlier=b"x")[0].startswith("consistency: ")
    write(home, tmp_path / "b")
    assert faults(read(tmp_path / "b"), earlier=other) == ["the bundle holds no proof for the checkpoint that you kept"]


def test_what_is_no_bundle_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK")
    run(SOURCE, tmp_path / "x.zip", code=2)
    run(SOURCE, tmp_path / "nowhere", code=2)
    (tmp_path / "folder").mkdir()
    assert "ledger.vkey" in run(SOURCE, tmp_path / "folder", code=1)
    (tmp_path / "folder" / "link").symlink_to("/etc/hostname")
    run(SOURCE, tmp_path / "folder", code=2)
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("checkpoint", "a")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("checkpoint", "b")
    (tmp_path / "twice.zip").write_bytes(twice.getvalue())
    run(SOURCE, tmp_path / "twice.zip", code=2)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_place_that_is_taken_is_left_alone_unless_forced(home: Home, keys: KeyStore, tmp_path: Path) -> None:
    taken = tmp_path / "b"
    taken.mkdir()
    (taken / "mine").touch()
    with pytest.raises(InputError, match="exists"):
        write(home, taken)
    assert [p.name for p in tmp_path.rglob("*")] == ["b", "mine"]
    with AuditLedger.open(home.ledger_url, create=False, read_only=True) as ledger:
        export(ledger, keys, home, taken, Selection(), force=True)
    assert faults(read(taken)) == []
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_clip_that_is_not_there_and_a_roll_back_are_told(home: Home, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no entry"):
        write(home, tmp_path / "b", content_ids=("f" * 16,))
    copy = Home(Path(shutil.copytree(home.root, tmp_path / "copy")))
    keys = KeyStore.load(copy)
    with Ledger.open(copy.ledger_url, key=keys.ledger_key) as ledger:
        ledger.append(Event("reviewed"))
        newer = ledger.checkpoint() or ""
    with pytest.raises(InputError, match="rolled back"):
        write(home, tmp_path / "b", since=newer)
    assert not (tmp_path / "b").exists()


def test_a_damaged_ledger_gives_no_bundle(home: Home, tmp_path: Path) -> None:
    import sqlite3

    copy = Home(Path(shutil.copytree(home.root, tmp_path / "copy")))
    with sqlite3.connect(copy.root / "ledger.db") as db:
        db.execute("DROP TRIGGER entries_no_update")
        db.execute("UPDATE entries SET leaf = replace(leaf, 'allow', 'block') WHERE idx = 2")
    with pytest.raises(LedgerDamagedError):
        write(copy, tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


# -- the verifier's own parts ------------------------------------------------------------------------------------------

RFC8032 = (  # section 7.1: public key, message, signature
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
)


@pytest.mark.parametrize(("public", "message", "signature"), RFC8032)
def test_the_vectors_of_rfc_8032(public: str, message: str, signature: str) -> None:
    key, text, good = bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature)
    assert verify_bundle.verify_ed25519(key, text, good)
    assert not verify_bundle.verify_ed25519(key, text + b"x", good)
    larger = int.from_bytes(good[32:], "little") + verify_bundle.L  # the same number, written otherwise
    assert not verify_bundle.verify_ed25519(key, text, good[:32] + larger.to_bytes(32, "little"))
    assert not verify_bundle.verify_ed25519(key, text, good[:-1])
    assert not verify_bundle.verify_ed25519(b"\xff" * 32, text, good)


@settings(max_examples=40, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=80), bit=st.integers(0, 96 * 8 - 1))
def test_signatures_are_judged_as_by_another_implementation(seed: bytes, message: bytes, bit: int) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    assert verify_bundle.verify_ed25519(public, message, signature)
    spoilt = bytearray(public + signature)
    spoilt[bit // 8] ^= 1 << bit % 8
    public, signature = bytes(spoilt[:32]), bytes(spoilt[32:])
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        expected = True
    except (InvalidSignature, ValueError):
        expected = False
    assert verify_bundle.verify_ed25519(public, message, signature) == expected


def test_its_tree_is_the_ledgers() -> None:
    leaves = [merkle.leaf_hash(b"%d" % n) for n in range(33)]

    def node(level: int, position: int) -> bytes:
        return verify_bundle.root_of(leaves[position << level : position + 1 << level])

    for size in range(len(leaves) + 1):
        root = merkle.tree_root(size, node)
        assert verify_bundle.root_of(leaves[:size]) == root
        for index in range(size):
            path = merkle.inclusion_path(index, size, node)
            assert verify_bundle.included(index, size, leaves[index], path, root)
            assert not verify_bundle.included(index, size, leaves[index - 1], path, root) or size == 1
            assert not verify_bundle.included(index, size, leaves[index], [*path, root], root)
        for old in range(size + 1):
            path, old_root = merkle.consistency_path(old, size, node), merkle.tree_root(old, node)
            assert verify_bundle.consistent(old, size, old_root, root, path)
            assert not verify_bundle.consistent(old, size, leaves[0][::-1], root, path)
            assert not verify_bundle.consistent(old, size, old_root, root, [*path, root])


def test_it_needs_python_3_9_and_its_standard_library_alone() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 9))
    imported = {name.name for n in ast.walk(tree) if isinstance(n, ast.Import) for name in n.names}
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
