"""Auditors' views and queries on both databases: what they find, by which index, and what verification finds."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import LedgerError
from safegen.ledger import Event, Ledger, audit_queries, downgrade, upgrade, verify_inclusion
from safegen.ledger.audit_queries import AuditLedger, Query, by_fact
from safegen.ledger.views import definitions
from tests.postgres import DATABASES, database

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
POLICY, CERTIFICATE, OTHER = "a" * 64, "b" * 64, "c" * 64
CONSENT = "urn:uuid:0617ea0e-00f1-4341-a915-3ad528f5fd53"
CLIPS = 6
BARE = 4  # the clip without a mark


def content_id(number: int) -> str:
    return f"{number:016x}"


def asset(number: int) -> str:
    return f"{number:064x}"


def generated(number: int) -> Event:
    mark = {"scheme": "latent-residual", "content_id": content_id(number)} if number != BARE else None
    body = {
        "mark": mark, "manifest_id": f"urn:c2pa:{number}", "model": {"version": "1"}, "mode": "video", "note": "\0 ö",
        "decision": {"policy_id": "default"}, "frames_decision": {"action": "allow"},
        "signature": {"signer": "store:", "leaf_sha256": CERTIFICATE},
        "inputs": [{"role": "video", "sha256": asset(number - 1) if number else OTHER}],
        "consents": [{"id": CONSENT, "state": "expired" if number == 2 else "valid"}] if number < 3 else "none",
    }  # fmt: skip
    action = "allow" if number % 2 == 0 else "flag"
    return Event("generated", content_id(number), body, asset(number), OTHER, f"m{number % 2}", POLICY, action)


EVENTS = (
    *map(generated, range(CLIPS)),
    Event("resigned", content_id(1), {"previous_entry": 1, "signature": {"signer": "file:x"}}, asset(91)),
    Event("resigned", content_id(BARE), {"previous_entry": None}, asset(92)),
    Event("recovered", content_id(1), {"recovered_entry": 1, "manifest_id": "urn:c2pa:r"}, asset(93)),
    Event("withdrawn", content_id(1), {"recovered_entry": 8}),
    Event("consent_revoked", body={"consent_id": CONSENT, "by": "A", "reason": "B"}),
    Event(
        "blocked", content_id(50), {"decision": {"policy_id": "default"}}, model="m0", policy_sha256=POLICY,
        action="block",
    ),
    Event("failed", body={"signature": [], "decision": 3, "consents": [1, {"id": 2}], "inputs": {"sha256": OTHER}}),
)  # fmt: skip


def fill(url: str) -> None:
    with Ledger.open(url, key=KEY) as ledger:
        for event in EVENTS:
            ledger.append(event)


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with database(request.param, tmp_path_factory.mktemp("ledger")) as url:
        fill(url)
        yield url


@pytest.fixture
def own(url: str, tmp_path: Path) -> Iterator[str]:
    """A ledger of the same database that a test may spoil."""
    with database("sqlite" if url.startswith("sqlite") else "postgresql", tmp_path) as own:
        fill(own)
        yield own


@pytest.fixture
def ledger(url: str) -> Iterator[AuditLedger]:
    with AuditLedger.open(url, create=False, read_only=True) as ledger:
        yield ledger


def unguard(url: str) -> None:
    sqlite = url.startswith("sqlite")
    execute(url, "DROP TRIGGER entries_no_update" if sqlite else "ALTER TABLE entries DISABLE TRIGGER USER")


def execute(url: str, *statements: str) -> None:
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    finally:
        engine.dispose()


QUERIES = {
    "asset": (Query(equal={"asset_sha256": asset(3)}), [3]),
    "mark": (Query(equal={"content_id": content_id(1)}), [1, 6, 8, 9]),
    "model": (Query(equal={"model": "m0"}), [0, 2, 4, 11]),
    "policy": (by_fact("policy", "default"), [0, 1, 2, 3, 4, 5, 11]),
    "policy, decided": (by_fact("policy.block", "default"), [11]),
    "policy's digest": (Query(equal={"policy_sha256": POLICY}), [0, 1, 2, 3, 4, 5, 11]),
    "policy's digest, decided": (Query(equal={"policy_sha256": POLICY, "decision": "flag"}), [1, 3, 5]),
    "certificate": (by_fact("certificate", CERTIFICATE), [0, 1, 2, 3, 4, 5]),
    "signer": (by_fact("signer", "file:x"), [6]),
    "consent": (Query("audit_consents", {"consent": CONSENT}), [0, 1, 2, 10]),
    "unmarked": (Query("audit_unmarked"), [BARE]),
    "copies of unmarked": (Query("audit_unmarked_copies"), [7]),
    "input": (by_fact("input", asset(2)), [3]),
    "time": (Query(begin="2026-01-01", end="2999"), list(range(len(EVENTS)))),
    "time, long ago": (Query(end="2026-01-01"), []),
    "all": (Query(), list(range(len(EVENTS)))),
    "nothing": (Query(equal={"model": "\0"}), []),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_finds_its_entries_page_by_page(ledger: AuditLedger, name: str) -> None:
    query, expected = QUERIES[name]
    found = list(ledger.rows(query))
    assert [row["entry"] for row in found] == expected
    assert all(set(row) == {*query.columns} - {"damage"} for row in found)
    assert [row["entry"] for row in ledger.rows(query, 3)] == expected[:3]
    pages, after = [], -1
    while page := ledger.page(Query(query.view, query.equal, query.begin, query.end, after, 2)):
        pages += page
        after = page[-1]["entry"]  # type: ignore[assignment]
    assert pages == found


def test_a_row_says_what_the_leaf_says(ledger: AuditLedger) -> None:
    (row,) = ledger.page(Query(equal={"asset_sha256": asset(2)}))
    entry = ledger.get(2)
    assert row == {
        "entry": 2, "time": entry.time, "kind": "generated", "content_id": content_id(2), "asset_sha256": asset(2),
        "manifest_sha256": OTHER, "model": "m0", "policy_sha256": POLICY, "decision": "allow",
        "leaf_hash": entry.leaf_hash, "manifest_id": "urn:c2pa:2", "model_version": "1", "mode": "video",
        "policy": "default", "frames_decision": "allow", "mark": "latent-residual", "signer": "store:",
        "certificate": CERTIFICATE,
    }  # fmt: skip
    states = {row["entry"]: row["consent_state"] for row in ledger.page(Query("audit_consents", {"consent": CONSENT}))}
    assert states == {0: "valid", 1: "valid", 2: "expired", 10: "revoked"}


def test_days_are_counted(ledger: AuditLedger) -> None:
    day = ledger.get(0).time[:10]
    rows = ledger.daily()
    assert sum(int(str(row["entries"])) for row in rows) == len(EVENTS)
    assert ledger.daily(day, day) == [row for row in rows if row["day"] == day]
    assert ledger.daily(end="2026-01-01") == []
    counted = {(r["kind"], r["model"], r["decision"]): r["entries"] for r in rows}
    assert counted["generated", "m0", "allow"] == 3
    assert counted["resigned", "", ""] == 2


@pytest.mark.parametrize("start", [0, 5, 6, 8, 9])
def test_a_chain_is_followed_both_ways(ledger: AuditLedger, start: int) -> None:
    chain = ledger.chain([start])
    assert chain.whole
    assert [*chain.rows] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    steps = {(link.entry, link.relation, link.parent) for link in chain.links}
    inputs = {(n, "input", n - 1 if n else None) for n in range(CLIPS)}
    assert steps == inputs | {(6, "resigned", 1), (7, "resigned", BARE), (8, "recovered", 1), (9, "withdrawn", 8)}
    assert next(link.sha256 for link in chain.links if link.parent is None) == OTHER


def test_a_chain_has_an_end(ledger: AuditLedger) -> None:
    chain = ledger.chain([0], 3)
    assert (len(chain.rows), chain.whole) == (3, False)
    assert ledger.chain([10]).links == ()
    assert ledger.chain([999]).rows == {}


def test_proofs_lie_under_one_checkpoint(ledger: AuditLedger) -> None:
    assert ledger.vkey is not None
    note, proofs = ledger.prove_all(range(len(EVENTS)), ledger.vkey)
    for proof in proofs:
        assert proof.checkpoint == note
        assert verify_inclusion(proof, ledger.get(proof.index).leaf, KEY.public_key())
    with pytest.raises(LedgerError):
        ledger.consistency_with(5, 99)


def test_the_sql_in_the_documents_runs(url: str) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "audit.md").read_text("utf-8")
    (block,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    foreign = "safegen_leaf" if url.startswith("sqlite") else "json_extract"
    statements = [one for one in block.split(";") if one.strip() and foreign not in one]
    assert len(statements) == (6 if url.startswith("sqlite") else 5)
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        counts = [len(connection.execute(sqlalchemy.text(one)).all()) for one in statements]
    engine.dispose()
    assert counts[1] == 4  # the consent, and the share of each day
    assert counts[4] == 1


def test_an_auditor_needs_no_more_than_the_views(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "audit.md").read_text("utf-8")
    (grant,) = re.findall(r"GRANT SELECT ON [a-z_, ]+ TO auditor", text)
    role = f"auditor_{secrets.token_hex(6)}"
    with database("postgresql", tmp_path) as url:
        fill(url)
        engine = sqlalchemy.create_engine(url)
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(f"CREATE ROLE {role}")
                connection.exec_driver_sql(grant.replace("TO auditor", f"TO {role}"))
            with engine.connect() as connection:
                connection.exec_driver_sql(f"SET ROLE {role}")
                for view in definitions("postgresql"):
                    assert connection.exec_driver_sql(f"SELECT count(*) FROM {view}").scalar()
                with pytest.raises(sqlalchemy.exc.ProgrammingError, match="permission denied"):
                    connection.exec_driver_sql("SELECT * FROM entries")
        finally:
            with engine.begin() as connection:
                connection.exec_driver_sql(f"DROP OWNED BY {role}")
                connection.exec_driver_sql(f"DROP ROLE {role}")
            engine.dispose()


# -- which index -------------------------------------------------------------------------------------------------------


def plan_of(url: str, query: Query) -> str:
    return plan(url, *query.statement())


def plan(url: str, statement: object, given: dict[str, object]) -> str:
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET enable_seqscan = off")  # so that one remains only where nothing else can be
            connection.exec_driver_sql("SET enable_bitmapscan = off")
        explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
        lines = [row[-1] for row in connection.execute(sqlalchemy.text(explain + str(statement)), given)]
    engine.dispose()
    return "\n".join(map(str, lines))


FACTS = "the key of entry_facts"
NAMED = {"sqlite": "f USING PRIMARY KEY (name=? AND value=?", "postgresql": "Index Only Scan using entry_facts_pkey"}
INDEX = {
    "asset": "ix_entries_asset_sha256", "mark": "ix_entries_content_id", "model": "ix_entries_model",
    "policy": FACTS, "policy, decided": FACTS, "certificate": FACTS,
    "policy's digest": "ix_entries_policy", "policy's digest, decided": "ix_entries_decision",
    "signer": FACTS, "consent": FACTS, "unmarked": FACTS,
    "copies of unmarked": "ix_entries_content_id",
    "input": FACTS, "time": "ix_entries_time",
}  # fmt: skip


@pytest.mark.parametrize("name", INDEX)
@pytest.mark.parametrize("after", [-1, 2])
def test_a_page_is_found_by_an_index(url: str, name: str, after: int) -> None:
    asked = QUERIES[name][0]
    plan = plan_of(url, Query(asked.view, asked.equal, asked.begin, asked.end, after, 100))
    wanted = NAMED[url.partition("+")[0].partition(":")[0]] if INDEX[name] is FACTS else INDEX[name]
    assert wanted in plan or (name == "input" and "ix_entry_facts_input" in plan)  # as good in a small table
    assert "Seq Scan" not in plan
    scans = [line for line in plan.splitlines() if line.startswith("SCAN ")]
    assert [line for line in scans if "CONSTANT ROW" not in line and "VIRTUAL TABLE" not in line] == []
    if name not in (
        "asset",
        "mark",
        "copies of unmarked",
    ):  # few; else all would be sorted
        assert "Sort" not in plan
        assert "TEMP B-TREE" not in plan


def test_derivations_of_an_entry_are_found_by_partial_indexes(url: str) -> None:
    found = plan(url, audit_queries._UP, {"entry": 3})
    assert "Seq Scan" not in found
    if url.startswith("sqlite"):  # in a small table PostgreSQL takes one index for as good as another
        assert "ix_entry_facts_parent" in found
        assert "ix_entry_facts_input" in found


# -- what verification finds -------------------------------------------------------------------------------------------

WRONG = {(1, "entry_facts.value")}
EDITS = {
    "fact edited": ("UPDATE entry_facts SET value = 'x' WHERE name = 'consent' AND entry = 1", WRONG),
    "fact renamed": ("UPDATE entry_facts SET name = 'y' WHERE entry = 1 AND name = 'input'", WRONG),
    "fact moved": ("UPDATE entry_facts SET entry = 3 WHERE entry = 4 AND name = 'unmarked'",
                   {(3, "entry_facts.value"), (4, "entry_facts.value")}),
    "fact deleted": ("DELETE FROM entry_facts WHERE entry = 2 AND name = 'consent'", {(2, "entry_facts.value")}),
    "fact added": ("INSERT INTO entry_facts VALUES (3, 'consent', 'z')", {(3, "entry_facts.value")}),
    "fact of no entry": ("INSERT INTO entry_facts VALUES (999, 'consent', 'z')", {(999, "entry_facts.entry")}),
    "fact before all": ("INSERT INTO entry_facts VALUES (-7, 'consent', 'z')", {(-7, "entry_facts.entry")}),
    "count edited": ("UPDATE daily_counts SET entries = 9 WHERE kind = 'blocked'", {(None, "daily_counts")}),
    "day deleted": ("DELETE FROM daily_counts WHERE kind = 'blocked'", {(None, "daily_counts")}),
    "day added": ("INSERT INTO daily_counts VALUES ('2020-01-01', 'blocked', '', '', '', 1)", {(None, "daily_counts")}),
    "view dropped": ("DROP VIEW audit_unmarked", {(None, "schema")}),
}  # fmt: skip


def places(url: str) -> set[tuple[int | None, str]]:
    with Ledger.open(url, create=False, read_only=True) as ledger:
        report = ledger.verify(KEY.public_key())
    assert report.ok == (not report.problems)
    return {(problem.index, problem.column) for problem in report.problems}


@pytest.mark.parametrize("case", EDITS)
def test_an_edit_of_what_auditors_ask_by_is_found(own: str, case: str) -> None:
    statement, expected = EDITS[case]
    assert places(own) == set()
    execute(own, statement)
    assert places(own) == expected


def test_a_view_that_hides_an_entry_is_found_on_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    fill(url)
    text = definitions("sqlite")["audit_entries"]
    execute(url, "DROP VIEW audit_entries", f"CREATE VIEW audit_entries AS {text} WHERE e.idx <> 3")
    assert places(url) == {(None, "schema")}


def test_a_row_whose_entry_contradicts_it_says_so(own: str) -> None:
    unguard(own)
    execute(
        own, "UPDATE entries SET model = 'm9' WHERE idx = 1", "UPDATE entries SET leaf = '{' WHERE idx = 2",
        "INSERT INTO entry_facts VALUES (3, 'signer', 'file:x')",
    )  # fmt: skip
    with AuditLedger.open(own, create=False, read_only=True) as ledger:
        damage = {row["entry"]: row["damage"] for row in ledger.rows(Query()) if "damage" in row}
        assert damage == {1: "wrong model", 2: "wrong leaf"}
        assert [row["entry"] for row in ledger.rows(Query("audit_consents", {"consent": CONSENT}))] == [0, 1, 2, 10]
        signed = ledger.page(by_fact("signer", "file:x"))
        assert [(row["entry"], row.get("damage")) for row in signed] == [(3, "wrong entry_facts"), (6, None)]
        assert ledger.chain([1]).rows[1]["damage"] == "wrong model"


def test_the_migration_fills_what_appends_fill(own: str) -> None:
    def held() -> list[list[tuple[object, ...]]]:
        engine = sqlalchemy.create_engine(own)
        with engine.connect() as connection:
            queries = [f"SELECT * FROM {table} ORDER BY 1, 2, 3" for table in ("entry_facts", "daily_counts")]
            found = [[tuple(row) for row in connection.exec_driver_sql(query)] for query in queries]
        engine.dispose()
        return [sorted(rows, key=json.dumps) for rows in found]

    before = held()
    assert all(before)
    downgrade(own, "0004")
    upgrade(own)
    assert held() == before
    assert places(own) == set()


def test_a_damaged_leaf_does_not_stop_the_migration(own: str) -> None:
    downgrade(own, "0004")
    unguard(own)
    execute(own, "UPDATE entries SET leaf = '{' WHERE idx = 1", "UPDATE entries SET leaf = '[]' WHERE idx = 2")
    upgrade(own)
    with AuditLedger.open(own, create=False, read_only=True) as ledger:
        assert [row["entry"] for row in ledger.rows(Query("audit_consents", {"consent": CONSENT}))] == [0, 10]
