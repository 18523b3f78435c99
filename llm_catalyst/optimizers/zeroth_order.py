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
from dataclasses import field
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from llm_catalyst.models.base import Parameters, PromptedModel, stack_members
from llm_catalyst.optimizers.backprop import GradientDescent
from llm_catalyst.optimizers.base import Member, map_parts
from llm_catalyst.optimizers.schedule import Schedule
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.utils.rng import make_generator
from llm_catalyst.utils.validation import ConfigurationError, Fraction, NonNegative, PositiveInt, config_dataclass


@config_dataclass("optimizer")
class RandomDirections(GradientDescent):
    """Stochastic gradient descent along an estimate of the gradient from `directions` random directions a step.

    The directions are drawn anew from the seed whenever one is needed.
    """

    lr: NonNegative
    directions: PositiveInt = 1
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 1

    passes: ClassVar[tuple[int, int]] = 1, 0  # how often each example goes forward: for each direction, and besides

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Plain stochastic gradient descent."""
        return torch.optim.SGD(parameters, lr=self.lr)

    def draw(self, step: int, like: Parameters) -> Iterator[dict[str, Tensor]]:
        """The step's directions, one by one: N(0, 1) in the shape of one member of `like`, the same for all members."""
        for i in range(self.directions):
            yield {
                name: torch.randn(p.shape[1:], generator=make_generator(self.seed, "direction", step, i, name)).to(p)
                for name, p in like.items()
            }

    def combine(self, step: int, like: Parameters, slopes: Tensor) -> dict[str, Tensor]:
        """The mean over the directions of slope * z, for each member (k, ...) by its own slopes (q, k)."""
        total = {name: torch.zeros_like(p) for name, p in like.items()}
        for along, z in zip(slopes, self.draw(step, like), strict=True):
            for name, p in total.items():
                p += broadcast_members(along, p) * z[name] / self.directions
        return total

    @torch.no_grad()
    def estimate_gradients(
        self, model: PromptedModel, members: Sequence[Member], batch: Batch, number: int, rates: Sequence[float]
    ) -> tuple[list[float], int]:
        """Leave the estimate in the members (see `GradientDescent.estimate_gradients`)."""
        at = stack_members([member.parameters for member in members])
        losses, gradients = self.estimate(model, at, batch, number, rates)
        for i, member in enumerate(members):
            for name, parameter in member.parameters.items():
                parameter.grad = gradients[name][i].clone()
        for_each, besides = self.passes
        return losses.tolist(), for_each * self.directions + besides

    def estimate(
        self, model: PromptedModel, at: Parameters, batch: Batch, number: int, rates: Sequence[float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses (k,) at the members `at` (k, ...), and the estimate (k, ...)."""
        losses, slopes = self.measure_slopes(model, at, batch, number)
        return losses, self.combine(number, at, slopes)

    @abstractmethod
    def measure_slopes(self, model: PromptedModel, at: Parameters, batch: Batch, number: int) -> tuple[Tensor, Tensor]:
        """The losses (k,) at the members `at` (k, ...), and their slopes (q, k) along the directions of a step."""


@config_dataclass("optimizer")
class TwoSided(RandomDirections):
    """The two-sided estimate, at the distance `eps` on each side."""

    eps: Annotated[float, Ge(1e-12)] = 1e-3

    passes = 2, 1

    def measure_slopes(self, model: PromptedModel, at: Parameters, batch: Batch, number: int) -> tuple[Tensor, Tensor]:
        """The losses and slopes (see `RandomDirections.measure_slopes`), float64 on the CPU."""
        sides = [move_along(at, z, side) for z in self.draw(number, at) for side in (self.eps, -self.eps)]
        here, *there = evaluate_points(model, [at, *sides], batch)
        return here, (torch.stack(there[::2]) - torch.stack(there[1::2])) / (2 * self.eps)


@config_dataclass("optimizer")
class ZerothOrderSGD(TwoSided):
    """Stochastic gradient descent on the estimate: ZO-SGD (MeZO); with `momentum` ZO-SGD-MMT; with `sign_of` its sign.

    `sign_of: estimate` steps along sign(g z), entry by entry (Liu et al. 2019, "signSGD via zeroth-order oracle");
    `sign_of: slope` along sign(g) z, as the code of ZO-LLM has it.
    """

    momentum: Fraction = 0.0
    sign_of: Literal["estimate", "slope"] | None = None
    clip_norm: Annotated[float, Ge(1e-9)] | None = None

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Stochastic gradient descent with momentum."""
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum)

    def combine(self, step: int, like: Parameters, slopes: Tensor) -> dict[str, Tensor]:
        """The estimate from the slopes, or from their signs, or its sign (see `RandomDirections.combine`)."""
        found = super().combine(step, like, sign_with_nan(slopes) if self.sign_of == "slope" else slopes)
        return {name: sign_with_nan(g) for name, g in found.items()} if self.sign_of == "estimate" else found


@config_dataclass("optimizer")
class ZerothOrderAdam(TwoSided):
    """Adam on the estimate (ZO-Adam): both moments are those of g z. `adam_eps` is what Adam adds to its divisor."""

    betas: tuple[Annotated[float, Ge(0), Le(0.999999)], Annotated[float, Ge(0), Le(0.999999)]] = (0.9, 0.999)
    adam_eps: NonNegative = 1e-8
    clip_norm: Annotated[float, Ge(1e-9)] | None = None

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, eps=self.adam_eps)


