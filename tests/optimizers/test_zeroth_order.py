"""Optimizers without a backward pass, on functions whose gradient is known and on a tiny model."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import (
    FAMILIES,
    CrossEntropy,
    PromptIsLogits,
    adamw,
    labels_only,
    plenty,
    run_in,
    toy_data,
    toy_problem,
)
from torch import Tensor

from llm_catalyst.config.build import build_components
from llm_catalyst.mentors.controls import RandomTokens
from llm_catalyst.models.base import Parameters, example_losses, stack_members
from llm_catalyst.models.heads.text import Classifier, Similarity, Verbalizer
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import Member, StepResult
from llm_catalyst.optimizers.schedule import Schedule, StepRange
from llm_catalyst.optimizers.zeroth_order import (
    ForwardGradient,
    ZerothOrderAdam,
    ZerothOrderConservative,
    ZerothOrderSGD,
)
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.training.estimate import estimate_run
from llm_catalyst.training.loop import Experiment
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.state import State, pack_state
from llm_catalyst.utils.memory import PassLimits
from llm_catalyst.utils.rng import make_generator
from llm_catalyst.utils.validation import ConfigurationError

# torch makes its forward derivatives with a function that it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

# Each of the six, and the other form of the sign, at a rate for the tiny models.
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "zo_sgd": partial(ZerothOrderSGD, lr=0.1),
    "zo_momentum": partial(ZerothOrderSGD, lr=0.02, momentum=0.9),
    "zo_sign": partial(ZerothOrderSGD, lr=0.03, sign_of="estimate"),
    "zo_sign, of the slope": partial(ZerothOrderSGD, lr=0.1, sign_of="slope"),
    "zo_conservative": partial(ZerothOrderConservative, lr=0.1),
    "zo_adam": partial(ZerothOrderAdam, lr=0.03),
    "forward_gradient": partial(ForwardGradient, lr=0.1),
}


def train(
    optimizer: Any, members: Sequence[Member], steps: int, model: Any, batches: Iterator[Batch] | None = None
) -> Any:
    """Train on batches in which every member's labels are (0, 1, 1), or on `batches`."""
    batches = batches or itertools.repeat(labels_only([[0, 1, 1]] * len(members)))
    return list(optimizer.train(model, members, batches, StepRange(0, steps, steps, 0)))


def member(*row: float) -> Member:
    return Member.of({"prompt": torch.tensor([row])})


def mean_loss(model: Any, parameters: Parameters, batch: Batch) -> Tensor:
    """Each member's loss (k,) by a pass of its own."""
    return example_losses(model.logits(parameters, batch), batch.labels).mean(1)


def exact_gradient(model: Any, parameters: Parameters, batch: Batch) -> dict[str, Tensor]:
    """The gradients (k, ...) by backpropagation."""
    leaves = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
    mean_loss(model, leaves, batch).sum().backward()
    return {name: p.grad for name, p in leaves.items() if p.grad is not None}


def flat(parameters: Parameters) -> Tensor:
    """Each member's entries in one row (k, n)."""
    return torch.cat([p.flatten(1) for p in parameters.values()], dim=1)


# The estimate


class Quadratic(CrossEntropy):
    """A model whose loss is x·A x / 2 + b·x of the prompt: the only class but one, so that a logit is the loss.

    With logits (-loss', 0) for a label of class 1, cross-entropy is softplus(-loss') and not quadratic; logits
    (log(exp(loss) - 1), 0) make it the loss itself, for a positive loss.
    """

    def __init__(self, n: int) -> None:
        generator = torch.Generator().manual_seed(3)
        root = torch.randn(n, n, generator=generator, dtype=torch.double) / n**0.5
        self.curve, self.tilt = root @ root.T, torch.randn(n, generator=generator, dtype=torch.double)
        self.limits = plenty()

    def value(self, x: Tensor) -> Tensor:
        return 20 + ((x @ self.curve) * x).sum(-1) / 2 + x @ self.tilt

    def logits(self, parameters: Parameters, batch: Batch) -> Tensor:
        logit = self.value(parameters["prompt"].flatten(1)).expm1().log()[:, None].expand(batch.labels.shape)
        return torch.stack([logit, torch.zeros_like(logit)], dim=-1)


