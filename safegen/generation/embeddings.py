"""Prompt embeddings that a protected pipeline accepts: made by safegen from a text that it judged, and sealed.

    made = safegen.embed(pipe, "a red ball bouncing on grass at sunset")
    safe(prompt, output="clip.mp4", embeddings_token=made.token, **made.tensors)

Nobody can tell from a tensor what it asks for, so embeddings are refused unless their token says that safegen encoded
them itself. The token binds the bytes, type and shape of every tensor, the texts (by commitment), the policy and its
decision, and an expiry, with an HMAC under a key of the home. The text is given again with the call and judged again:
the token only says that the tensors are that text.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import rfc8785

from safegen.errors import BlockedError, GeneratorError, InputError
from safegen.keys import KeyStore
from safegen.keys.commitment import check_commitment, commit_text
from safegen.policies.engine.engine import Engine, Request
from safegen.settings import Home
from safegen.types import Decision

# Imported where they are used: torch.

SCHEMA: Final = "safegen.embeddings/1"
MINUTES: Final = 60
_USE: Final = b"safegen embeddings token"

_PAIR = ("prompt_embeds", "negative_prompt_embeds")
_MASKED = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
RETURNS: Final[Mapping[str, tuple[str, ...]]] = {
    "Wan": _PAIR,
    "CogVideoX": _PAIR,
    "AnimateDiff": _PAIR,
    "LTX": _MASKED,
    "Mochi": _MASKED,
}
"""What ``encode_prompt`` returns, by the beginning of the pipeline's class name, as arguments of its call."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Tensors to call a protected pipeline with, by argument, and the token that makes it accept them."""

    tensors: Mapping[str, Any] = field(repr=False)
    token: str
    decision: Decision


def embed(
    pipe: Any,
    prompt: str,
    *,
    negative_prompt: str = "",
    policy: str | Path = "default",
    home: Home | None = None,
    minutes: float = MINUTES,
    **encoding: Any,
) -> Embeddings:
    """Judge a prompt, encode it with ``pipe``'s own text encoder, and seal the result for ``minutes``.

    ``encoding`` holds further arguments of the pipeline's ``encode_prompt``. Raises BlockedError where the policy stops
    the prompt, InputError for a pipeline whose encoder is not known, GeneratorError if the encoder fails.
    """
    keys = KeyStore.load(home or Home.default())
    names = _names(pipe)
    if not 0 < minutes <= 7 * 24 * 60:
        raise InputError(f"{minutes} minutes is no time that embeddings may be kept for", remedy="At most a week.")
    decision = Engine.load(policy).judge(Request(prompt, negative_prompt=negative_prompt))
    if decision.action.stops:
        raise BlockedError(f"The prompt was refused: {decision.explanation}.", decision)
    tensors = _encode(pipe, names, prompt, negative_prompt, encoding)
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes)
    return Embeddings(tensors, seal(tensors, prompt, negative_prompt, decision, keys, expires), decision)


def seal(
    tensors: Mapping[str, Any],
    prompt: str,
    negative_prompt: str,
    decision: Decision,
    keys: KeyStore,
    expires: dt.datetime,
) -> str:
    """Return the token that says: these tensors are these texts, judged so. Only call it for what you encoded."""
    fields: dict[str, Any] = {
        "schema": SCHEMA,
        "tensors": {name: digest_tensors(name, value) for name, value in tensors.items()},
        "texts": commit_text(_texts(prompt, negative_prompt), keys.commitment_key),
        "policy_sha256": decision.policy_sha256,
        "action": str(decision.action),
        "expires": expires.astimezone(dt.UTC).isoformat(timespec="seconds"),
    }
    payload = rfc8785.dumps(fields)
    return f"{_base64url(payload)}.{_base64url(_tag(payload, keys))}"


