"""How long personal fields, kept manifests and kept pictures live: ``retention.yaml`` in the home, and erasing what is
due.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from safegen.errors import ConfigError, LedgerError
from safegen.privacy.fields import FIELDS, complete, opened, resume
from safegen.provenance.kept_manifests import MANIFEST, PICTURES
from safegen.types import Json

if TYPE_CHECKING:
    from safegen.ledger.store import Ledger
    from safegen.settings import Home

# Imported where they are used: what loads sqlalchemy.

SCHEMA: Final = "safegen.retention/1"
FILE: Final = "retention.yaml"
MANIFESTS: Final = "manifests"
_AGE: Final = re.compile(r"([1-9][0-9]{0,4})([hdwy])", re.ASCII)
_LONGEST: Final = dt.timedelta(days=36_500)
_UNITS: Final[Mapping[str, dt.timedelta]] = {
    "h": dt.timedelta(hours=1),
    "d": dt.timedelta(days=1),
    "w": dt.timedelta(weeks=1),
    "y": dt.timedelta(days=365),
}
_MAX_BYTES: Final = 65_536
_MOST_MANIFESTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Retention:
    """How long each kind of personal data lives (keys of ``safegen.privacy.fields.FIELDS``), and kept manifests with
    their clips' kept pictures.

    What is not named is kept until its subject is erased; so are manifests where it is None.
    """

    kinds: Mapping[str, dt.timedelta] = field(default_factory=dict)
    manifests: dt.timedelta | None = None

    def cutoffs(self, now: dt.datetime) -> dict[str, str]:
        """Return, for each field, the time before which it is due, as tables write times."""
        return {name: _stamp(now - age) for kind, age in self.kinds.items() for name in FIELDS[kind]}


@dataclass(frozen=True, slots=True)
class Retained:
    """What was due, by field, and the entry that records its erasure: None where nothing was, or on a trial."""

    fields: Mapping[str, int]
    manifests: int
    entry: int | None = None
    resumed: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """Return the result as plain JSON values."""
        return {
            "fields": dict(self.fields), "manifests": self.manifests, "entry": self.entry, "resumed": list(self.resumed)
        }  # fmt: skip


def read_retention(path: Path) -> Retention:
    """Read a retention file; ConfigError if it is missing or says something else::

    schema: safegen.retention/1
    retention: {texts: 30d, requester: 1y, manifests: 2y}
    """
    try:
        raw = path.read_bytes()
        if len(raw) > _MAX_BYTES:
            raise ValueError("it is too long")
        document: Any = yaml.safe_load(raw)
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise ValueError(f"it is not of schema {SCHEMA}")
        said = document.get("retention")
        if set(document) != {"schema", "retention"} or not isinstance(said, dict):
            raise ValueError("it holds schema and retention, and no more")
        ages = {str(kind): _age(str(kind), age) for kind, age in said.items()}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", remedy=_HOW) from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"the retention file {path} cannot be used: {error}", remedy=_HOW) from error
    manifests = ages.pop(MANIFESTS, None)
    return Retention(ages, manifests)


_HOW: Final = (
    f"Write `schema: {SCHEMA}` and `retention:` with ages such as 30d or 1y for {', '.join((*FIELDS, MANIFESTS))}."
)


def retain(home: Home, retention: Retention, *, now: dt.datetime | None = None, dry_run: bool = False) -> Retained:
    """Erase what is due, and record how much of what; with ``dry_run`` only say it.

    Raises KeyStoreError, LedgerBusyError and LedgerDamagedError as ``safegen.privacy.fields.erase`` does.
    """
    from safegen.ledger.erasure import begin_expiry, due_fields

    now = now or dt.datetime.now(dt.UTC)
    cutoffs = retention.cutoffs(now)
    with opened(home, write=not dry_run) as (ledger, personal, _):
        resumed = () if dry_run else resume(home, ledger)
        due, manifests = due_fields(personal, cutoffs), _old_manifests(home, ledger, retention, now)
        if dry_run:
            return Retained(due, len(manifests))
        begun = begin_expiry(personal, cutoffs, manifests=manifests)
        if begun is None:
            return Retained({}, 0, None, resumed)
        entry = complete(home, ledger, begun)
    fields: Any = begun.body["fields"]
    return Retained(dict(fields), len(manifests), entry, resumed)


def _old_manifests(home: Home, ledger: Ledger, retention: Retention, now: dt.datetime) -> list[str]:
    """Content ids whose manifest or pictures are kept for longer than they may be, oldest first; as many as one entry
    answers for.
    """
    if retention.manifests is None or not home.manifests.is_dir():
        return []
    cutoff = now - retention.manifests
    found: dict[str, dt.datetime] = {}
    for path in sorted(home.manifests.iterdir()):  # either may be there alone: a run was killed between the two
        if path.suffix in (MANIFEST, PICTURES) and re.fullmatch(r"[0-9a-f]{16}", path.stem):
            made = found.get(path.stem) or _made(path, ledger)
            found[path.stem] = made
    due = sorted((made, name) for name, made in found.items() if made < cutoff)
    return [name for _, name in due[:_MOST_MANIFESTS]]


def _made(path: Path, ledger: Ledger) -> dt.datetime:
    """When a kept manifest came: as its entry says, else as its file does."""
    try:
        times = [entry.time for entry in ledger.find_content(path.stem)]
    except LedgerError:
        times = []
    if times:
        return dt.datetime.fromisoformat(times[0])
    return dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)


def _age(kind: str, age: object) -> dt.timedelta:
    if kind not in (*FIELDS, MANIFESTS):
        raise ValueError(f"{kind!r} is nothing that is kept")
    found = _AGE.fullmatch(age) if isinstance(age, str) else None
    if found is None:
        raise ValueError(f"{age!r} is no age for {kind}")
    length = int(found[1]) * _UNITS[found[2]]
    if length > _LONGEST:
        raise ValueError(f"{age} is longer than 100 years")
    return length


def _stamp(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