def test_the_mean_of_estimates_is_the_gradient_of_a_quadratic_with_the_predicted_covariance() -> None:
    """Cov(g z) = |grad|^2 I + grad grad^T, exact for a quadratic at any eps: its two-sided slope is grad·z."""
    model, batch, draws = Quadratic(6), labels_only([[1]]), 4_000
    at = {"prompt": torch.linspace(-1, 1, 6, dtype=torch.double).view(1, 2, 3)}
    gradient = model.curve @ at["prompt"].flatten() + model.tilt
    directions = ZerothOrderSGD(0.0, draws, seed=5, eps=0.1)
    loss, slopes = directions.measure_slopes(model, at, batch, 1)  # type: ignore[arg-type]
    z = torch.stack([z["prompt"].flatten() for z in directions.draw(1, at)])
    assert loss.item() == pytest.approx(model.value(at["prompt"].flatten()).item(), abs=1e-9)
    torch.testing.assert_close(slopes[:, 0], z @ gradient, atol=1e-7, rtol=1e-7)
    estimates = slopes * z
    predicted = gradient.square().sum() * torch.eye(6) + gradient.outer(gradient)
    error = (predicted.diag() / draws).sqrt()
    assert ((estimates.mean(0) - gradient).abs() < 4 * error).all()
    torch.testing.assert_close(estimates.T.cov(), predicted, atol=0.15 * predicted.max().item(), rtol=0)
    mean = directions.combine(1, at, slopes)["prompt"].flatten()
    torch.testing.assert_close(mean, estimates.mean(0))


@pytest.fixture(scope="module")
def problem() -> Problem:
    """The toy task for a tiny BERT under a classifier."""
    return toy_problem()


def two_members(problem: Problem) -> dict[str, Tensor]:
    """Two members of a problem that are not the same."""
    start = problem.start()
    other = {name: p + 0.2 * torch.randn(p.shape, generator=make_generator(0, name)) for name, p in start.items()}
    return stack_members([start, other])


WAYS: dict[str, Callable[..., Any]] = {"two-sided": ZerothOrderSGD, "forward": ForwardGradient}


@pytest.mark.parametrize("way", WAYS)
def test_slopes_of_a_real_model_are_its_gradient_along_the_directions(problem: Problem, way: str) -> None:
    at, batch, directions = two_members(problem), next(problem.batches(2, 0)), WAYS[way](0.0, 5, seed=2)
    drawn = list(directions.draw(7, at))
    with torch.no_grad():
        losses, slopes = directions.measure_slopes(problem.model, at, batch, 7)
    gradient = flat(exact_gradient(problem.model, at, batch))
    z = torch.stack([flat({name: p[None] for name, p in z.items()})[0] for z in drawn])
    tolerance = 1e-5 if way == "forward" else 2e-3  # the latter has rounding / eps, and eps^2 of a third derivative
    torch.testing.assert_close(slopes.float(), z @ gradient.T, atol=tolerance, rtol=tolerance)
    assert losses.tolist() == pytest.approx(mean_loss(problem.model, at, batch).tolist(), abs=1e-5)


