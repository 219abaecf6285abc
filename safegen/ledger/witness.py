"""What a witness does (c2sp.org/tlog-witness): cosign a checkpoint if it continues the last one of that log. No IO.

``Witness.answer`` takes the body of an ``add-checkpoint`` request and what was stored for its origin, and says what to
store and answer. Storing must come before answering, and two requests for one origin must not pass at once: the caller
sees to both.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import LedgerError
from safegen.ledger import merkle
from safegen.ledger.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from safegen.ledger.cosignature import WitnessKey, cosign

MAX_BODY = 1 << 16
SIZE_TYPE = "text/x.tlog.size"
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")
_MAX_PROOF = 63


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status with its body, and the checkpoint to store first (None: nothing changes)."""

    status: int
    body: str
    media_type: str = "text/plain"
    store: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness's name and key, and the logs that it knows, by origin."""

    name: str
    key: Ed25519PrivateKey
    logs: Mapping[str, VerifierKey]

    @property
    def vkey(self) -> WitnessKey:
        """The key under which its cosignatures are checked."""
        return WitnessKey.of(self.name, self.key)

    def origin(self, body: str) -> str:
        """Return the origin that a request is about, "" if it names none: which stored checkpoint ``answer`` needs."""
        return body.partition("\n\n")[2].partition("\n")[0]

    def answer(self, body: str, seen: Checkpoint | None, now: dt.datetime) -> Answer:
        """Judge one request; ``seen`` is the last checkpoint of its origin that was cosigned."""
        front, gap, note = body.partition("\n\n")
        lines = front.split("\n")
        old = _OLD.fullmatch(lines[0])
        if len(body) > MAX_BODY or not gap or old is None or len(lines) - 1 > _MAX_PROOF:
            return Answer(400, "expected: old <size>, a consistency proof, an empty line, a checkpoint\n")
        try:
            proof = [base64.b64decode(line, validate=True) for line in lines[1:]]
        except ValueError:
            return Answer(400, "the consistency proof is not base64\n")
        log = self.logs.get(self.origin(body))
        if log is None:
            return Answer(404, "this witness does not know the log\n")
        try:
            new = open_checkpoint(note, log)
        except LedgerError as error:
            return Answer(403, f"{error}\n")
        before = int(old[1])
        if before > new.size:
            return Answer(400, "the old size is larger than the checkpoint's\n")
        known = seen.size if seen is not None else 0
        if before != known:
            return Answer(409, f"{known}\n", SIZE_TYPE)
        root = seen.root if seen is not None else merkle.EMPTY_ROOT
        if new.size == known and seen is not None and new.root != root:
            return Answer(409, f"{known}\n", SIZE_TYPE)
        if not merkle.verify_consistency(known, new.size, root, new.root, proof):
            return Answer(422, "the consistency proof does not hold\n")
        return Answer(200, cosign(new.text, self.name, self.key, now), store=new)


def request_body(old: int, proof: tuple[bytes, ...], note: str) -> str:
    """Return the body of an ``add-checkpoint`` request."""
    lines = "".join(base64.b64encode(step).decode() + "\n" for step in proof)
    return f"old {old}\n{lines}\n{note}"
