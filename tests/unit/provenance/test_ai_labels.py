"""Labels that anybody can write: found and named wherever tools put them, and nothing in them breaks the reader."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from safegen.media.aigc import AigcRecord, write_aigc
from safegen.provenance.ai_labels import aigc
from safegen.provenance.ai_labels.exif_words import add_exif
from safegen.provenance.ai_labels.label import AiLabel, Kind, Word
from safegen.provenance.ai_labels.metadata import MAX_BYTES, MAX_TEXT, Collected, inflated
from safegen.provenance.ai_labels.reading import MAX_LABELS, read_ai_labels
from tests.unit.provenance.provenance_samples import ffmpeg

RECORD = AigcRecord("001191320114777023172010000", "0123456789abcdef")
A1111 = "a paper boat\nNegative prompt: fog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64"
COMFY = json.dumps({"3": {"class_type": "KSampler", "inputs": {"seed": 1}}})
GRAPH = json.dumps({"last_node_id": 9, "nodes": [], "links": []})
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
JOB = "a boat Job ID: 01234567-89ab-cdef-0123-456789abcdef"


def xmp(inner: str = "", attributes: str = "") -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        ' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:dcterms="http://purl.org/dc/terms/"'
        f' xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" {attributes}>{inner}</rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def png(path: Path, *, packed: bool = False, packet: bytes = b"", exif: bytes = b"", **texts: str) -> Path:
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value, zip=packed)
    if packet:
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
    Image.new("RGB", (8, 8)).save(path, "PNG", pnginfo=info, exif=exif)
    return path


def exif_with(**tags: str) -> bytes:
    numbers = {"Software": 0x0131, "Make": 0x010F, "Model": 0x0110, "ImageDescription": 0x010E}
    exif = Image.Exif()
    for name, value in tags.items():
        if name == "UserComment":
            exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + value.encode("utf-16-be")
        else:
            exif[numbers[name]] = value
    return exif.tobytes()


def still(path: Path, **options: Any) -> Path:
    Image.new("RGB", (8, 8)).save(path, **options)
    return path


def clip(path: Path, *options: str) -> Path:
    ffmpeg("-f", "lavfi", "-i", "color=size=16x16:rate=4:duration=0.5", *options, path)
    return path


def told(path: Path) -> list[tuple[str, bool | None]]:
    return [(str(label.kind), label.ai) for label in read_ai_labels(path)]


def only(path: Path) -> AiLabel:
    (label,) = read_ai_labels(path)
    return label


@pytest.mark.parametrize("suffix", ["mp4", "mov", "png", "jpg", "webp"])
def test_the_record_of_gb_45438_was_passed_over(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"file.{suffix}"
    clip(path) if suffix in ("mp4", "mov") else still(path)
    assert told(path) == []
    write_aigc(path, RECORD)
    label = only(path)
    assert (label.kind, label.ai, label.values["content_producer"]) == (Kind.AIGC, True, RECORD.content_producer)


@pytest.mark.parametrize(
    ("text", "ai"),
    [
        (json.dumps({"AIGC": {"Label": "2"}}), True),
        (json.dumps({"Label": "7"}), None),
        ("{", None),
        ("[" * 100_000, None),
        (json.dumps({"Label": ["1"] * 9}), None),
    ],
)
def test_a_record_of_any_form_is_named(text: str, ai: bool | None, tmp_path: Path) -> None:
    assert told(png(tmp_path / "a.png", AIGC=text)) == [("aigc", ai)]


def test_a_record_in_matroska(tmp_path: Path) -> None:
    assert only(clip(tmp_path / "a.mkv", "-metadata", f"AIGC={json.dumps({'Label': '1'})}")).kind is Kind.AIGC


@pytest.mark.parametrize(
    ("term", "ai"),
    [("trainedAlgorithmicMedia", True), ("compositeWithTrainedAlgorithmicMedia", True), ("digitalCapture", False),
     ("screenCapture", None), ("algorithmicMedia", None)],
)  # fmt: skip
@pytest.mark.parametrize("form", ["attribute", "element", "resource"])
def test_the_digital_source_type_in_xmp_was_passed_over(form: str, term: str, ai: bool | None, tmp_path: Path) -> None:
    name = "Iptc4xmpExt:DigitalSourceType"
    packet = {
        "attribute": xmp(attributes=f'{name}="{IPTC}{term}"'),
        "element": xmp(f"<{name}>{IPTC}{term}</{name}>"),
        "resource": xmp(f'<{name} rdf:resource="{IPTC}{term}"/>'),
    }[form]
    label = only(still(tmp_path / "a.jpg", xmp=packet))
    assert (label.kind, label.ai) == (Kind.IPTC, ai)
    assert term in label.says


def test_the_ai_system_that_iptc_names(tmp_path: Path) -> None:
    packet = xmp("<Iptc4xmpExt:AISystemUsed>Some Generator</Iptc4xmpExt:AISystemUsed>")
    assert "Some Generator" in only(still(tmp_path / "a.webp", xmp=packet)).says


def test_xmp_in_avif_tiff_and_svg(tmp_path: Path) -> None:
    packet = xmp(attributes=f'Iptc4xmpExt:DigitalSourceType="{IPTC}trainedAlgorithmicMedia"')
    assert told(still(tmp_path / "a.avif", xmp=packet)) == [("iptc", True)]
    assert told(still(tmp_path / "a.tiff", tiffinfo={700: packet})) == [("iptc", True)]
    (tmp_path / "a.svg").write_bytes(b"<svg><metadata>" + packet + b"</metadata></svg>")
    assert told(tmp_path / "a.svg") == [("iptc", True)]


@pytest.mark.parametrize("suffix", ["avif", "tiff"])
def test_exif_in_avif_and_tiff(suffix: str, tmp_path: Path) -> None:
    path = still(tmp_path / f"a.{suffix}", exif=exif_with(Software="AI generated;txt2img;flux"))
    assert only(path).values["provider"] == "Black Forest Labs FLUX"


@pytest.mark.parametrize(
    ("program", "texts"),
    [
        ("AUTOMATIC1111's web UI or a relative", {"parameters": A1111}),
        ("ComfyUI", {"prompt": COMFY}),
        ("ComfyUI", {"workflow": GRAPH}),
        ("InvokeAI", {"invokeai_metadata": '{"positive_prompt": "a boat"}'}),
        ("InvokeAI", {"sd-metadata": "{}"}),
        ("NovelAI", {"Software": "NovelAI", "Comment": "{}"}),
        ("Fooocus", {"fooocus_scheme": "fooocus", "parameters": "{}"}),
        ("SwarmUI", {"parameters": '{"sui_image_params": {}}'}),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_generation_settings_in_png_texts_were_passed_over(
    program: str, texts: dict[str, str], packed: bool, tmp_path: Path
) -> None:
    label = only(png(tmp_path / "a.png", packed=packed, **texts))
    assert (label.kind, label.values["program"]) == (Kind.PARAMETERS, program)
    assert "boat" not in json.dumps(label.to_json())


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
@pytest.mark.parametrize("tag", ["UserComment", "ImageDescription"])
def test_generation_settings_in_exif_were_passed_over(tag: str, suffix: str, tmp_path: Path) -> None:
    path = still(tmp_path / f"a.{suffix}", exif=exif_with(**{tag: A1111}))
    assert only(path).values["program"] == "AUTOMATIC1111's web UI or a relative"


def test_a_graph_of_nodes_in_webp_and_in_films(tmp_path: Path) -> None:
    assert only(still(tmp_path / "a.webp", exif=exif_with(Make=f"prompt:{COMFY}"))).values["program"] == "ComfyUI"
    for name in ("a.mp4", "a.mkv", "a.mov", "a.webm"):
        path = clip(tmp_path / name, "-metadata", f"comment={json.dumps({'prompt': json.loads(COMFY)})}")
        assert only(path).values["program"] == "ComfyUI"
    path = clip(tmp_path / "b.mp4", "-movflags", "use_metadata_tags", "-metadata", f"prompt={COMFY}")
    assert only(path).values["program"] == "ComfyUI"


def test_a_reference_to_a_manifest_elsewhere_is_named(tmp_path: Path) -> None:
    url = "https://example.org/kept.c2pa"
    label = only(still(tmp_path / "a.jpg", xmp=xmp(attributes=f'dcterms:provenance="{url}"')))
    assert (label.kind, label.ai, label.values["url"]) == (Kind.REFERENCE, None, url)
    assert told(still(tmp_path / "b.jpg", xmp=xmp(attributes='dcterms:provenance="self#jumbf=c2pa/x"'))) == []


@pytest.mark.parametrize(
    ("provider", "make"),
    [
        ("Google", lambda p: still(p / "a.jpg", xmp=xmp(attributes='photoshop:Credit="Made with Google AI"'))),
        ("Black Forest Labs FLUX", lambda p: still(p / "a.jpg", exif=exif_with(Software="AI generated;txt2img;flux"))),
        ("Midjourney", lambda p: png(p / "a.png", Description=JOB)),
        ("TikTok (AI label)", lambda p: clip(p / "a.mp4", "-metadata", 'comment={"aigc_label_type": 1}')),
    ],
)
def test_marks_of_providers(provider: str, make: Any, tmp_path: Path) -> None:
    label = only(make(tmp_path))
    assert (label.kind, label.values["provider"]) == (Kind.PROVIDER, provider)


@pytest.mark.parametrize(
    "texts",
    [
        {"Software": "GIMP 3"}, {"Comment": "Steps: walk up the hill, then turn"}, {"parameters": "none"},
        {"Description": "NovelAIs"}, {"prompt": "what is this?"}, {"aigc_label_type": "1"},
    ],
)  # fmt: skip
def test_plain_words_are_no_label(texts: dict[str, str], tmp_path: Path) -> None:
    assert told(png(tmp_path / "a.png", **texts)) == []


# -- bounds and damage -------------------------------------------------------------------------------------------------


def test_text_that_expands_without_bound_is_cut(tmp_path: Path) -> None:
    body = b"parameters\0\0" + zlib.compress(A1111.encode() + b" " * (64 << 20), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    whole = png(tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk * 40 + whole[33:])
    assert only(tmp_path / "a.png").kind is Kind.PARAMETERS
    found = Collected()
    assert len(inflated(body[12:])) == MAX_TEXT
    for _ in range(100):
        found.text("here", "key", b"x" * MAX_TEXT)
    assert found.full
    assert sum(len(w.value) for w in found.words) <= MAX_BYTES


def test_entities_in_xmp_are_not_expanded(tmp_path: Path) -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]>' + xmp("<photoshop:Credit>&a;</photoshop:Credit>")
    assert told(png(tmp_path / "a.png", packet=bomb)) == []


def test_a_thousand_labels_are_cut(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    for n in range(1000):
        info.add_text("AIGC", json.dumps({"Label": "1", "ContentProducer": str(n)}))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert len(read_ai_labels(tmp_path / "a.png")) == MAX_LABELS


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A file of each container with labels of several kinds in it."""
    folder = tmp_path_factory.mktemp("labelled")
    packet = xmp(attributes=f'Iptc4xmpExt:DigitalSourceType="{IPTC}trainedAlgorithmicMedia"')
    exif = exif_with(UserComment=A1111, Software="NovelAI")
    made = [
        png(folder / "a.png", packet=packet, exif=exif, packed=True, parameters=A1111, prompt=COMFY),
        still(folder / "a.jpg", xmp=packet, exif=exif),
        still(folder / "a.webp", xmp=packet, exif=exif),
        still(folder / "a.avif", xmp=packet, exif=exif),
        clip(folder / "a.mkv", "-metadata", f"comment={COMFY}"),
        clip(folder / "a.mp4", "-metadata", f"comment={COMFY}"),
        clip(folder / "b.mp4"),
    ]
    write_aigc(made[-1], RECORD)
    assert all(told(path) for path in made)
    return [path.read_bytes() for path in made]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_never_breaks_the_reader(labelled: list[bytes], data: st.DataObject, tmp_path_factory: Any) -> None:
    content = bytearray(data.draw(st.sampled_from(labelled)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        fresh = data.draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(fresh)] = fresh
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    assert len(read_ai_labels(path)) <= MAX_LABELS


@settings(max_examples=150, deadline=None)
@given(head=st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1", b"RIFF\0\0\0\0WEBP", b"\x1a\x45\xdf\xa3",
                             b"\0\0\0\x08ftyp", b"\0\0\0\0moov", b""]), tail=st.binary(max_size=400))  # fmt: skip
def test_any_bytes_are_read(head: bytes, tail: bytes, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(head + tail)
    read_ai_labels(path)


@settings(max_examples=200, deadline=None)
@given(block=st.binary(max_size=300), text=st.text(max_size=200))
def test_any_exif_block_and_any_record_are_read(block: bytes, text: str) -> None:
    found = Collected()
    for order in (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        add_exif("EXIF", order + block, found)
    found.packet("XMP", block)
    list(aigc.find([Word("here", "AIGC", text), *found.words]))