@config_dataclass("optimizer")
class ZerothOrderConservative(TwoSided):
    """The best of P, P - lr g z and P + lr g z on the step's own batch (ZO-SGD-Cons): two forward passes a step.

    P stays where neither is better. ZO-LLM makes a step and takes it back; here each candidate is made from P.
    """

    passes = 2, 3

    def estimate(
        self, model: PromptedModel, at: Parameters, batch: Batch, number: int, rates: Sequence[float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The two-sided estimate where going down it is best, its negative where going up is, or else 0."""
        losses, estimate = super().estimate(model, at, batch, number, rates)
        step = {name: broadcast_members(rates, g) * g for name, g in estimate.items()}
        down, up = evaluate_points(model, [move_along(at, step, -1.0), move_along(at, step, 1.0)], batch)
        best = torch.stack([losses, down, up]).nan_to_num(nan=torch.inf).argmin(0)  # the first where some are equal
        along = torch.tensor([0.0, 1.0, -1.0])[best]
        return losses, {name: broadcast_members(along, g) * g for name, g in estimate.items()}


@config_dataclass("optimizer")
class ForwardGradient(RandomDirections):
    """Stochastic gradient descent on (grad L . z) z, by forward-mode differentiation.

    Source: Baydin et al. 2022, "Gradients without backpropagation" (arXiv 2202.08587). The directional derivative is
    exact, there is no eps, and the loss at P comes with it. The memory is that of a forward pass, and as much again
    for the derivative; attention is computed in its plain form, since its fast kernels have no forward derivative.
    """

    clip_norm: Annotated[float, Ge(1e-9)] | None = None

    def measure_slopes(self, model: PromptedModel, at: Parameters, batch: Batch, number: int) -> tuple[Tensor, Tensor]:
        """The losses and their exact derivatives (see `RandomDirections.measure_slopes`), float64 on the CPU.

        Raises ConfigurationError where the backbone has an operation without a forward derivative.
        """
        q, drawn = self.directions, self.draw(number, at)
        points = concatenate_points([at] * q)
        tangents = concatenate_points([{name: z[name].expand_as(p) for name, p in at.items()} for z in drawn])

        def derive(part: Batch) -> Tensor:
            pair = torch.func.jvp(lambda parameters: model.losses(parameters, part), (points,), (tangents,))
            return torch.stack(pair).cpu().double()

        try:
            with sdpa_kernel(SDPBackend.MATH):
                pairs = torch.cat(map_parts(model, batch.repeat(q), derive), dim=2)
        except NotImplementedError as error:
            problem = "optimizer=forward_gradient needs a backbone that can be differentiated forwards"
            fix = f"try backbone.attention=eager, or optimizer=zo_sgd ({str(error).partition(chr(10))[0]})"
            raise ConfigurationError(f"{problem}; {fix}") from error
        losses, slopes = pairs.mean(2).unflatten(1, (q, -1))
        return losses[0], slopes


def evaluate_points(model: PromptedModel, points: Sequence[Parameters], batch: Batch) -> Tensor:
    """Mean cross-entropy (p, k), float64 on the CPU, of p points of each of k members, all in one forward pass.

    In passes of fewer examples (all points of each) where memory runs out.
    """
    parameters = model.prepare(concatenate_points(points))
    losses = map_parts(model, batch.repeat(len(points)), lambda part: model.losses(parameters, part).cpu().double())
    return torch.cat(losses, dim=1).mean(1).unflatten(0, (len(points), -1))


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
