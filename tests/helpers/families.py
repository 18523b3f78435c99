"""Tiny random models of every family of text models in transformers, from their configurations' own defaults."""

import re
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from helpers.tiny_models import word_piece
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
)

from llm_catalyst.models.backbones.compatibility import check_backbone, refuse_family
from llm_catalyst.models.backbones.config import Kind, TextBackbone
from llm_catalyst.models.backbones.text import FrozenText
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.utils.validation import ConfigurationError

WIDTHS = (
    "hidden_size",
    "d_model",
    "n_embd",
    "embed_dim",
    "emb_dim",
    "dim",
    "embedding_size",
    "embedding_dim",
    "word_embed_proj_dim",
)
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
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8, "mamba_dt_rank": 8}
PER_LAYER = {"vocab_size_per_layer_input": 96, "hidden_size_per_layer_input": 8}
ROPE = {"rope_type": "default", "rope_theta": 1e4}
ZAMBA = {"attention_hidden_size": 64, "attention_head_dim": 16, "n_mamba_heads": 2, "mamba_d_state": 8}
OWN: dict[str, dict[str, Any]] = {
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 16},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "dbrx": {
        "attn_config": {"rope_theta": 1e4, "kv_n_heads": 1, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 1},
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note": {"per_layer_config": {}},
    "dots3_note_text": {
        "per_layer_config": {},
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        **RANKS,
        "head_dim": 16,
        "index_n_heads": 4,
        "index_head_dim": 16,
        "shared_experts_intermediate_size": 32,
    },
    "gemma3n_text": {
        **PER_LAYER,
        "num_kv_shared_layers": 0,
        "laurel_rank": 8,
        "intermediate_size": [64, 64],
        "activation_sparsity_pattern": [0.0, 0.0],
    },
    "gemma4_text": {**PER_LAYER, "per_layer_config": {}, "head_dim": 8, "num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {
        **MAMBA,
        "shared_intermediate_size": 32,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "jamba": {**MAMBA, "attn_layer_period": 2, "attn_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4, "visual_embed": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lilt": {"hidden_size": 48},
    "emu3": {"vocabulary_map": {"<image>": 95}},
    "longformer": {"attention_window": [4, 4], "max_position_embeddings": 65},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "mamba2": {"num_heads": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "mimo_v2_flash": {"head_dim": 24, "v_head_dim": 16, "num_key_value_heads": 2},
    "mistral4": {"head_dim": 16, "qk_head_dim": 16},
    "nemotron_h": {
        "ssm_state_size": 8,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "n_groups": 1,
        "chunk_size": 8,
        "moe_shared_expert_intermediate_size": 32,
        "layer_types": None,
        "num_hidden_layers": None,
    },
    "neomme": {"head_dim": 16, "per_layer_config": {}},
    "perceiver": {"d_latents": 32, "num_latents": 4, "num_self_attends_per_block": 1},
    "qwen4_exp_text": {
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "lru_width": 32},
    "reformer": {
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [16, 16],
        "attention_head_size": 8,
        "attn_layers": ["local", "lsh"],
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
    },
    "roc_bert": {"shape_vocab_size": 10, "pronunciation_vocab_size": 10},
    "xmod": {"default_language": "en_XX"},  # as the checkpoint's own config.json must have it
    "zamba": {**MAMBA, **ZAMBA, "layer_types": ["linear_attention", "hybrid", "hybrid"], "num_hidden_layers": 3},
    "zamba2": {
        **MAMBA,
        **ZAMBA,
        "layers_block_type": ["linear_attention", "hybrid"],
        "hybrid_layer_ids": [1],
        "mamba_headdim": 32,
        "adapter_rank": 8,
        "kv_channels": 8,
        "num_query_groups": 4,
        "chunk_size": 8,
    },
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}


def tiny_config(family: str, causal: bool = False) -> Any:
    """The configuration of a tiny model of that family; with `causal` of a decoder where it could be another."""
    config = shrink(CONFIG_MAPPING[family])
    if causal and family in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_encoder_decoder:
        config.is_decoder = True
    return config


def shrink(kind: Any) -> Any:
    """The default configuration of that class, and those in it, with small sizes."""
    default = kind()
    values = known(default)
    keys: dict[str, Any] = {name: size for name, size in SMALL.items() if name in values}
    marks = [name for name, value in values.items() if name.endswith(("_token_id", "_token_index")) and is_large(value)]
    keys |= {name: SMALL["vocab_size"] - 1 - i for i, name in enumerate(marks)}
    for name in getattr(kind, "sub_configs", {}):
        if (own := getattr(default, name, None)) is not None:
            keys[name] = shrink(type(own))
    if types := values.get("layer_types"):
        keys["layer_types"] = [*dict.fromkeys(types)][:2] if len(set(types)) > 1 else types[:2]
    keys = {name: value for name, value in (keys | OWN.get(kind.model_type, {})).items() if value is not None}
    while True:
        try:
            return kind(**keys)
        except AttributeError as error:
            if (fixed := re.search(r"property '(\w+)' of", str(error))) is None or fixed[1] not in keys:
                raise
            del keys[fixed[1]]


def is_large(token: Any) -> bool:
    return isinstance(token, int) and token >= SMALL["vocab_size"]


def known(config: Any) -> dict[str, Any]:
    """The configuration's values, those behind other names for them among them."""
    found = dict(vars(config))
    for name, other in config.attribute_map.items():
        if other in found:
            found[name] = found[other]
    return found


MASKED, CAUSAL = dict(MODEL_FOR_MASKED_LM_MAPPING_NAMES), dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
CLASSIFYING = (*MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, *MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES)
# Families with a head for texts that are neither masked nor causal language models.
ENCODERS = [name for name in dict.fromkeys(CLASSIFYING) if name not in MASKED and name not in CAUSAL]
KINDS: dict[Kind, tuple[dict[str, Any], Any]] = {
    "masked_lm": (MASKED, AutoModelForMaskedLM),
    "causal_lm": (CAUSAL, AutoModelForCausalLM),
    "encoder": (dict.fromkeys(ENCODERS), AutoModel),
}
LARGEST = 20_000_000  # parameters of a tiny model


@dataclass(frozen=True)
class Outcome:
    """The outcome for one family: `served`, `refused` by a message, `not tried` for a reason, or `wrong`."""

    kind: Kind
    family: str
    state: str
    why: str = ""
    by_length: bool = False  # its states depend on the padding, as those of the model itself do
    decoder: bool = False  # its base model has a decoder, which a head may call in its place


def build(auto: Any, config: Any) -> Any:
    """A model whose weights are all random, and large enough to tell right from wrong."""
    torch.manual_seed(0)
    with torch.device("meta"):
        size = sum(weight.numel() for weight in auto.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size:,} parameters with the sizes that are known here")
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.3 + (weight if weight.dim() == 1 else 0.0))
    return model


def ask_model(backbone: FrozenText, ids: Tensor, mask: Tensor | None = None, logits: bool = False) -> Tensor:
    """Hidden states (r, s, h), or logits (r, s, v), that the model itself computes from ids (r, s)."""
    extra = {"use_cache": False} if backbone.causal else {}
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids) if mask is None else mask, **extra}
    with torch.no_grad():
        return backbone.model(**inputs).logits if logits else backbone.base(**inputs).last_hidden_state


