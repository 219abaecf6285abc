"""Check an audit bundle of a safegen ledger. Needs Python 3.9 or later and nothing else: no safegen, no network.

    python verify.py [BUNDLE] [--key VKEY] [--earlier CHECKPOINT] [--json]

BUNDLE is the bundle's folder or zip file; without it, the folder that this script lies in. VKEY is the ledger's public
key as its operator publishes it; CHECKPOINT is a checkpoint of this ledger that you kept yourself. With neither, only
the key in the bundle is there to check with, which whoever forged the whole bundle could have replaced.

Exit code: 0 everything holds, 1 something does not, 2 the bundle cannot be read, 5 everything holds under the bundle's
own key, and nothing from elsewhere says that this is the ledger's.

What is checked: every file against CONTENTS, CONTENTS against its signature, the signed checkpoint, every entry against
the checkpoint by its inclusion proof, the earlier checkpoint by a consistency proof, certificates and manifests against
the entries. Ed25519 is RFC 8032, the Merkle tree RFC 9162, notes and proofs are those of https://c2sp.org.
"""

# ruff: noqa: B905 - zip(strict=...) and the like came after Python 3.9
from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

if sys.version_info < (3, 9):  # noqa: UP036 - this file runs elsewhere than the rest
    sys.exit("verify.py needs Python 3.9 or later")

FORMAT = "safegen.audit-bundle/1"
SCHEMA = "safegen.audit-check/1"
MOST_BYTES = 4 << 30
FAULTS = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)

# -- Ed25519, RFC 8032 section 5.1 -------------------------------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)

Point = tuple[int, int, int, int]  # extended coordinates (X, Y, Z, T) with x = X/Z, y = Y/Z, x*y = T/Z


def add(a: Point, b: Point) -> Point:
    """Add two points (section 5.1.4)."""
    s, t = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    u, v = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = t - s, v - u, v + u, t + s
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar: int, point: Point) -> Point:
    """Multiply a point by a number."""
    total: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def recover_x(y: int, sign: int) -> int:
    """Return the x coordinate (section 5.1.3); ValueError if there is none."""
    if y >= P:
        raise ValueError("not a point")
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    if x2 == 0:
        if sign:
            raise ValueError("not a point")
        return 0
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_MINUS_1 % P
    if (x * x - x2) % P:
        raise ValueError("not a point")
    return P - x if x & 1 != sign else x


def decompress(data: bytes) -> Point:
    """Read a point; ValueError if it is none."""
    if len(data) != 32:
        raise ValueError("not a point")
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    x = recover_x(y, sign)
    return (x, y, 1, x * y % P)


BASE_Y = 4 * pow(5, -1, P) % P
BASE: Point = (recover_x(BASE_Y, 0), BASE_Y, 1, recover_x(BASE_Y, 0) * BASE_Y % P)


def verify_ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature is valid (section 5.1.7)."""
    if len(public) != 32 or len(signature) != 64:
        return False
    try:
        a, r = decompress(public), decompress(signature[:32])
    except ValueError:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    left, right = multiply(s, BASE), add(r, multiply(h, a))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


# -- signed notes and the Merkle tree ----------------------------------------------------------------------------------


def decode(text: str) -> bytes:
    """Decode base64 that is written in the one way that it can be; ValueError for others."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not canonical base64")
    return data


class Key:
    """A ledger's public key, from its vkey: name+keyid+base64(0x01 || key)."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.name, key_id, data = self.text.split("+", 2)
        raw = decode(data)
        self.id = hashlib.sha256(self.name.encode() + b"\n" + raw).digest()[:4]
        if len(raw) != 33 or raw[0] != 1 or self.id.hex() != key_id:
            raise ValueError("not a vkey of an Ed25519 key")
        self.public = raw[1:]

    def open(self, note: bytes) -> str:
        """Return the text of a note that this key signed; ValueError if it did not."""
        text, gap, lines = note.decode("utf-8").rpartition("\n\n")
        if not gap or not lines.endswith("\n"):
            raise ValueError("not a signed note")
        for line in lines[:-1].split("\n"):
            dash, name, data = line.split(" ")
            raw = decode(data)
            if dash == "\u2014" and name == self.name and raw[:4] == self.id:
                if not verify_ed25519(self.public, (text + "\n").encode(), raw[4:]):
                    raise ValueError("the signature is wrong")
                return text + "\n"
        raise ValueError("not signed by this key")


class Checkpoint:
    """What a ledger's key signed: how many entries there are, and the root of the tree over them."""

    def __init__(self, note: bytes, key: Key) -> None:
        self.note = note
        origin, size, root, rest = key.open(note).split("\n")
        if origin != key.name or rest or not re.fullmatch("0|[1-9][0-9]{0,18}", size):
            raise ValueError("not a checkpoint of this ledger")
        self.size, self.root = int(size), decode(root)
        if len(self.root) != 32:
            raise ValueError("not a checkpoint: its root is not 32 bytes")


