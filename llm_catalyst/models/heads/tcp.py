"""TCP: CLIP's own knowledge of each class, brought into the middle of the text tower."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from llm_catalyst.models.backbones.clip import FrozenClip
from llm_catalyst.models.base import Parameters
from llm_catalyst.models.heads.base import ImageHead
from llm_catalyst.models.heads.coop import class_rows, insert_context
from llm_catalyst.models.heads.zero_shot import hand_made, image_task
from llm_catalyst.tasks.base import TaskData
from llm_catalyst.utils.validation import ConfigurationError, config_dataclass

REDUCTION = 4  # the bottleneck is a quarter of the features' width


@config_dataclass("head")
class Tcp(ImageHead):
    """Textual-based class-aware prompts (Yao et al. 2024, CVPR, arXiv 2311.18231, section 3.2).

    The zero-shot features of the task's template pass a bottleneck of two linear layers, e -> e / 4 -> m * d, with
    x * sigmoid(1.702 x) between them; its m vectors for each class take the context's places in front of layer `layer`
    (from 0). The loss is cross-entropy plus `weight` * (1 - mean over the classes of the cosine between a class's
    feature and its zero-shot feature).

    Faithful to the public code (htyao89/Textual-based_Class-aware_prompt_tuning, trainers/tcp.py): all of that, the
    shared context that is trained beside it, layer 8, weight 8, and the start of the layers, torch's own of Linear.
    Differs: the code has one list of templates for the zero-shot features and another for the words around the context;
    here both come from `task.template`, of which what stands behind {} follows the name (for UCF101 the code also keeps
    "person doing" in front of it). The code's bottleneck makes 4 vectors, here as many as the context has.
    """

    length: Annotated[int, Ge(1)] = 4
    layer: Annotated[int, Ge(0)] = 8
    weight: Annotated[float, Ge(0)] = 8.0

    trained = True
    transfers = True

    def weights(self, backbone: FrozenClip, data: TaskData, generator: torch.Generator) -> dict[str, Tensor]:
        """The bottleneck's weights and biases, float32: U(-1 / sqrt(inputs), 1 / sqrt(inputs))."""
        inner, outputs = backbone.width // REDUCTION, self.length * backbone.vocabulary.shape[1]
        shapes = {
            "head.down": (inner, backbone.width),
            "head.down_bias": (inner,),
            "head.up": (outputs, inner),
            "head.up_bias": (outputs,),
        }
        bounds = {"head.down": backbone.width**-0.5, "head.up": inner**-0.5}
        return {
            name: ((torch.rand(shape, generator=generator) * 2 - 1) * bounds[name.removesuffix("_bias")]).to(
                backbone.device
            )
            for name, shape in shapes.items()
        }

    def constants(self, backbone: FrozenClip, data: TaskData) -> dict[str, Tensor]:
        """The classes' texts with places for the context, and their zero-shot features (c, e)."""
        layers = len(backbone.towers.layers)
        if self.layer >= layers:
            raise ConfigurationError(
                f"head.layer={self.layer}, but {backbone.settings.name}'s text tower has layers 0 to {layers - 1}"
            )
        template = image_task(data).template
        rows = class_rows(backbone, data.labels, template.partition("{}")[2], self.length, "end")
        return rows | {"zero_shot": hand_made(backbone, data.labels, (template,))}

    def class_features(self, backbone: FrozenClip, parameters: Parameters, constants: dict[str, Tensor]) -> Tensor:
        """Unit-length features (k, c, e) of the classes."""
        k, c = len(parameters["prompt"]), len(constants["rows"])
        knowledge = self.knowledge(parameters, constants["zero_shot"])
        rows, ends = insert_context(constants, parameters["prompt"][:, None].expand(k, c, -1, -1))
        features = backbone.towers.text_features(rows, ends, (self.layer, knowledge.flatten(0, 1)))
        return features.unflatten(0, (k, c))

    def knowledge(self, parameters: Parameters, zero_shot: Tensor) -> Tensor:
        """The vectors (k, c, m, d) that the bottleneck makes of zero-shot features (c, e)."""
        inner = torch.einsum("ce,kfe->kcf", zero_shot, parameters["head.down"]) + parameters["head.down_bias"][:, None]
        inner = inner * torch.sigmoid(1.702 * inner)
        made = torch.einsum("kcf,kof->kco", inner, parameters["head.up"]) + parameters["head.up_bias"][:, None]
        return made.unflatten(2, (self.length, -1))

    def penalty(self, features: Tensor, constants: dict[str, Tensor]) -> Tensor:
        """What is added to each member's loss (k,): how far its features (k, c, e) are from the zero-shot ones."""
        return self.weight * (1 - nn.functional.cosine_similarity(features, constants["zero_shot"], dim=-1).mean(1))
