"""One real pipeline of every family that the in-latent mark reaches, with tiny random weights and no text encoder.

``build(name)`` takes milliseconds and ``pipe(**call)`` about a second. Sizes are not square and batches hold two clips,
so that swapped axes show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

STEPS = 2


@dataclass(frozen=True)
class Case:
    """A pipeline, the arguments of a call (guidance on, two clips), and what its clip and latents must be."""

    pipe: Any
    call: dict[str, Any]
    clip: tuple[int, int, int]  # pixels: frames, height, width
    latents: tuple[int, int, int, int]  # unified, of one clip: channels, frames, height, width
    cell: int
    causal: bool = True  # the decoder looks at no later latent frame


def build(name: str, dtype: torch.dtype = torch.float32) -> Case:
    """Return the family's case, every run the same weights, in ``dtype``."""
    torch.manual_seed(0)
    case = BUILDERS[name]()
    case.pipe.set_progress_bar_config(disable=True)
    if dtype != torch.float32:
        case.pipe.to(dtype)
    for key, value in case.call.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            case.call[key] = value.to(dtype)
    case.call.update(num_inference_steps=STEPS, generator=torch.Generator().manual_seed(1))
    return case


def _call(clip: tuple[int, int, int], **arguments: Any) -> dict[str, Any]:
    frames, height, width = clip
    size = {"height": height, "width": width}
    return {**size, "num_frames": frames, **arguments} if frames > 1 else {**size, **arguments}


def _texts(width: int, *names: str, length: int = 5) -> dict[str, Any]:
    return {n: torch.randn(2, length, width) for n in names or ("prompt_embeds", "negative_prompt_embeds")}


def _masks() -> dict[str, Any]:
    names = ("prompt_attention_mask", "negative_prompt_attention_mask")
    return {n: torch.ones(2, 5, dtype=torch.bool) for n in names}


def _pooled(width: int) -> dict[str, Any]:
    return {n: torch.randn(2, width) for n in ("pooled_prompt_embeds", "negative_pooled_prompt_embeds")}


def _flow() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def _no_text(*numbers: str) -> dict[str, None]:
    return {f"{part}{n}": None for part in ("text_encoder", "tokenizer") for n in ("", *numbers)}


def _wan_transformer(channels: int) -> Any:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels,
        out_channels=channels,
        text_dim=16,
        freq_dim=32,
        ffn_dim=32,
        num_layers=1,
        rope_max_seq_len=32,
    )


def _wan_vae(channels: int = 16, **changes: Any) -> Any:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=4,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1 * i for i in range(channels)],
        latents_std=[1.0 + 0.1 * i for i in range(channels)],
        **changes,
    )


def wan21() -> Case:
    from diffusers import WanPipeline

    clip = (9, 48, 32)
    pipe = WanPipeline(**_no_text(), vae=_wan_vae(), transformer=_wan_transformer(16), scheduler=_flow())
    return Case(pipe, _call(clip, **_texts(16)), clip, (16, 3, 6, 4), 8)


def wan22() -> Case:
    """Two transformers: the second takes over below the boundary, here for the last of two steps."""
    from diffusers import WanPipeline

    clip = (9, 48, 32)
    pipe = WanPipeline(
        **_no_text(),
        vae=_wan_vae(),
        transformer=_wan_transformer(16),
        transformer_2=_wan_transformer(16),
        boundary_ratio=0.875,
        scheduler=_flow(),
    )
    return Case(pipe, _call(clip, **_texts(16), guidance_scale_2=2.0), clip, (16, 3, 6, 4), 8)


def wan22_ti2v() -> Case:
    from diffusers import WanPipeline

    clip = (9, 96, 64)
    vae = _wan_vae(
        is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16, decoder_base_dim=4
    )
    pipe = WanPipeline(
        **_no_text(), vae=vae, transformer=_wan_transformer(16), scheduler=_flow(), expand_timesteps=True
    )
    return Case(pipe, _call(clip, **_texts(16)), clip, (16, 3, 6, 4), 16)


def ltx(timestep_conditioning: bool = False) -> Case:
    from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel

    clip = (17, 96, 64)
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        timestep_conditioning=timestep_conditioning,
    )
    vae.latents_mean.copy_(0.1 * torch.arange(8))
    vae.latents_std.copy_(1 + 0.1 * torch.arange(8))
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=1,
        caption_channels=16,
    )
    pipe = LTXPipeline(**_no_text(), vae=vae, transformer=transformer, scheduler=_flow())
    return Case(pipe, _call(clip, **_texts(16), **_masks()), clip, (8, 3, 3, 2), 32, causal=False)


def ltx_timestep() -> Case:
    """LTX-Video 0.9.1 and later: the decoder is told a timestep and, by default, given no noise."""
    return ltx(timestep_conditioning=True)


def ltx_condition() -> Case:
    """A picture asked for at frame 8: its tokens go before the clip's, and the pipeline drops them. One clip alone."""
    from diffusers import LTXConditionPipeline
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
    from PIL import Image

    plain = ltx()
    pipe = LTXConditionPipeline(**plain.pipe.components)
    wanted = LTXVideoCondition(image=Image.linear_gradient("L").convert("RGB").resize((64, 96)), frame_index=8)
    call = {k: v[:1] if isinstance(v, torch.Tensor) else v for k, v in plain.call.items()}
    return replace(plain, pipe=pipe, call={**call, "conditions": [wanted]})


