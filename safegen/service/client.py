"""Asking a Soft Binding Resolution service (C2PA, v2.4), this one or another's.

    with ResolutionClient("https://example.org/v1", token="...") as service:
        for match in service.by_content(Path("stripped.mp4")):
            manifest = service.manifest(match.manifest_id)

What comes back was written by others: a manifest is only what its validation makes it
(``safegen.provenance.read.read_manifest_store``). An ``endpoint`` that a match names is never called by itself.
"""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx

from safegen.errors import InputError, ResolutionError
from safegen.types import ContentId, Json

MAX_JSON_BYTES: Final = 1 << 20
MAX_MANIFEST_BYTES: Final = 64 << 20
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class RemoteMatch:
    """A manifest that the service has for a query. ``endpoint``: another service that has it, if not this one."""

    manifest_id: str
    similarity: int | None = None
    endpoint: str | None = None


class ResolutionClient:
    """One service, by its base URL (with the version's prefix). ``token`` is sent as the bearer token.

    All methods raise ResolutionError if the service cannot be reached, refuses, or answers nonsense. ``transport`` is
    for tests.
    """

    def __init__(
        self, url: str, *, token: str = "", seconds: float = 90.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{url} is no http(s) URL", remedy="Give the service's base URL, such as https://HOST/v1.")
        if token and parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise InputError("a token would be sent in the clear", remedy="Use https.")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(
            base_url=url.rstrip("/") + "/", headers=headers, timeout=seconds, follow_redirects=False,
            trust_env=False, transport=transport,
        )  # fmt: skip

    def __enter__(self) -> ResolutionClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def supported_algorithms(self) -> tuple[str, ...]:
        """Names of the watermark and fingerprint algorithms that the service knows."""
        answer = self._json("GET", "services/supportedAlgorithms")
        listed = [*_objects(answer.get("watermarks")), *_objects(answer.get("fingerprints"))]
        return tuple(str(item["alg"]) for item in listed if isinstance(item.get("alg"), str))

    def by_binding(self, alg: str, value: bytes | ContentId, *, limit: int = 10) -> list[RemoteMatch]:
        """Manifests for a soft binding: its value as bytes, or a content id of ours. Follows the service's pages."""
        data = bytes.fromhex(value) if isinstance(value, str) else value
        query = {"alg": alg, "value": base64.b64encode(data).decode("ascii")}
        found: list[RemoteMatch] = []
        parameters: dict[str, str] = {}
        while len(found) < limit:
            parameters["maxResults"] = str(min(limit - len(found), 100))
            answer = self._json("POST", "matches/byBinding", params=parameters, json=query)
            matches = _matches(answer)
            found += matches
            cursor = answer.get("nextCursor")
            if not matches or not isinstance(cursor, int):
                break
            parameters["cursor"] = str(cursor)
        return found[:limit]

    def by_content(self, path: Path, *, alg: str = "", hint: tuple[str, bytes] | None = None) -> list[RemoteMatch]:
        """Manifests for an asset, which is sent whole. ``hint``: an algorithm and a value that may help."""
        parameters = {"alg": alg} if alg else {}
        if hint is not None:
            parameters |= {"hintAlg": hint[0], "hintValue": base64.b64encode(hint[1]).decode("ascii")}
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        try:
            with path.open("rb") as file:
                headers = {"Content-Type": kind, "Content-Length": str(path.stat().st_size)}
                body = iter(lambda: file.read(_CHUNK), b"")
                return _matches(
                    self._json("POST", "matches/byContent", params=parameters, content=body, headers=headers)
                )
        except OSError as error:
            raise InputError(f"cannot read {path}: {error}", remedy="Give a readable file.") from error

    def by_reference(self, url: str, length: int, *, media_type: str = "") -> list[RemoteMatch]:
        """Manifests for an asset that the service fetches itself, if it does."""
        body: dict[str, Json] = {"referenceUrl": url, "assetLength": length}
        if media_type:
            body["assetType"] = media_type
        return _matches(self._json("POST", "matches/byReference", json=body))

    def manifest(self, manifest_id: str) -> bytes:
        """A manifest store (JUMBF bytes) by its manifest's id."""
        return self._ask("GET", f"manifests/{quote(manifest_id, safe='')}", limit=MAX_MANIFEST_BYTES)

    def _json(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer = json.loads(self._ask(method, path, limit=MAX_JSON_BYTES, **arguments))
        except (ValueError, RecursionError) as error:
            raise ResolutionError("the service's answer is not JSON") from error
        if not isinstance(answer, dict):
            raise ResolutionError("the service's answer is not a JSON object")
        return answer

    def _ask(self, method: str, path: str, *, limit: int, **arguments: Any) -> bytes:
        data = bytearray()
        try:
            with self._client.stream(method, path, **arguments) as response:
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > limit:
                        raise ResolutionError(f"the service's answer has more than {limit:,} bytes")
        except httpx.HTTPError as error:
            raise ResolutionError(f"the service cannot be asked: {error}", remedy="Check its address.") from error
        if response.status_code != 200:
            raise ResolutionError(f"the service answers {response.status_code}: {_said(bytes(data))}")
        return bytes(data)


def _said(data: bytes) -> str:
    """The beginning of an error's text, safe for a terminal."""
    text = data[:300].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text).strip() or "nothing more"


def _objects(value: object) -> Iterator[dict[str, Any]]:
    if not isinstance(value, list):
        raise ResolutionError("the service's answer lacks its list")
    yield from (item for item in value if isinstance(item, dict))


def _matches(answer: dict[str, Any]) -> list[RemoteMatch]:
    found = []
    for item in _objects(answer.get("matches")):
        name, score, endpoint = item.get("manifestId"), item.get("similarityScore"), item.get("endpoint")
        if not isinstance(name, str) or not 0 < len(name) <= 255:
            raise ResolutionError("a match of the service's answer names no manifest")
        usable = isinstance(score, int) and not isinstance(score, bool) and 0 <= score <= 100
        found.append(RemoteMatch(name, score if usable else None, endpoint if isinstance(endpoint, str) else None))
    return found
