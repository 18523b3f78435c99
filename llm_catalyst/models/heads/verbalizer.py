"""Verbalizer head: label words read off the language model's own head; no new weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llm_catalyst.models.backbones.text import FrozenText
from llm_catalyst.models.heads.base import TextHead
from llm_catalyst.tasks.base import TaskData
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.utils.validation import ConfigurationError, config_dataclass


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
            raise ConfigurationError(
                f"task.words={list(data.words)}: two words begin with the same token for this tokenizer; choose others"
            )
        return {"words": torch.tensor(ids, device=backbone.device)}

    def scores(
        self,
        backbone: FrozenText,
        prompts: Tensor,
        batch: TextBatch,
        weights: Mapping[str, Tensor],
        constants: dict[str, Tensor],
    ) -> Tensor:
        """Scores (k, r, c): the logits of the label words."""
        return backbone.word_logits(prompts, batch, constants["words"]).float()


def first_token(tokenizer: Any, word: str) -> int:
    """The first vocabulary id of `word` as it stands inside a sentence."""
    spaced = tokenizer(f" {word}", add_special_tokens=False).input_ids
    bare = tokenizer(word, add_special_tokens=False).input_ids
    return (spaced if len(spaced) <= len(bare) else bare)[0]
