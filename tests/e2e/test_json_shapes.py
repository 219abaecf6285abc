"""What every command prints with --json has the shape that docs/json.md gives, by the names of its members."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safegen.keys import KeyStore
from safegen.ledger import Event, Ledger
from safegen.ledger.subjects import Personal
from safegen.settings import Home
from tests.e2e.conftest import PROMPT, SMALL, Made
from tests.unit.in_process import InProcess
from tools import cli_page

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text("utf-8")
COMMANDS = {" ".join(words[1:]) for words, _ in cli_page.commands()}
SIZE = ("--frames", SMALL["frames"], "--steps", SMALL["steps"])
OTHERS_SHAPE = {"policy schema"}
LINK = re.compile(r"\[([a-z' ]+)\]\(#")
NEEDS_THE_NETWORK = {"trust update"}


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a shape: whether it may be missing, and the shape of what it holds, "" where that is open."""

    optional: bool
    shape: str


def documented() -> tuple[dict[str, dict[str, Member]], dict[str, set[str]]]:
    """The members of every shape on the page, and the commands that each section is about."""
    shapes: dict[str, dict[str, Member]] = {}
    spoken: dict[str, set[str]] = {}
    for section in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        name = title.strip("`")
        if name != title:
            spoken[name] = set(re.findall(r"`safegen ([a-z -]+?)(?:`| [A-Z])", text))
        rows = re.findall(r"^\| (`.*?) \| (.*) \|$", text, re.MULTILINE)
        shapes[name] = {
            member: Member(told.startswith("optional"), "".join(LINK.findall(told)))
            for members, told in rows
            for member in re.findall(r"`([^`]+)`", members)
        }
    rows_alone = shapes["audit row"]  # the members of an object that is nothing but such a row
    return shapes | {"safegen.audit.row/1": rows_alone}, spoken


SHAPES, SPOKEN = documented()


def check(value: Any, shape: str, where: str) -> None:
    """Hold a printed value against a shape, down to where the page leaves it open."""
    if isinstance(value, list):
        for one in value:
            check(one, shape, f"{where}[]")
    elif value is not None:
        members = SHAPES[shape]
        unknown = set() if shape == "check" else set(value) - set(members) - {"schema"}
        assert not unknown, f"{where}: not in docs/json.md: {sorted(unknown)}"
        missing = {name for name, member in members.items() if not member.optional} - set(value)
        if where.endswith("decision") and shape == "decision" and set(value) == {"action"}:
            return
        assert not missing, f"{where}: docs/json.md has {sorted(missing)}"
        for name, member in members.items():
            if member.shape and name in value:
                check(value[name], member.shape, f"{where}.{name}")


class Printed(dict[str, list[dict[str, Any]]]):
    """What commands printed, by their words."""

    def __init__(self, shell: InProcess) -> None:
        super().__init__()
        self._shell = shell

    def run(self, words: str, *arguments: object, code: int = 0) -> dict[str, Any]:
        done = self._shell(*words.split(), *arguments, "--json", code=code)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.setdefault(words, []).extend(lines)
        return dict(lines[0]) if lines else {}


