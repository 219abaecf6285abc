"""The home's record of VAEs."""

from __future__ import annotations

from pathlib import Path

import pytest

from safegen.calibration.vaes import MAX_SHAPES, known_vaes, remember_vae
from safegen.errors import ConfigError
from safegen.settings import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_nothing_is_known_at_first(home: Home) -> None:
    assert known_vaes(home) == ()


def test_the_latest_comes_first_and_shapes_are_bounded(home: Home) -> None:
    for n in range(MAX_SHAPES + 3):
        remember_vae(home, "aa", "tiny", "latent-still", (5 + n, 64, 64))
    remember_vae(home, "bb", "/models/other", "latent-still", (9, 32, 32))
    remember_vae(home, "aa", "tiny", "latent-still", (6, 64, 64))
    first, second = known_vaes(home)
    assert (first.digest, second.digest) == ("aa", "bb")
    assert first.shapes[0] == (6, 64, 64)
    assert len(first.shapes) == len(set(first.shapes)) == MAX_SHAPES


def test_schemes_of_one_vae_are_remembered_apart(home: Home) -> None:
    remember_vae(home, "aa", "tiny", "latent-still", (1, 64, 64))
    remember_vae(home, "aa", "tiny", "noise-sign", (25, 64, 64))
    assert [(r.scheme, r.shapes) for r in known_vaes(home)] == [
        ("noise-sign", ((25, 64, 64),)),
        ("latent-still", ((1, 64, 64),)),
    ]


def test_the_same_again_writes_nothing(home: Home) -> None:
    remember_vae(home, "aa", "tiny", "latent-still", (5, 64, 64))
    before = (home.root / "vaes.json").stat().st_mtime_ns
    remember_vae(home, "aa", "tiny", "latent-still", (5, 64, 64))
    assert (home.root / "vaes.json").stat().st_mtime_ns == before
    assert [p.name for p in home.root.iterdir()] == ["vaes.json"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"vaes": [{}]}', '{"vaes": [{"digest": 1, "model": 2, "shapes": [[1]]}]}']
)
def test_damaged_records(home: Home, text: str) -> None:
    (home.root / "vaes.json").write_text(text)
    with pytest.raises(ConfigError):
        known_vaes(home)
