"""The prompt classifier that ships with safegen: a small transformer encoder with one head per category.

It is MiniLM (Wang et al., 2020, arXiv:2002.10957), fine-tuned by ``python -m safegen.policies.training.train`` and
stored as an int8 ONNX graph. onnxruntime runs it on one core, offline. ``weights/encoder.json`` holds the digests of
the graph and of the tokenizer, which are checked before either is used, and the calibration of every head. See
docs/moderation-model-card.md.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.errors import PolicyError
from safegen.policies.text.hits import Hit
from safegen.policies.text.language import legible
from safegen.policies.text.views import View

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Imported where they are used: onnxruntime, tokenizers.

WEIGHTS = Path(__file__).parents[1] / "weights"
_REINSTALL = "Reinstall safegen: its weights are damaged."
FLAG = 0.5  # the score that calibration puts at the flag level
_WINDOW = 128  # tokens that are judged at once, as many as training showed
_STEP = 112  # from one window of a long text to the next
_BATCH_TOKENS = 1024  # bounds the memory of one run
_MAX_PADDING = 1.3  # how much longer than a batch's shortest piece its longest may be
_SENTENCE_END = re.compile(r"[.!?;\n]+(?=\s|$)")
_MIN_SENTENCE = 3  # tokens
_ALONE = 4.0  # how much more, in logits, a sentence has to say without the others
_NOTHING = -30.0  # the logit of a text without words
_MIN_SCORE = 0.05  # lower scores explain nothing and only lengthen decisions
_EXPLAINED_SCORE = 0.3
_REACH = 0.25  # a word belongs to the explanation if it weighs this share of the weightiest one


@dataclass(frozen=True, slots=True)
class Card:
    """What ``encoder.json`` says: how to read the graph's logits."""

    version: str
    categories: tuple[str, ...]
    slope: NDArray[np.float32]
    shift: NDArray[np.float32]
    ceiling: NDArray[np.float32]  # of the scores, in (0.5, 1]
    graph_sha256: str
    tokenizer_sha256: str
    sha256: str  # of the description itself, and so of all that it names

    def scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores of logits, float32 [..., categories].

        ``sigmoid(slope * logit + shift)``; what lies above one half is spread up to the head's ceiling. Heads that name
        a subject rather than a harm have a low one: a known person in a prompt is worth a flag, never a block.
        """
        plain: NDArray[np.float32] = 1.0 / (1.0 + np.exp(-np.clip(logits * self.slope + self.shift, -60.0, 60.0)))
        return np.where(plain > FLAG, FLAG + (plain - FLAG) * (self.ceiling - FLAG) / (1 - FLAG), plain)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A run of tokens of one text: ids, and where in the text each token lies ((0, 0) for special ones)."""

    text: int
    ids: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    less: float  # is taken off its logits


@dataclass(frozen=True, slots=True)
class _Judged:
    """Logits [texts, heads]; the index in ``seen`` of the piece that each is from; pieces with their parts."""

    logits: NDArray[np.float32]
    worst: NDArray[np.int64]
    seen: Sequence[tuple[_Piece, NDArray[np.float32]]]  # parts: [tokens, heads]


