"""The interface of a head: from soft prompts to scores of the classes.

Shapes: k members, r rows (sequences) of each, c classes, e width of CLIP's features.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from llm_catalyst.models.backbones.clip import FrozenClip
from llm_catalyst.models.backbones.text import FrozenText
from llm_catalyst.models.base import Parameters, Tensors
from llm_catalyst.tasks.base import Modality, TaskData
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.utils.terminal import list_names


class Head(ABC):
    """The base of the `head` node. `modality` is that of the backbones and tasks which fit.

    `words` says whether it needs the backbone's language-model head.
    """

    modality: ClassVar[Modality]
    words: ClassVar[bool] = False

    @property
    def trained(self) -> bool:
        """Whether it has weights of its own, so that a discrete prompt's score changes while they train."""
        return False

    @property
    def transfers(self) -> bool:
        """Whether what was learned on some classes can be used for others."""
        return False

    def class_at(self, length: int) -> int | None:
        """The number of the prompt's m tokens in front of the name of a class; None: a prompt holds no name."""
        return None

    def weights(self, backbone: Any, data: TaskData, generator: torch.Generator) -> dict[str, Tensor]:
        """New trainable weights, float32, on the backbone's device; each name begins with `head.`."""
        return {}

    def constants(self, backbone: Any, data: TaskData) -> dict[str, Tensor]:
        """Tensors that are computed once from the backbone and the task's labels, and never trained."""
        return {}

    def warnings(self, backbone: Any, data: TaskData) -> list[str]:
        """What a user is to know of how the labels of the task are read; [] if nothing is unusual."""
        return []

    def warn_named(self, key: str, given: Sequence[str], data: TaskData) -> list[str]:
        """A warning where labels without a letter, such as numbers, stand for themselves, as no `key` is given."""
        if given or any(any(map(str.isalpha, name)) for name in data.labels):
            return []
        names = list_names(map(repr, data.labels))
        return [f"the labels {names} are read as they are; say in words what they mean: {key}=[…]"]


class TextHead(Head):
    """A head of text backbones."""

    modality = "text"

    @abstractmethod
    def scores(self, backbone: FrozenText, parameters: Parameters, batch: TextBatch, constants: Tensors) -> Tensor:
        """Scores (k, r, c), float32.

        Args:
            backbone: the frozen model.
            parameters: each member's own: "prompt" (k, m, d), and by their names those of `weights` (k, ...).
            batch: r rows of each member.
            constants: the tensors that `constants` returned.
        """


class ImageHead(Head):
    """A head of CLIP: from a context to class features."""

    modality = "image"

    def class_at(self, length: int) -> int | None:
        """The number of vectors of the context: all are in front of the name."""
        return length

    @abstractmethod
    def class_features(self, backbone: FrozenClip, parameters: Parameters, constants: Tensors) -> Tensor:
        """Unit-length features (k, c, e) of the classes."""

    def penalty(self, features: Tensor, constants: Tensors) -> Tensor:
        """The penalty that is added to each member's loss (k,), for its class features (k, c, e)."""
        return features.new_zeros(len(features))
