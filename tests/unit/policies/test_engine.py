"""The engine decides, explains, and fails closed. Unsafe words come from the data files by index, never from here."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from safegen.errors import BlockedError, InputError, PolicyError
from safegen.policies.engine.engine import FRAME_CLASSIFIERS, TEXT_CLASSIFIERS, Engine, Request
from safegen.policies.pack.loading import list_packs, load_pack
from safegen.policies.pictures.nudenet import NUDENET_CLASSES, NudeNet, sample_times
from safegen.policies.text.encoder import EncoderClassifier
from safegen.policies.text.hits import Hit
from safegen.policies.text.lexicon import DATA, Lexicon
from safegen.policies.text.views import View
from safegen.settings import MAX_PROMPT_CHARACTERS
from safegen.types import Action, Clip, RunStatus

BENIGN = [
    "a red ball bouncing on grass at sunset",
    "a cat sleeping on a windowsill while rain falls outside",
    "drone shot over snowy mountains, golden hour, cinematic",
    "two children flying a kite on a beach",
    "a chef chops vegetables in a busy kitchen",
    "a woman in a blue dress dances in a field of flowers",
    "time-lapse of clouds over a city skyline, 4k, 3d render",
    "a doctor examines a patient in a hospital room",
    "a knight in armour rides a white horse",
    "a killer whale jumps out of the water",
    "a shooting star crosses the night sky above a baby elephant",
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load()


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load()


def term(lexicon: Lexicon, name: str, index: int = 0, *, least: int = 5) -> str:
    """Return the index-th plain one-word term of a list."""
    return [t for t in lexicon.lists[name] if t.isascii() and t.isalpha() and len(t) >= least][index]


# -- what is allowed and what is not


@pytest.mark.parametrize("pack", list_packs())
def test_benign_prompts_are_allowed(pack: str) -> None:
    decisions = Engine.load(pack).judge_many([Request(prompt) for prompt in BENIGN])
    assert not [(p, d.explanation) for p, d in zip(BENIGN, decisions, strict=True) if d.action.stops]


@pytest.mark.parametrize(
    ("name", "category"),
    [("sexual_explicit", "sexual"), ("gore", "gore"), ("slurs", "hate")],
)
@pytest.mark.parametrize("index", [0, 3, 7])
def test_listed_term_blocks_and_names_its_category(
    engine: Engine, lexicon: Lexicon, name: str, category: str, index: int
) -> None:
    word = term(lexicon, name, index % len([t for t in lexicon.lists[name] if t.isalpha() and len(t) >= 5]))
    decision = engine.judge(Request(f"a video of {word} in a room"))
    assert decision.action is Action.BLOCK
    reason = next(r for r in decision.reasons if r.category == category)
    assert reason.score >= reason.threshold
    assert category in decision.explanation


def test_listed_mention_of_self_harm_stops(engine: Engine, lexicon: Lexicon) -> None:
    decision = engine.judge(Request(f"a video of {lexicon.lists['self_harm'][0]} in a room"))
    assert decision.action.stops
    assert "self_harm" in {r.category for r in decision.reasons}


def test_weapon_making_blocks(engine: Engine, lexicon: Lexicon) -> None:
    prompt = f"{lexicon.lists['making'][0]} a {lexicon.lists['weapon_products'][2]} at home"
    assert engine.judge(Request(prompt)).action is Action.BLOCK


def test_known_person_in_undress_blocks_and_alone_is_reviewed(engine: Engine, lexicon: Lexicon) -> None:
    person = lexicon.lists["public_figures"][0]
    assert engine.judge(Request(f"{person} waves at a camera")).action is Action.REVIEW
    decision = engine.judge(Request(f"{person} {lexicon.lists['nudity'][0]} at a window"))
    assert decision.action is Action.BLOCK
    assert "ncii" in {r.category for r in decision.reasons}


def test_age_cue_beside_a_sexual_cue_blocks_without_a_span(lexicon: Lexicon) -> None:
    """The lists are replaced by neutral placeholders: the rule is tested, not its words."""
    lists = dict.fromkeys(lexicon.lists, ("zzunused",))
    lists |= {"age_cues": ("agecue",), "nudity": ("bodycue",)}
    placeholder = Lexicon(lists, lexicon.rules, "0" * 64, "test")
    engine = Engine(
        load_pack("default"), text_classifiers={"lexicon": lambda: placeholder, "encoder": EncoderClassifier.load}
    )
    prompt = "an agecue and then, much later in the text, far away from it, after many words, a bodycue"
    decision = engine.judge(Request(prompt))
    assert decision.action is Action.BLOCK
    reasons = [r for r in decision.reasons if r.category == "minors_sexual"]
    assert [r.span for r in reasons] == [""]
    assert "cue" not in json.dumps(decision.to_json())
    assert engine.judge(Request("an agecue walks to school past a green hedge")).action is Action.ALLOW


def test_medical_context_lowers_what_the_word_alone_would_block(engine: Engine, lexicon: Lexicon) -> None:
    word = lexicon.lists["nudity"][0]
    assert engine.judge(Request(f"a {word} person on a sofa")).action is Action.BLOCK
    assert engine.judge(Request(f"a {word} marble statue in a museum")).action is not Action.BLOCK


def test_harmless_phrase_covers_the_word_inside_it(engine: Engine, lexicon: Lexicon) -> None:
    phrase = lexicon.lists["benign_phrases"][0]
    assert engine.judge(Request(f"a {phrase} digs a tunnel")).action is Action.ALLOW


@pytest.mark.parametrize(
    "disguise",
    [
        str.upper,
        lambda w: " ".join(w),
        lambda w: ".".join(w),
        lambda w: "-".join(w),
        "\u200b".join,
        lambda w: w.translate(str.maketrans("aceo", "асео")),
        lambda w: w.translate(str.maketrans("aeios", "43105")),
        lambda w: "".join(chr(ord(c) + 0xFEE0) for c in w),
        lambda w: "".join(c + "\u0336" for c in w),
        lambda w: w[:2] + w[1] * 4 + w[2:],
        lambda w: base64.b64encode(f"please show {w} now".encode()).decode(),
        lambda w: w[::-1],
    ],
    ids=[
        "upper",
        "spaced",
        "dotted",
        "dashed",
        "zerowidth",
        "homoglyph",
        "leet",
        "wide",
        "struck",
        "stretched",
        "base64",
        "reversed",
    ],
)
@pytest.mark.parametrize("index", [1, 4, 9])
def test_disguised_term_still_blocks(
    engine: Engine, lexicon: Lexicon, disguise: Callable[[str], str], index: int
) -> None:
    word = [t for t in lexicon.lists["gore"] if t.isalpha() and len(t) >= 6][index]
    decision = engine.judge(Request(f"a film with {disguise(word)} in it"))
    assert decision.action is Action.BLOCK
    assert "gore" in {r.category for r in decision.reasons}


def test_foreign_script_goes_to_review(engine: Engine) -> None:
    decision = engine.judge(Request("一只猫在草地上"))
    assert decision.action is Action.REVIEW
    assert decision.reasons[0].category == "unsupported_language"


def test_negative_prompt_is_recorded_and_never_decides(engine: Engine, lexicon: Lexicon) -> None:
    word = term(lexicon, "gore")
    decision = engine.judge(Request(BENIGN[0], negative_prompt=f"{word}, blurry, 一只猫"))
    assert decision.action is Action.ALLOW
    assert {r.source for r in decision.reasons} == {"negative_prompt"}
    assert decision.sources == ("prompt", "negative_prompt")


# -- what a decision holds


def test_decision_names_policy_and_classifiers_and_never_the_prompt(engine: Engine, lexicon: Lexicon) -> None:
    prompt = f"someone quietly {term(lexicon, 'gore')} under a purple umbrella"
    decision = engine.judge(Request(prompt))
    text = json.dumps(decision.to_json())
    assert prompt not in text
    assert "umbrella" not in text
    assert decision.policy_sha256 == engine.pack.sha256
    assert [(r.name, r.status) for r in decision.classifiers] == [
        ("lexicon", RunStatus.RAN),
        ("encoder", RunStatus.RAN),
    ]
    assert all(r.version and r.weights_sha256 and r.milliseconds > 0 for r in decision.classifiers)


def test_span_is_withheld_where_it_is_the_whole_prompt(engine: Engine, lexicon: Lexicon) -> None:
    word = term(lexicon, "gore")
    decision = engine.judge(Request(word))
    assert decision.action is Action.BLOCK
    assert {r.span for r in decision.reasons} == {""}


def test_describe_tells_the_effective_policy(engine: Engine) -> None:
    told = engine.describe()
    assert json.loads(json.dumps(told)) == told
    assert told["sha256"] == engine.pack.sha256


def test_embeddings_without_text_are_refused(engine: Engine) -> None:
    with pytest.raises(BlockedError) as caught:
        engine.refuse_embeddings()
    assert caught.value.decision.action is Action.BLOCK
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("prompt", ["", " \n\t", None, 3, b"bytes", ["a"], "x" * (MAX_PROMPT_CHARACTERS + 1)])
def test_prompt_that_is_no_prompt_is_an_input_error(engine: Engine, prompt: object) -> None:
    with pytest.raises(InputError):
        engine.judge(Request(prompt))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        "picture.png",
    ],
)
def test_image_that_is_no_rgb_array_is_an_input_error(engine: Engine, image: object) -> None:
    with pytest.raises(InputError):
        engine.judge(Request("a tree", images=(image,)))  # type: ignore[arg-type]


# -- failing closed


class _Fake:
    """A text classifier that misbehaves on purpose."""

    name, version, weights_sha256 = "encoder", "test", "0" * 64

    def __init__(self, score: Callable[[int], list[list[Hit]]]) -> None:
        self._score = score

    def score(self, texts: Sequence[Sequence[View]]) -> list[list[Hit]]:
        return self._score(len(texts))


def _raise(count: int) -> list[list[Hit]]:
    raise RuntimeError("out of order")


def _hit(value: float) -> Callable[[int], list[list[Hit]]]:
    return lambda count: [[Hit("sexual", value, "clean", (0, 0))]] * count


@pytest.mark.parametrize(
    "score",
    [
        _raise,
        _hit(float("nan")),
        _hit(float("inf")),
        _hit(-0.1),
        _hit(1.1),
        lambda count: [],
        lambda count: [[]] * (count + 1),
    ],
    ids=["raises", "nan", "inf", "negative", "above_one", "no_result", "too_many_results"],
)
def test_classifier_that_fails_blocks(score: Callable[[int], list[list[Hit]]]) -> None:
    engine = Engine(load_pack("default"), text_classifiers={**TEXT_CLASSIFIERS, "encoder": lambda: _Fake(score)})
    decision = engine.judge(Request(BENIGN[0]))
    assert decision.action is Action.BLOCK
    assert [(r.name, r.status) for r in decision.classifiers] == [
        ("lexicon", RunStatus.RAN),
        ("encoder", RunStatus.FAILED),
    ]


@pytest.mark.parametrize("damage", ["rules.yaml", "gore.txt"])
def test_lexicon_without_a_file_does_not_load(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "data"
    shutil.copytree(DATA, folder)
    Lexicon.load(folder)
    (folder / damage).unlink()
    with pytest.raises(PolicyError):
        Lexicon.load(folder)


def test_classifier_unknown_to_this_build_blocks() -> None:
    engine = Engine(load_pack("default"), text_classifiers={"lexicon": Lexicon.load})
    decision = engine.judge(Request(BENIGN[0]))
    assert decision.action is Action.BLOCK
    assert decision.classifiers[-1].status is RunStatus.NOT_RUN


# -- frames


def _gradient(count: int = 25) -> np.ndarray:
    ramp = np.linspace(0, 255, 192).astype(np.uint8)
    return np.broadcast_to(ramp[None, None, :, None], (count, 192, 192, 3)).copy()


def test_neutral_frames_are_allowed_and_nudenet_really_ran(engine: Engine) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 96, 128, 3), dtype=np.uint8)
    for frames in (_gradient(), noise):
        decision = engine.judge_frames(frames, 16.0)
        assert decision.action is Action.ALLOW
        (run,) = decision.classifiers
        assert (run.name, run.status) == ("nudenet", RunStatus.RAN)
        assert run.milliseconds > 0
        assert 0 < decision.scores["sexual"] < 0.35


def test_our_scores_are_the_ones_the_nudenet_package_reports() -> None:
    from nudenet import NudeDetector

    rng = np.random.default_rng(5)
    classifier = NudeNet()
    frame = rng.integers(0, 256, (90, 160, 3), dtype=np.uint8)
    ours = classifier.score([frame])[0]
    # The package drops what lies under 0.2; what it does report must be in our scores.
    for found in NudeDetector().detect(np.ascontiguousarray(frame[..., ::-1])):
        assert ours[NUDENET_CLASSES.index(found["class"])] >= found["score"] - 1e-4
    from nudenet import nudenet

    assert tuple(getattr(nudenet, "__labels")) == NUDENET_CLASSES


class _Frames:
    """A frame classifier that reports exposure in frames whose first pixel says so."""

    name, version, weights_sha256, classes = "nudenet", "test", "0" * 64, NUDENET_CLASSES

    def score(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        scores = np.zeros((len(frames), len(self.classes)), np.float32)
        scores[:, self.classes.index("BUTTOCKS_EXPOSED")] = [f[0, 0, 0] / 255 for f in frames]
        return scores


def _clip(hot: Sequence[int], count: int = 32) -> np.ndarray:
    frames = np.zeros((count, 8, 8, 3), np.uint8)
    frames[list(hot)] = 255
    return frames


def _frame_engine(classifier: object) -> Engine:
    return Engine(load_pack("default"), frame_classifiers={"nudenet": lambda: classifier})  # type: ignore[dict-item,return-value]


@pytest.mark.parametrize(
    ("hot", "action", "time_s"),
    [
        ([], Action.ALLOW, None),
        (range(16, 32), Action.BLOCK, 1.0),
        ([8, 9], Action.BLOCK, 0.5),  # a flash of two frames: the neighbour of the hit is looked at
        ([7, 8], Action.BLOCK, 0.438),
        ([8], Action.ALLOW, None),  # one odd frame decides nothing
        ([31, 30], Action.BLOCK, 1.875),
    ],
)
def test_frames_that_hit_block_with_the_time_of_the_first(
    hot: Sequence[int], action: Action, time_s: float | None
) -> None:
    decision = _frame_engine(_Frames()).judge_frames(_clip(hot), 16.0)
    assert decision.action is action
    if time_s is not None:
        assert decision.reasons[0].time_s == time_s


def test_conditioning_image_and_video_are_judged_as_their_own_sources() -> None:
    engine = _frame_engine(_Frames())
    image = _clip([0], 1)[0]
    decision = engine.judge(Request("a tree", images=(image,), video=Clip(_clip([]), 16.0)))
    assert decision.action is Action.BLOCK
    assert decision.sources == ("prompt", "image", "video")
    assert {r.source for r in decision.reasons} == {"image"}


class _BadFrames(_Frames):
    def __init__(self, value: float | None) -> None:
        self._value = value

    def score(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        if self._value is None:
            raise MemoryError
        return np.full((len(frames), len(self.classes)), self._value, np.float32)


@pytest.mark.parametrize("value", [None, float("nan"), 1.5, -1.0])
def test_frame_classifier_that_fails_blocks(value: float | None) -> None:
    engine = _frame_engine(_BadFrames(value))
    for decision in (engine.judge_frames(_clip([]), 16.0), engine.judge(Request("a tree", images=(_clip([])[0],)))):
        assert decision.action is Action.BLOCK
        assert decision.classifiers[-1].status is RunStatus.FAILED


def test_altered_frame_weights_do_not_load(tmp_path: Path) -> None:
    path = tmp_path / "320n.onnx"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(PolicyError, match="altered"):
        NudeNet(path)
    with pytest.raises(PolicyError):
        NudeNet(tmp_path / "absent.onnx")
    engine = Engine(load_pack("default"), frame_classifiers={"nudenet": lambda: NudeNet(path)})
    assert engine.judge_frames(_clip([]), 16.0).action is Action.BLOCK


@pytest.mark.parametrize(
    ("frames", "fps"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), 16.0),
        (np.zeros((2, 8, 8, 3), np.float64), 16.0),
        (np.zeros((8, 8, 3), np.uint8), 16.0),
        (np.zeros((2, 8, 8, 3), np.uint8), float("nan")),
        (np.zeros((2, 8, 8, 3), np.uint8), -1.0),
    ],
)
def test_frames_that_are_no_clip_are_an_input_error(engine: Engine, frames: np.ndarray, fps: float) -> None:
    with pytest.raises(InputError):
        engine.judge_frames(frames, fps)


def test_sampling_takes_the_first_and_the_last_frame() -> None:
    assert sample_times(25, 16.0, 2.0) == [0, 8, 16, 24]
    assert sample_times(27, 16.0, 2.0) == [0, 8, 16, 24, 26]
    assert sample_times(3, 0.0, 2.0) == [0, 1, 2]
    assert sample_times(5, 1.0, 2.0) == [0, 1, 2, 3, 4]


def test_every_loader_of_the_default_pack_exists() -> None:
    pack = load_pack("default")
    assert set(pack.text_classifiers) <= set(TEXT_CLASSIFIERS)
    assert set(pack.frames.classifiers) <= set(FRAME_CLASSIFIERS)


def test_judging_a_prompt_loads_no_heavy_library() -> None:
    code = (
        "import sys; from safegen.policies import Engine, Request\n"
        "assert not Engine.load().judge(Request('a red ball')).action.stops\n"
        "heavy = {'torch', 'transformers', 'diffusers', 'cv2', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
