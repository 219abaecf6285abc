"""Whatever goes wrong, nothing passes unjudged: every fault, in classifiers that are required and that are not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import safegen.policies.engine.engine
from safegen.errors import ConfigError, InputError, PolicyError
from safegen.policies.engine.engine import FRAME_CLASSIFIERS, TEXT_CLASSIFIERS, Engine, Request
from safegen.policies.pack.loading import ClassifierSpec, load_pack
from safegen.policies.pictures.nudenet import NUDENET_CLASSES
from safegen.policies.text.hits import Hit, NotAvailableError
from safegen.policies.text.views import View, views_of
from safegen.settings import MAX_PROMPT_CHARACTERS
from safegen.types import Action, Decision, RunStatus
from tests.quick import quick

PROMPT = "a red ball bouncing on grass at sunset"
LIMIT_S = 0.1


class Guard:
    """A text classifier that does what a fault says."""

    name, version, weights_sha256 = "guard", "1", "0" * 64

    def __init__(self, act: Callable[[int], Any]) -> None:
        self._act = act

    def score(self, texts: Sequence[Sequence[View]]) -> list[list[Hit]]:
        found: list[list[Hit]] = self._act(len(texts))
        return found


def hit(score: Any) -> Callable[[int], list[list[Hit]]]:
    return lambda count: [[Hit("violence", score, "clean", (0, 0))]] * count


def raising(error: BaseException) -> Callable[[int], Any]:
    def act(_count: int) -> Any:
        raise error

    return act


def hang(count: int) -> list[list[Hit]]:
    time.sleep(4 * LIMIT_S)
    return [[]] * count


def load_raising(error: Exception) -> Callable[[ClassifierSpec], Any]:
    def load(_spec: ClassifierSpec) -> Any:
        raise error

    return load


FAULTS: dict[str, tuple[Callable[[ClassifierSpec], Any] | None, RunStatus]] = {
    "raises": (lambda _: Guard(raising(RuntimeError("x"))), RunStatus.FAILED),
    "raises memory error": (lambda _: Guard(raising(MemoryError())), RunStatus.FAILED),
    "exits": (lambda _: Guard(raising(SystemExit(0))), RunStatus.FAILED),
    "stops iteration": (lambda _: Guard(raising(StopIteration())), RunStatus.FAILED),
    "nan": (lambda _: Guard(hit(float("nan"))), RunStatus.FAILED),
    "infinite": (lambda _: Guard(hit(float("inf"))), RunStatus.FAILED),
    "negative": (lambda _: Guard(hit(-0.1)), RunStatus.FAILED),
    "above one": (lambda _: Guard(hit(1.1)), RunStatus.FAILED),
    "score is text": (lambda _: Guard(hit("high")), RunStatus.FAILED),
    "score is none": (lambda _: Guard(hit(None)), RunStatus.FAILED),
    "no results": (lambda _: Guard(lambda n: []), RunStatus.FAILED),
    "a result too many": (lambda _: Guard(lambda n: [[]] * (n + 1)), RunStatus.FAILED),
    "none": (lambda _: Guard(lambda n: None), RunStatus.FAILED),
    "results are text": (lambda _: Guard(lambda n: ["x"] * n), RunStatus.FAILED),
    "hangs": (lambda _: Guard(hang), RunStatus.FAILED),
    "weights altered": (load_raising(PolicyError("altered")), RunStatus.FAILED),
    "loader raises": (load_raising(OSError("no disk")), RunStatus.FAILED),
    "weights missing": (load_raising(NotAvailableError("no folder")), RunStatus.NOT_RUN),
    "unknown to this build": (None, RunStatus.NOT_RUN),
}  # fmt: skip


def pack_with(folder: Path, *, required: bool, defaults: str = "", limit: float = LIMIT_S) -> Path:
    path = folder / "guarded.yaml"
    path.write_text(
        "schema: safegen.policy/1\nid: guarded\nversion: '1'\ndescription: With a guard.\nextends: default\n"
        f"{defaults}text:\n  classifiers:\n"
        f"    - {{use: guard, required: {str(required).lower()}, time_limit_s: {limit}}}\n",
        encoding="utf-8",
    )
    return path


def judge(
    path: Path, load: Callable[[ClassifierSpec], Any] | None, prompts: Sequence[str] = (PROMPT,)
) -> list[Decision]:
    engine = Engine(load_pack(path), guards={} if load is None else {"guard": load})
    return engine.judge_many(prompts)


FEW = ("raises", "nan", "no results", "weights missing", "unknown to this build")


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("fault", quick(FAULTS, *FEW))
def test_fault_blocks_where_required_and_is_on_record_where_not(tmp_path: Path, fault: str, required: bool) -> None:
    load, status = FAULTS[fault]
    for decision in judge(pack_with(tmp_path, required=required), load, (PROMPT, "a tree")):
        run = next(r for r in decision.classifiers if r.name == "guard")
        assert (run.status, run.required) == (status, required)
        if required:
            assert decision.action is Action.BLOCK
            assert decision.reasons[0].category == (
                "classifier_missing" if status is RunStatus.NOT_RUN else "classifier_failed"
            )
        else:
            assert decision.action is Action.ALLOW
            assert decision.reasons == ()
        told = [c for c in decision.to_json()["classifiers"] if c["name"] == "guard"]  # type: ignore[union-attr, index, call-overload]
        assert told[0]["status"] == str(status)  # type: ignore[index, call-overload]


@pytest.mark.parametrize("fault", quick(FAULTS, *FEW))
def test_pack_may_soften_a_fault_to_review_and_no_further(tmp_path: Path, fault: str) -> None:
    defaults = "defaults: {on_error: review, on_missing_classifier: review}\n"
    (decision,) = judge(pack_with(tmp_path, required=True, defaults=defaults), FAULTS[fault][0])
    assert decision.action is Action.REVIEW
    for milder in ("flag", "allow"):
        with pytest.raises(ConfigError):
            load_pack(pack_with(tmp_path, required=True, defaults=f"defaults: {{on_error: {milder}}}\n"))


@pytest.mark.parametrize("name", sorted(TEXT_CLASSIFIERS))
@pytest.mark.parametrize("fault", quick(FAULTS, *FEW))
def test_fault_of_an_embedded_classifier_blocks(name: str, fault: str) -> None:
    load, status = FAULTS[fault]
    factories: dict[str, Any] = dict(TEXT_CLASSIFIERS)
    if load is None:
        factories.pop(name)
    else:
        factories[name] = lambda: load(ClassifierSpec(name, name))
    pack = load_pack("default")
    if name not in pack.text_classifiers:
        pytest.skip("the default pack does not ask for it")
    if fault == "hangs":
        from dataclasses import replace

        pack = replace(
            pack, specs=tuple(replace(s, time_limit_s=10.0 if s.name != name else LIMIT_S) for s in pack.specs)
        )
    decision = Engine(pack, text_classifiers=factories).judge(Request(PROMPT))
    assert decision.action is Action.BLOCK
    assert next(r for r in decision.classifiers if r.name == name).status is status


def test_time_limit_is_named_and_hanging_calls_do_not_pile_up(tmp_path: Path) -> None:
    release = threading.Event()
    begun = []

    def wait(count: int) -> list[list[Hit]]:
        begun.append(count)
        release.wait(30)
        return [[]] * count

    engine = Engine(load_pack(pack_with(tmp_path, required=True)), guards={"guard": lambda _: Guard(wait)})
    details = [engine.judge(Request(PROMPT)).classifiers[-1].detail for _ in range(6)]
    release.set()
    assert details[0] == "TimeoutError: took longer than 0.1 s"
    assert len(begun) == 3
    assert "still busy" in details[-1]
    for _ in range(3000):
        if engine.judge(Request(PROMPT)).action is Action.ALLOW:
            break
        time.sleep(0.02)
    else:
        pytest.fail("the guard is not asked again after its hanging calls ended")


def test_one_text_that_fails_does_not_decide_about_the_others(tmp_path: Path) -> None:
    class Picky(Guard):
        def score(self, texts: Sequence[Sequence[View]]) -> list[list[Hit]]:
            if any("green" in views[0].text for views in texts):
                raise RuntimeError("green")
            return [[] for _ in texts]

    decisions = judge(
        pack_with(tmp_path, required=True, limit=60), lambda _: Picky(hang), ["a tree", "a green tree", "a red tree"]
    )
    assert [d.action for d in decisions] == [Action.ALLOW, Action.BLOCK, Action.ALLOW]


def test_failure_says_nothing_of_the_prompt(tmp_path: Path) -> None:
    (decision,) = judge(
        pack_with(tmp_path, required=True), lambda _: Guard(raising(ValueError(f"cannot read {PROMPT}")))
    )
    assert PROMPT not in str(decision.to_json())
    assert decision.classifiers[-1].detail == "ValueError"


class ExitingFrames:
    name, version, weights_sha256, classes = "nudenet", "1", "0" * 64, NUDENET_CLASSES

    def score(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        raise SystemExit(0)


def test_frame_classifier_that_exits_blocks() -> None:
    engine = Engine(load_pack("default"), frame_classifiers={**FRAME_CLASSIFIERS, "nudenet": ExitingFrames})
    decision = engine.judge_frames(np.zeros((2, 8, 8, 3), np.uint8), 16.0)
    assert decision.action is Action.BLOCK
    assert decision.classifiers[-1].status is RunStatus.FAILED


# -- input


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load()


@pytest.mark.parametrize(
    "prompt",
    ["", " \n\t", "\u200b \u00a0", None, 3, 2.5, b"bytes", ["a"], {"a": 1}, object(), "x" * 100_000,
     "x" * (MAX_PROMPT_CHARACTERS + 1)],
    ids=lambda p: type(p).__name__,
)  # fmt: skip
def test_what_is_no_prompt_is_an_input_error_or_never_passes(engine: Engine, prompt: object) -> None:
    try:
        decision = engine.judge(Request(prompt))  # type: ignore[arg-type]
    except InputError:
        return
    assert decision.action.stops


@pytest.mark.parametrize(
    "prompt",
    [
        "\x00\x01\x02\x1b[31m\x7f",
        "\u202e\u202d\u2066\u2069",
        "\ud800\udfff",
        "1234567890 .,;:!?",
        "—–…·•",
        "зелёная трава на закате",
        "草地上的红球",
        "שלום עולם ירוק",
        "كرة حمراء على العشب",
        "लाल गेंद घास पर",
        "빨간 공이 잔디 위에",
        "สวัสดีชาวโลก",
        "a red ball على العشب at sunset",
        "xq zzkt brrl vwxq plmk",
        "la pelota roja rebota sobre la hierba al atardecer",
    ],
    ids=range(15),
)
def test_what_nobody_here_can_read_goes_to_review(engine: Engine, prompt: str) -> None:
    decision = engine.judge(Request(prompt))
    assert decision.action is Action.REVIEW
    assert "unsupported_language" in {r.category for r in decision.reasons}


@pytest.mark.parametrize(
    "prompt", ["\U0001f436\U0001f3d6\ufe0f", "a dog \U0001f436 on a beach \U0001f3d6", "a\x00 red\x07 ball"]
)
def test_pictographs_and_control_characters_are_read(engine: Engine, prompt: str) -> None:
    assert engine.judge(Request(prompt)).action is Action.ALLOW


def test_pictograph_asks_for_what_it_shows(engine: Engine) -> None:
    assert engine.judge(Request("a quiet room \U0001f52a")).action is Action.ALLOW
    views = {v.name: v.text for v in views_of("a \U0001f52b here")}
    assert "pistol" in views["symbols"]


def test_more_prompts_than_are_judged_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safegen.policies.engine.engine, "_BATCH", 8)
    count = 2 * 8 + 1
    decisions = engine.judge_many(f"ball number {i}" for i in range(count))
    assert len(decisions) == count
    assert {d.action for d in decisions} == {Action.ALLOW}


def test_batch_with_one_bad_prompt_names_it(engine: Engine) -> None:
    with pytest.raises(InputError, match="request 2"):
        engine.judge_many(["a tree", "a house", ""])


@pytest.mark.slow
def test_longest_prompt_is_judged(engine: Engine) -> None:
    assert engine.judge(Request(("a red ball on grass " * 1000)[:MAX_PROMPT_CHARACTERS])).action is Action.ALLOW
