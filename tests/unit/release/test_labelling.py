"""Which labels a clip gets, by policy and by call, and what its manifest says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from safegen.errors import ConfigError, InputError, MediaError
from safegen.keys import KeyStore
from safegen.media import encode_png, encode_video
from safegen.media.aigc import AigcRecord, read_aigc, write_aigc
from safegen.media.labels import WORDINGS
from safegen.policies.pack.loading import list_packs, load_pack
from safegen.provenance.file_signing import sign_file
from safegen.provenance.manifest import MediaFormat, Mode
from safegen.release.labelling import Labelling
from safegen.settings import Home
from safegen.types import ContentId
from tests.unit.provenance.provenance_samples import make_spec

CONTENT = ContentId("0123456789abcdef")
CALL = {"height": 192, "width": 192}


def plan(pack: str | Path, *added: str, producer: str = "home/1", modified: bool = False) -> Labelling:
    return Labelling.plan(load_pack(pack), added, CONTENT, producer=producer, call=CALL, modified=modified)


def pack_file(folder: Path, *lines: str) -> Path:
    head = ("schema: safegen.policy/1", "id: mine", 'version: "1"', "description: mine", "extends: cn")
    path = folder / "mine.yaml"
    path.write_text("\n".join((*head, *lines)), encoding="utf-8")
    return path


def test_the_schema_knows_the_labels_that_can_be_drawn(tmp_path: Path) -> None:
    assert load_pack(pack_file(tmp_path, f"labels: [{', '.join(WORDINGS)}]")).labels == tuple(WORDINGS)
    with pytest.raises(ConfigError, match=r"labels\.0"):
        load_pack(pack_file(tmp_path, "labels: [us]"))


def test_labels_of_the_shipped_packs() -> None:
    labels = {name: load_pack(name).labels for name in list_packs()}
    assert {name: asked for name, asked in labels.items() if asked} == {"cn": ("cn",), "in": ("in",)}


def test_nothing_is_drawn_or_written_by_default(tmp_path: Path) -> None:
    labelling = plan("default")
    assert labelling.overlay(192, 192) is None
    path = tmp_path / "a.png"
    encode_png(np.zeros((32, 32, 3), np.uint8), path)
    before = path.read_bytes()
    labelling.write_metadata(path, "")
    assert path.read_bytes() == before


def test_a_call_adds_to_the_policy_and_takes_nothing_away() -> None:
    assert plan("cn", "eu", "cn").laws == ("cn", "eu")
    assert plan("cn").laws == ("cn",)


def test_only_cn_brings_a_record() -> None:
    assert plan("default", "eu", "in").record is None
    record = plan("default", "cn").record
    assert record is not None
    assert (record.label, record.content_producer, record.produce_id) == ("1", "home/1", CONTENT)


def test_a_policy_names_the_producer(tmp_path: Path) -> None:
    record = plan(pack_file(tmp_path, "content_producer: 001191110000MA0000000012345")).record
    assert record is not None
    assert record.content_producer == "001191110000MA0000000012345"
    with pytest.raises(ConfigError, match="content_producer"):
        load_pack(pack_file(tmp_path, "content_producer: two words"))


def test_what_cannot_be_labelled_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match="no label 'us'"):
        plan("default", "us")
    with pytest.raises(InputError, match="too small"):
        Labelling.plan(
            load_pack("cn"), (), CONTENT, producer="x", call={"height": 32, "width": 32}, modified=False
        )  # fmt: skip
    with pytest.raises(InputError, match="ContentProducer"):
        plan("cn", producer="a name with spaces")


def test_a_size_that_shows_late_fails_the_run() -> None:
    with pytest.raises(MediaError, match="too small"):
        plan("cn").overlay(32, 32)


def test_a_changed_clip_says_modified() -> None:
    overlay = plan("default", "eu", modified=True).overlay(192, 192)
    assert overlay is not None
    assert [label.text for label in overlay.labels] == ["AI MODIFIED"]


def test_the_record_lands_in_the_file_and_failure_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    encode_png(np.zeros((32, 32, 3), np.uint8), path)
    labelling = plan("cn")
    labelling.write_metadata(path, "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia")
    assert [found.record for found in read_aigc(path)] == [labelling.record]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(MediaError, match="AIGC record could not be written"):
        labelling.write_metadata(path, "")


def actions(**changes: object) -> list[dict[str, object]]:
    return make_spec(**changes).definition()["assertions"][0]["data"]["actions"]  # type: ignore[call-overload,index,return-value]


def test_the_manifest_names_what_was_done_after_the_mark() -> None:
    plain = actions()
    labelled = actions(visible_labels=("AI生成",), metadata_labels=("AIGC (GB 45438-2025)",))
    assert labelled[: len(plain)] == plain
    text, metadata = labelled[len(plain) :]
    assert text["action"] == "c2pa.addedText"
    assert str(text["digitalSourceType"]).endswith("/algorithmicMedia")
    assert "AI生成" in str(text["description"])
    assert metadata["action"] == "c2pa.edited.metadata"
    assert "digitalSourceType" not in metadata


def test_source_type_follows_the_mode() -> None:
    assert make_spec().source_type.endswith("/trainedAlgorithmicMedia")
    assert make_spec().mode is Mode.TEXT


@pytest.mark.parametrize("kind", ["mp4", "png"])
def test_signing_keeps_the_record_and_others_find_the_manifest_valid(tmp_path: Path, kind: str) -> None:
    encypher = pytest.importorskip("encypher_c2pa")
    keys = KeyStore.init(Home(tmp_path / "home"))
    path = tmp_path / f"a.{kind}"
    frames = np.random.default_rng(3).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
    encode_video(frames, 8, path) if kind == "mp4" else encode_png(frames[0], path)
    labelling = plan("cn")
    labelling.write_metadata(path, "")
    spec = make_spec(
        media_format=MediaFormat.MP4 if kind == "mp4" else MediaFormat.PNG,
        visible_labels=("AI生成",), metadata_labels=("AIGC (GB 45438-2025)",),
    )  # fmt: skip
    signed = sign_file(path, tmp_path / f"signed.{kind}", spec, keys)
    assert [found.record for found in read_aigc(signed.path)] == [labelling.record]
    options = {"trust_pem": keys.root_pem, "no_default_trust": True, "telemetry": False, "online": False}
    report = encypher.verify(str(signed.path), **options)
    assert report["validation_state"] == "Trusted"
    assert report["validation_results"]["failure"] == []
    strict = encypher.verify(str(signed.path), strict_conformance=True, **options)
    assert {f["code"].rsplit(".", 1)[-1] for f in strict["validation_results"]["failure"]} <= {
        "revocationInformationMissing", "trustedTimeStampMissing",
    }  # fmt: skip
    with pytest.raises(InputError, match="signed"):
        write_aigc(signed.path, AigcRecord("home/1", CONTENT, content_propagator="late"))
