"""Cards, sizes and names of models: all that is settled before weights are loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.errors import GeneratorError, InputError, SafegenError
from safegen.generators import Card, Geometry, load, model_facts, parse_size, resolve, vae_folder
from safegen.generators.card import MAX_SIDE, MAX_STEPS, MAX_VOXELS

WAN_VAE = {"_class_name": "AutoencoderKLWan", "scale_factor_spatial": 16, "scale_factor_temporal": 4, "z_dim": 48}
WAN_DIT = {"_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2], "in_channels": 48}
GOOD_CALL = {"height": 64, "width": 96, "num_frames": 9, "num_inference_steps": 4, "guidance_scale": 2.0}


def pipeline_folder(
    root: Path, *, index: object = None, vae: object = None, denoiser: object = None, card: object = None
) -> Path:
    """Write the JSON skeleton of a pipeline folder: a Wan by default, without weights."""
    files = {
        "model_index.json": {"_class_name": "WanPipeline", "expand_timesteps": True} if index is None else index,
        "vae/config.json": WAN_VAE if vae is None else vae,
        "transformer/config.json": WAN_DIT if denoiser is None else denoiser,
        "card.json": card,
    }
    for name, value in files.items():
        if value is not None:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return root


def card_of(folder: Path) -> Card:
    return Card.read(resolve(str(folder)))


def test_embedded_card_is_read_without_torch() -> None:
    code = (
        "import sys; from safegen.generators import Card, resolve;"
        "Card.read(resolve('tiny')).resolve(steps=2); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_embedded_card_names_a_call_that_fits() -> None:
    card = card_of_tiny()
    assert card.source == "card.json"
    assert card.resolve() == dict(card.call)


def card_of_tiny() -> Card:
    return Card.read(resolve("tiny"))


def test_given_values_replace_the_cards(tmp_path: Path) -> None:
    card = card_of(pipeline_folder(tmp_path, card={"fps": 12, "call": GOOD_CALL}))
    call = card.resolve(size=(32, 64), frames=5, steps=7, guidance_scale=1.5)
    assert call == {"width": 32, "height": 64, "num_frames": 5, "num_inference_steps": 7, "guidance_scale": 1.5}
    assert card.fps == 12.0
    assert dict(card.call) == GOOD_CALL, "the card itself stays as it was"


def test_without_a_card_the_pipelines_own_defaults_count(tmp_path: Path) -> None:
    card = card_of(pipeline_folder(tmp_path))
    assert (card.source, card.fps) == ("defaults", 16.0)
    assert (card.call["height"], card.call["width"], card.call["num_frames"]) == (480, 832, 81)


def test_without_a_card_cogvideox_sizes_come_from_its_transformer(tmp_path: Path) -> None:
    folder = pipeline_folder(
        tmp_path,
        index={"_class_name": "CogVideoXPipeline"},
        vae={"_class_name": "AutoencoderKLCogVideoX", "block_out_channels": [8, 8, 8, 8]},
        denoiser={"patch_size": 2, "sample_height": 60, "sample_width": 90, "sample_frames": 49},
    )
    card = card_of(folder)
    assert (card.call["height"], card.call["width"], card.call["num_frames"]) == (480, 720, 49)
    assert card.geometry == Geometry(16, 16, 8, 4)


def test_ltx_strides_and_frame_rate(tmp_path: Path) -> None:
    folder = pipeline_folder(
        tmp_path,
        index={"_class_name": "LTXPipeline"},
        vae={
            "_class_name": "AutoencoderKLLTXVideo",
            "patch_size": 4,
            "patch_size_t": 1,
            "spatio_temporal_scaling": [True, True, True, False],
        },
        denoiser={"patch_size": 1},
    )
    card = card_of(folder)
    assert card.geometry == Geometry(32, 32, 32, 8)
    assert card.fps == 25.0


@given(st.integers(-64, 6000), st.integers(-64, 6000), st.integers(-3, 400))
def test_a_size_is_taken_or_refused_with_one_that_is_taken(width: int, height: int, frames: int) -> None:
    geometry = Geometry(32, 32, 16, 4)
    try:
        geometry.check(height, width, frames)
    except InputError as error:
        assert error.remedy  # noqa: PT017  # refusing is one of two right answers
        if "multiples" in str(error):
            near_width, near_height = parse_size(error.remedy.removeprefix("Use ").rstrip("."))
            geometry.check(near_height, near_width, 5)
            if 0 < width <= MAX_SIDE:
                assert abs(near_width - width) <= 32
        elif "fit this model" in str(error):
            for near in error.remedy.removeprefix("Use ").rstrip(".").split(" or "):
                geometry.check(64, 64, int(near))
        elif "memory" in str(error):
            geometry.check(height, width, int(error.remedy.split()[-2]))
    else:
        assert width % 32 == height % 32 == 0
        assert frames % 4 == 1
        assert frames >= 1
        assert 0 < width * height * frames <= MAX_VOXELS
        assert max(width, height) <= MAX_SIDE
        t, h, w = geometry.latent_shape(height, width, frames)
        assert ((t - 1) * 4 + 1, h * 16, w * 16) == (frames, height, width)


@pytest.mark.parametrize("steps", [0, -1, MAX_STEPS + 1])
def test_impossible_steps(steps: int) -> None:
    with pytest.raises(InputError, match="steps"):
        card_of_tiny().resolve(steps=steps)


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf"), 101.0])
def test_impossible_guidance_scale(scale: float) -> None:
    with pytest.raises(InputError, match="guidance"):
        card_of_tiny().resolve(guidance_scale=scale)


@pytest.mark.parametrize(
    "card",
    [
        pytest.param("{", id="truncated"),
        pytest.param("[1]", id="no_object"),
        pytest.param("\ufeff{}", id="byte_order_mark"),
        pytest.param("[" * 100_000, id="nested_too_deep"),
        pytest.param({"fps": "16", "call": GOOD_CALL}, id="fps_is_text"),
        pytest.param({"fps": 0, "call": GOOD_CALL}, id="fps_zero"),
        pytest.param({"fps": True, "call": GOOD_CALL}, id="fps_is_bool"),
        pytest.param({"fps": 16, "call": []}, id="call_is_list"),
        pytest.param({"fps": 16, "call": GOOD_CALL | {"height": "64"}}, id="height_is_text"),
        pytest.param({"fps": 16, "call": GOOD_CALL | {"num_frames": 9.5}}, id="frames_are_broken"),
        pytest.param({"fps": 16, "call": GOOD_CALL | {"num_inference_steps": -1}}, id="steps_negative"),
    ],
)
def test_damaged_card(tmp_path: Path, card: object) -> None:
    with pytest.raises(GeneratorError) as caught:
        card_of(pipeline_folder(tmp_path, card=card))
    assert "card.json" in str(caught.value)
    assert caught.value.remedy


@pytest.mark.slow
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda c: st.lists(c, max_size=3)))
def test_any_card_values_end_in_our_errors(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    card = {"fps": value, "call": {"height": value, "width": 64, "num_frames": 5, "num_inference_steps": 2}}
    folder = pipeline_folder(tmp_path_factory.mktemp("card"), card=card)
    with pytest.raises(SafegenError):  # height is never a positive integer here
        card_of(folder).resolve()


def test_card_that_its_own_model_cannot_make(tmp_path: Path) -> None:
    card = card_of(pipeline_folder(tmp_path, card={"fps": 16, "call": GOOD_CALL | {"height": 72}}))
    with pytest.raises(InputError, match="96x72"):
        card.resolve()


@pytest.mark.parametrize("vae", [{"_class_name": "NoSuchVae"}, WAN_VAE | {"scale_factor_spatial": "16"}, "{"])
def test_damaged_vae_config(tmp_path: Path, vae: object) -> None:
    with pytest.raises(GeneratorError):
        card_of(pipeline_folder(tmp_path, vae=vae))


@pytest.mark.parametrize("text", ["", "192", "192x", "axb", "1000000x2", "-32x32", "32x32x32"])
def test_not_a_size(text: str) -> None:
    with pytest.raises(InputError):
        parse_size(text)


def test_sizes_are_width_first() -> None:
    assert parse_size(" 256X192 ") == (256, 192)


# --- names ---------------------------------------------------------------------------------------------------------


def test_unknown_name() -> None:
    with pytest.raises(InputError, match="no model") as caught:
        resolve("no-such-model")
    assert "tiny" in caught.value.remedy


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        resolve(str(tmp_path / "absent"))


def test_file_instead_of_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is a file"):
        resolve(str(path))


def test_folder_without_model_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model_index"):
        resolve(str(tmp_path))


def test_pipeline_with_code_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="code of its own"):
        resolve(str(pipeline_folder(tmp_path, index={"_class_name": ["pipeline", "MyPipeline"]})))


def test_hub_model_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(GeneratorError, match="model hub") as caught:
        resolve("safegen-tests/no-such-model")
    assert "tiny" in caught.value.remedy


def test_facts_follow_the_contents_and_hide_the_path(tmp_path: Path) -> None:
    first = model_facts(resolve(str(pipeline_folder(tmp_path / "a" / "mine"))))
    same = model_facts(resolve(str(pipeline_folder(tmp_path / "b" / "mine"))))
    other = model_facts(resolve(str(pipeline_folder(tmp_path / "c" / "mine", card={"fps": 12, "call": GOOD_CALL}))))
    assert first == same
    assert first["id"] == "path:mine"
    assert first["version"] != other["version"]
    assert str(tmp_path) not in json.dumps(first)


def test_embedded_model_has_a_licence_and_a_vae() -> None:
    ref = resolve("tiny")
    assert model_facts(ref)["license"] == "Apache-2.0"
    assert (vae_folder(ref) / "config.json").is_file()


def test_vae_folder_of_a_model_without_one(tmp_path: Path) -> None:
    folder = pipeline_folder(tmp_path)
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(GeneratorError, match="vae"):
        vae_folder(resolve(str(folder)))


PICKLES = {
    "pickle": {"weight_map": {"a": "model-1.safetensors", "b": "pytorch_model.bin"}},
    "torch": {"weight_map": {"a": "model.pt"}},
    "elsewhere": {"weight_map": {"a": "../../model.safetensors"}},
    "absolute": {"weight_map": {"a": "/tmp/model.safetensors"}},
    "other_separators": {"weight_map": {"a": "..\\model.safetensors"}},
    "no_names": {"weight_map": {"a": 3}},
    "no_map": {},
}


@pytest.mark.parametrize("index", PICKLES.values(), ids=PICKLES)
@pytest.mark.parametrize("name", ["model.safetensors.index.json", "model.safetensors.index.fp16.json"])
def test_an_index_that_leads_to_a_pickle_is_refused_before_anything_is_loaded(
    tmp_path: Path, index: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = resolve(str(pipeline_folder(tmp_path)))
    (tmp_path / "vae" / name).write_text(json.dumps(index))
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("a pickle was loaded"))
    for attempt in (lambda: load(ref), lambda: vae_folder(ref)):
        with pytest.raises(GeneratorError, match=r"no safetensors file|JSON"):
            attempt()


def test_an_index_of_safetensors_is_no_offence(tmp_path: Path) -> None:
    ref = resolve(str(pipeline_folder(tmp_path)))
    (tmp_path / "vae" / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    (tmp_path / "vae" / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model.bin"}}')
    assert vae_folder(ref) == tmp_path / "vae"


def test_the_version_covers_every_file_that_is_loaded(tmp_path: Path) -> None:
    ref = resolve(str(pipeline_folder(tmp_path)))
    before = model_facts(ref)["version"]
    for name in ("tokenizer/merges.txt", "tokenizer/spiece.model", "vae/diffusion_pytorch_model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
        after = model_facts(ref)["version"]
        assert after != before, name
        before = after
    (tmp_path / "README.md").write_text("words")
    assert model_facts(ref)["version"] == before
