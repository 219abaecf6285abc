"""Answers for auditors: which question a text stands for, and what came out of it as lines, CSV or Parquet."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import heapq
import io
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from safegen.consent.check import is_named
from safegen.consent.record import is_consent_id, parse_time, read_consent
from safegen.errors import ConfigError, InputError, MediaError
from safegen.privacy.fields import entries_about
from safegen.types import Json

if TYPE_CHECKING:
    from safegen.ledger.audit_queries import AuditLedger, Query
    from safegen.settings import Home

# Imported where they are used: pyarrow, and what loads sqlalchemy.

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CONTENT_ID: Final = re.compile(r"[0-9a-f]{16}")
_VKEY: Final = re.compile(r"[^+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+")
_BATCH: Final = 1000

NUMBERS: Final = frozenset({"entry", "entries"})
"""Columns that hold whole numbers; all others hold text."""


def digest_of(what: str) -> str:
    """Return a SHA-256 that is given as such (hex), or as the file that has it; InputError for neither."""
    if _SHA256.fullmatch(what.lower()):
        return what.lower()
    try:
        with Path(what).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{what!r} is neither a SHA-256 nor a file that can be read.", remedy="Give 64 hex digits, or a file."
        ) from error


def stamp(text: str, name: str) -> str:
    """Return a time or date as entries write it; "" for "". InputError if it is neither."""
    return "" if not text else parse_time(text, name).isoformat(timespec="microseconds").replace("+00:00", "Z")


def days(begin: str, end: str, now: dt.datetime) -> tuple[str, str]:
    """Return the first and the last day (YYYY-MM-DD) that a range of times touches, the end not included.

    Without an end it ends now; without a beginning it begins 31 days before its end.
    """
    last = dt.datetime.fromisoformat(end) - dt.timedelta(microseconds=1) if end else now
    return begin[:10] or (last - dt.timedelta(days=30)).strftime("%Y-%m-%d"), last.strftime("%Y-%m-%d")


def by_asset(what: str) -> Query:
    """Entries about a file: its SHA-256, or the file."""
    return _query()(equal={"asset_sha256": digest_of(what)})


def by_mark(content_id: str) -> Query:
    """Entries about the clip that a mark names."""
    if not _CONTENT_ID.fullmatch(content_id.lower()):
        raise InputError(
            f"{content_id!r} is no content id.", remedy="Give 16 hex digits; `safegen watermark read FILE` finds them."
        )
    return _query()(equal={"content_id": content_id.lower()})


def by_consent(who: str, records: Path | None) -> list[Query]:
    """Entries that a person's consents stand in: a record's id, its file, or (with ``records``) the person's name.

    ``records`` is a folder of consent records: the ledger holds no names. A person may have several records.
    """
    if is_consent_id(who):
        ids = [who]
    elif records is None:
        ids = [read_consent(who).consent.id]
    else:
        ids = _records_of(who, records)
    return [_query()("audit_consents", {"consent": one}) for one in ids]


def _records_of(name: str, folder: Path) -> list[str]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".consent")
    except OSError as error:
        raise InputError(f"{folder} is no folder that can be read.", remedy="Name a folder of records.") from error
    found = {consent.id for consent in (read_consent(path).consent for path in paths) if is_named(consent, name)}
    if not found:
        raise InputError(
            f"None of the {len(paths)} consent records in {folder} is of {name!r}.",
            remedy="`safegen consent show FILE` says of whom a record is.",
        )
    return sorted(found)


def by_policy(policy: str, decision: str) -> Query:
    """Entries judged under a policy: its id, or the SHA-256 of one of its versions; and decided so, if one is given."""
    from safegen.ledger.audit_queries import by_fact

    _said(policy, "policy", "its id, or the SHA-256 of one of its versions")
    if _SHA256.fullmatch(policy):
        return _query()(equal={"policy_sha256": policy} | ({"decision": decision} if decision else {}))
    return by_fact(f"policy.{decision}" if decision else "policy", policy)


def by_model(model: str) -> Query:
    """Entries about a model, by its id."""
    return _query()(equal={"model": _said(model, "model", "its id, as entries have it")})


def by_subject(subject: str, home: Home | None) -> list[Query]:
    """Entries about a person: those whose personal fields are held under the name, and those that say it was erased.

    What an erasure took leads to no entry any more. Without a home (that has a ledger) there are none. Raises
    InputError for an empty name, and as ``privacy.fields.entries_about``.
    """
    _said(subject, "person", "the name as `generate --subject` or `--by` had it")
    found = () if home is None else entries_about(home, subject)
    return [_query()(among=found[first : first + _BATCH]) for first in range(0, len(found), _BATCH)]


def by_key(key: str, ledger: AuditLedger) -> Query | None:
    """Entries signed with a key: a certificate (SHA-256 or PEM file), a signer's URI, or the ledger's own vkey.

    Every entry is under the ledger's key, and none under another ledger's: None.
    """
    from safegen.ledger.audit_queries import by_fact

    _said(key, "key", "a certificate (PEM file or SHA-256), a signer's URI, or a ledger's vkey")
    if _SHA256.fullmatch(key.lower()):
        return by_fact("certificate", key.lower())
    if os.path.isfile(key):  # noqa: PTH113 - a URI is no path, and this one never raises
        return _by_key_file(Path(key), ledger)
    if _VKEY.fullmatch(key):
        return _query()() if str(ledger.vkey) == key else None
    return by_fact("signer", key)


def _by_key_file(path: Path, ledger: AuditLedger) -> Query | None:
    """Entries signed with the certificate in a PEM file, or under the vkey that a file holds."""
    try:
        content = path.read_bytes()
        if _VKEY.fullmatch(vkey := content[:1000].decode("utf-8", "replace").strip()):
            return by_key(vkey, ledger)
        leaf = x509.load_pem_x509_certificates(content)[0]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} holds neither a certificate in PEM nor a ledger's vkey.",
            remedy="Give a certificate, or its SHA-256; `safegen keys show` prints the vkey.",
        ) from error
    return by_key(leaf.fingerprint(hashes.SHA256()).hex(), ledger)


def _said(text: str, name: str, form: str) -> str:
    """Return what was asked for; InputError where nothing was."""
    if not text.strip():
        raise InputError(f"No {name} was named.", remedy=f"Give {form}.")
    return text


def entries_named(what: str, ledger: AuditLedger) -> list[int]:
    """Return the entries that a number, a content id, a SHA-256 or a file stands for; InputError if there are none.

    A file that no entry is about may have been an input: those that it went into.
    """
    if what.isdecimal() and len(what) < 16:
        found = [int(what)] if int(what) < ledger.count() else []
    else:
        from safegen.ledger.audit_queries import by_fact

        named = _CONTENT_ID.fullmatch(what.lower())
        queries = [by_mark(what)] if named else [by_asset(what), by_fact("input", digest_of(what))]
        answers = ([int(str(row["entry"])) for row in ledger.rows(query)] for query in queries)
        found = next((answer for answer in answers if answer), [])
    if not found:
        raise InputError(f"The ledger has no entry {what}.", remedy="See `safegen ledger list`.")
    return found


def answer(ledger: AuditLedger, queries: Sequence[Query], limit: int | None) -> Iterator[dict[str, Json]]:
    """Yield the rows that answer any of the queries, in their order, ``limit`` at most. All text is Unicode."""
    found = [ledger.rows(query, limit) for query in queries]
    order = "time" if all(query.by_time for query in queries) else "entry"
    for row in islice(heapq.merge(*found, key=lambda row: row[order]), limit):  # type: ignore[arg-type,return-value]
        yield {name: _without_surrogates(value) for name, value in row.items()}


def pages(query: Query, begin: str, end: str, after: int) -> Query:
    """Return the query for a range of times and the page that follows an entry."""
    return replace(query, begin=begin, end=end, after=after)


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Json]]) -> Iterator[str]:
    """Yield lines of CSV (RFC 4180), the first with the columns' names; what is null is empty."""
    for row in ([dict(zip(columns, columns, strict=True))], rows):
        for one in row:
            line = io.StringIO()
            csv.writer(line, lineterminator="\r\n").writerow([_cell(one.get(name)) for name in columns])
            yield line.getvalue()


