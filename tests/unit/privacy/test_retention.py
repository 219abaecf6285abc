"""Retention: what is due goes, what is not stays and opens, and the keys of what went are gone."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from safegen.errors import ConfigError, LedgerDamagedError
from safegen.ledger import Event, erasure
from safegen.ledger.subjects import State, states
from safegen.privacy import fields
from safegen.privacy.retention import SCHEMA, Retention, read_retention, retain
from safegen.settings import Home
from tests.unit.in_process import InProcess
from tests.unit.privacy.privacy_samples import ADA, FIELDS, WORDS, opened, raw, rows, subject_key, write

DAY = dt.timedelta(days=1)
RULES = Retention({"texts": 30 * DAY, "requester": 365 * DAY})


def later(days: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + days * DAY


def held(home: Home, index: int = 0) -> set[str]:
    with opened(home) as (ledger, personal):
        return set(personal.opened(ledger.get(index)))


def test_fields_go_one_after_another_as_their_time_is_over(home: Home) -> None:
    write(home)
    assert retain(home, RULES, now=later(29)).entry is None
    first = retain(home, RULES, now=later(31))
    assert (first.entry, first.fields) == (1, {"texts": 1, "salts": 1})
    assert held(home) == {"requester"}
    second = retain(home, RULES, now=later(366))
    assert (second.entry, second.fields) == (2, {"requester": 1})
    assert held(home) == set()
    assert retain(home, RULES, now=later(1000)).entry is None
    with opened(home) as (ledger, _):
        found = states(ledger, ledger.get(0))
        assert found == {"texts": (State.ERASED, 1), "salts": (State.ERASED, 1), "requester": (State.ERASED, 2)}
        assert [e.kind for e in ledger.entries()] == ["blocked", "expired", "expired"]
        assert ledger.get(1).body["fields"] == {"texts": 1, "salts": 1}
        assert ledger.verify().ok
    assert rows(home, "SELECT count(*) FROM subject_keys") == [(0,)]


def test_a_trial_says_what_is_due_and_leaves_it(home: Home) -> None:
    write(home, count=3)
    said = retain(home, RULES, now=later(31), dry_run=True)
    assert (said.fields, said.entry) == ({"texts": 3, "salts": 3}, None)
    assert held(home) == set(FIELDS)


def test_what_stays_is_under_another_key_and_the_old_one_is_gone(sqlite_home: Home) -> None:
    write(sqlite_home)
    key, wrapped = subject_key(sqlite_home)
    retain(sqlite_home, RULES, now=later(31))
    with opened(sqlite_home):
        everything = raw(sqlite_home)
    for gone in (wrapped[:48].encode(), wrapped[-48:].encode(), key, key.hex().encode(), WORDS.encode()):
        assert gone not in everything
    assert subject_key(sqlite_home)[0] != key
    with opened(sqlite_home) as (_, personal):
        assert [(h.field, h.value, h.problem) for h in personal.held(ADA)] == [("requester", ADA, "")]


def test_what_expired_in_part_is_erased_as_a_whole(home: Home) -> None:
    write(home, count=2)
    retain(home, RULES, now=later(31))
    done = fields.erase(home, ADA, ground="request")
    assert done.fields == 2
    assert held(home) == set()


def test_only_what_is_old_is_due(home: Home) -> None:
    write(home, count=2)
    rows(home, "UPDATE personal_fields SET created = '2020-01-01T00:00:00.000000Z' WHERE entry = 0")
    assert retain(home, RULES).fields == {"requester": 1, "texts": 1, "salts": 1}
    assert (held(home, 0), held(home, 1)) == (set(), set(FIELDS))


def test_a_damaged_field_that_stays_stops_it_before_anything_is_lost(home: Home) -> None:
    write(home)
    rows(home, "UPDATE personal_fields SET sealed = '00' WHERE field = 'requester'")
    with pytest.raises(LedgerDamagedError, match="requester"):
        retain(home, RULES, now=later(31))
    with opened(home) as (ledger, _):
        assert {state for state, _ in states(ledger, ledger.get(0)).values()} == {State.HELD}
        assert ledger.count() == 1


def test_one_that_broke_off_is_ended(home: Home) -> None:
    write(home)
    with opened(home) as (_, personal):
        assert erasure.begin_expiry(personal, RULES.cutoffs(later(31))) is not None
    assert held(home) == {"requester"}
    done = retain(home, RULES)
    assert (done.resumed, done.entry) == ((1,), None)
    with opened(home) as (ledger, _):
        assert ledger.get(1).kind == "expired"


def test_old_manifests_go_too_where_that_is_asked(sqlite_home: Home) -> None:
    home = sqlite_home
    with opened(home) as (ledger, _):
        ledger.append(Event("generated", f"{1:016x}"))
    home.manifests.mkdir()
    for n in (1, 2, 3):
        (home.manifests / f"{n:016x}.c2pa").write_bytes(b"manifest")
        (home.manifests / f"{n:016x}.pictures").write_bytes(b"pictures")
    (home.manifests / "notes.c2pa").write_bytes(b"another's")
    old = (later(-100)).timestamp()
    for n in (1, 2):  # what the entry says counts before the file's own time
        for kept in home.manifests.glob(f"{n:016x}.*"):
            os.utime(kept, (old, old))
    rules = Retention(manifests=50 * DAY)
    assert retain(home, rules, dry_run=True).manifests == 1
    done = retain(home, rules)
    assert (done.manifests, done.fields) == (1, {})
    assert sorted(p.name for p in home.manifests.iterdir()) == [
        f"{1:016x}.c2pa", f"{1:016x}.pictures", f"{3:016x}.c2pa", f"{3:016x}.pictures", "notes.c2pa",
    ]  # fmt: skip
    with opened(home) as (ledger, _):
        assert ledger.get(done.entry or 0).body["manifests"] == 1
    assert retain(home, Retention()).entry is None


def test_pictures_whose_manifest_is_gone_go_too(sqlite_home: Home) -> None:
    home = sqlite_home
    with opened(home) as (ledger, _):
        ledger.append(Event("generated", f"{1:016x}"))
    home.manifests.mkdir()
    (home.manifests / f"{2:016x}.pictures").write_bytes(b"pictures")
    old = (later(-100)).timestamp()
    os.utime(home.manifests / f"{2:016x}.pictures", (old, old))
    assert retain(home, Retention(manifests=50 * DAY)).manifests == 1
    assert list(home.manifests.iterdir()) == []


# -- the file ----------------------------------------------------------------------------------------------------------


def test_the_file_says_how_long(tmp_path: Path) -> None:
    path = tmp_path / "retention.yaml"
    path.write_text(f"schema: {SCHEMA}\nretention: {{texts: 30d, requester: 1y, reviewer: 2w, manifests: 12h}}\n")
    rules = read_retention(path)
    assert rules.kinds == {"texts": 30 * DAY, "requester": 365 * DAY, "reviewer": 14 * DAY}
    assert rules.manifests == DAY / 2
    assert set(rules.cutoffs(later(0))) == {"texts", "salts", "requester", "by", "reason"}


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "- x", "\0", "{", "schema: other/1\nretention: {}", f"schema: {SCHEMA}",
        f"schema: {SCHEMA}\nretention: []",
        f"schema: {SCHEMA}\nretention: {{texts: 30}}", f"schema: {SCHEMA}\nretention: {{texts: 0d}}",
        f"schema: {SCHEMA}\nretention: {{texts: soon}}", f"schema: {SCHEMA}\nretention: {{texts: 999999y}}",
        f"schema: {SCHEMA}\nretention: {{seeds: 30d}}", f"schema: {SCHEMA}\nretention: {{texts: 1d}}\nmore: 1",
        "x" * 70_000,
    ],
)  # fmt: skip
def test_what_is_no_retention_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "retention.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_retention(path)
    assert "30d" in caught.value.remedy


def test_ages_beyond_the_calendar_are_refused_or_never_due(sqlite_home: Home) -> None:
    path = sqlite_home.root / "retention.yaml"
    path.write_text(f"schema: {SCHEMA}\nretention: {{texts: 99999y}}\n")
    write(sqlite_home)
    with pytest.raises(ConfigError):
        retain(sqlite_home, read_retention(path))


@pytest.mark.slow
def test_the_command(sqlite_home: Home) -> None:
    shell = InProcess(sqlite_home)
    write(sqlite_home)
    assert "retention.yaml" in shell.json("ledger", "retain", code=4)["error"]["message"]
    (sqlite_home.root / "retention.yaml").write_text(f"schema: {SCHEMA}\nretention: {{texts: 1h}}\n")
    assert shell.json("ledger", "retain", "--dry-run", code=0)["fields"] == {}
    rows(sqlite_home, "UPDATE personal_fields SET created = '2020-01-01T00:00:00.000000Z'")
    assert shell.json("ledger", "retain", "--dry-run", code=0)["fields"] == {"texts": 1, "salts": 1}
    assert "--dry-run" in shell("ledger", "retain", "--dry-run", code=0).stdout
    done = shell.json("ledger", "retain", code=0)
    assert (done["entry"], done["fields"]) == (1, {"texts": 1, "salts": 1})
    shown = shell.json("ledger", "show", 0, code=0)["personal"]
    assert shown == {"requester": "held", "texts": "erased (entry 1)", "salts": "erased (entry 1)"}
    assert "Nothing was due" in shell("ledger", "retain", code=0).stdout
