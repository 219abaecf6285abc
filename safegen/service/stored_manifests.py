"""Keeping manifests of others: taking them in, binding them, giving receipts, giving them up.

What is kept lies in ``stored/`` of the home and is recorded in the ledger under kinds of its own
(``safegen.ledger.foreign_manifests``). It is never taken for what this home made: ``recover`` and ``verify`` do not
look at it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from safegen.errors import (
    InputError,
    LedgerBusyError,
    LedgerDamagedError,
    LedgerError,
    ProvenanceError,
    ResolutionError,
)
from safegen.files import replace_file
from safegen.keys import KeyStore
from safegen.ledger import Event, InclusionProof, Ledger, foreign_lookup, foreign_manifests, verify_inclusion
from safegen.ledger.append_results import RefusedError
from safegen.ledger.foreign_lookup import StoredManifest
from safegen.ledger.subjects import Personal
from safegen.media.images import encode_png
from safegen.provenance.native.jumbf import manifests
from safegen.service.bindings import ALGORITHMS
from safegen.settings import Home
from safegen.types import Json

# Imported where they are used: what loads c2pa.

RECEIPT_TYPE: Final = "org.c2pa.manifest-receipt"
PROOF_ALG: Final = "c2sp.org/tlog-proof@v1"


MOST_BOUND: Final = 100
"""Manifests of one holder to which one binding may lead."""

_TRIES: Final = 4
"""How often a request begins anew that others came in between."""

_FILE: Final = re.compile(r"[0-9a-f]{32}")


class NotStoredError(InputError):
    """No manifest of this id is stored here."""


class NotYoursError(InputError):
    """The manifest, or the algorithm, is not this holder's to do that with."""


class ConflictError(InputError):
    """Another manifest, or another holder, is in the way."""


