"""Heads of text backbones: a trained linear layer, label descriptions, or label words."""

from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from llm_catalyst.models.backbones.compatibility import refuse_missing_rows
from llm_catalyst.models.backbones.text import FrozenText
from llm_catalyst.models.base import Parameters, Tensors
from llm_catalyst.models.heads.base import TextHead
from llm_catalyst.models.soft_prompt import special_ids
from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.tasks.tokenization import encode_behind, encode_examples
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
        """Unit-length embeddings (c, h) of the label descriptions. Raises ConfigurationError where two are equal."""
        if twice := sorted({text for text in data.descriptions if data.descriptions.count(text) > 1}):
            problem = f"describes two labels by {twice[0]!r}, and no score could tell them apart"
            raise ConfigurationError(f"task.descriptions={list(data.descriptions)} {problem}; choose others")
        examples = [Example(((text, None),), 0) for text in data.descriptions]
        longest = min(64, backbone.positions or 64)
        encoded = encode_examples(backbone.tokenizer, examples, longest)
        refuse_missing_rows(backbone, (max(row, default=0) for row in encoded.tokens), "task.descriptions")
        batch = encoded.batch([range(len(examples))], backbone.device)
        none = torch.zeros(1, 0, backbone.vocabulary.shape[1], device=backbone.device)
        return {"descriptions": backbone.sentence(none, batch)[0]}

    def warnings(self, backbone: FrozenText, data: TaskData) -> list[str]:
        """That labels such as numbers stand for themselves."""
        return self.warn_named("task.descriptions", data.task.descriptions, data)

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
        ids = [pieces[0] for pieces in read_words(backbone, data)]
        if len(set(ids)) < len(ids):
            problem = "two words begin with the same token for this tokenizer; choose others"
            raise ConfigurationError(f"task.words={list(data.words)}: {problem}")
        return {"words": torch.tensor(ids, device=backbone.device)}

    def warnings(self, backbone: FrozenText, data: TaskData) -> list[str]:
        """The words of several tokens, with the first, which is all of them that is read."""
        show = backbone.tokenizer.convert_ids_to_tokens
        found = zip(data.words, read_words(backbone, data), strict=True)
        firsts = [f"{word!r} by {show(pieces[0])!r}" for word, pieces in found if len(pieces) > 1]
        notes = self.warn_named("task.words", data.task.words, data)
        if firsts:
            read = f"a word of several tokens is read by its first: {', '.join(firsts)}"
            notes.append(f"task.words: {read}; choose shorter words")
        return notes

    def scores(self, backbone: FrozenText, parameters: Parameters, batch: TextBatch, constants: Tensors) -> Tensor:
        """Scores (k, r, c): the logits of the label words."""
        return backbone.word_logits(parameters["prompt"], batch, constants["words"]).float()


def read_words(backbone: FrozenText, data: TaskData) -> list[list[int]]:
    """The vocabulary ids of each label word.

    Raises:
        ConfigurationError: a word is empty or unknown, begins with no text, or the model has no row for its token.
    """
    tokenizer, found = backbone.tokenizer, []
    for word in data.words:
        pieces = tokenize_word(tokenizer, word)
        problem = ""
        if not word.strip() or not pieces:
            problem = "is empty for this tokenizer"
        elif pieces[0] == tokenizer.unk_token_id:
            problem = f"is unknown to this tokenizer ({tokenizer.unk_token})"
        elif pieces[0] in special_ids(tokenizer):
            problem = "is a special token"
        elif not tokenizer.decode(pieces[:1]).strip():
            problem = f"begins with the token {tokenizer.convert_ids_to_tokens(pieces[0])!r}, which says nothing"
        if problem:
            raise ConfigurationError(f"task.words={list(data.words)}: {word!r} {problem}; choose another word")
        refuse_missing_rows(backbone, pieces[:1], f"task.words={list(data.words)}")
        found.append(pieces)
    return found


def tokenize_word(tokenizer: Any, word: str) -> list[int]:
    """The vocabulary ids of `word` as it stands inside a sentence."""
    spaced = encode_behind(tokenizer, f" {word}")
    bare: list[int] = tokenizer(word, add_special_tokens=False).input_ids
    return spaced if len(spaced) <= len(bare) else bare
