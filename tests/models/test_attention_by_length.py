"""BigBird: long sequences have the sparse attention of its config.json whatever was read before."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import CPU, SMALL, word_piece
from torch import Tensor
from transformers import AutoModel
from transformers.models.big_bird import BigBirdConfig, BigBirdForMaskedLM

from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import FrozenText, load_text_backbone
from llm_catalyst.tasks.batching import TextBatch

LIMIT = (5 + 2 * 1) * 4  # tokens with full attention at most: blocks of 4, one of them random
M = 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    sizes: dict[str, Any] = SMALL | {"block_size": 4, "num_random_blocks": 1, "max_position_embeddings": 256}
    BigBirdForMaskedLM(BigBirdConfig(vocab_size=len(word_piece()), **sizes)).save_pretrained(tmp_path)
    word_piece().save_pretrained(tmp_path)
    return tmp_path


def load(path: Path, **settings: Any) -> FrozenText:
    return load_text_backbone(TextBackbone(str(path), **settings), False, CPU)


def draw_ids(length: int) -> Tensor:
    return torch.randint(6, 80, (1, length), generator=torch.Generator().manual_seed(length))


def states(model: FrozenText, ids: Tensor, prompt: Tensor | None = None) -> Tensor:
    """Those of a prompt of the first tokens, or of `prompt`, and a text of the others."""
    tokens = ids[None, :, M:]
    batch = TextBatch(tokens, torch.ones_like(tokens), None, torch.zeros(1, 1, dtype=torch.long), 1)
    return model.hidden(model.vocabulary[ids[:, :M]] if prompt is None else prompt, batch)[0]


@torch.no_grad()
def test_short_and_long_texts_in_any_order_have_the_states_of_a_model_that_was_just_loaded(path: Path) -> None:
    model = load(path)
    for length in (120, 20, 121, LIMIT, LIMIT + 1, 20):
        fresh = AutoModel.from_pretrained(path).eval()
        expected = fresh(input_ids=draw_ids(length)).last_hidden_state
        assert fresh.attention_type == ("original_full" if length <= LIMIT else "block_sparse")
        torch.testing.assert_close(states(model, draw_ids(length)), expected, atol=1e-5, rtol=1e-5)
    full = AutoModel.from_pretrained(path, attention_type="original_full").eval()
    other = full(input_ids=draw_ids(120)).last_hidden_state
    assert (states(model, draw_ids(120)) - other).abs().max() > 1e-2  # so that these comparisons can tell


def test_loading_leaves_the_attention_of_the_configuration_and_says_where_it_begins(path: Path) -> None:
    model = load(path)
    assert model.base.attention_type == model.base.encoder.layer[0].attention.attention_type == "block_sparse"
    (warning,) = model.warnings
    assert f"more than {LIMIT} tokens" in warning


def test_a_layer_that_is_computed_again_has_the_same_attention(path: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = load(path, checkpointing=checkpointing)
        for length in (20, 120):
            prompt = model.vocabulary[draw_ids(length)[:, :M]].clone().requires_grad_()
            states(model, draw_ids(length), prompt).sin().sum().backward()
            gradients.append(prompt.grad)
    torch.testing.assert_close(gradients[2:], gradients[:2], atol=1e-5, rtol=1e-5)


def test_a_batch_draws_no_random_numbers(path: Path) -> None:
    model, before = load(path), torch.get_rng_state()
    with torch.no_grad():
        for length in (20, 120, 20):
            states(model, draw_ids(length))
    assert torch.equal(torch.get_rng_state(), before)
