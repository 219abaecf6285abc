"""``safegen policy``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from safegen.cli.shell import JsonFlag, command, print_json
from safegen.errors import EXIT_BLOCKED, InputError
from safegen.settings import Home
from safegen.types import Action, Decision

app = typer.Typer(help="Look at policy packs and try prompts against them.", no_args_is_help=True)

BATCH = 256
"""Prompts judged before their decisions are printed: a long file shows where it is."""

PackOption = Annotated[str, typer.Option("--policy", help="Policy pack: a name or a YAML file.")]


@app.command()
def check(
    prompt: Annotated[str | None, typer.Argument(help="The prompt to judge.")] = None,
    file: Annotated[
        Path | None, typer.Option(help='JSON Lines, {"prompt": …} per line; - reads standard input.')
    ] = None,
    policy_pack: PackOption = "default",
    as_json: JsonFlag = False,
) -> None:
    """Judge a prompt, or a file of them, without generating. Exit 3 if any would be stopped."""
    with command(as_json=as_json):
        from safegen.policies.engine import Engine

        if (prompt is None) == (file is None):
            raise InputError("Give either a prompt or --file.")
        engine = Engine.load(policy_pack)
        prompts = [prompt] if prompt is not None else _read_prompts(file or Path("-"))
        stopped = False
        for start in range(0, len(prompts), BATCH):
            for decision in engine.judge_many(prompts[start : start + BATCH]):
                stopped |= decision.action.stops
                if as_json:
                    print_json(decision.to_json())
                else:
                    _print_for_people(decision)
        raise typer.Exit(EXIT_BLOCKED if stopped else 0)


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

    colour = {Action.ALLOW: "green", Action.FLAG: "yellow", Action.REVIEW: "yellow", Action.BLOCK: "red"}
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold {colour[decision.action]}]{decision.action.upper()}[/]  ", end="")
    console.print(decision.explanation, markup=False)
    for reason in decision.reasons:
        where = f", matched in its {reason.view} view" if reason.view else ""
        line = f"  {reason.category}: {reason.score:.2f} >= {reason.threshold:.2f} ({reason.classifier}{where})"
        console.print(line, markup=False)


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List the packs that ship with safegen."""
    with command(as_json=as_json):
        from safegen.policies.engine import list_packs

        names = list_packs()
        if as_json:
            print_json(names)
        else:
            for name in names:
                typer.echo(name)


@app.command()
def show(
    policy_pack: Annotated[str, typer.Argument(help="A name or a YAML file.")] = "default", as_json: JsonFlag = False
) -> None:
    """Show a pack as the engine understands it: categories, thresholds, classifiers, hash."""
    with command(as_json=as_json):
        from safegen.policies.engine import Engine
        from safegen.policies.probes import ProbeSet

        engine = Engine.load(policy_pack)
        probes = ProbeSet.load(engine.pack, folders=(Home.default().probes,))
        description = engine.describe() | {"probes": [held.to_json() for held in probes.held]}
        typer.echo(json.dumps(description, ensure_ascii=False, indent=None if as_json else 2))
