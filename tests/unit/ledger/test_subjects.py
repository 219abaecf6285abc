"""Personal fields: what a leaf says of them, who can open them, and what happens where that cannot be."""

from __future__ import annotations

import hmac
import json
import threading
from pathlib import Path

import pytest

from safegen.errors import InputError, KeyStoreError, LedgerDamagedError, LedgerError
from safegen.keys import KeyStore
from safegen.keys.wrapping import FILE
from safegen.ledger import Event, Ledger
from safegen.ledger.subjects import Personal, State, states
from safegen.settings import Home
from tests.postgres import database
from tests.unit.privacy.privacy_samples import ADA, FIELDS, WORDS, blocked, make_home, opened, raw, rows, write


def test_a_leaf_holds_commitments_and_the_fields_open(home: Home) -> None:
    (index,) = write(home)
    with opened(home) as (ledger, personal):
        entry = ledger.get(index)
        assert ADA not in entry.leaf
        assert WORDS not in entry.leaf
        said = entry.body["personal"]
        assert isinstance(said, dict)
        assert set(said["fields"]) == set(FIELDS)  # type: ignore[arg-type]
        assert personal.opened(entry) == FIELDS
        assert states(ledger, entry) == dict.fromkeys(FIELDS, (State.HELD, None))
        held = personal.held(ADA)
        assert [(h.entry, h.field, h.problem) for h in held] == [(index, name, "") for name in sorted(FIELDS)]
        for one in held:  # an opening proves a value by HMAC alone
            message = json.dumps(one.value, sort_keys=True, separators=(",", ":")).encode()
            value = hmac.digest(bytes.fromhex(one.opening), message, "sha256").hex()
            assert value == said["fields"][one.field]  # type: ignore[index, call-overload]
        assert personal.held("account:bob") == []
        assert ledger.verify().ok


def test_equal_values_give_different_commitments_and_ciphertexts(home: Home) -> None:
    write(home, count=2)
    with opened(home) as (ledger, _):
        first, second = (ledger.get(n).body["personal"]["fields"] for n in (0, 1))  # type: ignore[index, call-overload]
    assert not {*first.values()} & {*second.values()}  # type: ignore[union-attr]
    sealed = [row[0] for row in rows(home, "SELECT sealed FROM personal_fields")]
    assert len(set(sealed)) == len(sealed) == 2 * len(FIELDS)


def test_no_file_of_the_ledger_holds_a_field_in_clear(sqlite_home: Home) -> None:
    write(sqlite_home)
    with opened(sqlite_home):
        everything = raw(sqlite_home)
    for text in (ADA, WORDS, "lighthouse", (sqlite_home.keys / FILE).read_text().strip()):
        assert text.encode() not in everything
        assert text.encode().hex().encode() not in everything


@pytest.mark.parametrize("value", ["", "Grüße 你好", "\ud800 alone", "\0", ["x", {"y": None}], 0, None, "x" * 40_000])
def test_any_json_value_comes_back(sqlite_home: Home, value: object) -> None:
    (index,) = write(sqlite_home, texts=value)
    with opened(sqlite_home) as (ledger, personal):
        assert personal.opened(ledger.get(index))["texts"] == value


@pytest.mark.parametrize("subject", ["", "  ", "x" * 201, "a\nb", "a\0b"])
def test_what_is_no_name_of_a_subject_is_refused(sqlite_home: Home, subject: str) -> None:
    with opened(sqlite_home) as (ledger, personal):
        with pytest.raises(InputError):
            personal.append(blocked(), subject, FIELDS)
        assert ledger.count() == 0


def test_where_the_append_fails_nothing_is_kept(home: Home) -> None:
    write(home)
    generated = Event("generated", f"{7:016x}")
    with opened(home) as (ledger, personal):
        personal.append(generated, ADA, FIELDS)
        with pytest.raises(LedgerError, match="generated before"):
            personal.append(generated, ADA, FIELDS)
        assert {h.entry for h in personal.held(ADA)} == {0, 1}
        assert ledger.count() == 2


