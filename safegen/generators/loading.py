"""Loading a diffusers pipeline: the right class for the task, the right device, dtype and memory layout."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from safegen.errors import GeneratorError, InputError
from safegen.generators.refs import ModelRef, check_weights, read_json

if TYPE_CHECKING:
    import torch

# Imported where they are used: diffusers, torch, transformers, and what loads them.

Mode = Literal["text", "image", "video"]

_SIBLINGS: dict[Mode, str] = {
    "text": "Pipeline",
    "image": "ImageToVideoPipeline",
    "video": "VideoToVideoPipeline",
}
_TAKES: dict[Mode, str] = {"text": "prompt", "image": "image", "video": "video"}


def task_of(pipe: Any) -> Mode:
    """What a loaded pipeline draws from, by its class's name; pipelines that a caller loaded have nothing else."""
    name = type(pipe).__name__
    for mode in _SIBLINGS:
        if mode != "text" and name.endswith(_SIBLINGS[mode]):
            return mode
    return "text"


def pipeline_class(ref: ModelRef, mode: Mode = "text") -> Any:
    """Return the diffusers class that serves ``mode`` with this model's parts; raises before any weights are read.

    diffusers names the tasks of one family alike (WanPipeline, WanImageToVideoPipeline, WanVideoToVideoPipeline); its
    AutoPipeline tables cover fewer families. InputError where the model draws no video, or not from this input.
    """
    with quiet():
        return _pipeline_class(ref, mode)


def _pipeline_class(ref: ModelRef, mode: Mode) -> Any:
    import diffusers

    own = getattr(diffusers, ref.pipeline, None)
    if not (inspect.isclass(own) and issubclass(own, diffusers.DiffusionPipeline)):
        raise GeneratorError(
            f"{ref.name} needs {ref.pipeline}, which diffusers {diffusers.__version__} does not have",
            remedy="Upgrade diffusers, or use another model.",
        )
    if "num_frames" not in inspect.signature(own.__call__).parameters and not ref.pipeline.endswith(_SIBLINGS["video"]):
        raise InputError(
            f"{ref.name} is no video pipeline: {ref.pipeline} takes no num_frames",
            remedy="safegen makes video; name a text-to-video pipeline.",
        )
    family = ref.pipeline
    for suffix in (_SIBLINGS["image"], _SIBLINGS["video"], _SIBLINGS["text"]):
        if family.endswith(suffix):
            family = family.removesuffix(suffix)
            break
    wanted = getattr(diffusers, family + _SIBLINGS[mode], None)
    if wanted is None or not {_TAKES[mode], "prompt"} <= inspect.signature(wanted.__call__).parameters.keys():
        raise InputError(
            f"{ref.name} ({ref.pipeline}) makes no video from {mode}: diffusers has no class for that",
            remedy="Start from something else, or use another model (Wan's family serves text, image and video).",
        )
    _check_trained_for(ref, mode, family)
    return wanted


def _check_trained_for(ref: ModelRef, mode: Mode, family: str) -> None:
    """Refuse what the family has a class for but these weights were not trained for."""
    if family != "Wan" or mode != "image":
        return
    expands = read_json(ref.configs / "model_index.json").get("expand_timesteps", False)
    latents, inputs = ref.config("vae").get("z_dim"), ref.config("transformer").get("in_channels")
    if not expands and latents is not None and latents == inputs:
        raise InputError(
            f"{ref.name} was not trained to start from an image",
            remedy="Generate from text, or use an image-to-video checkpoint of Wan.",
        )


def autocast(pipe: Any) -> contextlib.AbstractContextManager[Any]:
    """Return the context that ``pipe`` computes in: bfloat16 autocast on a CPU that has it natively, else nothing.

    Weights stay float32 on a CPU: half the time is won by autocast alone, and norms stay exact.
    """
    from safegen.watermark import fastvae

    return fastvae.autocast(pipe.vae) if getattr(pipe, "safegen_autocast", True) else contextlib.nullcontext()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars, hints about optional packages and our own use of deprecated names off the user's screen."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    logs = (diffusers_logging, transformers_logging)
    before = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch_dtype. is deprecated")  # `dtype` is too new for some
            warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")  # autocast's norms
            yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.set_verbosity(level)
            log.enable_progress_bar()


