"""Train the text classifier that ships with safegen, and the vocabulary of the language test.

    python -m safegen.policies.train --data FOLDER --report report.json

FOLDER holds ``*.jsonl`` files whose rows have ``text``, ``label`` (1 unsafe, 0 benign, -1 unknown: left out),
``category`` and ``source``. Needs scikit-learn (the ``train`` extra); inference does not. Near-duplicates stay on one
side of the split, and what ships is the very model that the report measures: it never saw the test rows.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safegen.errors import ConfigError, InputError, SafegenError
from safegen.policies.classifier import WEIGHTS, NgramClassifier, neutral
from safegen.policies.features import BUCKETS, count
from safegen.policies.language import VOCABULARY
from safegen.policies.normalise import fold

VERSION = "2026.11.1"
HEADS: Mapping[str, frozenset[str]] = {
    "sexual": frozenset({"sexual"}),
    "violence": frozenset({"violence"}),
    "self_harm": frozenset({"self_harm", "self-harm"}),
    "illegal": frozenset({"illegal_activities", "illegal activity"}),
    "hate": frozenset({"discrimination", "hate", "harassment"}),
    "disturbing": frozenset({"shocking"}),
    "likeness": frozenset({"privacy_individual", "privacy_public"}),
    "copyright": frozenset({"copyright_violations"}),
}
"""Which of the data's categories each head learns; the head ``general`` learns all unsafe rows."""
GENERAL = "general"
_MIN_BUCKET_TEXTS = 2
_SHINGLE = 8  # words in a row that two texts must share to count as near-duplicates
_FOLDS = 3
# Where the calibrated score comes to lie: 0.45 at these benign rates of false alarms, 0.8 at these.
_FLAG_SCORE, _FLAG_PLAIN, _FLAG_LOOKALIKE = 0.45, 0.0015, 0.03
_BLOCK_SCORE, _BLOCK_PLAIN, _BLOCK_LOOKALIKE = 0.8, 0.0003, 0.006


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text. ``lookalike``: benign, but written to look unsafe."""

    text: str
    unsafe: bool
    category: str
    source: str

    @property
    def lookalike(self) -> bool:
        """Whether the row is benign although it sounds unsafe."""
        return not self.unsafe and self.category.startswith("benign_sensitive")


def read_rows(folder: Path) -> list[Row]:
    """Read the labelled rows of ``*.jsonl``, each text once. InputError names the file and line at fault."""
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                entry = json.loads(line)
                label, text = int(entry["label"]), str(entry["text"])
                row = Row(text, label == 1, str(entry["category"]), str(entry["source"]))
            except (ValueError, KeyError, TypeError) as exc:
                raise InputError(f"{path.name}, line {number}: not a labelled row: {exc}") from exc
            if label in (0, 1) and text.strip():
                rows.setdefault(" ".join(fold(text).text.split()), row)
    if not rows:
        raise InputError(f"no labelled rows in {folder}", remedy="Give a folder of .jsonl files.")
    return list(rows.values())


def groups_of(texts: Sequence[str]) -> list[int]:
    """Return a group number for each text; texts that share a run of eight words are in one group."""
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        for at in range(max(1, len(words) - _SHINGLE + 1)):
            other = first.setdefault(" ".join(words[at : at + _SHINGLE]), i)
            if root(other) != root(i):
                parent[root(i)] = root(other)
    return [root(i) for i in range(len(texts))]


def split(rows: Sequence[Row], parts: int = 5) -> list[int]:
    """Return a part number (0 to ``parts`` - 1) for each row, the same for all of a group; part 0 is the test set."""
    groups = groups_of([row.text for row in rows])
    names: dict[int, str] = {}
    for row, group in zip(rows, groups, strict=True):
        names[group] = min(names.get(group, row.text), row.text)
    return [int(hashlib.sha256(names[g].encode()).hexdigest()[:8], 16) % parts for g in groups]


def targets(rows: Sequence[Row], head: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the rows that a head learns from, and their labels."""
    use, label = [], []
    for i, row in enumerate(rows):
        known = any(row.category in names for names in HEADS.values())
        if row.unsafe and head != GENERAL and not known:
            continue  # unsafe, but nobody says how
        use.append(i)
        label.append(row.unsafe and (head == GENERAL or row.category in HEADS[head]))
    return np.array(use), np.array(label, dtype=np.int64)


