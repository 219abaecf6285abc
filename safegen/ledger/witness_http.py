"""Witnesses over HTTP (c2sp.org/tlog-witness): a small server that cosigns checkpoints, and the ledger's side of it.

A witness run by somebody else is what keeps whoever holds the ledger and its key from rewriting it: it cosigns only
what continues the history that it has seen.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from safegen.errors import ConfigError, InputError, KeyStoreError, LedgerError
from safegen.files import replace_file
from safegen.ledger import Checkpoint, Ledger, VerifierKey
from safegen.ledger.cosignature import WitnessKey, cosignatures
from safegen.ledger.witness import MAX_BODY, SIZE_TYPE, Witness, request_body

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

# Imported where they are used: httpx, starlette.

ADD_CHECKPOINT: Final = "/add-checkpoint"
TIMEOUT_SECONDS: Final = 10
_KEY, _NAME, _LOGS = "witness.key", "witness.json", "logs"


# -- the witness's side ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WitnessFolder:
    """All that a witness keeps: its key, its name and the logs that it knows, and of each the last checkpoint."""

    path: Path

    def init(self, name: str) -> WitnessKey:
        """Make a fresh key. KeyStoreError if there is one, or the folder cannot be written."""
        key = Ed25519PrivateKey.generate()
        vkey = WitnessKey.of(name, key)
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(os.open(self.path / _KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
                file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            _write_json(self.path / _NAME, {"name": name, "logs": []})
        except FileExistsError as error:
            raise KeyStoreError(f"{self.path} holds a witness already", remedy="Choose another folder.") from error
        except OSError as error:
            raise KeyStoreError(f"cannot write {self.path}: {error}", remedy="Check the folder.") from error
        return vkey

    def add_log(self, log: VerifierKey) -> None:
        """Cosign checkpoints of ``log`` from now on. ConfigError if another key is known under its name."""
        witness = self.load()
        known = witness.logs.get(log.name)
        if known is not None and known != log:
            raise ConfigError(f"the witness knows another key of {log.name}", remedy="A log has one key for good.")
        logs = {**witness.logs, log.name: log}
        _write_json(self.path / _NAME, {"name": witness.name, "logs": [str(key) for key in logs.values()]})

    def load(self) -> Witness:
        """Return the witness. KeyStoreError if the folder holds none or is damaged."""
        try:
            key = load_pem_private_key((self.path / _KEY).read_bytes(), None)
            record = json.loads((self.path / _NAME).read_text(encoding="utf-8"))
            logs = [VerifierKey.parse(text) for text in record["logs"]]
            name = str(record["name"])
        except (OSError, ValueError, KeyError, TypeError, UnsupportedAlgorithm, LedgerError) as error:
            remedy = "Make one with `safegen ledger witness init`."
            raise KeyStoreError(f"{self.path} holds no witness: {error}", remedy=remedy) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyStoreError(f"{self.path / _KEY} is not an Ed25519 key", remedy="Restore it from a backup.")
        return Witness(name, key, {log.name: log for log in logs})

    def seen(self, origin: str) -> Checkpoint | None:
        """Return the last checkpoint that was cosigned for ``origin``. KeyStoreError if its record is damaged."""
        try:
            return Checkpoint.parse(self._record(origin).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, LedgerError) as error:
            raise KeyStoreError(f"the record of {origin} is damaged: {error}", remedy="Restore it: a witness that"
                                " forgets may cosign a second history.") from error  # fmt: skip

    def store(self, checkpoint: Checkpoint) -> None:
        """Keep ``checkpoint`` as the last one of its origin, on disk before this returns."""
        record = self._record(checkpoint.origin)
        record.parent.mkdir(exist_ok=True)
        replace_file(record, checkpoint.text.encode(), private=False)

    def _record(self, origin: str) -> Path:
        return self.path / _LOGS / hashlib.sha256(origin.encode()).hexdigest()


def make_app(folder: WitnessFolder, now: Any = None) -> Starlette:
    """Return the witness of ``folder`` as an ASGI application. KeyStoreError if there is none."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import Response
    from starlette.routing import Route

    witness, turn = folder.load(), threading.Lock()
    clock = now or (lambda: dt.datetime.now(dt.UTC))

    def judge(body: str) -> tuple[int, str, str]:
        with turn:  # what was seen is read, judged and stored by one request at a time
            answer = witness.answer(body, folder.seen(witness.origin(body)), clock())
            if answer.store is not None:
                folder.store(answer.store)
        return answer.status, answer.body, answer.media_type

    async def add_checkpoint(request: Request) -> Response:
        received = bytearray()
        async for chunk in request.stream():
            received += chunk
            if len(received) > MAX_BODY:
                return Response("the request is too long\n", 413, media_type="text/plain")
        try:
            body = received.decode()
        except UnicodeDecodeError:
            return Response("the request is not UTF-8\n", 400, media_type="text/plain")
        try:
            status, text, media_type = await run_in_threadpool(judge, body)
        except (KeyStoreError, OSError):
            return Response("the witness's record cannot be read or written\n", 500, media_type="text/plain")
        return Response(text, status, media_type=media_type)

    return Starlette(routes=[Route(ADD_CHECKPOINT, add_checkpoint, methods=["POST"])])


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    replace_file(path, json.dumps(value, indent=1).encode(), private=False)


