"""``safegen audit`` through the command line: on clips that were really made, and on a ledger of made-up ones."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from safegen.cli.app import app
from safegen.keys import KeyStore
from safegen.ledger import Event, Ledger, VerifierKey
from safegen.ledger.subjects import Personal
from safegen.settings import Home
from tests.e2e.conftest import SMALL, Made, Shell

RUN = CliRunner()
CONSENT = "urn:uuid:0617ea0e-00f1-4341-a915-3ad528f5fd53"
SIZE = ("--frames", SMALL["frames"], "--steps", SMALL["steps"])


def test_clips_that_were_made_are_found_by_all_that_is_known_of_them(
    shell: Shell, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, again = tmp_path / "second.mp4", tmp_path / "again.mp4"
    shell("generate", "a blue ball", "-o", second, "--video", made.path, "--seed", 8, *map(str, SIZE), code=0)
    shell("resign", second, "-o", again, code=0)
    row = json.loads(shell("audit", "asset", second, "--json", code=0).stdout)
    monkeypatch.setenv("SAFEGEN_HOME", str(shell.home.root))
    assert (row["kind"], row["mode"], row["policy"], row["decision"]) == (
        "generated",
        "video",
        "default",
        {"action": "allow"},
    )
    chain = json.loads(run("chain", again, "--json").stdout)
    resigned = chain["links"][-1]["entry"]
    assert [(link["entry"], link["relation"], link["parent"]) for link in chain["links"]] == [
        (row["entry"], "input", made.printed["entry"]), (resigned, "resigned", row["entry"]),
    ]  # fmt: skip
    for query in (
        ("mark", row["content_id"]), ("key", row["certificate"]), ("key", row["signer"]), ("model", row["model"]),
        ("policy", "default"), ("policy", row["policy_sha256"], "--decision", "allow"), ("time", "--to", "2999-01-01"),
    ):  # fmt: skip
        assert row["entry"] in entries(*query, "--limit", 0), query
    assert entries("unmarked") == []
    shell("ledger", "fsck", code=0)
    run("export", "-o", tmp_path / "bundle", "--manifests", "--content-id", row["content_id"])
    script = tmp_path / "bundle" / "verify.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", script], env={}, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 5  # it holds; nothing was given to hold its key against
    assert f"manifests/{row['content_id']}.c2pa: the manifest that an entry names" in done.stdout
    assert f"certificates/{row['certificate']}.pem: signed files" in done.stdout


@pytest.fixture
def vkey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SAFEGEN_HOME", str(tmp_path / "home"))
    home = Home(tmp_path / "home")
    keys = KeyStore.init(home)
    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        for number in range(5):
            body = {
                "decision": {"policy_id": "default"}, "mark": {"content_id": f"{number:016x}"} if number else None,
                "consents": [{"id": CONSENT, "state": "valid"}], "inputs": [{"sha256": f"{number - 1 & 255:064x}"}],
            }  # fmt: skip
            action = "allow" if number != 2 else "flag"
            ledger.append(Event("generated", f"{number:016x}", body, f"{number:064x}", model="m", action=action))
    return str(VerifierKey.of(keys.ledger_name, keys.ledger_public_key))


def run(*arguments: object, code: int = 0) -> Result:
    done = RUN.invoke(app, ["audit", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def entries(*arguments: object) -> list[int]:
    return [json.loads(line)["entry"] for line in run(*arguments, "--json").stdout.splitlines()]


def test_every_question_has_an_answer(vkey: str, tmp_path: Path) -> None:
    assert entries("asset", f"{3:064X}") == [3]
    assert entries("mark", f"{3:016x}") == [3]
    assert entries("policy", "default", "--decision", "flag") == [2]
    assert entries("model", "m") == entries("consent", CONSENT) == entries("key", vkey) == [0, 1, 2, 3, 4]
    assert entries("key", vkey.replace("+", "x+", 1)) == entries("model", "x") == entries("key", "a" * 64) == []
    assert entries("unmarked") == [0]
    assert entries("time", "--from", "2026-01-01") == [0, 1, 2, 3, 4]
    assert entries("time", "--to", "2026-01-01") == entries("model", "m", "--from", "2999-01-01") == []
    assert sum(json.loads(line)["entries"] for line in run("daily", "--json").stdout.splitlines()) == 5
    assert run("daily", "--to", "2026-01-01").stdout == "0 entries\n"
    line = run("asset", f"{3:064x}").stdout.split()
    assert [line[0], *line[2:]] == ["3", "generated", f"{3:016x}", "allow", "default", "m", "0" * 12]


def test_answers_come_in_pages(vkey: str) -> None:
    first = run("model", "m", "--limit", 2)
    assert first.stderr == "There are more: --after 1, or --limit 0 for all.\n"
    assert entries("model", "m", "--limit", 2, "--after", 1) == [2, 3]
    assert run("model", "m", "--limit", 2, "--after", 2).stderr == ""
    assert entries("time", "--from", "2026-01-01", "--limit", 0, "--after", 2) == [3, 4]


def test_a_person_is_found_by_consent_records(vkey: str, tmp_path: Path) -> None:
    record = tmp_path / "records" / "a.consent"
    record.parent.mkdir()
    granted = ("--granted-by", "Ada Example", "--expires", "2999-01-01")
    signed = RUN.invoke(app, ["consent", "sign", "Ada Example", "-o", str(record), *granted, "--json"])
    assert signed.exit_code == 0, signed.output
    home = Home.default()
    keys = KeyStore.load(home)
    with Ledger.open(home.ledger_url, key=keys.ledger_key) as ledger:
        ledger.append(
            Event("generated", "f" * 16, {"consents": [{"id": json.loads(signed.stdout)["consent"], "state": "valid"}]})
        )
    assert entries("consent", record) == entries("consent", "ada example", "--records", record.parent) == [5]
    assert "consent valid" in run("consent", record).stdout
    run("consent", "Eve Example", "--records", record.parent, code=2)
    run("consent", "Ada Example", code=2)
    run("consent", "Ada Example", "--records", tmp_path / "nowhere", code=2)


def test_a_subject_is_found_by_name_and_handed_over_without_it(vkey: str, tmp_path: Path) -> None:
    home = Home.default()
    keys = KeyStore.load(home)
    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        for number, subject in enumerate(("pat@example.org", "kim@example.org", "pat@example.org"), 16):
            event = Event("generated", f"{number:02x}" * 8, {}, f"{number:02x}" * 32)
            Personal(ledger, home).append(event, subject, {"requester": subject})
            ledger.append(Event("generated", f"{number:02x}" * 7 + "dd", {}, "d" * 64))
    assert entries("subject", "pat@example.org") == [5, 9]
    assert entries("subject", "pat@example.org", "--after", 5) == [9]
    assert entries("subject", "pat@example.org", "--to", "2026-01-01") == entries("subject", "nobody") == []
    told = run("export", "-o", tmp_path / "b", "--subject", "pat@example.org", "--content-id", f"{1:016x}").stdout
    assert "3 of 11 entries" in told
    assert not any(b"pat@" in path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file())
    checked = [sys.executable, tmp_path / "b" / "verify.py", "--key", vkey]
    assert subprocess.run(checked, capture_output=True, check=False).returncode == 0
    run("export", "-o", tmp_path / "c", "--subject", "nobody", code=2)
    assert RUN.invoke(app, ["ledger", "erase", "pat@example.org", "--yes"]).exit_code == 0
    assert [run_kind(one) for one in entries("subject", "pat@example.org")] == ["erased"]


def run_kind(entry: int) -> str:
    found = run("chain", entry, "--json").stdout
    return str(json.loads(found)["entries"][0]["kind"])


def test_an_altered_personal_field_is_not_passed_over(vkey: str) -> None:
    home = Home.default()
    keys = KeyStore.load(home)
    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        Personal(ledger, home).append(Event("generated", "e" * 16, {}, "e" * 64), "pat", {"requester": "pat"})
    with contextlib.closing(sqlite3.connect(home.root / "ledger.db")) as database:
        database.execute("UPDATE personal_fields SET sealed = replace(sealed, substr(sealed, 9, 1), '-')")
        database.commit()
    assert "altered" in run("subject", "pat", code=4).stderr


def test_the_chain_of_an_input_file_is_found(vkey: str) -> None:
    links = json.loads(run("chain", f"{255:064x}", "--json").stdout)["links"]
    assert {link["relation"] for link in links} == {"input"}
    assert links[0]["sha256"] == f"{255:064x}"


def test_a_ledgers_key_is_found_in_a_file_too(vkey: str, tmp_path: Path) -> None:
    (tmp_path / "ledger.vkey").write_text(vkey + "\n")
    assert entries("key", tmp_path / "ledger.vkey") == [0, 1, 2, 3, 4]
    (tmp_path / "text").write_text("hello")
    assert "vkey" in run("key", tmp_path / "text", code=2).stderr


def test_csv_and_parquet_hold_every_column(vkey: str, tmp_path: Path) -> None:
    wanted = [json.loads(line) for line in run("model", "m", "--json").stdout.splitlines()]
    for row in wanted:  # JSON names its shape, and has what was decided as an object
        del row["schema"]
        row["decision"] = row["decision"]["action"]
    told = list(csv.DictReader(io.StringIO(run("model", "m", "--csv").stdout)))
    plain = [
        {name: "" if value is None else str(value) for name, value in row.items()} | {"damage": ""} for row in wanted
    ]
    assert told == plain
    parquet = pytest.importorskip("pyarrow.parquet")
    run("model", "m", "--parquet", tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.to_pylist() == [row | {"damage": None} for row in wanted]
    run("daily", "--parquet", tmp_path / "b.parquet")
    assert sum(parquet.read_table(tmp_path / "b.parquet")["entries"].to_pylist()) == 5
    run("model", "x", "--parquet", tmp_path / "c.parquet")
    assert parquet.read_table(tmp_path / "c.parquet").num_rows == 0
    run("model", "m", "--json", "--csv", code=2)
    run("model", "m", "--parquet", tmp_path / "nowhere" / "a.parquet", code=4)


def test_a_chain_is_drawn(vkey: str, tmp_path: Path) -> None:
    tree = run("chain", 2, "--svg", tmp_path / "c.svg", "--png", tmp_path / "c.png").stdout.splitlines()
    assert [line.split("entry ")[-1].split()[0] for line in tree] == ["input", "0", "1", "2", "3", "4"]
    svg = (tmp_path / "c.svg").read_text()
    assert svg.count("<rect") == 6
    assert svg.count("marker-end") == 5
    image = Image.open(tmp_path / "c.png")
    assert image.size == (250, 40 + 6 * 64 + 5 * 44)
    assert len(image.getcolors(1 << 20) or ()) > 4
    chain = json.loads(run("chain", f"{2:016x}", "--limit", 2, "--json").stdout)
    assert (len(chain["entries"]), chain["whole"]) == (2, False)


def test_a_bundle_is_written_and_says_what_it_is(vkey: str, tmp_path: Path) -> None:
    assert "3 of 5 entries" in run("export", "-o", tmp_path / "a.zip", *clips(0, 1, 2)).stdout
    said = json.loads(run("export", "-o", tmp_path / "b", "--from", "2026-01-01", "--json").stdout)
    assert (said["output"], said["entries"], said["size"], said["manifests"]) == (str(tmp_path / "b"), 5, 5, 0)
    run("export", "-o", tmp_path / "b", "--force", "--since", tmp_path / "b" / "checkpoint")
    assert "5 entries of the earlier checkpoint" in subprocess.run(
        [sys.executable, tmp_path / "b" / "verify.py", "--key", vkey], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
    nameless = [sys.executable, tmp_path / "b" / "verify.py", "--key", ""]
    assert subprocess.run(nameless, capture_output=True, check=False).returncode == 2
    for wrong in (
        ("-o", tmp_path / "b"),
        ("-o", tmp_path / "c", *clips(9)),
        ("-o", tmp_path / "c", "--since", "nowhere"),
    ):
        run("export", *wrong, code=2)
    run("export", "-o", tmp_path / "nowhere" / "b", code=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b", "home"]


def clips(*numbers: int) -> list[str]:
    return [word for number in numbers for word in ("--content-id", f"{number:016x}")]


@pytest.mark.parametrize(
    "arguments",
    [
        ("asset", "nothing.mp4"), ("asset", "."), ("mark", "x"), ("chain", "77"), ("chain", "nothing"),
        ("key", ""), ("policy", " "), ("model", ""), ("subject", ""),
        ("time", "--from", "yesterday"), ("consent", "x"), ("chain", "1", "--svg", "/nowhere/x.svg"),
    ],
)  # fmt: skip
def test_bad_input_is_told_so(vkey: str, arguments: tuple[str, ...]) -> None:
    assert "Error:" in run(*arguments, code=2).stderr


SENSELESS = (
    ("subject", " "),
    ("subject", "pat", "--from", "x"),
    ("time", "--to", "1"),
    ("time", "--from", "2027-01-01", "--to", "2026-01-01"),
    ("key", "k", "--from", "x"),
)


@pytest.mark.parametrize("asked", SENSELESS)
def test_questions_that_make_no_sense_were_answered_where_there_was_no_ledger(
    asked: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFEGEN_HOME", str(tmp_path / "home"))
    run(*asked, code=2)
