"""Optimizers without a backward pass: gradients estimated from losses along random directions.

Along a direction z ~ N(0, I) over the soft prompt and the head's weights together, the slope of the batch loss L is

    g = (L(P + eps z) - L(P - eps z)) / (2 eps)

and g z is an estimate of its gradient: without bias as eps goes to 0, and with the covariance
(|grad L|^2 I + grad L grad L^T) / q where q directions are averaged. Sources: MeZO (Malladi et al. 2023, arXiv
2305.17333) and the benchmark of Zhang et al. 2024 (arXiv 2402.11592, "ZO-LLM").

Faithful to both: the two-sided estimate, z from a seed and not from memory, the updates, no dropout, no clipping
unless it is asked for. What differs: the loss that a step reports is taken at P itself (MeZO reports that at
P + eps z), all points of all members go forward in one batch, the head's weights are perturbed too, and a direction is
a function of (seed, step, number), so that a run can be resumed at any step. One pass takes the memory of inference on
2 q + 1 batches; `micro_batch` bounds it, and it is halved where memory runs out.

Shapes: k members, b examples of each, q directions.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from llm_catalyst.models.base import Parameters, PromptedModel, stack_members
from llm_catalyst.optimizers.backprop import GradientDescent, Schedule
from llm_catalyst.optimizers.base import Member
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.utils.rng import make_generator
from llm_catalyst.utils.validation import ConfigurationError, config_dataclass


@dataclass(frozen=True)
class Directions:
    """`count` random directions for each step, drawn anew from the seed whenever one is needed."""

    seed: int
    count: int

    def draw(self, step: int, like: Parameters) -> Iterator[dict[str, Tensor]]:
        """The step's directions, one by one: N(0, 1) in the shape of one member of `like`, the same for all members."""
        for i in range(self.count):
            yield {
                name: torch.randn(p.shape[1:], generator=make_generator(self.seed, "direction", step, i, name)).to(p)
                for name, p in like.items()
            }

    def combine(self, step: int, like: Parameters, slopes: Tensor) -> dict[str, Tensor]:
        """The mean over the directions of slope * z, for each member (k, ...) by its own slopes (q, k)."""
        total = {name: torch.zeros_like(p) for name, p in like.items()}
        for along, z in zip(slopes, self.draw(step, like), strict=True):
            for name, p in total.items():
                p += broadcast_members(along, p) * z[name] / self.count
        return total


@config_dataclass("optimizer")
class RandomDirections(GradientDescent):
    """Stochastic gradient descent along an estimate of the gradient from `directions` random directions a step."""

    lr: Annotated[float, Ge(0)]
    directions: Annotated[int, Ge(1)] = 1
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 1

    @property
    def sampler(self) -> Directions:
        """The directions of each step."""
        return Directions(self.seed, self.directions)

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Plain stochastic gradient descent."""
        return torch.optim.SGD(parameters, lr=self.lr)

    @torch.no_grad()
    def estimate_gradients(
        self, model: PromptedModel, members: Sequence[Member], batch: Batch, number: int, rates: Sequence[float]
    ) -> tuple[list[float], int]:
        """Leave the estimate in the members (see `GradientDescent.estimate_gradients`)."""
        at = stack_members([member.parameters for member in members])
        losses, gradients, passes = self.estimate(model, at, batch, number, rates)
        for i, member in enumerate(members):
            for name, parameter in member.parameters.items():
                parameter.grad = gradients[name][i].clone()
        return losses.tolist(), passes

    @abstractmethod
    def estimate(
        self, model: PromptedModel, at: Parameters, batch: Batch, number: int, rates: Sequence[float]
    ) -> tuple[Tensor, dict[str, Tensor], int]:
        """The losses (k,) at the members `at` (k, ...), the estimate (k, ...), and how often each example passed."""


@config_dataclass("optimizer")
class ZerothOrderSGD(RandomDirections):
    """Stochastic gradient descent on the estimate: ZO-SGD (MeZO); with `momentum` ZO-SGD-MMT; with `sign_of` its sign.

    `sign_of: estimate` steps along sign(g z), entry by entry (Liu et al. 2019, "signSGD via zeroth-order oracle");
    `sign_of: slope` along sign(g) z, as the code of ZO-LLM has it.
    """

    momentum: Annotated[float, Ge(0), Le(1)] = 0.0
    sign_of: Literal["estimate", "slope"] | None = None
    eps: Annotated[float, Ge(1e-12)] = 1e-3
    clip_norm: Annotated[float, Ge(1e-9)] | None = None

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Stochastic gradient descent with momentum."""
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum)

    def estimate(
        self, model: PromptedModel, at: Parameters, batch: Batch, number: int, rates: Sequence[float]
    ) -> tuple[Tensor, dict[str, Tensor], int]:
        """The two-sided estimate, or its sign (see `RandomDirections.estimate`)."""
        losses, slopes = two_sided_slopes(model, at, batch, number, self.sampler, self.eps)
        slopes = sign_with_nan(slopes) if self.sign_of == "slope" else slopes
        gradients = self.sampler.combine(number, at, slopes)
        if self.sign_of == "estimate":
            gradients = {name: sign_with_nan(g) for name, g in gradients.items()}
        return losses, gradients, 2 * self.directions + 1