class Storage:
    """The stored manifests of one home. Thread-safe as far as the ledger is; blocking.

    Any number of processes may work on one home. Every manifest that is taken in has a file of its own, written before
    the entry and removed after the entry that gives it up, so nobody removes what another one has stored.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.root / "stored"

    def take(self, manifest: bytes, holder: str) -> str:
        """Keep a manifest store and return its active manifest's id. The same bytes again are no second entry.

        InputError if it is no manifest store whose signature holds; ConflictError if its id is taken by another one, or
        another holder has stored it.
        """
        manifest_id = _checked_id(manifest)
        digest = hashlib.sha256(manifest).hexdigest()
        with self._ledger(write=True) as ledger:
            if ledger.find_manifest(manifest_id) is not None:
                raise ConflictError("this home has made that manifest itself, and keeps it anyway")
            for _ in range(_TRIES):
                held = foreign_lookup.find(ledger, manifest_id)
                if held is not None:
                    if held.sha256 != digest or not self._is_of(ledger, held, holder):
                        raise ConflictError("another holder, or another manifest store, has the id of its manifest")
                    if not self._is_whole(held):
                        self._keep(self._path(held), manifest)
                    return manifest_id
                name = secrets.token_hex(16)
                path = self._folder / f"{name}.c2pa"
                self._keep(path, manifest)
                event = foreign_manifests.stored_event(
                    manifest_id, digest, len(manifest), owner=self._owner(holder), file=name
                )
                try:
                    self._append(ledger, event, holder)
                except RefusedError:  # somebody was quicker
                    path.unlink(missing_ok=True)
                    continue
                except LedgerBusyError:  # nothing was recorded
                    path.unlink(missing_ok=True)
                    raise
                return manifest_id
        raise ConflictError("others store and give up this manifest at the same time")

    def bind(self, alg: str, value: bytes, manifest_id: str, holder: str, *, replace: bool) -> None:
        """Let a soft binding lead to a manifest that the holder has stored; with ``replace`` to no other of his.

        NotStoredError if it is not stored, or there is nothing to replace; NotYoursError for a manifest of another
        holder, and for the algorithms of safegen's own marks, whose values this home alone gives out.
        """
        if alg in ALGORITHMS:
            raise NotYoursError(f"values of {alg} are given out by the home that writes the mark, and by nobody else")
        with self._ledger(write=True) as ledger:
            for _ in range(_TRIES):
                self._held_by(ledger, manifest_id, holder)
                own = self._bound_by(ledger, alg, value, holder)
                if replace and not own:
                    raise NotStoredError("no manifest of this holder has this binding")
                if own == [manifest_id] or (not replace and manifest_id in own):
                    return
                if not replace and len(own) >= MOST_BOUND:
                    raise ConflictError(f"this binding leads to {len(own)} manifests of this holder already")
                event = foreign_manifests.bound_event(alg, value, manifest_id, replaces=own if replace else ())
                try:
                    self._append(ledger, event, holder)
                except RefusedError:  # it was given up in between
                    continue
                return
        raise ConflictError("others store and give up this manifest at the same time")

    def drop(self, manifest_id: str, holder: str) -> None:
        """Give a manifest up that the holder has stored, with its bindings.

        NotStoredError if it is not stored; NotYoursError if another holder has stored it.
        """
        with self._ledger(write=True) as ledger:
            held = self._held_by(ledger, manifest_id, holder)
            try:
                self._append(ledger, foreign_manifests.unstored_event(manifest_id), holder)
            except RefusedError as error:
                raise NotStoredError("no such manifest is stored here") from error
        self._path(held).unlink(missing_ok=True)

    def _bound_by(self, ledger: Ledger, alg: str, value: bytes, holder: str) -> list[str]:
        """The manifests of a holder to which a binding leads."""
        found = (foreign_lookup.find(ledger, each) for each in foreign_lookup.find_bound(ledger, alg, value, None))
        return [held.manifest_id for held in found if held is not None and self._is_of(ledger, held, holder)]

    def _held_by(self, ledger: Ledger, manifest_id: str, holder: str) -> StoredManifest:
        held = self._held(ledger, manifest_id)
        if not self._is_of(ledger, held, holder):
            raise NotYoursError("another holder has stored this manifest")
        return held

    def _is_of(self, ledger: Ledger, held: StoredManifest, holder: str) -> bool:
        """Whether the holder has stored it. An entry without an owner is his whose name is still kept beside it."""
        if held.owner:
            return hmac.compare_digest(held.owner, self._owner(holder))
        return Personal(ledger, self._home).opened(ledger.get(held.entry)).get("holder") == holder

    def _owner(self, holder: str) -> str:
        """A holder's keyed hash: the same for the same name, and no help to whoever guesses at names."""
        key = KeyStore.load(self._home).commitment_key
        return hmac.digest(key, b"safegen holder\0" + holder.encode(), "sha256").hex()

    def _append(self, ledger: Ledger, event: Event, holder: str) -> None:
        """Record an event; the name of the token's holder is kept beside the entry, where it can be erased."""
        Personal(ledger, self._home).append(event, holder, {"holder": holder})

    def bound(self, alg: str, value: bytes, limit: int) -> list[str]:
        """The ids of stored manifests that a binding leads to."""
        with self._ledger() as ledger:
            return foreign_lookup.find_bound(ledger, alg, value, limit)

    def read(self, manifest_id: str) -> bytes | None:
        """The stored manifest store; None if there is none. LedgerDamagedError if it is not what was taken in."""
        held, kept = self._read(manifest_id)
        if held is not None and kept is None:  # it may have been given up in between
            held, kept = self._read(manifest_id)
        if held is None:
            return None
        if kept is None:
            raise ResolutionError(f"the stored manifest of entry {held.entry} is not there")
        if hashlib.sha256(kept).hexdigest() != held.sha256:
            raise LedgerDamagedError(f"the stored manifest of entry {held.entry} is not the recorded one")
        return kept

    def _read(self, manifest_id: str) -> tuple[StoredManifest | None, bytes | None]:
        with self._ledger() as ledger:
            held = foreign_lookup.find(ledger, manifest_id)
        try:
            return held, None if held is None else self._path(held).read_bytes()
        except FileNotFoundError:
            return held, None
        except OSError as error:
            raise ResolutionError(f"a stored manifest cannot be read: {error}") from error

    def receipt(self, manifest_id: str) -> dict[str, Json]:
        """A receipt: the proof that the entry of the stored manifest lies under the ledger's newest checkpoint.

        Whoever has the ledger's public key checks it offline. NotStoredError if the manifest is not stored.
        """
        with self._ledger() as ledger:
            held = self._held(ledger, manifest_id)
            proof, entry = ledger.prove(held.entry), ledger.get(held.entry)
            return {
                "@context": {"c2pa": "https://c2pa.org/ns/", "receipt": "https://c2pa.org/ns/receipt/"},
                "@type": RECEIPT_TYPE,
                "repository": {"uri": f"urn:safegen:ledger:{ledger.vkey}", "manifestId": manifest_id},
                "anchor": {
                    "uri": f"urn:safegen:entry:{held.entry}",
                    "proof": {"alg": PROOF_ALG, "value": proof.to_text(), "leaf": entry.leaf},
                },
            }

    def check(self, manifest_id: str, receipt: Mapping[str, Json]) -> str:
        """Why a receipt does not show that the stored manifest was taken in here; empty if it does."""
        with self._ledger() as ledger:
            held = self._held(ledger, manifest_id)
            entry, key = ledger.get(held.entry), ledger.vkey
        anchor = receipt.get("anchor")
        proof = anchor.get("proof") if isinstance(anchor, Mapping) else None
        text = proof.get("value") if isinstance(proof, Mapping) else None
        if not isinstance(proof, Mapping) or proof.get("alg") != PROOF_ALG or not isinstance(text, str):
            return f"the anchor's proof is no {PROOF_ALG}"
        try:
            shown = InclusionProof.from_text(text, entry.leaf)
        except LedgerError as error:
            return str(error)
        assert key is not None  # noqa: S101 - the ledger holds the entry
        if shown.index != held.entry or not verify_inclusion(shown, entry.leaf, key):
            return "the proof does not hold for this manifest's entry"
        return ""

    def _held(self, ledger: Ledger, manifest_id: str) -> StoredManifest:
        held = foreign_lookup.find(ledger, manifest_id)
        if held is None:
            raise NotStoredError("no such manifest is stored here")
        return held

    def _ledger(self, *, write: bool = False) -> Ledger:
        if not write:
            return Ledger.open(self._home.ledger_url, create=False, read_only=True)
        keys = KeyStore.load(self._home)
        return Ledger.open(
            self._home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name,
            busy_seconds=self._home.ledger_busy_seconds,
        )  # fmt: skip

    def _path(self, held: StoredManifest) -> Path:
        if _FILE.fullmatch(held.file):
            return self._folder / f"{held.file}.c2pa"
        return (
            self._folder / f"{hashlib.sha256(held.manifest_id.encode()).hexdigest()}.c2pa"
        )  # as older entries have it

    def _is_whole(self, held: StoredManifest) -> bool:
        try:
            return hashlib.sha256(self._path(held).read_bytes()).hexdigest() == held.sha256
        except OSError:
            return False

    def _keep(self, path: Path, manifest: bytes) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, manifest)
        except OSError as error:
            raise ResolutionError(f"the manifest cannot be kept: {error}", remedy="Check folder and space.") from error


def _checked_id(manifest: bytes) -> str:
    """The active manifest's id. InputError unless the C2PA library reads the store and its signature holds."""
    from safegen.provenance.read import read_manifest_store

    try:
        labels = [each.label for each in manifests(manifest)]
    except ProvenanceError as error:
        raise InputError(f"the body is no C2PA manifest store: {error}") from error
    with tempfile.TemporaryDirectory(prefix="safegen-") as folder:
        blank = Path(folder) / "blank.png"  # the library reads manifests together with an asset: here of another one
        encode_png(np.zeros((8, 8, 3), np.uint8), blank)
        found = read_manifest_store(manifest, blank)
    if not (found.signature_valid or found.only_expired) or found.manifest_id is None:
        codes = ", ".join(found.failure_codes) or found.problem
        raise InputError(f"the body is no C2PA manifest store whose signature holds: {codes}")
    if not labels or labels[-1] != found.manifest_id or len(found.manifest_id) > foreign_manifests.MAX_ID:
        raise InputError("the active manifest's id cannot be kept")
    return found.manifest_id
