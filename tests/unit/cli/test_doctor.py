"""What ``safegen doctor`` says of the embedded model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from safegen import generators
from safegen.cli import doctor
from safegen.generators import ModelRef, resolve
from safegen.settings import Home


def test_the_model_is_shown_with_the_vocabulary_that_its_card_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = resolve("tiny").configs
    for part in pipe.rglob("*.json"):
        (tmp_path / part.relative_to(pipe)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(part, tmp_path / part.relative_to(pipe))
    card = json.loads((tmp_path / "card.json").read_text("utf-8"))
    (tmp_path / "card.json").write_text(json.dumps(card | {"vocabulary": {"shape": ["ball", "cube"]}}), "utf-8")
    copied: ModelRef = resolve(str(tmp_path))
    monkeypatch.setattr(generators, "resolve", lambda name: copied)
    assert doctor._model(Home(tmp_path)).facts["vocabulary"] == {"shape": ["ball", "cube"]}
    monkeypatch.undo()
    assert doctor._model(Home(tmp_path)).facts.get("vocabulary") == json.loads(
        (pipe / "card.json").read_text("utf-8")
    ).get("vocabulary")