class _Features:
    """TF-IDF rows of hashed n-grams, exactly as the classifier computes them."""

    def __init__(self, texts: Sequence[str]) -> None:
        seen = np.bincount(count(texts).buckets, minlength=BUCKETS)
        idf = np.log((1 + len(texts)) / (1 + seen)) + 1.0
        self.idf = np.where(seen >= _MIN_BUCKET_TEXTS, idf, 0.0).astype(np.float16).astype(np.float32)

    def matrix(self, texts: Sequence[str]) -> Any:
        from scipy.sparse import csr_matrix  # type: ignore[import-untyped, unused-ignore]
        from sklearn.preprocessing import normalize

        counts = count(texts)
        values = (1.0 + np.log(counts.counts)) * self.idf[counts.buckets]
        return normalize(csr_matrix((values, (counts.rows, counts.buckets)), shape=(len(texts), BUCKETS)))


def _fit(X: Any, y: NDArray[np.int64], strength: float) -> tuple[NDArray[np.float64], float]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, solver="liblinear", class_weight="balanced", max_iter=200)
    model.fit(X, y)
    return model.coef_[0], float(model.intercept_[0])


def _calibration(
    scores: NDArray[np.float64], plain: NDArray[np.bool_], lookalike: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return (a, b) so that sigmoid(a * score + b) meets the rates of false alarms above on held-out benign rows."""

    def level(rate_plain: float, rate_lookalike: float) -> float:
        levels = [np.quantile(scores[plain], 1 - rate_plain)]
        if lookalike.any():
            levels.append(np.quantile(scores[lookalike], 1 - rate_lookalike))
        return float(max(levels))

    low = level(_FLAG_PLAIN, _FLAG_LOOKALIKE)
    high = max(level(_BLOCK_PLAIN, _BLOCK_LOOKALIKE), low + 0.1)
    logit_low, logit_high = (float(np.log(p / (1 - p))) for p in (_FLAG_SCORE, _BLOCK_SCORE))
    a = (logit_high - logit_low) / (high - low)
    return a, logit_low - a * low


def train(rows: Sequence[Row], parts: Sequence[int], strength: float) -> NgramClassifier:
    """Fit all heads on the given rows; ``parts`` group the rows for calibration on rows that a fit did not see."""
    texts = [neutral(fold(row.text).text) for row in rows]
    features = _Features(texts)
    X = features.matrix(texts)
    fold_of = np.array(parts) % _FOLDS
    names = [*HEADS, GENERAL]
    matrix = np.zeros((BUCKETS, len(names)), np.float32)
    bias = np.zeros(len(names), np.float32)
    for at, head in enumerate(names):
        use, y = targets(rows, head)
        held_out = np.zeros(len(use))
        for k in range(_FOLDS):
            inside = fold_of[use] == k
            w, b = _fit(X[use[~inside]], y[~inside], strength)
            held_out[inside] = X[use[inside]] @ w + b
        benign = np.array([not rows[i].unsafe for i in use])
        similar = np.array([rows[i].lookalike for i in use])
        a, shift = _calibration(held_out, benign & ~similar, similar)
        w, b = _fit(X[use], y, strength)
        matrix[:, at], bias[at] = a * w, a * b + shift
        sys.stderr.write(f"{head}: {int(y.sum())} of {len(y)} rows\n")
    return NgramClassifier(names, matrix.astype(np.float16).astype(np.float32), bias, features.idf, VERSION, None)


def save(model: NgramClassifier, matrix_folder: Path, about: Mapping[str, Any]) -> None:
    """Write ``ngram.npz`` and its description ``ngram.json`` with the digest that loading checks."""
    buffer = io.BytesIO()
    matrix, bias, idf = model.arrays()
    np.savez_compressed(buffer, matrix=matrix.astype(np.float16), bias=bias, idf=idf.astype(np.float16))
    body = buffer.getvalue()
    card = {"version": model.version, "categories": list(model.categories), "sha256": hashlib.sha256(body).hexdigest()}
    matrix_folder.mkdir(parents=True, exist_ok=True)
    (matrix_folder / "ngram.npz").write_bytes(body)
    (matrix_folder / "ngram.json").write_text(json.dumps({**card, **about}, indent=2) + "\n", encoding="utf-8")


def write_vocabulary(rows: Iterable[Row], path: Path, *, least: int = 1) -> int:
    """Write the words that at least ``least`` benign rows hold; return how many."""
    seen: Counter[str] = Counter()
    for row in rows:
        if not row.unsafe:
            seen.update(set(re.findall(r"[a-z]{2,}", row.text.lower())))
    words = sorted(word for word, number in seen.items() if number >= least)
    head = "# Words of benign picture descriptions: the language test counts how many of them a text holds.\n"
    path.write_text(head + "\n".join(words) + "\n", encoding="utf-8")
    return len(words)


def evaluate(model: NgramClassifier, rows: Sequence[Row]) -> dict[str, Any]:
    """Return figures on rows that the model never saw."""
    from sklearn.metrics import roc_auc_score

    scores = model.probabilities([fold(row.text).text for row in rows])
    unsafe = np.array([row.unsafe for row in rows])
    overt = np.array([row.source == "OVERT" for row in rows])
    video = np.array([row.source == "VBench" for row in rows])
    similar = np.array([row.lookalike for row in rows])
    general = scores[:, list(model.categories).index(GENERAL)]
    threshold = float(np.quantile(general[video], 0.99)) if video.any() else 1.0
    report: dict[str, Any] = {
        "rows": len(rows),
        "unsafe_rows": int(unsafe.sum()),
        "auroc_unsafe_vs_benign": _auroc(roc_auc_score, unsafe, general),
        "auroc_overt_unsafe_vs_lookalike": _auroc(roc_auc_score, unsafe[overt], general[overt]),
        "recall_at_1pct_fpr_on_video_prompts": float((general[unsafe] > threshold).mean()) if unsafe.any() else None,
        "lookalikes_above_that_threshold": float((general[similar] > threshold).mean()) if similar.any() else None,
        "per_head": {},
    }
    for at, head in enumerate(model.categories):
        use, y = targets(rows, head)
        level = float(np.quantile(scores[video, at], 0.99)) if video.any() else 1.0
        report["per_head"][head] = {
            "positives": int(y.sum()),
            "auroc": _auroc(roc_auc_score, y, scores[use, at]),
            "recall_at_1pct_fpr_on_video_prompts": float((scores[use, at][y == 1] > level).mean()) if y.any() else None,
        }
    return report


def _auroc(score: Any, y: NDArray[Any], s: NDArray[Any]) -> float | None:
    return float(score(y, s)) if 0 < y.sum() < len(y) else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m safegen.policies.train", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled .jsonl files")
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="folder for ngram.npz and ngram.json")
    parser.add_argument("--report", type=Path, help="write the figures on the held-out rows here")
    parser.add_argument("--leave-out", default="", help="train without this source and test on it alone; ships nothing")
    parser.add_argument("--strength", type=float, default=20.0, help="inverse regularisation (scikit-learn's C)")
    options = parser.parse_args(arguments)
    try:
        rows = read_rows(options.data)
        parts = split(rows)
        if options.leave_out:
            test = [r for r in rows if r.source == options.leave_out]
            keep = [i for i, r in enumerate(rows) if r.source != options.leave_out]
            if not test:
                raise ConfigError(f"no rows of source {options.leave_out!r}")
        else:
            test = [r for r, p in zip(rows, parts, strict=True) if p == 0]
            keep = [i for i, p in enumerate(parts) if p != 0]
        training = [rows[i] for i in keep]
        model = train(training, [parts[i] for i in keep], options.strength)
        report = {"left_out": options.leave_out or "test part of a group-disjoint split", **evaluate(model, test)}
        if options.leave_out:
            general = model.probabilities([fold(r.text).text for r in test])
            report["share_above_block_score"] = float((general.max(axis=1) >= _BLOCK_SCORE).mean())
            report["share_above_flag_score"] = float((general.max(axis=1) >= _FLAG_SCORE).mean())
        else:
            save(
                model,
                options.output,
                {"trained_on": dict(Counter(r.source for r in training)), "strength": options.strength},
            )
            write_vocabulary(training, VOCABULARY)
        text = json.dumps(report, indent=2)
        if options.report:
            options.report.write_text(text + "\n", encoding="utf-8")
        sys.stdout.write(text + "\n")
    except SafegenError as exc:
        sys.stderr.write(exc.diagnostics() + "\n")
        return exc.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