@pytest.mark.parametrize("failure", [LedgerError("the connection was lost"), KeyboardInterrupt()])
def test_where_nobody_knows_whether_the_entry_came_the_fields_stay(
    home: Home, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """The entry may yet come from the queue, and it must not miss them."""
    sent: list[Event] = []

    def fail(event: Event) -> None:
        sent.append(event)
        raise failure

    with opened(home) as (ledger, personal):
        with monkeypatch.context() as patched:
            patched.setattr(ledger, "append", fail)
            with pytest.raises(type(failure)):
                personal.append(blocked(), ADA, FIELDS)
        assert {h.entry for h in personal.held(ADA)} == {None}
        index = ledger.append(sent[0]).index
        assert personal.opened(ledger.get(index)) == FIELDS


@pytest.mark.parametrize("mode", ["inline", "sequenced"])
def test_batches_and_both_modes_of_writing_place_records(tmp_path: Path, mode: str) -> None:
    with database("postgresql", tmp_path) as url:
        home = make_home(tmp_path, url)
        keys = KeyStore.load(home)
        with Ledger.open(url, key=keys.ledger_key, origin=keys.ledger_name, mode=mode) as ledger:
            personal = Personal(ledger, home)
            said = [personal._deposit(f"account:{n}", FIELDS) for n in range(3)]
            ledger.append_many([Event("blocked", f"{n:016x}", {"personal": one}) for n, one in enumerate(said)])
            personal.append(blocked(9), ADA, FIELDS)
            assert [personal.held(name)[0].entry for name in ("account:0", "account:1", "account:2", ADA)] == [
                0,
                1,
                2,
                3,
            ]
            assert ledger.verify().ok


def test_a_crash_between_field_and_entry_leaves_what_is_shown_and_no_entry(sqlite_home: Home) -> None:
    write(sqlite_home, "account:bob")
    with opened(sqlite_home) as (ledger, personal):
        personal._deposit(ADA, FIELDS)
        assert {h.entry for h in personal.held(ADA)} == {None}
        assert ledger.verify().ok


# -- the wrapping key --------------------------------------------------------------------------------------------------


def test_the_wrapping_key_is_made_when_it_is_needed_and_carried_over(sqlite_home: Home) -> None:
    path = sqlite_home.keys / FILE
    assert not path.exists()
    write(sqlite_home)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    KeyStore.renew(sqlite_home)
    assert path.read_bytes() == before
    KeyStore.init(sqlite_home, force=True)
    assert path.read_bytes() == before
    with opened(sqlite_home) as (ledger, personal):
        assert personal.opened(ledger.get(0)) == FIELDS


@pytest.mark.parametrize("broken", ["missing", "other", "short", "no hex", "open to others"])
def test_without_its_wrapping_key_a_ledger_is_neither_read_nor_written(home: Home, broken: str) -> None:
    write(home)
    path = home.keys / FILE
    if broken == "missing":
        path.unlink()
    elif broken == "open to others":
        path.chmod(0o644)
    else:
        path.write_text({"other": "ab" * 32, "short": "ab" * 31, "no hex": "zz" * 32}[broken])
    with opened(home) as (ledger, personal):
        for attempt in (
            lambda: personal.append(blocked(2), "account:bob", FIELDS),
            lambda: personal.opened(ledger.get(0)),
            lambda: personal.held(ADA),
            personal.ready,
        ):
            with pytest.raises(KeyStoreError) as caught:
                attempt()
            assert caught.value.remedy
        assert ledger.count() == 1
        assert ledger.verify().ok
        assert states(ledger, ledger.get(0))["texts"] == (State.HELD, None)
    assert path.exists() is (broken != "missing"), "no other key takes its place"


def test_two_homes_at_one_ledger_use_one_wrapping_key(tmp_path: Path) -> None:
    with database("postgresql", tmp_path) as url:
        one = make_home(tmp_path / "one", url)
        two = Home(tmp_path / "two" / "home", ledger_url_override=url)
        import shutil

        shutil.copytree(one.root, two.root)
        write(one)
        with opened(two) as (_, personal), pytest.raises(KeyStoreError):
            personal.append(blocked(2), "account:bob", FIELDS)
        shutil.copy(one.keys / FILE, two.keys / FILE)
        with opened(two) as (ledger, personal):
            assert personal.opened(ledger.get(0)) == FIELDS


# -- damage ------------------------------------------------------------------------------------------------------------


def damage(home: Home, statement: str) -> None:
    rows(home, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE personal_fields SET sealed = '00' WHERE field = 'texts'",
        "UPDATE personal_fields SET sealed = 'zz' WHERE field = 'texts'",
        "UPDATE personal_fields SET sealed = '' WHERE field = 'texts'",
        "UPDATE personal_fields SET sealed = substr(sealed, 1, length(sealed) - 2)"
        " || CASE WHEN substr(sealed, length(sealed) - 1) = '00' THEN '01' ELSE '00' END WHERE field = 'texts'",
        "UPDATE personal_fields SET sealed = (SELECT sealed FROM personal_fields p WHERE p.field = 'requester')"
        " WHERE field = 'texts'",
        "UPDATE subject_keys SET wrapped = substr(wrapped, 1, length(wrapped) - 2)"
        " || CASE WHEN substr(wrapped, length(wrapped) - 1) = '00' THEN '01' ELSE '00' END",
    ],
)
def test_a_damaged_ciphertext_is_named_and_the_rest_is_shown(home: Home, statement: str) -> None:
    write(home)
    damage(home, statement)
    with opened(home) as (ledger, personal):
        with pytest.raises(LedgerDamagedError, match="altered"):
            personal.opened(ledger.get(0))
        held = {h.field: h for h in personal.held(ADA)}
        assert "altered" in held["texts"].problem
        assert held["texts"].value is None
        if "subject_keys" not in statement:
            assert (held["requester"].value, held["requester"].problem) == (ADA, "")


