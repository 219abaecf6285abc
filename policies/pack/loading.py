"""Policy packs: which categories exist, which score takes which action, and what happens when a guard cannot run.

A pack is a YAML file, checked against ``schema.json``. A pack may extend others; a rule that is locked may then only
be tightened. The digest of the effective pack (canonical JSON, SHA-256) goes into every decision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safegen.errors import ConfigError, InputError
from safegen.policies.pack.checks import loosening_defects, schema, schema_defects, sense_defects, warnings
from safegen.policies.pack.merging import ContradictionError, overlay, strictest
from safegen.policies.pack.model import (
    LOCKED_FLOOR,
    ROUNDS,
    TIME_LIMIT_S,
    ClassifierSpec,
    FramePolicy,
    Pack,
    Rule,
    spec_of,
)
from safegen.policies.pack.source import Defect, Source, read_source
from safegen.types import Action

__all__ = ["LOCKED_FLOOR", "ClassifierSpec", "Defect", "FramePolicy", "Pack", "Rule", "lint_pack", "list_packs"]
__all__ += ["load_pack", "locate_pack"]

_PACKS = Path(__file__).parents[1] / "packs"
_MAX_DEPTH = 8
_SEE = "`safegen policy lint FILE` names every defect; `safegen policy schema` prints the JSON Schema."


def list_packs() -> tuple[str, ...]:
    """Return the names of the packs that ship with safegen."""
    return tuple(sorted(path.stem for path in _PACKS.glob("*.yaml") if "." not in path.stem))


def load_pack(pack: str | Path) -> Pack:
    """Load a shipped pack by name, or a pack from a YAML file.

    Raises InputError when there is no such pack, and ConfigError, naming file, line and field at fault, when it does
    not follow the schema, contradicts itself, or loosens a locked rule.
    """
    path = locate_pack(pack)
    resolved = _resolve(path, ())
    for name, defect in resolved.defects:
        raise ConfigError(f"{name}, line {defect.line}: {defect.where}: {defect.message}", remedy=_SEE)
    return _build(resolved.document, path.name)


def lint_pack(pack: str | Path, known: Mapping[str, frozenset[str]]) -> list[Defect]:
    """Return every defect of a pack, and warnings; empty where nothing is wrong. ConfigError: it is no YAML mapping.

    ``known`` names the classifiers of this build under "text" and "frames".
    """
    path = locate_pack(pack)
    resolved = _resolve(path, ())
    found = [d if name == path.name else _from_below(name, d) for name, d in resolved.defects]
    if not found:
        found = warnings(resolved.source, resolved.document, known)
    return found


def locate_pack(pack: str | Path) -> Path:
    """Return the file of a shipped pack, or the given path. InputError: there is no such pack."""
    if isinstance(pack, str) and pack in list_packs():
        return _PACKS / f"{pack}.yaml"
    path = Path(pack)
    try:
        found = path.is_file()
    except (OSError, ValueError):  # a name too long, or with a null character
        found = False
    if not found:
        raise InputError(
            f"no policy pack {str(pack)[:100]!r}",
            remedy=f"Name one of {', '.join(list_packs())}, or the path of a YAML file.",
        )
    return path


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A file and what it comes to with all that it extends. ``document`` is empty where there are defects."""

    source: Source
    document: dict[str, Any]
    defects: tuple[tuple[str, Defect], ...]  # with the name of the file


def _from_below(name: str, defect: Defect) -> Defect:
    return Defect(1, "extends", f"{name}, line {defect.line}: {defect.where}: {defect.message}", defect.level)


def _resolve(path: Path, above: Sequence[Path]) -> _Resolved:
    source = read_source(path)
    defects = schema_defects(source)
    if defects:
        return _Resolved(source, {}, tuple((path.name, d) for d in defects))
    document = source.document
    if "extends" in document:
        bases = _bases(source, (*above, path.resolve()))
        below = tuple(d for base in bases if isinstance(base, _Resolved) for d in base.defects)
        own = tuple((path.name, base) for base in bases if isinstance(base, Defect))
        if below or own:
            return _Resolved(source, {}, (*own, *below))
        try:
            base = strictest([b.document for b in bases if isinstance(b, _Resolved)])
        except ContradictionError as exc:
            message = f"contradictory: {'.'.join(exc.where)}: {exc}"
            return _Resolved(source, {}, ((path.name, source.defect(("extends",), message)),))
        document = overlay(base, document)
        defects = loosening_defects(source, base, document)
    defects += sense_defects(source, document)
    ordered = sorted(set(defects), key=lambda d: (d.line, d.where))
    return _Resolved(source, document, tuple((path.name, d) for d in ordered))


def _bases(source: Source, above: Sequence[Path]) -> list[_Resolved | Defect]:
    said = source.document["extends"]
    found: list[_Resolved | Defect] = []
    for i, name in enumerate([said] if isinstance(said, str) else said):
        where = ("extends",) if isinstance(said, str) else ("extends", i)
        path = _PACKS / f"{name}.yaml" if name in list_packs() else source.path.parent / name
        if not path.is_file():
            packs = ", ".join(list_packs())
            found.append(source.defect(where, f"no such pack: {name!r} (there are {packs}, or a file beside this one)"))
        elif path.resolve() in above:
            found.append(source.defect(where, f"{name!r} extends this pack in turn"))
        elif len(above) > _MAX_DEPTH:
            found.append(source.defect(where, f"more than {_MAX_DEPTH} packs on top of each other"))
        else:
            try:
                found.append(_resolve(path, above))
            except ConfigError as exc:
                found.append(source.defect(where, str(exc)))
    return found


def _build(document: Mapping[str, Any], name: str) -> Pack:
    try:
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        digest = hashlib.sha256(canonical.encode()).hexdigest()
    except (TypeError, ValueError) as exc:  # UnicodeEncodeError is a ValueError
        raise ConfigError(f"{name}: holds a value that is not plain JSON: {exc}") from exc
    frames, defaults = document["frames"], document["defaults"]
    limit = float(defaults.get("time_limit_s", TIME_LIMIT_S))
    specs = tuple(spec_of(entry, limit) for entry in document["text"]["classifiers"])
    frame_specs = tuple(spec_of(entry, limit) for entry in frames["classifiers"])
    rewrite = document.get("rewrite", {})
    return Pack(
        id=document["id"],
        version=document["version"],
        description=document["description"],
        sha256=digest,
        on_error=Action(defaults["on_error"]),
        on_missing_classifier=Action(defaults["on_missing_classifier"]),
        on_unsupported_language=Action(defaults["on_unsupported_language"]),
        text_classifiers=tuple(spec.name for spec in specs),
        rules={category: Rule(**entry) for category, entry in document["categories"].items()},
        frames=FramePolicy(
            classifiers=tuple(spec.name for spec in frame_specs),
            sample_fps=float(frames["sample_fps"]),
            min_hits=int(frames["min_hits"]),
            classes=dict(frames["classes"]),
            rules={category: Rule(**entry) for category, entry in frames["categories"].items()},
            specs=frame_specs,
            remedies=dict(frames.get("remedies", {})),
        ),
        document=json.loads(canonical),
        labels=tuple(document.get("labels", ())),
        content_producer=str(document.get("content_producer", "")),
        specs=specs,
        schema_sha256=schema()[1],
        record_clear=document.get("record_text") == "clear",
        rewrite_rounds=int(rewrite.get("rounds", ROUNDS)),
        replacements=dict(rewrite.get("replacements", {})),
    )
