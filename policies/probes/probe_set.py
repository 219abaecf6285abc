"""Probes: linear judges of what a generator computes on its way to a clip, so that a run can be stopped early.

A probe is one safetensors file (float32 ``weight`` [steps, features] and ``bias`` [steps], and a description in its
metadata) with a JSON card beside it that holds the file's SHA-256. It is good for one model alone: the description
names the digests of the parts that it was trained on. ``safegen.generators.probing`` asks it while a pipeline runs, and
``python -m safegen.generators.training.probe`` makes one. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from safegen.errors import InputError, PolicyError
from safegen.policies.engine.case import conclude
from safegen.types import Action, ClassifierRun, Decision, Json, Reason, RunStatus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from safegen.policies.pack.loading import Pack

FORMAT = "safegen.probe/1"
TEXT_STATES, LATENTS = "text_states", "latents"
SHIPPED = Path(__file__).parents[1] / "weights"
FLAG_SCORE, STOP_SCORE = 0.45, 0.8
"""Where a probe's calibrated scores lie: like those of the text classifiers, so that packs' thresholds fit them."""

_MAX_BYTES = 64 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_CATEGORY = re.compile(r"[a-z][a-z0-9_]{0,31}")
_HEX = re.compile(r"[0-9a-f]{64}")
_AGAIN = "Train it again: python -m safegen.generators.training.probe."


def check_words(name: str, category: str) -> None:
    """Raise ValueError unless a probe can be called ``name`` and stand for ``category``."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"name {name!r}: lower-case letters, digits and hyphens")
    if not _CATEGORY.fullmatch(category):
        raise ValueError(f"category {category!r}: lower-case letters, digits and underscores")


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """One probe. Row i of ``weight`` and ``bias`` is for ``steps[i]``; a text probe has one row and no steps."""

    name: str
    version: str
    source: str  # TEXT_STATES or LATENTS
    part: str  # whose hidden states: "text_encoder"; for latents "latents"
    category: str
    threshold: float  # of a pack that has no rule for the category: block from there on
    steps: tuple[int, ...]  # denoising steps spent when it is asked, counted from 1, rising
    levels: tuple[float, ...]  # share of noise in what the model saw at these steps, in [0, 1], falling
    binds: Mapping[str, str]  # part of the pipeline -> digest (safegen.generators.probing.part_digest)
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    sha256: str = ""
    notes: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = len(self.steps) if self.source == LATENTS else 1
        check_words(self.name, self.category)
        if self.source not in (TEXT_STATES, LATENTS) or (self.source == TEXT_STATES and self.steps):
            raise ValueError(f"source {self.source!r} with steps {self.steps}")
        if rows < 1 or list(self.steps) != sorted({s for s in self.steps if s >= 1}):
            raise ValueError(f"steps {self.steps}: they count from 1 and rise")
        if len(self.levels) != len(self.steps) or not all(0 <= v <= 1 for v in self.levels):
            raise ValueError(f"noise levels {self.levels}")
        if self.weight.ndim != 2 or len(self.weight) != rows or self.bias.shape != (rows,) or not self.weight.size:
            raise ValueError(f"weights of shapes {self.weight.shape}, {self.bias.shape} for {rows} rows")
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all() and 0 < self.threshold <= 1):
            raise ValueError("weights or threshold that are no usable numbers")
        if not self.binds or not all(_HEX.fullmatch(v) for v in self.binds.values()):
            raise ValueError("it names no model")

    def scores(self, features: NDArray[np.float32], row: int = 0) -> NDArray[np.float64]:
        """Return float64 [N] scores in [0, 1] of features [N, F] at one row."""
        logits = features.astype(np.float64) @ self.weight[row].astype(np.float64) + float(self.bias[row])
        return np.asarray(1 / (1 + np.exp(-logits.clip(-60, 60))), dtype=np.float64)

    def save(self, folder: Path, about: Mapping[str, Json]) -> Path:
        """Write ``probe-NAME.safetensors`` and its card ``probe-NAME.json``; return the first. OSError passes."""
        fields: dict[str, Json] = {n: getattr(self, n) for n in _DESCRIBED} | {"notes": dict(self.notes)}
        text = json.dumps({"format": FORMAT, **fields, "binds": dict(self.binds)}, sort_keys=True)
        body = save({"weight": self.weight, "bias": self.bias}, metadata={"probe": text})
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"probe-{self.name}.safetensors"
        path.write_bytes(body)
        card = {"name": self.name, "sha256": hashlib.sha256(body).hexdigest(), **about}
        path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> Probe:
        """Read a probe; PolicyError if it or its card is missing, altered, damaged or of another format."""
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ValueError(f"larger than {_MAX_BYTES} bytes")
            body = path.read_bytes()
            sha256 = hashlib.sha256(body).hexdigest()
            card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if card["sha256"] != sha256:
                raise ValueError("it was altered: its card holds another digest")
            arrays = load(body)
            header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
            about = json.loads(header["__metadata__"]["probe"])
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']!r}")
            return cls(
                name=str(about["name"]), version=str(about["version"]), source=str(about["source"]),
                part=str(about["part"]), category=str(about["category"]), threshold=float(about["threshold"]),
                steps=tuple(int(s) for s in about["steps"]), levels=tuple(float(v) for v in about["levels"]),
                binds={str(k): str(v) for k, v in about["binds"].items()},
                weight=arrays["weight"].astype(np.float32), bias=arrays["bias"].astype(np.float32),
                sha256=sha256, notes=dict(about["notes"]),
            )  # fmt: skip
        except FileNotFoundError as exc:
            missing = Path(str(exc.filename)).name
            raise PolicyError(f"the probe {path.stem} is incomplete: no {missing}", remedy=_AGAIN) from exc
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as exc:
            raise PolicyError(f"the probe {path.name} cannot be used: {exc}", remedy=_AGAIN) from exc


