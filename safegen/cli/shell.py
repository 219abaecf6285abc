"""What every command shares: printing, progress bars, and errors turned into messages and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from safegen.errors import EXIT_COULD_NOT_RUN, BlockedError, CancelledError, InputError, SafegenError
from safegen.settings import MAX_PROMPT_CHARACTERS

if TYPE_CHECKING:
    from types import FrameType

    from rich.progress import Progress, TaskID

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON object (or a line per item) on standard output.")
]


MAX_TEXT_BYTES = 4 * MAX_PROMPT_CHARACTERS


def private_text(name: str, given: str, file: Path | None, *, needed: bool = True) -> str:
    """Return a text that was given as an argument, in a file, or, if it is needed, on standard input (``-``).

    What stands in a command line is shown to every user of the machine by its list of processes. InputError
    where it is missing, too long, no text, or given twice.
    """
    if given and file is not None:
        raise InputError(f"The {name} was given twice.", remedy=f"Give it as an argument, or as --{name}-file.")
    if file is None and not (needed and given == "-"):
        if needed and not given:
            raise InputError(f"No {name} was given.", remedy=f"Give it as an argument, as --{name}-file, or as - .")
        return given
    try:
        source = sys.stdin.buffer if file is None else file.open("rb")
        with contextlib.nullcontext(source) if file is None else source:
            data = source.read(MAX_TEXT_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The {name} cannot be read: {error}", remedy="Give a text file in UTF-8.") from error
    if len(data) > MAX_TEXT_BYTES:
        raise InputError(f"The {name} is longer than {MAX_TEXT_BYTES} bytes.", remedy="Shorten it.")
    return text.removesuffix("\n").removesuffix("\r")


def print_json(value: Any) -> None:
    """Print ``value`` as one line of JSON on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False))


@contextmanager
def command(*, as_json: bool) -> Iterator[None]:
    """Run a command's body: safegen's errors end in a message and their exit code, never in a traceback.

    SIGTERM is treated like Ctrl-C, so that a run stopped by a supervisor also cleans up and is recorded.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except SafegenError as error:
        _fail(error, as_json=as_json)
    except KeyboardInterrupt:
        _fail(CancelledError("Cancelled."), as_json=as_json)
    except BrokenPipeError:
        # The reader (head, jq) has gone: nothing is wrong. Point stdout elsewhere so that the exit flush stays quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if os.environ.get("SAFEGEN_DEBUG"):
            traceback.print_exc()
        wrapped = SafegenError(
            f"Unexpected {type(error).__name__}: {error}",
            remedy="This is a defect of safegen: please report it, with the traceback that SAFEGEN_DEBUG=1 shows.",
        )
        _fail(wrapped, as_json=as_json)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(error: SafegenError, *, as_json: bool) -> NoReturn:
    if as_json:
        body: dict[str, Any] = {"type": type(error).__name__, "message": str(error), "remedy": error.remedy}
        if isinstance(error, BlockedError):
            body["decision"] = error.decision.to_json()
        print_json({"error": body})
    else:
        from rich.console import Console

        console = Console(stderr=True, soft_wrap=True, highlight=False)
        label = "Blocked" if isinstance(error, BlockedError) else "Error"
        console.print(f"[bold red]{label}:[/] ", end="")
        console.print(str(error), markup=False)
        if error.remedy:
            console.print(error.remedy, markup=False)
    raise typer.Exit(error.exit_code or EXIT_COULD_NOT_RUN)


class Bars:
    """Progress bars on standard error, one per stage, shown only on a terminal."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        """Start drawing."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        if not console.is_terminal:
            return self
        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        )
        self._progress = Progress(*columns, TimeElapsedColumn(), console=console)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing and leave the finished bars on the screen."""
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, stage: str, done: float, total: float) -> None:
        """Report that ``stage`` has done ``done`` of ``total`` units."""
        if self._progress is None:
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)
