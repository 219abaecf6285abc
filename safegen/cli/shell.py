"""What every command shares: printing, progress bars, and errors turned into messages and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
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


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return "1 file", "2 files"; ``plural`` where an s is not all that it takes."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def print_json(schema: str, value: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Print ``value`` as one object of JSON on standard output; its first member names its shape (docs/json.md)."""
    print_foreign_json({"schema": f"safegen.{schema}", **value}, indent=indent)


def print_foreign_json(value: Any, *, indent: int | None = None) -> None:
    """Print JSON whose shape somebody else has laid down, as it is."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=indent))


@contextmanager
def closed_output() -> Iterator[None]:
    """Print in here what need not be read to its end: a reader that goes away (``| head -1``) changes no exit code."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # rich ends the program where its reader has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
        print_json("error/1", {"error": body})
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
    """Progress on standard error: a bar per stage on a terminal, elsewhere a line of a stage that takes long.

    Off a terminal, a stage that is not over after ``patience`` seconds writes a line, and again each time that it has
    taken twice as long, so that a log shows that something goes on and stays short.
    """

    def __init__(self, *, patience: float = 5.0) -> None:
        self._patience = patience
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._waiting: dict[str, _Waiting] = {}

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
        for stage in self._waiting.values():
            stage.end()

    def __call__(self, stage: str, done: float, total: float) -> None:
        """Report that ``stage`` has done ``done`` of ``total`` units."""
        if self._progress is None:
            if stage not in self._waiting:
                self._waiting[stage] = _Waiting(stage, self._patience)
            self._waiting[stage].now(done, total)
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)


class _Waiting:
    """A stage off a terminal: how far it is, and the timer of its next line."""

    def __init__(self, stage: str, patience: float) -> None:
        self._stage, self._patience = stage, patience
        self._done = self._total = 0.0
        self._begun = time.monotonic()
        self._lock = threading.Lock()  # a stage may end while its line is written
        self._timer: threading.Timer | None = None
        self._start(patience)

    def now(self, done: float, total: float) -> None:
        self._done, self._total = done, total
        if done >= total:
            self.end()

    def end(self) -> None:
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _start(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._write)
        self._timer.daemon = True
        self._timer.start()

    def _write(self) -> None:
        with self._lock:
            if self._timer is None:
                return
            passed = time.monotonic() - self._begun
            typer.echo(f"{self._stage}: {self._done:.0f}/{self._total:.0f} after {passed:.0f} s", err=True)
            self._start(max(passed, self._patience))
