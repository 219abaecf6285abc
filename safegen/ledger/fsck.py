"""Verification of a whole ledger: every column, hash, node and checkpoint is computed again and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, func, select

from safegen.errors import LedgerError
from safegen.ledger import merkle, schema_check, triggers, views
from safegen.ledger.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from safegen.ledger.entry import COLUMNS, decode_leaf, hash_leaf
from safegen.ledger.facts import FactsCheck, Tally, day_from, facts_from
from safegen.ledger.fsck_report import LedgerReport, Problem
from safegen.ledger.models import checkpoints, entries, head, nodes
from safegen.ledger.personal_check import PersonalCheck
from safegen.ledger.proof import TILE_LEVELS
from safegen.ledger.rows import (
    EntryRow,
    NoteRow,
    Peekable,
    closer_look,
    column_faults,
    digest_or_none,
    entry_rows,
    index_or_none,
    is_whole,
    note_rows,
    one_before,
    quick_look,
)

_PAGE = 1000
_MAX_PROBLEMS = 1000
_MAX_DOUBTS = 6  # rows of one transaction whose leaf and hash disagree, for which all combinations are tried


def audit(
    connection: Connection,
    public_key: Ed25519PublicKey | None,
    origin: str,
    outside: Sequence[str],
    progress: Callable[[int, int], None] | None,
) -> LedgerReport:
    """Verify the ledger behind ``connection``; see ``Ledger.verify``."""
    return _Audit(connection, public_key, origin, outside, progress).run()


class _Looked(NamedTuple):
    """A row with something wrong: the hash of its leaf, the hash that it states, and the body that its leaf states."""

    row: EntryRow
    computed: bytes | None
    stored: bytes | None
    body: dict[str, Any] | None
    faults: Sequence[str]


def _derived(
    row: EntryRow, body: dict[str, Any], faults: Sequence[str] = ()
) -> tuple[tuple[str, ...], frozenset[tuple[str, str]]]:
    """Return the ``day_of`` and ``facts_of`` an entry that is as it was signed, though its columns may not be."""
    if faults:
        leaf = decode_leaf(row.leaf)
        row = row._replace(**{name: leaf[name] for name in COLUMNS})
    day = day_from(row.time, row.kind, row.model, row.policy_sha256, row.action)
    return day, facts_from(row.kind, row.content_id, row.asset_sha256, row.action, body)


class _Audit:
    """One pass over the entries and checkpoints side by side, with the tree rebuilt on the way.

    Entries that one transaction wrote bear one time and lie under one checkpoint: they are judged together.
    """

    def __init__(
        self,
        connection: Connection,
        public_key: Ed25519PublicKey | None,
        origin: str,
        outside: Sequence[str],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._connection = connection
        self._progress = progress
        self._trusted = public_key is not None
        self._problems: list[Problem] = []
        self._more = 0
        self._tree = merkle.Frontier()
        self._broken = False  # the tree is known to differ from what was signed, so later roots tell nothing new
        self._tiles: dict[tuple[int, int], bytes] = {}
        self._head = connection.execute(select(head)).one_or_none()
        self._key = self._choose_key(public_key, origin)
        self._outside = self._read_outside(outside)
        self._facts = FactsCheck(connection, self._add)
        self._personal = PersonalCheck(connection, self._add)
        self._sound = 0  # the entries before this one are as they were signed, but for those that are named
        self._open: list[bytes | _Looked] = []  # the entries after the last checkpoint; leaf hashes where all is well
        self._open_first = 0
        self._open_time: object = None
        self._open_tally = Tally()  # of those where all is well

    def run(self) -> LedgerReport:
        total = self._connection.execute(select(func.count()).select_from(entries)).scalar() or 0
        notes = Peekable(note_rows(self._connection))
        expected = 0
        for done, row in enumerate(entry_rows(self._connection), 1):
            expected = self._entry(row, expected, notes)
            if self._progress is not None and (done % _PAGE == 0 or done == total):
                self._progress(done, total)
        self._close(None, missing=True)
        for extra in notes:
            self._add(
                one_before(extra.size), "checkpoints.size", f"checkpoint {extra.size!r} covers entries that are missing"
            )
        self._check_nodes()
        self._check_head(expected)
        for size in sorted(self._outside):
            self._add(None, "outside", f"a checkpoint kept outside covers {size} entries; the ledger has {expected}")
        self._personal.finish()
        for part in (schema_check, triggers, views):
            for fault in part.faults(self._connection):
                self._add(None, "schema", fault)
        if self._problems or not self._facts.adds_up():
            self._check_facts()
        if not self._problems:  # they follow from entries that are all there and as they were
            self._facts.rest(expected)
        if self._more:
            self._add_anyway(Problem(None, "", f"and {self._more} more problems"))
        root = "" if self._broken else self._tree.root().hex()
        return LedgerReport(not self._problems, expected, root, tuple(self._problems), self._trusted)

    # -- one entry ----------------------------------------------------------------------------------------------------

    def _entry(self, row: EntryRow, expected: int, notes: Peekable) -> int:
        """Take in one row, and the checkpoint over it; return the index that the next row should have."""
        index = row.idx
        if index != expected or type(index) is not int:
            if not self._may_follow(row, expected):
                return expected
            self._close(None, missing=True)
            self._skip(expected, index, notes)
        body, digest = quick_look(row), hash_leaf(row.leaf) if isinstance(row.leaf, str) else None
        one: bytes | _Looked
        time: object = row.time
        derived = None
        if body is not None and digest is not None and row.leaf_hash == digest.hex():
            one, derived = digest, _derived(row, body)
            self._personal.take(index, row.kind, body)
        else:
            one = _Looked(row, digest, digest_or_none(row.leaf_hash), closer_look(row), column_faults(row))
            time = decode_leaf(row.leaf)["time"] if one.body is not None else time
        if self._open and time != self._open_time:
            self._close(None, missing=True)
        if not self._open:
            self._open_first, self._open_time = index, time
        self._open.append(one)
        if derived is not None:
            self._open_tally.add(index, *derived)
        size: int = index + 1
        while (note := notes.peek()) is not None and (not is_whole(note.size) or note.size < size):
            next(notes)
            self._add(one_before(note.size), "checkpoints.size", f"no checkpoint can have the size {note.size!r}")
        if note is not None and note.size == size:
            next(notes)
            self._close(self._signed(index, note))
        return size

    def _may_follow(self, row: EntryRow, expected: int) -> bool:
        """Whether a row at another place than the next one stands after a gap; if not, it is named."""
        index = row.idx
        if type(index) is not int or index < expected:
            self._add(index_or_none(index), "idx", f"no entry can have the index {index!r}")
            return False
        if "idx" in column_faults(row):
            self._add(index, "idx", f"the row stands at {index}; its leaf says {decode_leaf(row.leaf)['index']}")
            return False
        return True

    def _skip(self, expected: int, index: int, notes: Peekable) -> None:
        last = f" to {index - 1}" if index > expected + 1 else ""
        self._add(expected, "idx", f"missing: entries {expected}{last}" if last else f"entry {expected} is missing")
        self._broken = True
        # One problem per gap is enough: the checkpoints over the missing rows have nothing to be compared with.
        while (note := notes.peek()) is not None and is_whole(note.size) and note.size <= index:
            next(notes)

    # -- the entries under one checkpoint -----------------------------------------------------------------------------

    def _close(self, signed: Checkpoint | None, *, missing: bool = False) -> None:
        """Judge the entries after the last checkpoint by the next one, if it is there and validly signed."""
        group, self._open = self._open, []
        tally, self._open_tally = self._open_tally, Tally()
        if not group:
            return
        first = begin = self._open_first
        last = first + len(group) - 1
        if missing:
            self._add(last, "checkpoints.size", f"the checkpoint of size {last + 1} is missing")
        doubtful = {i: one for i, one in enumerate(group) if isinstance(one, _Looked)}
        chosen = self._choose(group, doubtful, signed)
        wrong = self._broken or signed is None
        kept = sorted(size for size in self._outside if first < size <= last)
        for end in (*kept, last + 1):  # the tree must be seen at the size of each
            for level, position, node in self._tree.extend(chosen[begin - first : end - first], TILE_LEVELS):
                self._tiles[level, position] = node
            if end in self._outside:
                self._compare_outside(end - 1, wrong)
            begin = end
        if signed is not None and not self._broken and signed.root != self._tree.root():
            self._broken = True
            which = "another entry here: it was" if len(group) == 1 else f"other entries here (up to {last}): one was"
            self._add(first, "leaf", f"the signed checkpoint {signed.size} covers {which} replaced")
        if not self._broken:
            self._sound = last + 1
            for i, looked in doubtful.items():
                if looked.computed == chosen[i] and looked.body is not None:
                    tally.add(first + i, *_derived(looked.row, looked.body, looked.faults))
            self._facts.sound.take(tally)

    def _choose(
        self, group: Sequence[bytes | _Looked], doubtful: dict[int, _Looked], signed: Checkpoint | None
    ) -> list[bytes]:
        """Report what is wrong in the rows; return the leaf hashes to build on: those that the checkpoint confirms."""
        first = self._open_first
        chosen = [one if isinstance(one, bytes) else one.stored or one.computed or merkle.EMPTY_ROOT for one in group]
        doubts = {
            i: looked for i, looked in doubtful.items() if looked.stored is None or looked.stored != looked.computed
        }
        for i, looked in doubtful.items():
            for name in looked.faults if i not in doubts else ():
                self._add(first + i, name, f"{name} does not agree with the leaf")
        if not doubts:
            return chosen
        # One of leaf and leaf_hash was changed. The signed root tells which, as long as the tree before them is sound.
        confirmed = None
        if signed is not None and not self._broken:
            confirmed = self._confirmed(chosen, doubts, signed.root)
        for i, looked in doubts.items():
            index = first + i
            if confirmed is None:
                self._broken = True
                chosen[i] = looked.computed or looked.stored or merkle.EMPTY_ROOT
                self._add(
                    index, "leaf", "the leaf and leaf_hash do not agree, and no valid checkpoint tells which is right"
                )
            elif confirmed[i] == looked.computed:
                for name in looked.faults:
                    self._add(index, name, f"{name} does not agree with the leaf, which the checkpoint confirms")
            else:
                self._add(index, "leaf", "the leaf was changed: the checkpoint confirms leaf_hash instead")
        return confirmed or chosen

    def _confirmed(self, chosen: list[bytes], doubts: dict[int, _Looked], root: bytes) -> list[bytes] | None:
        """Return the hashes that lead to the signed root, of all that the rows offer; None if none do."""
        offers = [[h for h in (looked.computed, looked.stored) if h is not None] for looked in doubts.values()]
        if not all(offers):
            return None
        tries = product(*offers) if len(doubts) <= _MAX_DOUBTS else zip(*((o[0], o[-1]) for o in offers), strict=True)
        for offer in tries:
            trial = list(chosen)
            for i, digest in zip(doubts, offer, strict=True):
                trial[i] = digest
            tree = merkle.Frontier(self._tree.size, self._tree.peaks)
            tree.extend(trial)
            if tree.root() == root:
                return trial
        return None

    def _compare_outside(self, index: int, wrong: bool) -> None:
        kept = self._outside.pop(index + 1)
        if kept.root != self._tree.root():
            blame = "changed" if not wrong else "changed, see the other problems"
            self._add(index, "outside", f"a checkpoint kept outside over {index + 1} entries does not fit: {blame}")
            self._broken = True

    def _signed(self, index: int, note: NoteRow) -> Checkpoint | None:
        """Return a checkpoint if it is validly signed and stands at its place; otherwise it is named."""
        size = index + 1
        if self._key is None:
            return None
        try:
            signed = open_checkpoint(note.note if isinstance(note.note, str) else "", self._key)
        except LedgerError as exc:
            self._add(index, "checkpoints.note", f"checkpoint {size}: {exc}")
            return None
        if signed.size != size:
            self._add(index, "checkpoints.size", f"the row of size {size} holds the checkpoint of size {signed.size}")
            return None
        return signed

    # -- the rest -----------------------------------------------------------------------------------------------------

    def _check_facts(self) -> None:
        """Compare the index with each entry that is as it was signed."""
        changed = {problem.index for problem in self._problems if problem.column in ("leaf", "idx")}
        for row in entry_rows(self._connection):
            if not is_whole(row.idx) or row.idx >= self._sound:
                break
            if row.idx in changed:
                continue
            if (body := quick_look(row)) is not None:
                self._facts.closely(row.idx, _derived(row, body)[1])
            elif (body := closer_look(row)) is not None:
                self._facts.closely(row.idx, _derived(row, body, column_faults(row))[1])

    def _check_nodes(self) -> None:
        stored: set[tuple[object, object]] = set()
        query = select(nodes).order_by(nodes.c.level, nodes.c.position)
        for row in self._connection.execute(query):
            place = (row.level, row.position)
            stored.add(place)
            wanted = self._tiles.get(place) if all(map(is_whole, place)) else None
            if wanted is None:
                self._add(None, "nodes.position", f"no node belongs at level {row.level!r}, position {row.position!r}")
            elif row.hash != wanted.hex() and not self._broken:
                first = row.position << row.level
                last = first + (1 << row.level) - 1
                self._add(first, "nodes.hash", f"the node over entries {first} to {last} is wrong")
        for level, position in sorted(self._tiles.keys() - stored):
            first = position << level
            self._add(first, "nodes.position", f"the node at level {level} over the entries from {first} is missing")

    def _check_head(self, size: int) -> None:
        if self._head is None:
            self._add(None, "head.id", "the head row is missing")
            return
        if self._head.size != size:
            self._add(None, "head.size", f"the head says {self._head.size!r} entries; there are {size}")
        peaks = " ".join(peak.hex() for peak in self._tree.peaks)
        if self._head.frontier != peaks and not self._broken:
            self._add(None, "head.frontier", "the head's frontier does not follow from the entries")

    def _choose_key(self, public_key: Ed25519PublicKey | None, origin: str) -> VerifierKey | None:
        """Return the key that checkpoints must be signed with; a head that names another one is a problem."""
        stored = self._head.vkey if self._head is not None else ""
        named = None
        if stored:
            try:
                named = VerifierKey.parse(str(stored))
            except LedgerError as exc:
                self._add(None, "head.vkey", str(exc))
        if public_key is None:
            return named
        name = origin or (named.name if named else self._first_origin())
        if not name:
            return None  # an empty ledger: nothing is signed yet
        try:
            key = VerifierKey.of(name, public_key)
        except LedgerError as exc:
            self._add(None, "head.vkey", str(exc))
            return None
        if stored and named is not None and named != key:
            self._add(None, "head.vkey", f"the head names another key: {named}")
        elif not stored:
            self._add(None, "head.vkey", "the head names no key")
        return key

    def _first_origin(self) -> str:
        note = self._connection.execute(select(checkpoints.c.note).order_by(checkpoints.c.size).limit(1)).scalar()
        return str(note or "").partition("\n")[0]

    def _read_outside(self, outside: Sequence[str]) -> dict[int, Checkpoint]:
        kept: dict[int, Checkpoint] = {}
        for note in outside:
            if self._key is None:
                self._add(None, "outside", "a checkpoint kept outside covers entries, but the ledger has none signed")
                continue
            try:
                checkpoint = open_checkpoint(note, self._key)
            except LedgerError as exc:
                raise LedgerError(
                    f"the checkpoint kept outside is not one of this ledger: {exc}",
                    remedy="give the checkpoint as it was saved, and the ledger's own public key",
                ) from exc
            earlier = kept.setdefault(checkpoint.size, checkpoint)
            if earlier.root != checkpoint.root:
                self._add(
                    checkpoint.size - 1, "outside", f"two checkpoints of size {checkpoint.size} contradict each other"
                )
        kept.pop(0, None)
        return kept

    def _add(self, index: int | None, column: str, summary: str) -> None:
        if len(self._problems) < _MAX_PROBLEMS:
            self._add_anyway(Problem(index, column, summary))
        else:
            self._more += 1

    def _add_anyway(self, problem: Problem) -> None:
        self._problems.append(problem)