def test_the_mean_of_many_directions_is_the_gradient_of_a_real_model_within_the_predicted_error(
    problem: Problem,
) -> None:
    """|mean - grad|^2 is (n + 1) |grad|^2 / q on average, for n parameters and q directions."""
    at, batch = two_members(problem), next(problem.batches(2, 0))
    gradient = flat(exact_gradient(problem.model, at, batch))
    n, q = gradient.shape[1], 200
    total, rounds = torch.zeros_like(gradient), 5
    with torch.no_grad():
        for step in range(rounds):
            directions = ZerothOrderSGD(0.0, q, seed=4)
            _, slopes = directions.measure_slopes(problem.model, at, batch, step)
            total += flat(directions.combine(step, at, slopes)) / rounds
    for mean, exact in zip(total, gradient, strict=True):
        relative = ((mean - exact).square().sum() / exact.square().sum()).item()
        assert relative == pytest.approx((n + 1) / (q * rounds), rel=0.35)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_differentiated_forwards(family: str) -> None:
    problem = toy_problem(family)
    (step,) = train(ForwardGradient(0.1), [Member.of(problem.start())], 1, problem.model, problem.batches(1, 0))
    assert math.isfinite(step.losses[0])


def test_a_backbone_without_a_forward_derivative_is_refused_with_what_to_do() -> None:
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(rows: Tensor) -> Tensor:
            return rows.clone()

        @staticmethod
        def setup_context(*arguments: Any) -> None: ...

    with pytest.raises(ConfigurationError, match=r"backbone\.attention=eager"):
        train(ForwardGradient(0.1), [member(0.5, -0.2)], 1, PromptIsLogits(Opaque.apply))


# Steps


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_lowers_the_dev_loss_of_a_learnable_task(name: str) -> None:
    problem = toy_problem(head=Similarity(), data=toy_data(train=48, dev=24), batch_size=16)
    learner = Member.of(problem.start())
    (before,) = problem.score([learner.parameters])
    train(OPTIMIZERS[name](directions=8), [learner], 40, problem.model, problem.batches(1, 0))
    (after,) = problem.score([learner.parameters])
    assert before is not None
    assert after is not None
    assert after.score.loss < 0.8 * before.score.loss


def exact_estimate(row: Tensor, step: int) -> tuple[float, Tensor]:
    """A step's slope and direction for logits `row` and labels (0, 1, 1), by the exact gradient."""
    (z,) = ZerothOrderSGD(0.0, 1, seed=1).draw(step, {"prompt": row[None, None]})
    gradient = row.softmax(-1) - torch.tensor([1 / 3, 2 / 3])
    return (gradient @ z["prompt"][0]).item(), z["prompt"][0]


