"""The OpenAPI 3.1 description of the service: C2PA Soft Binding Resolution API 2.4, as far as it is served here.

Beyond the specification: ``cursor`` and ``nextCursor`` page through byBinding's matches, and 503 says "later".
"""

from __future__ import annotations

from typing import Any, Final

from safegen.service.bindings import ALG, ALGORITHMS, BASE64
from safegen.service.limits import (
    DEFAULT_RESULTS,
    MAX_BOUND_CHARACTERS,
    MAX_NUMBER,
    MAX_RESULTS,
    MAX_VALUE_CHARACTERS,
)
from safegen.version import __version__

PREFIX: Final = "/v1"
WELL_KNOWN: Final = "/.well-known/c2pa-soft-binding-resolution"
SPEC_VERSION: Final = "2.4.0"

_ERRORS: Final = {
    400: "Malformed query",
    401: "No valid bearer token",
    403: "The settings do not allow this",
    404: "No such manifest is kept here",
    408: "The body did not arrive in time",
    409: "Another manifest, or another holder, is in the way",
    413: "The body is too large",
    414: "The value is too long for a URL",
    415: "The body is of a type that cannot be read",
    429: "Too many requests of this address at once",
    500: "The service failed",
    502: "The reference could not be fetched",
    503: "Busy, or it took too long: try again later",
}


def document(*, secured: bool = True, storing: bool = False) -> dict[str, Any]:
    """Return the description as plain JSON values; without ``secured`` it asks for no token but for ``storing``."""
    described = _document()
    if storing:
        _add_storing(described["paths"])
    if not secured:
        described["security"] = [{}, {"bearer": []}] if storing else []
    if not secured and not storing:
        del described["security"], described["components"]["securitySchemes"]
    return described


def _add_storing(paths: dict[str, Any]) -> None:
    """Add what holders of tokens with scopes may do. Any algorithm's bindings can then be asked for."""
    name = paths["/manifests/{activeManifestId}"]["get"]["parameters"][1]
    queries = paths["/matches/byBinding"]
    queries["get"]["parameters"][0] = _query("alg", {"type": "string", "pattern": f"^{ALG.pattern}$"}, required=True)
    queries["post"]["requestBody"] = _json_body("AnyBindingQuery")
    holder: dict[str, Any] = {"security": [{"bearer": []}]}
    manifest = {"required": True, "content": {"application/c2pa": {"schema": {"type": "string", "format": "binary"}}}}
    paths["/manifests"] = {
        "post": _operation(
            "storeManifest",
            "Store a manifest (scope store:manifests)",
            "Stored",
            400,
            401,
            403,
            409,
            413,
            415,
            500,
            503,
            parameters=[_query("returnReceipt", {"type": "boolean", "default": False})],
            body=manifest,
        )
        | holder
    }
    bind = (400, 401, 403, 404, 409, 413, 415, 500, 503)
    paths["/bindings"] = {
        verb: _operation(name_, about, "Done", *bind, body=_json_body("Binding"), success=204) | holder
        for verb, name_, about in (
            ("post", "storeBinding", "Let a soft binding lead to a stored manifest (scope store:bindings)"),
            ("put", "updateBinding", "Let it lead there and to no other of the holder's (scope store:bindings)"),
        )
    }
    paths["/manifests/{activeManifestId}"]["delete"] = (
        _operation(
            "deleteManifest",
            "Give a stored manifest up (scope store:manifests)",
            "Done",
            401,
            403,
            404,
            500,
            503,
            parameters=[name],
            success=204,
        )
        | holder
    )
    paths["/manifests/{activeManifestId}/receipts"] = {
        "get": _operation("getReceipt", "Proof that it was taken in", "Receipt", 401, 404, 500, parameters=[name]),
        "post": _operation(
            "verifyReceipt", "Check such a proof", "Receipt", 400, 401, 404, 413, 415, 500, parameters=[name],
            body=_json_body("Receipt"),
        ),
    }  # fmt: skip


