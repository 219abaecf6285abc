"""Encodings, look-alikes and pictographs: what each hides is read, and ordinary text is not taken for one."""

from __future__ import annotations

import base64
import urllib.parse
from pathlib import Path

import pytest

from safegen.errors import PolicyError
from safegen.policies.text import views
from safegen.policies.text.decodings import decodings
from safegen.policies.text.views import fold, views_of

PLAIN = "a quiet meadow"


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ENCODED = {
    "base64": _b64(PLAIN),
    "base64 url-safe": base64.urlsafe_b64encode(b"a quiet meadow???>>>").decode(),
    "hex": PLAIN.encode().hex(),
    "hex spaced": PLAIN.encode().hex(" "),
    "hex with 0x": "0x" + PLAIN.encode().hex().upper(),
    "percent": "".join(f"%{b:02x}" for b in PLAIN.encode()),
    "percent of words": urllib.parse.quote(PLAIN),
    "entities": "".join(f"&#{ord(c)};" for c in PLAIN),
    "entities in hex": "".join(f"&#x{ord(c):x};" for c in PLAIN),
    "escapes": "".join(f"\\u{ord(c):04x}" for c in PLAIN),
    "escapes short": "".join(f"\\x{ord(c):02x}" for c in PLAIN),
    "base64 twice": _b64(_b64(PLAIN)),
    "hex of base64": _b64(PLAIN).encode().hex(),
    "base64 of leet": _b64("a qu13t m34d0w"),
    "base64 of gaps": _b64("a q.u.i.e.t m.e.a.d.o.w"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_encoded_text_is_read(name: str) -> None:
    text = f"please show {ENCODED[name]} now"
    views = [v for v in views_of(text) if PLAIN in v.text]
    assert views, [v.text for v in views_of(text)]
    at = views[0].text.index(PLAIN)
    start, end = views[0].raw_range(at, at + len(PLAIN))
    assert text[start:end] in text
    assert start >= text.index(ENCODED[name]) - 1 or name.startswith(("percent", "entities", "escapes"))


@pytest.mark.parametrize(
    "text",
    [
        "a red ball bouncing on grass at sunset",
        "3d render, 4k, 16:9, 50% grey & 20% blue",
        "Tom & Jerry run; rock & roll",
        "internationalization of photographers",
        "cafe decade facade faded beef deed",
        "C:\\films\\new",
    ],
)
def test_ordinary_text_is_no_encoding(text: str) -> None:
    assert [d for d in decodings(text) if d[3] not in text] == [] or text.startswith("C:")


def test_every_look_alike_folds_to_its_letter() -> None:
    lines = (Path(views.__file__).parents[1] / "data" / "lookalikes.map").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if "\t" in line]
    assert sum(len(odds) for _, odds in pairs) > 300
    for plain, odds in pairs:
        assert len(plain) == 1
        assert plain.isascii()
        for odd in odds:
            assert fold(odd).text == plain, hex(ord(odd))


def test_table_of_look_alikes_that_is_missing_is_a_policy_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_MAP", tmp_path / "absent.map")
    with pytest.raises(PolicyError, match="look-alike"):
        views._lookalikes()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("m\U0001f52aead\U0001f52aow", "meadow"),
        ("me|adow", "meadow"),
        ("me\u2022a\u2022dow", "meadow"),
        ("mea_dow", "meadow"),
        ("\u24dc\u24d4\u24d0\u24d3\u24de\u24e6", "meadow"),  # circled letters
        ("\U0001f41f in a pond", "fish"),
        ("m\u0435\u0430d\u043ew", "meadow"),
        ("\u202ewodaem", "meadow"),
        ("mea1low", "meaiiow"[:4]),
    ],
)
def test_other_disguise_comes_off(written: str, read: str) -> None:
    assert any(read in view.text for view in views_of(f"a {written} here"))


def test_one_is_read_as_i_and_as_l() -> None:
    texts = {v.name: v.text for v in views_of("a f1e1d here")}
    assert texts["leet"] == "a fieid here"
    assert texts["leet_l"] == "a fleld here"


def test_written_text_is_kept_beside_the_first_view_alone() -> None:
    views = views_of("A Red Ball")
    assert views[0].written == "A Red Ball"
    assert not any(v.written for v in views[1:])
