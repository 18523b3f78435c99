"""Heads of CLIP: hand-made prompts (zero-shot), a learned context (CoOp), and CLIP's own knowledge besides it (TCP)."""

from typing import Literal

import torch
from torch import Tensor, nn

from llm_catalyst.models.backbones.clip import FrozenClip
from llm_catalyst.models.base import Parameters, Tensors
from llm_catalyst.models.heads.base import ImageHead
from llm_catalyst.tasks.base import TaskData
from llm_catalyst.utils.validation import ConfigurationError, NonNegative, NonNegativeInt, PositiveInt, config_dataclass


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
        task = data.task
        if self.ensemble and not task.templates:
            raise ConfigurationError(f"head.ensemble=true needs task.templates, and task={task.name} has none")
        templates = tuple(task.templates) if self.ensemble else (task.template,)
        return {"zero_shot": hand_made(backbone, data.labels, templates)}

    def class_features(self, backbone: FrozenClip, parameters: Parameters, constants: Tensors) -> Tensor:
        """Unit-length features (k, c, e), the same for every member."""
        return constants["zero_shot"].expand(len(parameters["prompt"]), -1, -1)


def hand_made(backbone: FrozenClip, labels: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
    """Unit-length features (c, e) of class names in templates with {} in them, the mean over these."""
    means = torch.stack([backbone.encode([template.format(name) for name in labels]) for template in templates]).mean(0)
    return nn.functional.normalize(means, dim=-1)


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

    length: PositiveInt = 16
    class_position: Literal["end", "middle", "front"] = "end"
    class_specific: bool = False
    spread: NonNegative = 0.02
    tail: str = "."

    @property
    def trained(self) -> bool:
        return self.class_specific

    @property
    def transfers(self) -> bool:
        """Whether what was learned on some classes can be used for others."""
        return not self.class_specific

    def class_at(self, length: int) -> int:
        """The number of the context's m vectors in front of the name."""
        return {"end": length, "middle": length // 2, "front": 0}[self.class_position]

    def weights(self, backbone: FrozenClip, data: TaskData, generator: torch.Generator) -> dict[str, Tensor]:
        """New deviations, float32, where each class has a context of its own."""
        if not self.class_specific:
            return {}
        shape = (len(data.labels), self.length, backbone.vocabulary.shape[1])
        return {"head.context": (torch.randn(shape, generator=generator) * self.spread).to(backbone.device)}

    def constants(self, backbone: FrozenClip, data: TaskData) -> dict[str, Tensor]:
        return class_rows(backbone, data.labels, self.tail, self.length, self.class_at(self.length))

    def class_features(self, backbone: FrozenClip, parameters: Parameters, constants: Tensors) -> Tensor:
        """Unit-length features (k, c, e) of the classes."""
        prompt = parameters["prompt"]
        if self.class_position == "end" and not self.class_specific:
            rows = constants["rows"]
            start = rows[0, :1].to(prompt.dtype).expand(len(prompt), -1, -1)
            own = rows[:, 1 + self.length :]
            ends = constants["ends"] - 1 - self.length
            return backbone.towers.shared_features(torch.cat([start, prompt], dim=1), own, ends)
        c = len(constants["rows"])
        contexts = prompt[:, None].expand(-1, c, -1, -1)
        if self.class_specific:
            deviations = parameters["head.context"]
            # The prompt's value, with 1/c of what would be its gradient: the classes' mean instead of their sum.
            contexts = contexts.detach() + (contexts - contexts.detach()) / c
            contexts = contexts + deviations - deviations.mean(1, keepdim=True)
        return features_in_context(backbone, constants, contexts)


def class_rows(backbone: FrozenClip, labels: tuple[str, ...], tail: str, length: int, before: int) -> dict[str, Tensor]:
    """The classes' texts with places for the context: rows (c, s, d), its places (c, m), and each text's end (c,).

    `before` of the context's m vectors stand in front of the name. A name and its tail are put into tokens together, as
    CLIP reads them. Raises ConfigurationError where a class has no token, or too many.
    """
    names, whole = backbone.tokens(labels), backbone.tokens([label + tail for label in labels])
    sequences, places = [], []
    for label, name, text in zip(labels, names, whole, strict=True):
        if not name:
            raise ConfigurationError(f"the class {label!r} holds no token of this CLIP; give it a name in words")
        n = len(name)
        sequences.append([*[0] * before, *text[:n], *[0] * (length - before), *text[n:]])
        places.append([*range(1, 1 + before), *range(1 + before + n, 1 + length + n)])
    rows, ends = backbone.rows(sequences, labels)
    return {"rows": rows, "ends": ends, "places": torch.tensor(places, device=backbone.device)}


def features_in_context(
    backbone: FrozenClip, constants: Tensors, context: Tensor, deep: tuple[int, Tensor] | None = None
) -> Tensor:
    """Unit-length features (k, c, e) of the classes' texts with contexts (k, c, m, d) in them, and with `deep` vectors.

    See `class_rows` for the constants, and `Towers.text_features` for `deep`.
    """
    k, c = context.shape[:2]
    rows = constants["rows"].to(context.dtype).repeat(k, 1, 1, 1)
    rows[:, torch.arange(c, device=rows.device)[:, None], constants["places"]] = context
    features = backbone.towers.text_features(rows.flatten(0, 1), constants["ends"].repeat(k), deep)
    return features.unflatten(0, (k, c))


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

    length: PositiveInt = 4
    layer: NonNegativeInt = 8
    weight: NonNegative = 8.0

    trained = True
    transfers = True

    def weights(self, backbone: FrozenClip, data: TaskData, generator: torch.Generator) -> dict[str, Tensor]:
        """The bottleneck's weights and biases, float32: U(-1 / sqrt(inputs), 1 / sqrt(inputs))."""
        inner, found = backbone.width // REDUCTION, {}
        outputs = self.length * backbone.vocabulary.shape[1]
        for name, rows, inputs in (("head.down", inner, backbone.width), ("head.up", outputs, inner)):
            for key, shape in ((name, (rows, inputs)), (f"{name}_bias", (rows,))):
                found[key] = ((torch.rand(shape, generator=generator) * 2 - 1) * inputs**-0.5).to(backbone.device)
        return found

    def constants(self, backbone: FrozenClip, data: TaskData) -> dict[str, Tensor]:
        """The classes' texts with places for the context, and their zero-shot features (c, e)."""
        layers = len(backbone.towers.layers)
        if self.layer >= layers:
            problem = f"head.layer={self.layer}, but {backbone.settings.name}'s text tower has layers 0 to {layers - 1}"
            raise ConfigurationError(problem)
        template = data.task.template
        rows = class_rows(backbone, data.labels, template.partition("{}")[2], self.length, self.length)
        return rows | {"zero_shot": hand_made(backbone, data.labels, (template,))}

    def class_features(self, backbone: FrozenClip, parameters: Parameters, constants: Tensors) -> Tensor:
        """Unit-length features (k, c, e) of the classes."""
        context = parameters["prompt"][:, None].expand(-1, len(constants["rows"]), -1, -1)
        knowledge = self.knowledge(parameters, constants["zero_shot"]).flatten(0, 1)
        return features_in_context(backbone, constants, context, (self.layer, knowledge))

    def knowledge(self, parameters: Parameters, zero_shot: Tensor) -> Tensor:
        """The vectors (k, c, m, d) that the bottleneck makes of zero-shot features (c, e)."""
        inner = torch.einsum("ce,kfe->kcf", zero_shot, parameters["head.down"]) + parameters["head.down_bias"][:, None]
        inner = inner * torch.sigmoid(1.702 * inner)
        made = torch.einsum("kcf,kof->kco", inner, parameters["head.up"]) + parameters["head.up_bias"][:, None]
        return made.unflatten(2, (self.length, -1))

    def penalty(self, features: Tensor, constants: Tensors) -> Tensor:
        """The penalty (k,) of each member: the distance of its features (k, c, e) from the zero-shot ones."""
        return self.weight * (1 - nn.functional.cosine_similarity(features, constants["zero_shot"], dim=-1).mean(1))
