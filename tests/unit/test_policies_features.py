"""The feature hash is part of the weights' format: it must never change under them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safegen.errors import InputError
from safegen.policies.features import BITS, count
from safegen.policies.train import Row, groups_of, read_rows, split, targets

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "policies" / "features.json").read_text(encoding="utf-8"))


def test_buckets_and_counts_match_the_golden_vectors() -> None:
    assert VECTORS["bits"] == BITS
    together = count([v["text"] for v in VECTORS["vectors"]])
    for row, vector in enumerate(VECTORS["vectors"]):
        mine = together.rows == row
        assert together.buckets[mine].tolist() == vector["buckets"]
        assert together.counts[mine].tolist() == vector["counts"]


def test_no_text_at_all_has_no_features() -> None:
    assert count([]).texts == 0
    assert len(count([""]).buckets) == 0


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


def test_head_learns_its_category_and_leaves_out_unsafe_rows_of_unknown_kind() -> None:
    rows = [
        Row("a", False, "benign", "s"),
        Row("b", True, "violence", "s"),
        Row("c", True, "hate", "s"),
        Row("d", True, "some_other_kind", "s"),
    ]
    use, label = targets(rows, "violence")
    assert (use.tolist(), label.tolist()) == ([0, 1, 2], [0, 1, 0])
    use, label = targets(rows, "general")
    assert (use.tolist(), label.tolist()) == ([0, 1, 2, 3], [0, 1, 1, 1])


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
