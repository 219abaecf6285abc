"""What of a file the marked clips are: stretches and shares, in words and in evidence."""

from __future__ import annotations

from typing import Any

import pytest

from safegen.types import Basis, Finding, Json, Status
from safegen.verification.coverage import is_whole, marked_spans, note_what_is_marked
from safegen.verification.mark_reading import Mark
from safegen.watermark.base import Extraction, MarkStatus

ONE, OTHER = "a" * 16, "b" * 16


def segments(*ids: str | None) -> list[Any]:
    """Segments of 8 frames each."""
    return [{"first": 8 * n, "last": 8 * n + 7, "content_id": c} for n, c in enumerate(ids)]


def marked(*ids: str | None, whole: bool | None = None) -> Mark:
    evidence: dict[str, Json] = {} if whole is None else {"pictures": {"same": True, "whole": whole}}
    read = Extraction(
        MarkStatus.VERIFIED, "s", None, 9.0, 1e-9, 5.0, 1, {"segments": segments(*ids), "frames": 8 * len(ids)}
    )
    return Mark(Finding(Basis.WATERMARK, Status.PASS, "The mark names a clip.", evidence), extraction=read)


def test_stretches_of_one_clip_s_mark_are_joined_and_another_s_kept_apart() -> None:
    found = marked_spans(segments(None, ONE, ONE, OTHER, None, ONE), 16)
    told = [(s.content_id, s.start, s.end) for s in found]
    assert told == [(ONE, 0.5, 1.5), (OTHER, 1.5, 2.0), (ONE, 2.5, 3.0)]


def test_a_part_of_the_file_that_carries_a_mark_is_told_with_its_share() -> None:
    finding = note_what_is_marked(marked(None, None, ONE, ONE, whole=False), 16).finding
    assert finding.summary == "The mark names a clip. 1.0 of 2.0 s carry that mark."
    assert finding.evidence["marked"] == [{"content_id": ONE, "start": 1.0, "end": 2.0}]


def test_clips_joined_in_one_file_are_all_named() -> None:
    finding = note_what_is_marked(marked(ONE, OTHER, OTHER, ONE, whole=False), 16).finding
    assert finding.summary.endswith(
        f"2.0 of 2.0 s carry the marks of 2 clips: {ONE} (0.0 to 0.5 s, 1.5 to 2.0 s); {OTHER} (0.5 to 1.5 s)."
    )


def test_flat_stretches_of_a_whole_clip_are_not_told_as_missing() -> None:
    mark = marked(ONE, None, ONE, whole=True)
    assert note_what_is_marked(mark, 16).finding.summary == "The mark names a clip."
    assert is_whole(mark.finding)


@pytest.mark.parametrize("fps", [0.0, 16.0])
def test_a_mark_that_was_read_without_segments_says_nothing_of_time(fps: float) -> None:
    mark = Mark(Finding(Basis.WATERMARK, Status.PASS, "A still's mark.", {}))
    assert note_what_is_marked(mark, fps) is mark