_DESCRIBED = ("name", "version", "source", "part", "category", "threshold", "steps", "levels")


@dataclass(frozen=True, slots=True)
class ProbeUse:
    """One probe that a pack or a caller asks for. ``use`` is a name, or the path of a ``.safetensors`` file."""

    use: str
    required: bool = False  # where it cannot run, the pack's ``on_missing_classifier`` is taken
    sha256: str = ""  # of the probe's file, if the pack pins it

    def locate(self, folders: Sequence[Path]) -> Path:
        """Return the file: a plain name is looked up in ``folders`` and among the shipped ones."""
        if not _NAME.fullmatch(self.use):
            return Path(self.use).expanduser()
        places = [folder / f"probe-{self.use}.safetensors" for folder in (*folders, SHIPPED)]
        return next((p for p in places if p.is_file()), places[-1])


@dataclass(frozen=True, slots=True)
class AskedProbe:
    """A probe that is asked for: loaded, or the run that says why it is not."""

    use: ProbeUse
    name: str
    probe: Probe | None
    trouble: ClassifierRun | None = None

    @classmethod
    def load(cls, use: ProbeUse, folders: Sequence[Path]) -> AskedProbe:
        """Load it. A file that is missing has not run; one that is altered or damaged has failed."""
        path = use.locate(folders)
        name = f"probe:{path.stem.removeprefix('probe-')}"
        if not path.is_file():
            return cls(use, name, None, _run(use, name, None, RunStatus.NOT_RUN, 0.0, "there is no such probe"))
        try:
            probe = Probe.load(path)
        except PolicyError as exc:
            return cls(use, name, None, _run(use, name, None, RunStatus.FAILED, 0.0, str(exc)))
        if use.sha256 and use.sha256 != probe.sha256:
            pinned = "its digest is not the one that the policy names"
            return cls(use, name, None, _run(use, name, probe, RunStatus.FAILED, 0.0, pinned))
        return cls(use, f"probe:{probe.name}", probe)

    def to_json(self) -> dict[str, Json]:
        """Return what can be said of it as plain JSON values."""
        about: dict[str, Json] = {"kind": "probe", "name": self.name, "required": self.use.required}
        if self.probe is None:
            assert self.trouble is not None  # noqa: S101 - one of the two is there
            return about | {"status": str(self.trouble.status), "detail": self.trouble.detail}
        probe = self.probe
        return about | {
            "status": "ready", "version": probe.version, "weights_sha256": probe.sha256, "source": probe.source,
            "category": probe.category, "steps": list(probe.steps),
        }  # fmt: skip


