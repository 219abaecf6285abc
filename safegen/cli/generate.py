"""``safegen generate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.cli.shell import Bars, command, print_json, private_text
from safegen.settings import Home

if TYPE_CHECKING:
    from safegen.generation.pipeline import Generated


def run(
    *,
    prompt: str,
    prompt_file: Path | None,
    subject_file: Path | None,
    output: Path,
    negative_prompt: str,
    seed: int | None,
    frames: int | None,
    size: str | None,
    steps: int | None,
    image: Path | None,
    video: Path | None,
    model: str,
    policy: str,
    labels: list[str],
    signer: str,
    force: bool,
    as_json: bool,
    probes: Sequence[str] = (),
    consent: Sequence[Path] = (),
    project: str = "",
    subject: str = "",
) -> None:
    """Call :func:`safegen.generate` with progress bars, and print what it made."""
    with command(as_json=as_json):
        prompt = private_text("prompt", prompt, prompt_file)
        subject = private_text("subject", subject, subject_file, needed=False)
        from safegen.generation.pipeline import generate

        home = Home.default()
        with Bars() as bars:
            made = generate(
                prompt, output=output, negative_prompt=negative_prompt, seed=seed, frames=frames, size=size,
                steps=steps, image=image, video=video, model=model, policy=policy, labels=labels, probes=probes,
                consent=consent, project=project, subject=subject, force=force, progress=bars,
                home=replace(home, signer=signer) if signer else home,
            )  # fmt: skip
        if as_json:
            print_json("generate/1", made.to_json())
        else:
            _print_for_people(made)


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 50 else f"{milliseconds:.0f} ms"


def _print_for_people(made: Generated) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold green]Wrote[/] {made.output}")
    rows = {
        "content id": made.content_id,
        "ledger entry": str(made.entry),
        "model": f"{made.model['name']} ({made.mode}-to-video, seed {made.seed})",
        "moderation": made.decision.explanation,
        **({} if made.probes_decision is None else {"probes": made.probes_decision.explanation}),
        **({"consent": ", ".join(made.consents)} if made.consents else {}),
        "frames": made.frames_decision.explanation,
        "mark": f"{made.mark['drawn_as']}, read back from the encoded file (p <= {made.mark['p_value']:.1e})"
        + (", weak: it may not outlast another encode" if made.mark["weak"] else ""),
        "credential": f"C2PA manifest {made.manifest_id}",
        "time": ", ".join(f"{name} {_seconds(ms)}" for name, ms in made.milliseconds.items()),
    }
    for name, value in rows.items():
        console.print(f"  [dim]{name:<13}[/] ", end="")
        console.print(value, markup=False)
