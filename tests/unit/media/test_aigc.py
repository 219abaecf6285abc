"""AIGC labels: the bytes are read by parsers of the tests' own, ffmpeg and Pillow, never by the writer's code alone."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import zlib
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from safegen.errors import InputError, MediaError, UnreadableMediaError
from safegen.media import decode, encode_png, encode_video
from safegen.media.aigc import AigcRecord, read_aigc, write_aigc

RECORD = AigcRecord("001191110000MA00000000AB12C", "0123456789abcdef")
TEXT = (
    '{"Label":"1","ContentProducer":"001191110000MA00000000AB12C","ProduceID":"0123456789abcdef","ReservedCode1":"",'
    '"ContentPropagator":"","PropagateID":"","ReservedCode2":""}'
)
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
KINDS = ("mp4", "png", "jpeg", "webp", "lossless.webp")


def frames(count: int = 8) -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.integers(0, 255, (count, 32, 48, 3), dtype=np.uint8)


def make(folder: Path, kind: str) -> Path:
    path = folder / f"file.{kind}"
    if kind == "mp4":
        encode_video(frames(), 8, path)
    elif kind == "png":
        encode_png(frames()[0], path)
    else:
        Image.fromarray(frames()[0]).save(path, lossless=kind.startswith("lossless"))
    return path


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    return {kind: make(folder, kind).read_bytes() for kind in KINDS}


def put(folder: Path, kind: str, data: bytes) -> Path:
    path = folder / f"file.{kind}"
    path.write_bytes(data)
    return path


# -- independent readers -----------------------------------------------------------------------------------------------


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    while data:
        size, kind = struct.unpack(">I4s", data[:8])
        found.append((kind, data[8:size]))
        data = data[size:]
    return found


def mp4_label(data: bytes) -> tuple[bytes, int, str]:
    """Key, type code and value at moov/udta/meta, each of which must be there once."""
    (moov,) = (body for kind, body in boxes(data) if kind == b"moov")
    (udta,) = (body for kind, body in boxes(moov) if kind == b"udta")
    (meta,) = (body for kind, body in boxes(udta) if kind == b"meta")
    assert meta[:4] == bytes(4)  # version and flags
    inner = dict(boxes(meta[4:]))
    assert list(inner) == [b"hdlr", b"keys", b"ilst"]
    assert inner[b"hdlr"][8:12] == b"mdta"
    assert struct.unpack(">II", inner[b"keys"][:8]) == (0, 1)
    size = int.from_bytes(inner[b"keys"][8:12], "big")
    assert len(inner[b"keys"]) == 8 + size
    ((number, item),) = boxes(inner[b"ilst"])
    assert number == (1).to_bytes(4, "big")
    ((name, value),) = boxes(item)
    assert name == b"data"
    kind, locale = struct.unpack(">II", value[:8])
    assert locale == 0
    return inner[b"keys"][12:], kind, value[8:].decode()


def packet(kind: str, data: bytes) -> bytes:
    """The one XMP packet of an image, found by walking its chunks."""
    found = []
    if kind == "png":
        at = 8
        while at < len(data):
            length, name = struct.unpack(">I4s", data[at : at + 8])
            body = data[at + 8 : at + 8 + length]
            assert zlib.crc32(name + body) == int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
            if name == b"iTXt":
                assert body.startswith(b"XML:com.adobe.xmp\0\0\0\0\0")  # not compressed, no language
                assert b"IDAT" not in data[:at]
                found.append(body[22:])
            at += 12 + length
    elif kind == "jpeg":
        at = 2
        while data[at + 1] != 0xDA:
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            body = data[at + 4 : at + 2 + length]
            if data[at + 1] == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
                found.append(body[29:])
            at += 2 + length
    else:
        assert int.from_bytes(data[4:8], "little") == len(data) - 8
        assert data[12:16] == b"VP8X"
        assert data[20] & 0x04
        at = 12
        while at < len(data):
            name, length = struct.unpack("<4sI", data[at : at + 8])
            if name == b"XMP ":
                found.append(data[at + 8 : at + 8 + length])
            at += 8 + length + length % 2
    (one,) = found
    return one


def ffmpeg_tags(path: Path) -> dict[str, str]:
    """What ffmpeg itself reads as the file's metadata."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "ffmetadata", "-"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.replace("\\", "").partition("=") for line in text.splitlines() if "=" in line]
    return {name: value for name, _, value in lines}