@config_dataclass("optimizer")
class ZerothOrderAdam(RandomDirections):
    """Adam on the estimate (ZO-Adam): both moments are those of g z. `adam_eps` is what Adam adds to its divisor."""

    betas: tuple[Annotated[float, Ge(0), Le(0.999999)], Annotated[float, Ge(0), Le(0.999999)]] = (0.9, 0.999)
    adam_eps: Annotated[float, Ge(0)] = 1e-8
    eps: Annotated[float, Ge(1e-12)] = 1e-3
    clip_norm: Annotated[float, Ge(1e-9)] | None = None

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, eps=self.adam_eps)

    def estimate(
        self, model: PromptedModel, at: Parameters, batch: Batch, number: int, rates: Sequence[float]
    ) -> tuple[Tensor, dict[str, Tensor], int]:
        """The two-sided estimate (see `RandomDirections.estimate`)."""
        losses, slopes = two_sided_slopes(model, at, batch, number, self.sampler, self.eps)
        return losses, self.sampler.combine(number, at, slopes), 2 * self.directions + 1


@config_dataclass("optimizer")
class ZerothOrderConservative(RandomDirections):
    """The best of P, P - lr g z and P + lr g z on the step's own batch (ZO-SGD-Cons): two forward passes a step.

    P stays where neither is better. ZO-LLM makes a step and takes it back; here each candidate is made from P.
    """

    eps: Annotated[float, Ge(1e-12)] = 1e-3

    def estimate(
        self, model: PromptedModel, at: Parameters, batch: Batch, number: int, rates: Sequence[float]
    ) -> tuple[Tensor, dict[str, Tensor], int]:
        """The two-sided estimate where going down it is best, its negative where going up is, or else 0."""
        losses, slopes = two_sided_slopes(model, at, batch, number, self.sampler, self.eps)
        estimate = self.sampler.combine(number, at, slopes)
        step = {name: broadcast_members(rates, g) * g for name, g in estimate.items()}
        down, up = evaluate_points(model, [move_along(at, step, -1.0), move_along(at, step, 1.0)], batch)
        best = torch.stack([losses, down, up]).nan_to_num(nan=torch.inf).argmin(0)  # the first where some are equal
        along = torch.tensor([0.0, 1.0, -1.0])[best]
        gradients = {name: broadcast_members(along, g) * g for name, g in estimate.items()}
        return losses, gradients, 2 * self.directions + 3