class EncoderClassifier:
    """Scores each category in [0, 1]. Safe to share between threads: it holds nothing but weights."""

    name = "encoder"

    def __init__(self, card: Card, session: Any, tokenizer: Any) -> None:
        self.version = card.version
        self.categories = card.categories
        self.weights_sha256: str | None = card.sha256
        self._card = card
        self._session = session
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path = WEIGHTS) -> EncoderClassifier:
        """Read the graph, the tokenizer and their description; PolicyError where one is missing, altered or unfit."""
        try:
            card = read_card(folder / "encoder.json")
            graph = (folder / "encoder.onnx").read_bytes()
            words = (folder / "tokenizer.json").read_bytes()
            for name, body, digest in (
                ("encoder.onnx", graph, card.graph_sha256),
                ("tokenizer.json", words, card.tokenizer_sha256),
            ):
                if hashlib.sha256(body).hexdigest() != digest:
                    raise PolicyError(f"the prompt classifier's weights were altered: {name}", remedy=_REINSTALL)
            session = open_session(graph)
            if session.get_outputs()[0].shape[-1] != len(card.categories):
                raise PolicyError("the prompt classifier's weights have other heads than named", remedy=_REINSTALL)
            return cls(card, session, open_tokenizer(words))
        except PolicyError:
            raise
        except Exception as exc:
            raise PolicyError(f"the prompt classifier's weights cannot be read: {exc}", remedy=_REINSTALL) from exc

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 [texts, categories] for lower-case texts; a long text scores as its worst piece."""
        return self._card.scores(self.logits(texts))

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the uncalibrated logits, float32 [texts, categories]."""
        return self._judge(texts).logits

    def score(self, texts: Sequence[Sequence[View]]) -> list[list[Hit]]:
        """Return the hits of each text: per category the highest score over its legible views."""
        flat = [(i, view) for i, views in enumerate(texts) for view in legible(views)]
        judged = self._judge([view.text for _, view in flat])
        scores = self._card.scores(judged.logits)
        if not np.isfinite(scores).all():
            raise ValueError("scores are not finite")
        best: list[dict[str, tuple[Hit, int]]] = [{} for _ in texts]
        for at, ((i, view), row) in enumerate(zip(flat, scores, strict=True)):
            for k in np.flatnonzero(row >= _MIN_SCORE):
                category, value = self.categories[k], float(row[k])
                if category not in best[i] or best[i][category][0].score < value:
                    best[i][category] = Hit(category, value, view.name, (0, 0)), at
        return [[self._explained(hit, flat[at][1], judged, at) for hit, at in hits.values()] for hits in best]

    def _explained(self, hit: Hit, view: View, judged: _Judged, at: int) -> Hit:
        """Give a high score the words that it rests on."""
        if hit.score < _EXPLAINED_SCORE:
            return hit
        k = self.categories.index(hit.category)
        piece, parts = judged.seen[judged.worst[at, k]]
        return replace(hit, span=view.raw_range(*_span(parts[:, k], piece.places)))

    def _judge(self, texts: Sequence[str]) -> _Judged:
        pieces = [piece for i, text in enumerate(texts) for piece in self._pieces(i, text)]
        logits = np.full((len(texts), len(self.categories)), _NOTHING, np.float32)
        worst = np.zeros((len(texts), len(self.categories)), np.int64)
        seen: list[tuple[_Piece, NDArray[np.float32]]] = []
        for batch in _batches(pieces):
            ids = np.zeros((len(batch), max(len(p.ids) for p in batch)), np.int64)
            mask = np.zeros_like(ids)
            for k, piece in enumerate(batch):
                ids[k, : len(piece.ids)], mask[k, : len(piece.ids)] = piece.ids, 1
            found, parts = self._session.run(["logits", "parts"], {"ids": ids, "mask": mask})
            found = found - np.array([[p.less] for p in batch], np.float32)
            for piece, row, part in zip(batch, found, parts, strict=True):
                # "not lower" rather than "higher": a score that is no number must stay one.
                higher = ~(row <= logits[piece.text])
                logits[piece.text, higher], worst[piece.text, higher] = row[higher], len(seen)
                seen.append((piece, part[: len(piece.ids)]))
        return _Judged(logits, worst, seen)

    def _pieces(self, number: int, text: str) -> list[_Piece]:
        """Cut a text into windows, and where it has several sentences also into those.

        Among much harmless text one bad sentence would weigh little; alone it shows. A harmless sentence may sound odd
        without the others, so it has to say more. A text without words has no pieces and scores nothing.
        """
        coded = self._tokenizer.encode(text, add_special_tokens=False)
        ids, places = coded.ids, coded.offsets
        first, last = self._tokenizer.token_to_id("[CLS]"), self._tokenizer.token_to_id("[SEP]")
        room = _WINDOW - 2
        starts = range(0, len(ids) - (room - _STEP), _STEP) if len(ids) > room else range(min(1, len(ids)))
        cuts = {(at, min(at + room, len(ids))): 0.0 for at in starts}
        sentences = _sentences(text, places)
        if len(sentences) > 1:
            for start, end in sentences:
                cuts.setdefault((start, min(end, start + room)), _ALONE)
        return [
            _Piece(number, (first, *ids[start:end], last), ((0, 0), *places[start:end], (0, 0)), less)
            for (start, end), less in sorted(cuts.items())
            if any(c.isalnum() for c in text[places[start][0] : places[end - 1][1]])
        ]


def read_card(path: Path) -> Card:
    """Read a description of weights; whatever is wrong with it ends in an exception that ``load`` wraps."""
    body = path.read_bytes()
    entry: Mapping[str, Any] = json.loads(body)
    heads = entry["heads"]
    return Card(
        version=str(entry["version"]),
        categories=tuple(str(name) for name in heads),
        slope=np.array([float(h["slope"]) for h in heads.values()], np.float32),
        shift=np.array([float(h["shift"]) for h in heads.values()], np.float32),
        ceiling=np.array([float(h["ceiling"]) for h in heads.values()], np.float32),
        graph_sha256=str(entry["sha256"]["encoder.onnx"]),
        tokenizer_sha256=str(entry["sha256"]["tokenizer.json"]),
        sha256=hashlib.sha256(body).hexdigest(),
    )


def open_session(graph: bytes) -> Any:
    """Return an onnxruntime session of the graph: one thread, on the CPU."""
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def open_tokenizer(words: bytes) -> Any:
    """Return a tokenizer that neither pads nor cuts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(words.decode("utf-8"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _sentences(text: str, places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the sentences of a text as ranges of its tokens; those of fewer than three tokens are left out."""
    ends = [m.end() for m in _SENTENCE_END.finditer(text)]
    marks = [0, *(bisect.bisect_left(places, (end, 0)) for end in ends), len(places)]
    return [(a, b) for a, b in pairwise(marks) if b - a >= _MIN_SENTENCE]


def _batches(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Return the pieces in batches of about one length, so that little is padded."""
    batches: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda p: len(p.ids)):
        close = bool(batches) and len(piece.ids) <= _MAX_PADDING * len(batches[-1][0].ids)
        if close and (len(batches[-1]) + 1) * len(piece.ids) <= _BATCH_TOKENS:
            batches[-1].append(piece)
        else:
            batches.append([piece])
    return batches


def _span(weight: NDArray[np.float32], places: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the range of the text around the weightiest token: its neighbours while they weigh enough."""
    real = {i for i, (start, end) in enumerate(places) if end > start}
    peak = max(real, key=lambda i: float(weight[i]), default=-1)
    if peak < 0 or not weight[peak] > 0:
        return 0, 0
    first = last = peak
    while first - 1 in real and (weight[first - 1] > _REACH * weight[peak] or _joined(places, first - 1)):
        first -= 1
    while last + 1 in real and (weight[last + 1] > _REACH * weight[peak] or _joined(places, last)):
        last += 1
    return places[first][0], places[last][1]


def _joined(places: Sequence[tuple[int, int]], i: int) -> bool:
    """Whether token ``i`` runs into the next one: both are parts of one word."""
    return places[i][1] == places[i + 1][0]
