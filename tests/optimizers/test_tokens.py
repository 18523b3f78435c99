"""PEZ and GCG: against a reference of a few lines on a model that is only its prompt, and on tiny models."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs import Noting, carry_out
from helpers.tiny_models import (
    CPU,
    PromptIsLogits,
    StoppingView,
    Stops,
    labels_only,
    toy_problem,
    word_piece,
)
from torch import Tensor

from llm_catalyst.config.build import build_components
from llm_catalyst.config.settings import Checkpoints
from llm_catalyst.mentors.controls import RandomTokens
from llm_catalyst.models.base import Parameters, stack_members
from llm_catalyst.models.heads.text import Classifier, Similarity, Verbalizer
from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.optimizers.backprop import mean_gradients
from llm_catalyst.optimizers.base import Member, StepResult
from llm_catalyst.optimizers.schedule import Moments, Schedule, StepRange
from llm_catalyst.optimizers.tokens import GreedyCoordinateGradient, ProjectedGradient, measure_losses
from llm_catalyst.runs.records import Restart, Snapshot
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.training.estimate import estimate_run
from llm_catalyst.training.loop import Experiment
from llm_catalyst.training.state import State, pack_state, unpack_state
from llm_catalyst.utils.memory import PassLimits
from llm_catalyst.utils.validation import ConfigurationError

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "pez": partial(ProjectedGradient, lr=0.2, weight_decay=0.1),
    "gcg": partial(GreedyCoordinateGradient, lr=0.05, candidates=12, topk=8),
}
SHARES = torch.tensor([1 / 3, 2 / 3])  # of the labels (0, 1, 1)


def train(
    optimizer: Any,
    members: Sequence[Member],
    steps: int,
    model: Any,
    batches: Iterator[Batch] | None = None,
    at: int = 0,
) -> list[StepResult]:
    """Train on batches in which every member's labels are (0, 1, 1), or on `batches`, after `at` steps of more."""
    batches = batches or itertools.repeat(labels_only([[0, 1, 1]] * len(members)))
    return list(optimizer.train(model, members, batches, StepRange(0, at + steps, at + steps, at)))


@pytest.fixture(scope="module")
def plane() -> PromptSpace:
    """A space of BERT's kind of tokens whose embeddings are points of the plane."""
    points = torch.randn(len(word_piece()), 2, generator=torch.Generator().manual_seed(5))
    return PromptSpace(word_piece(), points, PromptSettings(length=1, start="vocabulary"))


def member(space: PromptSpace, *tokens: int) -> Member:
    return Member.of({"prompt": space.vocabulary[list(tokens)]})


def loss_of(row: Tensor) -> Tensor:
    """The mean cross-entropy of logits (..., 2) over labels (0, 1, 1)."""
    return -(row.log_softmax(-1) * SHARES).sum(-1)


def tokens_of(space: PromptSpace, member: Member) -> list[int]:
    """The vocabulary ids whose rows the member's prompt is, exactly."""
    rows = member.parameters["prompt"].detach()
    return [int((space.vocabulary == row).all(-1).nonzero()[0]) for row in rows]


# PEZ


def test_a_step_applies_the_gradient_at_the_projection_to_the_continuous_prompt(plane: PromptSpace) -> None:
    rows = plane.vocabulary[plane.allowed]
    learner, continuous = member(plane, plane.allowed_ids[3]), plane.vocabulary[[plane.allowed_ids[3]]].clone()
    reference = torch.optim.AdamW([continuous], lr=0.3, weight_decay=0.1)
    seen, optimizer = set(), ProjectedGradient(0.3, weight_decay=0.1, clip_norm=None).in_space(plane)
    for step in range(12):
        nearest = torch.cosine_similarity(rows, continuous).argmax()
        projected = continuous if step == 0 else rows[nearest][None]
        (taken,) = train(optimizer, [learner], 1, PromptIsLogits(), at=step)
        assert taken.losses[0] == pytest.approx(loss_of(projected[0]).item(), abs=1e-6)
        continuous.grad = projected.softmax(-1) - SHARES
        reference.step()
        assert torch.equal(
            learner.parameters["prompt"].detach(), rows[torch.cosine_similarity(rows, continuous).argmax()][None]
        )
        seen.add(tokens_of(plane, learner)[0])
    assert len(seen) > 1