# -- writing -----------------------------------------------------------------------------------------------------------


def test_mp4_label_lies_where_the_standard_says(tmp_path: Path, originals: dict[str, bytes]) -> None:
    path = put(tmp_path, "mp4", originals["mp4"])
    before = list(decode(path))
    write_aigc(path, RECORD)
    assert mp4_label(path.read_bytes()) == (b"mdtaAIGC", 1, TEXT)
    assert ffmpeg_tags(path)["AIGC"] == TEXT
    assert np.array_equal(before, list(decode(path)))


def test_mp4_changes_nothing_but_the_index(tmp_path: Path, originals: dict[str, bytes]) -> None:
    path = put(tmp_path, "mp4", originals["mp4"])
    write_aigc(path, RECORD)
    old, new = boxes(originals["mp4"]), boxes(path.read_bytes())
    assert [kind for kind, _ in old] == [kind for kind, _ in new]
    assert [kind for kind, body in old if (kind, body) not in new] == [b"moov"]


@pytest.mark.parametrize("flags", ["+faststart", "0"])
def test_mp4_with_the_index_before_or_behind(tmp_path: Path, originals: dict[str, bytes], flags: str) -> None:
    source, path = put(tmp_path, "source.mp4", originals["mp4"]), tmp_path / "moved.mp4"
    command = ["-v", "error", "-i", source, "-c", "copy", "-fflags", "+bitexact", "-movflags", flags, path]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *map(str, command)], check=True)
    before = list(decode(path))
    write_aigc(path, RECORD)
    assert mp4_label(path.read_bytes())[2] == TEXT
    assert np.array_equal(before, list(decode(path)))


def test_a_copy_by_ffmpeg_was_refused_for_the_name_that_ffmpeg_leaves_in_it(
    tmp_path: Path, originals: dict[str, bytes]
) -> None:
    source, path = put(tmp_path, "source.mp4", originals["mp4"]), tmp_path / "copy.mp4"
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", source, "-c", "copy", path], check=True)
    assert b"\xa9too" in path.read_bytes()
    before = list(decode(path))
    write_aigc(path, RECORD)
    assert mp4_label(path.read_bytes())[2] == TEXT
    assert np.array_equal(before, list(decode(path)))


def test_the_remedy_for_a_file_with_tags_of_another_kind_works(tmp_path: Path, originals: dict[str, bytes]) -> None:
    source, path, copy = put(tmp_path, "source.mp4", originals["mp4"]), tmp_path / "title.mp4", tmp_path / "copy.mp4"
    titled = ["-v", "error", "-i", source, "-c", "copy", "-metadata", "title=A walk", path]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *map(str, titled)], check=True)
    with pytest.raises(InputError, match="iTunes") as caught:
        write_aigc(path, RECORD)
    (command,) = re.findall(r"ffmpeg (-i FILE .* COPY)", caught.value.remedy)
    words = [{"FILE": str(path), "COPY": str(copy)}.get(word, word) for word in command.split()]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *words], check=True)
    write_aigc(copy, RECORD)
    assert mp4_label(copy.read_bytes())[2] == TEXT