def _cogvideox(clip: tuple[int, int, int], latent_frames: int, **changes: Any) -> Case:
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline
    from diffusers import CogVideoXTransformer3DModel as Transformer

    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    transformer = Transformer(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=16,
        num_layers=1,
        sample_width=4,
        sample_height=6,
        sample_frames=9,
        patch_size=2,
        max_text_seq_length=5,
        **changes,
    )
    pipe = CogVideoXPipeline(**_no_text(), vae=vae, transformer=transformer, scheduler=CogVideoXDDIMScheduler())
    return Case(pipe, _call(clip, **_texts(16)), clip, (4, latent_frames, 6, 4), 8)


def cogvideox() -> Case:
    return _cogvideox((9, 48, 32), 3)


def cogvideox_even() -> Case:
    """Two latent frames decode to eight frames, not to five."""
    return _cogvideox((8, 48, 32), 2)


def cogvideox15() -> Case:
    """Patches of two latent frames: three are padded to four, and the pipeline drops the first."""
    return _cogvideox((9, 48, 32), 3, patch_size_t=2, patch_bias=False, use_rotary_positional_embeddings=True)


def hunyuan() -> Case:
    from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel

    clip = (9, 48, 32)
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=2,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    pipe = HunyuanVideoPipeline(**_no_text("_2"), vae=vae, transformer=transformer, scheduler=_flow())
    call = _call(clip, **_texts(16), **_pooled(8), **_masks(), true_cfg_scale=2.0)
    return Case(pipe, call, clip, (4, 3, 6, 4), 8)


def mochi() -> Case:
    from diffusers import (
        AutoencoderKLMochi,
        FlowMatchEulerDiscreteScheduler,
        MochiPipeline,
        MochiTransformer3DModel,
    )

    clip = (13, 48, 32)
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    transformer = MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        text_embed_dim=16,
        time_embed_dim=4,
        max_sequence_length=5,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    pipe = MochiPipeline(**_no_text(), vae=vae, transformer=transformer, scheduler=scheduler)
    return Case(pipe, _call(clip, **_texts(16), **_masks()), clip, (12, 3, 6, 4), 8)


def svd() -> Case:
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )
    from PIL import Image
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    clip = (3, 96, 64)
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4, latent_channels=4
    )
    unet = UNetSpatioTemporalConditionModel(
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        block_out_channels=(32, 32),
        layers_per_block=1,
        num_attention_heads=2,
        cross_attention_dim=16,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        sample_size=12,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        patch_size=56,
    )
    pipe = StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=CLIPVisionModelWithProjection(vision),
        unet=unet,
        scheduler=EulerDiscreteScheduler(prediction_type="v_prediction", use_karras_sigmas=True),
        feature_extractor=CLIPImageProcessor(),
    )
    pictures = [Image.linear_gradient("L").convert("RGB"), Image.radial_gradient("L").convert("RGB")]
    return Case(pipe, _call(clip, image=pictures), clip, (4, 3, 12, 8), 8, causal=False)


def _image_vae(channels: int = 4, **changes: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=4,
        **changes,
    )


def _unet(**changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        block_out_channels=(8, 8),
        layers_per_block=1,
        sample_size=6,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=16,
        norm_num_groups=2,
        **changes,
    )


def animatediff() -> Case:
    from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter

    clip = (3, 48, 32)
    adapter = MotionAdapter(
        block_out_channels=(8, 8), motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=2
    )
    pipe = AnimateDiffPipeline(
        **_no_text(), vae=_image_vae(), unet=_unet(), motion_adapter=adapter, scheduler=DDIMScheduler()
    )
    return Case(pipe, _call(clip, **_texts(16)), clip, (4, 3, 6, 4), 8)


def flux() -> Case:
    from diffusers import FluxPipeline, FluxTransformer2DModel

    clip = (1, 96, 64)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 4, 8),
    )
    vae = _image_vae(scaling_factor=0.3611, shift_factor=0.1159)
    pipe = FluxPipeline(**_no_text("_2"), vae=vae, transformer=transformer, scheduler=_flow())
    return Case(pipe, _call(clip, **_texts(16), **_pooled(8), true_cfg_scale=2.0), clip, (4, 1, 12, 8), 8)


def sd3() -> Case:
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    clip = (1, 96, 64)
    transformer = SD3Transformer2DModel(
        sample_size=6,
        in_channels=16,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=32,
        pooled_projection_dim=8,
        pos_embed_max_size=8,
    )
    vae = _image_vae(16, scaling_factor=1.5305, shift_factor=0.0609)
    pipe = StableDiffusion3Pipeline(**_no_text("_2", "_3"), vae=vae, transformer=transformer, scheduler=_flow())
    return Case(pipe, _call(clip, **_texts(16), **_pooled(8)), clip, (16, 1, 12, 8), 8)


def sdxl(**statistics: Any) -> Case:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    clip = (1, 96, 64)
    unet = _unet(addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=32)
    pipe = StableDiffusionXLPipeline(
        **_no_text("_2"),
        vae=_image_vae(scaling_factor=0.13025, **statistics),
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    )
    return Case(pipe, _call(clip, **_texts(16), **_pooled(8)), clip, (4, 1, 12, 8), 8)


def sdxl_statistics() -> Case:
    """Playground v2.5: means and deviations per channel, and a scaling factor as well."""
    return sdxl(latents_mean=[-1.6, 1.1, 0.2, 0.5], latents_std=[8.4, 5.9, 5.7, 4.8])


BUILDERS: dict[str, Callable[[], Case]] = {
    f.__name__: f
    for f in (
        wan21,
        wan22,
        wan22_ti2v,
        ltx,
        ltx_timestep,
        ltx_condition,
        cogvideox,
        cogvideox_even,
        cogvideox15,
        hunyuan,
        mochi,
        svd,
        animatediff,
        flux,
        sd3,
        sdxl,
        sdxl_statistics,
    )
}