def test_the_continuous_prompt_is_saved_with_the_member_and_is_no_parameter(plane: PromptSpace) -> None:
    learner = member(plane, 40)
    train(OPTIMIZERS["pez"]().in_space(plane), [learner], 2, PromptIsLogits())
    tensors, _ = pack_state(State((learner,)))
    saved = tensors["optimizer0/0/continuous"]
    assert not torch.equal(saved, learner.parameters["prompt"])
    assert torch.equal(plane.snap(saved), learner.parameters["prompt"])
    assert list(learner.parameters) == ["prompt"]


# GCG


@pytest.mark.parametrize("stay", [False, True])
def test_a_step_takes_the_best_of_the_tokens_along_which_the_loss_falls_most(plane: PromptSpace, stay: bool) -> None:
    """With so many candidates each of the k tokens is drawn, so that the result does not depend on the draw."""
    rows = plane.vocabulary.masked_fill(~plane.allowed[:, None], math.nan)
    for start in plane.allowed_ids[:12]:
        here = plane.vocabulary[start]
        slopes = rows @ (here.softmax(-1) - SHARES)
        steepest = [i for i in slopes.argsort().tolist() if not slopes[i].isnan()][:5]
        others = [i for i in steepest if i != start]
        best = min(others, key=lambda i: loss_of(rows[i]).item())
        expected = start if stay and loss_of(rows[best]) >= loss_of(here) else best
        learner = member(plane, start)
        optimizer = GreedyCoordinateGradient(0.0, candidates=200, topk=5, stay=stay).in_space(plane)
        (step,) = train(optimizer, [learner], 1, PromptIsLogits())
        assert tokens_of(plane, learner) == [expected]
        assert step.losses[0] == pytest.approx(loss_of(here).item(), abs=1e-6)
        assert step.examples == 3 * (1 + 200 + stay)


def test_from_the_best_token_of_all_the_prompt_moves_on_unless_it_may_stay(plane: PromptSpace) -> None:
    best = min(plane.allowed_ids, key=lambda i: loss_of(plane.vocabulary[i]).item())
    ends = []
    for stay in (False, True):
        learner = member(plane, best)
        optimizer = GreedyCoordinateGradient(0.0, candidates=50, topk=10**6, stay=stay).in_space(plane)
        train(optimizer, [learner], 1, PromptIsLogits())
        ends += tokens_of(plane, learner)
    assert ends[0] != best
    assert ends[1] == best


def test_a_prompt_beside_which_no_loss_is_finite_stays(plane: PromptSpace) -> None:
    start = plane.allowed_ids[0]
    here = plane.vocabulary[start]
    model = PromptIsLogits(lambda rows: torch.where((rows == here).all(-1, keepdim=True), rows, math.nan))
    learner = member(plane, start)
    (step,) = train(OPTIMIZERS["gcg"]().in_space(plane), [learner], 1, model)
    assert math.isfinite(step.losses[0])
    assert tokens_of(plane, learner) == [start]


@pytest.mark.parametrize(("candidates", "each"), [(64, 16), (10, 2), (3, 0)])
def test_candidates_differ_in_one_place_and_take_all_places_in_turn(candidates: int, each: int) -> None:
    space = toy_problem().space
    prompt, tokens = space.vocabulary[[50, 51, 52, 53]], torch.tensor([[60, 61], [62, 63], [64, 65], [66, 67]])
    optimizer: Any = GreedyCoordinateGradient(0.0, candidates=candidates).in_space(space)
    found = set()
    for number in range(30):
        swapped = optimizer.swap_tokens(prompt, tokens, number)
        changed = (swapped != prompt).any(-1)
        assert changed.sum(1).eq(1).all()
        assert changed.sum(0).min() >= each
        assert changed.sum(0).max() <= math.ceil(candidates / 4)
        places = changed.long().argmax(1)
        rows = swapped[torch.arange(candidates), places]
        new = [int((space.vocabulary == row).all(-1).nonzero()[0]) for row in rows]
        assert all(token in tokens[place] for token, place in zip(new, places, strict=True))
        found |= set(new)
        assert torch.equal(swapped, optimizer.swap_tokens(prompt, tokens, number))
    assert found == set(range(60, 68))


def test_the_steepest_tokens_are_those_of_the_gradient_of_the_one_hot_prompt() -> None:
    problem = toy_problem()
    space, batch, start = problem.space, next(problem.batches(1, 0)), problem.start()
    learner = Member.of(start)
    mean_gradients(problem.model, [learner], batch)
    one_hot = torch.nn.functional.one_hot(torch.tensor(tokens_of(space, learner)), len(space.vocabulary)).float()
    one_hot.requires_grad_()
    stacked = stack_members([{**start, "prompt": one_hot @ space.vocabulary}])
    problem.model.losses(stacked, batch).mean().backward()
    assert one_hot.grad is not None
    expected = (-one_hot.grad).masked_fill(~space.allowed, -math.inf).topk(6).indices
    assert torch.equal(space.steepest(learner.parameters["prompt"].grad, 6), expected)  # type: ignore[arg-type]


