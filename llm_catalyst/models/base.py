"""The function that is optimized: soft prompts and head weights to class logits, for a population of members.

Shapes: k members, b examples of each, c classes (or choices).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from llm_catalyst.utils.memory import PassLimits

Tensors = Mapping[str, Tensor]
# What one member trains: "prompt" (m, d) and the head's weights, by name, in float32.
Parameters = Tensors
T = TypeVar("T")


@dataclass(frozen=True)
class PromptedModel(ABC):
    """Soft prompt and head weights -> class logits, and the loss that training lowers.

    `backbone` is a frozen torch module with the `device` that it computes on, `constants` are those of the head, and
    `limits` are the sizes of a pass that fit into memory.
    """

    backbone: Any
    head: Any
    constants: Tensors
    limits: PassLimits

    def prepare(self, parameters: Parameters) -> Parameters:
        """The stacked parameters, with what follows from them alone and many batches share: nothing, by default."""
        return parameters

    @abstractmethod
    def logits(self, parameters: Parameters, batch: Any) -> Tensor:
        """Class logits (k, b, c), float32, for stacked parameters (k, ...) and a batch of each member's own."""

    def losses(self, parameters: Parameters, batch: Any) -> Tensor:
        """The loss (k, b) of each example: cross-entropy in nats, and a head's penalty."""
        return example_losses(self.logits(parameters, batch), batch.labels)


def example_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in nats (k, b) of each example, for class logits (k, b, c) and labels (k, b)."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


def stack_members(members: Sequence[Parameters]) -> dict[str, Tensor]:
    """The members' parameters with a leading dimension k."""
    return {name: torch.stack([member[name] for member in members]) for name in members[0]}


def group_by_length(members: Sequence[Parameters]) -> list[list[int]]:
    """The numbers of the members whose prompts have equally many rows, a list for each length that occurs.

    Only these can be stacked. A prompt of n rows so goes forward as [prompt; text] without any padding inside, in every
    model: no mask, and no position that is left out.
    """
    groups: dict[int, list[int]] = {}
    for i, member in enumerate(members):
        groups.setdefault(len(member["prompt"]), []).append(i)
    return list(groups.values())


def map_alike(members: Sequence[Parameters], work: Callable[[list[Parameters]], Sequence[T]]) -> list[T]:
    """What `work` gives for each member, in their order; it is called with members that can be stacked."""
    found: dict[int, T] = {}
    for group in group_by_length(members):
        found |= dict(zip(group, work([members[i] for i in group]), strict=True))
    return [found[i] for i in range(len(members))]
