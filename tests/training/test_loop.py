"""The method on a tiny problem: stages, trajectory, pool, restarts, divergence, resumption."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from helpers.loopback import openai_chat, serve
from helpers.runs import FAST, OPTIMIZER, TEXTS, Noting, Result, Scripted, carry_out
from helpers.tiny_models import FOLDER, CrossEntropy, StoppingView, Stops, adamw, toy_data, toy_problem
from torch import Tensor

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.config.settings import Checkpoints, Evaluations, Interval, PoolSettings
from llm_catalyst.mentors.base import Mentor, MentorContext
from llm_catalyst.mentors.clients.mock import MockModel
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.mentors.clients.replay import Replay
from llm_catalyst.mentors.controls import BestOfPool, Evolution, NoMentor, Perturb, RandomTokens
from llm_catalyst.mentors.llm import LanguageModel
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.models.heads.text import Similarity, Verbalizer
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import Member
from llm_catalyst.optimizers.schedule import Schedule
from llm_catalyst.optimizers.zeroth_order import (
    ForwardGradient,
    ZerothOrderAdam,
    ZerothOrderConservative,
    ZerothOrderSGD,
)
from llm_catalyst.runs.reader import FILES, read_json
from llm_catalyst.runs.records import (
    Advice,
    Best,
    Evaluation,
    Event,
    LLMCall,
    Message,
    Outcome,
    Record,
    Rejected,
    Restart,
    ScoredPrompt,
    Snapshot,
)
from llm_catalyst.training.evaluation import evaluate_members
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.state import State

# torch makes its forward derivatives with a function that it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


class Faulty(CrossEntropy):
    """The problem's model, but the forward passes `bad` (counted from 1, those with gradients only) give NaN."""

    def __init__(self, model: Any, bad: Callable[[int], bool], also_scores: bool = False) -> None:
        self.model, self.bad, self.also_scores, self.passes = model, bad, also_scores, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def logits(self, parameters: Any, batch: Any) -> Tensor:
        logits = self.model.logits(parameters, batch)
        if not torch.is_grad_enabled():
            return logits * math.nan if self.also_scores else logits
        self.passes += 1
        return logits * math.nan if self.bad(self.passes) else logits


@dataclass(frozen=True)
class Late(RandomTokens):
    """Is asked while a stage trains."""

    overlap: ClassVar[bool] = True


@dataclass
class Forgetful(Mentor):
    """Asks a mentor, and ends before its advice is used."""

    mentor: Any

    def propose(self, context: MentorContext) -> Advice:
        self.mentor.propose(context)
        raise Stops


# What is written


