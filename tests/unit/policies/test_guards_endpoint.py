"""A moderation service is asked over HTTP, here by a server of our own, and believed only if it answers as told."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from safegen.errors import PolicyError
from safegen.policies.engine.engine import Engine, Request
from safegen.policies.guards.endpoint import EndpointError, ModerationEndpoint, endpoint_url
from safegen.policies.guards.formats import UNSAFE
from safegen.policies.pack.loading import ClassifierSpec
from safegen.policies.text.hits import NotAvailableError
from safegen.policies.text.views import views_of
from safegen.types import Action, RunStatus

PROMPT = "a red ball bouncing on grass at sunset"
KEY = "key-for-this-test"


def result(**changes: Any) -> dict[str, Any]:
    scores = {"violence": 0.01, "sexual": 0.02, "self-harm": 0.0} | changes.pop("category_scores", {})
    base = {"flagged": False, "categories": dict.fromkeys(scores, False), "category_scores": scores}
    return {"id": "modr-1", "model": "moderator-2", "results": [base | changes]}


class Service:
    """A server on this machine. ``answers`` are given one after another, the last one for ever."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                service.requests.append(
                    {"path": self.path, "headers": dict(self.headers), "body": json.loads(body or b"{}")}
                )
                at = min(len(service.requests), len(service.answers)) - 1
                service.answers[at](self)

            def do_GET(self) -> None:  # where a redirect would lead
                service.requests.append({"path": self.path, "headers": dict(self.headers), "body": {}})
                send(result())(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=lambda: self.server.serve_forever(0.01), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


def send(
    body: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Callable[[BaseHTTPRequestHandler], None]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in (
            {"content-type": "application/json", "content-length": str(len(raw))} | (headers or {})
        ).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(raw)

    return answer


def wait_first(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.0)
    with contextlib.suppress(OSError):  # the client has gone
        send(result())(handler)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODERATION_KEY", KEY)


def endpoint(service: Service, pauses: list[float] | None = None, **options: Any) -> ModerationEndpoint:
    limit = options.pop("time_limit_s", 20.0)
    options = {"url": service.url, "api_key_env": "MODERATION_KEY", "timeout_s": 5.0} | options
    made = ModerationEndpoint.load(ClassifierSpec("service", "openai_compatible", time_limit_s=limit, options=options))
    made._sleep = (lambda s: None) if pauses is None else pauses.append
    return made


def test_scores_come_back_as_our_categories(service: Service) -> None:
    service.answers = [send(result(category_scores={"violence/graphic": 0.6, "sexual/minors": 0.7, "new/one": 0.2}))]
    (hits,) = endpoint(service, model="moderator").score([views_of(PROMPT)])
    scores = {h.category: h.score for h in hits}
    assert (scores["gore"], scores["minors_sexual"], scores["general"], scores["violence"]) == (0.6, 0.7, 0.2, 0.01)
    (asked,) = service.requests
    assert asked["path"] == "/v1/moderations"
    assert asked["body"] == {"input": PROMPT, "model": "moderator"}
    assert asked["headers"]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(("mode", "score"), [("strict", UNSAFE), ("loose", 0.3)])
def test_strict_mode_believes_the_flag(service: Service, mode: str, score: float) -> None:
    flagged = result(flagged=True, categories={"violence": True}, category_scores={"violence": 0.3})
    service.answers = [send(flagged)]
    (hits,) = endpoint(service, mode=mode).score([views_of(PROMPT)])
    assert {h.category: h.score for h in hits}["violence"] == score


def test_flag_without_a_category_counts_as_general(service: Service) -> None:
    service.answers = [send(result(flagged=True))]
    (hits,) = endpoint(service).score([views_of(PROMPT)])
    assert {h.category: h.score for h in hits}["general"] == UNSAFE


GARBAGE = {
    "no json": b"<html>welcome</html>",
    "nothing": b"",
    "a list": [],
    "no results": {"results": []},
    "two results": {"results": [result()["results"][0]] * 2},
    "no scores": result(category_scores={}) | {"results": [{"flagged": False, "category_scores": {}}]},
    "scores are text": result(category_scores={"violence": "high"}),
    "score above one": result(category_scores={"violence": 1.2}),
    "score is not finite": b'{"results":[{"flagged":false,"category_scores":{"violence":NaN}}]}',
    "score is a truth": result(category_scores={"violence": True}),
    "flag is text": result(flagged="no"),
    "no flag": {"results": [{"category_scores": {"violence": 0.1}}]},
    "result is null": {"results": [None]},
    "deeply nested": b"[" * 100_000,
    "very long": b'{"results": "' + b"x" * (2 << 20) + b'"}',
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE.keys())
def test_answer_of_another_shape_is_no_judgement(service: Service, body: Any) -> None:
    service.answers = [send(body)]
    with pytest.raises(EndpointError) as caught:
        endpoint(service).score([views_of(PROMPT)])
    assert len(service.requests) == 1
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_not_followed(service: Service, status: int) -> None:
    service.answers = [send(b"", status, {"location": f"{service.url}/elsewhere"})]
    with pytest.raises(EndpointError, match=str(status)):
        endpoint(service).score([views_of(PROMPT)])
    assert len(service.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_refusal_is_not_repeated(service: Service, status: int) -> None:
    service.answers = [send({"error": {"message": PROMPT}}, status)]
    with pytest.raises(EndpointError, match=str(status)) as caught:
        endpoint(service).score([views_of(PROMPT)])
    assert len(service.requests) == 1
    assert PROMPT not in str(caught.value)


@pytest.mark.parametrize(
    "failure", [send(b"", 500), send(b"", 503), send(b"", 429), hang_up], ids=["500", "503", "429", "hang up"]
)
def test_failure_is_tried_again_with_growing_pauses(service: Service, failure: Any) -> None:
    pauses: list[float] = []
    service.answers = [failure, failure, send(result())]
    endpoint(service, pauses).score([views_of(PROMPT)])
    assert len(service.requests) == 3
    assert pauses == [0.25, 0.5]


def test_failure_that_lasts_ends_after_the_retries(service: Service) -> None:
    service.answers = [send(b"", 500)]
    with pytest.raises(EndpointError, match="500"):
        endpoint(service, retries=3).score([views_of(PROMPT)])
    assert len(service.requests) == 4


def test_service_says_how_long_to_wait(service: Service) -> None:
    pauses: list[float] = []
    service.answers = [send(b"", 429, {"retry-after": "3"}), send(result())]
    endpoint(service, pauses).score([views_of(PROMPT)])
    assert pauses == [3.0]


def test_no_retry_begins_beyond_the_time_limit(service: Service) -> None:
    service.answers = [send(b"", 429, {"retry-after": "3600"})]
    with pytest.raises(EndpointError):
        endpoint(service, time_limit_s=2.0).score([views_of(PROMPT)])
    assert len(service.requests) == 1


def test_slow_answer_is_a_failure(service: Service) -> None:
    service.answers = [wait_first]
    with pytest.raises(EndpointError, match="reached"):
        endpoint(service, timeout_s=0.1, retries=0).score([views_of(PROMPT)])


def test_budget_of_requests_is_kept(service: Service) -> None:
    service.answers = [send(result())]
    asked = endpoint(service, budget=2)
    asked.score([views_of(PROMPT), views_of(PROMPT)])
    with pytest.raises(EndpointError, match="budget"):
        asked.score([views_of(PROMPT)])
    assert len(service.requests) == 2


def test_missing_key_is_not_available(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODERATION_KEY")
    with pytest.raises(NotAvailableError, match="MODERATION_KEY"):
        endpoint(service)


@pytest.mark.parametrize(
    "url",
    [
        "http://moderation.example/v1",
        "ftp://h/v1",
        "https://",
        "https://user:secret@h/v1",
        "https://h/v1#x",
        "https://[h",
    ],
)
def test_url_that_is_not_safe_to_use_is_refused(url: str) -> None:
    with pytest.raises(PolicyError) as caught:
        endpoint_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://h/v1", "https://h/v1/", "https://h/v1/moderations", "http://localhost:1/v1"])
def test_url_ends_in_moderations(url: str) -> None:
    assert endpoint_url(url).endswith("/v1/moderations")


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(
    ("fault", "status"),
    [("500", RunStatus.FAILED), ("garbage", RunStatus.FAILED), ("slow", RunStatus.FAILED), ("none", RunStatus.RAN),
     ("no key", RunStatus.NOT_RUN), ("closed", RunStatus.FAILED)],
)  # fmt: skip
def test_pack_with_a_service(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, status: RunStatus, required: bool
) -> None:
    service.answers = [{"500": send(b"", 500), "garbage": send(b"?"), "slow": wait_first}.get(fault, send(result()))]
    if fault == "no key":
        monkeypatch.delenv("MODERATION_KEY")
    if fault == "closed":
        service.server.server_close()
    path = tmp_path / "served.yaml"
    path.write_text(
        "schema: safegen.policy/1\nid: served\nversion: '1'\ndescription: With a service.\nextends: default\n"
        "text:\n  classifiers:\n    - use: openai_compatible\n      name: service\n"
        f"      url: {service.url}\n      api_key_env: MODERATION_KEY\n      timeout_s: 0.3\n      retries: 0\n"
        f"      required: {str(required).lower()}\n",
        encoding="utf-8",
    )
    decision = Engine.load(path).judge(Request(PROMPT))
    run = decision.classifiers[-1]
    assert (run.name, run.status, run.required) == ("service", status, required)
    fine = status is RunStatus.RAN
    assert decision.action is (Action.ALLOW if fine or not required else Action.BLOCK)
    if fine:
        assert run.version == "moderator-2"
    assert KEY not in json.dumps(decision.to_json())
