"""The smaller verbs: keys, policy, doctor."""

from __future__ import annotations

import json
from pathlib import Path

from safegen.settings import Home
from tests.e2e.conftest import PROMPT, Shell


def test_keys_are_made_once_and_shown_without_secrets(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    shell = Shell(home)
    shell("keys", "show", code=4)
    made = shell.json("keys", "init", code=0)
    assert "development" in made["purpose"]
    assert shell.json("keys", "init", code=4)["error"]["type"] == "KeyStoreError"
    shown = shell("keys", "show", "--json", code=0).stdout
    assert json.loads(shown) == made
    for path in home.keys.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
        if path.suffix == ".key":
            assert path.read_text().strip() not in shown
    renewed = shell.json("keys", "renew", code=0)
    assert renewed["certificate"]["sha256"] != made["certificate"]["sha256"]
    assert renewed["key_ids"]["watermark"] == made["key_ids"]["watermark"]


def test_policy_check_judges_one_prompt_or_a_file_in_order(shell: Shell, tmp_path: Path) -> None:
    assert shell.json("policy", "check", PROMPT, code=0)["decision"]["action"] == "allow"
    assert "ALLOW" in shell("policy", "check", PROMPT, code=0).stdout
    file = tmp_path / "prompts.jsonl"
    unread = "\u043a\u0440\u0430\u0441\u043d\u044b\u0439 \u043c\u044f\u0447 \u043d\u0430 \u0442\u0440\u0430\u0432\u0435"
    file.write_text("\n".join(json.dumps({"prompt": p}) for p in (PROMPT, unread, PROMPT)) + "\n")
    lines = shell("policy", "check", "--file", file, "--json", code=3).stdout.splitlines()
    assert [json.loads(line)["decision"]["action"] for line in lines] == ["allow", "review", "allow"]


def test_policy_check_refuses_what_is_no_list_of_prompts(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    for text in ("no json\n", '{"text": "x"}\n', '{"prompt": 7}\n', "[1]\n"):
        file.write_text(text)
        assert "line 1" in shell.json("policy", "check", "--file", file, code=2)["error"]["message"]
    shell("policy", "check", code=2)
    shell("policy", "check", "--file", tmp_path / "missing", code=2)
    shell("policy", "check", PROMPT, "--policy", "no-such-pack", code=2)


def test_policy_packs_are_listed_and_shown(shell: Shell) -> None:
    assert "default" in shell.json("policy", "list", code=0)["packs"]
    shown = shell.json("policy", "show", code=0)
    assert shown["id"] == "default"
    assert len(shown["sha256"]) == 64


def test_doctor_says_what_will_run(shell: Shell, tmp_path: Path) -> None:
    report = shell.json("doctor", code=0)
    assert report["ready"] is True
    folder = Path(report["model"]["folder"])
    assert (folder / "model_index.json").exists()
    assert report["versions"]["packages"]["torch"]
    empty = Shell(Home(tmp_path / "empty")).json("doctor", code=0)
    assert empty["ready"] is False
    assert "keys init" in empty["keys"]["remedy"]
    assert not (tmp_path / "empty").exists()


def test_version_and_help(shell: Shell) -> None:
    assert shell("--version", code=0).stdout.startswith("safegen ")
    assert "Exit codes" in shell("generate", "--help", code=0).stdout
    shell("no-such-command", code=2)