def test_mp4_keeps_other_keys_that_ffmpeg_wrote(tmp_path: Path, originals: dict[str, bytes]) -> None:
    source, path = put(tmp_path, "source.mp4", originals["mp4"]), tmp_path / "tagged.mp4"
    tags = ["-metadata", "one=first", "-metadata", "two=second", "-movflags", "use_metadata_tags"]
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", source, "-c", "copy", *tags, path], check=True
    )
    write_aigc(path, RECORD)
    assert {"one": "first", "two": "second", "AIGC": TEXT}.items() <= ffmpeg_tags(path).items()


def test_a_label_that_ffmpeg_wrote_is_read(tmp_path: Path, originals: dict[str, bytes]) -> None:
    source, path = put(tmp_path, "source.mp4", originals["mp4"]), tmp_path / "tagged.mp4"
    tags = ["-metadata", f"AIGC={TEXT}", "-movflags", "use_metadata_tags"]
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", source, "-c", "copy", *tags, path], check=True
    )
    (found,) = read_aigc(path)
    assert found.record == RECORD


@pytest.mark.parametrize("kind", KINDS[1:])
def test_image_label_lies_in_the_xmp_packet(tmp_path: Path, originals: dict[str, bytes], kind: str) -> None:
    path = put(tmp_path, kind, originals[kind])
    with Image.open(path) as image:
        before = np.asarray(image)
    write_aigc(path, RECORD, source_type=SOURCE)
    text = packet(kind, path.read_bytes()).decode()
    assert 'xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/"' in text
    assert f"<TC260:AIGC>{TEXT}</TC260:AIGC>" in text
    assert f"<Iptc4xmpExt:DigitalSourceType>{SOURCE}</Iptc4xmpExt:DigitalSourceType>" in text
    with Image.open(path) as image:
        assert np.array_equal(before, np.asarray(image))
        pillow = image.info.get("xmp", image.info.get("XML:com.adobe.xmp"))
    assert TEXT in (pillow.decode() if isinstance(pillow, bytes) else pillow)


@pytest.mark.parametrize("kind", KINDS)
def test_writing_twice_leaves_one_label(tmp_path: Path, originals: dict[str, bytes], kind: str) -> None:
    path = put(tmp_path, kind, originals[kind])
    write_aigc(path, RECORD)
    once = path.read_bytes()
    write_aigc(path, RECORD)
    assert path.read_bytes() == once
    assert once.count(b"0123456789abcdef") == 1
    passed_on = AigcRecord(RECORD.content_producer, RECORD.produce_id, content_propagator="P", propagate_id="7")
    write_aigc(path, passed_on)
    assert [found.record for found in read_aigc(path)] == [passed_on]


@pytest.mark.parametrize("kind", KINDS)
def test_anothers_label_stays(tmp_path: Path, originals: dict[str, bytes], kind: str) -> None:
    path = put(tmp_path, kind, originals[kind])
    write_aigc(path, RECORD)
    once = path.read_bytes()
    with pytest.raises(InputError, match="another producer"):
        write_aigc(path, AigcRecord("other", "0123456789abcdef"))
    assert path.read_bytes() == once
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_no_label_is_no_error(tmp_path: Path, originals: dict[str, bytes]) -> None:
    assert all(read_aigc(put(tmp_path, kind, data)) == () for kind, data in originals.items())


@pytest.mark.slow
@given(
    texts=st.lists(st.from_regex(r"[\x21-\x7e]{1,40}", fullmatch=True), min_size=6, max_size=6),
    kind=st.sampled_from(KINDS),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_codes_survive(tmp_path: Path, originals: dict[str, bytes], texts: list[str], kind: str) -> None:
    path = put(tmp_path, kind, originals[kind])
    record = AigcRecord(texts[0], texts[1], "2", *texts[2:])
    write_aigc(path, record)
    (found,) = read_aigc(path)
    assert found.record == record
    if kind == "mp4":
        assert json.loads(mp4_label(path.read_bytes())[2]) == record.to_json()


def test_an_existing_packet_keeps_what_it_says(tmp_path: Path, originals: dict[str, bytes]) -> None:
    other = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<r:Description r:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="image/jpeg"/>'
        b"</r:RDF></x:xmpmeta>"
    )
    for name in ("jpeg", "webp"):
        path = tmp_path / f"other.{name}"
        Image.fromarray(frames()[0]).save(path, xmp=other)
        write_aigc(path, RECORD)
        text = packet(name, path.read_bytes()).decode()
        assert 'dc:format="image/jpeg"' in text
        assert TEXT in text


