"""``safegen verify``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from safegen.cli.shell import Bars, command, print_json
from safegen.errors import EXIT_COULD_NOT_RUN, EXIT_DONE, EXIT_NOT_VERIFIED
from safegen.types import Basis, Json, Status, Verdict, VerdictKind

if TYPE_CHECKING:
    from safegen.provenance.conformance import Check

EXIT_CODE = {
    VerdictKind.VERIFIED: EXIT_DONE,
    VerdictKind.RECOVERED: EXIT_DONE,
    VerdictKind.PARTIAL: EXIT_NOT_VERIFIED,
    VerdictKind.TAMPERED: EXIT_NOT_VERIFIED,
    VerdictKind.UNVERIFIED: EXIT_NOT_VERIFIED,
    VerdictKind.INCONCLUSIVE: EXIT_COULD_NOT_RUN,
}
MEANING = {
    VerdictKind.VERIFIED: "the credential is valid, and mark and ledger agree with it",
    VerdictKind.RECOVERED: "the original credential is gone; mark and ledger still name the clip",
    VerdictKind.PARTIAL: "a clip of this home is in this file, and not all that the file shows is that clip",
    VerdictKind.TAMPERED: "a credential is there and broken, or the findings contradict each other",
    VerdictKind.UNVERIFIED: "nothing in this file was made by this safegen home",
    VerdictKind.INCONCLUSIVE: "something that the answer needs could not run",
}
_COLOUR = {
    VerdictKind.VERIFIED: "green",
    VerdictKind.RECOVERED: "green",
    VerdictKind.PARTIAL: "yellow",
    VerdictKind.TAMPERED: "red",
    VerdictKind.UNVERIFIED: "yellow",
    VerdictKind.INCONCLUSIVE: "yellow",
}
_SIGN = {Status.PASS: "✓", Status.FAIL: "✗", Status.ABSENT: "–", Status.INCONCLUSIVE: "?", Status.NOT_RUN: "·"}


def run(
    *,
    file: Path,
    neural: bool,
    forensic: bool,
    fragments: Sequence[Path],
    strict: bool,
    accept_listed: bool,
    as_json: bool,
) -> None:
    """Call :func:`safegen.verify`, print the verdict, and exit with its code.

    With ``strict``, each requirement beyond the verdict too, and the code of "not verified" where one does not hold.
    """
    with command(as_json=as_json):
        from safegen.verification.strict import strict_checks
        from safegen.verification.verifier import verify

        with Bars() as bars:
            verdict = verify(file, neural=neural, forensic=forensic, fragments=fragments, progress=bars)
        checks = strict_checks(file, verdict, accept_listed=accept_listed) if strict else ()
        if as_json:
            print_json(verdict.to_json() | ({"strict": _strict_json(checks)} if strict else {}))
        else:
            _print_for_people(file, verdict)
            if strict:
                _print_strict(checks)
        raise typer.Exit(_exit_code(verdict, checks))


def run_crjson(*, file: Path, trust_anchors: Path | None, tsa_anchors: Path | None) -> None:
    """Print the file's crJSON, and nothing else, on standard output."""
    with command(as_json=True):
        from safegen.verification.strict import crjson

        print_json(crjson(file, trust_anchors=trust_anchors, tsa_anchors=tsa_anchors))


def _exit_code(verdict: Verdict, checks: Sequence[Check]) -> int:
    """The verdict's code, but that strict requirements decide between verified and not where it is one of the two."""
    code = EXIT_CODE[verdict.verdict]
    if not checks or code == EXIT_COULD_NOT_RUN:
        return code
    return EXIT_DONE if all(check.passed for check in checks) else EXIT_NOT_VERIFIED


def _strict_json(checks: Sequence[Check]) -> dict[str, Json]:
    requirements: list[Json] = [
        {"id": c.id, "passed": c.passed, "summary": c.summary, "detail": c.detail} for c in checks
    ]
    return {"passed": all(check.passed for check in checks), "requirements": requirements}


def _print_strict(checks: Sequence[Check]) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    failed = [check for check in checks if not check.passed]
    if not failed:
        console.print(f"[bold green]STRICT[/]  all {len(checks)} requirements hold")
        return
    console.print(f"[bold red]STRICT[/]  {len(failed)} of {len(checks)} requirements do not hold")
    for check in failed:
        console.print(f"  {_SIGN[Status.FAIL]} [dim]{check.id}[/] ", end="")
        console.print(f"{check.summary}: {check.detail}", markup=False)


def _meaning(verdict: Verdict) -> str:
    """The verdict in words; a recovered file's depend on where the original credential is."""
    if verdict.verdict is not VerdictKind.RECOVERED:
        return MEANING[verdict.verdict]
    from safegen.verification.credential_judging import keeps_inside

    metadata, ledger = (next(f for f in verdict.findings if f.basis is b) for b in (Basis.METADATA, Basis.LEDGER))
    if "restored" in ledger.evidence:
        return "the credential was given back to a file that had lost it; mark and ledger name the clip"
    if keeps_inside(metadata, verdict.content_id):
        return "another's credential keeps the original one inside; mark and ledger name the clip"
    return MEANING[verdict.verdict]


def _print_for_people(file: Path, verdict: Verdict) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold {_COLOUR[verdict.verdict]}]{verdict.verdict.upper()}[/]  ", end="")
    console.print(f"{file}: {_meaning(verdict)}", markup=False)
    if verdict.content_id is not None:
        entry = "" if verdict.entry is None else f", ledger entry {verdict.entry}"
        console.print(f"  content id {verdict.content_id}{entry}", markup=False)
    for finding in verdict.findings:
        console.print(f"  {_SIGN[finding.status]} [dim]{finding.basis:<9}[/] ", end="")
        console.print(finding.summary, markup=False)
