"""Families of transformers whose embeddings are more than a table, or whose head is more than a layer."""

from typing import Any

import pytest
import torch
from helpers.tiny_models import word_piece
from transformers.models.biogpt import BioGptConfig, BioGptForCausalLM
from transformers.models.distilbert import DistilBertConfig, DistilBertForMaskedLM
from transformers.models.gemma3 import Gemma3ForCausalLM, Gemma3TextConfig
from transformers.models.xglm import XGLMConfig, XGLMForCausalLM

from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import FrozenText
from llm_catalyst.tasks.batching import TextBatch

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
GEMMA = Gemma3TextConfig(**SIZES, num_key_value_heads=4, head_dim=8, intermediate_size=64, final_logit_softcapping=2.0)
XGLM = XGLMConfig(vocab_size=60, d_model=32, num_layers=2, attention_heads=4, ffn_dim=64, pad_token_id=0)
DISTILBERT = DistilBertConfig(vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
FAMILIES: dict[str, tuple[type[Any], Any, str]] = {
    "gemma3": (Gemma3ForCausalLM, GEMMA, "causal_lm"),
    "biogpt": (BioGptForCausalLM, BioGptConfig(**SIZES, intermediate_size=64), "causal_lm"),
    "xglm": (XGLMForCausalLM, XGLM, "causal_lm"),
    "distilbert": (DistilBertForMaskedLM, DISTILBERT, "masked_lm"),
}


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_prompt_of_tokens_and_its_logits_are_what_the_model_makes_of_these_tokens(family: str) -> None:
    torch.manual_seed(0)
    kind, config, name = FAMILIES[family]
    backbone = FrozenText(TextBackbone(name=family, kind=name), kind(config).eval(), word_piece())
    mask = backbone.tokenizer.mask_token_id
    ids = torch.tensor([[7, 8, 9, 10, 11, mask], [12, 13, 14, 15, 16, mask]])
    whole = backbone.model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    words = torch.tensor([20, 21, 22])
    for row in range(2):
        tokens = ids[row, 3:][None, None]
        batch = TextBatch(tokens, torch.ones_like(tokens), None, torch.zeros(1, 1, dtype=torch.long), 1)
        prompt = backbone.vocabulary[ids[row, :3]][None]
        torch.testing.assert_close(backbone.hidden(prompt, batch)[0, 0], whole.hidden_states[-1][row])
        torch.testing.assert_close(backbone.word_logits(prompt, batch, words)[0, 0], whole.logits[row, -1, words])
