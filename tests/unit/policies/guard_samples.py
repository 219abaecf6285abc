"""Small guard models, made on the spot and saved as real ones are: each says one answer, whatever it is asked.

A byte-level tokenizer, a chat template in the family's format, and a causal model whose weights are set so that every
token leads to one other: the answer comes out of ``generate`` as it would from a trained model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

LLAMA_TEMPLATE = (
    "<|begin|>Task: Check if there is unsafe content.\n<BEGIN CONVERSATION>\n"
    "{% for m in messages %}User: {{ m['content'] }}{% endfor %}\n<END CONVERSATION>\n<|answer|>"
)
PARTS_TEMPLATE = (
    "<|begin|>{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}<|answer|>"
)
SHIELD_TEMPLATE = (
    "<|begin|>Human Question: {{ messages[0]['content'] }}\nOur safety principle: {{ guideline }}\n<|answer|>"
)
GRANITE_TEMPLATE = (
    "<|begin|>Risk: {{ guardian_config['risk_name'] }}\nUser Message: {{ messages[0]['content'] }}\n<|answer|>"
)


def save_tokenizer(folder: Path, words: list[str], template: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens(words)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|begin|>", eos_token="<|end|>", additional_special_tokens=["<|answer|>"]
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_guard(
    folder: Path, answer: str, template: str | None = LLAMA_TEMPLATE, *, config: str = "llama", yes: float | None = None
) -> Path:
    """Save a model that answers with ``answer``; with ``yes``, one whose next token is Yes at those odds against No."""
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = save_tokenizer(folder, [answer] if yes is None else ["Yes", "No"], template)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "max_position_embeddings": 2048, "vocab_size": len(tokenizer),
            "tie_word_embeddings": False}  # fmt: skip
    made = {"llama": transformers.LlamaConfig, "qwen3": transformers.Qwen3Config, "gemma2": transformers.Gemma2Config,
            "granite": transformers.GraniteConfig}  # fmt: skip
    if config == "llama4":
        model = _llama4(size)
    else:
        extra = {"head_dim": 8} if config in ("qwen3", "gemma2") else {}
        model = transformers.AutoModelForCausalLM.from_config(made[config](**size, **extra))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                weight.zero_()  # attention and MLP add nothing: a token's own embedding decides what follows
        head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        head.zero_()
        start, end = tokenizer.convert_tokens_to_ids(["<|answer|>", "<|end|>"])
        scale = 20.0 / embedding.norm(dim=1).pow(2)
        if yes is None:
            said = tokenizer.convert_tokens_to_ids(answer)
            head[said] = embedding[start] * scale[start]
            head[end] = embedding[said] * scale[said]
        else:
            import math

            hidden = model.model(torch.tensor([[start]])).last_hidden_state[0, 0]
            head[tokenizer.convert_tokens_to_ids("Yes")] = hidden / hidden.norm().pow(2) * math.log(yes / (1 - yes))
    model.generation_config.eos_token_id = end
    model.save_pretrained(folder)
    return folder


def _llama4(size: dict[str, Any]) -> Any:
    """Llama Guard 4 is a model that also sees; its config holds one for the words and one for the pictures."""
    import transformers

    words = transformers.Llama4TextConfig(
        **size, head_dim=8, intermediate_size_mlp=16, num_local_experts=1, num_experts_per_tok=1, moe_layers=[],
        pad_token_id=0,
    )  # fmt: skip
    pictures = transformers.Llama4VisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vision_output_dim=16,
        image_size=28, patch_size=14, projector_input_dim=16, projector_output_dim=16,
    )  # fmt: skip
    config = transformers.Llama4Config(text_config=words, vision_config=pictures)
    return transformers.Llama4ForConditionalGeneration(config)
