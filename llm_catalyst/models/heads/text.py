"""Heads of text backbones: a trained linear layer, label descriptions, or label words."""

from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from llm_catalyst.models.backbones.text import FrozenText
from llm_catalyst.models.base import Parameters, Tensors
from llm_catalyst.models.heads.base import TextHead
from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.tasks.tokenization import encode_examples
from llm_catalyst.utils.validation import ConfigurationError, config_dataclass


@config_dataclass("head")
class Classifier(TextHead):
    """Logits W h + b of the pooled state h (`backbone.pooling`).

    Weights start as N(0, 0.02) and zero, like Hugging Face's classification heads. `dropout` is active in
    training only under a protocol with dropout. A multiple choice task gets one output per choice.
    """

    dropout: Annotated[float, Ge(0), Le(0.9)] = 0.1

    trained = True

    def weights(self, backbone: FrozenText, data: TaskData, generator: torch.Generator) -> dict[str, Tensor]:
        """New trainable weights: head.weight (c, h) and head.bias (c,), float32."""
        outputs = 1 if data.task.choices else len(data.labels)
        weight = torch.randn(outputs, backbone.width, generator=generator) * 0.02
        return {"head.weight": weight.to(backbone.device), "head.bias": torch.zeros(outputs, device=backbone.device)}

    def scores(self, backbone: FrozenText, parameters: Parameters, batch: TextBatch, constants: Tensors) -> Tensor:
        """Scores (k, r, c) with each member's own weights (k, c, h) and bias (k, c)."""
        pooled = backbone.pooled(parameters["prompt"], batch).float()
        pooled = nn.functional.dropout(pooled, self.dropout, training=backbone.training)
        return torch.einsum("krh,kch->krc", pooled, parameters["head.weight"]) + parameters["head.bias"][:, None]


@config_dataclass("head")
class Similarity(TextHead):
    """scale * cosine between the prompted sentence and each label's description, the text twin of CLIP's head.

    Sentences are embedded by the mean over prompt and text (Reimers and Gurevych 2019, arXiv 1908.10084),
    descriptions without any prompt, once. `scale` is the inverse temperature of the softmax.
    """

    scale: Annotated[float, Ge(0.01)] = 20.0

    @torch.no_grad()
    def constants(self, backbone: FrozenText, data: TaskData) -> dict[str, Tensor]:
        """Unit-length embeddings (c, h) of the label descriptions."""
        examples = [Example(((text, None),), 0) for text in data.descriptions]
        batch = encode_examples(backbone.tokenizer, examples, 64).batch([range(len(examples))], backbone.device)
        none = torch.zeros(1, 0, backbone.vocabulary.shape[1], device=backbone.device)
        return {"descriptions": backbone.sentence(none, batch)[0]}

    def scores(self, backbone: FrozenText, parameters: Parameters, batch: TextBatch, constants: Tensors) -> Tensor:
        """Scores (k, r, c)."""
        return self.scale * backbone.sentence(parameters["prompt"], batch) @ constants["descriptions"].T


@config_dataclass("head")
class Verbalizer(TextHead):
    """The logit of each label's word at the mask (masked LM) or as the next token (causal LM).

    The words are `task.words`; `task.cloze` is the sentence that holds their place. A word of several
    tokens is represented by its first, which must differ between labels (Schick and Schütze 2021,
    arXiv 2001.07676, is the source of the idea).
    """

    words = True

    def constants(self, backbone: FrozenText, data: TaskData) -> dict[str, Tensor]:
        """The vocabulary ids (c,) of the label words."""
        ids = [first_token(backbone.tokenizer, word) for word in data.words]
        if len(set(ids)) < len(ids):
            problem = "two words begin with the same token for this tokenizer; choose others"
            raise ConfigurationError(f"task.words={list(data.words)}: {problem}")
        return {"words": torch.tensor(ids, device=backbone.device)}

    def scores(self, backbone: FrozenText, parameters: Parameters, batch: TextBatch, constants: Tensors) -> Tensor:
        """Scores (k, r, c): the logits of the label words."""
        return backbone.word_logits(parameters["prompt"], batch, constants["words"]).float()


def first_token(tokenizer: Any, word: str) -> int:
    """The first vocabulary id of `word` as it stands inside a sentence."""
    spaced = tokenizer(f" {word}", add_special_tokens=False).input_ids
    bare = tokenizer(word, add_special_tokens=False).input_ids
    return (spaced if len(spaced) <= len(bare) else bare)[0]