def _document() -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "C2PA Soft Binding Resolution API",
            "version": SPEC_VERSION,
            "description": f"safegen {__version__}: manifests of generated clips, by the watermarks in them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": PREFIX}],
        "security": [{"bearer": []}],
        "paths": {
            "/matches/byBinding": {
                "get": _operation(
                    "queryByBinding", "Find manifests by a soft binding", "Matches", 400, 401, 414, 500, 503,
                    parameters=[_query("alg", _alg(), required=True),
                                _query("value", _value(MAX_VALUE_CHARACTERS), required=True), *_PAGING],
                ),
                "post": _operation(
                    "queryByLargeBinding", "The same, for values too long for a URL", "Matches",
                    400, 401, 413, 415, 500, 503, parameters=list(_PAGING), body=_json_body("BindingQuery"),
                ),
            },
            "/matches/byContent": {
                "post": _operation(
                    "getMatchesByContent", "Find an asset's manifest by its mark or its looks", "Matches",
                    400, 401, 413, 415, 500, 503, parameters=list(_ASSET), body=_asset_body(),
                )
            },
            "/matches/byReference": {
                "post": _operation(
                    "getMatchesByReference", "The same, for an asset that the service fetches; off unless set up",
                    "Matches", 400, 401, 403, 413, 415, 500, 502, 503, parameters=list(_ASSET),
                    body=_json_body("Reference"),
                )
            },
            "/manifests/{activeManifestId}": {
                "get": _operation(
                    "getManifestById", "Fetch a manifest store", "Manifest", 400, 401, 404, 500, 503,
                    parameters=[_query("returnActiveManifest", {"type": "boolean", "default": False}),
                                {"name": "activeManifestId", "in": "path", "required": True,
                                 "schema": {"type": "string", "minLength": 1}}],
                )
            },
            "/services/supportedAlgorithms": {
                "get": _operation("getSupportedBindings", "The algorithms that can be asked for", "Algorithms")
                | {"security": []}
            },
            "/services/capabilities": {
                "get": _operation("getServiceCapabilities", "Which optional parts are served", "Capabilities")
                | {"security": []}
            },
            "/services/status": {
                "get": _operation("getServiceStatus", "Whether the service can answer", "Status") | {"security": []}
            },
            WELL_KNOWN: {
                "servers": [{"url": "/"}],
                "get": _operation("getWellKnown", "Where the API is", "WellKnown") | {"security": []},
            },
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
            "responses": _responses(),
        },
    }  # fmt: skip