def try_family(kind: Kind, family: str) -> Outcome:
    """Build a tiny model of the family, and have it served or refused. AssertionError where numbers are wrong."""
    auto = KINDS[kind][1]
    try:
        config = tiny_config(family, kind == "causal_lm")
        if config.is_encoder_decoder:
            with pytest.raises(ConfigurationError, match=r"is an encoder-decoder") as refused:
                refuse_family(family, config)
            return Outcome(kind, family, "refused", str(refused.value))
        model = build(auto, config)
    except Exception as error:  # whatever a class of configurations or models raises
        return Outcome(kind, family, "not tried", shorten(error))
    backbone = FrozenText(TextBackbone(name=family, kind=kind), model, word_piece())
    if error := refusal_of(backbone, kind != "encoder"):
        return Outcome(kind, family, *explain_refusal(backbone, error))
    by_length = check_served(backbone, kind != "encoder")
    assert bool(check_backbone(backbone, kind != "encoder")) == by_length  # and the user is warned of it
    if kind != "encoder" and type(backbone.base).__name__ not in MODEL_MAPPING_NAMES.get(family, ()):
        try:
            other = build(AutoModel, config)  # what head=classifier loads
        except Exception as error:
            return Outcome(kind, family, "served", f"its base model is not tried: {shorten(error)}", by_length)
        check_served(FrozenText(backbone.settings, other, word_piece()), False)
    return Outcome(kind, family, "served", "", by_length, hasattr(backbone.base, "decoder"))