@pytest.mark.parametrize(
    ("optimizer", "reference_of", "along"),
    [
        (ZerothOrderSGD(0.3), partial(torch.optim.SGD, lr=0.3), lambda g, z: g * z),
        (ZerothOrderSGD(0.3, momentum=0.9), partial(torch.optim.SGD, lr=0.3, momentum=0.9), lambda g, z: g * z),
        (ZerothOrderAdam(0.1), partial(torch.optim.Adam, lr=0.1), lambda g, z: g * z),
        (
            ZerothOrderSGD(0.3, sign_of="estimate"),
            partial(torch.optim.SGD, lr=0.3),
            lambda g, z: (g * z).sign(),
        ),
        (ZerothOrderSGD(0.3, sign_of="slope"), partial(torch.optim.SGD, lr=0.3), lambda g, z: math.copysign(1, g) * z),
        (ForwardGradient(0.3), partial(torch.optim.SGD, lr=0.3), lambda g, z: g * z),
    ],
    ids=["sgd", "momentum", "adam", "sign of the estimate", "sign of the slope", "forward gradient"],
)
def test_steps_are_the_optimizers_own_along_the_estimate_or_the_sign_that_is_named(
    optimizer: Any, reference_of: Callable[..., torch.optim.Optimizer], along: Callable[[float, Tensor], Tensor]
) -> None:
    learner, row = member(0.5, -0.2), torch.tensor([0.5, -0.2])
    train(optimizer, [learner], 3, PromptIsLogits())
    reference = reference_of([row])
    for step in (1, 2, 3):
        row.grad = along(*exact_estimate(row, step))
        reference.step()
    torch.testing.assert_close(learner.parameters["prompt"][0].detach(), row, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("lr", [0.1, 30.0])
def test_a_conservative_step_never_makes_its_batch_worse(lr: float) -> None:
    learner, model, batch = member(0.5, -0.2), PromptIsLogits(), labels_only([[0, 1, 1]])
    losses = [step.losses[0] for step in train(ZerothOrderConservative(lr), [learner], 30, model)]
    losses.append(mean_loss(model, stack_members([learner.parameters]), batch).item())
    assert all(after <= before + 1e-6 for before, after in itertools.pairwise(losses))
    assert losses[-1] < losses[0]


def test_a_conservative_step_goes_down_or_up_the_estimate_or_nowhere_as_the_loss_has_it() -> None:
    """From x = 0, where all slopes are positive, on losses that rise with these functions of x."""

    def end(lr: float, function: Callable[[Tensor], Tensor]) -> float:
        def logits(rows: Tensor) -> Tensor:
            return torch.cat([function(rows[..., :1]), torch.zeros_like(rows[..., :1])], dim=-1)

        learner = member(0.0, 0.0)
        train(ZerothOrderConservative(lr), [learner], 1, PromptIsLogits(logits), itertools.repeat(labels_only([[1]])))
        return learner.parameters["prompt"][0, 0].item()

    assert end(0.01, lambda x: x - x**3) < 0
    assert end(1000.0, lambda x: x - x**3) > 0
    assert end(1000.0, lambda x: x + 100 * x**2) == 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_losses_told_are_those_at_the_members_themselves(problem: Problem, name: str) -> None:
    learner, batches = Member.of(problem.start()), problem.batches(1, 0)
    batch = next(problem.batches(1, 0))
    at = stack_members([{name: p.detach().clone() for name, p in learner.parameters.items()}])
    (step,) = train(OPTIMIZERS[name](directions=3), [learner], 1, problem.model, batches)
    assert step.losses[0] == pytest.approx(mean_loss(problem.model, at, batch).item(), abs=1e-6)
    assert all(
        not torch.equal(p, at[name][0]) for name, p in learner.parameters.items()
    )  # the head's weights move, too


@pytest.mark.parametrize("head", [Classifier(), Similarity(), Verbalizer()])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_members_trained_together_end_where_each_ends_alone(name: str, head: Any) -> None:
    problem = toy_problem("roberta", head=head)
    optimizer = OPTIMIZERS[name](directions=2)
    starts = [{n: p + 0.1 * i for n, p in problem.start().items()} for i in range(3)]
    together = [Member.of(start) for start in starts]
    steps = train(optimizer, together, 3, problem.model, problem.batches(3, 0))
    for i, start in enumerate(starts):
        alone = Member.of(start)
        lone = train(optimizer, [alone], 3, problem.model, problem.batches(1, 0))
        assert [s.losses[i] for s in steps] == pytest.approx([s.losses[0] for s in lone], abs=2e-4)
        if name not in ("zo_sign", "zo_adam"):  # where an entry's sign decides, rounding can turn a small one
            for n, p in alone.parameters.items():
                torch.testing.assert_close(together[i].parameters[n], p, atol=5e-4, rtol=1e-3)


# Passes and memory


class Counting(CrossEntropy):
    """The problem's model, which notes how many rows go forward in each pass; no more than `most`."""

    def __init__(self, model: Any, most: int | None = None) -> None:
        self.model, self.most, self.rows = model, most, list[int]()
        self.backbone, self.limits = model.backbone, PassLimits(10**6, 10**6)

    def logits(self, parameters: Parameters, batch: Batch) -> Tensor:
        rows = batch.labels.numel()
        if self.most and rows > self.most:
            raise torch.OutOfMemoryError("out of memory")
        self.rows.append(rows)
        return self.model.logits(parameters, batch)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "points"), [("zo_adam", [7]), ("zo_conservative", [7, 2]), ("forward_gradient", [3])])
