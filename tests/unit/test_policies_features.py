"""The feature hash is part of the weights' format: it must never change under them."""

from __future__ import annotations

import json
from pathlib import Path

from safegen.policies.features import BITS, count

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