def refusal_of(backbone: FrozenText, words: bool) -> ConfigurationError | None:
    """The error of the check that every model passes through, which names the model and its family."""
    try:
        check_backbone(backbone, words)
    except ConfigurationError as error:
        return error
    return None


def explain_refusal(backbone: FrozenText, error: Exception) -> tuple[str, str]:
    """Refused, or not tried where the tiny model cannot even read ids: then its sizes are at fault."""
    try:
        ask_model(backbone, torch.arange(5, 14)[None], logits=hasattr(backbone.model, "lm_head"))
    except TypeError:
        pass  # its forward pass takes no ids
    except Exception as own:
        return "not tried", shorten(own)
    return "refused", str(error)


def check_served(backbone: FrozenText, words: bool) -> bool:
    """Compare a family's states and logits with those of its own forward pass; whether they depend on padding."""
    torch.manual_seed(1)
    mask_id, pad = backbone.tokenizer.mask_token_id, backbone.tokenizer.pad_token_id
    prompt, long, short = torch.randperm(60)[:12].add(10).split([3, 6, 3])
    texts = torch.full((2, 7), pad)
    texts[0], texts[1, :4] = torch.cat([long, torch.tensor([mask_id])]), torch.cat([short, torch.tensor([mask_id])])
    real = (texts != pad).long()
    batch = TextBatch(texts[None], real[None], None, torch.zeros(1, 2, dtype=torch.long), 1)
    soft = backbone.vocabulary[prompt][None].clone().requires_grad_()
    states = backbone.hidden(soft, batch)[0]
    states.square().sum().backward()
    assert soft.grad is not None
    assert soft.grad.isfinite().all()
    assert soft.grad.abs().max() > 0
    ids = torch.cat([prompt.expand(2, 3), texts], 1)
    seen = torch.cat([torch.ones(2, 3, dtype=torch.long), real], 1)
    alone = [ask_model(backbone, row[keep.bool()][None])[0] for row, keep in zip(ids, seen, strict=True)]
    by_length = not is_close(states[1, :7], alone[1])
    assert is_close(states[0], alone[0])
    if by_length:
        assert is_close(states, ask_model(backbone, ids, seen))
    with torch.no_grad():
        other = backbone.hidden(soft.roll(1, 1), batch)[0]
        assert not is_close(other, states)  # so that these comparisons can tell
        if words:
            found = backbone.word_logits(soft, batch, torch.arange(96))[0]
            assert is_close(found[0], ask_model(backbone, ids[:1], logits=True)[0, -1, :96])
        if backbone.positions:
            most = torch.full((1, 1, backbone.positions - 3), 20)
            full = TextBatch(most, torch.ones_like(most), None, torch.zeros(1, 1, dtype=torch.long), 1)
            assert backbone.hidden(soft, full).isfinite().all()
    return by_length


def is_close(found: Tensor, expected: Tensor) -> bool:
    return bool(((found - expected).abs().max() <= 1e-3 * expected.abs().max()).item())


def shorten(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"


def try_all() -> list[Outcome]:
    """The outcome for every family, by kind."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, (families, _) in KINDS.items():
            for family in families:
                try:
                    found.append(try_family(kind, family))
                except Exception as error:
                    place = traceback.extract_tb(error.__traceback__)[-1]
                    found.append(Outcome(kind, family, "wrong", f"{shorten(error)} ({place.name}:{place.lineno})"))
    return found


def render_families(outcomes: Sequence[Outcome]) -> str:
    """The table of docs/guide.md."""

    def names(of: Callable[[Outcome], bool]) -> str:
        found = {each.family: each.family + "\\*" * each.by_length for each in outcomes if of(each)}
        return " ".join(found[name] for name in sorted(found))

    rows = {
        "masked language models": names(lambda each: each.state == "served" and each.kind == "masked_lm"),
        "causal language models": names(lambda each: each.state == "served" and each.kind == "causal_lm"),
        "encoders": names(lambda each: each.state == "served" and each.kind == "encoder"),
        "refused: encoder-decoders": names(lambda each: "an encoder-decoder" in each.why),
        "refused: others": names(lambda each: each.state == "refused" and "an encoder-decoder" not in each.why),
        "not tried": names(lambda each: each.state == "not tried"),
    }
    lines = [f"| transformers {transformers.__version__} | families |", "|---|---|"]
    return "\n".join([*lines, *(f"| {title} | {found} |" for title, found in rows.items())])
