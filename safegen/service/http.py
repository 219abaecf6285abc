"""Reading small requests and writing small answers."""

from __future__ import annotations

import json
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from safegen.service.limits import MAX_JSON_BYTES

HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def bearer(request: Request) -> str | None:
    """The bearer token that a request presents; None if it has none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def only(request: Request, name: str, *, needed: bool = False) -> str:
    """A query parameter's only value; "" if it is not there and not needed."""
    values = request.query_params.getlist(name)
    if len(values) > 1 or (needed and not values):
        raise HTTPException(400, f"{name} must be given once")
    return values[0] if values else ""


async def json_body(request: Request, needed: dict[str, type], optional: dict[str, type]) -> dict[str, Any]:
    """A small JSON object with these fields and types."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "the body must be application/json")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_JSON_BYTES:
            raise HTTPException(413, f"the body has more than {MAX_JSON_BYTES:,} bytes")
    try:
        body: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the body is not JSON") from error
    if not isinstance(body, dict):
        raise HTTPException(400, "the body is not a JSON object")
    for name, kind in (needed | optional).items():
        if name not in body and name in optional:
            continue
        if not isinstance(body.get(name), kind) or isinstance(body[name], bool):
            raise HTTPException(400, f"{name} is missing or of the wrong type")
    return body


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer, which nobody is to keep."""
    return JSONResponse(body, status, headers=HEADERS | (headers or {}))
