"""A frozen text model, a head, and what is trained on them: class logits of a population of members.

Shapes: k members, b examples of each, c classes (or choices).
"""

from dataclasses import dataclass

from torch import Tensor

from llm_catalyst.models.backbones.text import FrozenText
from llm_catalyst.models.base import Parameters, PromptedModel
from llm_catalyst.models.heads.base import TextHead
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.utils.memory import PassLimits


@dataclass(frozen=True)
class PromptedText(PromptedModel):
    """A frozen text model under a soft prompt and a head (see `PromptedModel`)."""

    backbone: FrozenText
    head: TextHead
    constants: dict[str, Tensor]
    limits: PassLimits

    def logits(self, parameters: Parameters, batch: TextBatch) -> Tensor:
        """Class logits (k, b, c), float32, for stacked parameters (k, ...) and a batch of each member's own.

        For a multiple choice task every choice is scored alone, and the choices are the classes.
        """
        scores = self.head.scores(self.backbone, parameters["prompt"], batch, parameters, self.constants)
        if batch.choices == 1:
            return scores
        right = scores[..., -1] - scores[..., 0] if scores.shape[-1] > 1 else scores[..., 0]
        return right.unflatten(1, (-1, batch.choices))
