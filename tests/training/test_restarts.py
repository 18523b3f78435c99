"""Restarts that survive their first step: from which prompts a stage starts, and how training goes on from there."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs import OPTIMIZER, TEXTS, Noting, Result, Scripted, carry_out
from helpers.tiny import consultation
from helpers.tiny_models import StoppingView, Stops, toy_data, toy_problem
from scipy import stats

from llm_catalyst.config.settings import Checkpoints, RestartSettings, Settings, StageLengths
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.models.heads.text import Similarity
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import Member, NoTraining
from llm_catalyst.optimizers.schedule import Schedule, StepRange
from llm_catalyst.runs.records import Evaluation, Proposal, Restart, Score, ScoredPrompt, Snapshot
from llm_catalyst.training.restarts import Candidate, choose_candidates, compare_losses
from llm_catalyst.training.run import warn_race
from llm_catalyst.training.state import State, pack_state, unpack_state

PLAN = (4, 6)


QUICK = Backprop(partial(torch.optim.AdamW, lr=0.03))


def carried(
    path: Path, restart: dict[str, Any], plan: tuple[int, ...] = PLAN, by: Backprop = OPTIMIZER, **more: Any
) -> tuple[Result, Noting]:
    optimizer = Noting(by)
    problem = toy_problem(head=Similarity(), restart=restart, **more)
    return carry_out(path, problem, Scripted(), optimizer, plan=plan), optimizer


# Which candidates


def candidate(loss: float | None, name: str = "a", running: bool = False) -> Candidate:
    prompt = toy_problem().space.fit(name)[0]
    score = None if loss is None else Score(loss, 1 - loss, 10)
    return Candidate(Proposal(prompt), None if running else torch.zeros(2, 4), score)


@pytest.mark.parametrize(
    ("choose", "losses", "running", "chosen"),
    [
        ("best", [0.4, 0.6], 0.3, [0.4]),
        ("all", [0.4, 0.6, None], 0.3, [0.4, 0.6, None]),
        ("first", [0.6, 0.4], 0.3, [0.6]),
        ("if_better", [0.4, 0.6], 0.3, [0.3]),
        ("if_better", [0.2, 0.6], 0.3, [0.2]),
        ("if_better", [0.3], 0.3, [0.3]),
        ("if_better", [None], 0.3, [0.3]),
        ("if_better", [0.4], None, [0.4]),
        ("race", [0.4, 0.6], 0.3, [0.4, 0.6, 0.3]),
        ("race", [0.4, None], 0.3, [0.4, 0.3]),
        ("race", [None], None, [None]),
    ],
)
def test_the_next_stage_starts_from_the_candidates_that_the_key_names(
    choose: str, losses: list[float | None], running: float | None, chosen: list[float | None]
) -> None:
    problem, now = toy_problem(restart=choose), candidate(running, running=True)
    found = choose_candidates(list(map(candidate, losses)), now, problem)
    assert [one.score and one.score.loss for one in found] == chosen
    if choose == "if_better" and losses == [running]:
        assert found == [now]  # an equal proposal is not better


def test_the_criterion_decides_which_is_better() -> None:
    worse_loss = Candidate(Proposal(toy_problem().space.fit("a")[0]), torch.zeros(1), Score(0.6, 0.9, 10))
    running = Candidate(Proposal(toy_problem().space.fit("b")[0]), None, Score(0.5, 0.8, 10))
    for criterion, better in (("loss", running), ("metric", worse_loss)):
        problem = toy_problem(restart="if_better", criterion=criterion)
        assert choose_candidates([worse_loss], running, problem) == [better]


@pytest.mark.parametrize("choose", ["if_better", "race"])
def test_a_run_whose_proposals_are_all_worse_is_the_run_without_a_mentor(tmp_path: Path, choose: str) -> None:
    data = toy_data(train=48, dev=24)
    kept, optimizer = carried(tmp_path / "kept", {"choose": choose, "race_steps": 2}, (40, 6), QUICK, data=data)
    without = carry_out(tmp_path / "none", toy_problem(head=Similarity(), data=data), plan=(40, 6), optimizer=QUICK)
    restarts = kept.read(Restart)
    assert optimizer.began[1][-1][1] is not None  # the moments go on
    assert all(r.score.loss > restarts[0].score_before.loss for r in restarts if not r.kept)
    assert [r.kept for r in restarts] == ([True] if choose == "if_better" else [False] * 3 + [True])
    assert kept.outcome.test == without.outcome.test
    assert kept.outcome.best.score == without.outcome.best.score


# Where training starts


def test_a_proposal_keeps_the_share_of_what_was_learned_beyond_the_tokens(tmp_path: Path) -> None:
    for carry in (0.0, 0.5, 1.0):
        result, optimizer = carried(tmp_path / str(carry), {"choose": "best", "carry": carry})
        problem = toy_problem(head=Similarity())
        soft = optimizer.ended[0][0]
        (restart,) = result.read(Restart)
        tokens = torch.tensor(problem.space.project(soft[None])[0][0].tokens)
        learned = soft - problem.space.vocabulary[tokens]
        text = problem.space.vocabulary[torch.tensor(restart.prompt.tokens)]
        torch.testing.assert_close(optimizer.prompts(1)[0], text + carry * learned)


def test_proposals_are_ranked_by_the_point_from_which_training_starts_and_pooled_by_their_text(tmp_path: Path) -> None:
    result, optimizer = carried(tmp_path, {"choose": "best", "carry": 1.0}, plan=(8, 2))
    problem = toy_problem(head=Similarity())
    (restart,) = result.read(Restart)
    soft = optimizer.ended[0][0]
    residual = soft - problem.space.embed(problem.space.project(soft[None])[0])[0]
    for proposal, score in restart.considered:
        (there,) = problem.score([{"prompt": problem.space.embed([proposal.prompt])[0] + residual}])
        assert score.loss == pytest.approx(there.score.loss, abs=1e-5)
        (entry,) = [s for s in result.read(ScoredPrompt) if s.prompt == proposal.prompt]
        (text,) = problem.score_prompts([proposal.prompt], {})
        assert entry.score.loss == pytest.approx(text.score.loss, abs=1e-5)
        assert entry.score.loss != score.loss
    assert [score.loss for _, score in restart.considered] == sorted(score.loss for _, score in restart.considered)


def test_without_a_residual_a_text_is_scored_once(tmp_path: Path) -> None:
    counts = {
        carry: carried(tmp_path / str(carry), {"choose": "best", "carry": carry})[0].outcome.ledger.scored_examples
        for carry in (0.0, 1.0)
    }
    assert counts[1.0] - counts[0.0] == len(TEXTS) * 12  # rows of dev


# How it goes on from there


def test_the_rate_grows_over_the_steps_after_a_restart_whatever_its_course() -> None:
    for over, begin, end in (("run", 0, 20), ("stage", 8, 20)):
        for name in ("constant", "linear"):
            rates = []
            for done in range(8, 14):
                parameter = torch.nn.Parameter(torch.zeros(1))
                optimizer = torch.optim.SGD([{"params": [parameter], "initial_lr": 2.0}], lr=2.0)
                Schedule(name, over=over).attach(optimizer, StepRange(8, 20, 20, done, warm_up=4), restarted_at=8)
                rates.append(optimizer.param_groups[0]["lr"])
            span = [1.0 if name == "constant" else 1 - (step - begin) / (end - begin) for step in range(8, 14)]
            assert rates == pytest.approx([2.0 * s * w for s, w in zip(span, (0.25, 0.5, 0.75, 1, 1, 1), strict=True)])


def test_only_the_prompts_moments_start_anew() -> None:
    member = Member.of({"prompt": torch.ones(2, 3), "head.weight": torch.ones(2)})
    member.optimizer_state = {"state": {0: {"step": 5}, 1: {"step": 5}}, "param_groups": []}
    for moments, left in (("prompt", {1}), ("keep", {0, 1})):
        assert set(member.restarted(torch.zeros(2, 3), moments, 5).optimizer_state["state"]) == left
    assert member.restarted(torch.zeros(2, 3), "reset", 5).optimizer_state is None
    assert set(member.optimizer_state["state"]) == {0, 1}


# A race


def test_a_race_trains_all_candidates_for_its_steps_and_the_best_on_dev_goes_on(tmp_path: Path) -> None:
    result, optimizer = carried(tmp_path, {"choose": "race", "race_steps": 3})
    assert [len(members) for members in optimizer.began] == [1, 4, 1]
    restarts = result.read(Restart)
    assert [(r.member, r.kept) for r in restarts] == [(0, False), (1, False), (2, False), (3, True)]
    finish = [e for e in result.read(Evaluation) if (e.stage, e.step) == (1, 7)]
    assert [e.member for e in finish] == [0, 1, 2, 3]
    winner = min(finish, key=lambda e: e.score.loss).member
    torch.testing.assert_close(optimizer.prompts(2)[0], optimizer.ended[1][winner])
    assert {e.member for e in result.read(Evaluation) if e.stage == 1 and e.step > 7} == {winner}
    assert {s.member for s in result.read(Snapshot) if s.stage == 1 and s.step > 7} == {winner}
    ledger = result.outcome.ledger
    assert ledger.gradient_steps == 4 + 4 * 3 + 3
    assert ledger.train_examples == ledger.gradient_steps * 8


def test_a_race_that_fills_its_stage_ends_with_it(tmp_path: Path) -> None:
    result, optimizer = carried(tmp_path, {"choose": "race", "race_steps": 50})
    assert [len(members) for members in optimizer.began] == [1, 4]
    assert result.outcome.ledger.gradient_steps == 4 + 4 * 6


@pytest.mark.parametrize("stop", [5, 6, 7, 8])
def test_a_run_that_stops_in_or_after_a_race_ends_like_one_that_was_not_stopped(tmp_path: Path, stop: int) -> None:
    def settings() -> dict[str, Any]:
        race = {"choose": "race", "race_steps": 3, "carry": 1.0, "moments": "prompt", "warm_up": 3}
        return {"restart": race, "checkpoint": Checkpoints(1)}

    whole = carry_out(tmp_path / "whole", toy_problem(**settings()), Scripted(), OPTIMIZER, plan=PLAN)
    with pytest.raises(Stops):
        carry_out(tmp_path / "cut", toy_problem(**settings()), Scripted(), OPTIMIZER, PLAN, view=StoppingView(stop))
    again = carry_out(tmp_path / "cut", toy_problem(**settings()), Scripted(), OPTIMIZER, plan=PLAN)
    assert again.bytes() == whole.bytes()
    assert again.outcome.test == whole.outcome.test


# What the record says


def test_a_restart_is_compared_with_the_running_prompt_row_by_row(tmp_path: Path) -> None:
    result, optimizer = carried(tmp_path, {"choose": "best"})
    problem = toy_problem(head=Similarity())
    (restart,) = result.read(Restart)
    rows = [{"prompt": optimizer.ended[0][0]}, {"prompt": optimizer.prompts(1)[0]}]
    before, after = (found.losses.double().numpy() for found in problem.score(rows))
    truth = stats.ttest_rel(after, before)
    assert restart.difference == pytest.approx((after - before).mean(), abs=1e-6)
    assert restart.difference / restart.error == pytest.approx(truth.statistic, rel=1e-4)
    assert restart.within_error is bool(abs(truth.statistic) <= 1)


def test_no_error_is_told_of_a_single_row_or_of_losses_that_are_not_known() -> None:
    assert compare_losses(torch.ones(1), torch.ones(1)) == (None, None)
    assert compare_losses(None, torch.ones(3)) == compare_losses(torch.ones(3), None) == (None, None)
    assert compare_losses(torch.tensor([1.0, 2.0, 6.0]), torch.ones(3)) == (2.0, pytest.approx(math.sqrt(7 / 3)))


def test_the_record_counts_the_distinct_prompts_of_the_stage(tmp_path: Path) -> None:
    result, _ = carried(tmp_path, {"choose": "best"})
    (restart,) = result.read(Restart)
    distinct = {stage: {s.prompt for s in result.read(Snapshot) if s.stage == stage} for stage in (0, 1)}
    assert restart.distinct == len(distinct[0])
    assert result.outcome.distinct == (len(distinct[0]), len(distinct[1]))


# What a mentor is shown of the training


def test_a_mentor_is_told_the_words_that_each_row_has_moved_towards(tmp_path: Path) -> None:
    """Those whose embeddings have the largest cosine to end - start of the stage, of the tokens that may be used."""
    mentor, optimizer = Scripted(), Noting(QUICK)
    problem = toy_problem(head=Similarity())
    carry_out(tmp_path, problem, mentor, optimizer, plan=(6, 2, 4))
    for stage, context in enumerate(mentor.shown):
        moved = optimizer.ended[stage][0] - optimizer.prompts(stage)[0]
        cosines = torch.cosine_similarity(moved[:, None], problem.space.vocabulary[None], dim=-1)
        cosines[:, ~problem.space.allowed] = -2
        assert context.moves == tuple(map(tuple, cosines.argsort(dim=-1, descending=True)[:, :3].tolist()))


def test_nothing_is_told_of_a_prompt_that_no_step_moves(tmp_path: Path) -> None:
    mentor = Scripted()
    carry_out(tmp_path, toy_problem(head=Similarity()), mentor, NoTraining())
    assert [context.moves for context in mentor.shown] == [(), ()]


def test_the_words_stand_in_the_request_of_the_papers_strategy_unless_they_are_not_wanted() -> None:
    context = replace(consultation(), moves=((5, 6), (7, 8)))
    words = [context.space.decode([token]) for token in (5, 6, 7, 8)]
    shown = Paper().build_request(context).messages[1].content
    assert f'1. "{words[0]}", "{words[1]}"; 2. "{words[2]}", "{words[3]}"' in shown
    hidden = Paper(show_moves=False).build_request(context).messages[1].content
    assert hidden == Paper().build_request(consultation()).messages[1].content
    assert "way points to" not in hidden


# What is saved, and what a run without the keys is


def test_what_a_restart_needs_comes_back_from_disk() -> None:
    member = Member.of({"prompt": torch.ones(2, 3)})
    member.restarted_at, member.stage_start = 4, torch.full((2, 3), 0.5)
    state = State((member,), racing=True, distinct=(3, 1), losses=torch.tensor([0.1, 0.2]))
    back = unpack_state(*pack_state(state), torch.device("cpu"))
    assert (back.members[0].restarted_at, back.racing, back.distinct) == (4, True, (3, 1))
    assert torch.equal(back.members[0].stage_start, member.stage_start)
    assert torch.equal(back.losses, state.losses)


def test_a_state_of_an_earlier_revision_has_none_of_it() -> None:
    tensors, values = pack_state(State((Member.of({"prompt": torch.ones(2, 3)}),)))
    old = {name: value for name, value in values.items() if name not in ("racing", "distinct", "restarted_at")}
    back = unpack_state(tensors, old, torch.device("cpu"))
    assert (back.racing, back.distinct, back.losses) == (False, (), None)
    assert (back.members[0].restarted_at, back.members[0].stage_start) == (None, None)


@pytest.mark.parametrize(
    ("stages", "steps", "share", "plan"),
    [
        (4, 200, 0.1, (80, 80, 80, 560)),
        (4, 200, None, (200,) * 4),
        (4, 200, 0.25, (200,) * 4),
        (4, 200, 0.9, (200,) * 4),
        (1, 200, 0.1, (200,)),
        (2, 100, 0.1, (20, 180)),
        (3, 3, 0.1, (1, 1, 7)),
        (20, 10, 0.1, (10,) * 20),
        (4, 1, 0.1, (1, 1, 1, 1)),
    ],
)
def test_early_stages_take_their_share_of_the_run(
    stages: int, steps: int, share: float | None, plan: tuple[int, ...]
) -> None:
    settings = Settings(stages=stages, stage=StageLengths(steps=steps, early_share=share))
    assert settings.plan(examples=100) == plan
    assert sum(plan) == stages * steps


def test_a_list_of_stages_is_taken_as_it_is() -> None:
    assert Settings(stage=StageLengths(steps=[5, 7], early_share=0.1)).plan(examples=100) == (5, 7)


def test_the_defaults_are_those_of_the_page_on_the_method() -> None:
    assert RestartSettings() == RestartSettings("if_better", 1.0, "prompt", 10, 10)


@pytest.mark.parametrize(
    ("choose", "steps", "plan", "warned"),
    [
        ("race", 10, (5, 20, 40), False),
        ("race", 20, (5, 40, 20), True),
        ("race", 30, (50, 20), True),
        ("race", 10, (5,), False),
        ("all", 30, (50, 20), False),
    ],
)
def test_a_race_that_would_fill_its_stage_is_warned_of(
    choose: Any, steps: int, plan: tuple[int, ...], warned: bool
) -> None:
    settings = Settings(restart=RestartSettings(choose=choose, race_steps=steps))
    expected = f"restart.race_steps={steps} is not smaller than a stage of 20 steps"
    assert [expected in words for words in warn_race(settings, plan)] == [True] * warned
