"""Time-stamps from RFC 3161 authorities: several of them, asked in turn.

The C2PA library knows one authority, asks it itself, waits as long as it likes and fails the signing where it does not
answer. It is therefore pointed at a relay on the loopback interface, which lives only while one file is signed and
passes the library's own query on to the authorities, in order, until one returns a time-stamp of it. Whether the
time-stamp's signature holds is then seen when the signed file is read back.
"""

from __future__ import annotations

import http.client
import http.server
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rfc3161_client import TimestampRequestBuilder, decode_timestamp_response
from rfc3161_client._rust import parse_timestamp_request

from safegen.errors import ConfigError, ProvenanceError
from safegen.provenance.authority import post
from safegen.types import Json

if TYPE_CHECKING:
    from rfc3161_client import TimeStampRequest

SECONDS: Final = 10.0
"""How long one authority may take."""

MAX_BYTES: Final = 1 << 20
RELAY_HOST: Final = "127.0.0.1"
WITHOUT: Final = "none"
"""As the last of the list: sign without a time-stamp where no authority answers."""

_QUERY: Final = "application/timestamp-query"
_REPLY: Final = "application/timestamp-reply"


@dataclass(frozen=True, slots=True)
class TimeStamp:
    """An authority's answer: the whole DER response, the DER token (CMS) in it, who gave it and when (ISO 8601)."""

    response: bytes = field(repr=False)
    token: bytes = field(repr=False)
    authority: str
    time: str


@dataclass(slots=True)
class Stamping:
    """Having one signature stamped: which authorities may be asked, which answered, and why others did not."""

    authorities: tuple[str, ...] = ()
    stamp: TimeStamp | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def wanted(self) -> bool:
        """Whether there is an authority to ask."""
        return any(url != WITHOUT for url in self.authorities)

    @property
    def unavailable(self) -> bool:
        """Whether authorities were asked and none gave a time-stamp."""
        return self.stamp is None and bool(self.failures)

    @property
    def may_go_without(self) -> bool:
        """Whether the list ends in ``none``."""
        return self.authorities[-1:] == (WITHOUT,)

    def token(self, message: bytes) -> bytes:
        """Return the DER token of ``message``, hashed with SHA-256 here; ProvenanceError if no authority gives one."""
        self.ask(TimestampRequestBuilder().data(message).build().as_bytes())
        if self.stamp is None:
            raise self.error()
        return self.stamp.token

    def ask(self, query: bytes) -> None:
        """Pass a DER query on to each authority in turn and keep the first good answer as ``stamp``."""
        try:
            request = parse_timestamp_request(query)
        except ValueError as error:
            self.failures.append(f"the query cannot be read: {error}")
            return
        for authority in self.authorities:
            if authority == WITHOUT:
                continue
            try:
                content = post(authority, query, (_QUERY, _REPLY), seconds=SECONDS, most=MAX_BYTES)
                self.stamp = _checked(content, request, authority)
                return
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.failures.append(f"{authority}: {error or type(error).__name__}")

    def error(self) -> ProvenanceError:
        """Return the error that says why there is no time-stamp."""
        return ProvenanceError(
            "no time-stamp authority answered: " + "; ".join(self.failures or ["none was asked"]),
            remedy="Try again, name another one in SAFEGEN_TSA, or end that list with `none` to sign without.",
        )

    def to_json(self) -> dict[str, Json]:
        """Return the outcome for the ledger: ``status`` is "none configured", "stamped" or "unavailable"."""
        if not self.wanted:
            return {"status": "none configured"}
        if self.stamp is None:
            return {"status": "unavailable", "failures": list(self.failures)}
        said: dict[str, Json] = {"status": "stamped", "authority": self.stamp.authority, "time": self.stamp.time}
        return said | ({"failures": list(self.failures)} if self.failures else {})


def parse_authorities(text: str) -> tuple[str, ...]:
    """Return the URLs in ``text``, separated by commas or blanks; ConfigError for what is none.

    The last may be ``none``: sign without a time-stamp rather than not at all.
    """
    found = tuple(text.replace(",", " ").split())
    for number, url in enumerate(found):
        if url == WITHOUT and number == len(found) - 1:
            continue
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"{url!r} is no time-stamp authority", remedy="Give http:// or https:// URLs, and `none` only last."
            )
    return () if found == (WITHOUT,) else found


@contextmanager
def relay(stamping: Stamping) -> Iterator[str | None]:
    """Open the relay and yield its URL; None where there is no authority to ask."""
    if not stamping.wanted:
        yield None
        return
    _bypass_proxies()
    path = "/" + secrets.token_urlsafe(16)  # other users of this machine shall not use it

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            if self.path != path or not length.isdecimal() or int(length) > MAX_BYTES:
                self.send_error(404)
                return
            stamping.ask(self.rfile.read(int(length)))
            if stamping.stamp is None:
                self.send_error(502)
                return
            self.send_response(200)
            self.send_header("content-type", _REPLY)
            self.send_header("content-length", str(len(stamping.stamp.response)))
            self.end_headers()
            self.wfile.write(stamping.stamp.response)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer((RELAY_HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://{RELAY_HOST}:{server.server_address[1]}{path}"
        finally:
            server.shutdown()
            thread.join()


def _bypass_proxies() -> None:
    """Keep the library, which obeys proxy settings even for loopback, from asking a proxy for the relay."""
    for name in ("no_proxy", "NO_PROXY"):
        present = [host for host in os.environ.get(name, "").split(",") if host]
        if RELAY_HOST not in present and "*" not in present:
            os.environ[name] = ",".join([*present, RELAY_HOST])


def _checked(content: bytes, request: TimeStampRequest, authority: str) -> TimeStamp:
    """Return the answer if it grants a time-stamp of what was asked; ValueError else."""
    response = decode_timestamp_response(content)
    if response.status not in (0, 1):
        raise ValueError(f"refused with status {response.status} {' '.join(response.status_string)}".rstrip())
    info = response.tst_info
    if info.message_imprint.message != request.message_imprint.message or (
        request.nonce is not None and info.nonce != request.nonce
    ):
        raise ValueError("the answer is a time-stamp of something else")
    return TimeStamp(content, response.time_stamp_token(), authority, info.gen_time.isoformat())