def load(
    ref: ModelRef,
    *,
    mode: Mode = "text",
    device: str | None = None,
    dtype: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Any:
    """Return the loaded diffusers pipeline of ``ref`` for ``mode``, in eval mode on ``device``.

    ``device``: "cuda" where there is one, else "cpu". ``dtype``: "auto", "float32", "bfloat16" or "float16"; auto is
    bfloat16 on a GPU that has it (float16 otherwise) with the VAE in float32, and float32 weights on a CPU, with
    bfloat16 autocast where that is native. Only safetensors weights are read, and no code that comes with a model.
    Raises InputError if the model cannot serve ``mode``, GeneratorError if it cannot be loaded.
    """
    wanted = pipeline_class(ref, mode)
    check_weights(ref)
    import torch
    from diffusers import DiffusionPipeline

    from safegen.watermark import fastvae

    target = torch.device(_device(device))
    say = progress or (lambda _: None)
    say(f"loading {ref.name} ({wanted.__name__}) on {target}")
    dtypes = _dtypes(target, dtype or "auto")
    try:
        with quiet():
            pipe = DiffusionPipeline.from_pretrained(
                ref.source,
                revision=ref.revision or None,
                torch_dtype=dtypes,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=ref.kind != "hub",
            )
            pipe = pipe if type(pipe) is wanted else _as_sibling(pipe, wanted)
            pipe = pipe.to(target)
    except Exception as error:  # safetensors, diffusers and transformers raise many unrelated types
        raise GeneratorError(
            f"cannot load {ref.name}: {error}",
            remedy="Save the pipeline again as safetensors; if memory ran out, use a smaller model or device.",
        ) from error
    pipe.set_progress_bar_config(disable=True)
    pipe.safegen_autocast = dtype in (None, "auto")
    fastvae.prepare(pipe.vae)
    return pipe


def _device(device: str | None) -> str:
    import torch

    if device in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("this machine has no usable CUDA device", remedy="Leave the device out, or name cpu.")
    try:
        torch.device(device)
    except RuntimeError as error:
        raise InputError(f"no such device: {device}", remedy="Name cpu, cuda or cuda:0.") from error
    return str(device)


def _dtypes(device: torch.device, dtype: str) -> Any:
    import torch

    if dtype == "auto":
        if device.type == "cpu":
            return torch.float32
        half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return {"default": half, "vae": torch.float32}  # decoding in half precision shows
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in named:
        raise InputError(f"no such dtype: {dtype}", remedy=f"Name auto, {', '.join(named)}.")
    return named[dtype]


def _as_sibling(pipe: Any, wanted: Any) -> Any:
    """Return a ``wanted`` pipeline of the same parts, without copying or casting them."""
    expected = inspect.signature(wanted.__init__).parameters
    parts = {n: part for n, part in pipe.components.items() if n in expected}
    options = {n: v for n, v in pipe.config.items() if n in expected and n not in parts}
    sibling = wanted(**parts, **options)
    vae = sibling.vae.config
    if wanted.__name__ == "WanVideoToVideoPipeline" and getattr(vae, "scale_factor_spatial", None):
        # It takes the stride from the number of blocks and forgets Wan 2.2's patches: 8 instead of 16.
        from diffusers.video_processor import VideoProcessor

        sibling.vae_scale_factor_spatial = vae.scale_factor_spatial
        sibling.vae_scale_factor_temporal = vae.scale_factor_temporal
        sibling.video_processor = VideoProcessor(vae_scale_factor=vae.scale_factor_spatial)
    return sibling
