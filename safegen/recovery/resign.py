"""Signing a file of this home again: after a certificate was rotated, or to add a time-stamp that it lacks.

    from safegen.recovery.resign import resign

    done = resign(Path("clip.mp4"), Path("clip-2027.mp4"))

Nothing that was said of the file is dropped and nothing of what it shows is touched: it gets an update manifest, whose
parent is the manifest that was active (``safegen.provenance.updating``). The new file is recorded in the ledger, and
``safegen verify`` says of it what it said of the old one. See docs/provenance.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safegen.errors import InputError, LedgerError
from safegen.files import Target
from safegen.keys import KeyStore
from safegen.provenance.credential import CredentialState, Origin
from safegen.provenance.trust import Trust
from safegen.release.recording import appender, record_and_place
from safegen.settings import Home
from safegen.types import Basis, ContentId, Json, Progress, Status
from safegen.verification.verifier import verify

# Imported where they are used: what loads c2pa or sqlalchemy.


@dataclass(frozen=True, slots=True)
class Resigned:
    """What ``resign`` did. ``previous`` is the manifest that was active, ``signature`` what is recorded of the new."""

    output: Path
    content_id: ContentId
    manifest_id: str
    previous: str
    entry: int
    previous_entry: int
    signature: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Return the result as plain JSON values, in the documented shape."""
        return {
            "output": str(self.output),
            "content_id": self.content_id,
            "manifest_id": self.manifest_id,
            "previous_manifest_id": self.previous,
            "entry": self.entry,
            "previous_entry": self.previous_entry,
            "signature": dict(self.signature),
        }


@dataclass(frozen=True, slots=True)
class _Present:
    """The file's present credential, and the ledger entry that records this very file."""

    content_id: ContentId
    manifest_id: str
    entry: int


def resign(
    path: Path, output: Path, *, force: bool = False, home: Home | None = None, progress: Progress | None = None
) -> Resigned:
    """Write ``path``, a file of this home, to ``output`` with an update manifest by the present signer; record it.

    ``path`` is only read. It must be the very file that the ledger records, with an intact credential of this home;
    that the certificate has expired since does not matter. Raises InputError for any other file and for an ``output``
    that cannot be written; KeyStoreError, ConfigError, ProvenanceError or LedgerError, and leaves nothing, if signing
    or recording fails.
    """
    from safegen.ledger import EventKind, Ledger
    from safegen.provenance.signing_identity import Seal
    from safegen.provenance.updating import update_file

    home = home or Home.default()
    path, output = Path(path).expanduser(), Path(output).expanduser()
    target = _target(path, output, force=force)
    keys = KeyStore.load(home)
    trust = Trust.of(home, (keys, *KeyStore.retired(home)))
    present = _present(path, trust, home, progress)
    seal = Seal.of(home, keys)
    trust = Trust.of(home, (keys, *KeyStore.retired(home)))  # a new signer is recorded by now
    with (
        target.scratch() as scratch,
        Ledger.open(
            home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name, busy_seconds=home.ledger_busy_seconds
        ) as ledger,
    ):
        signed = update_file(path, scratch.signed, keys, anchors_pem=trust.own_anchors_pem, seal=seal)
        body: dict[str, Json] = {"previous_manifest_id": present.manifest_id, "previous_entry": present.entry}
        receipt = record_and_place(
            signed, lambda: target.place(signed.path), appender(ledger, present.content_id), EventKind.RESIGNED, body
        )
    return Resigned(
        target.path, present.content_id, signed.manifest_id, present.manifest_id, receipt.index, present.entry,
        signed.signature,
    )  # fmt: skip


def _target(path: Path, output: Path, *, force: bool) -> Target:
    if output.suffix.lower() != path.suffix.lower():
        raise InputError(
            f"The output {output.name} does not end in {path.suffix}, as the file itself does.",
            remedy="Signing again changes no format: give the output the same ending.",
        )
    if output.exists() and path.exists() and output.samefile(path):
        raise InputError("The output is the file itself.", remedy="Choose another name.")
    return Target.check(output, suffix=path.suffix.lower(), force=force)


def _present(path: Path, trust: Trust, home: Home, progress: Progress | None) -> _Present:
    """Return what is to be updated; InputError if the file is not one of this home's, as it was recorded."""
    from safegen.provenance.read import read_credential

    found = read_credential(path, trust=trust)
    if found.state is CredentialState.ABSENT:
        raise InputError(
            f"{path} carries no credential.",
            remedy="If it is a clip of this home that lost it, `safegen recover` finds it by the mark.",
        )
    if found.state is CredentialState.VALID:
        raise InputError(
            f"{path} is signed by {found.signer or 'an unknown signer'}, not by this home.",
            remedy="Only its own signer can sign it again. As an input of a generation it becomes an ingredient.",
        )
    if found.state is not CredentialState.TRUSTED and not found.only_expired:
        why = ", ".join(found.failure_codes) or found.problem
        raise InputError(
            f"The credential of {path} does not hold: {found.state} ({why}).",
            remedy="Signing it again would cover that up. Take an intact copy; `safegen verify` judges this one.",
        )
    if found.origin is not Origin.EMBEDDED:
        raise InputError(
            f"The credential of {path} lies beside it.", remedy="Only a credential within the file can be updated."
        )
    verdict = verify(path, neural=False, home=home, progress=progress)
    ledger = next(f for f in verdict.findings if f.basis is Basis.LEDGER)
    if ledger.status is Status.NOT_RUN:
        raise LedgerError(
            ledger.summary, remedy="Without the ledger nobody can tell whether this is the file recorded."
        )
    entry = next((i for n in ("resigned", "restored", "entry") if isinstance(i := ledger.evidence.get(n), int)), None)
    # The file's hash is looked up only where its credential is this home's.
    if ledger.status is not Status.PASS or "sha256" not in ledger.evidence or entry is None:
        raise InputError(
            f"{path} is not a file that the ledger records: {ledger.summary}",
            remedy="Only files that this home made and recorded are signed again.",
        )
    assert found.content_id is not None and found.manifest_id is not None  # noqa: S101, PT018 - it was looked up
    return _Present(found.content_id, found.manifest_id, entry)
