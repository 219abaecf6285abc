"""Bad input and bad surroundings: a clear error of ours with its exit code, nothing lost, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import safegen
from safegen.errors import (
    BlockedError,
    CancelledError,
    GeneratorError,
    InputError,
    KeyStoreError,
    LedgerBusyError,
    LedgerError,
    MediaError,
    MigrationRequiredError,
    ProvenanceError,
    SafegenError,
    UnreadableMediaError,
)
from safegen.ledger import Ledger
from safegen.settings import Home
from tests.e2e.conftest import PROMPT, SMALL, Made, Shell


def generate(home: Home, output: Path, prompt: Any = PROMPT, **options: Any) -> safegen.Generated:
    return safegen.generate(prompt, output=output, home=home, seed=1, **(SMALL | options))


def kinds(home: Home) -> list[str]:
    with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
        return [e.kind for e in ledger.entries()]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "clip.mp4"


@pytest.fixture(scope="module")
def forbidden() -> str:
    """A request that the default pack blocks, put together from the lexicon's data, where such words belong."""
    from safegen.policies.text.lexicon import Lexicon

    lists = Lexicon.load().lists
    return f"{lists['making'][0]} a {lists['weapon_products'][2]} at home"


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt", ["", "   \n", "a ball " * 15_000, 7, None], ids=["empty", "blank", "100k", "int", "none"]
)
def test_a_prompt_that_is_no_prompt(fresh_home: Home, output: Path, prompt: Any) -> None:
    with pytest.raises(InputError):
        generate(fresh_home, output, prompt)
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"size": "191x192"}, "192x192"),
        ({"size": "0x192"}, ""),
        ({"size": "wide"}, "WIDTHxHEIGHT"),
        ({"size": "99999x99999"}, ""),
        ({"frames": 12}, "13"),
        ({"frames": 0}, ""),
        ({"frames": -5}, ""),
        ({"frames": 10**7 + 1}, ""),
        ({"steps": 0}, "steps"),
        ({"seed": -1}, "4294967295"),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else "",
)
def test_sizes_that_the_model_cannot_make(fresh_home: Home, output: Path, options: dict, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        safegen.generate(PROMPT, output=output, home=fresh_home, **options)
    assert hint in caught.value.remedy
    assert not output.exists()


def test_bad_options_exit_2_before_anything_is_loaded(shell: Shell, output: Path) -> None:
    error = shell.json("generate", PROMPT, "-o", output, "--frames", "12", code=2)["error"]
    assert error["type"] == "InputError"
    assert "13" in error["remedy"]
    shell("generate", PROMPT, code=2)
    shell("generate", PROMPT, "-o", output, "--no-such-option", code=2)


def test_a_forbidden_prompt_is_blocked_before_the_model_loads(
    fresh_home: Home, output: Path, forbidden: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model_without_weights"
    pipe = Path(safegen.__file__).parent / "tinymodel" / "pipe"
    shutil.copytree(pipe, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    done = Shell(fresh_home)("generate", forbidden, "-o", output, "--model", folder, "--json", code=3)
    body = json.loads(done.stdout)["error"]
    assert body["type"] == "BlockedError"
    assert body["decision"]["action"] == "block"
    assert kinds(fresh_home) == ["blocked"]
    assert not output.exists()
    with Ledger.open(fresh_home.ledger_url, read_only=True, create=False) as ledger:
        assert forbidden not in ledger.get(0).leaf


def test_a_forbidden_negative_prompt_alone_does_not_block(fresh_home: Home, forbidden: str) -> None:
    from safegen.policies.engine.engine import Engine, Request

    assert not Engine.load("default").judge(Request(PROMPT, negative_prompt=forbidden)).action.stops


# -- inputs and outputs -----------------------------------------------------------------------------------------------


def test_unreadable_files_are_bad_input(shell: Shell, unreadable: Path) -> None:
    error = shell.json("verify", unreadable, code=2)["error"]
    assert error["type"] in {"InputError", "UnreadableMediaError"}
    assert error["message"]


@pytest.mark.parametrize("option", ["image", "video"])
def test_unreadable_conditioning_is_bad_input(fresh_home: Home, output: Path, unreadable: Path, option: str) -> None:
    with pytest.raises((InputError, UnreadableMediaError)):
        generate(fresh_home, output, **{option: unreadable})
    assert not output.exists()


def test_a_clip_cut_in_half_is_tampered_or_unreadable_but_never_verified(
    shell: Shell, made: Made, tmp_path: Path
) -> None:
    cut = tmp_path / "cut_in_half.mp4"
    data = made.path.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    assert shell("verify", cut).returncode in {1, 2}


def test_an_existing_output_is_kept_unless_forced(fresh_home: Home, output: Path) -> None:
    output.write_text("precious")
    with pytest.raises(InputError) as caught:
        generate(fresh_home, output)
    assert "--force" in caught.value.remedy
    assert output.read_text() == "precious"


@pytest.mark.parametrize("name", ["clip.avi", "clip", "no/such/folder/clip.mp4"])
def test_outputs_that_cannot_be(fresh_home: Home, output: Path, name: str) -> None:
    with pytest.raises(InputError):
        generate(fresh_home, output.parent / name)


def test_an_unwritable_folder(fresh_home: Home, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, whom permission bits do not stop.
    monkeypatch.setattr(os, "access", lambda *_args, **_kwargs: False)
    with pytest.raises(InputError, match="not writable"):
        generate(fresh_home, output)


# -- models -----------------------------------------------------------------------------------------------------------


def test_models_that_are_none(fresh_home: Home, output: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    still = tmp_path / "still"
    still.mkdir()
    (still / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (still / "vae").mkdir()
    (still / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKL", "block_out_channels": [8, 8]}')
    for name in ("no/such/model/here", str(tmp_path / "empty"), str(still), "two words"):
        with pytest.raises((InputError, GeneratorError)):
            generate(fresh_home, output, model=name)
    assert not output.exists()


# -- keys -------------------------------------------------------------------------------------------------------------


def test_missing_keys(tmp_path: Path, output: Path) -> None:
    with pytest.raises(KeyStoreError) as caught:
        generate(Home(tmp_path / "no_keys"), output)
    assert "safegen keys init" in caught.value.remedy


def test_keys_open_to_others_exit_4(fresh_home: Home, output: Path) -> None:
    (fresh_home.keys / "signing.key").chmod(0o644)
    error = Shell(fresh_home).json("generate", PROMPT, "-o", output, code=4)["error"]
    assert error["type"] == "KeyStoreError"
    assert "chmod" in error["remedy"]


# -- ledger -----------------------------------------------------------------------------------------------------------


def test_a_locked_ledger(fresh_home: Home, output: Path) -> None:
    Ledger.open(fresh_home.ledger_url).close()
    holder = sqlite3.connect(fresh_home.root / "ledger.db", isolation_level=None)
    holder.execute("begin immediate")
    with pytest.raises(LedgerBusyError):
        generate(fresh_home, output)
    holder.rollback()
    holder.close()
    assert list(output.parent.iterdir()) == []


def test_a_newer_ledger(fresh_home: Home, output: Path) -> None:
    Ledger.open(fresh_home.ledger_url).close()
    with sqlite3.connect(fresh_home.root / "ledger.db") as database:
        database.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(MigrationRequiredError):
        generate(fresh_home, output)
    assert not output.exists()


def test_a_ledger_that_is_no_database(fresh_home: Home, output: Path) -> None:
    (fresh_home.root / "ledger.db").write_text("no database at all, but long enough to have a header" * 20)
    with pytest.raises(LedgerError):
        generate(fresh_home, output)
    assert not output.exists()


# -- trouble on the way -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["loading the model", "generating", "encoding"])
def test_ctrl_c_leaves_no_file_and_is_recorded(fresh_home: Home, output: Path, stage: str) -> None:
    def interrupt(reached: str, done: float, total: float) -> None:
        if reached == stage:
            raise KeyboardInterrupt

    with pytest.raises(CancelledError):
        generate(fresh_home, output, progress=interrupt)
    assert list(output.parent.iterdir()) == []
    assert kinds(fresh_home) == ["cancelled"]


SAFEGEN_THAT_LOADS_FOR_EVER = """
import sys, time
from safegen.cli import main
from safegen.generation import pipeline
def load(*_, **__):
    print("loading", file=sys.stderr, flush=True)
    time.sleep(600)
pipeline.load = load
main()
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_real_signal_does_the_same(fresh_home: Home, output: Path, sign: signal.Signals) -> None:
    program = ("-c", SAFEGEN_THAT_LOADS_FOR_EVER)
    child = Shell(fresh_home).start("generate", PROMPT, "-o", output, "--json", program=program)
    assert child.stderr is not None
    assert "loading\n" in iter(child.stderr.readline, "")
    child.send_signal(sign)
    printed, complaint = child.communicate(timeout=300)
    assert child.returncode == 4, complaint
    assert json.loads(printed)["error"]["type"] == "CancelledError"
    assert "Traceback" not in complaint
    assert list(output.parent.iterdir()) == []
    assert kinds(fresh_home) == ["cancelled"]


def test_a_full_disk_while_signing(fresh_home: Home, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safegen.provenance.file_signing as signing

    def no_space(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(signing.os, "fsync", no_space)
    with pytest.raises(SafegenError) as caught:
        generate(fresh_home, output)
    monkeypatch.undo()
    assert isinstance(caught.value, ProvenanceError | MediaError)
    assert list(output.parent.iterdir()) == []
    assert "generated" not in kinds(fresh_home)


def test_a_clip_that_cannot_be_recorded_is_not_released(
    fresh_home: Home, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Ledger, _event: object) -> None:
        raise LedgerError("the disk is full")

    monkeypatch.setattr(Ledger, "append", fail)
    with pytest.raises(LedgerError, match="the disk is full"):
        generate(fresh_home, output)
    monkeypatch.undo()
    assert list(output.parent.iterdir()) == []
    assert kinds(fresh_home) == []
    assert not any(fresh_home.manifests.iterdir())


def test_a_clip_that_cannot_be_placed_is_withdrawn(
    fresh_home: Home, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, _target: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "replace", fail)
    monkeypatch.setattr("safegen.files._move_to_free_name", fail)
    with pytest.raises(SafegenError):
        generate(fresh_home, output)
    monkeypatch.undo()
    assert list(output.parent.iterdir()) == []
    assert "withdrawn" in kinds(fresh_home) or "generated" not in kinds(fresh_home)


def test_two_generates_at_once_on_one_ledger(fresh_home: Home, output: Path) -> None:
    quick = ("--frames", "9", "--steps", "1")
    shell = Shell(fresh_home)
    children = [shell.start("generate", PROMPT, "-o", output.with_name(f"{n}.mp4"), *quick) for n in range(2)]
    for child in children:
        _, complaint = child.communicate(timeout=500)
        assert child.returncode == 0, complaint
    assert kinds(fresh_home) == ["generated", "generated"]
    Shell(fresh_home)("ledger", "fsck", code=0)


def test_blocked_error_carries_its_decision(fresh_home: Home, output: Path, forbidden: str) -> None:
    with pytest.raises(BlockedError) as caught:
        generate(fresh_home, output, forbidden)
    assert caught.value.decision.action == "block"
    assert forbidden not in str(caught.value)
