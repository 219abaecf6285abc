"""The review queue through the real path: stop, approve, generate once; deny for good."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

import safegen
from safegen.errors import BlockedError
from safegen.keys import KeyStore
from safegen.ledger import Ledger
from safegen.ledger.subjects import Personal
from safegen.policies.engine.engine import FRAME_CLASSIFIERS
from safegen.review.queue import Reviews
from safegen.settings import Home
from tests.e2e.conftest import SMALL
from tests.unit.in_process import InProcess
from tests.unit.policies.test_frames import Says

PROMPT = "Ada Wong walks along a beach at sunset"


def lines(shell: InProcess, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shell("review", *arguments, "--json", code=0).stdout.splitlines()]


def test_the_whole_way_by_the_commands(fresh_home: Home, tmp_path: Path) -> None:
    shell, clip = InProcess(fresh_home), tmp_path / "clip.mp4"
    call = ("generate", PROMPT, "-o", clip, "--policy", "eu", "--frames", "13", "--steps", "2", "--seed", "3")
    error = shell.json(*call, code=3)["error"]
    assert "safegen review approve 0" in error["remedy"]
    (waiting,) = lines(shell, "list")
    assert (waiting["entry"], waiting["stage"], waiting["state"]) == (0, "request", "waiting")
    assert waiting["decision"]["categories"] == ["likeness"]
    assert waiting["text"] is None
    assert "Ada" not in json.dumps(waiting)

    approved = shell.json("review", "approve", "0", "--by", "eve", "--reason", "agreed by mail", code=0)
    assert lines(shell, "list") == []
    shell("review", "approve", "0", "--by", "eve", "--reason", "again", code=2)
    shell("review", "approve", "77", "--by", "eve", "--reason", "again", code=2)
    shell.json("generate", f"{PROMPT} again", *call[2:], code=3)
    made = shell.json(*call, code=0)
    assert made["approvals"] == [approved["entry"]]
    assert made["decision"]["action"] == "flag"
    entry = shell.json("ledger", "show", str(made["entry"]), code=0)
    assert entry["body"]["approvals"] == [{"entry": approved["entry"], "of": 0}]
    assert shell.json("verify", clip, code=0)["verdict"] == "verified"
    shown = shell.json("review", "show", "0", code=0)
    assert (shown["state"], shown["words"][0]["reason"]) == ("used", "agreed by mail")

    clip.unlink()
    again = shell.json(*call, code=3)["error"]
    assert again["decision"]["action"] == "review"
    (waiting,) = [case for case in lines(shell, "list") if case["prompt_commitment"] is not None][-1:]
    shell("review", "deny", str(waiting["entry"]), "--by", "eve", "--reason", "once is enough", code=0)
    denied = shell.json(*call, code=3)["error"]["decision"]
    assert (denied["action"], denied["reasons"][0]["category"]) == ("block", "denied")
    assert shell.json("ledger", "fsck", code=0)["ok"]
    assert not clip.exists()


def stop(home: Home, prompt: str, policy: str | Path, tmp_path: Path) -> dict[str, Any]:
    with pytest.raises(BlockedError) as caught:
        safegen.generate(prompt, output=tmp_path / "clip.mp4", policy=policy, home=home, seed=1, **SMALL)
    assert caught.value.decision.action == "review"
    with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
        *_, entry = ledger.entries()
    return dict(entry.body)


def test_texts_are_kept_where_the_pack_wants_them_and_never_of_minors(
    fresh_home: Home, clear_pack: Path, tmp_path: Path
) -> None:
    from safegen.policies.text.lexicon import Lexicon

    assert PROMPT not in json.dumps(stop(fresh_home, PROMPT, clear_pack, tmp_path))
    assert PROMPT not in json.dumps(stop(fresh_home, PROMPT, "eu", tmp_path))
    age = Lexicon.load().lists["age_cues"][0].lstrip("=")
    assert PROMPT not in json.dumps(stop(fresh_home, f"{PROMPT} with a {age}", clear_pack, tmp_path))
    shown = [InProcess(fresh_home).json("review", "show", index, code=0)["text"] for index in range(3)]
    assert shown == [{"prompt": PROMPT}, None, None]


def test_frames_that_wait_are_approved_for_their_seed(
    fresh_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame scores for review: a stand-in says so, since nothing that would is in these tests."""

    class Exposed(Says):
        def score(self, frames: Any) -> Any:
            scores = super().score(frames) * 0
            scores[:, self.classes.index("BUTTOCKS_EXPOSED")] = 0.55
            return scores

    monkeypatch.setitem(FRAME_CLASSIFIERS, "nudenet", Exposed)  # type: ignore[misc, index, arg-type]
    output, call = tmp_path / "clip.mp4", {"home": fresh_home, **SMALL}
    with pytest.raises(BlockedError, match=r"frames were refused from 0\.00 s on") as caught:
        safegen.generate("a ball on grass at sunset", output=output, seed=5, **call)
    assert "--seed 5" in caught.value.remedy
    keys = KeyStore.load(fresh_home)
    with Ledger.open(fresh_home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        reviews = Reviews(ledger, public_key=keys.ledger_public_key, personal=Personal(ledger, fresh_home))
        (case,) = reviews.cases()
        said = case.to_json(dt.datetime.now(dt.UTC))
        assert (said["stage"], said["decision"]["categories"]) == ("frames", ["sexual"])
        assert said["decision"]["spans"][0]["start_s"] == 0.0  # type: ignore[index, call-overload]
        reviews.approve(case.entry.index, by="eve", reason="")
    made = safegen.generate("a ball on grass at sunset", output=output, seed=5, **call)
    assert made.frames_decision.action == "flag"
    assert len(made.approvals) == 1
