"""Chains of derivations as trees and pictures: what they show, and chains that cannot be."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import pytest
from PIL import Image
from rich.console import Console

from safegen.audit.picture import GAP_X, HEIGHT, WIDTH, picture_of, to_png, to_svg, tree_of
from safegen.errors import InputError
from safegen.ledger.audit_queries import Chain, Link
from safegen.types import Json

SVG = "{http://www.w3.org/2000/svg}"


def row(index: int, kind: str = "generated", **more: Json) -> dict[str, Json]:
    return {"entry": index, "kind": kind, "content_id": f"{index:016x}", "time": "2026-11-23T00:00:00.000000Z", **more}


def chain(count: int, *links: Link) -> Chain:
    return Chain({n: row(n) for n in range(count)}, links, True)


def lines(shown: Chain) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False)
    for tree in tree_of(shown):
        console.print(tree)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_an_entry_made_of_two_stands_under_both_and_goes_on_once() -> None:
    shown = chain(4, Link(2, "input", 0, "a"), Link(2, "input", 1, "b"), Link(3, "resigned", 2, "c"))
    told = lines(shown)
    assert [line.lstrip("│├└─ ").split("  ")[0] for line in told] == [
        "entry 0",
        "entry 2",
        "entry 3",
        "entry 1",
        "entry 2",
    ]
    assert told[-1].endswith("(see above)")
    picture = picture_of(shown)
    assert picture.arrows == ((0, 2, True), (1, 2, True), (2, 3, False))
    tops = {key: node.y for key, node in picture.nodes.items()}
    assert tops[0] == tops[1] < tops[2] < tops[3]
    assert abs(picture.nodes[1].x - picture.nodes[0].x) == WIDTH + GAP_X
    assert picture.size[1] > tops[3] + HEIGHT


def test_files_that_the_ledger_does_not_know_are_shown() -> None:
    shown = chain(1, Link(0, "input", None, "ab" * 32), Link(0, "recovered", None, None))
    assert [line for line in lines(shown) if line.startswith(("input", "recovered"))] == [
        "input  file abababababababab", "recovered  entry unknown",
    ]  # fmt: skip
    assert len(picture_of(shown).nodes) == 3


def test_links_that_lead_in_a_circle_or_nowhere_are_left_out() -> None:
    shown = chain(
        3, Link(0, "input", 2, "x"), Link(1, "input", 1, "y"), Link(2, "resigned", 0, "z"), Link(1, "input", 9, "w")
    )
    assert picture_of(shown).arrows == ((0, 2, False),)
    assert len(lines(shown)) == 3


def test_damage_shows_and_no_text_breaks_the_picture() -> None:
    shown = Chain({0: row(0, kind="<&>\"' ö", damage="wrong leaf")}, (), True)
    texts = [text.text for text in ET.fromstring(to_svg(picture_of(shown))).iter(f"{SVG}text")]
    assert texts[0] == "entry 0  <&>\"' ö"
    assert "DAMAGED" in str(texts[1])
    assert "DAMAGED" in lines(shown)[0]


def test_both_pictures_have_a_box_for_each_entry() -> None:
    picture = picture_of(chain(3, Link(1, "input", 0, "x"), Link(2, "resigned", 1, "y")))
    svg = ET.fromstring(to_svg(picture))
    assert (int(svg.attrib["width"]), int(svg.attrib["height"])) == picture.size
    assert len(list(svg.iter(f"{SVG}rect"))) == 3
    image = Image.open(io.BytesIO(to_png(picture))).convert("RGB")
    assert image.size == picture.size
    inside = [image.getpixel((node.x + WIDTH - 5, node.y + HEIGHT // 2)) for node in picture.nodes.values()]
    assert set(inside) == {(0xDB, 0xEA, 0xFE)}
    assert to_svg(picture_of(chain(0))).startswith(b"<svg")


def test_a_picture_that_is_too_large_is_refused() -> None:
    with pytest.raises(InputError, match="pixels"):
        to_png(picture_of(chain(4000)))
