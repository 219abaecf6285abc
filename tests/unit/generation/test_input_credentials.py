"""Credentials of inputs are looked at before a model loads, and nothing is lost after its frames for their sake."""

from __future__ import annotations

from pathlib import Path

import pytest

from safegen.errors import InputError
from safegen.generation.input_credentials import check_input_credentials


@pytest.mark.parametrize(
    "name",
    ["cawg/ica-invalid_vc.jpg", "py-C_with_CAWG_data.jpg", "adobe-20220124-E-sig-CA.jpg", "adobe-20220124-A.jpg"],
)
def test_what_can_be_recorded_is_taken(shared_data: Path, name: str) -> None:
    check_input_credentials([shared_data / "c2pa" / name])


def test_a_store_that_cannot_be_read_is_refused(shared_data: Path, tmp_path: Path) -> None:
    content = bytearray((shared_data / "c2pa" / "py-C.jpg").read_bytes())
    content[content.index(b"jumdc2pa") + 9] ^= 0x20
    (tmp_path / "spoiled.jpg").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read") as caught:
        check_input_credentials([tmp_path / "spoiled.jpg"])
    assert "without its credential" in caught.value.remedy
