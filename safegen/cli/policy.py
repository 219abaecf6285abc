"""``safegen policy``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from safegen.cli.shell import JsonFlag, command, print_foreign_json, print_json
from safegen.errors import EXIT_BLOCKED, EXIT_DONE, EXIT_NOT_VERIFIED, InputError
from safegen.settings import Home
from safegen.types import Action, Decision, RunStatus

app = typer.Typer(help="Look at policy packs, check and compare them, and try prompts.", no_args_is_help=True)

BATCH = 256
"""Prompts judged before their decisions are printed: a long file shows where it is."""

PackOption = Annotated[str, typer.Option("--policy", help="Policy pack: a name or a YAML file.")]
PackArgument = Annotated[str, typer.Argument(help="A name or a YAML file.")]


@app.command()
def check(
    prompt: Annotated[str | None, typer.Argument(help="The prompt to judge.")] = None,
    file: Annotated[
        Path | None, typer.Option(help='JSON Lines, {"prompt": …} per line; - reads standard input.')
    ] = None,
    negative_prompt: Annotated[str, typer.Option(help="Judged beside the prompt.")] = "",
    image: Annotated[list[Path] | None, typer.Option(help="Conditioning image to judge. Can be repeated.")] = None,
    policy_pack: PackOption = "default",
    as_json: JsonFlag = False,
) -> None:
    """Judge a prompt, or a file of them, without generating. Exit 3 if any would be stopped."""
    with command(as_json=as_json):
        from safegen.policies.engine.engine import Engine, Request

        if (prompt is None) == (file is None):
            raise InputError("Give either a prompt or --file.")
        if file is not None and (negative_prompt or image):
            raise InputError("--negative-prompt and --image go with one prompt, not with --file.")
        engine = Engine.load(policy_pack)
        if prompt is not None:
            pictures = tuple(_read_image(path) for path in image or [])
            requests = [Request(prompt, negative_prompt=negative_prompt, images=pictures)]
        else:
            requests = [Request(text) for text in _read_prompts(file or Path("-"))]
        stopped = False
        for start in range(0, len(requests), BATCH):
            for decision in engine.judge_many(requests[start : start + BATCH]):
                stopped |= decision.action.stops
                if as_json:
                    print_json("policy.check/1", {"decision": decision.to_json()})
                else:
                    _print_for_people(decision)
        raise typer.Exit(EXIT_BLOCKED if stopped else EXIT_DONE)


def _read_image(path: Path) -> Any:
    from safegen.media import read_clip

    return read_clip(path, max_frames=1).frames[0]


def _read_prompts(file: Path) -> list[str]:
    try:
        text = typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read {file}: {error}", remedy="Give a UTF-8 file of JSON lines.") from error
    prompts = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            prompt: Any = json.loads(line)["prompt"]
        except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f'{file}, line {number}: not a JSON object with a "prompt".') from error
        if not isinstance(prompt, str):
            raise InputError(f"{file}, line {number}: the prompt is no text.")
        prompts.append(prompt)
    return prompts


def _print_for_people(decision: Decision) -> None:
    from rich.console import Console

    colour = {Action.ALLOW: "green", Action.BLOCK: "red"}.get(decision.action, "yellow")
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold {colour}]{decision.action.upper()}[/]  ", end="")
    console.print(decision.explanation, markup=False)
    for reason in decision.reasons:
        where = f", matched in its {reason.view} view" if reason.view else ""
        line = f"  {reason.category}: {reason.score:.2f} >= {reason.threshold:.2f} ({reason.classifier}{where})"
        console.print(line, markup=False)
    for run in decision.classifiers:
        if run.status is not RunStatus.RAN:
            why = f": {run.detail}" if run.detail else ""
            console.print(f"  {run.name} did not judge ({run.status}){why}", markup=False)
    if decision.rewrite is not None:
        console.print(f"  rewritten: {decision.rewrite.prompt}", markup=False)


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List the packs that ship with safegen."""
    with command(as_json=as_json):
        from safegen.policies.pack.loading import list_packs

        names = list_packs()
        if as_json:
            print_json("policy.list/1", {"packs": names})
        else:
            for name in names:
                typer.echo(name)


