"""The review queue: what waits, what a word on it allows and forbids, and that nothing of it can be slipped in."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import InputError, LedgerDamagedError, LedgerError
from safegen.ledger import Event, Ledger, merkle
from safegen.ledger.subjects import Personal
from safegen.review.queue import Approval, Reviews, Word, commit_request, request_text
from safegen.settings import Home
from safegen.types import Action, ContentId, Decision, Reason, new_content_id

KEY = b"k" * 32
SIGNING = Ed25519PrivateKey.generate()
TEXT = request_text({"prompt": "somebody in a garden", "seed": None, "policy_sha256": "0" * 64})


def decision(*categories: str, action: Action = Action.REVIEW) -> Decision:
    reasons = tuple(Reason(c, action, 0.6, 0.5, "prompt", "lexicon") for c in categories)
    return Decision(action, {}, reasons, (), "eu", "0" * 64, ("prompt",))


LIKENESS = decision("likeness")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", key=SIGNING) as opened:
        yield opened


@pytest.fixture
def reviews(ledger: Ledger, tmp_path: Path) -> Reviews:
    home = Home(tmp_path)
    home.keys.mkdir(mode=0o700)
    return Reviews(ledger, key=KEY, public_key=SIGNING.public_key(), personal=Personal(ledger, home))


def stop(
    ledger: Ledger, text: str = TEXT, *, stage: str = "request", seed: int = 7, judged: Decision = LIKENESS, **body: Any
) -> int:
    """Record a run that stopped, as ``safegen.generation.moderation`` does."""
    said: dict[str, Any] = {"stage": stage, "seed": seed, "decision": judged.to_json()} | body
    if stage == "frames":
        said |= {"decision": decision(action=Action.ALLOW).to_json(), "frames_decision": judged.to_json()}
    said["request_commitment"] = commit_request(text, KEY)
    event = Event("blocked", content_id=new_content_id(), body=said, policy_sha256="0" * 64, action=judged.action)
    return ledger.append(event).index


def answer(
    reviews: Reviews, text: str = TEXT, judged: Decision = LIKENESS, seed: int = 7, stage: Any = "request"
) -> Any:
    return reviews.answer(text, stage, seed, judged)


def use(reviews: Reviews, found: Any) -> tuple[bool, ContentId]:
    name = new_content_id()
    return reviews.use(found, name), name


def test_what_stopped_for_review_waits_and_nothing_else(ledger: Ledger, reviews: Reviews) -> None:
    waits = stop(ledger)
    stop(ledger, judged=decision("gore", action=Action.BLOCK))
    stop(ledger, stage="probes")
    ledger.append(Event("generated", content_id=new_content_id(), action="flag"))
    ledger.append(Event("reviewed"))
    now = dt.datetime.now(dt.UTC)
    (case,) = reviews.cases()
    assert (case.entry.index, case.state(now)) == (waits, "waiting")
    said = case.to_json(now)
    assert said["decision"]["categories"] == ["likeness"]
    assert json.loads(json.dumps(said)) == said
    assert "garden" not in json.dumps(said)
    with pytest.raises(InputError):
        reviews.case(99)


def test_an_approval_is_for_one_request_and_is_used_up(ledger: Ledger, reviews: Reviews) -> None:
    assert answer(reviews) is None
    index = stop(ledger)
    assert answer(reviews) is None
    receipt = reviews.approve(index, by="ada", reason="seen")
    found = answer(reviews)
    assert isinstance(found, Approval)
    assert (found.word.entry, found.case) == (receipt.index, index)
    assert use(reviews, found)[0]
    assert answer(reviews) is None
    assert reviews.case(index).state(dt.datetime.now(dt.UTC)) == "used"
    assert [e.kind for e in ledger.entries()] == ["blocked", "reviewed", "approval_used"]
    assert ledger.get(receipt.index).event.action == "approve"
    assert ledger.get(receipt.index).content_id == ledger.get(index).content_id


FIELDS: dict[str, Any] = {
    "prompt": "somebody", "negative_prompt": "", "seed": None, "image": None, "call": {"steps": 4}, "model": "tiny",
    "policy_sha256": "0" * 64,
}  # fmt: skip


@pytest.mark.parametrize("changed", FIELDS)
def test_any_other_request_is_not_the_one_approved(ledger: Ledger, reviews: Reviews, changed: str) -> None:
    text = request_text(FIELDS)
    reviews.approve(stop(ledger, text), by="ada", reason="")
    assert answer(reviews, text) is not None
    assert answer(reviews, request_text(FIELDS | {changed: "other"})) is None


def test_an_approval_does_not_cover_what_its_reviewer_did_not_see(ledger: Ledger, reviews: Reviews) -> None:
    reviews.approve(stop(ledger), by="ada", reason="")
    assert answer(reviews, judged=decision("likeness", "violence")) is None
    elsewhere = replace(LIKENESS.reasons[0], source="image")
    assert answer(reviews, judged=replace(LIKENESS, reasons=(elsewhere,))) is None


def test_an_approval_expires(ledger: Ledger, reviews: Reviews, monkeypatch: pytest.MonkeyPatch) -> None:
    index = stop(ledger)
    reviews.approve(index, by="ada", reason="", days=0.5)
    assert answer(reviews) is not None
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    assert reviews.case(index).state(later) == "expired"

    class Later(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
            return later

    monkeypatch.setattr("safegen.review.queue.dt.datetime", Later)
    assert answer(reviews) is None


def test_an_approval_for_several_uses(ledger: Ledger, reviews: Reviews) -> None:
    reviews.approve(stop(ledger), by="ada", reason="", uses=2)
    assert [use(reviews, answer(reviews))[0] for _ in range(2)] == [True, True]
    assert answer(reviews) is None


def test_a_run_that_failed_gives_its_use_back(ledger: Ledger, reviews: Reviews) -> None:
    reviews.approve(stop(ledger), by="ada", reason="")
    _, name = use(reviews, answer(reviews))
    assert answer(reviews) is None
    ledger.append(Event("cancelled", content_id=name))
    assert answer(reviews) is not None


def test_of_two_runs_at_once_one_gets_a_single_use(ledger: Ledger, reviews: Reviews) -> None:
    reviews.approve(stop(ledger), by="ada", reason="")
    found = [answer(reviews) for _ in range(4)]  # all four have seen it unused
    got: list[bool] = []
    threads = [threading.Thread(target=lambda f=f: got.append(use(reviews, f)[0])) for f in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False, False, False, True]


def test_a_denial_stands(ledger: Ledger, reviews: Reviews) -> None:
    index = stop(ledger)
    receipt = reviews.deny(index, by="eve", reason="no")
    found = answer(reviews)
    assert isinstance(found, Word)
    assert (found.entry, found.answer) == (receipt.index, "deny")
    for again in (
        lambda: reviews.approve(index, by="ada", reason=""),
        lambda: reviews.deny(index, by="ada", reason=""),
    ):
        with pytest.raises(InputError):
            again()
    reviews.approve(stop(ledger), by="ada", reason="")  # the same request, stopped once more
    assert isinstance(answer(reviews), Word)


def test_a_denial_takes_an_approval_back(ledger: Ledger, reviews: Reviews) -> None:
    index = stop(ledger)
    reviews.approve(index, by="ada", reason="")
    with pytest.raises(InputError, match="approved already"):
        reviews.approve(index, by="ada", reason="")
    reviews.deny(index, by="eve", reason="")
    assert isinstance(answer(reviews), Word)
    assert reviews.case(index).state(dt.datetime.now(dt.UTC)) == "denied"


def test_an_approval_of_frames_is_for_that_seed_and_covers_the_request(ledger: Ledger, reviews: Reviews) -> None:
    frames = decision("sexual")
    index = stop(ledger, stage="frames", judged=frames, seed=7)
    reviews.approve(index, by="ada", reason="")
    assert answer(reviews, judged=frames, seed=7, stage="frames") is not None
    assert answer(reviews, judged=frames, seed=8, stage="frames") is None
    assert answer(reviews, judged=LIKENESS, seed=7) is None  # the run that was seen had nothing to review before
    found = answer(reviews, judged=frames, seed=7)
    assert found is not None
    assert found.covers(frames, "frames")


def test_an_approval_of_a_request_says_nothing_about_frames(ledger: Ledger, reviews: Reviews) -> None:
    reviews.approve(stop(ledger), by="ada", reason="")
    assert answer(reviews, stage="frames") is None


@pytest.mark.parametrize(
    "said",
    [{"by": ""}, {"by": "x" * 201}, {"by": "a\nb"}, {"reason": "x" * 2001}, {"days": 0}, {"days": 400}, {"days": -1},
     {"uses": 0}, {"uses": 1001}, {"days": float("nan")}],
    ids=str,
)  # fmt: skip
def test_what_is_no_review_is_an_input_error(ledger: Ledger, reviews: Reviews, said: dict[str, Any]) -> None:
    index = stop(ledger)
    with pytest.raises(InputError):
        reviews.approve(index, **{"by": "ada", "reason": "", **said})
    assert ledger.count() == 1


# -- tampering


def edit(tmp_path: Path, statement: str, *values: Any) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as database:
        for (name,) in database.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            database.execute(f'drop trigger "{name}"')
        database.execute(statement, values)


@pytest.mark.parametrize("kind", ["blocked", "reviewed", "approval_used"])
@pytest.mark.parametrize("column", ["leaf", "action", "kind"])
def test_an_edited_entry_is_found(ledger: Ledger, reviews: Reviews, tmp_path: Path, kind: str, column: str) -> None:
    reviews.approve(stop(ledger), by="ada", reason="", uses=2)
    use(reviews, answer(reviews))
    edit(tmp_path, f"update entries set {column} = coalesce({column}, 'x') || ' ' where kind = ?", kind)
    assert not ledger.verify().ok
    if (kind, column) not in (("blocked", "kind"), ("reviewed", "kind")):  # then there is no approval left to be found
        with pytest.raises(LedgerDamagedError):
            answer(reviews)


@pytest.mark.parametrize("hidden", ["reviewed", "approval_used"])
def test_a_denial_or_a_use_cannot_be_hidden(ledger: Ledger, reviews: Reviews, tmp_path: Path, hidden: str) -> None:
    reviews.approve(stop(ledger), by="ada", reason="")
    if hidden == "reviewed":
        reviews.deny(stop(ledger), by="eve", reason="")
    else:
        use(reviews, answer(reviews))
    assert not isinstance(answer(reviews), Approval)
    edit(tmp_path, "update entries set kind = 'failed' where idx = ?", ledger.count() - 1)
    with pytest.raises(LedgerDamagedError):
        answer(reviews)


def test_a_denial_made_into_an_approval_row_and_leaf_alike_is_not_believed(
    ledger: Ledger, reviews: Reviews, tmp_path: Path
) -> None:
    """Whoever can write the database but has no key makes a row that agrees with itself; the tree says otherwise."""
    index = stop(ledger)
    denial = reviews.deny(index, by="eve", reason="")
    leaf = json.loads(ledger.get(denial.index).leaf)
    leaf["action"] = "approve"
    leaf["body"] |= {"expires": "2099-01-01T00:00:00+00:00", "uses": 9}
    forged = json.dumps(leaf, sort_keys=True, separators=(",", ":"))
    digest = merkle.leaf_hash(forged.encode()).hex()
    edit(
        tmp_path, "update entries set action = 'approve', leaf = ?, leaf_hash = ? where idx = ?", forged, digest,
        denial.index,
    )  # fmt: skip
    assert not ledger.get(denial.index).damage
    with pytest.raises(LedgerError):
        answer(reviews)
    assert not ledger.verify().ok


def test_an_approval_signed_by_another_key_is_not_believed(ledger: Ledger, reviews: Reviews) -> None:
    reviews.approve(stop(ledger), by="ada", reason="")
    stranger = Reviews(ledger, key=KEY, public_key=Ed25519PrivateKey.generate().public_key())
    with pytest.raises(LedgerDamagedError):
        answer(stranger)


def test_a_malformed_review_is_damage(ledger: Ledger, reviews: Reviews) -> None:
    index = stop(ledger)
    ledger.append(Event("reviewed", body={"of": index, "by": "ada", "reason": "", "expires": "x"}, action="approve"))
    with pytest.raises(LedgerDamagedError):
        answer(reviews)
