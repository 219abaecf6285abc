"""The Soft Binding Resolution API as an ASGI application (Starlette; extra ``server``).

    from safegen.service.app import make_app

    app = make_app(Home.default(), ServiceSettings.from_environment())   # uvicorn, hypercorn, ...

``safegen.service.openapi`` describes it and is served as /openapi.json.
"""

from __future__ import annotations

import datetime as dt
import hmac
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from safegen.errors import InputError, LedgerBusyError, ResolutionError, SafegenError, UnreadableMediaError
from safegen.service.admission import Admission
from safegen.service.bindings import ALG, ALGORITHMS, FINGERPRINTS, WATERMARKS, is_base64
from safegen.service.fetching import Fetcher, ForbiddenReferenceError
from safegen.service.http import HEADERS, bearer, json_body, json_response, only
from safegen.service.limits import (
    DEFAULT_RESULTS,
    MAX_JSON_BYTES,
    MAX_NUMBER,
    MAX_RESULTS,
    MAX_VALUE_CHARACTERS,
    ServiceSettings,
)
from safegen.service.openapi import PREFIX, SPEC_VERSION, WELL_KNOWN, document
from safegen.service.service import BusyError, Page, Service, TooLargeError, TooSlowError, receive_body
from safegen.service.store_endpoints import StoreEndpoints
from safegen.service.stored_manifests import ConflictError, NotStoredError, NotYoursError, Storage
from safegen.settings import Home

log = logging.getLogger(__name__)

Authorise = Callable[[str | None], bool]
"""Whether a bearer token (None: the request has none) may ask."""

MEDIA_TYPE: Final = re.compile(r"(?:video|image|audio|application|model|text)/[\w.+*-]+", re.ASCII)
_SUFFIXES: Final = {"video": ".mp4", "image": ".png"}


