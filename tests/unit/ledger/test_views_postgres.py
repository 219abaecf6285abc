"""Views for auditors that were changed behind the ledger's back on PostgreSQL: each change is named by verification."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.ledger import Event, Ledger
from safegen.ledger.views import LEAF_FUNCTION, definitions
from tests.postgres import database

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
BODY: dict[str, Any] = {"consents": [{"id": "urn:uuid:1", "state": "valid"}], "decision": {"policy_id": "default"}}
TEXTS = definitions("postgresql")
HIDDEN = "9" * 16


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with database("postgresql", tmp_path) as url:
        with Ledger.open(url, key=KEY) as ledger:
            ledger.append(Event("generated", f"{1:016x}", BODY, asset_sha256=f"{1:064x}"))
        yield url


def execute(url: str, *statements: str) -> None:
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def found(url: str) -> list[str]:
    """What verification says: of the schema alone, for the entries are as they were."""
    with Ledger.open(url, create=False, read_only=True) as ledger:
        problems = ledger.verify(KEY.public_key()).problems
    assert {(p.index, p.column) for p in problems} <= {(None, "schema")}
    return [p.summary for p in problems]


def again(name: str, text: str) -> str:
    return f"CREATE OR REPLACE VIEW {name} AS {text}"


def narrowed(name: str) -> str:
    """The view without the rows that have something in them: what somebody would do who hides an entry."""
    columns = {"audit_daily": "day", "audit_derivations": "content_id"}
    return again(name, f"SELECT * FROM ({TEXTS[name]}) v WHERE v.{columns.get(name, 'content_id')} <> '{HIDDEN}'")


def test_views_that_are_as_they_were_made_are_sound_and_nothing_is_left_behind(url: str) -> None:
    assert found(url) == []
    execute(url, *(again(name, text) for name, text in TEXTS.items()))
    assert found(url) == []
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        views = connection.exec_driver_sql(
            "SELECT relname FROM pg_class WHERE relkind = 'v' AND relname LIKE '%%audit%%'"
        )
        assert sorted(views.scalars()) == sorted(TEXTS)
    engine.dispose()


def test_a_view_that_hides_rows_is_named(url: str) -> None:
    for name, text in TEXTS.items():
        execute(url, narrowed(name))
        assert found(url) == [f"the view {name} was changed"]
        execute(url, again(name, text))
        assert found(url) == []


CHANGES: dict[str, tuple[list[str], list[str]]] = {
    "a column reads something else": (
        [again("audit_entries", TEXTS["audit_entries"].replace("{body,mode}", "{body,text}"))],
        ["the view audit_entries was changed"],
    ),
    "a limit inside": (
        [again("audit_consents", TEXTS["audit_consents"].replace("LIMIT 1", "LIMIT 0"))],
        ["the view audit_consents was changed"],
    ),
    "a column renamed": (
        ["ALTER VIEW audit_daily RENAME COLUMN decision TO other"],
        ["the view audit_daily was changed"],
    ),
    "rights of whoever reads": (
        ["ALTER VIEW audit_facts SET (security_barrier = true)"],
        ["the view audit_facts was changed"],
    ),
    "dropped": (["DROP VIEW audit_unmarked"], ["the view audit_unmarked is missing"]),
    "a table in its place": (
        ["DROP VIEW audit_daily", "CREATE TABLE audit_daily AS SELECT * FROM daily_counts"],
        ["the view audit_daily is missing"],
    ),
    "the same words over a copy of the table": (
        [
            "CREATE SCHEMA other",
            "CREATE TABLE other.daily_counts AS SELECT * FROM daily_counts",
            again("audit_daily", TEXTS["audit_daily"].replace("FROM daily_counts", "FROM other.daily_counts")),
        ],
        ["the view audit_daily was changed"],
    ),
    "the function reads something else": (
        [LEAF_FUNCTION.replace("CREATE", "CREATE OR REPLACE").replace("\\ufffd", "?")],
        ["the function safegen_leaf that the views read leaves with was changed"],
    ),
    "the function has another setting": (
        ["ALTER FUNCTION safegen_leaf(text) SET search_path = other"],
        ["the function safegen_leaf that the views read leaves with was changed"],
    ),
    "row security": (
        ["ALTER TABLE entries ENABLE ROW LEVEL SECURITY"],
        ["row security is on for the table entries: not everybody sees all of it"],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named(url: str, change: str) -> None:
    statements, said = CHANGES[change]
    execute(url, *statements)
    assert found(url) == said


def test_the_same_words_with_an_operator_that_lies_are_a_change(url: str) -> None:
    execute(
        url,
        "CREATE FUNCTION lies(varchar, varchar) RETURNS boolean LANGUAGE sql IMMUTABLE AS"
        f" $$ SELECT $1::text = $2::text AND $1::text <> '{HIDDEN}'::text $$",
        "CREATE OPERATOR = (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = lies)",
        *(f"DROP VIEW {name}" for name in TEXTS),
        *(f"CREATE VIEW {name} AS {text}" for name, text in TEXTS.items()),
    )
    assert "the view audit_unmarked_copies was changed" in found(url)


def test_who_may_not_compare_is_told_so_and_believes_nothing(url: str) -> None:
    """Neither somebody who may make no temporary views nor a connection that may write nothing can tell."""
    name = f"reader_{sqlalchemy.make_url(url).database}"
    reader = sqlalchemy.make_url(url).set(username=name).render_as_string(hide_password=False)
    database_name = sqlalchemy.make_url(url).database
    try:
        execute(url, f"CREATE ROLE {name} LOGIN", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
        assert found(reader) == []
        execute(url, narrowed("audit_daily"))
        assert found(reader) == ["the view audit_daily was changed"]
        execute(url, f"ALTER ROLE {name} SET default_transaction_read_only = on")
        (said,) = found(reader)
        assert said.startswith("the views for auditors could not be compared with what they should be: ")
        assert "read-only" in said
        execute(
            url, f"ALTER ROLE {name} RESET default_transaction_read_only",
            f"REVOKE TEMPORARY ON DATABASE {database_name} FROM PUBLIC",
        )  # fmt: skip
        (said,) = found(reader)
        assert "permission denied" in said
    finally:
        execute(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")