def address_of(home: Home, words: str, *arguments: str) -> dict[str, Any]:
    """Start a server, return what it prints first, and end it."""
    environment = os.environ | {"SAFEGEN_HOME": str(home.root)}
    command = [sys.executable, "-m", "safegen", *words.split(), *arguments, "--port", "0", "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = json.loads(server.stdout.readline())
        server.send_signal(signal.SIGINT)
    return dict(said)


@pytest.fixture(scope="module")
def printed(made: Made, home: Home, pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Printed:
    """Every command once, on the home of the tests' clip and on one of this module's own."""
    tmp, shell = tmp_path_factory.mktemp("json"), InProcess(home)
    said = Printed(shell)
    said["generate"] = [made.printed]
    files(said, made.path, tmp)
    said.run("watermark show")
    said.run("watermark calibrate", "--model", pipeline_folder)
    own = Home(tmp / "home")
    rest = Printed(InProcess(own))
    rest.run("keys init")
    rest.run("keys show")
    rest.run("keys renew")
    rest.run("doctor")
    certificates(rest, tmp)
    policies(rest, tmp)
    reviews(rest, tmp)
    consents(rest, tmp)
    subjects(rest, own)
    ledgers(rest, tmp)
    audits(rest, tmp)
    rest["serve"] = [address_of(own, "serve")]
    witness = "ledger witness"
    rest.run(f"{witness} init", tmp / "w", "--name", "w.example")
    rest.run(f"{witness} add", tmp / "w", rest["keys show"][0]["vkey"])
    rest[f"{witness} serve"] = [address_of(own, f"{witness} serve", str(tmp / "w"))]
    for words, lines in rest.items():
        said.setdefault(words, []).extend(lines)
    return said


def files(said: Printed, clip: Path, tmp: Path) -> None:
    said.run("verify", clip)
    said.run("verify", clip, "--strict", code=1)
    said.run("watermark read", clip)
    said.run("resign", clip, "-o", tmp / "again.mp4")
    stripped = tmp / "stripped.mp4"
    from tests.e2e.conftest import ffmpeg

    ffmpeg("-i", clip, "-c", "copy", stripped)
    said.run("recover", stripped, "-o", tmp / "restored.mp4")
    said.run("audit asset", clip)
    said.run("audit model", said["audit asset"][0]["model"])
    said.run("audit key", KeyStore.load(said._shell.home).leaf_fingerprint)
    said.run("audit mark", said["verify"][0]["content_id"])
    said.run("audit chain", clip)


def certificates(said: Printed, tmp: Path) -> None:
    said.run("cert init", tmp / "pki")
    said.run("cert lint", tmp / "pki" / "chain.pem")
    (tmp / "root.pem").write_bytes((tmp / "pki" / "root.pem").read_bytes())
    said.run("cert lint", tmp / "root.pem", code=1)
    said.run("cert show")
    said.run("cert rotate")
    said.run("trust add", tmp / "root.pem", "--name", "house")
    said.run("trust show")
    said.run("trust show", "nobody", code=2)


def policies(said: Printed, tmp: Path) -> None:
    said.run("policy check", PROMPT)
    said.run("policy list")
    said.run("policy show")
    said.run("policy schema")
    said.run("policy test")
    said.run("policy diff", "default", "strict")
    (tmp / "odd.yaml").write_text("schema: safegen.policy/1\nodd: 1\n")
    said.run("policy lint", tmp / "odd.yaml", code=1)


UNREAD = "красный мяч на траве"


def reviews(said: Printed, tmp: Path) -> None:
    """Runs that stop before anything is drawn: nobody can judge these words."""
    for seed in (1, 2):
        said.run("generate", UNREAD, "-o", tmp / "never.mp4", "--seed", seed, *SIZE, code=3)
    said.run("review list")
    said.run("review approve", 0, "--by", "eve", "--reason", "agreed")
    said.run("review deny", 1, "--by", "eve", "--reason", "no")
    said.run("review show", 0)


def consents(said: Printed, tmp: Path) -> None:
    record = tmp / "ada.consent"
    said.run("consent sign", "Ada Example", "-o", record, "--granted-by", "Ada", "--expires", "2127-01-31")
    said.run("consent check", record, code=1)
    said.run("consent show", record)
    said.run("consent trust", "--own")
    said.run("consent trust")
    said.run("consent show")
    consent = said.run("consent revoke", record, "--by", "ada")["consent"]
    said.run("audit consent", consent)


def subjects(said: Printed, home: Home) -> None:
    keys = KeyStore.load(home)
    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        Personal(ledger, home).append(Event("blocked"), "account:1", {"requester": "account:1"})
    said.run("ledger subject", "account:1")
    said.run("audit subject", "account:1")
    (home.root / "retention.yaml").write_text("schema: safegen.retention/1\nretention: {texts: 30d}\n")
    said.run("ledger retain", "--dry-run")
    said.run("ledger erase", "account:1", "--yes")


def ledgers(said: Printed, tmp: Path) -> None:
    for words in ("list", "show 0", "fsck", "current", "upgrade", "checkpoint"):
        command, *rest = words.split()
        said.run(f"ledger {command}", *rest)
    said.run("ledger downgrade", said["ledger current"][0]["revision"])
    said.run("ledger receipt", 0, "-o", tmp / "receipt")
    proved = said.run("ledger prove", 0, "-o", tmp / "proof")
    (tmp / "leaf").write_text(proved["leaf"])
    for proof in ("proof", "receipt"):
        said.run("ledger check", tmp / proof, "--leaf", tmp / "leaf")
    said.run("ledger export-tiles", tmp / "tiles")


def audits(said: Printed, tmp: Path) -> None:
    for words in ("time", "daily", "chain 0"):
        command, *rest = words.split()
        said.run(f"audit {command}", *rest)
    said.run("audit policy", "default", "--decision", "review")
    said.run("audit unmarked")
    said.run("audit export", "-o", tmp / "bundle")


@pytest.mark.slow
def test_every_command_prints_the_shape_that_the_page_gives(printed: Printed) -> None:
    assert set(printed) == COMMANDS - NEEDS_THE_NETWORK
    for words, lines in printed.items():
        for line in lines if words not in OTHERS_SHAPE else ():
            assert next(iter(line)) == "schema", words
            schema = line["schema"]
            assert schema in SHAPES, f"{words}: {schema}"
            assert schema == "safegen.error/1" or words in SPOKEN[schema], f"{words} is not under {schema}"
            check(line, schema, f"{words}: {schema}")


def names(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield name, one
            if name not in ("body", "policy", "proof", "record", "evidence"):  # formats of their own
                yield from names(one)
    elif isinstance(value, list):
        for one in value:
            yield from names(one)


@pytest.mark.slow
def test_one_thing_has_one_name_in_all_that_is_printed(printed: Printed) -> None:
    for words, lines in printed.items():
        for name, value in names(lines) if words not in OTHERS_SHAPE else ():
            assert name != "index", words
            if name.endswith("decision"):
                assert value is None or "action" in value, f"{words}: {value!r}"


def test_every_command_is_on_the_page_and_every_shape_is_printed_by_one() -> None:
    assert set().union(*SPOKEN.values()) == COMMANDS - OTHERS_SHAPE
    assert {name for name, words in SPOKEN.items() if not words} == {"safegen.error/1", "safegen.audit-check/1"}