def make_app(
    home: Home,
    settings: ServiceSettings | None = None,
    *,
    authorise: Authorise | None = None,
    fetcher: Fetcher | None = None,
) -> Starlette:
    """Return the application for ``home``.

    ``authorise`` takes the place of the comparison with the settings' token; ``fetcher`` that of the settings' hosts.
    """
    settings = settings or ServiceSettings()
    storage = Storage(home)
    store = StoreEndpoints(storage, settings.holders, settings.max_manifest_bytes)
    api = _Api(
        Service(home, settings, storage if settings.holders else None),
        authorise or _holder_of(settings.token),
        fetcher or Fetcher(settings.reference_hosts),
        document(secured=bool(settings.token or authorise), storing=bool(settings.holders)),
        store,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        api.service.close()

    routes = [
        Route("/openapi.json", api.openapi, methods=["GET"]),
        Route(WELL_KNOWN, api.well_known, methods=["GET"]),
        Route(f"{PREFIX}/services/supportedAlgorithms", api.algorithms, methods=["GET"]),
        Route(f"{PREFIX}/services/capabilities", api.capabilities, methods=["GET"]),
        Route(f"{PREFIX}/services/status", api.status, methods=["GET"]),
        Route(f"{PREFIX}/matches/byBinding", api.guarded(api.by_binding), methods=["GET", "POST"]),
        Route(f"{PREFIX}/matches/byContent", api.guarded(api.by_content), methods=["POST"]),
        Route(f"{PREFIX}/matches/byReference", api.guarded(api.by_reference), methods=["POST"]),
        *store.routes(api.guarded),
        Route(f"{PREFIX}/manifests/{{manifest_id:path}}", api.guarded(api.manifest), methods=["GET"]),
    ]
    handlers: Any = {HTTPException: _refused, SafegenError: _failed, ClientDisconnect: _gone, Exception: _broken}
    return Starlette(
        routes=routes, exception_handlers=handlers, lifespan=lifespan, middleware=[Middleware(Admission, settings)]
    )


class _Api:
    """The endpoints: reading requests, writing responses."""

    def __init__(
        self,
        service: Service,
        authorise: Authorise,
        fetcher: Fetcher,
        described: dict[str, Any],
        store: StoreEndpoints,
    ) -> None:
        self.service = service
        self._authorise = authorise
        self._fetcher = fetcher
        self._document = described
        self._store = store

    def guarded(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Answer 401 to whom ``authorise`` does not let pass, before anything of the request's body is read."""

        async def checked(request: Request) -> Response:
            token = bearer(request)
            if not (self._authorise(token) or self._store.fetcher(token)):
                raise HTTPException(401, "a valid bearer token is needed", {"WWW-Authenticate": "Bearer"})
            return await endpoint(request)

        return checked

    async def openapi(self, _: Request) -> Response:
        """Serve the description of this API."""
        return json_response(self._document)

    async def algorithms(self, _: Request) -> Response:
        """``GET /services/supportedAlgorithms``."""
        watermarks, fingerprints = ([{"alg": alg} for alg in algs] for algs in (WATERMARKS, FINGERPRINTS))
        return json_response({"watermarks": watermarks, "fingerprints": fingerprints})

    async def capabilities(self, _: Request) -> Response:
        """``GET /services/capabilities``: the optional parts that are served."""
        served = ["queryByContent", *(["queryByReference"] if self._fetcher.hosts else [])]
        if self.service.settings.holders:
            served += ["storeManifests", "storeBindings", "receipts"]
        return json_response({"c2paSpecificationVersion": SPEC_VERSION, "supportedCapabilities": served})

    async def status(self, _: Request) -> Response:
        """``GET /services/status``: whether the ledger can be read."""
        try:
            await run_in_threadpool(lambda: self.service.ledger().count())
            word = "ok"
        except SafegenError as error:
            log.error("status: %s", error.diagnostics())
            word = "down"
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return json_response({"status": word, "timestamp": now})

    async def well_known(self, _: Request) -> Response:
        """``GET /.well-known/c2pa-soft-binding-resolution``: where the API is. Paths: a proxy knows the host's name."""
        return json_response(
            {
                "apiEndpoint": PREFIX,
                "c2paSpecificationVersion": SPEC_VERSION,
                "capabilitiesEndpoint": f"{PREFIX}/services/capabilities",
                "statusEndpoint": f"{PREFIX}/services/status",
            }
        )

    async def by_binding(self, request: Request) -> Response:
        """``GET`` and ``POST /matches/byBinding``."""
        if request.method == "POST":
            query = await json_body(request, {"alg": str, "value": str}, {})
            longest = MAX_JSON_BYTES
        else:
            query, longest = {name: only(request, name, needed=True) for name in ("alg", "value")}, MAX_VALUE_CHARACTERS
            if len(query["value"]) > longest:
                raise HTTPException(414, "value is too long for a URL; POST takes longer ones")
        alg, value = _binding(query["alg"], query["value"], longest, any_alg=bool(self.service.settings.holders))
        limit, after = _limit(request), _cursor(request)
        return _page(await run_in_threadpool(self.service.by_binding, alg, value, limit, after))

    async def by_content(self, request: Request) -> Response:
        """``POST /matches/byContent``."""
        alg, hint = _options(request)
        kind = _media_type(request.headers.get("content-type", ""))
        limit = self.service.settings.max_asset_bytes
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise TooLargeError(f"the asset has more than {limit:,} bytes")

        async def receive(file: BinaryIO) -> None:
            await receive_body(request.stream(), file, limit=limit)

        return _page(await self.service.by_content(receive, suffix=_SUFFIXES.get(kind, ""), alg=alg, hint=hint))

    async def by_reference(self, request: Request) -> Response:
        """``POST /matches/byReference``."""
        if not self._fetcher.hosts:
            raise HTTPException(403, "this service fetches nothing; send the asset to /matches/byContent")
        body = await json_body(request, {"referenceUrl": str, "assetLength": int}, {"assetType": str, "region": object})
        alg, hint = _options(request)
        length, kind = body["assetLength"], _media_type(body.get("assetType", "video/*"))
        if length < 1:
            raise HTTPException(400, "assetLength must be 1 or more")
        if length > self.service.settings.max_asset_bytes:
            raise TooLargeError(f"the asset has more than {self.service.settings.max_asset_bytes:,} bytes")

        async def receive(file: BinaryIO) -> None:
            try:
                await self._fetcher.fetch(body["referenceUrl"], file, length=length)
            except ResolutionError as error:
                raise HTTPException(502, str(error)) from error

        return _page(await self.service.by_content(receive, suffix=_SUFFIXES.get(kind, ""), alg=alg, hint=hint))

    async def manifest(self, request: Request) -> Response:
        """``GET /manifests/{activeManifestId}``."""
        alone = only(request, "returnActiveManifest")
        if alone not in ("", "true", "false"):
            raise HTTPException(400, "returnActiveManifest must be true or false")
        name = request.path_params["manifest_id"]
        found = await run_in_threadpool(self.service.manifest, name, alone=alone == "true")
        if found is None:
            raise HTTPException(404, "no such manifest is kept here")
        return Response(found, media_type="application/c2pa", headers=HEADERS)


def _holder_of(token: str) -> Authorise:
    wanted = token.encode()
    return lambda given: not wanted or (given is not None and hmac.compare_digest(given.encode(), wanted))


# -- reading requests --------------------------------------------------------------------------------------------------


def _limit(request: Request) -> int:
    return min(MAX_RESULTS, _number(request, "maxResults", DEFAULT_RESULTS, 1))


def _cursor(request: Request) -> int:
    return _number(request, "cursor", -1, 0)


def _number(request: Request, name: str, default: int, smallest: int) -> int:
    if name not in request.query_params:
        return default
    text = only(request, name)
    value = int(text) if re.fullmatch(r"[0-9]{1,16}", text) else -1
    if not smallest <= value <= MAX_NUMBER:
        raise HTTPException(400, f"{name} must be a number from {smallest} to {MAX_NUMBER}")
    return value


def _binding(alg: str, value: str, longest: int = MAX_VALUE_CHARACTERS, *, any_alg: bool = False) -> tuple[str, str]:
    if alg not in ALGORITHMS and not (any_alg and ALG.fullmatch(alg)):
        raise HTTPException(400, "alg is none of /services/supportedAlgorithms")
    if len(value) > longest or not is_base64(value):
        raise HTTPException(400, "value is not base64, or is too long (POST takes longer ones)")
    return alg, value


def _options(request: Request) -> tuple[str, tuple[str, str] | None]:
    """The parameters of queries by an asset: the algorithm, and the hint."""
    _limit(request)  # one asset has one match at most: only a malformed limit matters
    alg = only(request, "alg")
    if "alg" in request.query_params and alg not in ALGORITHMS:
        raise HTTPException(400, "alg is none of /services/supportedAlgorithms")
    hint = {name: only(request, name) for name in ("hintAlg", "hintValue") if name in request.query_params}
    _binding(hint.get("hintAlg", ALGORITHMS[0]), hint.get("hintValue", "AAAA"))  # either may come alone, and is no use
    return alg, (hint["hintAlg"], hint["hintValue"]) if len(hint) == 2 else None


def _media_type(text: str) -> str:
    """The first half of a media type; 415 if it is none that the API knows."""
    plain = text.partition(";")[0].strip().lower()
    if MEDIA_TYPE.fullmatch(plain) is None:
        raise HTTPException(415, "the media type must be video/*, image/* or application/octet-stream")
    return plain.partition("/")[0]


# -- writing responses -------------------------------------------------------------------------------------------------

_STATUS: Final[tuple[tuple[type[SafegenError], int], ...]] = (
    (TooLargeError, 413),
    (ForbiddenReferenceError, 403),
    (UnreadableMediaError, 415),
    (NotStoredError, 404),
    (NotYoursError, 403),
    (ConflictError, 409),
    (InputError, 400),
    (BusyError, 503),
    (TooSlowError, 503),
    (LedgerBusyError, 503),
)


def _page(page: Page) -> Response:
    more = {} if page.after is None else {"nextCursor": page.after}
    return json_response({"matches": [match.to_json() for match in page.matches], **more})


async def _refused(_: Request, error: HTTPException) -> Response:
    return json_response({"error": error.detail}, error.status_code, dict(error.headers or {}))


async def _failed(request: Request, error: SafegenError) -> Response:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    if status == 500:  # what exactly is wrong with keys, ledger or disk is not the caller's business
        log.error("%s %s: %s", request.method, request.url.path, error.diagnostics())
        return json_response({"error": "the service could not answer"}, 500)
    words = "the asset cannot be read as video or image" if status == 415 else str(error)
    return json_response({"error": words}, status, {"Retry-After": "5"} if status == 503 else None)


async def _gone(_: Request, __: ClientDisconnect) -> Response:
    return json_response({"error": "the request ended early"}, 400)


async def _broken(request: Request, error: Exception) -> Response:
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return json_response({"error": "the service could not answer"}, 500)