@app.command()
def show(policy_pack: PackArgument = "default", as_json: JsonFlag = False) -> None:
    """Show a pack as the engine understands it: categories, thresholds, classifiers, hash."""
    with command(as_json=as_json):
        from safegen.policies.engine.engine import Engine
        from safegen.policies.probes.probe_set import ProbeSet

        engine = Engine.load(policy_pack)
        probes = ProbeSet.load(engine.pack, folders=(Home.default().probes,))
        description = engine.describe() | {"probes": [held.to_json() for held in probes.held]}
        print_json("policy.show/1", description, indent=None if as_json else 2)


@app.command()
def schema(as_json: JsonFlag = False) -> None:
    """Print the JSON Schema of policy packs; with --json on one line."""
    with command(as_json=as_json):
        from safegen.policies.pack.checks import SCHEMA_FILE

        text = SCHEMA_FILE.read_text(encoding="utf-8")
        print_foreign_json(json.loads(text)) if as_json else typer.echo(text.rstrip())


@app.command()
def lint(policy_pack: PackArgument, as_json: JsonFlag = False) -> None:
    """Name everything that is wrong with a pack, with its line. Exit 1 if something is; warnings alone are none."""
    with command(as_json=as_json):
        from safegen.policies.engine.engine import known_classifiers
        from safegen.policies.pack.loading import lint_pack

        defects = lint_pack(policy_pack, known_classifiers())
        wrong = any(d.level == "error" for d in defects)
        if as_json:
            print_json(
                "policy.lint/1", {"file": policy_pack, "ok": not wrong, "defects": [d.to_json() for d in defects]}
            )
        else:
            for defect in defects:
                typer.echo(f"{policy_pack}:{defect.line}: {defect.level}: {defect.where}: {defect.message}")
            typer.echo(f"{policy_pack}: {len(defects)} defects" if defects else f"{policy_pack}: nothing wrong")
        raise typer.Exit(EXIT_NOT_VERIFIED if wrong else EXIT_DONE)


@app.command("test")
def run_suite(
    policy_pack: PackArgument = "default",
    examples: Annotated[
        Path | None, typer.Option(help="Examples file; NAME.examples.yaml beside the pack if not given.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Judge a pack's own examples and compare with what they expect. Exit 1 if one comes out otherwise."""
    with command(as_json=as_json):
        from safegen.policies.engine.engine import Engine
        from safegen.policies.pack.examples import examples_file, read_examples, run_examples

        engine = Engine.load(policy_pack)
        outcomes = run_examples(engine, read_examples(examples or examples_file(policy_pack)))
        failed = [o for o in outcomes if o.failures]
        if as_json:
            print_json("policy.test/1", {
                "pack": engine.pack.id, "sha256": engine.pack.sha256, "ok": not failed,
                "examples": [o.to_json() for o in outcomes],
            })  # fmt: skip
        else:
            for outcome in failed:
                typer.echo(f"line {outcome.example.line}: {'; '.join(outcome.failures)}: {outcome.example.prompt}")
            typer.echo(f"{engine.pack.id}: {len(outcomes) - len(failed)} of {len(outcomes)} examples as expected")
        raise typer.Exit(EXIT_NOT_VERIFIED if failed else EXIT_DONE)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A name or a YAML file.")],
    after: Annotated[str, typer.Argument(help="A name or a YAML file.")],
    refuse_loosened: Annotated[
        bool, typer.Option("--refuse-loosened", help="Exit 1 if anything is loosened by it.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say what changes from one pack to another, and whether each change tightens or loosens."""
    with command(as_json=as_json):
        from safegen.policies.pack.diff import diff_packs
        from safegen.policies.pack.loading import load_pack

        a, b = load_pack(before), load_pack(after)
        changes = diff_packs(a, b)
        loosened = any(c.effect in ("loosened", "mixed") for c in changes)
        if as_json:
            print_json("policy.diff/1", {
                "before": {"id": a.id, "sha256": a.sha256}, "after": {"id": b.id, "sha256": b.sha256},
                "loosened": loosened, "changes": [c.to_json() for c in changes],
            })  # fmt: skip
        else:
            for change in changes:
                old, new = (json.dumps(v, ensure_ascii=False) for v in (change.before, change.after))
                typer.echo(f"{change.effect:<10} {change.where}: {old} -> {new}")
            if not changes:
                typer.echo("no difference")
        raise typer.Exit(EXIT_NOT_VERIFIED if loosened and refuse_loosened else EXIT_DONE)
