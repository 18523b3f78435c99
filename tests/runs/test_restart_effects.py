"""What a restart did: told apart from training, with the winner of those side by side, and the texts' own scores."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.recorded import evaluation, exchange, prompt, raced, restart, write_run
from helpers.runs import Noting, Result, Scripted, carry_out
from helpers.tiny_models import toy_problem

from llm_catalyst.models.heads.text import Similarity
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.runs.consultations import DESCRIPTIONS, collect_consultations
from llm_catalyst.runs.reader import read_run
from llm_catalyst.runs.records import Evaluation, Proposal, Restart, ScoredPrompt
from llm_catalyst.runs.restart_effects import RestartEffect, find_role, trace_restarts, trace_stage


def carried(path: Path, choose: dict[str, Any], plan: tuple[int, ...]) -> tuple[Result, Noting]:
    optimizer = Noting(Backprop(partial(torch.optim.AdamW, lr=0.03)))
    return carry_out(path, toy_problem(head=Similarity(), restart=choose), Scripted(), optimizer, plan), optimizer


def effects_after(result: Result, stage: int, ended: bool = True) -> list[RestartEffect]:
    restarts = [r for r in result.read(Restart) if r.stage == stage]
    return trace_stage(restarts, result.read(Evaluation), result.read(ScoredPrompt), ended)


def test_the_winner_of_a_race_is_the_one_that_the_optimizer_trained_on(tmp_path: Path) -> None:
    result, optimizer = carried(tmp_path, {"choose": "race", "race_steps": 3}, (4, 6))
    trained_on = [i for i, end in enumerate(optimizer.ended[1]) if torch.equal(end, optimizer.prompts(2)[0])]
    for ended in (False, True):  # once the race is over, whether or not the stage is
        effects = effects_after(result, 0, ended)
        assert [effect.restart.member for effect in effects if effect.won] == trained_on
        assert {effect.won for effect in effects} == {True, False}
        assert {effect.rivals for effect in effects} == {3}


@pytest.mark.parametrize("choose", [{"choose": "race", "race_steps": 50}, {"choose": "all"}])
def test_of_prompts_that_trained_side_by_side_to_the_end_the_one_that_goes_on_has_won(
    tmp_path: Path, choose: dict[str, Any]
) -> None:
    result, optimizer = carried(tmp_path, {**choose, "carry": 0.0}, (4, 6))
    best = result.outcome.best
    assert len(optimizer.ended) == 2
    (won,) = [effect.restart.member for effect in effects_after(result, 0) if effect.won]
    last = {e.member: e.score.loss for e in result.read(Evaluation) if e.stage == 1 and e.step == 10}
    assert last[won] == min(last.values())
    assert best is not None
    assert {effect.won for effect in effects_after(result, 0, ended=False)} == {None}


def test_the_texts_alone_have_the_scores_that_the_model_gives_them(tmp_path: Path) -> None:
    result, _ = carried(tmp_path / "carried", {"choose": "best", "carry": 1.0}, (8, 2))
    (effect,) = effects_after(result, 0)
    problem = toy_problem(head=Similarity())
    for proposal, score in effect.restart.considered:
        (text,) = problem.score_prompts([proposal.prompt], {})
        assert effect.alone[proposal.prompt].loss == pytest.approx(text.score.loss, abs=1e-5)
        assert effect.alone[proposal.prompt].loss != score.loss
    assert effect.carries
    (bare,) = effects_after(carried(tmp_path / "bare", {"choose": "best", "carry": 0.0}, (8, 2))[0], 0)
    assert bare.alone
    assert not bare.carries


@pytest.mark.parametrize(
    ("difference", "error", "change"),
    [(-0.07, 0.01, "lower"), (0.07, 0.01, "higher"), (-0.01, 0.02, "within the error"), (None, None, None)],
)
@pytest.mark.parametrize("after", [0.1, 0.9])
def test_an_outcome_is_that_of_the_restart_whatever_training_made_of_it(
    tmp_path: Path, difference: float | None, error: float | None, change: str | None, after: float
) -> None:
    made = replace(restart(0, [Proposal(prompt("Judge"))], [0.5], 0.55), difference=difference, error=error)
    run = replace(
        read_run(write_run(tmp_path / "run")),
        restarts=(made,),
        exchanges=(exchange(0, "1. Judge"),),
        metrics=(evaluation(0, 200, 0.55, 0.7), evaluation(1, 400, after, 0.7)),
    )
    (effect,), (consultation,) = trace_restarts(run), collect_consultations(run)
    assert effect.change == change
    assert consultation.fate == (change or "error unknown")


def test_no_outcome_speaks_of_the_end_of_a_stage() -> None:
    assert not [words for words in DESCRIPTIONS.values() if "stage" in words or "ended" in words]


@pytest.mark.parametrize(
    ("winner", "roles", "fate"),
    [(0, ["won", "lost"], "error unknown"), (1, ["lost", "won"], "error unknown"), (2, ["lost", "lost"], "not chosen")],
)
def test_of_a_race_one_proposal_or_the_running_prompt_has_won(
    tmp_path: Path, winner: int, roles: list[str], fate: str
) -> None:
    run = raced(write_run(tmp_path / "run"), winner)
    effects, consultation = trace_restarts(run), collect_consultations(run)[0]
    assert [find_role(effects, proposal.prompt) for proposal, _ in run.restarts[0].considered] == roles
    assert consultation.fate == fate