def test_all_points_of_all_members_go_forward_in_one_pass_and_are_counted(
    problem: Problem, name: str, points: list[int]
) -> None:
    model = Counting(problem.model)
    members = [Member.of(problem.start()) for _ in range(2)]
    batch = next(problem.batches(2, 0))
    (step,) = train(OPTIMIZERS[name](directions=3), members, 1, model, iter([batch]))
    assert model.rows == [n * 2 * 8 for n in points]
    assert step.examples == sum(model.rows)
    assert (step.tokens, step.padding) == tuple(sum(points) * count for count in batch.token_counts)


@pytest.mark.parametrize("name", ["zo_sgd", "forward_gradient"])
def test_less_goes_forward_at_a_time_where_memory_runs_out_and_adds_up_to_the_same(problem: Problem, name: str) -> None:
    usual, cramped = Member.of(problem.start()), Member.of(problem.start())
    model, optimizer = Counting(problem.model, most=7), OPTIMIZERS[name](directions=1)
    (step,) = train(optimizer, [usual], 1, problem.model, problem.batches(1, 0))
    (parted,) = train(optimizer, [cramped], 1, model, problem.batches(1, 0))
    assert max(model.rows) <= 7
    assert model.limits.take_messages()
    assert (parted.losses[0], parted.examples) == (pytest.approx(step.losses[0], abs=1e-5), step.examples)
    for n, p in usual.parameters.items():
        torch.testing.assert_close(cramped.parameters[n], p, atol=2e-4, rtol=1e-3)


@contextmanager
def saved_for_backward() -> Iterator[list[int]]:
    """The bytes of every tensor that is kept for a backward pass."""
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


@pytest.mark.parametrize("name", [*OPTIMIZERS, "gradient"])
def test_nothing_is_kept_for_a_backward_pass_but_by_the_gradient(problem: Problem, name: str) -> None:
    optimizer = OPTIMIZERS[name]() if name in OPTIMIZERS else Backprop(adamw)
    with saved_for_backward() as sizes:
        train(optimizer, [Member.of(problem.start())], 1, problem.model, problem.batches(1, 0))
    assert (sum(sizes) > 0) is (name == "gradient")


@pytest.mark.parametrize(
    ("name", "moments"), [("zo_sgd", 0), ("zo_momentum", 1), ("zo_adam", 2), ("zo_conservative", 0)]
)
def test_no_perturbation_stands_in_the_saved_state(problem: Problem, name: str, moments: int) -> None:
    learner = Member.of(problem.start())
    train(OPTIMIZERS[name](directions=4), [learner], 2, problem.model, problem.batches(1, 0))
    tensors, _ = pack_state(State((learner,)))
    size = sum(p.numel() for p in learner.parameters.values())
    assert sum(tensor.numel() for tensor in tensors.values() if tensor.dim()) == (1 + moments) * size


def test_directions_are_a_function_of_seed_step_and_number() -> None:
    like = {"prompt": torch.zeros(2, 3, 4), "head.bias": torch.zeros(2, 5)}

    def drawn(seed: int, step: int, count: int = 2) -> list[dict[str, Tensor]]:
        return list(ZerothOrderSGD(0.0, count, seed=seed).draw(step, like))

    once = drawn(1, 1)
    assert [{n: p.shape for n, p in z.items()} for z in once] == [{"prompt": (3, 4), "head.bias": (5,)}] * 2
    for again in (drawn(1, 1), drawn(1, 1, count=7)):
        assert all(torch.equal(z[n], w[n]) for z, w in zip(once, again, strict=False) for n in like)
    different = [z["prompt"] for z in (*once, *drawn(1, 2), *drawn(2, 1))]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(different, 2))


