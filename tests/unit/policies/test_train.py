"""Training of the prompt classifier: what rows say, how they are split, and the whole run on a tiny encoder."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from safegen.errors import InputError
from safegen.policies.text.encoder import EncoderClassifier, open_session, open_tokenizer
from safegen.policies.text.views import views_of
from safegen.policies.training.measure import auroc, calibrate, card_of, level_of, share_a_head
from safegen.policies.training.rows import (
    HEADS,
    NO,
    UNKNOWN,
    YES,
    Row,
    example_from,
    example_of,
    groups_of,
    read_rows,
    split,
)
from safegen.policies.training.templates import Template, read_grammar
from safegen.policies.training.train import main, role

WORDS = (
    *("red", "blue", "green", "ball", "dog", "cat", "tree", "house", "walks", "runs", "sleeps", "under", "over"),
    *("a", "the", "street", "river", "grim", "harsh", "cruel"),
)


def says(row: Row) -> dict[str, int]:
    return dict(zip(HEADS, example_of(row, read_grammar()).says.tolist(), strict=True))


def test_near_duplicates_stay_on_one_side_of_the_split() -> None:
    shared = "one two three four five six seven eight"
    texts = [f"{shared} red", "something else entirely", f"blue {shared}", "something else entirely different"]
    groups = groups_of(texts)
    assert groups[0] == groups[2]
    assert groups[1] != groups[0]
    rows = [Row(t, False, "benign", "s") for t in texts]
    parts = split(rows)
    assert parts[0] == parts[2]
    assert parts == split(rows)


def test_benign_row_says_no_everywhere_but_about_names_that_it_holds() -> None:
    assert set(says(Row("a dog under a tree", False, "benign", "s")).values()) == {NO}
    named = says(Row("Darth Vader reads a map", False, "benign", "s"))
    assert named["copyright"] == UNKNOWN
    assert named["violence"] == NO


def test_unsafe_row_teaches_its_head_and_leaves_the_others_open() -> None:
    row = says(Row("x", True, "violence", "s"))
    assert (row["violence"], row["general"], row["gore"], row["sexual"]) == (YES, YES, UNKNOWN, UNKNOWN)
    other = says(Row("x", True, "some_other_kind", "s"))
    assert [h for h, v in other.items() if v != UNKNOWN] == ["general"]
    soft = says(Row("x", True, "copyright_violations", "s"))
    assert (soft["copyright"], soft["general"]) == (YES, UNKNOWN)


def test_template_says_no_to_heads_that_it_has_nothing_to_do_with() -> None:
    grammar = read_grammar()
    template = Template("x", frozenset({"gore"}), "gore")
    found = dict(zip(HEADS, example_from(template, grammar, random.Random(0), held_out=None).says, strict=True))
    assert (found["gore"], found["violence"], found["sexual"], found["copyright"]) == (YES, UNKNOWN, NO, NO)
    bad = Template("x", frozenset({"no_such_head"}), "gore")
    with pytest.raises(InputError, match="no_such_head"):
        example_from(bad, grammar, random.Random(0), held_out=None)


def test_held_out_collections_and_sources_never_train() -> None:
    rows = [
        Row("a", False, "benign", "VBench", "prompts/all_dimension.txt"),
        Row("b", False, "benign", "VBench", "prompts/all_category.txt"),
        Row("c", True, "violence", "I2P"),
    ]
    assert {role(rows[0], part, ()) for part in range(5)} == {"calibrate", "test"}
    assert {role(rows[1], part, ()) for part in range(1, 5)} == {"train"}
    assert {role(rows[2], part, ("I2P",)) for part in range(5)} == {"test"}


@pytest.mark.parametrize(
    "line", ["not json", "{}", '{"text": "a", "label": "x", "category": "b", "source": "s"}', "[]"]
)
def test_row_that_is_no_row_names_its_line(tmp_path: Path, line: str) -> None:
    good = json.dumps({"text": "a", "label": 0, "category": "benign", "source": "s"})
    (tmp_path / "rows.jsonl").write_text(f"{good}\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2"):
        read_rows(tmp_path)


def test_folder_without_rows_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_rows(tmp_path)


def test_all_heads_together_exceed_their_thresholds_as_often_as_asked() -> None:
    logits = np.random.default_rng(0).normal(size=(4000, len(HEADS))).astype(np.float32)
    each = share_a_head(logits, 0.02)
    assert 0.01 <= (logits > level_of(logits, each)).any(1).mean() <= 0.02


def test_levels_beyond_the_rows_at_hand_follow_the_tail() -> None:
    logits = np.random.default_rng(0).exponential(1.0, (2000, 1)).astype(np.float32)
    assert level_of(logits, 1e-5)[0] == pytest.approx(np.log(1e5), rel=0.15)
    assert level_of(logits, 0.1)[0] == pytest.approx(np.log(10), rel=0.1)


def test_score_of_one_half_is_the_flag_level_and_levels_rise() -> None:
    draw = np.random.default_rng(0)
    video = draw.normal(-6, 1, (3000, len(HEADS))).astype(np.float32)
    unsafe = draw.normal(4, 2, (300, len(HEADS))).astype(np.float32)
    told = np.concatenate([np.full((3000, len(HEADS)), NO, np.int8), np.full((300, len(HEADS)), YES, np.int8)])
    heads = calibrate({"video": video}, np.concatenate([video, unsafe]), told)
    for entry in heads.values():
        assert entry["flag_at"] == pytest.approx(0.5, abs=0.01)
        assert entry["flag_at"] <= entry["review_at"] <= entry["block_at"] <= entry["ceiling"]
    assert heads["gore"]["block_at"] == pytest.approx(0.8, abs=0.01)
    scores = card_of(heads).scores(unsafe)
    assert (scores >= 0.5).mean() > 0.9
    assert scores[:, HEADS.index("likeness")].max() <= heads["likeness"]["ceiling"] < 0.7


def test_auroc_is_that_of_the_textbook() -> None:
    found = auroc(np.array([0.9, 0.8, 0.3], np.float32), np.array([0.1, 0.3, 0.2], np.float32))
    assert found is not None
    assert found[0] == pytest.approx((9 - 0.5) / 9, abs=1e-4)
    assert found[1] <= found[0] <= found[2]


# -- the whole run, on an encoder of one layer


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=256, **shape)).save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    draw = random.Random(0)
    rows = []
    for number in range(160):
        unsafe = number % 4 == 0
        text = f"{' '.join(draw.choices(WORDS[:-3], k=8))} {draw.choice(WORDS[-3:] if unsafe else WORDS[:3])}"
        category = "violence" if unsafe else "benign"
        row = {"text": f"{text} {number}", "label": int(unsafe), "category": category, "source": "made"}
        rows.append(json.dumps(row))
    for number in range(60):
        row = {"text": f"{' '.join(draw.choices(WORDS[:8], k=9))} {number}", "label": 0, "category": "benign"}
        rows.append(json.dumps({**row, "source": "VBench", "file": "all_dimension.txt"}))
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_training_ends_in_weights_that_load_and_score(
    encoder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, report = tmp_path / "weights", tmp_path / "report.json"
    arguments = ["--data", str(data), "--encoder", str(encoder), "--output", str(output), "--report", str(report)]
    assert main([*arguments, "--steps", "6", "--batch", "8"]) == 0
    capsys.readouterr()
    model = EncoderClassifier.load(output)
    assert model.categories == HEADS
    assert all(0 <= hit.score <= 1 for hit in model.score([views_of("a cruel dog walks over the street")])[0])
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["benign"]["VBench"]["n"] > 0
    assert figures["unsafe"]["made"]["auroc_against_benign_video"][0] >= 0


def test_graph_computes_what_the_network_computes(encoder: Path) -> None:
    import torch

    from safegen.policies.training.encoder import load_network
    from safegen.policies.training.export import to_onnx

    torch.manual_seed(1)
    network = load_network(encoder, len(HEADS)).eval()
    torch.nn.init.normal_(network.attention.weight)
    graph = to_onnx({k: v.numpy() for k, v in network.state_dict().items()}, 1, 2)
    ids = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
    mask = (ids != 0).long()
    with torch.no_grad():
        logits, parts = network(ids, mask)
    found, shares = open_session(graph).run(["logits", "parts"], {"ids": ids.numpy(), "mask": mask.numpy()})
    assert np.abs(found - logits.numpy()).max() < 0.02
    assert np.abs(shares - parts.numpy()).max() < 0.02


def test_network_learns_what_it_is_shown(encoder: Path) -> None:
    from safegen.policies.training.encoder import Recipe, fit, load_network, logits_of
    from safegen.policies.training.rows import Example

    def source() -> object:
        draw = random.Random(0)
        while True:
            bad = draw.random() < 0.5
            text = " ".join([*draw.choices(WORDS[:-3], k=6), "cruel" if bad else "blue"])
            yield Example(text, np.full(len(HEADS), YES if bad else NO, np.int8))

    tokenizer = open_tokenizer((encoder / "tokenizer.json").read_bytes())
    network = load_network(encoder, len(HEADS))
    fit(
        network,
        tokenizer,
        source(),
        Recipe(steps=60, batch=16, rate=3e-3, head_rate=3e-2, average=0.5, frozen_layers=0),
    )  # type: ignore[arg-type]
    found = logits_of(network, tokenizer, ["the dog walks cruel street", "the dog walks blue street"], 32)
    assert (found[0] > found[1] + 1).all()


def test_without_an_encoder_or_a_known_source_the_command_says_so(
    encoder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "weights")
    assert main(["--data", str(data), "--encoder", str(tmp_path), "--output", output]) != 0
    assert "--encoder" in capsys.readouterr().err
    assert main(["--data", str(data), "--encoder", str(encoder), "--output", output, "--leave-out", "nobody"]) != 0
    assert "nobody" in capsys.readouterr().err
