"""What is given to ``safegen.protect`` and is no loaded pipeline."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import safegen
from safegen.errors import InputError


@pytest.mark.parametrize("wrong", [object(), None, "tiny", 7, print, torch.nn.Linear(1, 1), dict])
def test_what_is_no_pipeline_ended_in_an_attribute_error(wrong: Any) -> None:
    with pytest.raises(InputError, match="needs a diffusers pipeline") as caught:
        safegen.protect(wrong)
    assert "from_pretrained" in caught.value.remedy


def test_a_class_of_pipelines_is_none_yet() -> None:
    from diffusers import DiffusionPipeline

    with pytest.raises(InputError, match="the class DiffusionPipeline"):
        safegen.protect(DiffusionPipeline)
