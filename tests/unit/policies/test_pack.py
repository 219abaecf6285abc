"""Packs: shipped ones load; malformed ones and ones that loosen a locked rule are refused with the field's path."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from safegen.errors import ConfigError, InputError
from safegen.policies.pack.loading import LOCKED_FLOOR, Rule, list_packs, load_pack
from safegen.policies.pack.model import WITHHELD
from safegen.types import Action

Change = Callable[[dict[str, Any]], object]


def _write(folder: Path, change: Change, base: str = "default") -> Path:
    document = copy.deepcopy(dict(load_pack(base).document))
    change(document)
    path = folder / "pack.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", list_packs())
def test_shipped_pack_loads_and_holds_the_locked_floor(name: str) -> None:
    pack = load_pack(name)
    for category, highest in LOCKED_FLOOR.items():
        rule = pack.rules[category]
        assert rule.locked
        assert rule.withhold_span or category not in WITHHELD
        assert rule.block is not None
        assert rule.block <= highest
    assert len(pack.sha256) == 64


def test_digest_follows_content_and_not_layout(tmp_path: Path) -> None:
    default = load_pack("default")
    assert load_pack(_write(tmp_path, lambda d: None)).sha256 == default.sha256
    changed = load_pack(_write(tmp_path, lambda d: d["categories"]["sexual"].update(flag=0.39)))
    assert changed.sha256 != default.sha256


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda d: d.pop("categories"), "categories"),
        (lambda d: d["categories"]["sexual"].update(block=1.5), "categories.sexual.block"),
        (lambda d: d["categories"]["sexual"].update(block="high"), "categories.sexual.block"),
        (lambda d: d["categories"]["sexual"].update(block=float("nan")), "categories.sexual"),
        (lambda d: d["categories"]["sexual"].update(blok=0.5), "categories.sexual"),
        (lambda d: d["categories"]["sexual"].update(flag=0.9), "categories.sexual"),
        (lambda d: d["categories"].update(empty={}), "categories.empty"),
        (lambda d: d["defaults"].update(on_error="allow"), "defaults.on_error"),
        (lambda d: d["defaults"].update(on_missing_classifier="flag"), "defaults.on_missing_classifier"),
        (lambda d: d["text"].update(classifiers=[]), "text.classifiers"),
        (lambda d: d["frames"].update(sample_fps=0), "frames.sample_fps"),
        (lambda d: d["frames"]["classes"].update(FACE_MALE="nobody"), "frames.classes.FACE_MALE"),
        (lambda d: d.update(schema="safegen.policy/2"), "schema"),
        (lambda d: d["categories"].pop("minors_sexual"), "categories"),
        (lambda d: d["categories"]["minors_sexual"].update(locked=False), "categories.minors_sexual"),
        (lambda d: d["categories"]["minors_sexual"].update(withhold_span=False), "categories.minors_sexual"),
        (lambda d: d["categories"]["minors_sexual"].update(block=0.51), "categories.minors_sexual.block"),
        (
            lambda d: d["categories"].update(minors_sexual={"review": 0.1, "locked": True, "withhold_span": True}),
            "minors",
        ),
    ],
)
def test_malformed_pack_names_the_field(tmp_path: Path, change: Change, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_pack(_write(tmp_path, change))
    assert where in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"a: [", b"\xff\xfe\x00", b"1: 2", b"!!python/object:os.system {}", b"a: 1\na: 2"]
)
def test_file_that_is_no_pack_is_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(body)
    with pytest.raises(ConfigError):
        load_pack(path)


def test_missing_pack_names_the_shipped_ones() -> None:
    with pytest.raises(InputError) as caught:
        load_pack("no-such-pack")
    assert "default" in caught.value.remedy


def _overlay(folder: Path, categories: dict[str, Any]) -> Path:
    path = folder / "over.yaml"
    document = {
        "schema": "safegen.policy/1",
        "id": "over",
        "version": "1",
        "description": "An overlay.",
        "extends": "default",
        "categories": categories,
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "loosened",
    [
        {"minors_sexual": {"block": 0.6}},
        {"minors_sexual": {"review": 0.1}},
        {"minors_sexual": {"locked": False}},
        {"ncii": {"block": 0.9}},
        {"ncii": {"review": 0.6, "block": 0.8}},
        {"ncii": {"review": 0.5}},
        {"ncii": {"locked": False}},
    ],
)
def test_overlay_cannot_loosen_a_locked_rule(tmp_path: Path, loosened: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_pack(_overlay(tmp_path, loosened))
    assert next(iter(loosened)) in str(caught.value)


def test_overlay_may_tighten_a_locked_rule_and_change_others(tmp_path: Path) -> None:
    pack = load_pack(_overlay(tmp_path, {"ncii": {"block": 0.5}, "sexual": {"block": 0.95}}))
    assert pack.rules["ncii"] == Rule(block=0.5, locked=True)
    assert pack.rules["sexual"].block == 0.95
    assert pack.rules["violence"] == load_pack("default").rules["violence"]


def test_overlay_of_unknown_pack_is_refused(tmp_path: Path) -> None:
    path = _overlay(tmp_path, {})
    path.write_text(path.read_text(encoding="utf-8").replace("extends: default", "extends: nothing"), encoding="utf-8")
    with pytest.raises(ConfigError, match="extends"):
        load_pack(path)


@pytest.mark.parametrize(
    ("score", "action"), [(0.0, "allow"), (0.4, "flag"), (0.69, "review"), (0.7, "block"), (1.0, "block")]
)
def test_rule_takes_the_most_severe_action_that_the_score_reaches(score: float, action: str) -> None:
    assert Rule(flag=0.4, review=0.6, block=0.7).judge(score)[0] is Action(action)