def refusal(
    tensors: Mapping[str, Any], token: str, prompt: str, negative_prompt: str, keys: KeyStore, policy_sha256: str
) -> str:
    """Return why a call's embeddings are not accepted, or "" where they are: exactly those that the token names."""
    if not token:
        return "they carry no token"
    try:
        body, _, tag = str(token).partition(".")
        payload, given = _bytes(body), _bytes(tag)
    except (ValueError, binascii.Error):
        return "the token is malformed"
    if not hmac.compare_digest(given, _tag(payload, keys)):
        return "the token was not made in this home, or was changed"
    fields = json.loads(payload)  # ours: the tag says so
    if fields.get("schema") != SCHEMA:
        return "the token is of another version"
    if dt.datetime.now(dt.UTC) >= dt.datetime.fromisoformat(fields["expires"]):
        return "the token has expired"
    if fields["policy_sha256"] != policy_sha256:
        return "they were judged under another policy"
    if not check_commitment(_texts(prompt, negative_prompt), keys.commitment_key, fields["texts"]):
        return "they were made from another text"
    try:
        found = {name: digest_tensors(name, value) for name, value in tensors.items()}
    except InputError as error:
        return str(error)
    return "" if found == fields["tensors"] else "they are not the tensors that the token names"


def digest_tensors(name: str, value: Any) -> list[dict[str, Any]]:
    """Return type, shape and SHA-256 of the bytes of a tensor or array, or of each of a list; InputError if none."""
    out = []
    for item in value if isinstance(value, list | tuple) else [value]:
        shape = [int(n) for n in getattr(item, "shape", ())]
        dtype = str(getattr(item, "dtype", ""))
        if hasattr(item, "detach"):  # a torch tensor; bfloat16 has no numpy type, so its bytes are viewed
            import torch

            flat = item.detach().cpu().contiguous().reshape(-1)
            data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        elif isinstance(item, np.ndarray) and item.dtype.kind in "fiub":
            data = np.ascontiguousarray(item).tobytes()
        else:
            raise InputError(f"{name} is no tensor")
        out.append({"dtype": dtype, "shape": shape, "sha256": hashlib.sha256(data).hexdigest()})
    return out


def _names(pipe: Any) -> tuple[str, ...]:
    kind = type(pipe).__name__
    for start, names in RETURNS.items():
        if kind.startswith(start) and hasattr(pipe, "encode_prompt"):
            return names
    raise InputError(f"safegen does not know {kind}'s text encoder.", remedy="Give the prompt as text.")


def _encode(
    pipe: Any, names: tuple[str, ...], prompt: str, negative_prompt: str, encoding: Mapping[str, Any]
) -> dict[str, Any]:
    import torch

    accepted = inspect.signature(pipe.encode_prompt).parameters
    arguments: dict[str, Any] = {"device": pipe.device, "num_images_per_prompt": 1} | dict(encoding)
    arguments |= {"do_classifier_free_guidance": True, "prompt": prompt, "negative_prompt": negative_prompt or None}
    if smuggled := sorted(n for n in encoding if "embed" in n or n.endswith("mask") or n not in accepted):
        raise InputError(f"{smuggled[0]} cannot be given here.", remedy="safegen encodes the prompt itself.")
    try:
        with torch.no_grad():
            made = pipe.encode_prompt(**{n: v for n, v in arguments.items() if n in accepted})
    except Exception as error:  # whatever a third-party pipeline raises
        raise GeneratorError(f"the prompt could not be encoded: {error}") from error
    if not isinstance(made, tuple) or len(made) != len(names):
        raise GeneratorError(f"{type(pipe).__name__}'s text encoder returned something else than {', '.join(names)}")
    return {name: value for name, value in zip(names, made, strict=True) if value is not None}


def _texts(prompt: str, negative_prompt: str) -> str:
    return json.dumps([prompt, negative_prompt])


def _tag(payload: bytes, keys: KeyStore) -> bytes:
    key = hmac.digest(keys.commitment_key, _USE, "sha256")  # a key of its own for this use
    return hmac.digest(key, payload, "sha256")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