def test_a_dry_run_counts_the_examples_that_a_run_then_sends_forward(tmp_path: Path) -> None:
    problem, optimizer, plan = toy_problem(restart="all"), ZerothOrderAdam(0.3, directions=2), (3, 2)
    expected = estimate_run(Experiment(problem, optimizer, RandomTokens(2), plan))
    outcome = run_in(tmp_path, Experiment(problem, optimizer, RandomTokens(2), plan))
    assert expected.train_examples == outcome.ledger.train_examples == 5 * 8 * (3 + 2 * 2)
    assert expected.steps == (3, 2 * 2)


# Divergence, courses and bounds


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_member_whose_loss_is_nan_stops_alone_with_its_last_finite_parameters(name: str) -> None:
    members = [member(0.5, -0.2), member(0.1, 0.9)]
    batches = (labels_only([[0, 1, 1]] * 2, [1] if number == 3 else ()) for number in itertools.count(1))
    steps: list[StepResult] = train(OPTIMIZERS[name](), members, 5, PromptIsLogits(), batches)
    assert [math.isnan(step.losses[1]) for step in steps] == [False, False, True, True, True]
    assert all(math.isfinite(step.losses[0]) for step in steps)
    twice = member(0.1, 0.9)
    train(OPTIMIZERS[name](), [twice], 2, PromptIsLogits())
    torch.testing.assert_close(members[1].parameters["prompt"], twice.parameters["prompt"])


@pytest.mark.parametrize("name", ["zo_sgd", "zo_sign", "zo_sign, of the slope", "zo_conservative"])
def test_a_loss_that_is_finite_at_the_member_and_not_beside_it_stops_it(name: str) -> None:
    learner = member(0.0, 1.0)  # a square root is NaN on one side of 0
    (step,) = train(OPTIMIZERS[name](), [learner], 5, PromptIsLogits(torch.sqrt))
    assert math.isnan(step.losses[0])
    assert learner.parameters["prompt"].tolist() == [[0.0, 1.0]]


def test_the_rate_follows_the_schedule_and_the_estimate_is_clipped_where_that_is_asked_for() -> None:
    row, moves = torch.tensor([0.5, -0.2]), []
    for optimizer in (
        ZerothOrderSGD(0.1),
        ZerothOrderSGD(0.1, schedule=Schedule(warm_up=0.5)),
        ZerothOrderSGD(0.1, clip_norm=0.01),
    ):
        learner = member(0.5, -0.2)
        list(
            optimizer.train(
                PromptIsLogits(), [learner], itertools.repeat(labels_only([[0, 1, 1]])), StepRange(0, 1, 4, 0)
            )
        )
        moves.append((learner.parameters["prompt"][0].detach() - row).norm().item())
    assert moves[0] > moves[2] > moves[1] == 0
    assert moves[2] == pytest.approx(0.1 * 0.01, rel=1e-2)


def test_a_run_gives_its_seed_and_schedule_to_the_optimizer(composed: Callable[..., dict[str, Any]]) -> None:
    for name, made in (("zo_momentum", ZerothOrderSGD), ("forward_gradient", ForwardGradient)):
        optimizer = build_components(
            composed(f"optimizer={name}", "optimizer.directions=4", "seed=7", "schedule.name=linear")
        ).optimizer
        assert type(optimizer) is made
        assert (optimizer.directions, optimizer.seed, optimizer.schedule) == (4, 7, Schedule("linear"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ZerothOrderSGD(-1.0), "optimizer.lr=-1.0"),
        (lambda: ZerothOrderSGD(0.1, momentum=2.0), "optimizer.momentum=2.0"),
        (lambda: ZerothOrderSGD(0.1, sign_of="z"), "optimizer.sign_of=z"),
        (lambda: ZerothOrderAdam(0.1, betas=(0.9, 1.0)), "optimizer.betas=1.0"),
        (lambda: ZerothOrderConservative(0.1, eps=0.0), "optimizer.eps=0.0"),
        (lambda: ForwardGradient(0.1, directions=0), "optimizer.directions=0"),
        (lambda: ForwardGradient(0.1, clip_norm=0.0), "optimizer.clip_norm=0.0"),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()
