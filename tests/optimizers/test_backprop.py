"""Backpropagation, on tiny models and on a model whose steps can be worked out by hand."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from helpers.tiny_models import PromptIsLogits, adamw, labels_only, toy_problem
from torch import Tensor

from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import Member, StepResult
from llm_catalyst.optimizers.schedule import Moments, Schedule, StepRange
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.utils.validation import ConfigurationError

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AdamW": partial(torch.optim.AdamW, lr=0.02, weight_decay=0.0),
    "Adam": partial(torch.optim.Adam, lr=0.02),
    "SGD": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "Adafactor": partial(torch.optim.Adafactor, lr=0.1),
}


def train(
    optimizer: Backprop, members: Sequence[Member], steps: int, model: Any = None, **place: Any
) -> list[StepResult]:
    """Train on batches in which every member's labels are (0, 1, 1), or on `place['batches']`."""
    batches = place.get("batches") or itertools.repeat(labels_only([[0, 1, 1]] * len(members)))
    first, total = place.get("first", 0), place.get("total", steps)
    step_range = StepRange(first, first + steps, total, first)
    return list(optimizer.train(model or PromptIsLogits(), members, batches, step_range))


def member(*row: float) -> Member:
    return Member.of({"prompt": torch.tensor([row])})


def slope(row: Tensor) -> Tensor:
    """Gradient of the mean cross-entropy over labels (0, 1, 1) with respect to the logits `row`."""
    return row.softmax(-1) - torch.tensor([1 / 3, 2 / 3])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss_of_a_learnable_task(name: str) -> None:
    problem = toy_problem()
    learner = Member.of(problem.start())
    (before,) = problem.score([learner.parameters], "train")
    train(Backprop(OPTIMIZERS[name]), [learner], 40, problem.model, batches=problem.batches(1, 0))
    (after,) = problem.score([learner.parameters], "train")
    assert before is not None
    assert after is not None
    assert after.score.loss < 0.8 * before.score.loss
    assert all(p.grad is None for p in problem.model.backbone.parameters())


def test_a_step_is_the_optimizers_own_on_the_mean_cross_entropy() -> None:
    learner = member(0.5, -0.2)
    (step,) = train(Backprop(partial(torch.optim.SGD, lr=0.7)), [learner], 1)
    row = torch.tensor([0.5, -0.2])
    loss = -(row.log_softmax(-1) * torch.tensor([1 / 3, 2 / 3])).sum().item()
    assert step.number == 1
    assert step.losses[0] == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(learner.parameters["prompt"][0].detach(), row - 0.7 * slope(row))


