"""A frozen CLIP, a head that makes class features, and cached image features: class logits of a population of members.

Shapes: k members, b images of each, c classes, e width of the features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llm_catalyst.models.backbones.clip import FrozenClip
from llm_catalyst.models.base import Parameters, PromptedModel, example_losses
from llm_catalyst.models.heads.base import ImageHead
from llm_catalyst.models.image_features import ImageBatch
from llm_catalyst.utils.memory import PassLimits

PREPARED = "class features"  # the parameters' entry for them, once they are computed


@dataclass(frozen=True)
class PromptedClip(PromptedModel):
    """A frozen CLIP under a learned context and a head; parameters["prompt"] is (k, m, d)."""

    backbone: FrozenClip
    head: ImageHead
    constants: dict[str, Tensor]
    limits: PassLimits

    def logits(self, parameters: Parameters, batch: ImageBatch) -> Tensor:
        """Class logits (k, b, c), float32: scale * cosine between image and class features."""
        return self.compare(self.prepare(parameters)[PREPARED], batch)

    def losses(self, parameters: Parameters, batch: ImageBatch) -> Tensor:
        """Cross-entropy (k, b), and what the head adds to it; all classes' texts go forward, as the loss needs them."""
        classes = self.prepare(parameters)[PREPARED]
        penalty = self.head.penalty(classes, self.constants)
        return example_losses(self.compare(classes, batch), batch.labels) + penalty[:, None]

    def prepare(self, parameters: Parameters) -> Parameters:
        """The parameters with the class features they make, so that many batches can be scored with these."""
        if PREPARED in parameters:
            return parameters
        return {**parameters, PREPARED: self.head.class_features(self.backbone, parameters, self.constants)}

    def compare(self, classes: Tensor, batch: ImageBatch) -> Tensor:
        """Logits (k, b, c) of a batch's images for class features (k, c, e)."""
        return self.backbone.scale * torch.einsum("kbe,kce->kbc", batch.features, classes)
