"""Similarity head: a sentence's embedding against those of the label descriptions; no new weights."""

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from llm_catalyst.models.backbones.text import FrozenText
from llm_catalyst.models.heads.base import TextHead
from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.tasks.batching import TextBatch, collate_rows
from llm_catalyst.tasks.tokenization import encode_examples
from llm_catalyst.utils.validation import config_dataclass


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
        batch = collate_rows(encode_examples(backbone.tokenizer, examples, 64), [range(len(examples))], backbone.device)
        none = torch.zeros(1, 0, backbone.vocabulary.shape[1], device=backbone.device)
        return {"descriptions": backbone.sentence(none, batch)[0]}

    def scores(
        self,
        backbone: FrozenText,
        prompts: Tensor,
        batch: TextBatch,
        weights: Mapping[str, Tensor],
        constants: dict[str, Tensor],
    ) -> Tensor:
        """Scores (k, r, c)."""
        return self.scale * backbone.sentence(prompts, batch) @ constants["descriptions"].T
