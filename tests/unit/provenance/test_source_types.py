"""Origins in words: what a digital source type says, and what it does not."""

from __future__ import annotations

import pytest

from safegen.provenance.source_types import says_ai, says_camera_or_human

IPTC = "cv.iptc.org/newscodes/digitalsourcetype"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("rest", "ai", "camera"),
    [
        (f"{IPTC}/trainedAlgorithmicMedia", True, False),
        (f"{IPTC}/compositeWithTrainedAlgorithmicMedia", True, False),
        ("c2pa.org/digitalsourcetype/trainedAlgorithmicData", True, False),
        (f"{IPTC}/digitalCapture", False, True),
        (f"{IPTC}/computationalCapture", False, True),
        (f"{IPTC}/digitalCreation", False, True),
        (f"{IPTC}/algorithmicMedia", False, False),
        (f"{IPTC}/composite", False, False),
        (f"{IPTC}/screenCapture", False, False),
        ("c2pa.org/digitalsourcetype/empty", False, False),
        ("example.org/newscodes/digitalsourcetype/digitalCapture", False, False),
    ],
)
def test_what_a_type_says(scheme: str, rest: str, ai: bool, camera: bool) -> None:
    assert (says_ai(f"{scheme}://{rest}"), says_camera_or_human(f"{scheme}://{rest}")) == (ai, camera)


@pytest.mark.parametrize("uri", ["", "digitalCapture", "ftp://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"])
def test_what_is_no_source_type_says_nothing(uri: str) -> None:
    assert not says_ai(uri)
    assert not says_camera_or_human(uri)
