"""Every argument of every pipeline is an entrance: it is judged, sealed, harmless by its size, or refused."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from safegen.errors import InputError
from safegen.generation.entrances import MAX_PICTURES, TENSOR_NAMES, sort_call
from safegen.media import encode_png
from tests import families
from tests.families import BUILDERS

PICTURE = Image.fromarray(np.tile(np.linspace(0, 255, 48, dtype=np.uint8), (32, 1))).convert("RGB")
ARRAY = np.asarray(PICTURE)
TENSOR = torch.rand(1, 5, 16)


def outcome(name: str, value: Any) -> str:
    """How one argument is taken: texts, clips, embeddings, unjudgeable, or plain."""
    found = sort_call({name: value}, 16.0)
    kinds = [k for k in ("texts", "clips", "embeddings", "unjudgeable") if getattr(found, k)]
    assert len(kinds) <= 1, kinds
    return kinds[0] if kinds else "plain"


OURS = {"prompt", "negative_prompt", "image", "video", "generator", "output_type", "callback_on_step_end", TENSOR_NAMES}


@pytest.mark.slow
def test_no_argument_of_any_family_lets_content_past() -> None:
    """Whatever a family calls its argument: tensors are refused or need a seal, pictures and texts are judged."""
    pipes = [families.build(name).pipe for name in BUILDERS]
    names = {parameter for pipe in pipes for parameter in inspect.signature(pipe.__call__).parameters}
    assert len(names) > 40
    for name in sorted(names - OURS):
        tensor = outcome(name, TENSOR)
        assert tensor in ("embeddings", "unjudgeable"), name
        assert outcome(name, TENSOR.numpy()) == outcome(name, [TENSOR]) == tensor, name
        if tensor == "unjudgeable":  # else it is called embeddings, and nothing else is taken for them
            for text in ("a red ball", ["a red ball", "a tree"], {"template": "a red ball"}):
                assert outcome(name, text) == "texts", (name, text)
            for picture in (PICTURE, [PICTURE, PICTURE], ARRAY):
                assert outcome(name, picture) == "clips", name
            for unknown in (object(), lambda: None):
                assert outcome(name, unknown) == "unjudgeable", name
        for number in (None, 3, 0.5, True, [1.0, 0.5], (512, 512)):
            assert outcome(name, number) == "plain", (name, number)


def test_the_families_calls_need_a_seal_and_nothing_else() -> None:
    for name in BUILDERS:
        call = {k: v for k, v in families.build(name).call.items() if k != "generator"}
        found = sort_call(call, 16.0)
        assert found.unjudgeable == [], name
        assert found.texts == [], name
        tensors = {k for k, v in call.items() if isinstance(v, torch.Tensor)}
        assert set(found.embeddings) == tensors, name
        assert found.clips or "image" not in call, name


# Names of other families' arguments, and what may come in them.
TABLE: list[tuple[str, Any, str]] = [
    ("prompt_2", "a red ball", "texts"),
    ("negative_prompt_2", "blurry", "texts"),
    ("system_prompt", "a red ball", "texts"),
    ("prompt_template", {"template": "{}", "crop_start": 95}, "texts"),
    ("complex_human_instruction", ["a red ball", "a tree"], "texts"),
    ("prompt_segments", [{"prompt": "a red ball", "start": 3}], "texts"),
    ("latents", TENSOR, "unjudgeable"),
    ("image_latents", TENSOR, "unjudgeable"),
    ("audio_latents", TENSOR, "unjudgeable"),
    ("id_cond", TENSOR, "unjudgeable"),
    ("id_vit_hidden", [TENSOR], "unjudgeable"),
    ("image_embeds", TENSOR, "embeddings"),
    ("ip_adapter_image_embeds", [TENSOR], "embeddings"),
    ("negative_image_embeds", TENSOR, "embeddings"),
    ("prompt_embeds_qwen", TENSOR, "embeddings"),
    ("prompt_cu_seqlens", TENSOR, "embeddings"),
    ("ip_adapter_image", PICTURE, "clips"),
    ("last_image", PICTURE, "clips"),
    ("reference_images", [PICTURE, PICTURE], "clips"),
    ("reference_images", [[PICTURE], [PICTURE]], "clips"),
    ("control_video", [PICTURE] * 3, "clips"),
    ("pose_video", np.stack([ARRAY] * 3), "clips"),
    ("mask", PICTURE.convert("L"), "clips"),
    ("mask", np.asarray(PICTURE.convert("L")), "clips"),
    ("mask_video", [PICTURE.convert("1")] * 3, "clips"),
    ("video", np.zeros((3, 8, 8, 3), np.float32), "unjudgeable"),
    ("conditioning_frames", TENSOR, "unjudgeable"),
    ("c2w", TENSOR.numpy(), "unjudgeable"),
    ("attention_kwargs", {"scale": 0.5}, "plain"),
    ("attention_kwargs", {"ip_adapter_masks": [PICTURE]}, "clips"),
    ("attention_kwargs", {"deep": {"deeper": TENSOR}}, "unjudgeable"),
    ("cross_attention_kwargs", {"gligen": {"phrases": ["a red ball"], "boxes": [[0.1, 0.2, 0.3, 0.4]]}}, "texts"),
    ("something_new", TENSOR, "unjudgeable"),
    ("something_new", object(), "unjudgeable"),
    ("something_new", b"bytes", "unjudgeable"),
    ("something_new", {1: "a red ball"}, "unjudgeable"),
    ("something_new", {"a": {"b": {"c": {"d": {"e": "a red ball"}}}}}, "unjudgeable"),
    ("something_new", [[[1.0] * 100] * 100] * 3, "unjudgeable"),
    ("something_new", list(range(5000)), "unjudgeable"),
    ("timesteps", [999, 500, 1], "plain"),
]


@pytest.mark.parametrize(("name", "value", "kind"), TABLE, ids=[f"{n}_{k}_{i}" for i, (n, _, k) in enumerate(TABLE)])
def test_arguments_of_other_families(name: str, value: Any, kind: str) -> None:
    assert outcome(name, value) == kind


@dataclasses.dataclass
class Condition:
    """As LTX has them: a picture or a clip, and where it goes."""

    image: Any = None
    video: Any = None
    frame_index: int = 0
    strength: float = 1.0


def test_pictures_inside_objects_are_judged_and_copied() -> None:
    found = sort_call({"conditions": [Condition(image=PICTURE, frame_index=8), Condition(video=[PICTURE] * 2)]}, 16.0)
    assert [name for name, _ in found.clips] == ["conditions.image", "conditions.video"]
    assert [clip.fps for _, clip in found.clips] == [0.0, 16.0]
    (first, _) = found.call["conditions"]
    assert first.frame_index == 8
    assert first.image is not PICTURE


def test_the_pipeline_gets_what_was_judged_and_not_what_it_becomes() -> None:
    picture, frames = PICTURE.copy(), np.stack([ARRAY] * 2)
    found = sort_call({"last_image": picture, "control_video": frames}, 16.0)
    picture.paste((0, 0, 0), (0, 0, 48, 32))
    frames[:] = 0
    assert np.array_equal(np.asarray(found.call["last_image"]), ARRAY)
    assert all(np.array_equal(np.asarray(f), ARRAY) for f in found.call["control_video"])
    assert all(np.array_equal(frame, ARRAY) for _, clip in found.clips for frame in clip.frames)


def test_pictures_of_several_sizes_are_all_judged() -> None:
    found = sort_call({"reference_images": [PICTURE, PICTURE.resize((16, 16)), PICTURE]}, 16.0)
    assert sorted(len(clip.frames) for _, clip in found.clips) == [1, 2]


def test_a_file_is_read_where_a_picture_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "first.png"
    encode_png(ARRAY, path)
    for value in (path, str(path)):
        found = sort_call({"last_image": value}, 16.0)
        assert np.array_equal(found.clips[0][1].frames[0], ARRAY)
        assert np.array_equal(np.asarray(found.call["last_image"][0]), ARRAY)
    with pytest.raises(InputError):
        sort_call({"last_image": tmp_path / "none.png"}, 16.0)


def test_too_many_pictures_and_broken_ones_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="control_video"):
        sort_call({"control_video": np.zeros((MAX_PICTURES + 1, 2, 2, 3), np.uint8)}, 16.0)
    path = tmp_path / "truncated.png"
    encode_png(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="last_image"):
        sort_call({"last_image": Image.open(path)}, 16.0)


def test_what_safegen_sets_itself_is_refused() -> None:
    for name in ("generator", "output_type"):
        with pytest.raises(InputError, match=name):
            sort_call({name: "np"}, 16.0)


def test_only_a_step_callback_is_a_callback() -> None:
    assert outcome("callback_on_step_end", lambda *_: {}) == "plain"
    assert outcome("callback", lambda *_: {}) == "unjudgeable"


def test_names_of_tensors_are_no_text_of_a_users() -> None:
    name = "callback_on_step_end_tensor_inputs"
    found = sort_call({name: ["latents"]}, 16.0, tensor_names=["latents", "prompt_embeds"])
    assert (found.texts, found.call) == ([], {name: ["latents"]})
    for names in (["latents", "a red ball"], "a red ball", [3]):
        with pytest.raises(InputError, match="does not show"):
            sort_call({name: names}, 16.0, tensor_names=["latents", "prompt_embeds"])


class Believed(torch.Tensor):
    """A tensor that shows others what it likes."""

    def detach(self) -> torch.Tensor:
        return torch.zeros(1, 5, 16)


@pytest.mark.parametrize("value", [TENSOR.as_subclass(Believed), [TENSOR, TENSOR.as_subclass(Believed)], object()])
def test_what_only_looks_like_a_tensor_is_refused(value: Any) -> None:
    assert outcome("prompt_embeds", value) == "unjudgeable"


def test_embeddings_that_are_changed_after_they_were_judged_do_not_reach_the_pipeline() -> None:
    theirs, arrays = TENSOR.clone(), [TENSOR.numpy().copy()]
    found = sort_call({"prompt_embeds": theirs, "image_embeds": arrays}, 16.0)
    theirs.zero_()
    arrays[0][:] = 0
    assert torch.equal(found.call["prompt_embeds"], TENSOR)
    assert np.array_equal(found.call["image_embeds"][0], TENSOR.numpy())
    assert found.call["prompt_embeds"] is found.embeddings["prompt_embeds"]  # what is digested is what runs


@pytest.mark.parametrize(
    ("call", "steers"),
    [
        ({"guidance_scale": 5.0}, False),
        ({"guidance_scale": 1}, False),
        ({"guidance_scale": 0.5}, True),
        ({"guidance_scale": 5.0, "guidance_scale_2": -4.0}, True),
        ({"true_cfg_scale": float("nan")}, True),
        ({"guidance_scale": [6.0, -1.0]}, True),
        ({"attention_kwargs": {"inner": {"cfg_weight": np.float32(-2)}}}, True),
        ({"guidance_rescale": 0.0, "control_guidance_start": 0.0, "use_cfg": True, "guidance_scale_2": None}, False),
    ],
)
def test_a_weight_of_guidance_below_one_makes_the_negative_prompt_a_prompt(call: dict[str, Any], steers: bool) -> None:
    assert sort_call(call, 16.0).steers is steers


def test_records_name_what_was_judged_and_hold_none_of_it() -> None:
    call = {"prompt_2": "a red ball", "last_image": PICTURE, "prompt_embeds": TENSOR}
    said = sort_call(call, 16.0).describe()
    assert [(e["name"], e["kind"]) for e in said] == [  # type: ignore[index, call-overload]
        ("prompt_2", "text"), ("last_image", "pictures"), ("prompt_embeds", "embeddings"),
    ]  # fmt: skip
    assert "red ball" not in str(said)


def test_numbers_are_kept_so_that_a_request_can_be_told_from_another() -> None:
    def plain(strength: float) -> list[tuple[str, str]]:
        condition = Condition(image=PICTURE, strength=strength)
        return sort_call({"conditions": [condition], "num_frames": 13, "sigmas": [1.0, 0.5]}, 16.0).plain

    assert {("conditions.strength", "0.5"), ("num_frames", "13"), ("sigmas", "[1.0, 0.5]")} <= set(plain(0.5))
    assert plain(0.5) != plain(0.6)