def test_a_field_of_another_record_does_not_open(home: Home) -> None:
    write(home, count=2)
    damage(
        home,
        "UPDATE personal_fields SET sealed = (SELECT sealed FROM personal_fields p WHERE p.entry = 1"
        " AND p.field = 'texts') WHERE entry = 0 AND field = 'texts'",
    )
    with opened(home) as (ledger, personal), pytest.raises(LedgerDamagedError):
        personal.opened(ledger.get(0))


def test_a_value_that_the_leaf_does_not_commit_to_is_no_value(sqlite_home: Home) -> None:
    """Whoever has the keys can write a ciphertext that opens; the leaf still says another thing."""
    from safegen.ledger.subject_encryption import field_aad, field_plaintext, seal
    from tests.unit.privacy.privacy_samples import subject_key

    write(sqlite_home)
    key, _ = subject_key(sqlite_home)
    ((record,),) = rows(sqlite_home, "SELECT DISTINCT record FROM personal_fields")
    forged = seal(key, field_plaintext({"prompt": "another"}, bytes(32)), field_aad(str(record), "texts"))
    damage(sqlite_home, f"UPDATE personal_fields SET sealed = '{forged}' WHERE field = 'texts'")
    with opened(sqlite_home) as (ledger, personal):
        with pytest.raises(LedgerDamagedError, match="commits to another"):
            personal.opened(ledger.get(0))
        assert [h.field for h in personal.held(ADA) if h.problem] == ["texts"]


@pytest.mark.parametrize("lost", ["DELETE FROM personal_fields", "UPDATE personal_fields SET sealed = NULL"])
def test_a_lost_field_is_missing_and_not_erased(home: Home, lost: str) -> None:
    write(home)
    damage(home, lost)
    with opened(home) as (ledger, _):
        assert {*states(ledger, ledger.get(0)).values()} == {(State.MISSING, None)}


def test_a_field_is_not_erased_because_a_row_says_so(home: Home) -> None:
    """The entry that a table points to must say that erasure."""
    write(home, count=2)
    damage(
        home, "INSERT INTO erasures (id, kind, ref, body, state, entry) VALUES ('x', 'erased', '', '', 'recorded', 1)"
    )
    damage(home, "UPDATE personal_fields SET sealed = NULL, erasure = 'x' WHERE entry = 0")
    with opened(home) as (ledger, _):
        assert states(ledger, ledger.get(0))["texts"] == (State.MISSING, None)


def test_writers_of_one_subject_share_its_key(home: Home) -> None:
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            with opened(home) as (_, personal):
                for n in range(first, first + 5):
                    personal.append(blocked(n), ADA, FIELDS)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert rows(home, "SELECT count(*) FROM subject_keys") == [(1,)]
    with opened(home) as (ledger, personal):
        assert len(personal.held(ADA)) == 20 * len(FIELDS)
        assert ledger.count() == 20
        assert not any(h.problem for h in personal.held(ADA))


def test_a_read_only_ledger_opens_fields(home: Home) -> None:
    write(home)
    with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
        assert Personal(ledger, home).opened(ledger.get(0)) == FIELDS
