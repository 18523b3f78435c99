"""Similarity head: a sentence's embedding against those of the label descriptions; no new weights."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from llm_catalyst.models.backbones.text import FrozenText
from llm_catalyst.tasks.batching import TextBatch, collate_rows
from llm_catalyst.tasks.text_task import Example, TaskData
from llm_catalyst.tasks.tokenization import encode_examples
from llm_catalyst.utils.validation import check_at_least


@dataclass(frozen=True)
class Similarity:
    """scale * cosine between the prompted sentence and each label's description, the text twin of CLIP's head.

    Sentences are embedded by the mean over prompt and text (Reimers and Gurevych 2019, arXiv 1908.10084),
    descriptions without any prompt, once. `scale` is the inverse temperature of the softmax.
    """

    scale: float = 20.0

    words: ClassVar[bool] = False
    trained: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_at_least("head.scale", self.scale, 0.01)

    def weights(self, backbone: FrozenText, task: TaskData, generator: torch.Generator) -> dict[str, Tensor]:
        return {}

    @torch.no_grad()
    def constants(self, backbone: FrozenText, task: TaskData) -> dict[str, Tensor]:
        """Unit-length embeddings (c, h) of the label descriptions."""
        examples = [Example(((text, None),), 0) for text in task.descriptions]
        batch = collate_rows(encode_examples(backbone.tokenizer, examples, 64), [range(len(examples))], backbone.device)
        none = torch.zeros(1, 0, backbone.vocabulary.shape[1], device=backbone.device)
        return {"descriptions": backbone.sentence(none, batch)[0]}

    def scores(
        self,
        backbone: FrozenText,
        prompts: Tensor,
        batch: TextBatch,
        weights: dict[str, Any],
        constants: dict[str, Tensor],
    ) -> Tensor:
        """Scores (k, r, c)."""
        return self.scale * backbone.sentence(prompts, batch) @ constants["descriptions"].T
