"""Databases that cannot be used, each with its own words; schema revisions; locks; start-up cost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import LedgerBusyError, LedgerError, MigrationRequiredError
from safegen.ledger import Event, Ledger, current_revision, downgrade, models, schema, triggers, upgrade
from tests.processes import in_fork

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    with Ledger.open(f"sqlite:///{path}", key=KEY) as ledger:
        ledger.append(Event("failed"))
    return path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_missing_file(tmp_path: Path) -> None:
    for options in ({"create": False}, {"read_only": True}):
        with pytest.raises(LedgerError, match="no ledger at"):
            Ledger.open(f"sqlite:///{tmp_path / 'absent.db'}", **options)
    assert not list(tmp_path.iterdir())


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="is a folder"):
        Ledger.open(f"sqlite:///{tmp_path}")


def test_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LedgerError):
        Ledger.open(f"sqlite:///{tmp_path / 'file' / 'ledger.db'}")


def test_no_database_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be mistaken for one" * 50)
    for read_only in (False, True):
        with pytest.raises(LedgerError, match="not a SQLite database"):
            Ledger.open(f"sqlite:///{path}", read_only=read_only)


def test_truncated_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(LedgerError):
        Ledger.open(f"sqlite:///{path}").verify()


def test_another_programs_database(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE songs (title)")
    with pytest.raises(LedgerError, match="something other"):
        Ledger.open(f"sqlite:///{tmp_path / 'other.db'}")


def test_empty_database_is_set_up_only_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(LedgerError, match="holds no ledger"):
        Ledger.open(f"sqlite:///{path}", create=False)
    with pytest.raises(LedgerError, match="holds no ledger"):
        Ledger.open(f"sqlite:///{path}", read_only=True)
    Ledger.open(f"sqlite:///{path}").close()
    assert current_revision(f"sqlite:///{path}") == schema.HEAD


@pytest.mark.parametrize(
    "url",
    ["", "ledger.db", "nonsense://x", "sqlite:///file:x", "sqlite:////tmp/x.db?mode=ro", "postgresql+nodriver://h/d"],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(LedgerError):
        Ledger.open(url)


def test_newer_schema(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(MigrationRequiredError) as caught:
        Ledger.open(f"sqlite:///{path}")
    assert "upgrade safegen" in caught.value.remedy
    with pytest.raises(MigrationRequiredError):
        upgrade(f"sqlite:///{path}")


def test_older_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "9999"))
    monkeypatch.setattr(schema, "HEAD", "9999")
    with pytest.raises(MigrationRequiredError) as caught:
        Ledger.open(f"sqlite:///{path}")
    assert "safegen ledger upgrade" in caught.value.remedy


def test_read_only_ledger_writes_nothing(path: Path) -> None:
    before = path.read_bytes()
    with Ledger.open(f"sqlite:///{path}", key=KEY, read_only=True) as ledger:
        assert ledger.verify().ok
        with pytest.raises(LedgerError):
            ledger.append(Event("failed"))
    assert path.read_bytes() == before


def test_unwritable_file_and_folder(open_folder: Path) -> None:
    path = open_folder / "ledger.db"
    url = f"sqlite:///{path}"
    with Ledger.open(url, key=KEY) as ledger:
        ledger.append(Event("failed"))
    path.chmod(0o444)
    open_folder.chmod(0o555)

    def act() -> None:
        with pytest.raises(LedgerError, match="not writable"):
            Ledger.open(url)
        with pytest.raises(LedgerError, match="not writable"):
            Ledger.open(f"sqlite:///{open_folder / 'new.db'}")
        with Ledger.open(url, read_only=True) as ledger:
            assert ledger.count() == 1
            assert ledger.verify().ok

    assert in_fork(act, unprivileged=True) == 0
    path.chmod(0o600 if os.geteuid() == 0 else 0o000)

    def unreadable() -> None:
        with pytest.raises(LedgerError, match="not readable"):
            Ledger.open(url, read_only=True)

    assert in_fork(unreadable, unprivileged=True) == 0
    open_folder.chmod(0o755)


def test_locked_by_another_writer(path: Path) -> None:
    with Ledger.open(f"sqlite:///{path}", key=KEY, busy_seconds=0.1) as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerBusyError, match="another process"):
            ledger.append(Event("failed"))
        assert ledger.verify().ok  # readers do not wait
        other.execute("ROLLBACK")
        other.close()
        assert ledger.append(Event("failed")).index == 1


def test_locked_while_being_created(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerBusyError):
        Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", busy_seconds=0.1)
    other.close()


def test_migrations_up_and_down(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    upgrade(url)
    upgrade(url)
    assert current_revision(url) == schema.HEAD
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        made = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")}
    assert made == triggers.definitions("sqlite").keys()
    downgrade(url, "base")
    assert current_revision(url) is None
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        assert db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("alembic_version",)]
    Ledger.open(url).close()
    assert current_revision(url) == schema.HEAD


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic.operations import Operations

    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("no such luck")

    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setattr(Operations, "bulk_insert", fail)
    with pytest.raises(LedgerError, match="no such luck"):
        Ledger.open(url)
    monkeypatch.undo()
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == []
    Ledger.open(url).close()


def test_unknown_target_revision(tmp_path: Path) -> None:
    with pytest.raises(MigrationRequiredError):
        upgrade(f"sqlite:///{tmp_path / 'ledger.db'}", "nonsense")


def test_revision_constants_are_the_migrations() -> None:
    scripts = ScriptDirectory.from_config(schema.alembic_config())
    assert tuple(reversed([script.revision for script in scripts.walk_revisions()])) == schema.REVISIONS
    assert scripts.get_current_head() == schema.HEAD


def test_migrations_and_tables_agree(path: Path) -> None:
    with Ledger.open(f"sqlite:///{path}") as ledger, ledger._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = [str(d) for d in compare_metadata(context, models.metadata)]
    # Partial indexes are in the migrations alone.
    partial = ("ix_entry_facts_input", "ix_entry_facts_parent", "uq_entries_generated")
    assert sorted(name for d in differences for name in partial if "remove_index" in d and name in d) == [*partial]
    assert len(differences) == len(partial)


def test_a_lookup_loads_neither_alembic_nor_the_orm(path: Path) -> None:
    code = (
        "import sys; from safegen.ledger import Ledger\n"
        f"ledger = Ledger.open('sqlite:///{path}', read_only=True); ledger.prove(0); ledger.find_content('0' * 16)\n"
        "loaded = {'alembic', 'sqlalchemy.orm', 'torch', 'cv2', 'sqlalchemy.dialects.postgresql'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