# -- the ledger's side -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WitnessAddress:
    """A witness that the ledger asks: where it is, and the key that its cosignatures must be of."""

    url: str
    key: WitnessKey

    @classmethod
    def parse(cls, text: str) -> WitnessAddress:
        """Read ``URL VKEY`` (one space). InputError if it is malformed."""
        url, _, vkey = text.strip().partition(" ")
        if not url.startswith(("http://", "https://")) or not vkey:
            raise InputError(f"not a witness: {text!r}", remedy='Give its address and key: "https://w.example VKEY".')
        try:
            return cls(url.rstrip("/"), WitnessKey.parse(vkey.strip()))
        except LedgerError as error:
            raise InputError(f"not a witness: {error}", remedy="Copy the key that the witness shows.") from error


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A checkpoint with the cosignatures that were got, by witness, and why others were not."""

    note: str
    witnesses: tuple[str, ...]
    missing: Mapping[str, str] = field(default_factory=dict)


def gather_cosignatures(ledger: Ledger, witnesses: Sequence[WitnessAddress]) -> Cosigned:
    """Ask each witness to cosign the ledger's newest checkpoint. What a witness refuses is in ``missing``.

    LedgerError if the ledger is empty.
    """
    note = ledger.checkpoint()
    if note is None:
        raise LedgerError("the ledger is empty")
    lines, got, missing = "", [], {}
    for witness in witnesses:
        try:
            lines += _ask(witness, ledger, note)
            got.append(witness.key.name)
        except LedgerError as error:
            missing[witness.key.name] = str(error)
    return Cosigned(note + lines, tuple(got), missing)


def _ask(witness: WitnessAddress, ledger: Ledger, note: str) -> str:
    """Return a witness's cosignature line, checked. A witness that is elsewhere says where, and is asked once more."""
    size = Checkpoint.parse(note.rpartition("\n\n")[0] + "\n").size
    answer = _post(witness, request_body(0, (), note))
    if answer.status_code == 409 and answer.headers.get("content-type", "").startswith(SIZE_TYPE):
        with contextlib.suppress(ValueError):
            known = int(answer.text.strip())
            if not 0 <= known <= size:
                raise LedgerError(f"{witness.key.name} has seen {known} entries, more than the ledger has: roll-back?")
            answer = _post(witness, request_body(known, ledger.prove_consistency(known), note))
    if answer.status_code != 200:
        raise LedgerError(f"{witness.key.name} answered {answer.status_code}: {answer.text.strip()[:200]}")
    line = answer.text
    if not line.endswith("\n") or line.count("\n") != 1 or not cosignatures(note + line, witness.key):
        raise LedgerError(f"{witness.key.name} answered with no cosignature of its own")
    return str(line)


def _post(witness: WitnessAddress, body: str) -> Any:
    import httpx

    try:
        return httpx.post(f"{witness.url}{ADD_CHECKPOINT}", content=body.encode(), timeout=TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        raise LedgerError(f"{witness.key.name} cannot be reached: {error}") from error