def test_the_heads_weights_take_adamws_step_along_the_gradient_at_the_present_prompt() -> None:
    problem = toy_problem()
    learner, reference = Member.of(problem.start()), Member.of(problem.start())
    optimizer = GreedyCoordinateGradient(0.05, weight_decay=0.2, clip_norm=None, candidates=4).in_space(problem.space)
    train(optimizer, [learner], 1, problem.model, problem.batches(1, 0))
    mean_gradients(problem.model, [reference], next(problem.batches(1, 0)))
    weights = [p for name, p in reference.parameters.items() if name != "prompt"]
    torch.optim.AdamW(weights, lr=0.05, weight_decay=0.2).step()
    assert len(weights) == 2
    for name, weight in reference.parameters.items():
        if name != "prompt":
            torch.testing.assert_close(learner.parameters[name], weight)


# Both


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("family", "head"), [("bert", Classifier()), ("gpt2", Verbalizer()), ("bert", Similarity())])
def test_the_loss_of_a_learnable_task_falls_by_allowed_tokens_alone(name: str, family: str, head: Any) -> None:
    problem = toy_problem(family, head)
    space, learner = problem.space, Member.of(problem.start())
    (before,) = problem.score([learner.parameters], "train")
    optimizer = OPTIMIZERS[name]().in_space(space)
    seen, losses = set(), []
    for _ in optimizer.train(problem.model, [learner], problem.batches(1, 0), StepRange(0, 40, 40, 0)):
        tokens = tokens_of(space, learner)
        assert set(tokens) <= set(space.allowed_ids)
        ((prompt,), (cosine,)) = problem.project([learner.parameters])
        assert (list(prompt.tokens), cosine) == (tokens, pytest.approx(1, abs=1e-6))
        seen.add(tuple(tokens))
        (result,) = problem.score([learner.parameters], "train")
        losses.append(result.score.loss)  # type: ignore[union-attr]
    assert len(seen) > 3
    assert min(losses) < 0.9 * before.score.loss  # type: ignore[union-attr]


