"""The interface of a backbone: how it is configured, and what a loaded, frozen one offers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from llm_catalyst.models.backbones.hub_cache import find_folder
from llm_catalyst.models.backbones.local_files import hash_files
from llm_catalyst.tasks.base import Modality
from llm_catalyst.utils.paths import expand_path
from llm_catalyst.utils.validation import ConfigurationError

BFLOAT16_SINCE = (8, 0)  # CUDA's compute capability


class Backbone(ABC):
    """The base of the `backbone` node: which pretrained model. `modality` is that of the tasks and heads which fit."""

    modality: ClassVar[Modality] = "text"
    name: str
    dtype: str

    def location(self) -> str:
        """The hub name or local path of the weights."""
        return str(expand_path(self.name)) if self.name.startswith("~") else self.name

    def check(self, device: torch.device) -> None:
        """Raise ConfigurationError where `device` cannot compute as these settings say; nothing is loaded."""
        if self.dtype == "bfloat16" and device.type == "cuda":
            capability = torch.cuda.get_device_capability(device)
            if capability < BFLOAT16_SINCE:
                raise ConfigurationError(
                    f"backbone.dtype=bfloat16 is not there on {torch.cuda.get_device_name(device)} (compute capability "
                    f"{capability[0]}.{capability[1]}; it comes with 8.0); use backbone.dtype=float16 or float32"
                )


class FrozenBackbone(nn.Module, ABC):
    """A loaded, frozen model. Only the soft prompt and the head that use it are ever trained.

    `compiled` says whether torch compiles it, `warnings` is what a user is to know of it, `files` has the checksums of
    the files that it was read from.
    """

    compiled = False
    warnings: tuple[str, ...] = ()
    files: Mapping[str, str] = {}

    def __init__(self, settings: Any, model: Any, tokenizer: Any, commit: str | None) -> None:
        super().__init__()
        self.commit = commit
        self.settings = settings
        self.model: Any = model.requires_grad_(False)
        self.tokenizer = tokenizer

    @property
    @abstractmethod
    def vocabulary(self) -> Tensor:
        """Input embeddings (v, d) of the vocabulary."""

    @property
    def device(self) -> torch.device:
        return self.vocabulary.device

    def longest_text(self, prompt_length: int) -> int | None:
        """The number of an example's tokens that fit beside m virtual ones; None: examples are no tokens."""
        return None

    def record_files(self, where: str, revision: str | None) -> None:
        """Take the checksums of the files in the local folder, or of the hub's model, that it was read from."""
        folder = find_folder(where, self.commit or revision)
        self.files = hash_files(folder, getattr(self.settings, "trust_remote_code", False)) if folder else {}

    def facts(self) -> dict[str, Any]:
        """The weights' name, location, commit on the hub, class and number, and the checksums of their files."""
        return {
            "name": self.settings.name,
            "location": self.settings.location(),
            "commit": self.commit,
            "class": type(self.model).__name__,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "files": dict(self.files),
        }
