"""Frames: what confirms a hit, which span it fills, what picture and text mean together, and how it fails closed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from safegen.errors import PolicyError
from safegen.policies.engine.engine import FRAME_CLASSIFIERS, Engine, Request
from safegen.policies.pack.loading import load_pack
from safegen.policies.pictures.joint import RULES, joint_rules
from safegen.policies.pictures.judging import within
from safegen.policies.pictures.nudenet import NUDENET_CLASSES, NudeNet
from safegen.policies.pictures.repair import REMEDIES, repair, repairable
from safegen.policies.text.lexicon import Lexicon
from safegen.types import Action, Clip, Decision, RunStatus, Span
from tests.quick import quick

FPS = 16.0
SEEN = {"exposed": "BUTTOCKS_EXPOSED", "face": "FACE_FEMALE", "belly": "BELLY_EXPOSED"}


class Says:
    """A frame classifier that says of each frame what its first three pixels say: exposure, a face, a belly."""

    name, version, weights_sha256 = "nudenet", "test", "0" * 64
    classes: Sequence[str] = NUDENET_CLASSES

    def score(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        scores = np.zeros((len(frames), len(self.classes)), np.float32)
        for at, label in enumerate(SEEN.values()):
            scores[:, self.classes.index(label)] = [f[0, at, 0] / 255 for f in frames]
        return scores


def engine(pack: str | Path = "default", classifier: Callable[[], Any] = Says, **more: Any) -> Engine:
    return Engine(load_pack(pack), frame_classifiers={"nudenet": classifier}, **more)


@pytest.fixture(scope="module")
def judge() -> Engine:
    return engine()


def clip(hot: dict[int, float] | Sequence[int] = (), count: int = 64, what: str = "exposed") -> np.ndarray:
    """Frames of noise that show ``what`` at these frames, as strongly as said (1 if not)."""
    frames = np.random.default_rng(0).integers(0, 255, (count, 24, 24, 3), np.uint8)
    frames[:, 0, :3] = 0
    strengths = hot if isinstance(hot, dict) else dict.fromkeys(hot, 1.0)
    for frame, strength in strengths.items():
        frames[frame, 0, list(SEEN).index(what)] = round(255 * strength)
    return frames


# -- streaks and spans


@pytest.mark.parametrize(
    ("hot", "action", "first", "span"),
    [
        ([], Action.ALLOW, None, None),
        ([8], Action.ALLOW, None, None),
        ([8, 40], Action.ALLOW, None, None),
        ([8, 9], Action.BLOCK, 0.5, (0.0625 * 8, 0.0625 * 10)),
        (range(8, 25), Action.BLOCK, 0.5, (0.0625 * 8, 0.0625 * 25)),
        (range(10, 30), Action.BLOCK, 1.0, (0.0625 * 10, 0.0625 * 32)),
        (range(64), Action.BLOCK, 0.0, (0.0, 4.0)),
        ([62, 63], Action.BLOCK, 3.875, (0.0625 * 57, 4.0)),
        (range(0, 64, 2), Action.BLOCK, 0.0, (0.0, 0.0625 * 63)),
    ],
    ids=[
        "none",
        "one_odd_frame",
        "two_odd_frames",
        "flash",
        "sampled_twice",
        "between_samples",
        "all",
        "end",
        "flicker",
    ],
)
def test_a_hit_counts_when_it_lasts_and_says_where(
    judge: Engine, hot: Sequence[int], action: Action, first: float | None, span: tuple[float, float] | None
) -> None:
    decision = judge.judge_frames(clip(hot), FPS)
    assert decision.action is action
    times = [r.time_s for r in decision.reasons]
    assert times == ([] if first is None else [pytest.approx(first, abs=0.07)])
    if span is None:
        assert decision.spans == ()
    else:
        (found,) = decision.spans
        assert found.action is action
        assert found.first_s == times[0]
        assert found.start_s <= span[0] + 1e-3
        assert found.end_s >= span[1] - 1e-3
        assert found.end_s - found.start_s <= span[1] - span[0] + 2 * 8 / FPS  # no further than the next look


def test_two_stretches_are_two_spans(judge: Engine) -> None:
    decision = judge.judge_frames(clip([*range(8, 18), *range(40, 50)]), FPS)
    assert [(round(s.first_s, 1), s.category) for s in decision.spans] == [(0.5, "sexual"), (2.5, "sexual")]
    assert decision.spans[0].end_s <= decision.spans[1].start_s
    assert decision.to_json()["spans"][0]["action"] == "block"  # type: ignore[index, call-overload]


def test_a_milder_span_has_a_milder_action(judge: Engine) -> None:
    hot = dict.fromkeys(range(8, 18), 0.4) | dict.fromkeys(range(40, 50), 0.9)
    decision = judge.judge_frames(clip(hot), FPS)
    assert [s.action for s in decision.spans] == [Action.FLAG, Action.BLOCK]
    assert decision.reasons[0].time_s == 2.5


def test_a_long_clip_is_looked_at_to_its_end(judge: Engine) -> None:
    decision = judge.judge_frames(clip([*range(900, 920)], count=1000), FPS)
    assert decision.action is Action.BLOCK
    assert decision.reasons[0].time_s == pytest.approx(56.5, abs=0.3)


# -- pixelate and drop


@pytest.fixture
def pack(tmp_path: Path) -> Callable[[str], Path]:
    def write(remedy: str) -> Path:
        path = tmp_path / f"{remedy}.yaml"
        document = {
            "schema": "safegen.policy/1", "id": remedy, "version": "1", "description": "x", "extends": "default",
            "frames": {"remedies": {"sexual": remedy}},
        }  # fmt: skip
        path.write_text(yaml.safe_dump(document))
        return path

    return write


@pytest.mark.parametrize("remedy", REMEDIES)
def test_a_pack_may_have_spans_taken_out(pack: Callable[[str], Path], remedy: str) -> None:
    judge, frames = engine(pack(remedy)), clip(range(8, 17))
    decision = judge.judge_frames(frames, FPS)
    assert decision.action is Action.BLOCK  # whoever does nothing about the spans stops
    assert repairable(decision)
    repaired = repair(frames, FPS, decision.spans)
    assert repaired is not None
    assert not np.array_equal(repaired[:8], np.zeros_like(repaired[:8]))
    if remedy == "drop":
        assert np.array_equal(repaired, np.delete(frames, np.s_[1:24], axis=0))  # from clean sample to clean sample
        assert judge.judge_frames(repaired, FPS).action is Action.ALLOW
    else:
        assert repaired.shape == frames.shape
        assert repaired[8:17].any(), "never black"
        assert len(np.unique(repaired[10].reshape(-1, 3), axis=0)) <= 12 * 12
        assert np.array_equal(repaired[32:], frames[32:])


@pytest.mark.slow
def test_what_is_not_a_span_is_not_repaired(pack: Callable[[str], Path]) -> None:
    judge = engine(pack("pixelate"))
    decision = judge.judge_frames(clip(range(8, 17)), FPS)
    failed = engine(pack("pixelate"), lambda: _raises()).judge_frames(clip(), FPS)
    still = judge.judge_frames(clip([0], count=1), 0.0)
    assert not repairable(failed)
    assert not repairable(still)
    assert not repairable(engine().judge_frames(clip(range(8, 17)), FPS))
    assert not repairable(judge.judge_frames(clip(), FPS))
    other = replace(decision, reasons=(*decision.reasons, replace(decision.reasons[0], category="ncii")))
    assert not repairable(other)


def test_most_of_a_clip_is_not_dropped(pack: Callable[[str], Path]) -> None:
    frames = clip(range(8, 60))
    decision = engine(pack("drop")).judge_frames(frames, FPS)
    assert repair(frames, FPS, decision.spans) is None


def test_a_pack_cannot_ask_for_black_frames(tmp_path: Path, pack: Callable[[str], Path]) -> None:
    from safegen.errors import ConfigError

    with pytest.raises(ConfigError, match="remedies"):
        load_pack(pack("blacken"))


# -- pictures together with their text


@pytest.fixture(scope="module")
def lists() -> dict[str, tuple[str, ...]]:
    return dict(Lexicon.load().lists)


JOINT = [
    # what the picture shows, a word of which list, the action, the category
    ("face", None, Action.FLAG, "likeness"),
    ("face", "undress_tools", Action.BLOCK, "ncii"),
    ("belly", "undress_tools", Action.BLOCK, "ncii"),
    ("face", "fake_cues", Action.BLOCK, "likeness"),
    ("face", "deceptive_acts", Action.BLOCK, "likeness"),
    ("face", "gore", Action.BLOCK, "likeness"),
    ("face", "violence_strong", Action.BLOCK, "likeness"),
    ("exposed", "age_cues", Action.BLOCK, "minors_sexual"),
]


@pytest.mark.parametrize("entrance", ["image", "video", "ip_adapter_image"])
@pytest.mark.parametrize(("shows", "words", "action", "category"), JOINT, ids=[f"{s}_{w}" for s, w, _, _ in JOINT])
def test_a_picture_and_a_text_are_judged_together(
    judge: Engine, lists: Any, entrance: str, shows: str, words: str | None, action: Action, category: str
) -> None:
    prompt = "somebody in a garden" if words is None else f"somebody in a garden, {lists[words][0].lstrip('=')}"
    frames = clip(range(64), what=shows)
    request = {
        "image": Request(prompt, images=(frames[0],)),
        "video": Request(prompt, video=Clip(frames, FPS)),
        "ip_adapter_image": Request(prompt, clips=(("ip_adapter_image", Clip(frames[:1], 0.0)),)),
    }[entrance]
    decision = judge.judge(request)
    found = [r for r in decision.reasons if r.classifier.startswith("joint:") and r.category == category]
    assert found, decision.explanation
    assert found[0].source == entrance
    assert found[0].action is action
    assert decision.action.severity >= action.severity
    clean = replace(request, images=(clip()[0],) if entrance == "image" else ())
    clean = replace(clean, video=None, clips=())
    assert not [r for r in judge.judge(clean).reasons if r.classifier.startswith("joint:")]


def test_words_in_a_negative_prompt_make_no_joint_hit(judge: Engine, lists: Any) -> None:
    image = clip([0], what="face")[0]
    decision = judge.judge(Request("somebody in a garden", negative_prompt=lists["undress_tools"][0], images=(image,)))
    assert {r.category for r in decision.reasons if r.classifier.startswith("joint:")} == {"likeness"}


def test_an_enhanced_prompt_is_judged_with_the_picture(judge: Engine, lists: Any) -> None:
    image = clip([0], what="face")[0]
    enhanced = f"somebody in a garden, {lists['fake_cues'][0]}"
    decision = judge.judge(Request("somebody in a garden", enhanced_prompt=enhanced, images=(image,)))
    assert decision.action is Action.BLOCK


def test_generated_frames_are_judged_with_their_prompt(judge: Engine, lists: Any) -> None:
    frames = clip(dict.fromkeys(range(64), 0.4))
    assert judge.judge_frames(frames, FPS).action is Action.FLAG
    decision = judge.judge_frames(frames, FPS, f"{lists['age_cues'][0]} in a garden")
    assert decision.action is Action.BLOCK
    assert decision.reasons[0].category == "minors_sexual"
    assert judge.judge_frames(clip(range(64), what="face"), FPS, lists["fake_cues"][0]).action is Action.FLAG


def test_the_joint_rules_name_lists_and_classes_that_exist(lists: Any) -> None:
    pack = load_pack("default")
    for rule in joint_rules():
        assert set(rule.classes) <= set(NUDENET_CLASSES), rule.id
        assert set(rule.words) <= set(lists), rule.id
        assert {rule.category, *rule.topics} <= set(pack.rules), rule.id


def test_joint_rules_that_cannot_be_read_do_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "joint.yaml"
    for text in ("", "rules: 3", RULES.read_text().replace("sees: exposed", "sees: nothing")):
        path.write_text(text)
        joint_rules.cache_clear()
        with pytest.raises(PolicyError):
            joint_rules(path)
    monkeypatch.setattr("safegen.policies.pictures.joint.joint_rules", lambda: joint_rules(tmp_path / "none.yaml"))
    assert engine().judge_frames(clip(), FPS).action is Action.BLOCK


# -- faults, at every entrance


def _raises() -> Any:
    class Raises(Says):
        def score(self, frames: Sequence[np.ndarray]) -> np.ndarray:
            raise RuntimeError("out of order")

    return Raises()


def _returns(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[], Any]:
    class Returns(Says):
        def score(self, frames: Sequence[np.ndarray]) -> np.ndarray:
            return change(super().score(frames))

    return Returns


def _hangs() -> Any:
    class Hangs(Says):
        def score(self, frames: Sequence[np.ndarray]) -> np.ndarray:
            time.sleep(60)
            return super().score(frames)

    return Hangs()


def _missing() -> Any:
    raise PolicyError("no weights")


FAULTS: dict[str, Callable[[], Any]] = {
    "raises": _raises,
    "nan": _returns(lambda s: np.full_like(s, np.nan)),
    "one_nan": _returns(lambda s: np.where(np.arange(s.shape[1]) == 2, np.nan, s)),
    "infinite": _returns(lambda s: np.full_like(s, np.inf)),
    "negative": _returns(lambda s: s - 0.1),
    "above_one": _returns(lambda s: s + 1.1),
    "too_few_frames": _returns(lambda s: s[:-1]),
    "too_few_classes": _returns(lambda s: s[:, :-1]),
    "nothing": _returns(lambda s: None),  # type: ignore[arg-type, return-value]
    "words": _returns(lambda s: np.full(s.shape, "safe")),
    "hangs": _hangs,
    "does_not_load": _missing,
}

ENTRANCES: dict[str, Callable[[Engine], Decision]] = {
    "image": lambda e: e.judge(Request("a tree", images=(clip()[0],))),
    "video": lambda e: e.judge(Request("a tree", video=Clip(clip(), FPS))),
    "ip_adapter_image": lambda e: e.judge(Request("a tree", clips=(("ip_adapter_image", Clip(clip()[:1], 0.0)),))),
    "control_video": lambda e: e.judge(Request("a tree", clips=(("control_video", Clip(clip(), FPS)),))),
    "frames": lambda e: e.judge_frames(clip(), FPS),
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing gets more than a moment per frame: what hangs is found out quickly."""
    monkeypatch.setattr("safegen.policies.pictures.judging.FRAME_SECONDS", 0.001)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("fault", quick(FAULTS, "raises", "one_nan", "too_few_frames"))