def hash_leaf(leaf: bytes) -> bytes:
    """Hash an entry (RFC 9162 section 2.1.1)."""
    return hashlib.sha256(b"\0" + leaf).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """Hash an inner node (RFC 9162 section 2.1.1)."""
    return hashlib.sha256(b"\1" + left + right).digest()


def included(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> bool:
    """Whether a path leads from a leaf to the root (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size or any(len(step) != 32 for step in path):
        return False
    place, last, node = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            node = hash_node(step, node)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            node = hash_node(node, step)
        place, last = place >> 1, last >> 1
    return last == 0 and node == root


def consistent(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the tree of ``old`` entries is how that of ``new`` began (RFC 9162 section 2.1.4.2)."""
    if not 0 <= old <= new or any(len(step) != 32 for step in path):
        return False
    if old in (0, new):
        expected = new_root if old == new else hashlib.sha256(b"").digest()
        return not path and old_root == expected
    steps = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not path:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    was = now = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            was, now = hash_node(step, was), hash_node(step, now)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            now = hash_node(now, step)
        place, last = place >> 1, last >> 1
    return last == 0 and was == old_root and now == new_root


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes (RFC 9162 section 2.1.1)."""
    row = list(leaves)
    if not row:
        return hashlib.sha256(b"").digest()
    while len(row) > 1:
        odd = row[-1:] if len(row) & 1 else []
        row = [hash_node(a, b) for a, b in zip(row[::2], row[1::2])] + odd
    return row[0]


# -- the bundle --------------------------------------------------------------------------------------------------------


def read_bundle(path: str) -> dict[str, bytes]:
    """Return a bundle's files by name; OSError or ValueError if it cannot be read."""
    files: dict[str, bytes] = {}
    place = Path(path)
    if not place.is_dir():
        with zipfile.ZipFile(place) as archive:
            if sum(one.file_size for one in archive.infolist()) > MOST_BYTES:
                raise ValueError("the bundle is too large")
            for one in archive.infolist():
                if one.filename in files:
                    raise ValueError("two files have the name " + one.filename)
                files[one.filename] = archive.read(one)
        return files
    for found in place.rglob("*"):
        if found.is_symlink() or not (found.is_file() or found.is_dir()):
            raise ValueError(f"{found} is no plain file")
        if found.is_file():
            files[found.relative_to(place).as_posix()] = found.read_bytes()
    return files


class Result:
    """What was found out."""

    def __init__(self) -> None:
        self.checks: list[tuple[bool, str]] = []
        self.rows: list[dict[str, object]] = []
        self.vouched = False  # whether a key or a checkpoint from elsewhere was held against the bundle's key

    def tell(self, good: bool, words: str) -> bool:
        """Note a check's outcome."""
        self.checks.append((good, words))
        return good

    @property
    def holds(self) -> bool:
        """Whether every check passed."""
        return all(good for good, _ in self.checks)

    @property
    def exit_code(self) -> int:
        """What the process ends with."""
        return 1 if not self.holds else 0 if self.vouched else 5


def check_bundle(files: dict[str, bytes], vkey: str = "", earlier: bytes = b"") -> Result:
    """Check everything that the files of a bundle say."""
    result = Result()
    try:
        key = Key(files["ledger.vkey"].decode())
    except FAULTS as error:
        result.tell(False, "ledger.vkey holds no public key: " + str(error))
        return result
    if vkey:
        result.vouched = result.tell(key.text == vkey.strip(), "the bundle's key is the one that you gave")
    check_contents(files, key, result)
    try:
        checkpoint = Checkpoint(files["checkpoint"], key)
    except FAULTS as error:
        result.tell(False, "checkpoint: " + str(error))
        return result
    result.tell(True, f"checkpoint: {checkpoint.size} entries, signed by {key.name}")
    leaves = check_entries(files, checkpoint, result)
    check_selection(files, leaves, checkpoint, result)
    check_history(files, checkpoint, key, earlier, result)
    check_attachments(files, leaves, result)
    return result


def check_contents(files: dict[str, bytes], key: Key, result: Result) -> None:
    """Check every file against CONTENTS, and CONTENTS against SIGNATURE."""
    try:
        said = {}
        for line in files["CONTENTS"].decode().splitlines():
            digest, name = line.split("  ", 1)
            said[name] = digest
        signed = key.open(files["SIGNATURE"])
        wanted = FORMAT + "\nsha256 " + hashlib.sha256(files["CONTENTS"]).hexdigest() + "\n"
        result.tell(signed == wanted, "SIGNATURE: CONTENTS was signed by " + key.name)
    except FAULTS as error:
        result.tell(False, "CONTENTS or SIGNATURE: " + str(error))
        return
    there = set(files) - {"CONTENTS", "SIGNATURE"}
    wrong = ["missing: " + name for name in said if name not in there]
    wrong += ["not listed: " + name for name in there if name not in said]
    wrong += ["altered: " + n for n in there & set(said) if hashlib.sha256(files[n]).hexdigest() != said[n]]
    result.tell(not wrong, "CONTENTS: " + ("; ".join(sorted(wrong)) or f"{len(said)} files are as they were"))


def check_entries(files: dict[str, bytes], checkpoint: Checkpoint, result: Result) -> list[dict[str, object]]:
    """Check every entry against the checkpoint by its proof; return the leaves that were read, with their bytes."""
    found: list[dict[str, object]] = []
    lines = files.get("entries.jsonl", b"").split(b"\n")
    whole = result.tell(lines[-1] == b"" and "entries.jsonl" in files, "entries.jsonl: all lines are whole")
    last, proofs = -1, set()
    for line in lines[:-1] if whole else lines:
        row: dict[str, object] = {"entry": None, "holds": False, "problem": ""}
        try:
            leaf = json.loads(line)
            index = leaf["index"]
            if type(index) is not int or index <= last:
                raise ValueError("entries are out of order")
            last = index
            name = f"proofs/{index}.tlog-proof"
            proofs.add(name)
            row.update({key: leaf[key] for key in ("time", "kind", "content_id")}, entry=index)
            row["decision"] = None if leaf["action"] is None else {"action": leaf["action"]}
            check_proof(files[name], index, line, checkpoint)
            row["holds"] = True
            found.append({**leaf, "_bytes": line})
        except FAULTS as error:
            row["problem"] = str(error) or type(error).__name__
        result.rows.append(row)
    bad = [row for row in result.rows if not row["holds"]]
    result.tell(not bad, f"{len(result.rows) - len(bad)} of {len(result.rows)} entries lie under the checkpoint")
    stray = sorted(name for name in files if name.startswith("proofs/") and name not in proofs)
    result.tell(not stray, "every proof is of an entry" + (": not " + ", ".join(stray) if stray else ""))
    return found


def check_proof(proof: bytes, index: int, leaf: bytes, checkpoint: Checkpoint) -> None:
    """Check a C2SP tlog-proof; ValueError if it does not hold."""
    front, gap, note = proof.partition(b"\n\n")
    lines = front.decode().split("\n")
    if not gap or lines[0] != "c2sp.org/tlog-proof@v1" or lines[1] != f"index {index}":
        raise ValueError("the proof is of another entry, or no proof")
    if note != checkpoint.note:
        raise ValueError("the proof is under another checkpoint")
    if not included(index, checkpoint.size, hash_leaf(leaf), [decode(x) for x in lines[2:]], checkpoint.root):
        raise ValueError("the entry is not the one that the checkpoint covers")


def check_selection(
    files: dict[str, bytes], leaves: Sequence[dict[str, object]], checkpoint: Checkpoint, result: Result
) -> None:
    """Check that the entries are of what was asked for, and say whether any are left out between them."""
    try:
        asked = json.loads(files["selection.json"])
        good = asked["format"] == FORMAT and asked["entries"] == len(result.rows)
        for leaf in leaves:
            time = str(leaf["time"])
            good = good and (not asked["from"] or time >= asked["from"]) and (not asked["to"] or time < asked["to"])
            clips = (
                asked["content_ids"] if not asked.get("persons") else ()
            )  # whose entries they are, leaves do not say
            good = good and (not clips or leaf["content_id"] in clips)
        result.tell(good, "selection.json: the entries are of what was asked for")
    except FAULTS as error:
        result.tell(False, "selection.json: " + str(error))
    if leaves and len(leaves) == checkpoint.size:
        hashes = [hash_leaf(leaf["_bytes"]) for leaf in leaves]  # type: ignore[arg-type]
        result.tell(root_of(hashes) == checkpoint.root, "these are all entries of the ledger, none is left out")


def check_history(files: dict[str, bytes], new: Checkpoint, key: Key, kept: bytes, result: Result) -> None:
    """Check that the ledger of an earlier checkpoint is how this one began."""
    given = files.get("earlier-checkpoint", b"")
    if not given and "consistency" not in files:
        if kept:
            result.tell(False, "the bundle holds no proof for the checkpoint that you kept")
        return
    try:
        old = Checkpoint(given, key)
        front, gap, note = files["consistency"].partition(b"\n\n")
        lines = front.decode().split("\n")
        if not gap or lines[0] != f"old {old.size}" or note != new.note:
            raise ValueError("the consistency proof is of other checkpoints")
        holds = consistent(old.size, new.size, old.root, new.root, [decode(x) for x in lines[1:]])
        result.tell(holds, f"the {old.size} entries of the earlier checkpoint are still there, unchanged")
        if kept:
            mine = Checkpoint(kept, key)
            same = result.tell((mine.size, mine.root) == (old.size, old.root), "it is the checkpoint that you kept")
            result.vouched = result.vouched or same  # and it is signed with the bundle's key
    except FAULTS as error:
        result.tell(False, "consistency: " + str(error))


def check_attachments(files: dict[str, bytes], leaves: Sequence[dict[str, object]], result: Result) -> None:
    """Check certificates by their digests, and manifests against the entries that name them."""
    signers = set(certificates_of(leaves))
    held = {name: data for name, data in files.items() if name.startswith("certificates/")}
    for name, data in sorted(held.items()):
        try:
            body = data.decode().split("-----BEGIN CERTIFICATE-----")[1].split("-----END CERTIFICATE-----")[0]
            digest = hashlib.sha256(base64.b64decode("".join(body.split()), validate=True)).hexdigest()
            good = name == "certificates/" + digest + ".pem" and digest in signers
        except FAULTS:
            good = False
        result.tell(good, name + ": signed files of these entries")
    missing = sorted(signers - {name[13:-4] for name in held})
    if missing:
        result.tell(True, f"{len(missing)} certificates are not included: {', '.join(missing)}")
    for name, data in sorted(files.items()):
        if name.startswith("manifests/"):
            digest = hashlib.sha256(data).hexdigest()
            named = [x for x in leaves if name == f"manifests/{x['content_id']}.c2pa"]
            good = any(leaf["manifest_sha256"] == digest for leaf in named)
            result.tell(good, name + ": the manifest that an entry names")


def certificates_of(leaves: Sequence[dict[str, object]]) -> Iterator[str]:
    """Yield the digests of the certificates that entries name."""
    for leaf in leaves:
        body = leaf.get("body")
        signature = body.get("signature") if isinstance(body, dict) else None
        digest = signature.get("leaf_sha256") if isinstance(signature, dict) else None
        if isinstance(digest, str):
            yield digest


# -- telling -----------------------------------------------------------------------------------------------------------


def table(result: Result) -> Iterator[str]:
    """Yield the outcome as lines."""
    for row in result.rows:
        told = [f"{row['entry'] if row['entry'] is not None else '?':>8}"]
        decision = row.get("decision")
        action = decision["action"] if isinstance(decision, dict) else None
        for value, width in ((row.get("time"), 27), (row.get("kind"), 12), (row.get("content_id"), 16), (action, 8)):
            told.append(f"{value or '-'!s:<{width}}")
        yield "  ".join([*told, "holds" if row["holds"] else f"DOES NOT HOLD: {row['problem']}"])
    for good, words in result.checks:
        yield ("ok    " if good else "WRONG ") + words
    verdicts = {0: "HOLDS", 1: "DOES NOT HOLD", 5: "HOLDS UNDER ITS OWN KEY"}
    yield f"THE BUNDLE {verdicts[result.exit_code]}"


def main(arguments: Sequence[str]) -> int:
    """Run the check; return the exit code."""
    parser = argparse.ArgumentParser(description="Check an audit bundle of a safegen ledger.")
    here = str(Path(__file__).resolve().parent)
    parser.add_argument("bundle", nargs="?", default=here, help="the bundle's folder or zip file")
    parser.add_argument("--key", default=None, help="the ledger's vkey, as its operator publishes it")
    parser.add_argument("--earlier", default="", help="a checkpoint of this ledger that you kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    if given.key is not None and not given.key.strip():
        sys.stderr.write("--key names no key: give the ledger's vkey, or leave --key out.\n")
        return 2
    try:
        files = read_bundle(given.bundle)
        kept = Path(given.earlier).read_bytes() if given.earlier else b""
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        sys.stderr.write(f"The bundle cannot be read: {error}\n")
        return 2
    result = check_bundle(files, given.key or "", kept)
    if given.json:
        checks = [{"good": good, "check": words} for good, words in result.checks]
        body = {"schema": SCHEMA, "holds": result.holds, "vouched": result.vouched, "entries": result.rows}
        body["checks"] = checks
        sys.stdout.write(json.dumps(body) + "\n")
    else:
        sys.stdout.write("\n".join(table(result)) + "\n")
        if result.exit_code == 5:
            vkey = files.get("ledger.vkey", b"").decode("utf-8", "replace").strip()
            sys.stdout.write("The key was taken from the bundle itself. Compare it with the one that you have from\n")
            sys.stdout.write(f"elsewhere, or give that one with --key: {vkey}\n")
    return result.exit_code


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
