"""The stages' results put together: a diffusers pipeline folder with its card.

python -m safegen.tinymodel.training.assemble OUT --vae VAE --text TEXT --dit DIT
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from safegen.tinymodel.training import text
from safegen.tinymodel.training.parts import SHIFT, TEXT_TOKENS, make_dit
from safegen.tinymodel.training.run import restore
from safegen.tinymodel.training.vae import FRAMES, SIZE
from safegen.tinymodel.training.world import KINDS

# Imported where they are used: diffusers.

_CALL = {"num_inference_steps": 16, "guidance_scale": 3.0}
_FPS = 16


def assemble(out: Path, vae: Path, words: Path, dit: Path) -> Path:
    """Write the pipeline folder ``out``, float16, of the stages' folders; return it. ``vae`` may be a pipeline's."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline

    kept = torch.load(dit / "dit.pt", map_location="cpu", weights_only=True)
    model = make_dit()
    restore(list(model.parameters()), kept["average"])
    encoder, tokenizer = text.load(words)
    scheduler = UniPCMultistepScheduler(
        prediction_type="sample", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=SHIFT
    )
    pipe = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder.half(),
        vae=AutoencoderKLWan.from_pretrained(vae / "vae", torch_dtype=torch.float16),
        transformer=model.half(),
        scheduler=scheduler,
        expand_timesteps=True,
    )
    pipe.save_pretrained(out, max_shard_size="100MB")
    shutil.copytree(vae / "vae", out / "vae", dirs_exist_ok=True)  # byte for byte: profiles and marks name its digest
    shape = {"height": SIZE, "width": SIZE, "num_frames": FRAMES}
    card = {
        "name": "safegen-tiny",
        "license": "Apache-2.0",
        "fps": _FPS,
        "call": shape | _CALL | {"max_sequence_length": TEXT_TOKENS},
        "vocabulary": {aspect: list(kinds) for aspect, kinds in KINDS.items()},
        "trained": {"dit_steps": kept["step"], "dit_processor_seconds": round(kept["seconds"])},
    }
    (out / "card.json").write_text(json.dumps(card, indent=1) + "\n", "utf-8")
    return out


def main() -> None:
    """Parse the command line and assemble."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    for name in ("vae", "text", "dit"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    assemble(given.out, given.vae, given.text, given.dit)


if __name__ == "__main__":
    main()