@pytest.mark.parametrize("head", [Classifier(), Similarity()])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_members_trained_together_end_where_each_ends_alone(name: str, head: Any) -> None:
    problem = toy_problem("roberta", head)
    optimizer, start = OPTIMIZERS[name]().in_space(problem.space), problem.start()
    starts = [{**start, "prompt": problem.space.vocabulary[[i, i + 1, i + 2, i + 3]]} for i in (270, 290, 310)]
    together = [Member.of(one) for one in starts]
    steps = train(optimizer, together, 4, problem.model, problem.batches(3, 0))
    for i, one in enumerate(starts):
        alone = Member.of(one)
        lone = train(optimizer, [alone], 4, problem.model, problem.batches(1, 0))
        assert [s.losses[i] for s in steps] == pytest.approx([s.losses[0] for s in lone], abs=1e-4)
        assert tokens_of(problem.space, together[i]) == tokens_of(problem.space, alone)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_that_is_cut_off_and_saved_goes_on_to_the_same_bits(name: str) -> None:
    problem = toy_problem()
    optimizer = OPTIMIZERS[name](schedule=Schedule("cosine", 0.2)).in_space(problem.space)
    whole, parted = Member.of(problem.start()), Member.of(problem.start())
    steps = list(optimizer.train(problem.model, [whole], problem.batches(1, 0), StepRange(0, 6, 6, 0)))
    first = list(
        itertools.islice(optimizer.train(problem.model, [parted], problem.batches(1, 0), StepRange(0, 6, 6, 0)), 3)
    )
    (restored,) = unpack_state(*pack_state(State((parted,))), CPU).members
    rest = list(optimizer.train(problem.model, [restored], problem.batches(1, 3), StepRange(0, 6, 6, 3)))
    assert [*first, *rest] == steps
    assert all(torch.equal(p, restored.parameters[n]) for n, p in whole.parameters.items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_that_stopped_within_a_stage_ends_with_the_same_bytes(name: str, tmp_path: Path) -> None:
    optimizer, changes = (
        OPTIMIZERS[name](),
        {"checkpoint": Checkpoints("1"), "restart": {"choose": "all", "carry": 1.0}},
    )
    once = carry_out(tmp_path / "once", toy_problem(**changes), RandomTokens(2), optimizer)
    with suppress(Stops):
        carry_out(tmp_path / "twice", toy_problem(**changes), RandomTokens(2), optimizer, view=StoppingView(5))
    twice = carry_out(tmp_path / "twice", toy_problem(**changes), RandomTokens(2), optimizer)
    assert twice.bytes() == once.bytes()
    snapshots = once.read(Snapshot)
    assert len({snapshot.prompt for snapshot in snapshots}) > 3
    assert all(snapshot.similarity == pytest.approx(1, abs=1e-6) for snapshot in snapshots)
    assert once.outcome.best.similarity == pytest.approx(1, abs=1e-6)


# Restarts


@pytest.mark.parametrize("moments", ["prompt", "reset", "keep"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restart_begins_at_its_own_tokens_and_at_nothing_else(name: str, moments: Moments) -> None:
    problem = toy_problem()
    learner, batch = Member.of(problem.start()), next(problem.batches(1, 3))
    train(OPTIMIZERS[name]().in_space(problem.space), [learner], 3, problem.model, problem.batches(1, 0))
    tokens = [5, 50, 60, 70]  # the first is reserved: a mentor may have written it
    restarted = learner.restarted(problem.space.vocabulary[tokens], moments, 3)
    with torch.no_grad():
        here = problem.model.losses(stack_members([restarted.parameters]), batch).mean().item()
    still = ProjectedGradient(0.0) if name == "pez" else GreedyCoordinateGradient(0.0, candidates=8)
    (step,) = train(still.in_space(problem.space), [restarted], 1, problem.model, iter([batch]), at=3)
    assert step.losses[0] == pytest.approx(here, abs=1e-6)
    kept = sum(a == b for a, b in zip(tokens_of(problem.space, restarted), tokens, strict=True))
    assert kept == (4 if name == "pez" else 3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_restart_of_a_run_is_at_the_proposals_exact_embeddings_and_soft_ones_go_to_their_tokens(
    name: str, tmp_path: Path
) -> None:
    problem = toy_problem(restart={"choose": "all", "carry": 1.0, "moments": "keep"})
    noting = Noting(OPTIMIZERS[name]().in_space(problem.space))
    result = carry_out(tmp_path, problem, RandomTokens(2), noting)
    for stage in (1, 2):
        proposed = [restart.prompt for restart in result.read(Restart) if restart.stage == stage - 1]
        assert torch.equal(torch.stack(noting.prompts(stage)), problem.space.embed(proposed))
    start = {**problem.start(), "prompt": torch.randn(4, 32, generator=torch.Generator().manual_seed(2))}
    soft, snapped = Member.of(start), Member.of({**start, "prompt": problem.space.snap(start["prompt"])})
    for one in (soft, snapped):
        train(noting.optimizer, [one], 2, problem.model, problem.batches(1, 0))
    assert torch.equal(soft.parameters["prompt"], snapped.parameters["prompt"])


# Divergence, passes and memory


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_member_whose_loss_is_nan_stops_alone_with_its_last_finite_parameters(plane: PromptSpace, name: str) -> None:
    optimizer = OPTIMIZERS[name]().in_space(plane)
    members = [member(plane, 40), member(plane, 50)]
    batches = (labels_only([[0, 1, 1]] * 2, [1] if number == 3 else ()) for number in itertools.count(1))
    steps = train(optimizer, members, 5, PromptIsLogits(), batches)
    assert [math.isnan(step.losses[1]) for step in steps] == [False, False, True, True, True]
    assert all(math.isfinite(step.losses[0]) for step in steps)
    twice = member(plane, 50)
    train(optimizer, [twice], 2, PromptIsLogits())
    assert torch.equal(members[1].parameters["prompt"], twice.parameters["prompt"])


def test_a_continuous_prompt_that_overflows_stops_its_member(plane: PromptSpace) -> None:
    learner = member(plane, 40)
    steps = train(ProjectedGradient(1e37, weight_decay=1.0).in_space(plane), [learner], 5, PromptIsLogits())
    assert math.isnan(steps[-1].losses[0])
    assert learner.parameters["prompt"].isfinite().all()


class Noted(PromptIsLogits):
    """Logits that are the prompt's mean row; notes how many rows go forward in each pass, and has room for `most`."""

    def __init__(self, limits: PassLimits, most: int = 10**6) -> None:
        super().__init__(lambda rows: rows.mean(1, keepdim=True))
        self.limits, self.most, self.rows = limits, most, list[int]()

    def logits(self, parameters: Parameters, batch: Any) -> Tensor:
        self.rows.append(batch.labels.numel())
        if batch.labels.numel() > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return super().logits(parameters, batch)


@pytest.mark.parametrize(
    ("limits", "most", "rows"),
    [
        (PassLimits(100, 10**6), 10**6, [18]),
        (PassLimits(100, 30), 10**6, [6, 6, 6]),  # 2 prompts of 4 tokens on 3 texts of 1 are 30 tokens
        (PassLimits(2, 10), 10**6, [2, 1] * 6),  # no less than one prompt on micro_batch examples
        (PassLimits(100, 10**6), 8, [18, 9, *[3] * 6]),  # halved where memory runs out: from 90 tokens to 45, to 22
    ],
)
def test_candidates_go_forward_in_passes_that_fit_and_add_up_to_the_same(
    plane: PromptSpace, limits: PassLimits, most: int, rows: list[int]
) -> None:
    prompts, batch, model = plane.vocabulary[30:54].view(6, 4, 2), labels_only([[0, 1, 1]]), Noted(limits, most)
    losses = measure_losses(model, {"prompt": prompts[0]}, prompts, batch)  # type: ignore[arg-type]
    torch.testing.assert_close(losses, loss_of(prompts.mean(1)))
    assert model.rows == rows
    assert bool(model.limits.take_messages()) is (most < 18)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_dry_run_counts_the_examples_that_a_run_then_sends_forward(name: str, tmp_path: Path) -> None:
    problem, optimizer, plan = toy_problem(restart="all"), OPTIMIZERS[name](), (3, 2)
    expected = estimate_run(Experiment(problem, optimizer, RandomTokens(2), plan))
    ledger = carry_out(tmp_path, problem, RandomTokens(2), optimizer, plan).outcome.ledger
    assert expected.train_examples == ledger.train_examples == 5 * 8 * (3 + 2 * 2) * (13 if name == "gcg" else 1) // 5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_runs_that_share_their_passes_share_the_gradients(name: str) -> None:
    problem, calls = toy_problem(), []

    def gradients(*request: Any) -> list[float]:
        calls.append(request)
        return mean_gradients(*request)

    alone, shared = Member.of(problem.start()), Member.of(problem.start())
    optimizer = OPTIMIZERS[name]()
    train(optimizer.in_space(problem.space), [alone], 2, problem.model, problem.batches(1, 0))
    train(
        optimizer.share_gradients(gradients).in_space(problem.space), [shared], 2, problem.model, problem.batches(1, 0)
    )
    assert len(calls) == 2
    assert torch.equal(alone.parameters["prompt"], shared.parameters["prompt"])


# The configuration


Compose = Callable[..., dict[str, Any]]


def test_a_run_gives_its_seed_schedule_and_clipping_and_starts_from_tokens(composed: Compose) -> None:
    for name, made in (("pez", ProjectedGradient), ("gcg", GreedyCoordinateGradient)):
        words = (f"optimizer={name}", "seed=7", "schedule.name=linear", "clip_norm=0.5")
        parts = build_components(composed(*words))
        assert type(parts.optimizer) is made
        assert (parts.optimizer.schedule, parts.optimizer.clip_norm) == (Schedule("linear"), 0.5)
        assert parts.settings.prompt.start == "vocabulary"
        assert composed("experiment=quickstart", *words)["prompt"]["start"] == "text"
    assert parts.optimizer.seed == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("prompt.start=normal",), r"prompt\.start=normal does not go .*choose prompt\.start=vocabulary, or text"),
        (("prompt.projection=dot",), r"prompt\.projection=dot does not go .*choose prompt\.projection=cosine"),
        (("protocol=official", "prompt.start=vocabulary"), r"prompt\.projection=official does not go"),
        (("+optimizer.space=1",), r"no key optimizer\.space; there are: lr, betas"),
        (("optimizer.lr=-1",), r"optimizer\.lr=-1"),
    ],
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_does_not_go_with_tokens_is_refused(
    composed: Compose, name: str, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_components(composed(f"optimizer={name}", *words))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GreedyCoordinateGradient(0.1, candidates=0), r"optimizer\.candidates=0"),
        (lambda: GreedyCoordinateGradient(0.1, topk=0), r"optimizer\.topk=0"),
        (lambda: ProjectedGradient(0.1, weight_decay=-1.0), r"optimizer\.weight_decay=-1\.0"),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()
