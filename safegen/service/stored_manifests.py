"""Keeping manifests of others: taking them in, binding them, giving receipts, giving them up.

What is kept lies in ``stored/`` of the home and is recorded in the ledger under kinds of its own
(``safegen.ledger.foreign_manifests``). It is never taken for what this home made: ``recover`` and ``verify`` do not
look at it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from safegen.errors import InputError, LedgerDamagedError, LedgerError, ProvenanceError, ResolutionError
from safegen.files import replace_file
from safegen.keys import KeyStore
from safegen.ledger import Event, InclusionProof, Ledger, foreign_lookup, foreign_manifests, verify_inclusion
from safegen.ledger.foreign_lookup import StoredManifest
from safegen.ledger.subjects import Personal
from safegen.media.images import encode_png
from safegen.provenance.native.jumbf import manifests
from safegen.settings import Home
from safegen.types import Json

# Imported where they are used: what loads c2pa.

RECEIPT_TYPE: Final = "org.c2pa.manifest-receipt"
PROOF_ALG: Final = "c2sp.org/tlog-proof@v1"


class NotStoredError(InputError):
    """No manifest of this id is stored here."""


class Storage:
    """The stored manifests of one home. Thread-safe as far as the ledger is; blocking."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.root / "stored"

    def take(self, manifest: bytes, holder: str) -> str:
        """Keep a manifest store and return its active manifest's id. The same bytes again are no second entry.

        InputError if it is no manifest store whose signature holds, or its id is taken by another one.
        """
        manifest_id = _checked_id(manifest)
        digest = hashlib.sha256(manifest).hexdigest()
        with self._ledger(write=True) as ledger:
            if ledger.find_manifest(manifest_id) is not None:
                raise InputError("this home has made that manifest itself, and keeps it anyway")
            held = foreign_lookup.find(ledger, manifest_id)
            if held is not None and held.sha256 != digest:
                raise InputError("another manifest store is kept under the id of its active manifest")
            self._keep(manifest_id, manifest)
            if held is None:
                self._append(ledger, foreign_manifests.stored_event(manifest_id, digest, len(manifest)), holder)
        return manifest_id

    def bind(self, alg: str, value: bytes, manifest_id: str, holder: str, *, replace: bool) -> None:
        """Let a soft binding lead to a stored manifest; with ``replace`` to no other any more.

        NotStoredError if it is not stored, or there is nothing to replace.
        """
        with self._ledger(write=True) as ledger:
            self._held(ledger, manifest_id)
            before = foreign_lookup.find_bound(ledger, alg, value, 1000)
            if replace and not before:
                raise NotStoredError("no stored manifest has this binding")
            if before != [manifest_id] and (replace or manifest_id not in before):
                self._append(ledger, foreign_manifests.bound_event(alg, value, manifest_id, replace=replace), holder)

    def drop(self, manifest_id: str, holder: str) -> None:
        """Give a stored manifest up, with its bindings. NotStoredError if it is not stored."""
        with self._ledger(write=True) as ledger:
            self._held(ledger, manifest_id)
            self._append(ledger, foreign_manifests.unstored_event(manifest_id), holder)
        self._path(manifest_id).unlink(missing_ok=True)

    def _append(self, ledger: Ledger, event: Event, holder: str) -> None:
        """Record an event; the name of the token's holder is kept beside the entry, where it can be erased."""
        Personal(ledger, self._home).append(event, holder, {"holder": holder})

    def bound(self, alg: str, value: bytes, limit: int) -> list[str]:
        """The ids of stored manifests that a binding leads to."""
        with self._ledger() as ledger:
            return foreign_lookup.find_bound(ledger, alg, value, limit)

    def read(self, manifest_id: str) -> bytes | None:
        """The stored manifest store; None if there is none. LedgerDamagedError if it is not what was taken in."""
        with self._ledger() as ledger:
            held = foreign_lookup.find(ledger, manifest_id)
        if held is None:
            return None
        try:
            kept = self._path(manifest_id).read_bytes()
        except OSError as error:
            raise ResolutionError(f"the stored manifest of entry {held.entry} cannot be read: {error}") from error
        if hashlib.sha256(kept).hexdigest() != held.sha256:
            raise LedgerDamagedError(f"the stored manifest of entry {held.entry} is not the recorded one")
        return kept

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

    def _path(self, manifest_id: str) -> Path:
        return self._folder / f"{hashlib.sha256(manifest_id.encode()).hexdigest()}.c2pa"

    def _keep(self, manifest_id: str, manifest: bytes) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path(manifest_id), manifest)
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
