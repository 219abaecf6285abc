"""``safegen verify``."""

from __future__ import annotations

from pathlib import Path

import typer

from safegen.cli.shell import Bars, command, print_json
from safegen.errors import EXIT_COULD_NOT_RUN, EXIT_DONE, EXIT_NOT_VERIFIED
from safegen.types import Status, Verdict, VerdictKind

EXIT_CODE = {
    VerdictKind.VERIFIED: EXIT_DONE,
    VerdictKind.RECOVERED: EXIT_DONE,
    VerdictKind.TAMPERED: EXIT_NOT_VERIFIED,
    VerdictKind.UNVERIFIED: EXIT_NOT_VERIFIED,
    VerdictKind.INCONCLUSIVE: EXIT_COULD_NOT_RUN,
}
MEANING = {
    VerdictKind.VERIFIED: "the credential is valid, and mark and ledger agree with it",
    VerdictKind.RECOVERED: "the original credential is gone; mark and ledger still name the clip",
    VerdictKind.TAMPERED: "a credential is there and broken, or the findings contradict each other",
    VerdictKind.UNVERIFIED: "nothing in this file was made by this safegen home",
    VerdictKind.INCONCLUSIVE: "something that the answer needs could not run",
}
_COLOUR = {
    VerdictKind.VERIFIED: "green",
    VerdictKind.RECOVERED: "green",
    VerdictKind.TAMPERED: "red",
    VerdictKind.UNVERIFIED: "yellow",
    VerdictKind.INCONCLUSIVE: "yellow",
}
_SIGN = {Status.PASS: "✓", Status.FAIL: "✗", Status.ABSENT: "–", Status.INCONCLUSIVE: "?", Status.NOT_RUN: "·"}


def run(*, file: Path, neural: bool, as_json: bool) -> None:
    """Call :func:`safegen.verify`, print the verdict, and exit with its code."""
    with command(as_json=as_json):
        from safegen.verification import verify

        with Bars() as bars:
            verdict = verify(file, neural=neural, progress=bars)
        if as_json:
            print_json(verdict.to_json())
        else:
            _print_for_people(file, verdict)
        raise typer.Exit(EXIT_CODE[verdict.verdict])


def _print_for_people(file: Path, verdict: Verdict) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold {_COLOUR[verdict.verdict]}]{verdict.verdict.upper()}[/]  ", end="")
    console.print(f"{file}: {MEANING[verdict.verdict]}", markup=False)
    if verdict.content_id is not None:
        entry = "" if verdict.entry is None else f", ledger entry {verdict.entry}"
        console.print(f"  content id {verdict.content_id}{entry}", markup=False)
    for finding in verdict.findings:
        console.print(f"  {_SIGN[finding.status]} [dim]{finding.basis:<9}[/] ", end="")
        console.print(finding.summary, markup=False)
