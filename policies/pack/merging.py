"""How packs are put together: an overlay laid on a base, and several packs that hold at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

THRESHOLDS = ("flag", "rewrite", "review", "block")
"""Mildest first."""
_STATED = ("id", "version", "description", "schema")  # each file states its own


class ContradictionError(Exception):
    """Two packs that are to hold at once want different things. ``where`` is the field."""

    def __init__(self, where: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.where = where


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``over`` laid on ``base``: fields merge; a rule's thresholds are replaced as one; classifiers are added.

    A classifier of a name that the base has replaces that one in its place. So it is with probes.
    """
    merged = {k: v for k, v in base.items() if k != "extends"}
    for key, value in over.items():
        if key == "extends":
            continue
        old = merged.get(key)
        if key in ("classifiers", "probes") and isinstance(old, list) and isinstance(value, list):
            merged[key] = _classifiers(old, value)
        elif key in ("labels", "jurisdictions") and isinstance(old, list) and isinstance(value, list):
            merged[key] = [*value, *(v for v in old if v not in value)]
        elif isinstance(old, Mapping) and isinstance(value, Mapping):
            if set(value) & set(THRESHOLDS):
                merged[key] = {k: v for k, v in old.items() if k not in THRESHOLDS} | dict(value)
            else:
                merged[key] = overlay(old, value)
        else:
            merged[key] = value
    return merged


def strictest(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the effective packs as one that is as strict as each of them. Raises ContradictionError where none is."""
    merged = dict(documents[0])
    for other in documents[1:]:
        merged = _both(merged, other)
    return merged


def _both(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {**b, **a}
    order = ("allow", "flag", "review", "block")
    out["defaults"] = {
        key: min(v) if key == "time_limit_s" else max(v, key=order.index)
        for key, v in _pairs(a["defaults"], b["defaults"]).items()
    }
    out["text"] = {"classifiers": _required_by_either(a["text"]["classifiers"], b["text"]["classifiers"])}
    out["categories"] = {k: _rule(v) for k, v in _pairs(a["categories"], b["categories"]).items()}
    f, g = a["frames"], b["frames"]
    out["frames"] = {
        "classifiers": _required_by_either(f["classifiers"], g["classifiers"]),
        "sample_fps": max(f["sample_fps"], g["sample_fps"]),
        "min_hits": min(f["min_hits"], g["min_hits"]),
        "classes": _same(f["classes"], g["classes"], ("frames", "classes")),
        "categories": {k: _rule(v) for k, v in _pairs(f["categories"], g["categories"]).items()},
    }
    remedies = {k: v for k, v in f.get("remedies", {}).items() if g.get("remedies", {}).get(k) == v}
    if remedies:  # what either pack wants stopped is stopped
        out["frames"]["remedies"] = remedies
    for key in ("labels", "jurisdictions"):
        both = [*a.get(key, []), *(v for v in b.get(key, []) if v not in a.get(key, []))]
        if both:
            out[key] = both
    if "probes" in a or "probes" in b:
        out["probes"] = _probes(a.get("probes", []), b.get("probes", []))
    if "content_producer" in a and "content_producer" in b and a["content_producer"] != b["content_producer"]:
        raise ContradictionError(("content_producer",), "the packs that are extended name different ones")
    if "record_text" in a or "record_text" in b:
        said = {a.get("record_text", "commitment"), b.get("record_text", "commitment")}
        out["record_text"] = "clear" if said == {"clear"} else "commitment"
    if "rewrite" in a or "rewrite" in b:
        out["rewrite"] = _rewrite(a.get("rewrite", {}), b.get("rewrite", {}))
    return out


def _probes(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the probes of both; one that either requires is required."""
    named = {entry["use"]: dict(entry) for entry in a}
    for entry in b:
        held = named.setdefault(entry["use"], dict(entry))
        if held.get("sha256", "") and entry.get("sha256", held["sha256"]) != held["sha256"]:
            raise ContradictionError(
                ("probes",), f"the packs that are extended pin different files of {entry['use']!r}"
            )
        merged = {**entry, **held}
        if held.get("required") or entry.get("required"):
            merged["required"] = True
        named[entry["use"]] = merged
    return list(named.values())


def _rewrite(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if "rounds" in a or "rounds" in b:
        out["rounds"] = min(x["rounds"] for x in (a, b) if "rounds" in x)
    replacements = _same(a.get("replacements", {}), b.get("replacements", {}), ("rewrite", "replacements"))
    return out | ({"replacements": replacements} if replacements else {})


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {k: [x[k] for x in (a, b) if k in x] for k in (*a, *(k for k in b if k not in a))}


def _rule(rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the rule that takes, at every score, the more severe of the rules' actions."""
    out: dict[str, Any] = {}
    reached = 2.0
    for action in reversed(THRESHOLDS):
        levels = [r[action] for r in rules if action in r]
        if levels and min(levels) < reached:  # else a more severe action is taken there already
            reached = out[action] = min(levels)
    for mark in ("locked", "withhold_span"):
        if any(r.get(mark) for r in rules):
            out[mark] = True
    if out.get("locked"):
        out.pop("rewrite", None)  # what one pack locks the other may not have rewritten
    return out


def _same(a: Mapping[str, Any], b: Mapping[str, Any], where: tuple[str, ...]) -> dict[str, Any]:
    for key in a:
        if key in b and a[key] != b[key]:
            raise ContradictionError((*where, key), "the packs that are extended want different values here")
    return {**b, **a}


def _name(entry: Any) -> str:
    return entry if isinstance(entry, str) else str(entry.get("name", entry.get("use")))


def _classifiers(old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    named = {_name(entry): entry for entry in old}
    for entry in new:
        named[_name(entry)] = entry
    return list(named.values())


def _required_by_either(a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
    named = {_name(entry): entry for entry in a}
    for entry in b:
        held = named.get(_name(entry))
        if held is None or held == entry:
            named[_name(entry)] = entry
            continue
        one, other = ({"use": e} if isinstance(e, str) else dict(e) for e in (held, entry))
        required = one.pop("required", True) or other.pop("required", True)
        other.pop("required", None)
        if one != other:
            raise ContradictionError(
                ("text", "classifiers"), f"the packs that are extended ask for {_name(entry)!r} with different options"
            )
        named[_name(entry)] = {**one, "required": required}
    return list(named.values())