def test_old_places_are_read_and_not_doubled(tmp_path: Path) -> None:
    wrapped = f'{{"AIGC":{TEXT}}}'
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + wrapped.encode()
    picture = Image.fromarray(frames()[0])
    picture.save(tmp_path / "old.jpeg", exif=exif)
    picture.save(tmp_path / "old.webp", exif=exif)
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("AIGC", wrapped)
    picture.save(tmp_path / "old.png", pnginfo=info)
    for path in tmp_path.iterdir():
        (found,) = read_aigc(path)
        assert found.record == RECORD
        assert "Annex B" in found.place
        with pytest.raises(InputError, match="Annex B"):
            write_aigc(path, RECORD)


def test_alpha_survives_in_webp(tmp_path: Path) -> None:
    rgba = np.dstack([frames()[0], frames()[1][:, :, :1]])
    path = tmp_path / "alpha.webp"
    Image.fromarray(rgba, "RGBA").save(path, lossless=True, exact=True)
    write_aigc(path, RECORD)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image.convert("RGBA")), rgba)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        AigcRecord("", "x"), AigcRecord("x", ""), AigcRecord("two words", "x"), AigcRecord("公司", "x"),
        AigcRecord("x", "y", "4"), AigcRecord("x" * 1025, "y"), AigcRecord("x\n", "y"),
    ],
)  # fmt: skip
def test_records_that_may_not_be_written(tmp_path: Path, originals: dict[str, bytes], record: AigcRecord) -> None:
    path = put(tmp_path, "png", originals["png"])
    with pytest.raises(InputError, match="AIGC"):
        write_aigc(path, record)
    assert path.read_bytes() == originals["png"]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '"x"', '{"Label":1,"ContentProducer":"a","ProduceID":"b"}', '{"Label":"1"}',
        '{"Label":"1","Label":"2","ContentProducer":"a","ProduceID":"b"}', "[" * 40_000, "x" * 70_000,
    ],
)  # fmt: skip
def test_damaged_records(text: str) -> None:
    with pytest.raises(UnreadableMediaError, match="AIGC"):
        AigcRecord.parse(text)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_files_are_refused(tmp_path: Path, originals: dict[str, bytes], kind: str) -> None:
    whole = put(tmp_path, kind, originals[kind])
    write_aigc(whole, RECORD)
    data = whole.read_bytes()
    for keep in {len(data) - 1, len(data) // 2, len(data) // 3, 200, 40, 20}:
        path = put(tmp_path, f"cut.{kind}", data[:keep])
        with pytest.raises(UnreadableMediaError):
            write_aigc(path, RECORD)
        assert path.read_bytes() == data[:keep]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
@given(data=st.data(), kind=st.sampled_from(KINDS))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_ends_in_our_own_errors(
    tmp_path: Path, originals: dict[str, bytes], data: st.DataObject, kind: str
) -> None:
    labelled = put(tmp_path, kind, originals[kind])
    write_aigc(labelled, RECORD)
    content = bytearray(labelled.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(12, min(len(content), 2500) - 1))] = data.draw(st.integers(0, 255))
    labelled.write_bytes(content)
    try:
        read_aigc(labelled)
        write_aigc(labelled, RECORD)
    except (InputError, MediaError):  # of some damage only reading back tells
        assert labelled.read_bytes() == content


