"""Probe files, the probes that a policy asks for, and what their answers lead to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from safegen.errors import ConfigError, InputError, PolicyError
from safegen.policies.pack.loading import Pack, Rule, load_pack
from safegen.policies.probes.probe_set import (
    LATENTS,
    TEXT_STATES,
    AskedProbe,
    Probe,
    ProbeCase,
    ProbeSet,
    ProbeUse,
    uses_of,
)
from safegen.types import Action, RunStatus


def probe(**changes: Any) -> Probe:
    fields: dict[str, Any] = {
        "name": "stand-in",
        "version": "1",
        "source": LATENTS,
        "part": "latents",
        "category": "stand_in",
        "threshold": 0.8,
        "steps": (1, 3),
        "levels": (1.0, 0.9),
        "binds": {"vae": "0" * 64, "transformer": "1" * 64},
        "weight": np.arange(10, dtype=np.float32).reshape(2, 5) / 10,
        "bias": np.array([-1, 1], np.float32),
    }
    return Probe(**(fields | changes))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return probe().save(tmp_path, {"note": "for tests"})


def held(path: Path, **use: Any) -> AskedProbe:
    return AskedProbe.load(ProbeUse(str(path), **use), ())


def ready(tmp_path: Path, **changes: Any) -> AskedProbe:
    return held(probe(**changes).save(tmp_path, {}))


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_probe_comes_back_from_its_file(saved: Path) -> None:
    again, first = Probe.load(saved), probe()
    for name in ("name", "version", "source", "part", "category", "threshold", "steps", "levels", "binds"):
        assert getattr(again, name) == getattr(first, name)
    np.testing.assert_array_equal(again.weight, first.weight)
    np.testing.assert_array_equal(again.bias, first.bias)
    assert json.loads(saved.with_suffix(".json").read_text())["sha256"] == again.sha256


def test_scores_are_logistic() -> None:
    features = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 2]], np.float32)
    expected = 1 / (1 + np.exp(-np.array([0.5 + 1, 1.8 + 1])))
    np.testing.assert_allclose(probe().scores(features, 1), expected, rtol=1e-6)


def flipped(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(bytes(body))


def without_card(path: Path) -> None:
    path.with_suffix(".json").unlink()


def card_of_nothing(path: Path) -> None:
    path.with_suffix(".json").write_text("[]")


def recarded(path: Path, body: bytes) -> None:
    import hashlib

    path.write_bytes(body)
    path.with_suffix(".json").write_text(json.dumps({"sha256": hashlib.sha256(body).hexdigest()}))


def cut_short(path: Path) -> None:
    recarded(path, path.read_bytes()[:-9])


def of_no_format(path: Path) -> None:
    recarded(path, path.read_bytes().replace(b"safegen.probe/1", b"safegen.probe/9"))


def no_safetensors(path: Path) -> None:
    recarded(path, b"\x80\x04pickled")


def without_description(path: Path) -> None:
    from safetensors.numpy import save

    recarded(path, save({"weight": np.zeros((1, 2), np.float32)}))


def of_infinite_weights(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-40:] = np.full(10, np.inf, np.float32).tobytes()
    recarded(path, bytes(body))


DEFECTS: tuple[Callable[[Path], None], ...] = (
    flipped, without_card, card_of_nothing, cut_short, of_no_format, no_safetensors, without_description,
    of_infinite_weights,
)  # fmt: skip


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda f: f.__name__)
def test_a_damaged_probe_does_not_load(saved: Path, defect: Callable[[Path], None]) -> None:
    defect(saved)
    with pytest.raises(PolicyError, match="probe"):
        Probe.load(saved)
    loaded = held(saved)
    assert loaded.probe is None
    assert loaded.trouble is not None
    assert loaded.trouble.status is RunStatus.FAILED


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "No Name"},
        {"source": "pixels"},
        {"source": TEXT_STATES},
        {"category": "x y"},
        {"steps": (3, 1)},
        {"steps": (0, 1)},
        {"steps": ()},
        {"levels": (1.0,)},
        {"levels": (1.5, 0.9)},
        {"threshold": 0.0},
        {"threshold": float("nan")},
        {"binds": {}},
        {"binds": {"vae": "abc"}},
        {"bias": np.zeros(3, np.float32)},
        {"weight": np.full((2, 5), np.nan, np.float32)},
        {"weight": np.zeros((2, 0), np.float32)},
    ],
    ids=str,
)
def test_a_description_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        probe(**wrong)


# -- what a policy asks for --------------------------------------------------------------------------------------------


def pack_with(tmp_path: Path, probes: Any) -> Path:
    path = tmp_path / "pack.yaml"
    text = {"schema": "safegen.policy/1", "id": "mine", "version": "1", "description": "", "extends": "default"}
    path.write_text(yaml.safe_dump(text | {"probes": probes}))
    return path


def test_a_pack_names_its_probes(tmp_path: Path, saved: Path) -> None:
    pack = load_pack(
        pack_with(tmp_path, [{"use": "stand-in", "required": True}, {"use": str(saved), "sha256": "0" * 64}])
    )
    assert uses_of(pack) == (ProbeUse("stand-in", required=True), ProbeUse(str(saved), sha256="0" * 64))
    assert uses_of(load_pack("default")) == ()
    named, pinned = ProbeSet.load(pack, folders=(tmp_path,)).held
    assert named.probe is not None
    assert pinned.trouble is not None
    assert "digest" in pinned.trouble.detail
    assert named.to_json()["status"] == "ready"
    assert pinned.to_json()["status"] == "failed"


@pytest.mark.parametrize("probes", [[{"required": True}], [{"use": ""}], [{"use": "x", "action": "allow"}], ["x"], {}])
def test_a_pack_with_malformed_probes_is_refused(tmp_path: Path, probes: Any) -> None:
    with pytest.raises(ConfigError, match="probes"):
        load_pack(pack_with(tmp_path, probes))


def test_probes_of_packs_that_are_extended_add_up(tmp_path: Path) -> None:
    for name, probes in {
        "one": [{"use": "a"}, {"use": "b", "sha256": "0" * 64}],
        "two": [{"use": "a", "required": True}, {"use": "c"}],
        "other": [{"use": "b", "sha256": "1" * 64}],
    }.items():
        pack_with(tmp_path, probes).rename(tmp_path / f"{name}.yaml")
    both = pack_with(tmp_path, [{"use": "c", "required": True}, {"use": "d"}])
    text = yaml.safe_load(both.read_text())
    both.write_text(yaml.safe_dump(text | {"extends": ["one.yaml", "two.yaml"]}))
    assert {(u.use, u.required, u.sha256[:1]) for u in uses_of(load_pack(both))} == {
        ("a", True, ""), ("b", False, "0"), ("c", True, ""), ("d", False, ""),
    }  # fmt: skip
    both.write_text(yaml.safe_dump(text | {"extends": ["one.yaml", "other.yaml"]}))
    with pytest.raises(ConfigError, match="probes"):
        load_pack(both)


def test_an_extra_probe_must_be_there_and_whole(saved: Path) -> None:
    pack = load_pack("default")
    (mine,) = ProbeSet.load(pack, [saved, saved]).held
    assert mine.use.required
    with pytest.raises(InputError, match="no probe"):
        ProbeSet.load(pack, ["nowhere"])
    flipped(saved)
    with pytest.raises(PolicyError, match="altered"):
        ProbeSet.load(pack, [saved])


def test_an_extra_probe_makes_the_policys_own_required(tmp_path: Path, saved: Path) -> None:
    pack = load_pack(pack_with(tmp_path, [{"use": str(saved)}]))
    (mine,) = ProbeSet.load(pack, [saved]).held
    assert mine.use.required


# -- what follows from their answers -----------------------------------------------------------------------------------


def pack(**changes: Any) -> Pack:
    return replace(load_pack("default"), **changes)


@pytest.mark.parametrize(
    ("score", "action"), [(0.2, Action.ALLOW), (0.5, Action.FLAG), (0.7, Action.REVIEW), (0.9, Action.BLOCK)]
)
def test_the_packs_rule_for_the_category_decides(tmp_path: Path, score: float, action: Action) -> None:
    case = ProbeCase(pack(rules={"stand_in": Rule(flag=0.4, review=0.6, block=0.85)}))
    case.judged(ready(tmp_path), score, "after step 1 of 4", 2.0)
    decision = case.decision()
    assert decision.action is action
    assert decision.scores == {"stand_in": score}
    assert decision.sources == (LATENTS,)
    assert decision.policy_sha256 == load_pack("default").sha256
    (run,) = decision.classifiers
    assert (run.name, run.status, run.detail) == ("probe:stand-in", RunStatus.RAN, "after step 1 of 4")
    assert run.weights_sha256 is not None
    assert [(r.category, r.source, r.view) for r in decision.reasons] == (
        [] if action is Action.ALLOW else [("stand_in", LATENTS, "after step 1 of 4")]
    )


def test_the_probes_own_threshold_decides_where_the_pack_has_no_rule(tmp_path: Path) -> None:
    for score, action in ((0.79, Action.ALLOW), (0.81, Action.BLOCK)):
        case = ProbeCase(pack())
        case.judged(ready(tmp_path), score, "", 0.0)
        assert case.decision().action is action


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1, 1.1])
@pytest.mark.parametrize("on_error", [Action.REVIEW, Action.BLOCK])
def test_a_score_that_is_none_fails_closed(tmp_path: Path, score: float, on_error: Action) -> None:
    case = ProbeCase(pack(on_error=on_error))
    case.judged(ready(tmp_path), score, "", 0.0)
    assert case.decision().action is on_error
    assert [r.category for r in case.decision().reasons] == ["classifier_failed"]


@pytest.mark.parametrize("action", [Action.REVIEW, Action.BLOCK])
def test_a_missing_probe_stops_only_where_it_is_required(tmp_path: Path, action: Action) -> None:
    for required, outcome in ((False, Action.ALLOW), (True, action)):
        missing = AskedProbe.load(ProbeUse("nowhere", required), (tmp_path,))
        case = ProbeSet(pack(on_missing_classifier=action), (missing,)).case()
        assert case.decision().action is outcome
        assert [r.status for r in case.decision().classifiers] == [RunStatus.NOT_RUN]


def test_an_altered_probe_stops_even_where_it_is_not_required(saved: Path) -> None:
    flipped(saved)
    assert ProbeSet(pack(), (held(saved),)).case().decision().action is Action.BLOCK


def test_doctor_and_policy_show_name_the_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from safegen.cli import app

    monkeypatch.setenv("SAFEGEN_HOME", str(tmp_path))
    mine = probe(name="mine").save(tmp_path / "probes", {})
    pack = pack_with(tmp_path, [{"use": "mine", "required": True}, {"use": "nowhere"}])
    shown = json.loads(CliRunner().invoke(app, ["policy", "show", str(pack), "--json"]).stdout)
    assert [(p["name"], p["status"]) for p in shown["probes"]] == [
        ("probe:mine", "ready"),
        ("probe:nowhere", "not_run"),
    ]
    for defect, ok in ((None, True), (flipped, False)):
        if defect is not None:
            defect(mine)
        told = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)["policy"]
        assert told["ok"] is ok
        found = {p["name"]: p["status"] for p in told["probes"]}
        assert found["probe:mine"] == ("ready" if ok else "failed")
        assert ("probe:mine" in told.get("remedy", "")) is not ok