def known_probes(*folders: Path) -> list[dict[str, Json]]:
    """Describe every probe in ``folders`` and those that come with safegen, damaged ones too."""
    paths = [path for folder in (*folders, SHIPPED) for path in sorted(folder.glob("probe-*.safetensors"))]
    return [AskedProbe.load(ProbeUse(str(path)), ()).to_json() for path in paths]


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """The probes that one policy, and perhaps one caller, ask for."""

    pack: Pack
    held: tuple[AskedProbe, ...] = ()

    @classmethod
    def load(cls, pack: Pack, extra: Sequence[str | Path] = (), *, folders: Sequence[Path] = ()) -> ProbeSet:
        """Load the pack's probes and ``extra`` ones, which are required; ``folders`` hold probes to be named.

        Trouble with the pack's probes becomes part of every decision; an extra probe that is missing raises InputError,
        a damaged one PolicyError.
        """
        held = [AskedProbe.load(use, folders) for use in uses_of(pack)]
        for use in extra:
            mine = AskedProbe.load(ProbeUse(str(use), required=True), folders)
            if mine.trouble is not None and mine.trouble.status is RunStatus.NOT_RUN:
                raise InputError(
                    f"There is no probe {str(use)!r}.", remedy="Name a .safetensors file, or a known probe."
                )
            if mine.trouble is not None:
                raise PolicyError(mine.trouble.detail, remedy=_AGAIN)
            held = [h for h in held if h.probe is None or mine.probe is None or h.probe.sha256 != mine.probe.sha256]
            held.append(mine)
        return cls(pack, tuple(held))

    def case(self) -> ProbeCase:
        """Begin one run's judgement: probes that could not be loaded stand in it already."""
        case = ProbeCase(self.pack)
        for held in self.held:
            if held.trouble is not None:
                case.trouble(held, held.trouble)
        return case


def uses_of(pack: Pack) -> tuple[ProbeUse, ...]:
    """Return the probes that a validated pack asks for."""
    entries = pack.document.get("probes")
    if not isinstance(entries, list | tuple):
        return ()
    return tuple(
        ProbeUse(str(e["use"]), bool(e.get("required", False)), str(e.get("sha256", "")))
        for e in entries
        if isinstance(e, Mapping)
    )


@dataclass(slots=True)
class ProbeCase:
    """One run's decision in the making. ``at`` says where in the run a probe was asked ("after step 2 of 16")."""

    pack: Pack
    scores: dict[str, float] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)
    runs: list[ClassifierRun] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def judged(self, held: AskedProbe, score: float, at: str, milliseconds: float) -> None:
        """Take a probe's score; one that is no number in [0, 1] is a failure."""
        probe = held.probe
        if probe is None or not (math.isfinite(score) and 0 <= score <= 1):
            self.failed(held, "its score is no number in [0, 1]", at, milliseconds)
            return
        self.runs.append(_run(held.use, held.name, probe, RunStatus.RAN, milliseconds, at))
        if probe.source not in self.sources:
            self.sources.append(probe.source)
        self.scores[probe.category] = max(self.scores.get(probe.category, 0.0), score)
        rule = self.pack.rules.get(probe.category)
        if rule is not None:
            action, threshold = rule.judge(score)
        else:
            action, threshold = Action.BLOCK if score >= probe.threshold else Action.ALLOW, probe.threshold
        if action is not Action.ALLOW:
            self.reasons.append(Reason(probe.category, action, score, threshold, probe.source, held.name, view=at))

    def failed(self, held: AskedProbe, why: str, at: str, milliseconds: float = 0.0) -> None:
        """Record that a probe was asked and gave no answer: the pack's ``on_error``, whether it is required or not."""
        self.trouble(held, _run(held.use, held.name, held.probe, RunStatus.FAILED, milliseconds, f"{why}, {at}"))

    def not_run(self, held: AskedProbe, why: str) -> None:
        """Record that a probe could not be asked: ``on_missing_classifier`` if it is required, else only a record."""
        self.trouble(held, _run(held.use, held.name, held.probe, RunStatus.NOT_RUN, 0.0, why))

    def trouble(self, held: AskedProbe, run: ClassifierRun) -> None:
        """Take a run that failed, or that never was."""
        self.runs.append(run)
        source = held.probe.source if held.probe is not None else "generation"
        if run.status is RunStatus.FAILED:
            self.reasons.append(Reason("classifier_failed", self.pack.on_error, 1.0, 1.0, source, held.name))
        elif held.use.required:
            action = self.pack.on_missing_classifier
            self.reasons.append(Reason("classifier_missing", action, 1.0, 1.0, source, held.name))

    def decision(self) -> Decision:
        """Return what was decided so far."""
        spent = sum(r.milliseconds for r in self.runs)
        return conclude(self.pack, self.scores, self.reasons, self.runs, self.sources, spent)


def _run(
    use: ProbeUse, name: str, probe: Probe | None, status: RunStatus, milliseconds: float, detail: str
) -> ClassifierRun:
    version, digest = ("", None) if probe is None else (probe.version, probe.sha256)
    return ClassifierRun(name, version, digest, status, milliseconds, detail[:200], use.required)