def test_signed_files_are_refused(tmp_path: Path, originals: dict[str, bytes]) -> None:
    jumbf = b"\0\0\0\x10jumb" + bytes(8)
    uuid = bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + bytes(8)
    png, jpeg, webp = originals["png"], originals["jpeg"], originals["webp"]
    cabx = struct.pack(">I4s", 16, b"caBX") + jumbf + struct.pack(">I", zlib.crc32(b"caBX" + jumbf))
    chunk = b"C2PA" + struct.pack("<I", 16) + jumbf
    signed = {
        "mp4": originals["mp4"] + struct.pack(">I4s", 8 + len(uuid), b"uuid") + uuid,
        "png": png[:33] + cabx + png[33:],
        "jpeg": jpeg[:2] + b"\xff\xeb" + struct.pack(">H", 18 + 8) + b"JP\0\1\0\0\0\1" + jumbf + jpeg[2:],
        "webp": b"RIFF" + struct.pack("<I", len(webp) - 8 + len(chunk)) + webp[8:] + chunk,
    }
    for kind, content in signed.items():
        path = put(tmp_path, kind, content)
        with pytest.raises(InputError, match="signed"):
            write_aigc(path, RECORD)
        assert path.read_bytes() == content


def test_other_files_are_refused(tmp_path: Path, originals: dict[str, bytes]) -> None:
    gif = tmp_path / "a.gif"
    Image.fromarray(frames()[0]).save(gif)
    with pytest.raises(InputError, match="not written into this format"):
        write_aigc(gif, RECORD)
    fragmented = tmp_path / "fragmented.mp4"
    source = put(tmp_path, "mp4", originals["mp4"])
    flags = ["-c", "copy", "-movflags", "frag_keyframe+empty_moov"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", source, *flags, fragmented], check=True)
    with pytest.raises(InputError, match="no plain MP4"):
        write_aigc(fragmented, RECORD)
    tagged = tmp_path / "tagged.mp4"
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", source, "-c", "copy", "-metadata", "title=x", tagged],
        check=True,
    )
    with pytest.raises(InputError, match="iTunes"):
        write_aigc(tagged, RECORD)
    with pytest.raises(InputError, match="no such file"):
        read_aigc(tmp_path / "none.png")


def test_entities_in_xmp_are_refused(tmp_path: Path) -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaa">]><x xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/">&a;</x>'
    path = tmp_path / "bomb.webp"
    Image.fromarray(frames()[0]).save(path, xmp=bomb)
    with pytest.raises(UnreadableMediaError, match="entities"):
        read_aigc(path)


def test_large_chunk_offsets_do_not_wrap(tmp_path: Path, originals: dict[str, bytes]) -> None:
    data = bytearray(originals["mp4"])
    at = data.index(b"stco")
    data[at + 12 : at + 16] = b"\xff\xff\xff\xff"
    path = put(tmp_path, "mp4", bytes(data))
    with pytest.raises(InputError, match="32-bit"):
        write_aigc(path, RECORD)


def test_memory_stays_bounded(tmp_path: Path, originals: dict[str, bytes]) -> None:
    """A large file is copied in chunks: 96 MB of padding never lie in memory at once."""
    import tracemalloc

    path = tmp_path / "large.mp4"
    with path.open("wb") as file:
        file.write(originals["mp4"] + struct.pack(">I4s", 8 + (96 << 20), b"free"))
        file.truncate(len(originals["mp4"]) + 8 + (96 << 20))
    tracemalloc.start()
    write_aigc(path, RECORD)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert io.BytesIO(path.read_bytes()[:4096]).read().count(b"mdtaAIGC") == 1


def test_a_link_stays_a_link(tmp_path: Path, originals: dict[str, bytes]) -> None:
    path, link = put(tmp_path, "png", originals["png"]), tmp_path / "link.png"
    link.symlink_to(path)
    path.chmod(0o640)
    write_aigc(link, RECORD)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert [found.record for found in read_aigc(path)] == [RECORD]
