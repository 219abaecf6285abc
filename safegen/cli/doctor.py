"""``safegen doctor``: what will really run on this machine: versions, device, model, keys, ledger, ffmpeg."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import typer

from safegen.cli.home_ledger import none_yet
from safegen.cli.shell import command, print_json
from safegen.errors import EXIT_COULD_NOT_RUN, EXIT_DONE, SafegenError
from safegen.settings import Home
from safegen.types import Json
from safegen.version import __version__

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "c2pa-python",
    "opencv-python",
    "invisible-watermark",
    "nudenet",
    "onnxruntime",
    "sqlalchemy",
    "typer",
    "ffmpeg-python",
    "imageio-ffmpeg",
)


def run(*, check: bool, as_json: bool) -> None:
    """Print what :func:`examine` found. The report itself is the result: exit 0, but with ``check`` 4 if not ready."""
    with command(as_json=as_json):
        home = Home.default()
        checks = examine(home)
        ready = all(c.ok for c in checks)
        if as_json:
            body: dict[str, Json] = {"ready": ready, "home": str(home.root)}
            print_json("doctor/1", body | {c.name: c.to_json() for c in checks})
        else:
            _print_for_people(home, checks)
        raise typer.Exit(EXIT_COULD_NOT_RUN if check and not ready else EXIT_DONE)


def _print_for_people(home: Home, checks: Sequence[Check]) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    console.print(f"  [dim]{'home':<9}[/] ", end="")
    console.print(str(home.root), markup=False)
    for check in checks:
        sign = "[green]✓[/]" if check.ok else "[red]✗[/]"
        console.print(f"{sign} [dim]{check.name:<9}[/] ", end="")
        console.print(check.summary, markup=False)
        if check.remedy:
            console.print(" " * 12 + check.remedy, markup=False)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a run needs: whether it is there, a sentence, facts, and what to do where it is not."""

    name: str
    ok: bool
    summary: str
    facts: dict[str, Json] = field(default_factory=dict)
    remedy: str = ""

    def to_json(self) -> dict[str, Json]:
        """Return the check as plain JSON values; its facts stand beside ``ok`` and ``summary``."""
        body: dict[str, Json] = {"ok": self.ok, "summary": self.summary, **self.facts}
        return body | ({"remedy": self.remedy} if self.remedy else {})


def examine(home: Home) -> tuple[Check, ...]:
    """Look at everything that ``generate`` and ``verify`` would use. Changes nothing; what is amiss is a result."""
    checks: tuple[tuple[str, Callable[[Home], Check]], ...] = (
        ("versions", _versions),
        ("device", _device),
        ("model", _model),
        ("keys", _keys),
        ("ledger", _ledger),
        ("policy", _policy),
        ("ffmpeg", _ffmpeg),
        ("opencv", _opencv),
    )
    return tuple(_guarded(name, check, home) for name, check in checks)


def _guarded(name: str, check: Callable[[Home], Check], home: Home) -> Check:
    try:
        return check(home)
    except SafegenError as error:
        return Check(name, ok=False, summary=str(error), remedy=error.remedy)
    except (ImportError, OSError) as error:
        return Check(name, ok=False, summary=f"{type(error).__name__}: {error}", remedy="Install safegen again.")


def _versions(_home: Home) -> Check:
    found: dict[str, Json] = {"safegen": __version__, "python": platform.python_version()}
    missing = []
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
            missing.append(package)
    summary = f"safegen {__version__} on Python {platform.python_version()}"
    remedy = f"Missing: {', '.join(missing)}. Install safegen again." if missing else ""
    return Check("versions", not missing, summary, {"packages": found}, remedy)


def _device(_home: Home) -> Check:
    import torch

    from safegen.watermark.fastvae import fast_cpu

    if torch.cuda.is_available():
        return Check("device", ok=True, summary=torch.cuda.get_device_name(0), facts={"kind": "cuda"})
    bf16 = fast_cpu()
    summary = f"CPU, {torch.get_num_threads()} threads, bfloat16 {'native' if bf16 else 'not native: float32'}"
    return Check("device", ok=True, summary=summary, facts={"kind": "cpu", "native_bf16": bf16})


def _model(_home: Home) -> Check:
    from safegen.generators import Card, model_facts, resolve
    from safegen.generators.refs import read_json

    ref = resolve("tiny")
    card = Card.read(ref)
    call = card.call
    size = f"{call['width']}x{call['height']}, {call['num_frames']} frames at {card.fps:g} fps"
    facts: dict[str, Json] = {"name": "tiny", "folder": ref.source, "pipeline": ref.pipeline}
    noted = read_json(ref.configs / "card.json")
    if "vocabulary" in noted:  # what the model was taught to draw
        facts["vocabulary"] = noted["vocabulary"]
    return Check("model", ok=True, summary=f"tiny: {size}, in {ref.source}", facts=facts | dict(model_facts(ref)))


def _keys(home: Home) -> Check:
    from safegen.keys import KeyStore

    keys = KeyStore.load(home)
    summary = f"in {keys.folder}, certificate valid until {keys.leaf_valid_until:%Y-%m-%d}"
    return Check("keys", ok=True, summary=summary, facts=keys.describe())


def _ledger(home: Home) -> Check:
    from safegen.ledger import Ledger

    if none_yet(home):
        return Check("ledger", ok=True, summary=f"none yet; the first generate makes {home.root / 'ledger.db'}")
    with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
        count = ledger.count()
    # A URL may carry a password: only its scheme and what follows the host part are shown.
    shown = home.ledger_url.rpartition("@")[2] if "@" in home.ledger_url else home.ledger_url
    return Check("ledger", ok=True, summary=f"{count} entries in {shown}", facts={"entries": count})


def _policy(home: Home) -> Check:
    from safegen.policies.engine.engine import Engine
    from safegen.policies.probes.probe_set import known_probes

    description = Engine.load("default").describe()
    summary = f"pack {description['id']}, sha256 {str(description['sha256'])[:16]}"
    probes = known_probes(home.probes)
    damaged = [str(p["name"]) for p in probes if p["status"] != "ready"]
    remedy = f"Damaged: {', '.join(damaged)}. Train again, or delete the file." if damaged else ""
    return Check("policy", not damaged, summary, {**description, "probes": [*probes]}, remedy)


def _ffmpeg(_home: Home) -> Check:
    from safegen.media import executable_version

    path, version = executable_version()
    return Check("ffmpeg", ok=True, summary=f"{version}, {path}", facts={"path": path, "version": version})


def _opencv(_home: Home) -> Check:
    from safegen.opencv import cv2, headless, mend, versions

    kind = "headless" if headless else "with windows"
    builds = versions()
    facts: dict[str, Json] = {"version": cv2.__version__, "headless": bool(headless), "builds": {**builds}}
    if len(set(builds.values())) > 1:
        summary = "two versions in one folder: " + ", ".join(f"{name} {version}" for name, version in builds.items())
        return Check("opencv", ok=False, summary=summary, facts=facts, remedy=mend())
    return Check("opencv", ok=True, summary=f"{cv2.__version__}, {kind}", facts=facts)
