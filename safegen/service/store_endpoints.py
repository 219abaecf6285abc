"""The endpoints that store: manifests, bindings and receipts. Offered only where tokens with scopes are set up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from safegen.service.bindings import ALG, decode_bytes, is_base64
from safegen.service.holders import FETCH, STORE_BINDINGS, STORE_MANIFESTS, Holder, holder_of
from safegen.service.http import bearer, json_body, json_response, only
from safegen.service.limits import MAX_BOUND_CHARACTERS
from safegen.service.openapi import PREFIX
from safegen.service.stored_manifests import Storage

Endpoint = Callable[[Request], Awaitable[Response]]


class StoreEndpoints:
    """``POST /manifests``, ``DELETE /manifests/{id}``, ``POST`` and ``PUT /bindings``, ``/manifests/{id}/receipts``."""

    def __init__(self, storage: Storage, holders: tuple[Holder, ...], max_bytes: int) -> None:
        self._storage = storage
        self._holders = holders
        self._max_bytes = max_bytes

    def routes(self, fetching: Callable[[Endpoint], Endpoint]) -> list[Route]:
        """The routes. ``fetching`` guards what everybody may do who may fetch manifests."""
        return [
            Route(f"{PREFIX}/manifests", self.take, methods=["POST"]),
            Route(f"{PREFIX}/bindings", self.bind, methods=["POST", "PUT"]),
            Route(f"{PREFIX}/manifests/{{manifest_id}}/receipts", fetching(self.receipts), methods=["GET", "POST"]),
            Route(f"{PREFIX}/manifests/{{manifest_id:path}}", self.drop, methods=["DELETE"]),
        ]

    async def take(self, request: Request) -> Response:
        """``POST /manifests``."""
        holder = self._allowed(request, STORE_MANIFESTS)
        wanted = only(request, "returnReceipt")
        if wanted not in ("", "true", "false"):
            raise HTTPException(400, "returnReceipt must be true or false")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/c2pa":
            raise HTTPException(415, "the body must be application/c2pa")
        manifest = bytearray()
        async for chunk in request.stream():
            manifest += chunk
            if len(manifest) > self._max_bytes:
                raise HTTPException(413, f"the manifest has more than {self._max_bytes:,} bytes")
        manifest_id = await run_in_threadpool(self._storage.take, bytes(manifest), holder.name)
        answer: dict[str, Any] = {"manifestId": manifest_id}
        if wanted == "true":
            answer["receipt"] = await run_in_threadpool(self._storage.receipt, manifest_id)
        return json_response(answer)

    async def bind(self, request: Request) -> Response:
        """``POST`` and ``PUT /bindings``."""
        holder = self._allowed(request, STORE_BINDINGS)
        body = await json_body(request, {"alg": str, "bindingValue": str, "manifestId": str}, {})
        if ALG.fullmatch(body["alg"]) is None:
            raise HTTPException(400, "alg is no name of an algorithm")
        text = body["bindingValue"]
        value = decode_bytes(text) if len(text) <= MAX_BOUND_CHARACTERS and is_base64(text) else None
        if not value:
            raise HTTPException(400, f"bindingValue is not base64 of {MAX_BOUND_CHARACTERS:,} characters at most")
        replace = request.method == "PUT"
        await run_in_threadpool(
            lambda: self._storage.bind(body["alg"], value, body["manifestId"], holder.name, replace=replace)
        )
        return Response(status_code=204)

    async def drop(self, request: Request) -> Response:
        """``DELETE /manifests/{activeManifestId}``."""
        holder = self._allowed(request, STORE_MANIFESTS)
        await run_in_threadpool(self._storage.drop, request.path_params["manifest_id"], holder.name)
        return Response(status_code=204)

    async def receipts(self, request: Request) -> Response:
        """``GET`` and ``POST /manifests/{activeManifestId}/receipts``: give one, or check one."""
        if not self._holders:
            raise HTTPException(403, "this service stores nothing for others")
        name = request.path_params["manifest_id"]
        if request.method == "GET":
            return json_response(await run_in_threadpool(self._storage.receipt, name))
        receipt = await json_body(request, {"anchor": dict}, {})
        why = await run_in_threadpool(self._storage.check, name, receipt)
        shown = {key: receipt[key] for key in ("@context", "@type", "repository", "anchor") if key in receipt}
        return json_response(shown | {"verified": not why} | ({"error": why} if why else {}))

    def fetcher(self, token: str | None) -> bool:
        """Whether a token may fetch manifests by its scopes."""
        holder = holder_of(token, self._holders)
        return holder is not None and FETCH in holder.scopes

    def _allowed(self, request: Request, scope: str) -> Holder:
        if not self._holders:
            raise HTTPException(403, "this service stores nothing for others")
        holder = holder_of(bearer(request), self._holders)
        if holder is None:
            raise HTTPException(401, "a valid bearer token is needed", {"WWW-Authenticate": "Bearer"})
        if scope not in holder.scopes:
            raise HTTPException(403, f"the token lacks the scope {scope}")
        return holder
