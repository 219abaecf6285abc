"""What the round trip of a VAE's latents gave: rows of gains, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safegen.types import Json


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of change. ``drawn``: gain in the decoded clip, and ``share`` of the drawn energy that was wanted (of
    white changes, which want nothing in pixels, 1); ``psnr`` is the cost in pixels, in dB. ``canvas`` and ``latents``
    are gains by attack. The canvas is compared with what the attack makes of the wanted pattern, as if it had been
    aligned; latents are compared as they lie.
    """

    group: str  # "band", "mark" or "white"
    name: str
    drawn: float
    share: float
    psnr: float
    canvas: Mapping[str, float]
    latents: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """All that ``measure`` found.

    ``natural``: by attack, the gain of the clips' own latents and the share of their energy that comes back.
    ``linearity``: by level, the gain relative to the smallest level. ``invariance``: by "direction time", the share of
    an impulse's response that is the same at all places of all clips (0 to 1; the rest depends on place or content).
    """

    clips: int
    rows: tuple[Row, ...]
    natural: Mapping[str, Mapping[str, float]]
    linearity: Mapping[str, float]
    invariance: Mapping[str, float]

    def to_json(self) -> dict[str, Json]:
        """Return the findings as plain JSON values."""
        rows: list[Json] = [
            {
                "group": r.group, "name": r.name, "drawn": _short(r.drawn), "share": _short(r.share),
                "psnr": round(r.psnr, 2), "canvas": {k: _short(v) for k, v in r.canvas.items()},
                "latents": {k: _short(v) for k, v in r.latents.items()},
            }
            for r in self.rows
        ]  # fmt: skip
        return {
            "clips": self.clips,
            "rows": rows,
            "natural": {k: {n: _short(v) for n, v in found.items()} for k, found in self.natural.items()},
            "linearity": {k: _short(v) for k, v in self.linearity.items()},
            "invariance": {k: _short(v) for k, v in self.invariance.items()},
        }

    def to_markdown(self) -> str:
        """Return the findings as markdown: one table of gains, and what does not fit into it in words."""
        tried = list(self.natural)
        head = ["change", "drawn", "share", "PSNR", *(f"{a}: pixels / latents" for a in tried)]
        lines = [_line(head), _line(["---"] + ["---:"] * (len(head) - 1))]
        for r in self.rows:
            shown = [f"{r.drawn:.2f}", f"{r.share:.2f}"] if r.group != "white" else ["", ""]
            gains = [f"{r.canvas[a]:.2f} / {r.latents[a]:.2f}" for a in tried]
            lines.append(_line([_LABEL[r.group].format(r.name), *shown, f"{r.psnr:.1f}", *gains]))
        lines.append(
            _line(["the clips' own latents", "", "", "", *(f"/ {self.natural[a]['gain']:.2f}" for a in tried)])
        )
        kept = ", ".join(f"{a} {f['kept']:.0%}" for a, f in self.natural.items())
        linear = ", ".join(f"level {level}: {gain:.3f}" for level, gain in self.linearity.items())
        alike = ", ".join(f"{name} {share:.0%}" for name, share in self.invariance.items())
        lines += [
            "",
            f"Energy of the clips' own latents that comes back: {kept}.",
            "",
            f"Gain of the mark's pattern in the decoded clip, relative to the smallest level: {linear}.",
        ]
        if alike:
            lines += ["", f"Share of an impulse's response that is the same at all places of all clips: {alike}."]
        return "\n".join(lines) + "\n"


_LABEL = {"band": "{}", "mark": "{}", "white": "white, {}"}


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean over clips of one kind of change."""
    first, n = rows[0], len(rows)
    drawn, share, psnr = (sum(getattr(r, name) for r in rows) / n for name in ("drawn", "share", "psnr"))
    canvas = {a: sum(r.canvas[a] for r in rows) / n for a in first.canvas}
    latents = {a: sum(r.latents[a] for r in rows) / n for a in first.latents}
    return Row(first.group, first.name, drawn, share, psnr, canvas, latents)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _short(value: float) -> float:
    return round(value, 3)
