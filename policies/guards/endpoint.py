"""A moderation service with OpenAI's interface (``POST …/moderations``), asked over HTTP.

The prompt leaves this machine. What comes back is checked before it is believed: a redirect, another shape, a score
that is none, or an answer that is too long is a failed run. The API key comes from an environment variable, is sent to
the given host alone, and stands in no message or record.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from safegen.errors import PolicyError
from safegen.policies.guards.formats import UNSAFE
from safegen.policies.guards.models import readings
from safegen.policies.pack.model import ClassifierSpec
from safegen.policies.text.hits import Hit, NotAvailableError
from safegen.policies.text.views import View

if TYPE_CHECKING:
    import httpx

# Imported where they are used: httpx.

CATEGORIES: Mapping[str, str] = {
    "sexual": "sexual", "sexual/minors": "minors_sexual",
    "hate": "hate", "hate/threatening": "hate", "harassment": "hate", "harassment/threatening": "violence",
    "self-harm": "self_harm", "self-harm/intent": "self_harm", "self-harm/instructions": "self_harm",
    "violence": "violence", "violence/graphic": "gore",
    "illicit": "illegal", "illicit/violent": "weapons",
}  # fmt: skip
"""OpenAI's categories as ours; one that is not here counts as ``general``."""

MAX_ANSWER_BYTES = 1 << 20
_FIRST_PAUSE_S = 0.25
_MAX_PAUSE_S = 8.0
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class EndpointError(PolicyError):
    """The service refused, failed, took too long, or answered something else than it should."""


class ModerationEndpoint:
    """One service. ``budget`` is the number of requests that it may be sent in this object's life."""

    batch = 1

    def __init__(
        self, spec: ClassifierSpec, client: httpx.Client, url: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        options = spec.options
        self.name = spec.name
        self.version = str(options.get("model", "unknown"))
        self.weights_sha256: str | None = None
        self._client = client
        self._url = url
        self._retries = _whole(options.get("retries"), 2)
        self._left = _whole(options.get("budget"), 1000)
        self._deadline_s = spec.time_limit_s
        self._strict = options.get("mode", "strict") == "strict"
        self._model = options.get("model")
        self._sleep = sleep
        self._lock = threading.Lock()

    @classmethod
    def load(cls, spec: ClassifierSpec) -> ModerationEndpoint:
        """Make the client. NotAvailableError: httpx or the API key is missing; PolicyError: the URL is not usable."""
        url = endpoint_url(str(spec.options["url"]))
        headers = {"user-agent": "safegen", "accept": "application/json"}
        variable = spec.options.get("api_key_env")
        if isinstance(variable, str):
            key = os.environ.get(variable, "")
            if not key:
                raise NotAvailableError(f"the environment variable {variable} holds no API key")
            headers["authorization"] = f"Bearer {key}"
        try:
            import httpx
        except ImportError as exc:
            raise NotAvailableError("needs httpx: pip install 'safegen[guards]'") from exc
        timeout = spec.options.get("timeout_s", 10.0)
        seconds = float(timeout) if isinstance(timeout, int | float) else 10.0
        # trust_env off: a proxy or a .netrc of the environment must not learn the prompt or add credentials.
        client = httpx.Client(headers=headers, timeout=seconds, follow_redirects=False, trust_env=False)
        return cls(spec, client, url)

    def score(self, texts: Sequence[Sequence[View]]) -> list[list[Hit]]:
        """Return the hits of each text. EndpointError: the service could not be asked or believed."""
        return [self._judge(views) for views in texts]

    def _judge(self, views: Sequence[View]) -> list[Hit]:
        best: dict[str, Hit] = {}
        for name, text in readings(views):
            for theirs, score in self._ask(text).items():
                ours = CATEGORIES.get(theirs, "general")
                if ours not in best or score > best[ours].score:
                    best[ours] = Hit(ours, score, name, (0, 0), f"{self.name}:{theirs[:40]}")
        return list(best.values())

    def _ask(self, text: str) -> dict[str, float]:
        body: dict[str, Any] = {"input": text.encode("utf-8", "replace").decode()}
        if self._model is not None:
            body["model"] = self._model
        until = time.monotonic() + self._deadline_s
        pause = _FIRST_PAUSE_S
        for attempt in range(self._retries + 1):
            status, raw, wait = self._post(body, until)
            if status == 200:
                return self._scores_of(raw)
            if status not in _AGAIN and status != 0:
                break
            if attempt < self._retries:
                rest = min(max(pause, wait), _MAX_PAUSE_S)
                if time.monotonic() + rest >= until:
                    break
                self._sleep(rest)
                pause *= 2
        raise EndpointError(f"the service answered {status}" if status else "the service cannot be reached")

    def _post(self, body: Mapping[str, Any], until: float) -> tuple[int, bytes, float]:
        """Return status (0: no answer), body, and how long the service asks to wait."""
        import httpx

        with self._lock:
            if self._left <= 0:
                raise EndpointError("the budget of requests is spent")
            self._left -= 1
        try:
            with self._client.stream("POST", self._url, json=body) as answer:
                raw = b""
                for part in answer.iter_bytes():
                    raw += part
                    if time.monotonic() > until:  # httpx limits the wait for each piece, not for all of them
                        raise EndpointError("the answer came too slowly")
                    if len(raw) > MAX_ANSWER_BYTES:
                        raise EndpointError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
                told = answer.headers.get("retry-after", "")
                return answer.status_code, raw, float(told) if told.isdecimal() else 0.0
        except httpx.HTTPError:
            return 0, b"", 0.0

    def _scores_of(self, raw: bytes) -> dict[str, float]:
        try:
            answer = json.loads(raw)
            (result,) = answer["results"]
            flagged = result["flagged"]
            scores = {str(k): v for k, v in result["category_scores"].items()}
            marked = {str(k): v for k, v in result.get("categories", {}).items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise EndpointError("the answer has another shape than a moderation result") from exc
        known = all(
            isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) and 0 <= v <= 1
            for v in scores.values()
        )
        if not scores or not known or not isinstance(flagged, bool):
            raise EndpointError("the answer holds no usable scores")
        found = {k: float(v) for k, v in scores.items()}
        if self._strict:
            raised = [k for k, v in marked.items() if v is True]
            for name in raised or (["flagged"] if flagged else []):
                found[name] = max(found.get(name, 0.0), UNSAFE)
        if answer.get("model"):
            self.version = str(answer["model"])[:80]
        return found


def endpoint_url(url: str) -> str:
    """Return where to post: the URL, with ``/moderations`` at its end. PolicyError for one that is not safe to use."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise PolicyError(f"not a URL: {exc}") from exc
    if parts.scheme not in ("https", "http") or not host or parts.username or parts.password or parts.fragment:
        raise PolicyError("the URL of the service must be https://HOST/…, without credentials")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise PolicyError("prompts and keys are sent over https only (http to this machine itself)")
    base = url.rstrip("/")
    return base if parts.path.rstrip("/").endswith("/moderations") else f"{base}/moderations"


def _whole(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise
