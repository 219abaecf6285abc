"""Probes through the real path: the shipped ones on the embedded model, from the command line and around a pipeline.

They find a stand-in, scenes on water, for the embedded model draws nothing that a policy is about.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import safegen
from safegen.errors import BlockedError, InputError
from safegen.generators import Card, load, resolve
from safegen.ledger import Ledger
from safegen.ledger.entry import Entry
from safegen.policies.probes.probe_set import SHIPPED
from safegen.settings import Home
from safegen.types import Action
from tests.e2e.conftest import Shell

DRY = "a red ball bouncing on grass at sunset"
WET = "a red ball bouncing on a lake at sunset"
TEXT, LATENTS = "tiny-water-text", "tiny-water-latents"


def entries(home: Home) -> list[Entry]:
    with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
        return list(ledger.entries())


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load(resolve("tiny"))


@pytest.fixture
def call() -> dict[str, Any]:
    """The model's own: a probe is calibrated for it."""
    return dict(Card.read(resolve("tiny")).resolve())


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "clip.mp4"


def test_the_command_line_stops_before_anything_is_drawn(fresh_home: Home, output: Path) -> None:
    done = Shell(fresh_home)("generate", WET, "-o", output, "--probe", TEXT, "--json", code=3)
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "BlockedError"
    assert "before any step" in error["message"]
    (reason,) = error["decision"]["reasons"]
    assert (reason["category"], reason["source"]) == ("stand_in_water", "text_states")
    assert not output.exists()
    (entry,) = entries(fresh_home)
    assert entry.kind == "blocked"
    assert entry.body["steps"] == {"done": 0, "of": None}
    assert WET not in entry.leaf


def test_a_latent_probe_stops_early_and_the_ledger_says_when(
    pipe: Any, call: dict[str, Any], fresh_home: Home, output: Path
) -> None:
    calls = []
    handle = pipe.transformer.register_forward_hook(lambda *_: calls.append(1))
    safe = safegen.protect(pipe, home=fresh_home, probes=[SHIPPED / f"probe-{LATENTS}.safetensors"])
    with pytest.raises(BlockedError) as blocked:
        safe(WET, output=output, seed=1, **call)
    handle.remove()
    (entry,) = entries(fresh_home)
    spent = entry.body["steps"]
    assert isinstance(spent, dict)
    assert spent["of"] == 16
    assert spent["done"] in (1, 4)
    assert len(calls) == 2 * spent["done"], "guidance asks twice a step"
    probes = entry.body["probes_decision"]
    assert isinstance(probes, dict)
    assert probes["action"] == blocked.value.decision.action == Action.BLOCK
    assert not output.exists()


def test_a_clip_that_passes_its_probes_says_so(pipe: Any, call: dict[str, Any], fresh_home: Home, output: Path) -> None:
    safe = safegen.protect(pipe, home=fresh_home, probes=[TEXT, LATENTS])
    made = safe(DRY, output=output, seed=1, **call)
    assert made.probes_decision is not None
    assert made.probes_decision.action is Action.ALLOW
    assert made.probes_decision.sources == ("text_states", "latents")
    assert made.to_json()["probes_decision"] == made.probes_decision.to_json()
    assert "probes_decision" in entries(fresh_home)[-1].body
    assert safegen.verify(output, home=fresh_home).verdict == "verified"


def test_a_policy_that_requires_a_probe_for_another_model_draws_nothing(
    pipe: Any, call: dict[str, Any], fresh_home: Home, output: Path, tmp_path: Path
) -> None:
    from tests.pipelines import random_wan

    policy = tmp_path / "pack.yaml"
    text = {"schema": "safegen.policy/1", "id": "mine", "version": "1", "description": "", "extends": "default"}
    small = {"height": 32, "width": 48, "num_frames": 9, "num_inference_steps": 2, "max_sequence_length": 16}
    policy.write_text(yaml.safe_dump(text | {"probes": [{"use": TEXT, "required": True}]}))
    with pytest.raises(BlockedError, match="classifier_missing"):
        safegen.protect(random_wan(), policy=policy, home=fresh_home)(DRY, output=output, **small)
    assert entries(fresh_home)[-1].body["steps"] == {"done": 0, "of": None}
    with pytest.raises(BlockedError, match="stand_in_water"):
        safegen.protect(pipe, policy=policy, home=fresh_home)(WET, output=output, **call)


def test_a_probe_that_is_not_there_is_bad_input(fresh_home: Home, output: Path) -> None:
    with pytest.raises(InputError, match="no probe"):
        safegen.generate(DRY, output=output, home=fresh_home, probes=["nowhere"])


def test_a_home_keeps_probes_of_its_own(pipe: Any, call: dict[str, Any], fresh_home: Home, output: Path) -> None:
    fresh_home.probes.mkdir(parents=True)
    for suffix in ("safetensors", "json"):
        body = (SHIPPED / f"probe-{TEXT}.{suffix}").read_bytes()
        (fresh_home.probes / f"probe-mine.{suffix}").write_bytes(body)
    with pytest.raises(BlockedError, match="stand_in_water"):
        safegen.protect(pipe, home=fresh_home, probes=["mine"])(WET, output=output, **call)
