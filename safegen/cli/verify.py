"""``safegen verify``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from safegen.cli.shell import Bars, closed_output, command, counted, print_foreign_json, print_json
from safegen.errors import (
    EXIT_BAD_INPUT,
    EXIT_BLOCKED,
    EXIT_COULD_NOT_RUN,
    EXIT_DONE,
    EXIT_NOT_VERIFIED,
    EXIT_OLDER_VERSION,
    SafegenError,
)
from safegen.types import Basis, Json, Progress, Status, Verdict, VerdictKind

if TYPE_CHECKING:
    from safegen.provenance.strict import Strict

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
_FROM_BEST = (EXIT_DONE, EXIT_OLDER_VERSION, EXIT_NOT_VERIFIED, EXIT_BAD_INPUT, EXIT_BLOCKED, EXIT_COULD_NOT_RUN)
"""Exit codes in the order in which one of several files' is taken for all."""

_SIGN = {Status.PASS: "✓", Status.FAIL: "✗", Status.ABSENT: "–", Status.INCONCLUSIVE: "?", Status.NOT_RUN: "·"}


@dataclass(frozen=True, slots=True)
class _Task:
    """One file and how to look at it."""

    file: Path
    neural: bool = True
    forensic: bool = False
    fragments: tuple[Path, ...] = ()
    strict: bool = False
    accept_listed: bool = False
    time_limit: float | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of one file among several: a verdict, or the error that was met."""

    file: Path
    verdict: Verdict | None = None
    strict: Strict | None = None
    error: tuple[str, str, str] = ("", "", "")  # type, message, remedy
    error_code: int = EXIT_DONE

    @property
    def label(self) -> str:
        return "unreadable" if self.verdict is None else str(self.verdict.verdict)

    @property
    def exit_code(self) -> int:
        return self.error_code if self.verdict is None else _exit_code(self.verdict, self.strict)

    def print_json(self) -> None:
        if self.verdict is None:
            error = dict(zip(("type", "message", "remedy"), self.error, strict=True))
            print_json("error/1", {"file": str(self.file), "error": error})
        else:
            strict = {"strict": _strict_json(self.strict)} if self.strict else {}
            print_json("verify/1", {"file": str(self.file), **self.verdict.to_json(), **strict})

    def print_line(self) -> None:
        told = self.error[1]
        if self.verdict is not None:
            entry = "" if self.verdict.entry is None else f", ledger entry {self.verdict.entry}"
            told = "" if self.verdict.content_id is None else f"content id {self.verdict.content_id}{entry}"
            if self.strict and self.strict.failed:
                older = f"sound, of C2PA {self.strict.older}: " if self.strict.only_older else ""
                failed = counted(len(self.strict.failed), "strict requirement")
                told += f"{'; ' if told else ''}{older}{failed} {_hold(self.strict.failed)}"
        typer.echo(f"{self.label.upper():<12}  {self.file}{f': {told}' if told else ''}")


def run(
    *,
    paths: Sequence[Path],
    neural: bool,
    forensic: bool,
    fragments: Sequence[Path],
    strict: bool,
    accept_listed: bool,
    jobs: int,
    time_limit: float | None,
    as_json: bool,
) -> None:
    """Call :func:`safegen.verify` on each file, print the verdicts, and exit with the worst code.

    With ``strict``, each requirement beyond the verdict too, and the code of "not verified" where one does not hold.
    One file is told of in full, and what hinders is this command's error; several get a line each.
    """
    with command(as_json=as_json):
        tasks = [_Task(path, neural, forensic, tuple(fragments), strict, accept_listed, time_limit) for path in paths]
        if len(tasks) == 1 and not tasks[0].file.is_dir():
            with Bars() as bars:
                answer = _look(tasks[0], bars)
            with closed_output():
                answer.print_json() if as_json else _print_for_people(answer, neural=neural)
            raise typer.Exit(answer.exit_code)
        raise typer.Exit(_run_many(tasks, jobs, as_json=as_json))


def _run_many(tasks: Sequence[_Task], jobs: int, *, as_json: bool) -> int:
    from safegen.batch.local import gather, run_each

    files, others = gather([task.file for task in tasks])
    if others:
        typer.echo(f"Left out: {counted(others, 'file')} in these folders, no video or image.", err=True)
    each = [replace(tasks[0], file=file) for file in files]
    counts: Counter[str] = Counter()
    worst = EXIT_DONE
    with Bars() as bars:
        for done, answer in enumerate(run_each(_answer, each, jobs), 1):
            with closed_output():
                answer.print_json() if as_json else answer.print_line()
            counts[answer.label] += 1
            worst = max(worst, answer.exit_code, key=_FROM_BEST.index)
            bars("verifying", done, len(each))
    if not as_json:
        labels = [*map(str, VerdictKind), "unreadable"]
        told = ", ".join(f"{counts[label]} {label}" for label in labels if counts[label])
        with closed_output():
            typer.echo(f"{counted(len(each), 'file')}: {told}")
    return worst


def _answer(task: _Task) -> _Answer:
    """Look at one file of several; what hinders concerns that file alone."""
    try:
        return _look(task, None)
    except SafegenError as error:
        told = (type(error).__name__, str(error), error.remedy)
        return _Answer(task.file, error=told, error_code=error.exit_code or EXIT_COULD_NOT_RUN)


def _look(task: _Task, progress: Progress | None) -> _Answer:
    from safegen.verification.strict import strict_checks
    from safegen.verification.verifier import verify

    verdict = verify(
        task.file, neural=task.neural, forensic=task.forensic, fragments=task.fragments, progress=progress,
        time_limit=task.time_limit,
    )  # fmt: skip
    strict = strict_checks(task.file, verdict, accept_listed=task.accept_listed) if task.strict else None
    return _Answer(task.file, verdict, strict)


def run_crjson(*, file: Path, trust_anchors: Path | None, tsa_anchors: Path | None) -> None:
    """Print the file's crJSON, and nothing else, on standard output."""
    with command(as_json=True):
        from safegen.verification.strict import crjson

        print_foreign_json(crjson(file, trust_anchors=trust_anchors, tsa_anchors=tsa_anchors))


