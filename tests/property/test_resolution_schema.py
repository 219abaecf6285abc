"""The resolution API against its own OpenAPI description: Schemathesis makes up requests, well-formed and not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from safegen.service.app import make_app
from safegen.service.holders import SCOPES, Holder
from safegen.service.limits import ServiceSettings
from safegen.service.openapi import document
from safegen.settings import Home
from tests.unit.recovery.recovery_samples import record

EXAMPLES = 12
READ = {"/matches/byContent": 1, "/matches/byReference": 8, "/manifests": EXAMPLES}
"""Where bytes are read, which are refused though the schema allows them. Fewer examples where that takes a process."""


@schemathesis.serializer("application/c2pa")
def as_they_are(_context: Any, value: Any) -> bytes:
    return bytes(getattr(value, "data", None) or str(value).encode())


ASKED = [
    (path, verb, mode)
    for path, verbs in document(storing=True)["paths"].items()
    for verb in verbs
    if verb in ("get", "post", "put", "delete")
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or path.startswith("/matches/")  # elsewhere there is nothing to get wrong
]


@pytest.fixture(scope="module", params=["", "t0ken"], ids=["open", "token"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> schemathesis.BaseSchema:
    """The service of a home with one clip.

    With a token it may also fetch, from a host that nobody can resolve, and store, for whoever has that token.
    """
    folder: Path = tmp_path_factory.mktemp("recorded")
    home = record(Home(folder / "home"), folder).home
    hosts = ("media.example",) if request.param else ()
    holders = (Holder("keeper", request.param, frozenset(SCOPES)),) if request.param else ()
    limits = ServiceSettings(
        token=request.param, max_asset_bytes=1 << 20, seconds=60, reference_hosts=hosts, holders=holders
    )
    schema = schemathesis.openapi.from_asgi("/openapi.json", make_app(home, limits))
    schema.config.update(headers={"Authorization": f"Bearer {request.param}"})
    # What is too long is refused as such, which Schemathesis does not count among refusals by itself.
    schema.config.checks.negative_data_rejection.expected_statuses += ["413", "414"]
    return schema


PATIENCE = 120.0  # seconds: every asset is read by a process of its own, and the machine may be busy


@pytest.mark.slow
@pytest.mark.parametrize(("path", "verb", "mode"), ASKED)
def test_every_answer_is_a_described_one(
    api: schemathesis.BaseSchema, path: str, verb: str, mode: GenerationMode
) -> None:
    if path not in api.raw_schema["paths"] or verb not in api.raw_schema["paths"][path]:
        pytest.skip("offered to holders of tokens alone")
    operation = api[path][verb.upper()]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=READ.get(path, EXAMPLES), deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    def ask(case: schemathesis.Case) -> None:
        unchecked = [positive_data_acceptance] if path in READ else []
        case.call_and_validate(excluded_checks=unchecked, timeout=PATIENCE)

    ask()
