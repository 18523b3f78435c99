"""Optimizers whose prompts are tokens after every step: PEZ and GCG.

After a step a member's prompt is rows of the vocabulary, exactly; so what is scored, reported and shown is the discrete
prompt. Tokens are those that `PromptSpace.allowed` lets in, and those that the start or a mentor's text brought.

- PEZ: Wen et al. 2023, "Hard Prompts Made Easy" (arXiv 2302.03668), code YuxinWenRick/hard-prompts-made-easy. Faithful:
  the projection (cosine) before each pass, the gradient taken at the projected prompt and applied to the continuous
  one, AdamW with weight decay. Different: only allowed tokens; the best state is chosen on dev, not by its own loss.
- GCG: Zou et al. 2023, "Universal and Transferable Adversarial Attacks on Aligned Language Models" (arXiv 2307.15043),
  code llm-attacks/llm-attacks, read in copies of its files. Faithful: the one-hot gradient, the top-k tokens of each
  place, positions in turn, a token drawn evenly among the k, all on the step's batch, and the best candidate is taken
  even where it is worse than the present prompt. Different: the present prompt can be kept (`stay`); candidates are not
  put through the tokenizer again, as prompts are ids here.

The head's weights, where it has any, are trained by AdamW along the usual gradient, taken in the same pass.

Shapes: m virtual tokens, d embedding width, c candidates, b examples.
"""

import math
from dataclasses import field, replace
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from llm_catalyst.models.base import Parameters, PromptedModel
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.optimizers.backprop import ExactGradients, mean_gradients
from llm_catalyst.optimizers.base import GradientFunction, Member, PromptOptimizer
from llm_catalyst.optimizers.schedule import Schedule, StepRange
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.utils.rng import make_generator
from llm_catalyst.utils.validation import NonNegative, PositiveInt, config_dataclass

CONTINUOUS = "continuous"  # PEZ's prompt between the tokens, in the optimizer's state beside the prompt's moments


@config_dataclass("optimizer")
class TokenOptimizer(ExactGradients):
    """AdamW with exact gradients, for prompts that are tokens at the beginning and after every step.

    `space` is the run's (`in_space`).
    """

    lr: NonNegative
    betas: tuple[Annotated[float, Ge(0), Le(0.999999)], Annotated[float, Ge(0), Le(0.999999)]] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
    schedule: Schedule = field(default_factory=Schedule)
    clip_norm: Annotated[float, Ge(1e-9)] | None = 1.0
    gradients: GradientFunction = field(default=mean_gradients, repr=False)
    space: Any = field(default=None, repr=False)

    discrete = True

    def in_space(self, space: PromptSpace) -> PromptOptimizer:
        """The same optimizer for the tokens of this space."""
        return replace(self, space=space)

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(parameters, self.lr, self.betas, self.eps, self.weight_decay)

    def _restore_optimizer(self, member: Member, step_range: StepRange) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """As in `GradientDescent`; a prompt with which the run or a restart begins goes to its nearest tokens."""
        optimizer, scheduler = super()._restore_optimizer(member, step_range)
        if step_range.done in (0, member.restarted_at):
            prompt = member.parameters["prompt"]
            prompt.data.copy_(self.space.snap(prompt))
            optimizer.state[prompt].pop(CONTINUOUS, None)  # with restart.moments=keep that of the prompt before
        return optimizer, scheduler


@config_dataclass("optimizer")
class ProjectedGradient(TokenOptimizer):
    """PEZ: a continuous prompt takes AdamW's steps along gradients at its projection, which is the member's prompt.

    The continuous prompt (m, d) is in the optimizer's state. It begins at the tokens of the start, and of a restart.
    """

    dropout: bool = False

    @torch.no_grad()
    def update(
        self, member: Member, optimizer: torch.optim.Optimizer, model: PromptedModel, batch: Batch, number: int
    ) -> None:
        """Move the continuous prompt and the head's weights, and project (see `GradientDescent.update`)."""
        prompt = member.parameters["prompt"]
        prompt.copy_(optimizer.state[prompt].get(CONTINUOUS, prompt))
        optimizer.step()
        if prompt.isfinite().all():
            optimizer.state[prompt][CONTINUOUS] = prompt.detach().clone()
            prompt.copy_(self.space.snap(prompt))


