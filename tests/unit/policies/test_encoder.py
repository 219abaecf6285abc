"""The prompt classifier that ships: what it makes of prompts, and that it never works half."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.errors import PolicyError
from safegen.policies import Engine, Request, load_pack
from safegen.policies.engine.engine import TEXT_CLASSIFIERS
from safegen.policies.text.encoder import WEIGHTS, EncoderClassifier
from safegen.policies.text.views import View, views_of
from safegen.types import Action, RunStatus

HAND_WRITTEN = Path(__file__).parents[3] / "benchmarks" / "moderation" / "hand_written.jsonl"
BENIGN = "a red ball bounces on green grass while a dog watches"
FILES = ("encoder.onnx", "encoder.json", "tokenizer.json")


@pytest.fixture(scope="module")
def encoder() -> EncoderClassifier:
    return EncoderClassifier.load()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in HAND_WRITTEN.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def weights_copy(tmp_path: Path) -> Path:
    for name in FILES:
        shutil.copy(WEIGHTS / name, tmp_path / name)
    return tmp_path


def worst(encoder: EncoderClassifier, text: str) -> float:
    return max((hit.score for hit in encoder.score([views_of(text)])[0]), default=0.0)


# -- what it makes of prompts


@pytest.mark.slow
def test_most_hand_written_unsafe_prompts_reach_a_flag_and_few_benign_ones(
    encoder: EncoderClassifier, rows: list[dict[str, Any]]
) -> None:
    scores = encoder.probabilities([r["text"].lower() for r in rows]).max(1)
    unsafe = np.array([r["label"] == 1 for r in rows])
    assert (scores[unsafe] >= 0.5).mean() >= 0.5
    assert (scores[~unsafe] >= 0.5).mean() <= 0.06


def test_disguised_words_score_like_plain_ones(encoder: EncoderClassifier, rows: list[dict[str, Any]]) -> None:
    plain = [r["text"] for r in rows if r["category"] == "gore"]
    cyrillic = str.maketrans("aceopxy", "асеорху")
    for text in plain:
        bare = worst(encoder, text)
        assert worst(encoder, text.translate(cyrillic)) >= bare - 0.05
        assert worst(encoder, "\u200b".join(text)) >= bare - 0.05


@pytest.mark.slow
def test_sentence_among_many_harmless_ones_is_seen(encoder: EncoderClassifier, rows: list[dict[str, Any]]) -> None:
    unsafe = max((r["text"] for r in rows if r["category"] == "gore"), key=lambda t: worst(encoder, t))
    padding = f"{BENIGN}. " * 60
    assert worst(encoder, padding) < 0.5
    for text in (padding + unsafe, f"{unsafe}. {padding}", f"{padding}{unsafe}. {padding}"):
        assert worst(encoder, text) >= 0.5


def test_explanation_points_at_words_of_the_prompt(encoder: EncoderClassifier, rows: list[dict[str, Any]]) -> None:
    unsafe = max((r["text"] for r in rows if r["category"] == "gore"), key=lambda t: worst(encoder, t))
    text = f"In the garden stands a table with flowers and a dog sleeps. {unsafe}"
    hits = [h for h in encoder.score([views_of(text)])[0] if h.category in ("gore", "violence", "general")]
    assert hits
    for start, end in (h.span for h in hits if h.score >= 0.5):
        assert text[start:end].strip()
        assert start >= text.index(unsafe)


@pytest.mark.parametrize("text", ["", "…", " ", "?!"])
def test_text_without_words_scores_nothing(encoder: EncoderClassifier, text: str) -> None:
    assert worst(encoder, text) < 0.5
    assert encoder.score([(View("clean", ""),), ()]) == [[], []]


@given(st.text(max_size=300))
@settings(max_examples=40, deadline=None)
def test_any_text_gets_scores_between_zero_and_one(encoder: EncoderClassifier, text: str) -> None:
    for hit in encoder.score([views_of(text)])[0]:
        assert 0.0 <= hit.score <= 1.0
        assert 0 <= hit.span[0] <= hit.span[1] <= len(text)


# -- always the same


def test_score_does_not_depend_on_what_is_judged_beside_it(
    encoder: EncoderClassifier, rows: list[dict[str, Any]]
) -> None:
    texts = [r["text"].lower() for r in rows[:40]]
    together = encoder.logits(texts)
    alone = np.concatenate([encoder.logits([t]) for t in texts])
    assert np.abs(together - alone).max() < 1e-3
    assert (encoder.logits(texts) == together).all()


def test_weights_fit_the_package() -> None:
    assert sum((WEIGHTS / name).stat().st_size for name in FILES) < 40_000_000
    card = json.loads((WEIGHTS / "encoder.json").read_text(encoding="utf-8"))
    for head in card["heads"].values():
        assert head["slope"] > 0
        assert head["flag_at"] <= head["review_at"] <= head["block_at"] <= 1


def test_loading_and_scoring_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(socket, "socket", refuse)
    assert worst(EncoderClassifier.load(), BENIGN) < 0.5


# -- failing closed


def _flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def _without_a_head(folder: Path) -> None:
    card = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    card["heads"].popitem()
    (folder / "encoder.json").write_text(json.dumps(card), encoding="utf-8")


def _another_graph(folder: Path) -> None:
    """A damaged graph whose digest was written anew."""
    import hashlib

    (folder / "encoder.onnx").write_bytes(b"no graph")
    card = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    card["sha256"]["encoder.onnx"] = hashlib.sha256(b"no graph").hexdigest()
    (folder / "encoder.json").write_text(json.dumps(card), encoding="utf-8")


def engine_with(load: Callable[[], Any]) -> Engine:
    """The default pack's engine with this in place of its last classifier."""
    pack = load_pack("default")
    name = pack.text_classifiers[-1]
    return Engine(pack, text_classifiers={**TEXT_CLASSIFIERS, name: load})


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: _flip(f / "encoder.onnx"),
        lambda f: _flip(f / "tokenizer.json"),
        lambda f: (f / "encoder.onnx").unlink(),
        lambda f: (f / "tokenizer.json").unlink(),
        lambda f: (f / "encoder.json").unlink(),
        lambda f: (f / "encoder.json").write_text("{}"),
        lambda f: (f / "encoder.json").write_text("not json"),
        _without_a_head,
        _another_graph,
    ],
    ids=[
        "graph_altered", "tokenizer_altered", "no_graph", "no_tokenizer", "no_card", "empty_card", "no_json",
        "a_head_short", "no_onnx",
    ],
)  # fmt: skip
def test_damaged_weights_do_not_load_and_block(weights_copy: Path, damage: Callable[[Path], object]) -> None:
    damage(weights_copy)
    with pytest.raises(PolicyError):
        EncoderClassifier.load(weights_copy)
    decision = engine_with(lambda: EncoderClassifier.load(weights_copy)).judge(Request(BENIGN))
    assert decision.action is Action.BLOCK
    assert RunStatus.FAILED in {r.status for r in decision.classifiers}


class _NoNumbers:
    """A session whose arithmetic went wrong."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, names: list[str], inputs: dict[str, Any]) -> list[Any]:
        logits, parts = self._session.run(names, inputs)
        return [np.full_like(logits, np.nan), parts]


def test_scores_that_are_no_numbers_block(encoder: EncoderClassifier) -> None:
    broken = EncoderClassifier(encoder._card, _NoNumbers(encoder._session), encoder._tokenizer)
    with pytest.raises(ValueError, match="finite"):
        broken.score([views_of(BENIGN)])
    decision = engine_with(lambda: broken).judge(Request(BENIGN))
    assert decision.action is Action.BLOCK
    assert RunStatus.FAILED in {r.status for r in decision.classifiers}
