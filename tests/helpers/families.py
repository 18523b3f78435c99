"""Tiny random models of every family of text models in transformers, from their configurations' own defaults."""

import re
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

WIDTHS = ("hidden_size", "d_model", "n_embd", "embed_dim", "emb_dim", "dim", "embedding_size", "word_embed_proj_dim")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads")
INNER = (
    "intermediate_size",
    "ffn_dim",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "n_inner",
    "hidden_dim",
    "d_ff",
    "dim_ff",
)
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts")
RANKS = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
SMALL: dict[str, int] = {
    **dict.fromkeys(WIDTHS, 32),
    **dict.fromkeys(LAYERS, 2),
    **dict.fromkeys((*HEADS, "num_key_value_heads"), 4),
    **dict.fromkeys(INNER, 64),
    **dict.fromkeys(POSITIONS, 64),
    **dict.fromkeys(EXPERTS, 4),
    **RANKS,
    "vocab_size": 96,
    "head_dim": 8,
    "rotary_dim": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "type_vocab_size": 2,
}
# What does not follow from the defaults: sizes that must fit one another in ways of a family's own.
OWN: dict[str, dict[str, Any]] = {}


def tiny_config(family: str) -> Any:
    """The configuration of a tiny model of that family."""
    return shrink(CONFIG_MAPPING[family])


def shrink(kind: Any) -> Any:
    """The default configuration of that class, and those in it, with small sizes."""
    default = kind()
    keys: dict[str, Any] = {name: size for name, size in SMALL.items() if name in known(default)}
    for name in getattr(kind, "sub_configs", {}):
        if (own := getattr(default, name, None)) is not None:
            keys[name] = shrink(type(own))
    if types := known(default).get("layer_types"):
        keys["layer_types"] = [*dict.fromkeys(types)][:2] if len(set(types)) > 1 else types[:2]
    keys |= OWN.get(kind.model_type, {})
    while True:
        try:
            return kind(**keys)
        except AttributeError as error:
            if (fixed := re.search(r"property '(\w+)' of", str(error))) is None or fixed[1] not in keys:
                raise
            del keys[fixed[1]]


def known(config: Any) -> dict[str, Any]:
    """The configuration's values, those behind other names for them among them."""
    found = dict(vars(config))
    for name, other in config.attribute_map.items():
        if other in found:
            found[name] = found[other]
    return found
