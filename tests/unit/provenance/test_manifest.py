"""The manifest definition, without the C2PA library."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from safegen.errors import ProvenanceError
from safegen.keys import commit_text
from safegen.provenance.manifest import COMPOSITE, GENERATED, InputFile, ManifestSpec, Mode, Relationship
from safegen.version import __version__
from tests.unit.provenance.provenance_samples import ALG, CONTENT_ID, make_spec

PARENT = InputFile(Path("parent.mp4"), Relationship.PARENT)
INPUT = InputFile(Path("input.png"), Relationship.INPUT)
COMPONENT = InputFile(Path("part.png"), Relationship.COMPONENT)


def assertions(spec: ManifestSpec) -> dict[str, Any]:
    definition: Any = json.loads(json.dumps(spec.definition()))
    return {a["label"]: a["data"] for a in definition["assertions"]}


def actions(spec: ManifestSpec) -> list[dict[str, Any]]:
    data = assertions(spec)["c2pa.actions.v2"]
    assert data["allActionsIncluded"] is True
    found: list[dict[str, Any]] = data["actions"]
    return found


def test_claim_is_version_2_by_safegen() -> None:
    definition = make_spec().definition()
    assert definition["claim_version"] == 2
    assert definition["claim_generator_info"] == [{"name": "safegen", "version": __version__, "specVersion": "2.4.0"}]


def test_inception_comes_first_and_is_created() -> None:
    definition: Any = make_spec().definition()
    assert definition["assertions"][0]["label"] == "c2pa.actions.v2"
    assert definition["assertions"][0]["created"] is True


def test_text_to_video() -> None:
    created, watermarked = actions(make_spec())
    assert created["action"] == "c2pa.created"
    assert created["digitalSourceType"] == GENERATED
    assert created["softwareAgent"] == {"name": "tiny video model", "version": "1.2.3"}
    assert created["when"] == "2026-07-01T12:00:00Z"
    assert "parameters" not in created
    assert watermarked["action"] == "c2pa.watermarked.bound"


def test_image_to_video_names_its_input() -> None:
    created = actions(make_spec(mode=Mode.IMAGE, ingredients=(INPUT,)))[0]
    assert created["action"] == "c2pa.created"
    assert created["parameters"] == {"ingredientIds": [INPUT.instance_id]}


def test_video_to_video_opens_its_parent_then_edits() -> None:
    opened, edited, _ = actions(make_spec(mode=Mode.VIDEO, ingredients=(PARENT, INPUT)))
    assert opened["action"] == "c2pa.opened"
    assert opened["parameters"] == {"ingredientIds": [PARENT.instance_id]}
    assert "digitalSourceType" not in opened
    assert edited["action"] == "c2pa.edited"
    assert edited["digitalSourceType"] == COMPOSITE
    assert edited["parameters"] == {"ingredientIds": [INPUT.instance_id]}


def test_assertions_say_what_was_made_and_how() -> None:
    commitment = commit_text("x", bytes(32), bytes(16))
    found = assertions(make_spec(prompt_commitment=commitment))
    assert found["c2pa.soft-binding"]["alg"] == ALG
    assert found["c2pa.soft-binding"]["blocks"] == [{"scope": {}, "value": "00ff10"}]
    assert found["c2pa.ai-disclosure"]["modelIdentifier"] == "example/tiny-video"
    assert {e["use"] for e in found["cawg.training-mining"]["entries"].values()} == {"notAllowed"}
    assert found["org.safegen.generation"] == {
        "contentId": CONTENT_ID,
        "mode": "text-to-video",
        "runId": "run-7",
        "promptCommitment": {"alg": "hmac-sha256", "value": commitment["value"]},
    }


def test_without_a_mark_nothing_is_said_of_one() -> None:
    spec = make_spec(soft_binding=None)
    assert [a["action"] for a in actions(spec)] == ["c2pa.created"]
    assert "c2pa.soft-binding" not in assertions(spec)


@pytest.mark.parametrize(
    ("mode", "ingredients"),
    [
        (Mode.TEXT, (INPUT,)),
        (Mode.IMAGE, ()),
        (Mode.IMAGE, (PARENT,)),
        (Mode.IMAGE, (INPUT, COMPONENT)),
        (Mode.VIDEO, ()),
        (Mode.VIDEO, (INPUT,)),
        (Mode.VIDEO, (PARENT, PARENT)),
        (Mode.VIDEO, (PARENT, COMPONENT)),
    ],
)
def test_ingredients_that_do_not_fit_the_mode(mode: Mode, ingredients: tuple[InputFile, ...]) -> None:
    with pytest.raises(ProvenanceError, match="does not go with"):
        make_spec(mode=mode, ingredients=ingredients)


def test_time_without_zone() -> None:
    with pytest.raises(ProvenanceError, match="time zone"):
        make_spec(when=dt.datetime(2026, 7, 1))


def test_malformed_commitment() -> None:
    with pytest.raises(ProvenanceError, match="commitment lacks"):
        make_spec(prompt_commitment={"alg": "hmac-sha256"}).definition()


def test_titles_of_inputs_do_not_tell_file_names() -> None:
    assert "private holiday" not in json.dumps(InputFile(Path("private holiday.png"), Relationship.INPUT).definition())


def test_models_do_not_load_the_c2pa_library() -> None:
    code = "import sys, safegen.provenance.manifest, safegen.provenance.kept_manifests; sys.exit('c2pa' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
