"""The parts of the embedded pipeline, untrained: Wan2.2-TI2V's architecture, small (arXiv:2503.20314)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

# Imported where they are used: diffusers, tokenizers, transformers.

Z = 48
"""Latent channels."""

SHIFT = 3.0
"""Timestep shift of the flow: more training and sampling where the noise is strong."""

TEXT_TOKENS = 64
"""Tokens of a caption in training; the pipeline pads to its own length with zeros."""


def make_vae(mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> Any:
    """Return an AutoencoderKLWan: 16 x in space, 4 x in time, 48 channels."""
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=24,
        decoder_base_dim=32,
        z_dim=Z,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        in_channels=12,
        out_channels=12,
        is_residual=True,
        patch_size=2,
        scale_factor_temporal=4,
        scale_factor_spatial=16,
        latents_mean=list(mean or [0.0] * Z),
        latents_std=list(std or [1.0] * Z),
    )


def make_dit(layers: int = 6) -> Any:
    """Return a WanTransformer3DModel, 256 wide."""
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=64,
        in_channels=Z,
        out_channels=Z,
        text_dim=256,
        freq_dim=256,
        ffn_dim=1024,
        num_layers=layers,
    )


def make_text_encoder(vocabulary: int) -> Any:
    """Return a UMT5 encoder of three layers."""
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocabulary,
            d_model=256,
            d_kv=32,
            d_ff=512,
            num_layers=3,
            num_heads=8,
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )


def make_tokenizer(lines: Iterable[str]) -> Any:
    """Return a byte-level BPE tokenizer learnt from ``lines``: lower case, at most 1536 tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106  # no password
    bpe.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1536,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(lines, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        model_max_length=512,
    )