def test_a_run_writes_its_trajectory_pool_restarts_metrics_and_outcome(tmp_path: Path) -> None:
    result = carry_out(tmp_path, mentor=Scripted())
    trajectory = result.read(Snapshot)
    assert [(s.stage, s.step, s.member) for s in trajectory] == [((i - 1) // 3, i, 0) for i in range(1, 10)]
    assert all(-1 <= s.similarity <= 1 and len(s.prompt.tokens) == 4 for s in trajectory)
    metrics = result.read(Evaluation)
    assert [(e.stage, e.step, e.split) for e in metrics] == [(0, 0, "dev"), *((i, 3 * i + 3, "dev") for i in range(3))]
    assert [(r.stage, r.member) for r in result.read(Restart)] == [(0, 0), (1, 0)]
    assert {entry.origin for entry in result.read(ScoredPrompt)} == {"gradient", "mentor"}
    assert result.read(Event) == result.read(LLMCall) == ()
    assert sorted(p.name for p in (tmp_path / "stages").iterdir()) == ["00", "01", "02"]
    assert read_json(tmp_path / "outcome.json", Outcome) == result.outcome
    assert result.outcome.status == "done"
    assert result.outcome.test.examples == 14


def test_snapshots_tell_the_loss_and_the_projection_at_their_step(tmp_path: Path) -> None:
    optimizer, problem = Noting(), toy_problem(record=Interval(steps=2))
    result = carry_out(tmp_path, problem, optimizer=optimizer)
    assert [s.step for s in result.read(Snapshot)] == [2, 3, 4, 6, 8, 9]  # and always at a stage's end
    ends = {s.step: s for s in result.read(Snapshot)}
    (prompt,), (similarity,) = problem.space.project(
        optimizer.prompts(1)[0][None]
    )  # without a restart: the end of stage 0
    assert ends[3].prompt == prompt
    assert ends[3].similarity == pytest.approx(similarity, abs=1e-6)


def test_training_lowers_the_dev_loss_of_the_learnable_task(tmp_path: Path) -> None:
    problem = toy_problem(data=toy_data(train=48, dev=24))
    result = carry_out(tmp_path, problem, optimizer=Backprop(partial(torch.optim.AdamW, lr=0.03)), plan=(20, 20))
    losses = [e.score.loss for e in result.read(Evaluation)]
    assert result.outcome.best.score.loss < 0.8 * losses[0]
    assert result.outcome.test_metrics["accuracy"] > result.outcome.majority


def test_the_best_state_is_the_one_with_the_best_dev_score(tmp_path: Path) -> None:
    result = carry_out(tmp_path, toy_problem(evaluate=Evaluations(steps=1)), mentor=RandomTokens())
    found = result.read(Evaluation)
    top = max(found, key=lambda e: (e.score.metric, -e.score.loss))
    best = result.outcome.best
    assert isinstance(best, Best)
    assert (best.stage, best.step, best.score) == (top.stage, top.step, top.score)


# The projection's score


def test_the_projection_is_scored_as_a_discrete_prompt_and_paid_for(tmp_path: Path) -> None:
    optimizer, problem = Noting(FAST), toy_problem(evaluate=Evaluations(steps=3, projected=True))
    result = carry_out(tmp_path, problem, optimizer=optimizer)
    start, first, second, _ = result.read(Evaluation)
    assert start.projected == start.score  # a start from the vocabulary is its own projection
    assert first.projected != first.score
    for evaluation, [(parameters, _)] in ((first, optimizer.began[1]), (second, optimizer.began[2])):
        (alone,) = problem.score_prompts(problem.space.project(parameters["prompt"][None])[0], parameters)
        assert evaluation.projected.loss == pytest.approx(alone.score.loss, abs=1e-6)
    assert result.outcome.ledger.scored_examples == 12 * (2 * 4 + len(result.read(ScoredPrompt)))


def test_to_score_projections_changes_nothing_else(tmp_path: Path) -> None:
    with_them, without = (
        carry_out(
            tmp_path / str(asked),
            toy_problem(restart="all", evaluate=Evaluations(steps=2, projected=asked)),
            RandomTokens(),
            replace(FAST, dropout=True),
        )
        for asked in (True, False)
    )
    plain = tuple(replace(evaluation, projected=None) for evaluation in with_them.read(Evaluation))
    assert None not in {evaluation.projected for evaluation in with_them.read(Evaluation)}
    assert plain == without.read(Evaluation)
    metrics = FILES[Evaluation]
    assert with_them.bytes() | {metrics: b""} == without.bytes() | {metrics: b""}
    more = 12 * len(plain)
    ledger = replace(without.outcome.ledger, scored_examples=without.outcome.ledger.scored_examples + more)
    assert settled(with_them.outcome) == replace(settled(without.outcome), ledger=ledger)


def test_each_member_has_the_score_of_its_own_projection_where_another_has_none() -> None:
    problem = toy_problem(evaluate=Evaluations(steps=3, projected=True))
    one = dict(problem.start())
    other, nowhere = {name: 2 * p for name, p in one.items()}, one | {"prompt": one["prompt"] * math.nan}
    emitted: list[Any] = []
    members = tuple(map(Member.of, (one, nowhere, other)))
    for number, member in enumerate(members):
        member.number = number
    state, _ = evaluate_members(problem, State(members), emitted.append)
    assert [evaluation.member for evaluation in emitted] == [0, 2]
    for evaluation, parameters in zip(emitted, (one, other), strict=True):
        (alone,) = problem.score_prompts(problem.space.project(parameters["prompt"][None])[0], parameters)
        assert evaluation.projected.loss == pytest.approx(alone.score.loss, abs=1e-6)
    assert emitted[0].projected != emitted[1].projected != emitted[1].score
    assert state.ledger.scored_examples == 12 * (3 + 2)


# The pool


def test_the_mentor_is_shown_the_pool_with_the_best_last_and_no_more_than_its_size(tmp_path: Path) -> None:
    mentor = Scripted()
    result = carry_out(tmp_path, toy_problem(pool=PoolSettings(candidates=3, size=4)), mentor, FAST)
    assert [(c.stage, c.stages) for c in mentor.shown] == [(0, 3), (1, 3)]
    for context in mentor.shown:
        losses = [entry.score.loss for entry in context.pool]
        assert 1 < len(losses) <= 4
        assert losses == sorted(losses, reverse=True)
        assert len({entry.prompt for entry in context.pool}) == len(losses)
    best = result.outcome.best_prompt
    assert best.score.loss == min(s.score.loss for s in result.read(ScoredPrompt) if s.stage == 2)


def test_pool_entries_are_scored_as_discrete_prompts_under_the_stages_head(tmp_path: Path) -> None:
    optimizer, problem = Noting(), toy_problem()
    result = carry_out(tmp_path, problem, optimizer=optimizer)
    entry = next(s for s in result.read(ScoredPrompt) if s.stage == 0)
    head, _ = optimizer.began[1][0]  # the head that stage 0 ended with
    (alone,) = problem.score_prompts([entry.prompt], head)
    assert alone is not None
    assert entry.score.loss == pytest.approx(alone.score.loss, abs=1e-6)


@pytest.mark.parametrize("head", [None, Similarity()])
def test_entries_of_earlier_stages_are_scored_again_only_where_the_head_was_trained(tmp_path: Path, head: Any) -> None:
    mentor = Scripted()
    carry_out(tmp_path, toy_problem(head=head, pool=PoolSettings(3, 20)), mentor, FAST)
    first, second = ({s.prompt: s.score.loss for s in c.pool} for c in mentor.shown)
    stayed = first.keys() & second.keys()
    assert len(stayed) == len(first) > 1
    assert all((first[p] == second[p]) is (head is not None) for p in stayed)


@pytest.mark.parametrize("keep", [True, False])
def test_a_pool_that_does_not_keep_forgets_the_stages_before(tmp_path: Path, keep: bool) -> None:
    mentor = Scripted(texts=())
    carry_out(tmp_path, toy_problem(head=Similarity(), pool=PoolSettings(3, 20, keep)), mentor, FAST)
    assert ({s.stage for s in mentor.shown[1].pool} == {0, 1}) is keep
    assert 1 in {s.stage for s in mentor.shown[1].pool}


# Restarts


def test_restart_best_scores_the_proposals_and_goes_on_from_the_best(tmp_path: Path) -> None:
    optimizer, problem = Noting(), toy_problem(restart="best")
    result = carry_out(tmp_path, problem, Scripted(rejected=(Rejected("hm", "too short"),)), optimizer)
    for stage, restart in enumerate(result.read(Restart)):
        losses = [score.loss for _, score in restart.considered]
        assert len(losses) == 3
        assert losses == sorted(losses)
        assert (restart.prompt, restart.score.loss) == (restart.considered[0][0].prompt, losses[0])
        assert restart.rejected == (Rejected("hm", "too short"),)
        assert restart.reason.startswith("best of 3: because of ")
        assert restart.score_before == result.read(Evaluation)[stage + 1].score
        assert restart.spread == problem.space.spread([proposal.prompt for proposal, _ in restart.considered])
        torch.testing.assert_close(torch.stack(optimizer.prompts(stage + 1)), problem.space.embed([restart.prompt]))
    assert {s.origin for s in result.read(ScoredPrompt)} == {"gradient", "mentor"}


def test_restart_first_takes_the_first_proposal_and_scores_none(tmp_path: Path) -> None:
    optimizer, problem = Noting(), toy_problem(restart="first")
    result = carry_out(tmp_path, problem, Scripted(), optimizer)
    expected = problem.space.fit(TEXTS[0])[0]
    for stage, restart in enumerate(result.read(Restart)):
        assert restart.prompt == expected
        assert restart.score is None
        assert 0 < restart.spread < 2
        assert [score for _, score in restart.considered] == [None] * 3
        torch.testing.assert_close(torch.stack(optimizer.prompts(stage + 1)), problem.space.embed([expected]))
    assert {s.origin for s in result.read(ScoredPrompt)} == {"gradient"}


def test_a_restart_from_the_pools_best_has_no_spread(tmp_path: Path) -> None:
    result = carry_out(tmp_path, mentor=BestOfPool())
    for stage, restart in enumerate(result.read(Restart)):
        entries = {s.prompt: s.score for s in result.read(ScoredPrompt) if s.stage == stage}
        assert restart.prompt == min(entries, key=lambda prompt: entries[prompt].loss)
        assert restart.spread is None
    assert {s.origin for s in result.read(ScoredPrompt)} == {"gradient"}


def test_restart_all_trains_the_proposals_side_by_side_and_the_best_goes_on(tmp_path: Path) -> None:
    optimizer, problem = Noting(), toy_problem(restart="all")
    mentor = Scripted()
    result = carry_out(tmp_path, problem, mentor, optimizer)
    assert [len(members) for members in optimizer.began] == [1, 3, 3]
    restarts = result.read(Restart)
    assert [(r.stage, r.member) for r in restarts] == [(s, i) for s in (0, 1) for i in range(3)]
    torch.testing.assert_close(torch.stack(optimizer.prompts(1)), problem.space.embed([r.prompt for r in restarts[:3]]))
    assert {s.member for s in result.read(Snapshot) if s.stage == 1} == {0, 1, 2}
    ends = [e.score.loss for e in result.read(Evaluation) if e.stage == 1]
    assert len(ends) == 3
    assert restarts[3].score_before.loss == min(ends)  # the best of the three is what stage 2 replaces
    assert result.outcome.ledger.gradient_steps == 3 + 9 + 9


def test_every_consultation_has_a_random_stream_of_its_own(tmp_path: Path) -> None:
    first, second = carry_out(tmp_path, mentor=RandomTokens()).read(Restart)
    assert {p.prompt for p, _ in first.considered}.isdisjoint({p.prompt for p, _ in second.considered})


def test_another_sample_is_the_same_run_up_to_the_first_answer(tmp_path: Path) -> None:
    def carry_out_sample(folder: str, sample: int) -> Result:
        return carry_out(tmp_path / folder, mentor=LanguageModel(MockModel(), Paper(), sample=sample))

    first, again, other = (carry_out_sample(folder, sample) for folder, sample in (("1", 0), ("2", 0), ("3", 2)))
    restarts = [result.read(Restart)[0].considered for result in (first, again, other)]
    assert restarts[0] == restarts[1] != restarts[2]
    assert first.read(LLMCall)[0].messages == other.read(LLMCall)[0].messages
    early = [[s for s in result.read(Snapshot) if s.stage == 0] for result in (first, other)]
    assert early[0] == early[1] != []


def test_a_head_that_was_trained_goes_on_through_a_restart(tmp_path: Path) -> None:
    optimizer, problem = Noting(), toy_problem(restart="all")
    carry_out(tmp_path, problem, Scripted(), optimizer)
    heads = [parameters["head.weight"] for parameters, _ in optimizer.began[1]]
    assert torch.equal(heads[0], heads[2])
    assert not torch.equal(heads[0], optimizer.began[0][0][0]["head.weight"])


@pytest.mark.parametrize("moments", ["keep", "reset"])
def test_moments_are_kept_or_reset_at_a_restart(tmp_path: Path, moments: str) -> None:
    optimizer = Noting()
    carry_out(tmp_path, toy_problem(restart={"choose": "all", "moments": moments}), Scripted(), optimizer)
    states = [state for _, state in optimizer.began[1]]
    if moments == "reset":
        assert states == [None] * 3
    else:
        assert [state["state"][0]["step"].item() for state in states] == [3.0] * 3
        assert [state["state"][0]["step"].item() for _, state in optimizer.began[2]] == [6.0] * 3


def test_a_mentor_without_proposals_changes_nothing(tmp_path: Path) -> None:
    silent, none = (carry_out(tmp_path / name, mentor=m) for name, m in (("a", Scripted(texts=())), ("b", None)))
    assert silent.bytes() == none.bytes()
    assert silent.read(Restart) == ()
    assert silent.outcome.best == none.outcome.best
    assert silent.outcome.fallbacks == 0


def test_a_mentor_that_cannot_answer_is_replaced_by_the_pools_best_and_that_is_told(tmp_path: Path) -> None:
    mentor, optimizer, problem = Scripted(texts=(), fallback="no usable proposal"), Noting(), toy_problem()
    result = carry_out(tmp_path, problem, mentor, optimizer)
    assert [(e.stage, e.kind) for e in result.read(Event)] == [(0, "fallback"), (1, "fallback")]
    assert "no usable proposal" in result.read(Event)[0].message
    assert result.outcome.fallbacks == 2
    for stage, restart in enumerate(result.read(Restart)):
        assert restart.prompt == mentor.shown[stage].pool[-1].prompt
        assert restart.fallback == "no usable proposal"
        assert restart.spread is None
        torch.testing.assert_close(torch.stack(optimizer.prompts(stage + 1)), problem.space.embed([restart.prompt]))


def test_what_the_gradient_found_is_not_put_down_to_a_mentor_that_could_not_answer(tmp_path: Path) -> None:
    result = carry_out(tmp_path, mentor=Scripted(texts=(), fallback="no usable proposal"))
    assert {s.origin for s in result.read(ScoredPrompt)} == {"gradient"}


def test_a_fallback_with_an_empty_pool_carries_on(tmp_path: Path) -> None:
    """Where every discrete prompt's score is not finite, the pool stays empty."""

    class NoScores(Problem):
        def score_prompts(self, prompts: Any, head: Any, split: Any = "dev") -> list[Any]:
            return [None] * len(prompts)

    problem = toy_problem()
    empty = NoScores(problem.data, problem.splits, problem.model, problem.space, problem.settings)
    result = carry_out(tmp_path, empty, Perturb())
    assert result.read(Restart) == result.read(ScoredPrompt) == ()
    assert (result.outcome.status, result.outcome.fallbacks, result.outcome.best_prompt) == ("done", 2, None)


# Divergence


def test_a_stage_that_diverges_is_an_event_and_the_best_finite_state_goes_on(tmp_path: Path) -> None:
    problem, optimizer = toy_problem(evaluate=Evaluations(steps=1)), Noting()
    faulty = replace(problem, model=Faulty(problem.model, lambda n: n == 5))  # the second step of stage 1
    result = carry_out(tmp_path, faulty, optimizer=optimizer)
    assert [(e.stage, e.kind) for e in result.read(Event)] == [(1, "diverged")]
    assert result.outcome.status == "done"
    assert result.outcome.diverged_stages == (1,)
    before = [e for e in result.read(Evaluation) if e.stage < 2]
    best = max(before, key=lambda e: (e.score.metric, -e.score.loss))
    (resumed,) = problem.score([optimizer.began[2][0][0]])
    assert resumed is not None
    assert resumed.score.loss == pytest.approx(best.score.loss, abs=1e-6)
    assert [s.step for s in result.read(Snapshot)] == [1, 2, 3, 4, 7, 8, 9]


def test_one_of_several_members_that_diverges_leaves_the_others_to_go_on(tmp_path: Path) -> None:
    problem, optimizer = toy_problem(restart="all"), Noting()

    class OneFaulty(Faulty):
        def logits(self, parameters: Any, batch: Any) -> Tensor:
            logits = self.model.logits(parameters, batch)
            if torch.is_grad_enabled() and logits.shape[0] == 3:
                self.passes += 1
                if self.passes == 2:
                    return logits * torch.tensor([1.0, math.nan, 1.0])[:, None, None]
            return logits

    faulty = replace(problem, model=OneFaulty(problem.model, bool))
    result = carry_out(tmp_path, faulty, Scripted(), optimizer)
    assert [(e.stage, e.kind) for e in result.read(Event)] == [(1, "diverged")]
    members = [(s.step, s.member) for s in result.read(Snapshot) if s.stage == 1]
    assert members == [(4, 0), (4, 1), (4, 2), (5, 0), (5, 2), (6, 0), (6, 2)]
    ends = {e.member: e.score.loss for e in result.read(Evaluation) if e.stage == 1}
    assert result.read(Restart)[3].score_before.loss == min(ends[0], ends[2])


def test_a_run_that_is_never_finite_ends_as_diverged_and_holds_no_number_for_it(tmp_path: Path) -> None:
    problem = toy_problem()
    faulty = replace(problem, model=Faulty(problem.model, lambda n: True, also_scores=True))
    result = carry_out(tmp_path, faulty, Scripted())
    assert result.outcome.status == "diverged"
    assert "optimizer.lr" in result.outcome.message
    assert (result.outcome.best, result.outcome.test, result.outcome.best_prompt) == (None, None, None)
    assert result.outcome.diverged_stages == (0, 1, 2)
    assert "NaN" not in (tmp_path / "outcome.json").read_text()
    assert result.read(Snapshot) == result.read(ScoredPrompt) == ()


class Exploding(torch.optim.SGD):
    """An optimizer whose second step overflows, as too high a rate does."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        self.taken = getattr(self, "taken", 0) + 1
        if self.taken == 2:
            for parameter in self.param_groups[0]["params"]:
                parameter.data.fill_(math.inf)


@pytest.mark.parametrize("record", [1, 3])
def test_a_step_that_overflows_is_a_divergence_and_not_a_crash(tmp_path: Path, record: int) -> None:
    """The loss of that step is finite still, its parameters are not: neither are their projection's numbers."""
    problem = toy_problem(record=Interval(steps=record))
    result = carry_out(tmp_path, problem, Scripted(), Backprop(partial(Exploding, lr=0.01)))
    assert 0 in result.outcome.diverged_stages
    assert result.outcome.status == "done"


# The test split


@pytest.mark.parametrize("head", [None, Verbalizer()])
def test_the_test_split_is_scored_once_at_the_end_and_never_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: Any
) -> None:
    scored: list[tuple[str, list[Tensor]]] = []
    original = Problem.score

    def watched(self: Problem, members: Any, split: Any = "dev") -> Any:
        scored.append((split, [m["prompt"].clone() for m in members]))
        return original(self, members, split)

    monkeypatch.setattr(Problem, "score", watched)
    problem = toy_problem(head=head)
    result = carry_out(tmp_path, problem, Scripted())
    splits = [split for split, _ in scored]
    # Once for the soft prompt that dev chose, for the initial prompt, and for the pool's best discrete prompt.
    assert splits.index("test") == len(splits) - 3
    assert splits[-3:] == ["test", "test", "test"]
    (soft,), (start,), (discrete,) = (prompts for _, prompts in scored[-3:])
    assert torch.equal(start, problem.start()["prompt"])
    assert problem.space.project(soft[None])[0] == [result.outcome.best.prompt]
    assert torch.equal(discrete, problem.space.embed([result.outcome.best_prompt.prompt])[0])


def test_the_reported_score_is_that_of_the_best_state_and_not_of_the_last(tmp_path: Path) -> None:
    problem, optimizer = toy_problem(), Noting(Backprop(partial(torch.optim.SGD, lr=30.0)))
    result = carry_out(tmp_path, problem, optimizer=optimizer)
    best = result.outcome.best
    assert best.step in (0, 3, 6)  # a rate this high leaves the best state behind
    (found,) = problem.score([optimizer.began[best.step // 3][0][0]], "test")
    assert found is not None
    assert result.outcome.test.loss == pytest.approx(found.score.loss, abs=1e-6)
    assert result.outcome.test_metrics == found.metrics
    assert result.outcome.test.examples == 14


# Determinism and resumption

LINEAR = Backprop(adamw, Schedule("linear", 0.1))
DROPOUT = Backprop(adamw, dropout=True)
MOMENTUM = Backprop(partial(torch.optim.SGD, lr=0.1, momentum=0.9))
ADAFACTOR = Backprop(partial(torch.optim.Adafactor, lr=0.1))
HEAVY = ZerothOrderSGD(0.1, momentum=0.9, directions=2)
WAYS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "none": (NoMentor(), OPTIMIZER, {}),
    "none, momentum": (NoMentor(), MOMENTUM, {}),
    "none, adafactor": (NoMentor(), ADAFACTOR, {}),
    "random, best": (RandomTokens(), LINEAR, {}),
    "evolution, all, kept moments": (Evolution(), OPTIMIZER, {"restart": {"choose": "all", "moments": "keep"}}),
    "perturb, first, kept moments": (Perturb(), LINEAR, {"restart": {"choose": "first", "moments": "keep"}}),
    "random, dropout": (RandomTokens(), DROPOUT, {"restart": "all"}),
    "best, projections scored": (BestOfPool(), OPTIMIZER, {"evaluate": Evaluations(steps=2, projected=True)}),
    "random, all, zeroth order, kept moments": (
        RandomTokens(),
        HEAVY,
        {"restart": {"choose": "all", "moments": "keep"}},
    ),
    "random, all, overlapped": (Late(), OPTIMIZER, {"restart": {"choose": "all", "moments": "keep"}}),
    "none, zeroth-order Adam": (NoMentor(), ZerothOrderAdam(0.1, schedule=Schedule("linear", 0.1)), {}),
    "none, conservative": (NoMentor(), ZerothOrderConservative(0.1), {}),
    "none, forward gradient": (NoMentor(), ForwardGradient(0.1), {}),
}


def settled(outcome: Outcome) -> Outcome:
    """The outcome without what clocks and the machine say."""
    return replace(outcome, seconds=0.0, finished="", peak_memory_bytes=0)


@cache
def uncut(way: str) -> Result:
    """A run of this way from beginning to end, made once for all tests of it."""
    mentor, optimizer, changes = WAYS[way]
    return carry_out(Path(FOLDER.name) / "runs" / way, toy_problem("roberta", **changes), mentor, optimizer)


@pytest.mark.parametrize("way", WAYS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path, way: str) -> None:
    mentor, optimizer, changes = WAYS[way]
    again, other = (
        carry_out(tmp_path / str(seed), toy_problem("roberta", seed=seed, **changes), mentor, optimizer)
        for seed in (1, 2)
    )
    assert again.bytes() == uncut(way).bytes()
    assert settled(again.outcome) == settled(uncut(way).outcome)
    assert other.bytes() != again.bytes()


CUTS: tuple[tuple[int, int | str], ...] = ((2, "60s"), (5, "60s"), (9, "60s"), (2, 1), (6, 1), (9, 2))


def every_way_and_every_cut() -> list[Any]:
    """All pairs; each way at one cut and one way at each cut are not slow."""
    fast = {(way, CUTS[-2]) for way in WAYS} | {("evolution, all, kept moments", cut) for cut in CUTS}
    pairs = [(way, cut) for way in WAYS for cut in CUTS]
    return [pytest.param(way, *cut, marks=[] if (way, cut) in fast else pytest.mark.slow) for way, cut in pairs]


@pytest.mark.parametrize(("way", "at", "every"), every_way_and_every_cut())
def test_a_run_that_was_cut_off_and_resumed_equals_one_that_was_not(
    tmp_path: Path, way: str, at: int, every: int | str
) -> None:
    mentor, optimizer, changes = WAYS[way]
    problem = toy_problem("roberta", checkpoint=Checkpoints(every), **changes)
    with pytest.raises(Stops):
        carry_out(tmp_path, problem, mentor, optimizer, view=StoppingView(at))
    assert not (tmp_path / "outcome.json").exists()
    within = every != "60s" and at % 3 != 1
    saved = [f"{stage:02d}" for stage in range((at - 1) // 3)] + [f"{(at - 1) // 3:02d}.step{at - 1:06d}"] * within
    assert sorted(path.name for path in tmp_path.glob("stages/*")) == saved
    resumed = carry_out(tmp_path, problem, mentor, optimizer)
    assert resumed.bytes() == uncut(way).bytes()
    assert settled(resumed.outcome) == settled(uncut(way).outcome)


def test_a_run_may_be_cut_off_more_than_once(tmp_path: Path) -> None:
    whole = carry_out(tmp_path / "whole", mentor=RandomTokens())
    for at in (2, 4, 5, 8):
        with pytest.raises(Stops):
            carry_out(tmp_path / "cut", mentor=RandomTokens(), view=StoppingView(at))
    assert carry_out(tmp_path / "cut", mentor=RandomTokens()).bytes() == whole.bytes()


# A language model that sees another history

ANSWERS = tuple(openai_chat(f"- {words}\n- {words} {words}") for words in ("a slow film", "good music"))


def asked(path: Path, history: bool | str) -> Result:
    """A run whose mentor is a model behind a server, which always gives the same two answers."""
    with serve(*ANSWERS) as server:
        client = OpenAIChat("gpt-4o-mini", f"{server.url}/v1", None)
        return carry_out(path, mentor=LanguageModel(client, Paper(), history), optimizer=FAST)


def all_but_exchanges(result: Result) -> dict[str, bytes]:
    return {name: content for name, content in result.bytes().items() if name != FILES[LLMCall]}


@pytest.mark.parametrize("history", ["shuffled", "absent"])
def test_the_history_changes_what_is_asked_and_nothing_else(tmp_path: Path, history: str) -> None:
    true, other = asked(tmp_path / "true", True), asked(tmp_path / "other", history)
    assert len(true.read(Restart)) == len(other.read(LLMCall)) == 2
    assert [e.messages for e in true.read(LLMCall)] != [e.messages for e in other.read(LLMCall)]
    assert all_but_exchanges(true) == all_but_exchanges(other)


@pytest.mark.parametrize("history", ["shuffled", "absent"])
def test_a_replay_of_another_history_gives_the_same_bytes_to_the_same_questions(tmp_path: Path, history: str) -> None:
    first = asked(tmp_path / "first", history)
    mentor = LanguageModel(Replay(str(first.path)), Paper(), history, attempts=20)
    again = carry_out(tmp_path / "again", mentor=mentor, optimizer=FAST)
    assert all_but_exchanges(again) == all_but_exchanges(first)
    assert [e.messages for e in again.read(LLMCall)] == [e.messages for e in first.read(LLMCall)]
    assert {e.reused for e in again.read(LLMCall)} == {str(first.path)}  # not "where the messages were others"


def test_a_resumed_run_mixes_the_scores_up_as_before_and_does_not_ask_again(tmp_path: Path) -> None:
    whole = asked(tmp_path / "whole", "shuffled")
    with serve(*ANSWERS) as server:
        client = OpenAIChat("gpt-4o-mini", f"{server.url}/v1", None)
        mentor = LanguageModel(client, Paper(), "shuffled")
        with pytest.raises(Stops):  # the first answer is paid for, and not yet in a saved state
            carry_out(tmp_path / "cut", mentor=Forgetful(mentor), optimizer=FAST)
        resumed = carry_out(tmp_path / "cut", mentor=mentor, optimizer=FAST)
    assert len(server.requests) == 2
    assert [e.messages for e in resumed.read(LLMCall)] == [e.messages for e in whole.read(LLMCall)]
    assert all_but_exchanges(resumed) == all_but_exchanges(whole)


# The ledger


def test_the_ledger_counts_steps_examples_and_calls(tmp_path: Path) -> None:
    class Paid(Scripted):
        def propose(self, context: MentorContext) -> Advice:
            asked = (Message("user", "?"),)
            context.record(LLMCall(context.stage, asked, "!", "m", "m", {}, (), 10, 5, 0.25, 0.1, "2026-01-01"))
            return super().propose(context)

    result = carry_out(tmp_path, mentor=Paid())
    ledger = result.outcome.ledger
    assert (ledger.gradient_steps, ledger.train_examples) == (9, 9 * 8)  # 24 rows in batches of 8
    assert (ledger.mentor_calls, ledger.input_tokens, ledger.output_tokens, ledger.cost_usd) == (2, 20, 10, 0.5)
    assert len(result.read(LLMCall)) == 2
    evaluations, candidates = len(result.read(Evaluation)), len(result.read(ScoredPrompt))
    assert ledger.scored_examples == 12 * (evaluations + candidates)


def test_the_ledger_counts_the_examples_of_an_epochs_smaller_last_batch(tmp_path: Path) -> None:
    problem = toy_problem(data=toy_data(train=10))  # batches of 8 and 2
    result = carry_out(tmp_path, problem, plan=(4,))
    assert result.outcome.ledger.train_examples == 20


def test_the_ledger_counts_the_tokens_of_training_and_the_padding_among_them(tmp_path: Path) -> None:
    problem = toy_problem(restart="all")
    ledger = carry_out(tmp_path, problem, RandomTokens(2)).outcome.ledger
    batches = [next(problem.batches(2 if step >= 3 else 1, step)) for step in range(9)]
    assert ledger.train_tokens == sum(batch.tokens.numel() for batch in batches)
    assert 0 < ledger.padding_tokens == sum(int((batch.mask == 0).sum()) for batch in batches)


def test_lines_are_json_without_nan(tmp_path: Path) -> None:
    result = carry_out(tmp_path, mentor=Scripted())
    for name, content in result.bytes().items():
        for line in content.splitlines():
            json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} in {name}"))  # noqa: B023


def test_every_record_is_shown_and_every_step_told(tmp_path: Path) -> None:
    class Listening(RunCallback):
        def __init__(self) -> None:
            self.seen: list[Record] = []
            self.steps: list[tuple[int, int]] = []

        def on_record(self, record: Record) -> None:
            self.seen.append(record)

        def on_step(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
            self.steps.append((stage, step))

    view = Listening()
    result = carry_out(tmp_path, mentor=Scripted(), view=view)
    for kind in FILES:
        assert tuple(r for r in view.seen if isinstance(r, kind)) == result.read(kind)
    assert view.steps == [((step - 1) // 3, step) for step in range(1, 10)]