def _exit_code(verdict: Verdict, strict: Strict | None) -> int:
    """The verdict's code, but that strict requirements decide between verified and not where it is one of the two.

    A sound file that follows an older version of C2PA has a code of its own: it meets no rules that came later.
    """
    code = EXIT_CODE[verdict.verdict]
    if strict is None or code == EXIT_COULD_NOT_RUN:
        return code
    if strict.only_older:
        return EXIT_OLDER_VERSION
    return EXIT_DONE if strict.passed else EXIT_NOT_VERIFIED


def _strict_json(strict: Strict) -> dict[str, Json]:
    requirements: list[Json] = [
        {"id": c.id, "passed": c.passed, "summary": c.summary, "detail": c.detail} for c in strict.checks
    ]
    return {"passed": strict.passed, "older_version": strict.older or None, "requirements": requirements}


def _print_strict(answer: _Answer, verdict: Verdict, strict: Strict) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    failed, count = strict.failed, len(strict.checks)
    if not failed:
        console.print(f"[bold green]STRICT[/]  all {count} requirements hold")
        return
    if strict.only_older:
        console.print("[bold yellow]OLDER VERSION[/]  ", end="")
        console.print(
            f"the credential is sound and its signer is accepted; it follows C2PA {strict.older}, and {len(failed)} of"
            f" {count} requirements, which later versions made, {_hold(failed)}: exit code {answer.exit_code}"
        )
    else:
        good = EXIT_CODE[verdict.verdict] == EXIT_DONE
        why = f": exit code {answer.exit_code}, though the file is {verdict.verdict}" if good else ""
        console.print(f"[bold red]STRICT[/]  {len(failed)} of {count} requirements {_hold(failed)}{why}")
    for check in failed:
        console.print(f"  {_SIGN[Status.FAIL]} [dim]{check.id}[/] ", end="")
        console.print(f"{check.summary}: {check.detail}", markup=False)


def _hold(failed: Sequence[object]) -> str:
    return "does not hold" if len(failed) == 1 else "do not hold"


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


def _print_for_people(answer: _Answer, *, neural: bool) -> None:
    from rich.console import Console

    verdict = answer.verdict
    if verdict is None:
        return
    label, meaning = verdict.verdict.upper(), _meaning(verdict)
    if verdict.verdict is VerdictKind.INCONCLUSIVE and not neural:
        label, meaning = "CHECKED IN PART", _checked(verdict)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold {_COLOUR[verdict.verdict]}]{label}[/]  ", end="")
    console.print(f"{answer.file}: {meaning}", markup=False)
    if verdict.content_id is not None:
        entry = "" if verdict.entry is None else f", ledger entry {verdict.entry}"
        console.print(f"  content id {verdict.content_id}{entry}", markup=False)
    for finding in verdict.findings:
        console.print(f"  {_SIGN[finding.status]} [dim]{finding.basis:<9}[/] ", end="")
        console.print(finding.summary, markup=False)
    if answer.strict is not None:
        _print_strict(answer, verdict, answer.strict)


def _checked(verdict: Verdict) -> str:
    """Say what was looked at where the caller wanted no more, and why that is no verdict."""
    named = {Basis.METADATA: "credential", Basis.LEDGER: "ledger"}
    hold = [named[f.basis] for f in verdict.findings if f.basis in named and f.status is Status.PASS]
    found = f"{' and '.join(hold)} hold" if len(hold) > 1 else f"the {hold[0]} holds" if hold else "nothing found"
    return f"{found}; the mark was not looked for (--no-neural), and without it there is no verdict"
