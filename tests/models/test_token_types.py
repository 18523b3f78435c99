"""Segments of a pair of texts: numbered for the models that have an embedding for each, and for no others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import CPU, GPT2, SMALL, word_piece
from transformers.models.bert import BertConfig, BertForMaskedLM
from transformers.models.ctrl import CTRLConfig, CTRLLMHeadModel
from transformers.models.distilbert import DistilBertConfig, DistilBertForMaskedLM
from transformers.models.gpt2 import GPT2Config, GPT2LMHeadModel
from transformers.models.roberta import RobertaConfig, RobertaForMaskedLM
from transformers.models.xlnet import XLNetConfig, XLNetLMHeadModel

from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import FrozenText, load_text_backbone
from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.tasks.tokenization import encode_examples

DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "initializer_range": 0.3}
CTRL = {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 48, "n_positions": 64, "initializer_range": 0.3}
XLNET = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "initializer_range": 0.3}
# Each with BERT's tokenizer, which gives the types 0 and 1: the model, its sizes, and whether it reads them.
MODELS: dict[str, tuple[Any, Any, dict[str, Any], bool]] = {
    "bert": (BertConfig, BertForMaskedLM, SMALL, True),
    "bert_one_type": (BertConfig, BertForMaskedLM, SMALL | {"type_vocab_size": 1}, False),
    "roberta": (RobertaConfig, RobertaForMaskedLM, SMALL | {"type_vocab_size": 1}, False),
    "gpt2": (GPT2Config, GPT2LMHeadModel, GPT2, False),
    "ctrl": (CTRLConfig, CTRLLMHeadModel, CTRL, False),
    "distilbert": (DistilBertConfig, DistilBertForMaskedLM, DISTILBERT, False),
    "xlnet": (XLNetConfig, XLNetLMHeadModel, XLNET, True),
}
PAIRS = (("the film was good", "a very slow scene"), ("bad", "so long"))


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[FrozenText, TextBatch, bool]:
    """A loaded model, a batch of pairs, and whether the model reads their types."""
    config, model, sizes, reads = MODELS[request.param]
    torch.manual_seed(7)
    model(config(vocab_size=len(word_piece()), pad_token_id=0, **sizes)).save_pretrained(tmp_path)
    word_piece().save_pretrained(tmp_path)
    backbone = load_text_backbone(TextBackbone(str(tmp_path)), False, CPU)
    encoded = encode_examples(backbone.tokenizer, [Example((pair,), 0) for pair in PAIRS], 40)
    return backbone, encoded.batch([range(len(PAIRS))], CPU), reads


@torch.no_grad()
def test_a_pair_has_the_states_of_the_models_own_forward_pass(case: tuple[FrozenText, TextBatch, bool]) -> None:
    backbone, batch, reads = case
    assert batch.types is not None
    assert batch.types.max() == 1
    ids = torch.tensor([20, 21, 22])
    states = backbone.hidden(backbone.vocabulary[ids][None], batch)[0]
    for row in range(len(PAIRS)):
        real = batch.mask[0, row].bool()
        inputs = {"input_ids": torch.cat([ids, batch.tokens[0, row, real]])[None]}
        types = torch.cat([torch.zeros_like(ids), batch.types[0, row, real]])[None]
        found = states[row, : len(ids) + int(real.sum())]
        with_types = {**inputs, "token_type_ids": types} if reads else inputs
        expected = backbone.base(**with_types).last_hidden_state[0]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        if reads:
            assert (backbone.base(**inputs).last_hidden_state[0] - found).abs().max() > 1e-2
