"""CoOp: class weights of CLIP from learned context vectors around each class's name."""

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from llm_catalyst.models.backbones.clip import FrozenClip
from llm_catalyst.models.base import Parameters
from llm_catalyst.models.heads.base import ImageHead
from llm_catalyst.tasks.base import TaskData
from llm_catalyst.utils.validation import ConfigurationError, config_dataclass


@config_dataclass("head")
class Coop(ImageHead):
    """Context optimization (Zhou et al. 2022, IJCV, arXiv 2109.01134, section 3.2): [V]_1 … [V]_m [CLASS] `tail`.

    `class_position` says where the class's name stands: behind the context (`end`), between its halves (`middle`, the
    first m // 2 vectors in front), or before it (`front`). Faithful to its code: the formula, the three places, the
    full stop at the end. Differs: a context that starts from text has its tokens, where the code takes as many as there
    are words; what is longer than CLIP's places is refused.

    With `class_specific` each class has a context of its own, which is the prompt plus that class's deviation from it,
    `head.context` (c, m, d). The deviations are taken less their mean, and the prompt gets the mean of the classes'
    gradients: so the prompt is the mean context, which can be projected and shown, a restart replaces it and keeps the
    deviations as it keeps a classifier's weights, and under SGD, with momentum and weight decay too, each class's
    context takes exactly CoOp's steps (under Adam or clipping it does not). The deviations start as N(0, `spread`);
    CoOp draws each context from N(0, 0.02).
    """

    length: Annotated[int, Ge(1)] = 16
    class_position: Literal["end", "middle", "front"] = "end"
    class_specific: bool = False
    spread: Annotated[float, Ge(0)] = 0.02
    tail: str = "."

    @property
    def trained(self) -> bool:
        return self.class_specific

    @property
    def transfers(self) -> bool:
        """Whether what was learned on some classes can be used for others."""
        return not self.class_specific

    def class_at(self, length: int) -> int:
        """How many of the context's m vectors stand in front of the name."""
        return vectors_before(length, self.class_position)

    def weights(self, backbone: FrozenClip, data: TaskData, generator: torch.Generator) -> dict[str, Tensor]:
        """New deviations, float32, where each class has a context of its own."""
        if not self.class_specific:
            return {}
        shape = (len(data.labels), self.length, backbone.vocabulary.shape[1])
        return {"head.context": (torch.randn(shape, generator=generator) * self.spread).to(backbone.device)}

    def constants(self, backbone: FrozenClip, data: TaskData) -> dict[str, Tensor]:
        return class_rows(backbone, data.labels, self.tail, self.length, self.class_position)

    def class_features(self, backbone: FrozenClip, parameters: Parameters, constants: dict[str, Tensor]) -> Tensor:
        """Unit-length features (k, c, e) of the classes."""
        prompt = parameters["prompt"]
        if self.class_position == "end" and not self.class_specific:
            rows = constants["rows"]
            start = rows[0, :1].to(prompt.dtype).expand(len(prompt), -1, -1)
            own = rows[:, 1 + self.length :]
            ends = constants["ends"] - 1 - self.length
            return backbone.towers.shared_features(torch.cat([start, prompt], dim=1), own, ends)
        k, c = len(prompt), len(constants["rows"])
        contexts = prompt[:, None].expand(k, c, -1, -1)
        if self.class_specific:
            deviations = parameters["head.context"]
            # The prompt's value, with 1/c of what would be its gradient: the classes' mean instead of their sum.
            contexts = contexts.detach() + (contexts - contexts.detach()) / c
            contexts = contexts + deviations - deviations.mean(1, keepdim=True)
        return backbone.towers.text_features(*insert_context(constants, contexts)).unflatten(0, (k, c))


def vectors_before(length: int, position: str) -> int:
    """How many of m context vectors stand in front of the name of a class at this position."""
    return {"end": length, "middle": length // 2, "front": 0}[position]


def class_rows(
    backbone: FrozenClip, labels: tuple[str, ...], tail: str, length: int, position: str
) -> dict[str, Tensor]:
    """The classes' texts with places for the context: rows (c, s, d), its places (c, m), and each text's end (c,).

    A name and its tail are put into tokens together, as CLIP reads them. Raises ConfigurationError where a class has
    no token, or too many.
    """
    names, whole = backbone.tokens(labels), backbone.tokens([label + tail for label in labels])
    before = vectors_before(length, position)
    empty = [0] * length
    sequences, places = [], []
    for label, name, text in zip(labels, names, whole, strict=True):
        if not name:
            raise ConfigurationError(f"the class {label!r} holds no token of this CLIP; give it a name in words")
        n = len(name)
        sequences.append([*empty[:before], *text[:n], *empty[before:], *text[n:]])
        places.append([*range(1, 1 + before), *range(1 + before + n, 1 + length + n)])
    rows, ends = backbone.rows(sequences, labels)
    return {"rows": rows, "ends": ends, "places": torch.tensor(places, device=backbone.device)}


def insert_context(constants: dict[str, Tensor], context: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (k * c, s, d) of the classes' texts with contexts (k, c, m, d) in them, and the texts' ends (k * c,)."""
    k, c = context.shape[:2]
    rows = constants["rows"].to(context.dtype).repeat(k, 1, 1, 1)
    rows[:, torch.arange(c, device=rows.device)[:, None], constants["places"]] = context
    return rows.flatten(0, 1), constants["ends"].repeat(k)
