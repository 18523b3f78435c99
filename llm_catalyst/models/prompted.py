"""A frozen backbone and a head: class logits of a population of members.

Shapes: k members, b examples of each, c classes (or choices), e width of CLIP's features.
"""

import torch
from torch import Tensor

from llm_catalyst.models.backbones.clip import FrozenClip
from llm_catalyst.models.backbones.text import FrozenText
from llm_catalyst.models.base import Parameters, PromptedModel, example_losses
from llm_catalyst.models.heads.base import ImageHead, TextHead
from llm_catalyst.models.image_features import ImageBatch
from llm_catalyst.tasks.batching import TextBatch


class PromptedText(PromptedModel):
    """A frozen text model under a soft prompt and a head (see `PromptedModel`)."""

    backbone: FrozenText
    head: TextHead

    def logits(self, parameters: Parameters, batch: TextBatch) -> Tensor:
        """Class logits (k, b, c), float32, for stacked parameters (k, ...) and a batch of each member's own.

        For a multiple choice task every choice is scored alone, and the choices are the classes.
        """
        scores = self.head.scores(self.backbone, parameters, batch, self.constants)
        if batch.choices == 1:
            return scores
        right = scores[..., -1] - scores[..., 0] if scores.shape[-1] > 1 else scores[..., 0]
        return right.unflatten(1, (-1, batch.choices))


PREPARED = "class features"  # the parameters' entry for them, once they are computed


class PromptedClip(PromptedModel):
    """A frozen CLIP under a learned context and a head; parameters["prompt"] is (k, m, d)."""

    backbone: FrozenClip
    head: ImageHead

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
