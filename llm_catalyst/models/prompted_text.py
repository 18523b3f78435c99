"""A frozen backbone, a head, and what is trained on them: class logits of a population of members.

Shapes: k members, b examples of each, c classes (or choices).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from llm_catalyst.models.backbones.text import FrozenText
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.tasks.text_task import TaskData
from llm_catalyst.utils.memory import PassLimits

# What one member trains: "prompt" (m, d) and the head's weights, by name, in float32.
Parameters = Mapping[str, Tensor]


class Head(Protocol):
    """From prompts to scores, by what it asks of the backbone.

    `words` says whether it needs the backbone's language-model head, `trained` whether it has weights of its own, so
    that a discrete prompt's score changes as they train.
    """

    words: ClassVar[bool]
    trained: ClassVar[bool]

    def weights(self, backbone: FrozenText, task: TaskData, generator: torch.Generator) -> dict[str, Tensor]: ...

    def constants(self, backbone: FrozenText, task: TaskData) -> dict[str, Tensor]: ...

    def scores(
        self,
        backbone: FrozenText,
        prompts: Tensor,
        batch: TextBatch,
        weights: dict[str, Any],
        constants: dict[str, Tensor],
    ) -> Tensor: ...


class Model(Protocol):
    """The function that is optimized: soft prompt and head weights -> class logits, and the loss that training lowers.

    `backbone` is a frozen torch module with the `device` that it computes on; `room` says how much of a batch fits into
    memory at a time.
    """

    @property
    def backbone(self) -> Any: ...

    @property
    def room(self) -> PassLimits: ...

    def prepare(self, parameters: Parameters) -> Parameters:
        """The stacked parameters, and what follows from them alone: for who scores many batches with the same ones."""
        ...

    def logits(self, parameters: Parameters, batch: Any) -> Tensor:
        """Class logits (k, b, c), float32, for stacked parameters (k, ...) and a batch of each member's own."""
        ...

    def losses(self, parameters: Parameters, batch: Any) -> Tensor:
        """What training lowers (k, b), for each example: cross-entropy in nats, and what a head adds to it."""
        ...


@dataclass(frozen=True)
class PromptedText:
    """A frozen text model under a soft prompt and a head (see `Model`)."""

    backbone: FrozenText
    head: Head
    constants: dict[str, Tensor]
    room: PassLimits

    def prepare(self, parameters: Parameters) -> Parameters:
        """The parameters as they are."""
        return parameters

    def logits(self, parameters: Parameters, batch: TextBatch) -> Tensor:
        """Class logits (k, b, c), float32, for stacked parameters (k, ...) and a batch of each member's own.

        For a multiple choice task every choice is scored alone, and the choices are the classes.
        """
        scores = self.head.scores(self.backbone, parameters["prompt"], batch, dict(parameters), self.constants)
        if batch.choices == 1:
            return scores
        right = scores[..., -1] - scores[..., 0] if scores.shape[-1] > 1 else scores[..., 0]
        return right.unflatten(1, (-1, batch.choices))

    def losses(self, parameters: Parameters, batch: TextBatch) -> Tensor:
        """Cross-entropy (k, b)."""
        return example_losses(self.logits(parameters, batch), batch.labels)


def example_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in nats (k, b) of each example, for class logits (k, b, c) and labels (k, b)."""
    losses = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view(labels.shape)


def stack_members(members: Sequence[Parameters]) -> dict[str, Tensor]:
    """The members' parameters with a leading dimension k."""
    return {name: torch.stack([member[name] for member in members]) for name in members[0]}
