"""The function that is optimized: soft prompts and head weights to class logits, for a population of members.

Shapes: k members, b examples of each, c classes (or choices).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from llm_catalyst.utils.memory import PassLimits

# What one member trains: "prompt" (m, d) and the head's weights, by name, in float32.
Parameters = Mapping[str, Tensor]


class PromptedModel(Protocol):
    """Soft prompt and head weights -> class logits, and the loss that training lowers.

    `backbone` is a frozen torch module with the `device` that it computes on; `limits` are the sizes of a pass
    that fit into memory.
    """

    backbone: Any
    limits: PassLimits

    def prepare(self, parameters: Parameters) -> Parameters:
        """The stacked parameters, with what follows from them alone and many batches share: nothing, by default."""
        return parameters

    def logits(self, parameters: Parameters, batch: Any) -> Tensor:
        """Class logits (k, b, c), float32, for stacked parameters (k, ...) and a batch of each member's own."""
        ...

    def losses(self, parameters: Parameters, batch: Any) -> Tensor:
        """What training lowers (k, b), for each example: cross-entropy in nats, and what a head adds to it."""
        return example_losses(self.logits(parameters, batch), batch.labels)


def example_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in nats (k, b) of each example, for class logits (k, b, c) and labels (k, b)."""
    losses = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view(labels.shape)


def stack_members(members: Sequence[Parameters]) -> dict[str, Tensor]:
    """The members' parameters with a leading dimension k."""
    return {name: torch.stack([member[name] for member in members]) for name in members[0]}
