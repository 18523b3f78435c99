"""Doers without a backward pass: gradients estimated from losses along random directions.

Along a direction z ~ N(0, I) over the soft prompt and the head's weights together, the slope of the batch loss L is

    g = (L(P + eps z) - L(P - eps z)) / (2 eps)

and g z is an estimate of its gradient: without bias as eps goes to 0, and with the covariance
(|grad L|^2 I + grad L grad L^T) / q where q directions are averaged. Sources: MeZO (Malladi et al. 2023, arXiv
2305.17333) and the benchmark of Zhang et al. 2024 (arXiv 2402.11592, "ZO-LLM").

Faithful to both: the two-sided estimate, z from a seed and not from memory, the updates, no dropout, no clipping
unless it is asked for. What differs: the loss that a step tells is taken at P itself (MeZO tells that at P + eps z),
all points of all members go forward in one batch, the head's weights are perturbed too, and a direction is a
function of (seed, step, number), so that a run can go on from any step. One pass takes the memory of inference on
2 q + 1 batches; `micro_batch` bounds it, and it is halved where memory runs out.

Shapes: k members, b examples of each, q directions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from llm_catalyst.models.prompted_text import Model, Parameters, stack_members
from llm_catalyst.optimizers.base import Member, StepRange, StepResult
from llm_catalyst.optimizers.descent import Descent, Schedule
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.utils.rng import make_generator
from llm_catalyst.utils.validation import ConfigurationError, check_at_least, check_choice, check_range


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


@dataclass(frozen=True)
class ZerothOrderSGD:
    """Stochastic gradient descent on the estimate: ZO-SGD (MeZO); with `momentum` ZO-SGD-MMT; with `sign_of` its sign.

    `sign_of: estimate` steps along sign(g z), entry by entry (Liu et al. 2019, "signSGD via zeroth-order oracle");
    `sign_of: slope` along sign(g) z, as the code of ZO-LLM has it.
    """

    lr: float
    momentum: float = 0.0
    sign_of: str | None = None
    eps: float = 1e-3
    directions: int = 1
    clip_norm: float | None = None
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 1

    def __post_init__(self) -> None:
        check_bounds(self.lr, self.directions, self.eps, self.clip_norm)
        check_range("optimizer.momentum", self.momentum, 0, 1)
        check_choice("optimizer.sign_of", self.sign_of or "estimate", ("estimate", "slope"))

    def train(
        self, model: Model, members: Sequence[Member], batches: Iterator[Batch], course: StepRange
    ) -> Iterator[StepResult]:
        """Train without a backward pass (see `Doer.train`)."""
        optimizer = partial(torch.optim.SGD, lr=self.lr, momentum=self.momentum)
        directions = Directions(self.seed, self.directions)
        estimate = partial(estimate_gradients, model, members, directions, self.eps, self.sign_of)
        return Descent(optimizer, self.schedule, self.clip_norm).steps(members, batches, course, estimate)


@dataclass(frozen=True)
class ZerothOrderAdam:
    """Adam on the estimate (ZO-Adam): both moments are those of g z. `adam_eps` is what Adam adds to its divisor."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-8
    eps: float = 1e-3
    directions: int = 1
    clip_norm: float | None = None
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 1

    def __post_init__(self) -> None:
        check_bounds(self.lr, self.directions, self.eps, self.clip_norm)
        check_at_least("optimizer.adam_eps", self.adam_eps, 0)
        for beta in self.betas:
            check_range("optimizer.betas", beta, 0, 0.999999)

    def train(
        self, model: Model, members: Sequence[Member], batches: Iterator[Batch], course: StepRange
    ) -> Iterator[StepResult]:
        """Train without a backward pass (see `Doer.train`); Adam's moments are left in the members."""
        optimizer = partial(torch.optim.Adam, lr=self.lr, betas=self.betas, eps=self.adam_eps)
        directions = Directions(self.seed, self.directions)
        estimate = partial(estimate_gradients, model, members, directions, self.eps, None)
        return Descent(optimizer, self.schedule, self.clip_norm).steps(members, batches, course, estimate)


@dataclass(frozen=True)
class ZerothOrderConservative:
    """The best of P, P - lr g z and P + lr g z on the step's own batch (ZO-SGD-Cons): two forward passes a step.

    P stays where neither is better. ZO-LLM makes a step and takes it back; here each candidate is made from P.
    """

    lr: float
    eps: float = 1e-3
    directions: int = 1
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 1

    def __post_init__(self) -> None:
        check_bounds(self.lr, self.directions, self.eps)

    def train(
        self, model: Model, members: Sequence[Member], batches: Iterator[Batch], course: StepRange
    ) -> Iterator[StepResult]:
        """Train without a backward pass (see `Doer.train`)."""
        descent = Descent(partial(torch.optim.SGD, lr=self.lr), self.schedule, clip_norm=None)
        return descent.steps(members, batches, course, partial(self._choose, model, members))

    @torch.no_grad()
    def _choose(
        self, model: Model, members: Sequence[Member], number: int, batch: Batch, rates: Sequence[float]
    ) -> tuple[list[float], int]:
        """Leave the estimate as gradient where descending is best, its negative or nothing where that is."""
        directions = Directions(self.seed, self.directions)
        at = stack_members([member.parameters for member in members])
        here, slopes = two_sided_slopes(model, at, batch, number, directions, self.eps)
        estimate = directions.combine(number, at, slopes)
        step = {name: broadcast_members(rates, g) * g for name, g in estimate.items()}
        down, up = evaluate_points(model, [move_along(at, step, -1.0), move_along(at, step, 1.0)], batch)
        best = torch.stack([here, down, up]).nan_to_num(nan=torch.inf).argmin(0)  # the first where some are equal
        along = torch.tensor([0.0, 1.0, -1.0])[best]
        set_gradients(members, {name: broadcast_members(along, g) * g for name, g in estimate.items()})
        return here.tolist(), 2 * self.directions + 3


