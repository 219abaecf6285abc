"""The resolution API against its own OpenAPI description: Schemathesis makes up requests, well-formed and not."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from safegen.resolution.app import make_app
from safegen.resolution.limits import ServiceSettings
from safegen.resolution.openapi import document
from safegen.settings import Home
from tests.unit.recovery_samples import record

EXAMPLES = 12
READ = {"/matches/byContent": 1, "/matches/byReference": 8}
"""Fewer examples where an asset is read, which takes a process of its own. What is no video is 415, valid or not."""

ASKED = [
    (path, verb, mode)
    for path, verbs in document()["paths"].items()
    for verb in verbs
    if verb in ("get", "post")
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or path.startswith("/matches/")  # elsewhere there is nothing to get wrong
]


@pytest.fixture(scope="module", params=["", "t0ken"], ids=["open", "token"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> schemathesis.BaseSchema:
    """The service of a home with one clip; with a token it may also fetch, from a host that nobody can resolve."""
    folder: Path = tmp_path_factory.mktemp("recorded")
    home = record(Home(folder / "home"), folder).home
    hosts = ("media.example",) if request.param else ()
    limits = ServiceSettings(token=request.param, max_asset_bytes=1 << 20, seconds=5, reference_hosts=hosts)
    schema = schemathesis.openapi.from_asgi("/openapi.json", make_app(home, limits))
    schema.config.update(headers={"Authorization": f"Bearer {request.param}"})
    return schema


@pytest.mark.parametrize(("path", "verb", "mode"), ASKED)
def test_every_answer_is_a_described_one(
    api: schemathesis.BaseSchema, path: str, verb: str, mode: GenerationMode
) -> None:
    operation = api[path][verb.upper()]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=READ.get(path, EXAMPLES), deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=[positive_data_acceptance] if path in READ else [])

    ask()