def write_parquet(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Json]]) -> int:
    """Write rows as Parquet, a file that appears when it is whole; return how many. Needs the extra ``parquet``."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--parquet needs {error.name}, which is not installed.",
            remedy='Install the extra: pip install "safegen[parquet]"',
        ) from error
    schema = arrow.schema([(name, arrow.int64() if name in NUMBERS else arrow.string()) for name in columns])
    scratch, count = path.with_name(f".{path.name}.{secrets.token_hex(4)}"), 0
    try:
        with parquet.ParquetWriter(scratch, schema) as writer:
            left = iter(rows)
            while some := list(islice(left, _BATCH)):
                held = [{n: v if n in NUMBERS or v is None else str(v) for n, v in row.items()} for row in some]
                writer.write_table(arrow.Table.from_pylist(held, schema))
                count += len(some)
        os.replace(scratch, path)  # noqa: PTH105
    except OSError as error:
        raise MediaError(f"Cannot write {path}: {error.strerror or error}", remedy="Check the folder.") from error
    finally:
        scratch.unlink(missing_ok=True)
    return count


def line_of(row: Mapping[str, Json]) -> str:
    """Return a row as one line for people."""
    told = [f"{row['entry']:>6}", f"{str(row['time'])[:19]}Z", f"{row['kind']:<10}", f"{row['content_id'] or '-':<16}"]
    told += [str(row[name]) for name in ("decision", "policy", "model") if row[name]]
    told += [str(row["asset_sha256"])[:12]] if row["asset_sha256"] else []
    told += [f"consent {row['consent_state']}"] if "consent" in row else []
    told += [f"DAMAGED: {row['damage']}"] if row.get("damage") else []
    return "  ".join(told)


def _query() -> type[Query]:
    from safegen.ledger.audit_queries import Query

    return Query


def _without_surrogates(value: Json) -> Json:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and not value.isascii() else value


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value)
