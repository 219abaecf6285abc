"""Reads a pack's YAML into plain values and remembers on which line each of them stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from safegen.errors import ConfigError

MAX_BYTES = 1 << 20
_MAX_NODES = 20_000  # aliases can make a small file huge
_SEE = "`safegen policy schema` prints the JSON Schema of packs."

FieldPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Defect:
    """What is wrong with a pack, where. ``line`` counts from 1. A warning does not keep a pack from being used."""

    line: int
    where: str  # the field, as "categories.sexual.block"
    message: str
    level: str = "error"  # or "warning"

    def to_json(self) -> dict[str, str | int]:
        """Return the defect as plain JSON values."""
        return {"line": self.line, "field": self.where, "message": self.message, "level": self.level}


@dataclass(frozen=True, slots=True)
class Source:
    """One YAML file: its values, the line of each, and what is wrong with it as YAML."""

    path: Path
    document: Any
    lines: dict[FieldPath, int] = field(default_factory=dict)
    defects: tuple[Defect, ...] = ()

    def line(self, where: Sequence[str | int]) -> int:
        """Return the line of a field, or of the nearest field around it that stands in this file."""
        at = tuple(where)
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines.get(at, 1)

    def defect(self, where: Sequence[str | int], message: str, level: str = "error") -> Defect:
        """Return a defect of a field with its line."""
        return Defect(self.line(where), ".".join(map(str, where)) or "(top)", message, level)


def read_source(path: Path) -> Source:
    """Read a YAML file. Raises ConfigError where it is no YAML, too large, or no mapping of fields."""
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path.name}: cannot be read: {exc.strerror}") from exc
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path.name}: larger than {MAX_BYTES} bytes")
    walk = _Walk()
    try:
        loader = yaml.SafeLoader(raw)
        node = loader.get_single_node()
        document = None if node is None else walk.value(loader, node, ())
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path.name}{where}: not YAML: {exc.problem}", remedy=_SEE) from exc
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as exc:
        raise ConfigError(f"{path.name}: not YAML: {exc}", remedy=_SEE) from exc
    if not isinstance(document, dict):
        raise ConfigError(f"{path.name}: a policy pack is a mapping of fields", remedy=_SEE)
    return Source(path, document, walk.lines, tuple(walk.defects))


class _Walk:
    """Builds values from YAML nodes."""

    def __init__(self) -> None:
        self.lines: dict[FieldPath, int] = {}
        self.defects: list[Defect] = []
        self._nodes = 0
        self._open: set[int] = set()

    def value(self, loader: yaml.SafeLoader, node: yaml.Node, where: FieldPath) -> Any:
        self._nodes += 1
        if self._nodes > _MAX_NODES or id(node) in self._open:
            raise _UnusableYAMLError("too large, or an alias holds itself")
        self.lines[where] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return loader.construct_object(node)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(loader, item, (*where, i)) for i, item in enumerate(node.value)]
            if node.tag != "tag:yaml.org,2002:map":
                raise _UnusableYAMLError(f"unknown tag {node.tag}")
            return self._mapping(loader, node, where)
        finally:
            self._open.discard(id(node))

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.Node, where: FieldPath) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self.defects.append(Defect(line, ".".join(map(str, where)) or "(top)", f"{key!r} is no field's name"))
                continue
            at = (*where, key)
            if key in out:  # the second would silently replace the first
                self.defects.append(Defect(line, ".".join(map(str, at)), "the field occurs twice"))
                continue
            out[key] = self.value(loader, value_node, at)
            self.lines[at] = line
        return out


class _UnusableYAMLError(yaml.YAMLError):
    """A file that is YAML by the letter and nothing that we read."""
