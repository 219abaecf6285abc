"""A chain of derivations (``ledger.audit_queries.Chain``) as a tree on the terminal, and as a picture: SVG or PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont
from rich.text import Text
from rich.tree import Tree

from safegen.errors import InputError
from safegen.types import Json

if TYPE_CHECKING:
    from safegen.ledger.audit_queries import Chain, Link

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 210, 64, 24, 44, 20
MOST_PIXELS: Final = 64_000_000

_FILL: Final = {"file": "#eeeeee", "generated": "#dbeafe", "withdrawn": "#fee2e2"}
_OTHER: Final = "#dcfce7"
_INK: Final = "#1f2937"

Key = int | str
"""A node: an entry's index, or the SHA-256 of a file that no entry is about."""


@dataclass(frozen=True, slots=True)
class Node:
    """A box: its lines, what it stands for (an entry's kind, or "file"), and its upper left corner in pixels."""

    lines: tuple[str, ...]
    kind: str
    x: int = 0
    y: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """Boxes in layers, what comes from something below it, and the arrows between them (from, to, dashed)."""

    nodes: Mapping[Key, Node]
    arrows: tuple[tuple[Key, Key, bool], ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        right = max((n.x for n in self.nodes.values()), default=0) + WIDTH + MARGIN
        return right, max((n.y for n in self.nodes.values()), default=0) + HEIGHT + MARGIN


def tree_of(chain: Chain) -> list[Tree]:
    """Return the chain as trees, from what came first; an entry with two parents stands under both, once in full."""
    nodes, arrows = _graph(chain)
    below: dict[Key, list[Key]] = {}
    for parent, child, _ in arrows:
        below.setdefault(parent, []).append(child)
    told: set[Key] = set()

    def grow(key: Key, under: Tree | None) -> Tree:
        text = "  ".join(nodes[key].lines)
        again = key in told and key in below
        label = Text(f"{text}  (see above)" if again else text)
        tree = Tree(label) if under is None else under.add(label)
        told.add(key)
        for child in [] if again else below.get(key, []):
            grow(child, tree)
        return tree

    children = {child for _, child, _ in arrows}
    return [grow(key, None) for key in nodes if key not in children]


def picture_of(chain: Chain) -> Picture:
    """Lay the chain out: every node one layer below the lowest of what it came from, near the middle of them."""
    nodes, arrows = _graph(chain)
    parents: dict[Key, list[Key]] = {}
    for parent, child, _ in arrows:
        parents.setdefault(child, []).append(parent)
    layer: dict[Key, int] = {}
    for key in nodes:  # files first, then entries in order: what a node came from has its layer already
        layer[key] = 1 + max((layer[p] for p in parents.get(key, ())), default=-1)
    rows: list[list[Key]] = [[] for _ in range(1 + max(layer.values(), default=-1))]
    for key in nodes:
        rows[layer[key]].append(key)
    place: dict[Key, float] = {}
    widest = max(map(len, rows), default=0)
    for row in rows:
        middle = {k: _mean([place[p] for p in parents.get(k, ())]) for k in row}
        row.sort(key=lambda k, middle=middle: middle[k])  # type: ignore[misc]
        for n, key in enumerate(row):
            place[key] = n + (widest - len(row)) / 2
    placed = {
        key: Node(
            node.lines, node.kind, MARGIN + round(place[key] * (WIDTH + GAP_X)), MARGIN + layer[key] * (HEIGHT + GAP_Y)
        )
        for key, node in nodes.items()
    }
    return Picture(placed, arrows)


def to_svg(picture: Picture) -> bytes:
    """Return the picture as SVG."""
    width, height = picture.size
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="12">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{_INK}"/></marker></defs>',
    ]
    for parent, child, dashed in picture.arrows:
        x1, y1, x2, y2 = _ends(picture, parent, child)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        parts.append(f'<path d="M{x1} {y1} {x2} {y2}" stroke="{_INK}"{dash} fill="none" marker-end="url(#tip)"/>')
    for node in picture.nodes.values():
        fill = _FILL.get(node.kind, _OTHER)
        parts.append(
            f'<rect x="{node.x}" y="{node.y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{fill}" stroke="{_INK}"/>'
        )
        for n, line in enumerate(node.lines):
            weight = ' font-weight="bold"' if n == 0 else ""
            parts.append(f'<text x="{node.x + 10}" y="{node.y + 20 + 17 * n}"{weight}>{escape(line)}</text>')
    return ("\n".join([*parts, "</svg>"]) + "\n").encode("utf-8", "replace")


