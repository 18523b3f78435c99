"""Zero-shot CLIP: class weights from hand-made prompts, nothing learned."""

import torch
from torch import Tensor, nn

from llm_catalyst.models.backbones.clip import FrozenClip
from llm_catalyst.models.base import Parameters
from llm_catalyst.models.heads.base import ImageHead
from llm_catalyst.tasks.base import Task, TaskData
from llm_catalyst.utils.validation import ConfigurationError, config_dataclass


@config_dataclass("head")
class ZeroShot(ImageHead):
    """Features of the task's hand-made prompt, or with `ensemble` those of all its templates together.

    An ensemble is the mean of the templates' unit-length features, brought to unit length again (Radford et al. 2021,
    arXiv 2103.00020, section 3.1.4). The prompt has no part in it, so that there is nothing to train: use it
    with optimizer=none.
    """

    ensemble: bool = False

    transfers = True

    def constants(self, backbone: FrozenClip, data: TaskData) -> dict[str, Tensor]:
        """Unit-length features (c, e) of the classes."""
        task = image_task(data)
        if self.ensemble and not task.templates:
            raise ConfigurationError(f"head.ensemble=true needs task.templates, and task={task.name} has none")
        templates = tuple(task.templates) if self.ensemble else (task.template,)
        return {"zero_shot": hand_made(backbone, data.labels, templates)}

    def class_features(self, backbone: FrozenClip, parameters: Parameters, constants: dict[str, Tensor]) -> Tensor:
        """Unit-length features (k, c, e), the same for every member."""
        return constants["zero_shot"].expand(len(parameters["prompt"]), -1, -1)


def hand_made(backbone: FrozenClip, labels: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
    """Unit-length features (c, e) of class names in templates with {} in them, the mean over these."""
    means = torch.stack([backbone.encode([template.format(name) for name in labels]) for template in templates]).mean(0)
    return nn.functional.normalize(means, dim=-1)


def image_task(data: TaskData) -> Task:
    """The task, where it is one of images. Raises ConfigurationError where it is not."""
    if data.task.modality != "image":
        raise ConfigurationError(
            f"task={data.task.name} is no image task; head=coop, tcp and zero_shot need one, such as task=caltech101"
        )
    return data.task
