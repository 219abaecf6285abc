"""Erasure: nothing is left in any file, nothing says so before it is so, and a crash is taken up again."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from safegen.errors import InputError, KeyStoreError, LedgerBusyError, LedgerError
from safegen.keys import KeyStore, check_commitment
from safegen.keys.wrapping import FILE
from safegen.ledger import Event, Ledger, erasure, verify_inclusion
from safegen.ledger.subjects import State, states
from safegen.privacy import fields
from safegen.settings import Home
from tests.postgres import database
from tests.unit.privacy.privacy_samples import (
    ADA,
    FIELDS,
    WORDS,
    blocked,
    make_home,
    opened,
    raw,
    rows,
    subject_key,
    write,
)

BOB = "account:bob"


def erase(home: Home, subject: str = ADA) -> fields.Erased:
    return fields.erase(home, subject, ground="request")


def kinds(home: Home) -> list[str]:
    with opened(home) as (ledger, _):
        return [entry.kind for entry in ledger.entries()]


@pytest.mark.slow
def test_what_is_erased_cannot_be_read_and_all_proofs_hold(home: Home) -> None:
    write(home, count=2)
    write(home, BOB)
    with opened(home) as (ledger, _):
        before = {n: (ledger.get(n).leaf, ledger.prove(n)) for n in range(3)}
        checkpoint = ledger.checkpoint()
    done = erase(home)
    assert (done.entry, done.fields, done.earlier) == (3, 2 * len(FIELDS), ())
    key = KeyStore.load(home).ledger_public_key
    with opened(home) as (ledger, personal):
        report = ledger.verify(key, outside=[str(checkpoint)])
        assert report.ok, report.problems
        for n, (leaf, proof) in before.items():
            assert ledger.get(n).leaf == leaf
            assert verify_inclusion(proof, leaf, key)
            assert verify_inclusion(ledger.prove(n), leaf, key)
        assert {*states(ledger, ledger.get(0)).values()} == {(State.ERASED, 3)}
        assert personal.opened(ledger.get(0)) == {}
        assert personal.held(ADA) == []
        assert personal.opened(ledger.get(2)) == FIELDS | {"requester": BOB}, "another subject's stay"


def test_the_entry_commits_to_the_subject_and_says_no_more(home: Home) -> None:
    write(home)
    done = erase(home)
    with opened(home) as (ledger, _):
        entry = ledger.get(done.entry or 0)
    assert (entry.kind, entry.content_id) == ("erased", None)
    assert set(entry.body) == {"erasure", "ground", "subject", "fields"}
    assert ADA not in entry.leaf
    commitment: dict[str, str] = entry.body["subject"]  # type: ignore[assignment]
    key = KeyStore.load(home).commitment_key
    assert check_commitment(ADA, key, commitment)
    assert not check_commitment(BOB, key, commitment)


def test_erased_twice_is_said(home: Home) -> None:
    write(home)
    first = erase(home)
    second = erase(home)
    assert (second.entry, second.fields, second.earlier) == (None, 0, (first.entry,))
    assert kinds(home) == ["blocked", "erased"]


def test_a_subject_that_comes_again_has_another_key(home: Home) -> None:
    write(home)
    _, wrapped = subject_key(home)
    erase(home)
    write(home)
    assert subject_key(home)[1] != wrapped
    with opened(home) as (ledger, personal):
        assert personal.opened(ledger.get(0)) == {}
        assert personal.opened(ledger.get(2)) == FIELDS
    again = erase(home)
    assert (again.entry, again.earlier) == (3, (1,))


def test_an_entry_that_says_erased_what_was_not_is_refused(home: Home) -> None:
    write(home)
    with opened(home) as (ledger, personal):
        for body in ({}, {"erasure": "0" * 32}):
            with pytest.raises(LedgerError, match="nothing was erased"):
                ledger.append(Event("erased", body=body))
        begun = erasure.begin_erasure(personal, ADA, ground="request", commitment_key=b"k" * 32)
        assert begun is not None
        with pytest.raises(LedgerError, match="nothing was erased"):  # destroyed, but not scrubbed
            erasure.finish(ledger, begun)
        with pytest.raises(LedgerError):
            ledger.append(Event("expired", body=begun.body))
        assert ledger.count() == 1


# -- raw bytes ---------------------------------------------------------------------------------------------------------


def test_no_byte_of_the_key_is_left_in_any_file(sqlite_home: Home) -> None:
    """Many subjects come and go, so that pages split and merge; wrapped keys of those erased are searched for."""
    write(sqlite_home)
    drawn = random.Random(5)
    names = [f"account:{n}" for n in range(120)]
    drawn.shuffle(names)
    with opened(sqlite_home) as (_, personal):
        for n, name in enumerate(names):
            personal._deposit(name, {"requester": name, "texts": {"prompt": f"{WORDS} {n}"}})
    key, _ = subject_key_of(sqlite_home, ADA)
    gone = {name: subject_key_of(sqlite_home, name)[1] for name in (ADA, names[0], names[60], names[-1])}
    sealed = [str(row[0]) for row in rows(sqlite_home, "SELECT sealed FROM personal_fields WHERE entry = 0")]
    kept = subject_key_of(sqlite_home, names[30])[1]
    with opened(sqlite_home):  # an open connection keeps the write-ahead log there
        assert all(wrapped.encode() in raw(sqlite_home) for wrapped in gone.values())
    with opened(sqlite_home):
        for name in gone:
            erase(sqlite_home, name)
        everything = raw(sqlite_home)
    everything += raw(sqlite_home)
    assert kept.encode() in everything
    for wrapped in gone.values():
        for part in (wrapped[:48], wrapped[24:72], wrapped[-48:]):  # nonce, ciphertext, tag: in part or as a whole
            assert part.encode() not in everything
    for secret in (key.hex().encode(), key, ADA.encode(), WORDS.encode(), *(s[:64].encode() for s in sealed)):
        assert secret not in everything


def subject_key_of(home: Home, subject: str) -> tuple[bytes, str]:
    from safegen.keys.wrapping import read_wrapping_key
    from safegen.ledger.subject_encryption import reference

    wrapping_key = read_wrapping_key(home)
    assert wrapping_key is not None
    return subject_key(home, reference(wrapping_key, subject))


def test_postgresql_gives_the_table_of_keys_a_new_file(tmp_path: Path) -> None:
    with database("postgresql", tmp_path) as url:
        home = make_home(tmp_path, url)
        write(home)
        write(home, BOB)
        ((before,),) = rows(home, "SELECT pg_relation_filepath('subject_keys')")
        wrapped = subject_key_of(home, ADA)[1]
        ((folder,),) = rows(home, "SHOW data_directory")
        rows(home, "CHECKPOINT")
        assert wrapped.encode() in (Path(str(folder)) / str(before)).read_bytes()
        erase(home)
        rows(home, "CHECKPOINT")
        ((after,),) = rows(home, "SELECT pg_relation_filepath('subject_keys')")
        assert after != before
        old = Path(str(folder)) / str(before)
        assert not old.exists() or not old.read_bytes()
        assert wrapped.encode() not in (Path(str(folder)) / str(after)).read_bytes()
        assert subject_key_of(home, BOB)[1].encode() in (Path(str(folder)) / str(after)).read_bytes()


def test_while_a_reader_holds_old_pages_nothing_is_recorded(sqlite_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    write(sqlite_home)
    monkeypatch.setattr(erasure, "PATIENCE", 0.2)
    reader = sqlite3.connect(sqlite_home.root / "ledger.db", isolation_level=None)
    with contextlib.closing(reader):
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM subject_keys").fetchone()
        quick = Home(sqlite_home.root, ledger_busy_seconds=0.1)
        with pytest.raises(LedgerBusyError, match="not yet recorded"):
            erase(quick)
        with opened(sqlite_home) as (ledger, personal):
            assert {*states(ledger, ledger.get(0)).values()} == {(State.ERASING, None)}
            assert personal.opened(ledger.get(0)) == {}
            assert kinds(sqlite_home) == ["blocked"]
        reader.execute("ROLLBACK")
        done = erase(sqlite_home)
    assert (done.entry, done.resumed) == (None, (1,))
    assert kinds(sqlite_home) == ["blocked", "erased"]


# -- crashes -----------------------------------------------------------------------------------------------------------


def die_at(home: Home, where: str) -> None:
    """Erase in this process, and be killed where ``where`` begins."""
    setattr(erasure, where, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    erase(home)


def killed(home: Home, where: str) -> None:
    process = multiprocessing.get_context("fork").Process(target=die_at, args=(home, where))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "state"),
    [("_rewrite", State.HELD), ("scrub", State.ERASING), ("_empty_log", State.ERASING), ("finish", State.ERASING)],
)
def test_killed_at_any_step_it_is_taken_up_again(sqlite_home: Home, where: str, state: State) -> None:
    write(sqlite_home)
    killed(sqlite_home, where)
    with opened(sqlite_home) as (ledger, personal):
        assert kinds(sqlite_home) == ["blocked"], "nothing is recorded that is not done"
        assert {*states(ledger, ledger.get(0)).values()} == {(state, None)}
        assert bool(personal.opened(ledger.get(0))) is (state is State.HELD)
        assert ledger.verify().ok
    done = erase(sqlite_home)
    assert (done.entry, done.resumed) == ((1, ()) if state is State.HELD else (None, (1,)))
    with opened(sqlite_home) as (ledger, _):
        assert {*states(ledger, ledger.get(0)).values()} == {(State.ERASED, 1)}
        assert ledger.verify().ok
    assert kinds(sqlite_home) == ["blocked", "erased"]
    assert erase(sqlite_home).earlier == (1,)


def test_another_erasure_ends_the_one_that_broke_off(home: Home) -> None:
    write(home)
    write(home, BOB)
    with opened(home) as (_, personal):
        erasure.begin_erasure(personal, ADA, ground="objection", commitment_key=KeyStore.load(home).commitment_key)
    done = erase(home, BOB)
    assert (done.resumed, done.entry) == ((2,), 3)
    with opened(home) as (ledger, _):
        assert ledger.get(2).body["ground"] == "objection"
        assert {*states(ledger, ledger.get(0)).values()} == {(State.ERASED, 2)}


def test_two_that_end_it_at_once_record_it_once(home: Home) -> None:
    write(home)
    with opened(home) as (ledger, personal):
        begun = erasure.begin_erasure(personal, ADA, ground="request", commitment_key=b"k" * 32)
        assert begun is not None
        erasure.scrub(ledger, begun)
        assert [erasure.finish(ledger, begun) for _ in range(3)] == [1, 1, 1]
    assert kinds(home) == ["blocked", "erased"]


def test_an_interrupted_transaction_erases_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(erasure, "_rewrite", fail)
        with pytest.raises(RuntimeError):
            erase(home)
    with opened(home) as (ledger, personal):
        assert personal.opened(ledger.get(0)) == FIELDS
    assert erase(home).entry == 1


# -- others at the same time -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_writer_goes_on_while_its_subject_is_erased(home: Home) -> None:
    """Whatever the order: every field is held under the new key, or erased by an entry that is there."""
    failures: list[BaseException] = []

    def run(work: Callable[[], None]) -> threading.Thread:
        def caught() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=caught)
        thread.start()
        return thread

    def write_on(first: int) -> None:
        with opened(home) as (_, personal):
            for n in range(first, first + 12):
                personal.append(blocked(n), ADA, FIELDS)

    def erase_on() -> None:
        for _ in range(4):
            erase(home)

    write(home)
    threads = [run(lambda: write_on(100)), run(lambda: write_on(200)), run(erase_on), run(erase_on)]
    for thread in threads:
        thread.join()
    assert not failures
    with opened(home) as (ledger, personal):
        entries = list(ledger.entries())
        erased = {entry.index for entry in entries if entry.kind == "erased"}
        count = 0
        for entry in entries:
            for state, by in states(ledger, entry).values():
                assert (state is State.HELD and by is None) or (state is State.ERASED and by in erased)
            if states(ledger, entry):
                opened_ = personal.opened(entry)
                assert opened_ in ({}, FIELDS)
                count += not opened_
        assert sum(int(str(ledger.get(index).body["fields"])) for index in erased) == count * len(FIELDS)
        assert ledger.verify().ok
    erase(home)
    with opened(home) as (_, personal):
        assert personal.held(ADA) == []


@pytest.mark.slow
def test_others_are_read_in_full_while_the_table_of_keys_is_written_anew(home: Home) -> None:
    write(home, BOB)
    done = threading.Event()

    def erase_on() -> None:
        try:
            for _ in range(8):
                write(home)
                erase(home)
        finally:
            done.set()

    thread = threading.Thread(target=erase_on)
    thread.start()
    with opened(home) as (ledger, personal):
        while not done.is_set():
            assert [h.problem for h in personal.held(BOB)] == [""] * len(FIELDS)
            assert personal.opened(ledger.get(0)) == FIELDS | {"requester": BOB}
    thread.join()


def test_fields_written_before_an_erasure_are_erased_though_their_entry_comes_after(home: Home) -> None:
    with opened(home) as (ledger, personal):
        said = personal._deposit(ADA, FIELDS)
        assert erase(home).fields == len(FIELDS)
        entry = ledger.get(ledger.append(Event("blocked", body={"personal": said})).index)
        assert {*states(ledger, entry).values()} == {(State.ERASED, 0)}


# -- keys and words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["missing", "other"])
def test_without_the_right_wrapping_key_nothing_is_reported_erased(home: Home, broken: str) -> None:
    write(home)
    path = home.keys / FILE
    path.rename(home.keys / "away")
    if broken == "other":
        path.write_text("ab" * 32)
        path.chmod(0o600)
    with pytest.raises(KeyStoreError):
        erase(home)
    path.unlink(missing_ok=True)
    (home.keys / "away").rename(path)
    with opened(home) as (ledger, personal):
        assert personal.opened(ledger.get(0)) == FIELDS
        assert ledger.count() == 1


def test_a_damaged_key_can_be_erased_all_the_same(home: Home) -> None:
    write(home)
    rows(home, "UPDATE subject_keys SET wrapped = '00'")
    rows(home, "UPDATE personal_fields SET sealed = '00'")
    assert erase(home).fields == len(FIELDS)


def test_grounds_are_of_a_list(home: Home) -> None:
    write(home)
    with pytest.raises(InputError, match="no ground"):
        fields.erase(home, ADA, ground="because Ada asked")


def test_a_ledger_without_personal_fields_has_nothing_to_erase(home: Home) -> None:
    with opened(home) as (ledger, _):
        ledger.append(blocked())
    done = erase(home)
    assert (done.entry, done.earlier) == (None, ())
    assert not (home.keys / FILE).exists()


def test_the_kept_manifests_go_where_that_is_asked(home: Home) -> None:
    with opened(home) as (_, personal):
        for n, kind in ((1, "generated"), (2, "blocked"), (3, "generated")):
            personal.append(Event(kind, f"{n:016x}"), ADA if n < 3 else BOB, FIELDS)
    home.manifests.mkdir()
    for n in (1, 2, 3):
        (home.manifests / f"{n:016x}.c2pa").write_bytes(b"manifest")
    assert fields.erase(home, ADA, ground="request", manifests=True).manifests == 1
    assert sorted(path.stem for path in home.manifests.iterdir()) == [f"{2:016x}", f"{3:016x}"]
    erase(home, BOB)
    assert (home.manifests / f"{3:016x}.c2pa").exists()


def test_what_is_shown_of_a_subject_is_all_and_theirs_alone(home: Home) -> None:
    write(home, count=2)
    write(home, BOB)
    said = fields.export_subject(home, ADA)
    listed: list[dict[str, object]] = said["fields"]  # type: ignore[assignment]
    assert [(f["entry"], f["kind"], f["field"]) for f in listed] == [
        (n, "blocked", name) for n in (0, 1) for name in sorted(FIELDS)
    ]
    assert {f["field"]: f["value"] for f in listed} == FIELDS
    assert BOB not in str(said)
    erase(home)
    assert fields.export_subject(home, ADA) == {"subject": ADA, "fields": [], "erased_by": [3]}


def test_a_ledger_of_many_entries_and_no_subject_is_as_it_was(home: Home) -> None:
    with Ledger.open(home.ledger_url, key=KeyStore.load(home).ledger_key) as ledger:
        receipt = ledger.append(blocked())
        assert "personal" not in ledger.get(receipt.index).body
        assert states(ledger, ledger.get(receipt.index)) == {}
