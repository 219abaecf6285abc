"""The diffusers-free encoder against diffusers' own chunked encode, for both generations of Wan VAEs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from safegen.errors import WatermarkError
from safegen.generators import resolve, vae_folder
from safegen.watermark import fastvae
from safegen.watermark.wan_encoder import WanEncoder

WAN_21 = {
    "base_dim": 8, "z_dim": 4, "dim_mult": [1, 2, 2], "num_res_blocks": 2, "temperal_downsample": [False, True],
    "latents_mean": [0.1] * 4, "latents_std": [2.0] * 4, "scale_factor_spatial": 4,
}  # fmt: skip
WAN_22 = WAN_21 | {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "decoder_base_dim": 8}


@pytest.mark.parametrize("config", [WAN_21, WAN_22], ids=["wan21", "wan22"])
@pytest.mark.parametrize("frames", [1, 9])
def test_same_latents_as_diffusers(config: dict, frames: int, tmp_path: Path) -> None:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    vae = AutoencoderKLWan(**config).eval()
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    vae.save_pretrained(tmp_path)
    video = torch.rand(2, 3, frames, 32, 48) * 2 - 1
    with torch.no_grad():
        expected = vae.encode(video).latent_dist.parameters
        found = WanEncoder.load(tmp_path).moments(video)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_embedded_model_reads_alike_both_ways() -> None:
    folder = vae_folder(resolve("tiny"))
    video = torch.rand(1, 3, 5, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        light, full = (fastvae.encode(v, video) for v in (fastvae.load_reader(folder), fastvae.load_vae(folder)))
    assert float((light - full).abs().max()) < 0.02 * float(full.std())


@pytest.mark.slow
def test_reading_needs_no_diffusers() -> None:
    code = """
import sys
from safegen.generators import resolve, vae_folder
from safegen.watermark.schemes import make_extractor
import numpy as np
make_extractor(vae=vae_folder(resolve("tiny"))).extract_frames(np.zeros((5, 192, 192, 3), np.uint8), bytes(32))
assert "diffusers" not in sys.modules and "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("defect", ["no_weights", "weights_cut_short", "config_no_json", "tensor_missing"])
def test_damaged_folders(defect: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = vae_folder(resolve("tiny"))
    weights, config = tmp_path / "diffusion_pytorch_model.safetensors", tmp_path / "config.json"
    source = folder / weights.name
    config.write_bytes((folder / "config.json").read_bytes())
    match defect:
        case "weights_cut_short":
            weights.write_bytes(source.read_bytes()[:1000])
        case "config_no_json":
            weights.write_bytes(source.read_bytes())
            config.write_text(json.dumps({"_class_name": "AutoencoderKLWan"})[:-3])
        case "tensor_missing":
            tensors = load_file(source)
            del tensors["encoder.conv_in.weight"]
            save_file(tensors, weights)
    with pytest.raises(WatermarkError):
        fastvae.encode(fastvae.load_reader(tmp_path), torch.zeros(1, 3, 5, 32, 32))
