"""Classifier head: a trainable linear layer on the pooled state, as in the paper."""

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from llm_catalyst.models.backbones.text import FrozenText
from llm_catalyst.models.heads.base import TextHead
from llm_catalyst.tasks.base import TaskData
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.utils.validation import config_dataclass


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

    def scores(
        self,
        backbone: FrozenText,
        prompts: Tensor,
        batch: TextBatch,
        weights: Mapping[str, Tensor],
        constants: dict[str, Tensor],
    ) -> Tensor:
        """Scores (k, r, c) with each member's own weights (k, c, h) and bias (k, c)."""
        pooled = backbone.pooled(prompts, batch).float()
        pooled = nn.functional.dropout(pooled, self.dropout, training=backbone.training)
        return torch.einsum("krh,kch->krc", pooled, weights["head.weight"]) + weights["head.bias"][:, None]
