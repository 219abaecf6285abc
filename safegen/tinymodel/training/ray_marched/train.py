"""Train the embedded text-to-video model (VAE, denoiser, text encoder) on procedural scenes, from nothing.

    python -m safegen.tinymodel.training.ray_marched.train --out OUT                 # a GPU, about 24 minutes
    python -m safegen.tinymodel.training.ray_marched.train --out OUT --preset cpu    # 2 cores, about 4 hours

Stages, each kept in OUT, so that a stopped run goes on where it was:
tokenizer -> rendered clips -> VAE -> latents -> denoiser on stills, then on clips -> OUT/pipe, with card.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from safegen.tinymodel.training import parts
from safegen.tinymodel.training.ray_marched import scenes, world
from safegen.tinymodel.training.ray_marched.presets import PRESETS, Preset, Run
from safegen.tinymodel.training.ray_marched.train_dit import Captioned, tokens, train_dit
from safegen.tinymodel.training.ray_marched.train_vae import to_video, train_vae
from safegen.watermark import fastvae

# Imported where they are used: diffusers.

_CLIP_SEED, _MORE_SEED, _STILL_SEED, _TEXT_SEED = 0, 10**7, 10**5, 10**6
_TOKENIZER_LINES = 20_000
_MOMENTS = 4  # of each scene, every one a still
_CALL = {"num_inference_steps": 20, "guidance_scale": 3.0}
_FPS = 16


def train(preset: Preset, out: Path, *, vae: str = "", init: str = "", init_done: float = 0.35) -> Path:
    """Run all stages that ``out`` does not hold yet and return the pipeline's folder.

    ``vae`` is a trained VAE's diffusers folder: its stage is skipped. ``init`` is a pipeline folder whose denoiser and
    text encoder the training goes on from (with the tokenizer that these scenes give), ``init_done`` of the budget
    counted as spent.
    """
    run = Run.start(preset, out)
    tokenizer = parts.make_tokenizer(world.captions(_TOKENIZER_LINES, _TEXT_SEED, plain=preset.plain))
    run.log(f"tokenizer of {len(tokenizer)} tokens")
    clips, words = draw_clips(run)
    trained = train_vae(run, clips, vae)
    latents = encode_all(run, trained, clips, words)
    del clips
    mean, std = latents.clips.float().mean((0, 2, 3, 4)), latents.clips.float().std((0, 2, 3, 4))
    captioned = [
        Captioned(_normalised(values, mean, std), *tokens(tokenizer, lines, run.device))
        for values, lines in ((latents.clips, latents.words), (latents.stills, latents.still_words))
    ]
    text = parts.make_text_encoder(len(tokenizer)).to(run.device)
    dit = parts.make_dit(preset.layers).to(run.device)
    nothing = tokens(tokenizer, [""], run.device)
    train_dit(run, dit, text, nothing, captioned[0], captioned[1], init, init_done)
    final = parts.make_vae(mean.tolist(), std.tolist())
    final.load_state_dict(trained.state_dict())
    return save_pipeline(run, tokenizer, text, final, dit)


def _drawn(run: Run, count: int, frames: int, seed: int, batch: int) -> Iterator[tuple[Tensor, list[str]]]:
    """Yield (uint8 [B, T, S, S, 4], captions) until ``count`` videos are drawn."""
    done = 0
    while done < count:
        video, words = scenes.render(
            batch, frames=frames, size=run.preset.size, seed=seed, device=run.device, plain=run.preset.plain
        )
        yield video, words
        done, seed = done + len(words), seed + 1


def draw_clips(run: Run) -> tuple[Tensor, list[str]]:
    """Return the clips that the VAE learns from, uint8 [N, T, S, S, 4], and their captions."""
    preset = run.preset
    if run.kept("clips.pt").exists():
        clips, words = torch.load(run.kept("clips.pt"), map_location=run.device)
    else:
        shape = (preset.clips + preset.render_batch, preset.frames, preset.size, preset.size, 4)
        clips, words = torch.empty(shape, dtype=torch.uint8, device=run.device), []
        for video, lines in _drawn(run, preset.clips, preset.frames, _CLIP_SEED, preset.render_batch):
            clips[len(words) : len(words) + len(lines)] = video
            words += lines
        clips = clips[: len(words)]
        if preset.keep_clips:
            run.save((clips, words), "clips.pt")
    run.log(f"clips {tuple(clips.shape)}")
    return clips, words


@dataclasses.dataclass(frozen=True, slots=True)
class Latents:
    """Raw latents in float16, [N, 48, T, H, W], of clips and of stills, and their captions."""

    clips: Tensor
    stills: Tensor
    words: list[str]
    still_words: list[str]


def _both_ways(run: Run, vae: Any, batches: Iterable[tuple[Tensor, list[str]]]) -> tuple[Tensor, list[str]]:
    """Encode clips and their mirror images: few clips are learnt by heart, many are understood."""
    latents, lines = [], []
    for video, words in batches:
        latents += [_encode(run, vae, video), _encode(run, vae, video.flip(-2))]
        lines += words + [world.mirrored(w) for w in words]
    return torch.cat(latents), lines


@torch.no_grad()
def _encode(run: Run, vae: Any, video: Tensor) -> Tensor:
    with run.amp():  # this VAE's latents are raw: its own mean and deviation are not known yet
        return fastvae.encode(vae, to_video(video)).half()


def encode_all(run: Run, vae: Any, clips: Tensor, words: list[str]) -> Latents:
    """Return the latents of all that the denoiser learns from: ``clips``, more clips, and stills."""
    preset = run.preset
    if run.kept("latents.pt").exists():
        found = Latents(*torch.load(run.kept("latents.pt"), map_location=run.device))
    else:
        b = preset.render_batch
        own = ((clips[i : i + b], words[i : i + b]) for i in range(0, len(clips), b))
        more = _drawn(run, preset.more_clips, preset.frames, _MORE_SEED, b)
        first, second = _both_ways(run, vae, own), _both_ways(run, vae, more)
        stills, still_words = [], []
        for video, lines in _drawn(run, preset.stills // _MOMENTS, _MOMENTS, _STILL_SEED, preset.still_scenes):
            stills.append(_encode(run, vae, video.flatten(0, 1).unsqueeze(1)))
            still_words += [line for line in lines for _ in range(_MOMENTS)]
        found = Latents(torch.cat([first[0], second[0]]), torch.cat(stills), first[1] + second[1], still_words)
        run.save((found.clips, found.stills, found.words, found.still_words), "latents.pt")
    run.log(f"latents {tuple(found.clips.shape)} stills {tuple(found.stills.shape)}")
    return found


def _normalised(latents: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return ((latents.float() - mean.view(1, -1, 1, 1, 1)) / std.view(1, -1, 1, 1, 1)).half()


def save_pipeline(run: Run, tokenizer: Any, text: Any, vae: Any, dit: Any) -> Path:
    """Write OUT/pipe in diffusers' format, float16, with its card, and return the folder."""
    from diffusers import UniPCMultistepScheduler, WanPipeline

    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=parts.SHIFT
    )
    pipe = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text.half(),
        vae=vae.half(),
        transformer=dit.half(),
        scheduler=scheduler,
        expand_timesteps=True,
    )
    folder = run.kept("pipe")
    pipe.save_pretrained(folder, max_shard_size="100MB")
    preset = run.preset
    shape = {"height": preset.size, "width": preset.size, "num_frames": preset.frames}
    card = {
        "name": "safegen-tiny",
        "license": "Apache-2.0",
        "fps": _FPS,
        "call": shape | _CALL | {"max_sequence_length": preset.text_length},
        "trained": dataclasses.asdict(preset),
    }
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", "utf-8")
    run.log(f"done: {folder}")
    return folder


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the pipeline and all that the stages keep")
    parser.add_argument("--preset", choices=PRESETS, default="gpu")
    parser.add_argument("--vae", default="", help="a trained VAE (diffusers folder): its stage is skipped")
    parser.add_argument("--init", default="", help="a trained pipeline folder to go on from")
    parser.add_argument("--init-done", type=float, default=0.35, help="share of the budget that --init counts as spent")
    for name, value in dataclasses.asdict(PRESETS["gpu"]).items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=None)
        else:
            parser.add_argument(option, type=type(value))
    given = vars(parser.parse_args(arguments))
    names = [f.name for f in dataclasses.fields(Preset)]
    changes = {n: given[n] for n in names if given[n] is not None}
    preset = dataclasses.replace(PRESETS[given["preset"]], **changes)
    train(preset, given["out"], vae=given["vae"], init=given["init"], init_done=given["init_done"])


if __name__ == "__main__":
    main()
