"""Writes a bundle: entries of the ledger with all that proves them, into a folder or a zip file.

The same ledger and the same selection give the same bytes: nothing in a bundle says when it was made, a zip's files are
stored uncompressed, in order, and with one date.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from safegen.audit.bundle import readme
from safegen.audit.bundle.verify_bundle import FORMAT, certificates_of
from safegen.errors import InputError, LedgerError, MediaError
from safegen.keys import KeyStore
from safegen.ledger import VerifierKey, open_checkpoint, sign_note
from safegen.ledger.audit_queries import AuditLedger, Query
from safegen.ledger.proof import damaged
from safegen.ledger.witness import request_body
from safegen.provenance.kept_manifests import load_manifest
from safegen.provenance.trust import own_certificates
from safegen.settings import Home
from safegen.types import ContentId

_ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Selection:
    """What goes into a bundle: entries of a range of times (as entries write them) and of clips; all if empty."""

    begin: str = ""
    end: str = ""
    content_ids: tuple[str, ...] = ()
    manifests: bool = False  # whether the clips' C2PA manifests go with them
    since: str = ""  # an earlier signed checkpoint
    about: tuple[Query, ...] | None = None  # entries that hold something about persons; the bundle does not name them


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: Path
    entries: int
    size: int  # of the ledger
    files: int
    manifests: int


def export(
    ledger: AuditLedger,
    keys: KeyStore,
    home: Home,
    path: Path,
    selection: Selection,
    *,
    force: bool = False,
    progress: Callable[[str, float, float], None] = lambda *_: None,
) -> Exported:
    """Write a bundle to ``path``: a zip file if it ends in .zip, a folder otherwise.

    Raises InputError for a place that is taken or a checkpoint of another ledger, KeyStoreError without the ledger's
    private key, LedgerDamagedError if an entry contradicts its leaf or its proof; then nothing is left.
    """
    path = Path(path).expanduser()
    if path.exists() and not force:
        raise InputError(f"{path} exists already.", remedy="Choose another name, or replace it with --force.")
    key = keys.ledger_key
    vkey = VerifierKey.of(keys.ledger_name, key)
    folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    packed = folder.with_name(f"{folder.name}.zip")
    try:
        folder.mkdir()
        writer = _Writer(ledger, keys, home, vkey, selection, folder, progress)
        writer.run()
        contents = "".join(f"{digest}  {name}\n" for name, digest in sorted(writer.digests.items()))
        note = f"{FORMAT}\nsha256 {hashlib.sha256(contents.encode()).hexdigest()}\n"
        writer.put("CONTENTS", contents.encode())
        writer.put("SIGNATURE", sign_note(note, vkey.name, key).encode())
        if path.suffix.lower() == ".zip":
            _pack(folder, sorted(writer.digests), packed)
            _place(packed, path)
        else:
            _place(folder, path)
    except OSError as error:
        raise MediaError(f"Cannot write {path}: {error.strerror or error}", remedy="Check the folder.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        packed.unlink(missing_ok=True)
    return Exported(path, writer.entries, writer.size, len(writer.digests), writer.manifests)


class _Writer:
    """One bundle on its way into a folder."""

    def __init__(
        self,
        ledger: AuditLedger,
        keys: KeyStore,
        home: Home,
        vkey: VerifierKey,
        selection: Selection,
        folder: Path,
        progress: Callable[[str, float, float], None],
    ) -> None:
        self._ledger, self._keys, self._home, self._vkey = ledger, keys, home, vkey
        self._selection, self._folder, self._progress = selection, folder, progress
        self.digests: dict[str, str] = {}
        self.entries = self.size = self.manifests = 0

    def put(self, name: str, content: bytes) -> None:
        """Add a file."""
        self.digests[name] = hashlib.sha256(content).hexdigest()
        place = self._folder / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)

    def run(self) -> None:
        """Write all but CONTENTS and SIGNATURE."""
        chosen = self._selection
        indices = sorted({int(str(row["entry"])) for query in self._queries() for row in self._ledger.rows(query)})
        if not indices and (chosen.content_ids or chosen.about is not None):
            raise InputError(
                "The ledger has no entry about what was asked for.",
                remedy="See `safegen audit mark CONTENT_ID` and `safegen audit subject NAME`.",
            )
        note, proofs = self._ledger.prove_all(indices, self._vkey)  # the checkpoint is newer than the rows
        size = open_checkpoint(note, self._vkey).size
        leaves: list[dict[str, Any]] = []
        lines: list[bytes] = []
        for done, proof in enumerate(proofs, 1):
            entry = self._ledger.get(proof.index)
            if entry.leaf_hash != proof.leaf_hash:
                raise damaged(f"entry {proof.index} was changed while it was read")
            lines.append(entry.leaf.encode() + b"\n")
            leaves.append({"body": entry.body, "content_id": entry.content_id, "kind": entry.kind, "entry": entry})
            self.put(f"proofs/{proof.index}.tlog-proof", proof.to_text().encode())
            self._progress("exporting", done, len(indices))
        self.put("entries.jsonl", b"".join(lines))
        self.put("checkpoint", note.encode())
        self.put("ledger.vkey", f"{self._vkey}\n".encode())
        told = {
            "format": FORMAT, "from": chosen.begin, "to": chosen.end, "content_ids": sorted(chosen.content_ids),
            "entries": len(lines), "manifests": chosen.manifests, "persons": chosen.about is not None,
        }  # fmt: skip
        self.put("selection.json", json.dumps(told, indent=2).encode() + b"\n")
        self.entries, self.size = len(lines), size
        self.manifests = self._manifests(leaves) if chosen.manifests else 0
        optional = self._history(note, size) + self._certificates(leaves)
        optional += readme.MANIFESTS if self.manifests else ""
        self.put("verify.py", files("safegen.audit.bundle").joinpath("verify_bundle.py").read_bytes())
        words = readme.WORDS.format(
            selection=self._told(len(lines), size), vkey=self._vkey, optional=optional,
            complete=readme.ALL if len(lines) == size else readme.SOME,
        )  # fmt: skip
        self.put("README.txt", words.encode())

    def _queries(self) -> list[Query]:
        chosen = self._selection
        equal: list[Mapping[str, str]] = [{"content_id": one} for one in dict.fromkeys(chosen.content_ids)] or [{}]
        asked = [Query(equal=one) for one in equal] if chosen.content_ids or chosen.about is None else []
        return [replace(one, begin=chosen.begin, end=chosen.end) for one in (*asked, *(chosen.about or ()))]

    def _history(self, note: str, size: int) -> str:
        earlier = self._selection.since
        if not earlier:
            return ""
        try:
            old = open_checkpoint(earlier, self._vkey).size
        except LedgerError as error:
            raise InputError(
                f"The earlier checkpoint is not one of this ledger: {error}", remedy="Give it as it was saved."
            ) from error
        if old > size:
            raise InputError(
                f"The earlier checkpoint covers {old} entries, the ledger {size}: it was rolled back, or is another.",
                remedy="Run: safegen ledger fsck --checkpoint FILE",
            )
        self.put("earlier-checkpoint", earlier.encode())
        proof = self._ledger.consistency_with(old, size)
        self.put("consistency", request_body(old, proof, note).encode())
        return readme.EARLIER

    def _certificates(self, leaves: list[dict[str, Any]]) -> str:
        wanted = set(certificates_of(leaves))
        known = own_certificates(self._home, (self._keys, *KeyStore.retired(self._home)))
        found = {digest: pem for digest, pem in known.items() if digest in wanted}
        for digest, pem in sorted(found.items()):
            self.put(f"certificates/{digest}.pem", pem.encode())
        return readme.CERTIFICATES if found else ""

    def _manifests(self, leaves: list[dict[str, Any]]) -> int:
        count = 0
        for leaf in leaves:
            entry = leaf["entry"]
            if entry.kind != "generated" or entry.content_id is None:
                continue
            kept = load_manifest(self._home, ContentId(entry.content_id))
            if kept is not None and hashlib.sha256(kept).hexdigest() == entry.event.manifest_sha256:
                self.put(f"manifests/{entry.content_id}.c2pa", kept)
                count += 1
        return count

    def _told(self, count: int, size: int) -> str:
        chosen = self._selection
        parts = [f"This folder holds {count} of its {size} entries"]
        parts += [f"about the clips {', '.join(sorted(chosen.content_ids))}"] if chosen.content_ids else []
        parts += ["about persons, whom it does not name"] if chosen.about is not None else []
        parts += [f"from {chosen.begin} on"] if chosen.begin else []
        parts += [f"before {chosen.end}"] if chosen.end else []
        return ", ".join(parts) + "."


def _pack(folder: Path, names: list[str], path: Path) -> None:
    """Write a zip file: names in order, one date, nothing compressed, so that its bytes are the same everywhere."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name, _ZIP_DATE)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, (folder / name).read_bytes())


def _place(made: Path, path: Path) -> None:
    """Move what is finished to its name, in place of what ``force`` allows to replace."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    if path.exists():
        path.rename(aside)
    made.rename(path)
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


def read_since(path: Path | None) -> str:
    """Return the text of an earlier checkpoint; InputError if it cannot be read."""
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read the checkpoint {path}: {error}", remedy="Give a signed checkpoint.") from error
