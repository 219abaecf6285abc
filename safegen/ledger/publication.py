"""Places to publish a ledger to: a folder, a web server that takes PUT, an object store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safegen.errors import ConfigError, LedgerError
from safegen.files import replace_file
from safegen.ledger.tiles import Place

# Imported where they are used: fsspec, httpx.

TIMEOUT_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on this machine or on one that is mounted here."""

    path: Path

    def read(self, path: str) -> bytes | None:
        """See ``Place.read``."""
        try:
            return (self.path / path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerError(f"cannot read {self.path / path}: {error}") from error

    def write(self, path: str, data: bytes) -> None:
        """See ``Place.write``. What is published is as readable as the process's umask has it."""
        target = self.path / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, data, private=False)
        except OSError as error:
            raise LedgerError(
                f"cannot write {target}: {error}", remedy="Check the folder and its free space."
            ) from error


@dataclass(frozen=True, slots=True)
class WebServer:
    """A web server under whose address files are read with GET and written with PUT."""

    url: str
    token: str = ""

    def read(self, path: str) -> bytes | None:
        """See ``Place.read``."""
        answer = self._request("GET", path, None)
        return None if answer.status_code == 404 else bytes(self._good(answer, path).content)

    def write(self, path: str, data: bytes) -> None:
        """See ``Place.write``."""
        self._good(self._request("PUT", path, data), path)

    def _request(self, method: str, path: str, data: bytes | None) -> Any:
        import httpx

        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            return httpx.request(method, f"{self.url}/{path}", content=data, headers=headers, timeout=TIMEOUT_SECONDS)
        except httpx.HTTPError as error:
            raise LedgerError(f"cannot reach {self.url}/{path}: {error}") from error

    def _good(self, answer: Any, path: str) -> Any:
        if not 200 <= answer.status_code < 300:
            raise LedgerError(f"{self.url}/{path} answered {answer.status_code}", remedy="Check address and token.")
        return answer


class ObjectStore:
    """Whatever fsspec reaches: ``s3://``, ``gs://``, ``az://``, ``sftp://`` with the package that it asks for."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._store, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"cannot publish to {url}: {error}", remedy="Install what fsspec asks for.") from error

    def read(self, path: str) -> bytes | None:
        """See ``Place.read``."""
        try:
            return bytes(self._store.cat_file(f"{self._root}/{path}"))
        except FileNotFoundError:
            return None
        except Exception as error:  # every store has errors of its own
            raise LedgerError(f"cannot read {self._root}/{path}: {error}") from error

    def write(self, path: str, data: bytes) -> None:
        """See ``Place.write``; object stores write whole objects."""
        target = f"{self._root}/{path}"
        try:
            self._store.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._store.pipe_file(target, data)
        except Exception as error:
            raise LedgerError(f"cannot write {target}: {error}") from error


def open_place(url: str, token: str = "") -> Place:
    """Return the place that a URL or a folder's path names."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        return Folder(Path(url).expanduser())
    if scheme in ("http", "https"):
        return WebServer(url.rstrip("/"), token)
    return Folder(Path(url.removeprefix("file://"))) if scheme == "file" else ObjectStore(url)
