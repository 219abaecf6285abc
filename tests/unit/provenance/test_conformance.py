"""The conformance programme's 31 checks: on what we and others sign, on defects, and against its own rubric."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from safegen.errors import SafegenError
from safegen.keys import KeyStore
from safegen.provenance.backends import BACKENDS, Signing
from safegen.provenance.conformance import Check, check_conformance
from safegen.provenance.crjson import read_crjson
from safegen.provenance.file_signing import sign_file
from safegen.provenance.manifest import InputFile, MediaFormat, Mode, Relationship
from safegen.provenance.restoring import Restoration, restore_file
from safegen.provenance.updating import update_file
from safegen.settings import Home
from tests.unit.provenance import node_packages
from tests.unit.provenance.provenance_samples import CONTENT_ID, WHEN, ffmpeg, make_clip, make_spec, make_still

FORMATS = {
    "clip.mp4": MediaFormat.MP4,
    "clip.mov": MediaFormat.MOV,
    "still.png": MediaFormat.PNG,
    "still.jpg": MediaFormat.JPEG,
}
LABELS = {"visible_labels": ("AI-generated",), "metadata_labels": ("AIGC",)}
INPUTS = {
    "text": (Mode.TEXT, ()),
    "image": (Mode.IMAGE, (("still.png", Relationship.INPUT),)),
    "signed image": (Mode.IMAGE, (("signed.png", Relationship.INPUT),)),
    "video": (Mode.VIDEO, (("clip.mp4", Relationship.PARENT),)),
    "signed video and image": (Mode.VIDEO, (("signed.mp4", Relationship.PARENT), ("still.jpg", Relationship.INPUT))),
}


@dataclass(frozen=True, slots=True)
class Studio:
    """A home's keys, and files to sign: unsigned ones and ``signed.*``."""

    folder: Path
    keys: KeyStore

    def sign(self, name: str, target: Path, backend: str = "c2pa-python", **changes: Any) -> Path:
        spec = make_spec(self.keys, media_format=FORMATS[name], **changes)
        signing = Signing(BACKENDS[backend])
        return sign_file(self.folder / name, target, spec, self.keys, signing=signing).path


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    folder = tmp_path_factory.mktemp("studio")
    made = Studio(folder, KeyStore.init(Home(folder / "home")))
    clip, still = make_clip(folder / "clip.mp4"), make_still(folder / "still.png")
    ffmpeg("-i", clip, "-c", "copy", folder / "clip.mov")
    ffmpeg("-i", still, folder / "still.jpg")
    made.sign("clip.mp4", folder / "signed.mp4")
    made.sign("still.png", folder / "signed.png", "native")
    return made


