"""What the API answers, free of HTTP: look-ups in the ledger, kept manifests, and marks read from assets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO

from safegen.errors import InputError, LedgerDamagedError, MediaError, ResolutionError
from safegen.media.formats import identify
from safegen.provenance.kept_manifests import load_manifest
from safegen.provenance.native.jumbf import STORE, manifests, superbox
from safegen.recovery.recover import Outcome
from safegen.service.bindings import FINGERPRINTS, decode_bytes, decode_value
from safegen.service.limits import ServiceSettings
from safegen.service.lookup_process import Reading, read_asset
from safegen.settings import Home
from safegen.types import Json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from safegen.ledger import Ledger
    from safegen.service.stored_manifests import Storage

# Imported where they are used: what loads cv2 or sqlalchemy.


class TooLargeError(InputError):
    """An asset is larger than the service takes."""


class BusyError(ResolutionError):
    """As many assets are being read as the service reads at once."""


class TooSlowError(ResolutionError):
    """An asset did not arrive, or its mark could not be read, in time."""


@dataclass(frozen=True, slots=True)
class Match:
    """A manifest that a query led to. ``similarity``: 0 to 100, where pictures were compared.

    ``stored``: it was taken in for others, and is nothing that this home made.
    """

    manifest_id: str
    similarity: int | None = None
    stored: bool = False

    def to_json(self) -> dict[str, Json]:
        """Return the match in the API's shape."""
        score: dict[str, Json] = {} if self.similarity is None else {"similarityScore": self.similarity}
        return {"manifestId": self.manifest_id, **score, **({"stored": True} if self.stored else {})}


@dataclass(frozen=True, slots=True)
class Page:
    """Some matches, and where to go on (the index of an entry) if there may be more."""

    matches: tuple[Match, ...]
    after: int | None = None


class Service:
    """Answers for one home. Thread-safe; blocking methods are to be called in threads."""

    def __init__(self, home: Home, settings: ServiceSettings, storage: Storage | None = None) -> None:
        self.settings = settings
        self._storage = storage
        self._home = home
        self._lock = Lock()
        self._ledger: Ledger | None = None
        self._reading = 0

    def ledger(self) -> Ledger:
        """The ledger, opened for reading at the first call; LedgerError if there is none."""
        from safegen.ledger import Ledger

        with self._lock:
            if self._ledger is None:
                self._ledger = Ledger.open(self._home.ledger_url, create=False, read_only=True)
            return self._ledger

    def close(self) -> None:
        """Give the ledger back."""
        with self._lock:
            if self._ledger is not None:
                self._ledger.close()
                self._ledger = None

    def by_binding(self, alg: str, value: str, limit: int, after: int = -1) -> Page:
        """The manifests that a soft binding leads to, oldest first, and behind them those stored for others."""
        own = self._own(alg, value, limit, after)
        room = limit - len(own.matches)
        if self._storage is None or own.after is not None or room <= 0:
            return own
        taken = self._storage.bound(alg, decode_bytes(value) or b"", room)
        return Page((*own.matches, *(Match(name, stored=True) for name in taken)))

    def _own(self, alg: str, value: str, limit: int, after: int) -> Page:
        if alg in FINGERPRINTS:
            return Page(tuple(self._alike(value)[:limit]))
        content_id = decode_value(value)
        if content_id is None:
            return Page(())
        found = self.ledger().find_binding(alg, content_id, limit=limit + 1, after=after)
        more = found[limit - 1].entry if len(found) > limit else None
        return Page(tuple(Match(b.manifest_id) for b in found[:limit]), more)

    def _alike(self, value: str) -> list[Match]:
        from safegen.likeness import find_by_hash
        from safegen.media.video_hash import VideoHash

        try:
            wanted = VideoHash.from_bytes(decode_bytes(value) or b"")
        except MediaError:
            return []  # no hash of ours
        return [Match(each.manifest_id, each.similarity) for each in find_by_hash(wanted, self.ledger())]

    def manifest(self, manifest_id: str, *, alone: bool = False) -> bytes | None:
        """The manifest store kept under its active manifest's id; None if there is none.

        ``alone``: a store of that manifest only, without its ingredients' manifests.
        LedgerDamagedError if what is kept is not what the ledger recorded.
        """
        binding = self.ledger().find_manifest(manifest_id)
        if binding is None:
            taken = None if self._storage is None else self._storage.read(manifest_id)
            return superbox(STORE, "c2pa", manifests(taken)[-1].raw) if taken and alone else taken
        kept = load_manifest(self._home, binding.content_id)
        if kept is None:
            return None
        if hashlib.sha256(kept).hexdigest() != self.ledger().get(binding.entry).event.manifest_sha256:
            raise LedgerDamagedError(f"the manifest kept for entry {binding.entry} is not the recorded one")
        return superbox(STORE, "c2pa", manifests(kept)[-1].raw) if alone else kept

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the places for reading assets; BusyError if all are taken."""
        with self._lock:
            if self._reading >= self.settings.concurrent:
                raise BusyError("as many assets are being read as this service reads at once")
            self._reading += 1
        try:
            yield
        finally:
            with self._lock:
                self._reading -= 1

    async def by_content(
        self, receive: Callable[[BinaryIO], Awaitable[None]], *, suffix: str, alg: str, hint: tuple[str, str] | None
    ) -> Page:
        """Have ``receive`` write an asset to a file, and look it up by its mark, with its pictures compared.

        ``alg``: only matches by this algorithm, if not empty; by what it looks like only where that is asked for.
        ``hint`` (algorithm, value) is looked up where neither leads anywhere; not where a mark proved to be copied.
        TooSlowError after the settings' time.
        """
        with self.slot():
            pass  # who would have to be turned away need not send anything
        with _temporary(suffix) as (path, file):
            try:
                async with asyncio.timeout(self.settings.seconds):
                    await receive(file)
                    file.flush()
                    await asyncio.to_thread(identify, path)  # what is no media needs no process of its own
                    with self.slot():  # none is held while an asset arrives: that lasts as long as its sender likes
                        found = await read_asset(path, self._home, looks_alone=alg in FINGERPRINTS)
            except TimeoutError as error:
                raise TooSlowError("reading the asset's mark took too long") from error
        return await self._matches(found, alg, hint)

    async def _matches(self, found: Reading, alg: str, hint: tuple[str, str] | None) -> Page:
        if found.matches:
            return Page(tuple(Match(m.manifest_id, m.similarity) for m in found.matches if alg in ("", m.alg)))
        if hint is not None and found.outcome in (Outcome.NO_MARK, Outcome.UNPROVEN, Outcome.UNDECIDED):
            return await asyncio.to_thread(self.by_binding, *hint, 1)
        return Page(())


async def receive_body(chunks: AsyncIterator[bytes], into: BinaryIO, *, limit: int) -> None:
    """Write a request's body to a file; TooLargeError once it exceeds ``limit``, InputError if it is empty."""
    got = 0
    async for chunk in chunks:
        got += len(chunk)
        if got > limit:
            raise TooLargeError(f"the asset has more than {limit:,} bytes")
        if chunk:
            await asyncio.to_thread(into.write, chunk)
    if not got:
        raise InputError("the body is empty")


@contextmanager
def _temporary(suffix: str) -> Iterator[tuple[Path, BinaryIO]]:
    descriptor, name = tempfile.mkstemp(prefix="safegen-", suffix=suffix)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield Path(name), file
    finally:
        Path(name).unlink(missing_ok=True)