def test_pictures_that_no_model_looked_at_are_blocked(fault: str, entrance: str) -> None:
    decision = ENTRANCES[entrance](engine(classifier=FAULTS[fault], frame_seconds=0.2))
    assert decision.action is Action.BLOCK
    assert {r.status for r in decision.classifiers if r.name == "nudenet"} == {RunStatus.FAILED}
    assert {"classifier_failed", "frames_not_judged"} <= {r.category for r in decision.reasons}
    assert entrance in {r.source for r in decision.reasons}


def test_a_pack_that_reviews_errors_still_blocks_pictures_nobody_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "soft.yaml"
    defaults = {"on_error": "review", "on_missing_classifier": "review", "on_unsupported_language": "review"}
    document = {
        "schema": "safegen.policy/1", "id": "soft", "version": "1", "description": "x", "extends": "default",
        "defaults": defaults,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(document))
    for fault in (_raises, _missing):
        assert engine(path, fault).judge_frames(clip(), FPS).action is Action.BLOCK


def test_a_limit_is_kept_and_errors_pass_through() -> None:
    assert within(5, lambda: 3) == 3
    with pytest.raises(TimeoutError):
        within(0.05, lambda: time.sleep(5))
    with pytest.raises(KeyError):
        within(5, lambda: {}["x"])


def test_nudenet_looks_at_a_clip_for_real() -> None:
    judged = Engine(load_pack("default"), frame_classifiers=FRAME_CLASSIFIERS)
    decision = judged.judge_frames(clip(count=25), FPS)
    assert decision.action is Action.ALLOW
    (run,) = decision.classifiers
    assert (run.name, run.status) == (NudeNet.name, RunStatus.RAN)


def test_a_span_is_plain_json() -> None:
    span = Span("sexual", Action.BLOCK, 0.123456, "frames", 0.5, 1.0, 0.5, "drop")
    assert span.to_json() == {
        "category": "sexual", "action": "block", "score": 0.1235, "source": "frames", "start_s": 0.5, "end_s": 1.0,
        "first_s": 0.5, "remedy": "drop",
    }  # fmt: skip
