"""Labels that anybody can write are named beside the verdict, and change nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from safegen.settings import Home
from safegen.types import Basis, Status, VerdictKind
from safegen.verification.label_finding import find_labels
from safegen.verification.verifier import verify

SETTINGS = "a boat\nSteps: 20, Sampler: Euler a, Seed: 1"


def labelled(path: Path, **texts: str) -> Path:
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    Image.new("RGB", (64, 64)).save(path, pnginfo=info)
    return path


def test_a_file_whose_only_sign_is_such_a_label_is_unverified_and_the_label_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")  # without keys: no file can carry its mark
    path = labelled(tmp_path / "a.png", parameters=SETTINGS, Software="NovelAI")
    verdict = verify(path, home=home)
    assert verdict.verdict is VerdictKind.UNVERIFIED
    assert verdict.verdict == verify(labelled(tmp_path / "b.png"), home=home).verdict
    finding = next(f for f in verdict.findings if f.basis is Basis.LABELS)
    assert finding.status is Status.INCONCLUSIVE
    assert "AUTOMATIC1111" in finding.summary
    assert "Anybody can write that" in finding.summary


def test_control_characters_of_a_label_reach_no_terminal(tmp_path: Path) -> None:
    record = '{"Label": "1", "ContentProducer": "\\u001b[31mred\\u0007"}'
    finding = find_labels(labelled(tmp_path / "a.png", AIGC=record))
    assert finding.summary.isprintable()
    assert all(v.isprintable() for v in finding.evidence["labels"][0].values() if isinstance(v, str))  # type: ignore[index,union-attr]


@pytest.mark.parametrize("count", [1, 3, 4, 50])
def test_a_few_are_told_and_the_rest_counted(count: int, tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    for number in range(count):
        info.add_text("AIGC", f'{{"Label": "1", "ContentProducer": "maker{number}"}}')
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    finding = find_labels(tmp_path / "a.png")
    assert finding.summary.count("maker") == min(count, 3)
    assert ("more" in finding.summary) == (count > 3)
    assert len(finding.summary) < 700
