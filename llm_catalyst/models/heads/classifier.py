"""Classifier head: a trainable linear layer on the pooled state, as in the paper."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from llm_catalyst.models.backbones.text import FrozenText
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.tasks.text_task import TaskData
from llm_catalyst.utils.validation import check_range


@dataclass(frozen=True)
class Classifier:
    """Logits W h + b of the pooled state h (`backbone.pooling`).

    Weights start as N(0, 0.02) and zero, like Hugging Face's classification heads. `dropout` is active in
    training only under a protocol with dropout. A multiple choice task gets one output per choice.
    """

    dropout: float = 0.1

    words: ClassVar[bool] = False
    trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("head.dropout", self.dropout, 0, 0.9)

    def weights(self, backbone: FrozenText, task: TaskData, generator: torch.Generator) -> dict[str, Tensor]:
        """New trainable weights: head.weight (c, h) and head.bias (c,), float32."""
        outputs = 1 if task.task.choices else len(task.labels)
        weight = torch.randn(outputs, backbone.width, generator=generator) * 0.02
        return {"head.weight": weight.to(backbone.device), "head.bias": torch.zeros(outputs, device=backbone.device)}

    def constants(self, backbone: FrozenText, task: TaskData) -> dict[str, Tensor]:
        return {}

    def scores(
        self,
        backbone: FrozenText,
        prompts: Tensor,
        batch: TextBatch,
        weights: dict[str, Any],
        constants: dict[str, Tensor],
    ) -> Tensor:
        """Scores (k, r, c) with each member's own weights (k, c, h) and bias (k, c)."""
        pooled = backbone.pooled(prompts, batch).float()
        pooled = nn.functional.dropout(pooled, self.dropout, training=backbone.training)
        return torch.einsum("krh,kch->krc", pooled, weights["head.weight"]) + weights["head.bias"][:, None]