@config_dataclass("optimizer")
class ForwardGradient(RandomDirections):
    """Stochastic gradient descent on (grad L . z) z, by forward-mode differentiation.

    Source: Baydin et al. 2022, "Gradients without backpropagation" (arXiv 2202.08587). The directional derivative is
    exact, there is no eps, and the loss at P comes with it. The memory is that of a forward pass, and as much again
    for the derivative; attention is computed in its plain form, since its fast kernels have no forward derivative.
    """

    clip_norm: Annotated[float, Ge(1e-9)] | None = None

    def estimate(
        self, model: PromptedModel, at: Parameters, batch: Batch, number: int, rates: Sequence[float]
    ) -> tuple[Tensor, dict[str, Tensor], int]:
        """The mean of (grad L . z) z over the directions (see `RandomDirections.estimate`).

        Raises ConfigurationError where the backbone has an operation without a forward derivative.
        """
        losses, slopes = directional_derivatives(model, at, batch, list(self.sampler.draw(number, at)))
        return losses, self.sampler.combine(number, at, slopes), self.directions


def two_sided_slopes(
    model: PromptedModel, at: Parameters, batch: Batch, number: int, directions: Directions, eps: float
) -> tuple[Tensor, Tensor]:
    """The loss (k,) at the members `at` (k, ...), and its slope (q, k) along the directions of step `number`."""
    sides = [move_along(at, z, side) for z in directions.draw(number, at) for side in (eps, -eps)]
    here, *there = evaluate_points(model, [at, *sides], batch)
    return here, (torch.stack(there[::2]) - torch.stack(there[1::2])) / (2 * eps)


def evaluate_points(model: PromptedModel, points: Sequence[Parameters], batch: Batch) -> Tensor:
    """Mean cross-entropy (p, k), float64 on the CPU, of p points of each of k members, all in one forward pass.

    In passes of fewer examples (all points of each) where memory runs out.
    """
    parameters, wide = concatenate_points(points), batch.repeat(len(points))

    def evaluate(size: int) -> Tensor:
        parts = (model.losses(parameters, part) for part in wide.parts(size))
        return torch.cat([losses.cpu().double() for losses in parts], dim=1).mean(1)

    return model.limits.fit("examples", 1, batch.size, evaluate).unflatten(0, (len(points), -1))


def directional_derivatives(
    model: PromptedModel, at: Parameters, batch: Batch, directions: Sequence[Parameters]
) -> tuple[Tensor, Tensor]:
    """The loss (k,) at the members `at`, and its exact derivative (q, k) along q directions; float64 on the CPU."""
    q = len(directions)
    points, wide = concatenate_points([at] * q), batch.repeat(q)
    tangents = concatenate_points([{name: z[name].expand_as(p) for name, p in at.items()} for z in directions])

    def losses_of(part: Batch, parameters: Parameters) -> Tensor:
        return model.losses(parameters, part)

    def evaluate(size: int) -> Tensor:
        pairs = (torch.func.jvp(partial(losses_of, part), (points,), (tangents,)) for part in wide.parts(size))
        return torch.cat([torch.stack(pair).cpu().double() for pair in pairs], dim=2).mean(2)

    try:
        with sdpa_kernel(SDPBackend.MATH):
            losses, slopes = model.limits.fit("examples", 1, batch.size, evaluate).unflatten(1, (q, -1))
    except NotImplementedError as error:
        raise ConfigurationError(
            "optimizer=forward_gradient needs a backbone that can be differentiated forwards; try "
            f"backbone.attention=eager, or optimizer=zo_sgd ({str(error).partition(chr(10))[0]})"
        ) from error
    return losses[0], slopes


def concatenate_points(points: Sequence[Parameters]) -> dict[str, Tensor]:
    """The members of every point, one point after another: (p k, ...)."""
    return {name: torch.cat([point[name] for point in points]) for name in points[0]}


def move_along(at: Parameters, move: Parameters, by: float) -> dict[str, Tensor]:
    return {name: p + by * move[name] for name, p in at.items()}


def broadcast_members(numbers: Sequence[float] | Tensor, like: Tensor) -> Tensor:
    """One number for each member, to be multiplied with `like` (k, ...)."""
    return torch.as_tensor(numbers).to(like).view(-1, *[1] * (like.dim() - 1))


def sign_with_nan(values: Tensor) -> Tensor:
    """-1, 0 or 1; what is not finite becomes NaN, where torch's own sign would hide it."""
    return values.sign() + 0 * values