@dataclass(frozen=True)
class ForwardGradient:
    """Stochastic gradient descent on (grad L . z) z, by forward-mode differentiation.

    Source: Baydin et al. 2022, "Gradients without backpropagation" (arXiv 2202.08587). The directional derivative is
    exact, there is no eps, and the loss at P comes with it. The memory is that of a forward pass, and as much again
    for the derivative; attention is computed in its plain form, since its fast kernels have no forward derivative.
    """

    lr: float
    directions: int = 1
    clip_norm: float | None = None
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 1

    def __post_init__(self) -> None:
        check_bounds(self.lr, self.directions, clip_norm=self.clip_norm)

    def train(
        self, model: Model, members: Sequence[Member], batches: Iterator[Batch], course: StepRange
    ) -> Iterator[StepResult]:
        """Train without a backward pass (see `Doer.train`).

        Raises ConfigurationError where the backbone has an operation without a forward derivative.
        """
        descent = Descent(partial(torch.optim.SGD, lr=self.lr), self.schedule, self.clip_norm)
        return descent.steps(members, batches, course, partial(self._gradients, model, members))

    @torch.no_grad()
    def _gradients(
        self, model: Model, members: Sequence[Member], number: int, batch: Batch, rates: Sequence[float]
    ) -> tuple[list[float], int]:
        directions = Directions(self.seed, self.directions)
        at = stack_members([member.parameters for member in members])
        losses, slopes = directional_derivatives(model, at, batch, list(directions.draw(number, at)))
        set_gradients(members, directions.combine(number, at, slopes))
        return losses.tolist(), self.directions


def check_bounds(lr: float, directions: int, eps: float = 1e-3, clip_norm: float | None = None) -> None:
    """Raise ConfigurationError where a setting that these doers share is out of bounds."""
    check_at_least("optimizer.lr", lr, 0)
    check_at_least("optimizer.directions", directions, 1)
    check_at_least("optimizer.eps", eps, 1e-12)
    check_at_least("optimizer.clip_norm", clip_norm, 1e-9)


@torch.no_grad()
def estimate_gradients(
    model: Model,
    members: Sequence[Member],
    directions: Directions,
    eps: float,
    sign_of: str | None,
    number: int,
    batch: Batch,
    rates: Sequence[float],
) -> tuple[list[float], int]:
    """Leave the estimate, or its sign, as the members' gradients: `descent.Gradients`."""
    at = stack_members([member.parameters for member in members])
    losses, slopes = two_sided_slopes(model, at, batch, number, directions, eps)
    estimate = directions.combine(number, at, sign_with_nan(slopes) if sign_of == "slope" else slopes)
    set_gradients(
        members, {name: sign_with_nan(g) for name, g in estimate.items()} if sign_of == "estimate" else estimate
    )
    return losses.tolist(), 2 * directions.count + 1


def two_sided_slopes(
    model: Model, at: Parameters, batch: Batch, number: int, directions: Directions, eps: float
) -> tuple[Tensor, Tensor]:
    """The loss (k,) at the members `at` (k, ...), and its slope (q, k) along the directions of step `number`."""
    sides = [move_along(at, z, side) for z in directions.draw(number, at) for side in (eps, -eps)]
    here, *there = evaluate_points(model, [at, *sides], batch)
    return here, (torch.stack(there[::2]) - torch.stack(there[1::2])) / (2 * eps)


def evaluate_points(model: Model, points: Sequence[Parameters], batch: Batch) -> Tensor:
    """Mean cross-entropy (p, k), float64 on the CPU, of p points of each of k members, all in one forward pass.

    In passes of fewer examples (all points of each) where memory runs out.
    """
    parameters, wide = concatenate_points(points), batch.repeat(len(points))

    def evaluate(size: int) -> Tensor:
        parts = (model.losses(parameters, part) for part in wide.parts(size))
        return torch.cat([losses.cpu().double() for losses in parts], dim=1).mean(1)

    return model.room.fit("examples", 1, batch.size, evaluate).unflatten(0, (len(points), -1))


def directional_derivatives(
    model: Model, at: Parameters, batch: Batch, directions: Sequence[Parameters]
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
            losses, slopes = model.room.fit("examples", 1, batch.size, evaluate).unflatten(1, (q, -1))
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


def set_gradients(members: Sequence[Member], gradients: Parameters) -> None:
    """Put each member's row of `gradients` (k, ...) where its optimizer looks for it."""
    for i, member in enumerate(members):
        for name, parameter in member.parameters.items():
            parameter.grad = gradients[name][i].clone()