def recording(rates: list[float]) -> Callable[..., torch.optim.Optimizer]:
    """An optimizer that notes the learning rate of every step."""

    class Recording(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    return partial(Recording, lr=2.0)


def share(name: str, at: int, span: int, warm_up: int) -> float:
    """The share of the full rate in step `at` (from 0) of a course of `span` steps."""
    if at < warm_up:
        return at / warm_up
    left = (at - warm_up) / (span - warm_up)
    return {"constant": 1.0, "linear": 1 - left, "cosine": 0.5 * (1 + math.cos(math.pi * left))}[name]


def test_a_warm_up_at_one_rate_is_followed_by_the_course_also_where_a_run_goes_on_within_it() -> None:
    rates: list[float] = []
    optimizer, learner = Backprop(recording(rates), Schedule("linear", 0.25, warm_up_rate=1e-5)), member(0.5, -0.2)
    train(optimizer, [learner], 1, first=0, total=8)
    train(optimizer, [learner], 7, first=1, total=8)
    assert rates == pytest.approx([1e-5, 1e-5, *(2.0 * share("linear", at, 8, 2) for at in range(2, 8))])


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warm_up", [0.0, 0.25])
@pytest.mark.parametrize("over", ["run", "stage"])
def test_the_learning_rate_follows_its_course_through_the_stages(name: str, warm_up: float, over: str) -> None:
    rates: list[float] = []
    optimizer, learner = Backprop(recording(rates), Schedule(name, warm_up, over)), member(0.5, -0.2)
    plan, first = (4, 8, 4), 0
    for steps in plan:
        train(optimizer, [learner], steps, first=first, total=sum(plan))
        first += steps
    spans = [(sum(plan), range(16))] if over == "run" else [(steps, range(steps)) for steps in plan]
    expected = [2.0 * share(name, at, span, round(warm_up * span)) for span, steps in spans for at in steps]
    assert rates == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("moments", ["prompt", "reset", "keep"])
def test_the_course_goes_on_over_a_restart_whether_moments_are_kept_or_not(moments: Moments) -> None:
    rates: list[float] = []
    optimizer, learner = Backprop(recording(rates), Schedule("linear")), member(0.5, -0.2)
    train(optimizer, [learner], 4, total=8)
    train(optimizer, [learner.restarted(torch.tensor([[1.0, 1.0]]), moments, 4)], 4, first=4, total=8)
    assert rates == pytest.approx([2.0 * (1 - i / 8) for i in range(8)])


@pytest.mark.parametrize("clip", [0.1, 0.3, 100.0, None])
def test_gradients_are_clipped_at_the_norm_and_no_lower(clip: float | None) -> None:
    learner, row = member(2.0, -2.0), torch.tensor([2.0, -2.0])
    train(Backprop(partial(torch.optim.SGD, lr=1.0), clip_norm=clip), [learner], 1)
    moved = (learner.parameters["prompt"][0].detach() - row).norm().item()
    norm = slope(row).norm().item()
    assert norm > 0.3
    assert moved == pytest.approx(min(norm, clip or math.inf), rel=1e-4)


def test_every_member_is_clipped_by_its_own_norm() -> None:
    """A member with a large gradient takes nothing from the step of one with a small gradient."""
    rows = [torch.tensor([5.0, -5.0]), torch.tensor([0.1, 0.5])]
    members = [member(*row.tolist()) for row in rows]
    train(Backprop(partial(torch.optim.SGD, lr=1.0), clip_norm=0.4), members, 1)
    for learner, row in zip(members, rows, strict=True):
        gradient = slope(row)
        expected = row - gradient * min(1.0, 0.4 / gradient.norm().item())
        torch.testing.assert_close(learner.parameters["prompt"][0].detach(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adafactor"])
def test_members_trained_together_end_where_each_ends_alone(name: str) -> None:
    problem, optimizer = toy_problem("roberta"), Backprop(OPTIMIZERS[name])
    starts = [
        {n: p + 0.3 * i * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) for n, p in start.items()}
        for i, start in enumerate([problem.start()] * 3)
    ]
    together = [Member.of(start) for start in starts]
    steps = train(optimizer, together, 5, problem.model, batches=problem.batches(3, 0))
    for i, start in enumerate(starts):
        alone = Member.of(start)
        lone = train(optimizer, [alone], 5, problem.model, batches=problem.batches(1, 0))
        assert [s.losses[i] for s in steps] == pytest.approx([s.losses[0] for s in lone], abs=1e-5)
        for n, p in alone.parameters.items():
            torch.testing.assert_close(together[i].parameters[n], p, atol=1e-5, rtol=1e-5)
            assert not torch.equal(p, start[n])


def with_nan(members: int, at: int, who: Sequence[int]) -> Iterator[Batch]:
    """Batches in which the members `who` get a loss of NaN at step `at`, and only there."""
    for number in itertools.count(1):
        yield labels_only([[0, 1, 1]] * members, who if number == at else ())


def test_a_member_whose_loss_is_nan_stops_alone_with_its_last_finite_parameters() -> None:
    optimizer = Backprop(adamw)
    starts = [(0.5, -0.2), (0.1, 0.9), (-1.0, 1.0)]
    members = [member(*row) for row in starts]
    steps = train(optimizer, members, 6, batches=with_nan(3, 3, [1]))
    assert [math.isnan(step.losses[1]) for step in steps] == [False, False, True, True, True, True]
    assert all(math.isfinite(step.losses[i]) for step in steps for i in (0, 2))
    for i, row in enumerate(starts):
        alone = member(*row)
        train(optimizer, [alone], 2 if i == 1 else 6)
        torch.testing.assert_close(members[i].parameters["prompt"], alone.parameters["prompt"])


def test_a_stage_ends_early_when_every_member_has_stopped() -> None:
    members = [member(0.5, -0.2), member(0.1, 0.9)]
    steps = train(Backprop(adamw), members, 6, batches=with_nan(2, 4, [0, 1]))
    assert [step.number for step in steps] == [1, 2, 3, 4]
    assert all(map(math.isnan, steps[-1].losses))
    assert all(m.parameters["prompt"].isfinite().all() for m in members)


def test_a_gradient_that_is_not_finite_stops_a_member_although_its_loss_is_finite() -> None:
    learner = member(0.0, 1.0)  # the slope of a square root at 0
    (step,) = train(Backprop(adamw), [learner], 5, PromptIsLogits(torch.sqrt))
    assert math.isnan(step.losses[0])
    assert learner.parameters["prompt"].tolist() == [[0.0, 1.0]]


def test_a_member_whose_own_step_overflows_keeps_its_last_finite_parameters() -> None:
    learner = member(0.005, -0.002)
    steps = train(
        Backprop(partial(torch.optim.SGD, lr=3e38), clip_norm=None), [learner], 5, PromptIsLogits(lambda row: 100 * row)
    )
    assert math.isnan(steps[-1].losses[0])
    assert learner.parameters["prompt"].isfinite().all()


# Restarts


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_are_kept_or_reset_at_a_restart(name: str) -> None:
    optimizer, learner = Backprop(OPTIMIZERS[name]), member(0.5, -0.2, 0.4)
    train(optimizer, [learner], 3)
    assert learner.optimizer_state is not None
    assert learner.optimizer_state["state"]
    prompt = torch.tensor([[1.0, -1.0, 0.0]])
    reset, kept = learner.restarted(prompt, "reset", 3), learner.restarted(prompt, "keep", 3)
    fresh = member(1.0, -1.0, 0.0)
    assert reset.optimizer_state is None
    for m in (reset, kept, fresh):
        train(optimizer, [m], 1, first=3, total=4)
    assert torch.equal(reset.parameters["prompt"], fresh.parameters["prompt"])
    assert not torch.equal(kept.parameters["prompt"], fresh.parameters["prompt"])


def test_restarted_members_share_neither_parameters_nor_moments() -> None:
    optimizer = Backprop(adamw)
    learner = Member.of({"prompt": torch.tensor([[0.5, -0.2]]), "head.bias": torch.zeros(2)})
    train(optimizer, [learner], 2)
    twins = [learner.restarted(torch.tensor([[1.0, -1.0]]), "keep", 2) for _ in range(2)]
    before = {n: p.clone() for n, p in twins[1].parameters.items()}
    moments = twins[1].optimizer_state["state"][0]["exp_avg"].clone()  # type: ignore[index]
    train(optimizer, [twins[0]], 2)
    assert all(torch.equal(twins[1].parameters[n], p) for n, p in before.items())
    assert torch.equal(twins[1].optimizer_state["state"][0]["exp_avg"], moments)  # type: ignore[index]


def test_a_restart_keeps_the_head_and_takes_the_new_prompt() -> None:
    learner = Member.of({"prompt": torch.zeros(2, 4), "head.weight": torch.ones(2, 4)})
    new = learner.restarted(torch.full((2, 4), 3.0), "reset", 0)
    assert new.parameters["prompt"].eq(3).all()
    assert torch.equal(new.parameters["head.weight"], learner.parameters["head.weight"])
    assert list(new.parameters) == list(learner.parameters)


def test_training_in_two_stages_without_a_restart_is_training_in_one() -> None:
    optimizer, whole, parted = Backprop(adamw, Schedule("cosine", 0.2)), member(0.5, -0.2), member(0.5, -0.2)
    train(optimizer, [whole], 10)
    train(optimizer, [parted], 4, total=10)
    train(optimizer, [parted], 6, first=4, total=10)
    assert torch.equal(whole.parameters["prompt"], parted.parameters["prompt"])


# Modes and bounds


@pytest.mark.parametrize("dropout", [True, False])
def test_the_backbone_is_in_training_mode_only_where_dropout_is_asked_for_and_only_while_it_trains(
    dropout: bool,
) -> None:
    problem, modes = toy_problem("roberta"), []
    for _ in Backprop(adamw, dropout=dropout).train(
        problem.model, [Member.of(problem.start())], problem.batches(1, 0), StepRange(0, 2, 2, 0)
    ):
        modes.append((problem.model.backbone.training, problem.model.backbone.model.training))
    assert modes == [(dropout, dropout)] * 2
    assert not problem.model.backbone.training


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule("step"), "schedule.name=step"),
        (lambda: Schedule(over="epoch"), "schedule.over=epoch"),
        (lambda: Schedule(warm_up=1.5), "schedule.warm_up=1.5"),
        (lambda: Backprop(adamw, clip_norm=-1.0), "clip_norm=-1.0"),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()