@pytest.fixture(scope="module")
def ours(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The crJSON of everything that we sign, by scenario."""
    found, folder = {}, tmp_path_factory.mktemp("ours")
    for backend, name, (inputs, (mode, files)) in itertools.product(BACKENDS, FORMATS, INPUTS.items()):
        ingredients = tuple(InputFile(studio.folder / file, relationship) for file, relationship in files)
        for labels in ({}, LABELS) if inputs == "text" else (LABELS,):
            scenario = f"{backend}, {name}, {inputs}{', labels' if labels else ''}"
            path = folder / f"{len(found)}-{name}"
            studio.sign(name, path, backend, mode=mode, ingredients=ingredients, **labels)
            found[scenario] = read_crjson(path, signers_pem=studio.keys.root_pem)
    return found


@pytest.fixture(scope="module")
def good(ours: dict[str, Any]) -> dict[str, Any]:
    """A document that passes, with every kind of thing that a check looks at."""
    document: dict[str, Any] = ours["native, clip.mp4, signed video and image, labels"]
    return document


def failed(checks: tuple[Check, ...]) -> dict[str, str]:
    return {check.id.removeprefix("validation:"): check.detail for check in checks if not check.passed}


@pytest.mark.slow
def test_all_that_we_sign_passes_all_checks(ours: dict[str, Any]) -> None:
    assert len(ours) == 2 * 4 * 6
    for scenario, document in ours.items():
        checks = check_conformance(document)
        assert len({check.id for check in checks}) == 31
        assert failed(checks) == {}, scenario
        assert all(check.summary and not check.detail for check in checks)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("sidecar", [False, True])
def test_what_we_restore_passes_all_checks(studio: Studio, tmp_path: Path, name: str, *, sidecar: bool) -> None:
    """Although its parent's hard binding does not match: that is the parent's state, recorded, and not its own."""
    kept = sign_file(
        studio.folder / name, tmp_path / f"first-{name}", make_spec(media_format=FORMATS[name]), studio.keys
    ).manifest_bytes
    changed = tmp_path / f"changed-{name}"
    ffmpeg("-i", studio.folder / name, "-vf", "negate", *(("-pix_fmt", "yuv420p") if "clip" in name else ()), changed)
    beside = (tmp_path / f"restored-{name}").with_suffix(".c2pa") if sidecar else None
    restored = restore_file(
        changed, tmp_path / f"restored-{name}", kept, Restoration(CONTENT_ID, ("org.safegen.x.1",), WHEN), studio.keys,
        anchors_pem=studio.keys.root_pem, sidecar=beside,
    )  # fmt: skip
    document = read_crjson(restored.path, signers_pem=studio.keys.root_pem)
    assert len(document["manifests"]) == 2
    assert failed(check_conformance(document)) == {}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FORMATS)
def test_what_we_sign_again_passes_all_checks(studio: Studio, tmp_path: Path, name: str, backend: str) -> None:
    """An update manifest, which has no hard binding of its own."""
    first, signing = studio.sign(name, tmp_path / name), Signing(BACKENDS[backend])
    options = {"anchors_pem": studio.keys.root_pem, "signing": signing}
    update_file(first, tmp_path / f"again-{name}", studio.keys, **options)
    document = read_crjson(tmp_path / f"again-{name}", signers_pem=studio.keys.root_pem)
    assert [m["isUpdateManifest"] for m in document["manifests"]] == [True, False]
    assert failed(check_conformance(document)) == {}


# -- defects -----------------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]


def actions(m: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = m["assertions"]["c2pa.actions.v2"]["actions"]
    return found


def add(name: str, /, **data: Any) -> Change:
    return lambda m: m["assertions"].__setitem__(name, data)


def act(name: str, **data: Any) -> Change:
    return lambda m: actions(m).append({"action": name, **data})


def parent(**data: Any) -> Change:
    return lambda m: m["assertions"]["c2pa.ingredient.v3"].update(data)


def failure(code: str) -> Change:
    return lambda m: m["validationResults"]["failure"].append({"code": code})


def generator(**data: Any) -> Change:
    return lambda m: m["claim.v2"]["claim_generator_info"].update(data)


def only_opened(m: dict[str, Any]) -> None:
    del actions(m)[1:]
    m["assertions"]["c2pa.actions.v2"]["allActionsIncluded"] = False


def created_second(m: dict[str, Any]) -> None:
    actions(m)[:2] = [actions(m)[1], {"action": "c2pa.created", "digitalSourceType": "x"}]


def older_actions_first(m: dict[str, Any]) -> None:
    m["claim.v2"]["created_assertions"].insert(0, {"url": "self#jumbf=c2pa.assertions/c2pa.actions"})


def no_created_actions(m: dict[str, Any]) -> None:
    m["claim.v2"]["created_assertions"] = []


def tiff_boxes(m: dict[str, Any]) -> None:
    m["assertions"] |= {"c2pa.hash.boxes": {}, "c2pa.asset-type.v2": {"dc:format": "image/tiff"}}


BOTH = {"multiAssetPartIndex": 1, "embeddedOriginalPreservationImage": {}}
DEFECTS: list[tuple[str, Change, set[str]]] = [
    ("edited without a source type", act("c2pa.cropped"), {"mandatory_dst_for_perceptible_transformations"}),
    ("no spec version", generator(specVersion=None), {"mandatory_spec_version"}),
    ("another spec version", generator(specVersion="2.2.0"), {"mandatory_spec_version"}),
    ("spec version 2.40", generator(specVersion="2.40"), {"mandatory_spec_version"}),
    ("spec version as a number", generator(specVersion=2.4), {"mandatory_spec_version"}),
    ("actions that may be incomplete", add("org.example.more", actions=[]), {"mandatory_all_actions_included"}),
    ("opened with a source type", lambda m: actions(m)[0].update(digitalSourceType="x"), {"no_dst_for_opened_action"}),
    ("malformed", failure("assertion.ingredient.malformed"), {"well_formed_success"}),
    ("mismatched", failure("assertion.bmffHash.mismatch"), {"valid_success"}),
    ("created comes second", created_second, {"inception_action_position"}),
    ("older actions come first", older_actions_first, {"inception_action_position"}),
    ("actions only gathered", no_created_actions, {"inception_action_position"}),
    ("deprecated hash", add("c2pa.hash.bmff.v2"), {"no_deprecated_assertions"}),
    ("deprecated namespace", add("stds.exif"), {"no_deprecated_assertions"}),
    ("unknown assertion", add("c2pa.claims"), {"no_unsupported_assertions"}),
    ("deprecated action", act("c2pa.watermarked"), {"no_deprecated_actions"}),
    ("unknown action", act("c2pa.sharpened", digitalSourceType="x"), {"no_unsupported_actions"}),
    ("assertion without namespace", add("notes"), {"no_unrecognized_custom_assertions"}),
    ("action without namespace", act("sharpened"), {"no_unrecognized_custom_actions"}),
    ("action without name", lambda m: actions(m).append({}), {"no_unrecognized_custom_actions"}),
    (
        "parameter without namespace",
        act("c2pa.published", parameters={"to": 1, "org.example.to": 1}),
        {"no_unrecognized_custom_action_parameters"},
    ),
    (
        "description among parameters",
        act("c2pa.published", parameters={"description": "x"}),
        {"discouraged_legacy_action_parameters"},
    ),
    ("old label", lambda m: m.update(label="urn:uuid:1"), {"active_manifest_urn"}),
    (
        "rated by a human's own entry",
        add("org.example.rated", reviewRatings=[], dataSource={"type": "humanEntry.anonymous"}),
        {"review_ratings_datasource"},
    ),
    ("results without a manifest", parent(activeManifest=None), {"ingredient_v3_no_active_manifest"}),
    ("manifest without results", parent(validationResults=None), {"ingredient_v3_mandatory_validation_results"}),
    ("unknown relationship", parent(relationship="friendOf"), {"ingredient_relationship_values"}),
    ("created without a source type", act("c2pa.created"), {"mandatory_dst_for_created_action"}),
    ("version in the claim", lambda m: m["claim.v2"].update(specVersion="2.4"), {"no_deprecated_claim_fields"}),
    ("manifest and source type", parent(digitalSourceType="x"), {"ingredient_v3_choice"}),
    (
        "original image twice",
        add("org.example.image", type="exif.originalPreservationImage", parameters=BOTH),
        {"alternative_content_representation_choice"},
    ),
    (
        "original image nowhere",
        add("org.example.image", parameters={"type": "exif.originalPreservationImage"}),
        {"alternative_content_representation_choice"},
    ),
    (
        "hash by reference",
        add("c2pa.external-reference", label="c2pa.hash.data", url="x"),
        {"forbidden_labels_in_external_references"},
    ),
    (
        "actions by reference",
        add("c2pa.external-reference", label="c2pa.actions.v2", url="x"),
        {"forbidden_labels_in_external_references"},
    ),
    ("hash with an address", lambda m: m["assertions"]["c2pa.hash.bmff.v3"].update(url="x"), {"no_url_in_hashes"}),
    ("opened and saved, incomplete", only_opened, {"all_actions_included_opened"}),
    ("opened without ingredient", lambda m: actions(m)[0].pop("parameters"), {"opened_action_ingredient_reference"}),
    (
        "opened with two ingredients",
        lambda m: actions(m)[0]["parameters"]["ingredients"].append({}),
        {"opened_action_ingredient_reference"},
    ),
    ("boxes of a TIFF", tiff_boxes, {"no_box_hash_for_tiff"}),
    (
        "not validated",
        lambda m: m.pop("validationResults"),
        {"well_formed_data_present", "well_formed_success", "valid_data_present", "valid_success"},
    ),
]


def defective(good: dict[str, Any], change: Change) -> dict[str, Any]:
    document = copy.deepcopy(good)
    change(document["manifests"][0])
    return document


@pytest.mark.slow
@pytest.mark.parametrize(("change", "wanted"), [(c, w) for _, c, w in DEFECTS], ids=[name for name, _, _ in DEFECTS])
def test_a_defect_fails_its_check_and_no_other(good: dict[str, Any], change: Change, wanted: set[str]) -> None:
    found = failed(check_conformance(defective(good, change)))
    assert set(found) == wanted
    assert all(found.values())


@pytest.mark.slow
def test_every_check_has_a_defect(good: dict[str, Any]) -> None:
    every = {check.id.removeprefix("validation:") for check in check_conformance(good)}
    assert set().union(*(wanted for _, _, wanted in DEFECTS)) == every


def test_details_can_be_printed(good: dict[str, Any]) -> None:
    found = failed(check_conformance(defective(good, add("\x1b[31m" + 10_000 * "x"))))
    (detail,) = found.values()
    assert detail.isprintable()
    assert len(detail) < 200


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["c2pa.opened", "c2pa.x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["manifests", "assertions", "claim.v2", "validationResults", "failure", "code", "actions", "action",
         "parameters", "ingredients", "relationship", "label", "url", "c2pa.actions.v2", "c2pa.hash.data",
         "claim_generator_info", "specVersion", "created_assertions", "dataSource", "type"]
    ) | st.text(max_size=3), inner, max_size=4),
    max_leaves=30,
)  # fmt: skip


@pytest.mark.slow
@given(json_values, json_values, json_values)
def test_anything_is_judged(anything: Any, assertions: Any, claim: Any) -> None:
    for document in (anything, {"manifests": [{"assertions": assertions, "claim.v2": claim}]}):
        checks = check_conformance(document)
        assert len(checks) == 31
        assert all(check.passed is not bool(check.detail) and check.detail.isprintable() for check in checks)


# -- against the programme's own rubric --------------------------------------------------------------------------------


def rubric_file() -> Path:
    """The published rubric: not part of this repository, so from the shared data or where SAFEGEN_RUBRIC says."""
    given_path = os.environ.get("SAFEGEN_RUBRIC")
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "c2pa"
    found = [Path(given_path)] if given_path else sorted(beside.glob("asset-rubric-conformance0.2-spec2.4*.yml"))
    if not found:
        pytest.skip("needs the published rubric: set SAFEGEN_RUBRIC to asset-rubric-conformance0.2-spec2.4.yml")
    return found[0]


def official(documents: list[Any]) -> list[dict[str, Any]]:
    head, checks = yaml.safe_load_all(rubric_file().read_text("utf-8"))
    variables = head["variables"] | {"$expected_spec_version": "2.4"}
    rubric = {"variables": variables, "expressions": head["expressions"], "checks": checks}
    answers: list[dict[str, Any]] = node_packages.run("rubric.mjs", {"rubric": rubric, "documents": documents})
    return answers


def assert_agreement(documents: dict[str, Any]) -> None:
    for (name, document), answer in zip(documents.items(), official(list(documents.values())), strict=True):
        mine = {check.id: check.passed for check in check_conformance(document)}
        assert mine == {key: value is True for key, value in answer.items()}, name


@pytest.mark.slow
def test_agrees_with_the_published_rubric_on_ours_and_on_defects(ours: dict[str, Any], good: dict[str, Any]) -> None:
    assert_agreement(ours | {name: defective(good, change) for name, change, _ in DEFECTS} | {"nothing": {}})


@pytest.mark.slow
def test_agrees_with_the_published_rubric_on_the_files_of_others(shared_data: Path) -> None:
    documents = {}
    for path in sorted(p for p in (shared_data / "c2pa").rglob("*") if p.is_file()):
        try:
            documents[path.name] = read_crjson(path)
        except SafegenError:
            continue  # read as manifests by nobody
    assert sum(bool(d["manifests"]) for d in documents.values()) > 30
    assert_agreement(documents)