def _query(name: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _alg() -> dict[str, Any]:
    return {"type": "string", "enum": list(ALGORITHMS)}


def _value(longest: int) -> dict[str, Any]:
    about = "Base64 of the 8 bytes of the content id that the mark carries, or of the 32 bytes of each hash."
    return {"type": "string", "minLength": 1, "maxLength": longest, "pattern": BASE64, "description": about}


_MAX_RESULTS: Final = _query(
    "maxResults", {"type": "integer", "minimum": 1, "maximum": MAX_NUMBER, "default": DEFAULT_RESULTS}
)
_PAGING: Final = (
    _MAX_RESULTS,
    _query("cursor", {"type": "integer", "minimum": 0, "maximum": MAX_NUMBER, "description": "A nextCursor."}),
)
_ASSET: Final = (
    _query("alg", _alg()),
    _query("hintAlg", _alg() | {"description": "Only with hintValue: looked up where the asset leads nowhere itself."}),
    _query("hintValue", _value(MAX_VALUE_CHARACTERS)),
    _MAX_RESULTS,
)


def _operation(
    name: str,
    summary: str,
    answer: str,
    *errors: int,
    parameters: list[dict[str, Any]] | None = None,
    body: dict[str, Any] | None = None,
    success: int = 200,
) -> dict[str, Any]:
    responses = {str(success): {"$ref": f"#/components/responses/{answer}"}}
    always = (429, 503) if body is None else (408, 429, 503)
    codes = sorted({*errors, *always})
    responses |= {str(code): {"$ref": f"#/components/responses/Error{code}"} for code in codes}
    extra = {} if body is None else {"requestBody": body}
    return {
        "operationId": name, "summary": summary, "parameters": parameters or [], "responses": responses, **extra,
    }  # fmt: skip


def _json_body(schema: str) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def _asset_body() -> dict[str, Any]:
    kinds = ("video/*", "image/*", "application/octet-stream")
    return {"required": True, "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}}


def _semver() -> dict[str, Any]:
    return {"type": "string", "pattern": r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$"}


def _schemas() -> dict[str, Any]:
    algorithms = {"type": "array", "items": {"$ref": "#/components/schemas/Algorithm"}}
    matches = {"type": "array", "maxItems": MAX_RESULTS, "items": {"$ref": "#/components/schemas/Match"}}
    return {
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
        "Algorithm": {"type": "object", "required": ["alg"], "properties": {"alg": {"type": "string"}}},
        "Algorithms": {
            "type": "object", "required": ["watermarks", "fingerprints"],
            "properties": {"watermarks": algorithms, "fingerprints": algorithms},
        },
        "Match": {
            "type": "object", "required": ["manifestId"], "additionalProperties": False,
            "properties": {
                "manifestId": {"type": "string"},
                "similarityScore": {"type": "integer", "minimum": 0, "maximum": 100},
                "stored": {"type": "boolean", "description": "Stored for others: nothing that this service made."},
            },
        },
        "Matches": {
            "type": "object", "required": ["matches"], "additionalProperties": False,
            "properties": {"matches": matches, "nextCursor": {"type": "integer"}},
        },
        "Capabilities": {
            "type": "object", "required": ["c2paSpecificationVersion", "supportedCapabilities"],
            "properties": {
                "c2paSpecificationVersion": _semver(),
                "supportedCapabilities": {"type": "array", "items": {"type": "string"}},
            },
        },
        "Status": {
            "type": "object", "required": ["status"],
            "properties": {
                "status": {"type": "string", "enum": ["ok", "degraded", "down"]},
                "timestamp": {"type": "string", "format": "date-time"},
            },
        },
        "WellKnown": {
            "type": "object", "required": ["apiEndpoint", "c2paSpecificationVersion"],
            "properties": {
                "apiEndpoint": {"type": "string"},
                "c2paSpecificationVersion": _semver(),
                "capabilitiesEndpoint": {"type": "string"},
                "statusEndpoint": {"type": "string"},
            },
        },
        "BindingQuery": {
            "type": "object", "required": ["alg", "value"],
            "properties": {"alg": _alg(), "value": _value(1 << 16)},
        },
        "AnyBindingQuery": {
            "type": "object", "required": ["alg", "value"],
            "properties": {"alg": {"type": "string", "pattern": f"^{ALG.pattern}$"}, "value": _value(1 << 16)},
        },
        "Binding": {
            "type": "object", "required": ["alg", "bindingValue", "manifestId"],
            "properties": {
                "alg": {"type": "string", "pattern": f"^{ALG.pattern}$"},
                "bindingValue": _value(MAX_BOUND_CHARACTERS),
                "manifestId": {"type": "string", "minLength": 1},
            },
        },
        "Stored": {
            "type": "object", "required": ["manifestId"],
            "properties": {"manifestId": {"type": "string"}, "receipt": {"$ref": "#/components/schemas/Receipt"}},
        },
        "Receipt": {
            "type": "object", "required": ["anchor"],
            "properties": {
                "@context": {"type": "object"},
                "@type": {"type": "string"},
                "repository": {"type": "object"},
                "anchor": {"type": "object"},
                "verified": {"type": "boolean"},
                "error": {"type": "string"},
            },
        },
        "Reference": {
            "type": "object", "required": ["referenceUrl", "assetLength"],
            "properties": {
                "referenceUrl": {"type": "string", "format": "uri", "maxLength": 4096},
                "assetLength": {"type": "integer", "minimum": 1},
                "assetType": {"type": "string"},
                "region": {"description": "Accepted and ignored: the whole asset is read."},
            },
        },
    }  # fmt: skip


def _responses() -> dict[str, Any]:
    def answer(about: str, media: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"description": about, "content": {media: {"schema": schema}}}

    def ref(name: str) -> dict[str, Any]:
        return {"$ref": f"#/components/schemas/{name}"}

    return {
        "Matches": answer("The manifests that match; none is an answer too", "application/json", ref("Matches")),
        "Algorithms": answer("The algorithms", "application/json", ref("Algorithms")),
        "Capabilities": answer("The capabilities", "application/json", ref("Capabilities")),
        "Status": answer("The status", "application/json", ref("Status")),
        "WellKnown": answer("The API's base path, and more", "application/json", ref("WellKnown")),
        "Manifest": answer("The manifest store", "application/c2pa", {"type": "string", "format": "binary"}),
        "Stored": answer("It is kept", "application/json", ref("Stored")),
        "Receipt": answer("The receipt, and whether it holds", "application/json", ref("Receipt")),
        "Done": {"description": "Done"},
        **{f"Error{code}": answer(about, "application/json", ref("Error")) for code, about in _ERRORS.items()},
    }