def to_png(picture: Picture) -> bytes:
    """Return the picture as PNG; InputError for one too large to be looked at."""

    if picture.size[0] * picture.size[1] > MOST_PIXELS:
        raise InputError(f"The picture would be {picture.size[0]} pixels wide.", remedy="Write it with --svg.")
    image = Image.new("RGB", picture.size, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    for parent, child, dashed in picture.arrows:
        _arrow(draw, _ends(picture, parent, child), dashed)
    for node in picture.nodes.values():
        box = (node.x, node.y, node.x + WIDTH, node.y + HEIGHT)
        draw.rounded_rectangle(box, 6, fill=_FILL.get(node.kind, _OTHER), outline=_INK)
        for n, line in enumerate(node.lines):
            draw.text((node.x + 10, node.y + 8 + 17 * n), line, fill=_INK, font=font)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _arrow(draw: ImageDraw.ImageDraw, ends: tuple[int, int, int, int], dashed: bool) -> None:
    x1, y1, x2, y2 = ends
    length = max(1.0, ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    step = 9 if dashed else int(length) + 1
    for start in range(0, int(length) + 1, step):
        stop = min(length, start + (5 if dashed else length))
        draw.line((x1 + ux * start, y1 + uy * start, x1 + ux * stop, y1 + uy * stop), fill=_INK)
    base = (x2 - 8 * ux, y2 - 8 * uy)
    tip = [(x2, y2), (base[0] - 4 * uy, base[1] + 4 * ux), (base[0] + 4 * uy, base[1] - 4 * ux)]
    draw.polygon(tip, fill=_INK)


def _ends(picture: Picture, parent: Key, child: Key) -> tuple[int, int, int, int]:
    upper, lower = picture.nodes[parent], picture.nodes[child]
    return upper.x + WIDTH // 2, upper.y + HEIGHT, lower.x + WIDTH // 2, lower.y


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _graph(chain: Chain) -> tuple[dict[Key, Node], tuple[tuple[Key, Key, bool], ...]]:
    """Nodes, files first and then entries in order, and arrows; a link that leads back in time is left out."""
    links = [
        link for link in chain.links if link.entry in chain.rows and (link.parent is None or _forward(chain, link))
    ]
    nodes: dict[Key, Node] = {}
    for link in links:
        if link.parent is None:
            nodes[_source(link)] = Node((link.relation, _source(link)[:24], ""), "file")
    for index, row in sorted(chain.rows.items()):
        nodes[index] = Node(
            (f"entry {index}  {row['kind']}", _named(row), f"{str(row['time'])[:19]}Z"), str(row["kind"])
        )
    arrows = {
        (_source(link) if link.parent is None else link.parent, link.entry, link.relation == "input") for link in links
    }
    return nodes, tuple(sorted(arrows, key=lambda arrow: (arrow[1], str(arrow[0]))))


def _forward(chain: Chain, link: Link) -> bool:
    return link.parent is not None and link.parent in chain.rows and link.parent < link.entry


def _source(link: Link) -> str:
    return f"file {link.sha256[:16]}" if link.sha256 else "entry unknown"


def _named(row: Mapping[str, Json]) -> str:
    damage = "  DAMAGED" if row.get("damage") else ""
    return f"{row['content_id'] or '-'}{damage}"