@config_dataclass("optimizer")
class GreedyCoordinateGradient(TokenOptimizer):
    """GCG: of `candidates` prompts that differ from the member's in one token, the best on the step's batch.

    The new tokens are drawn from the `topk` of each place with the steepest descent of the loss, as the gradient of the
    one-hot tokens has it. With `stay` the present prompt remains where none is better. `lr` is that of the head.
    """

    candidates: PositiveInt = 64
    topk: PositiveInt = 64
    stay: bool = False
    seed: int = 1

    def estimate_gradients(self, *place: Any) -> tuple[list[float], int]:
        """The exact gradients, and the passes of the candidates too (see `GradientDescent.estimate_gradients`)."""
        losses, passes = super().estimate_gradients(*place)
        return losses, passes + self.candidates + self.stay

    @torch.no_grad()
    def update(
        self, member: Member, optimizer: torch.optim.Optimizer, model: PromptedModel, batch: Batch, number: int
    ) -> None:
        """Swap one token, by losses under the present head, and move the head (see `GradientDescent.update`)."""
        prompt = member.parameters["prompt"]
        swapped = self.swap_tokens(prompt.detach(), self.space.steepest(prompt.grad, self.topk), number)
        points = torch.cat([prompt[None], swapped]) if self.stay else swapped
        losses = measure_losses(model, member.parameters, points, batch)
        refused = ~losses.isfinite()
        if not self.stay:
            refused |= (points == prompt).flatten(1).all(1)  # the present token may be among those drawn
        prompt.grad = None  # the optimizer moves the head's weights alone
        optimizer.step()
        if not refused.all():
            prompt.copy_(points[losses.masked_fill(refused, math.inf).argmin()])

    def swap_tokens(self, prompt: Tensor, tokens: Tensor, number: int) -> Tensor:
        """Candidates (c, m, d): the prompt (m, d) with one row each replaced by one of the tokens (m, k) for it.

        Places follow one another, each as often as the others, and begin at a random fraction of a place (the source
        begins at 0, which with fewer candidates than places would leave out the same ones at every step). The draws
        follow from seed and step, and are the same for every member.
        """
        generator, (m, k), c = make_generator(self.seed, "swaps", number), tokens.shape, self.candidates
        begin = torch.rand(1, generator=generator, dtype=torch.double)
        places = ((torch.arange(c) + begin) * m / c).long().clamp(max=m - 1).to(tokens.device)
        drawn = torch.randint(k, (c,), generator=generator).to(tokens.device)
        swapped = prompt.repeat(c, 1, 1)
        swapped[torch.arange(c, device=tokens.device), places] = self.space.vocabulary[tokens[places, drawn]].float()
        return swapped


def measure_losses(model: PromptedModel, parameters: Parameters, prompts: Tensor, batch: Batch) -> Tensor:
    """The mean loss (c,) in nats of prompts (c, m, d) beside one member's other parameters, on its rows (1, b).

    In passes of at most `model.limits.tokens` tokens, prompts included, and `model.limits.examples` examples of each
    prompt; fewer tokens where memory runs out.
    """
    part = min(batch.size, model.limits.examples)
    rows = max(tensor.shape[1] for tensor in batch.tensors.values()) * part // batch.size
    least = rows * (prompts.shape[1] + batch.width)

    def work(tokens: int) -> Tensor:
        means = []
        for some in prompts.split(max(1, tokens // least)):
            c = len(some)
            stacked = {name: parameter.detach().expand(c, *parameter.shape) for name, parameter in parameters.items()}
            at = model.prepare({**stacked, "prompt": some})
            losses = [model.losses(at, piece).sum(1) for piece in batch.expand(c).parts(part)]
            means.append(torch.stack(losses).sum(0) / batch.size)
        return torch.cat(means)

    return model.limits.fit("tokens", least, least * len(prompts), work)
