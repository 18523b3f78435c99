"""Where a run begins: the task's own sentence, or the prompts of a file (prompt.start=task, file)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs import carry_out
from helpers.tiny_models import StoppingView, Stops, toy_problem, toy_task

from llm_catalyst.mentors.controls import Evolution, NoMentor
from llm_catalyst.models.heads.text import Verbalizer
from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.optimizers.base import NoTraining
from llm_catalyst.runs.records import Evaluation, ScoredPrompt, Snapshot
from llm_catalyst.training.problem import Problem
from llm_catalyst.utils.validation import ConfigurationError

FILE = "slow music\n\na very good film\nbad\n"
TEXTS = ("slow music", "a very good film", "bad")
PLAN = (1, 1, 1)


def problem_of(folder: Path, content: str | None = FILE, **prompt: Any) -> Problem:
    if content is not None:
        (folder / "first.txt").write_text(content, encoding="utf-8")
        prompt = {"start": "file", "file": str(folder / "first.txt")} | prompt
    settings = PromptSettings(**({"length": 6, "fill": "none"} | prompt))
    return toy_problem(head=Verbalizer(), prompt=settings)


def test_all_prompts_of_a_file_enter_the_pool_and_the_best_on_dev_is_the_start(tmp_path: Path) -> None:
    problem = problem_of(tmp_path)
    prompts = [problem.space.fit(text)[0] for text in TEXTS]
    losses = [result.score.loss for result in problem.score_prompts(prompts, {}) if result]
    result = carry_out(tmp_path / "run", problem, NoMentor(), NoTraining(), PLAN)
    scored = result.read(ScoredPrompt)[:3]
    assert [(entry.prompt, entry.origin, entry.stage) for entry in scored] == [(p, "user", 0) for p in prompts]
    assert [entry.score.loss for entry in scored] == pytest.approx(losses, abs=1e-5)
    best = prompts[losses.index(min(losses))]
    assert best != prompts[0]
    assert result.read(Snapshot)[0].prompt == best
    assert result.outcome.best is not None
    assert (result.outcome.best.prompt, result.outcome.best.similarity) == (best, pytest.approx(1.0))
    start = next(e.score for e in result.read(Evaluation) if e.step == 0)
    assert start == result.outcome.start_dev
    (test,) = problem.score_prompts([best], {}, "test")
    assert test is not None
    assert result.outcome.start_test == test.score


def test_a_killed_run_from_a_file_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    arguments: Any = (problem_of(tmp_path), Evolution(), NoTraining(), PLAN)
    whole = carry_out(tmp_path / "whole", *arguments)
    for at in (1, 2, 3):
        with pytest.raises(Stops):
            carry_out(tmp_path / f"killed{at}", *arguments, view=StoppingView(at))
        again = carry_out(tmp_path / f"killed{at}", *arguments)
        assert again.bytes() == whole.bytes()
        assert again.outcome.start_test == whole.outcome.start_test


def test_the_tasks_own_sentence_is_the_start(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, None, start="task", length=9)
    prompt = problem.space.fit(toy_task().description)[0]
    assert torch.equal(problem.start()["prompt"], problem.space.embed([prompt])[0])
    result = carry_out(tmp_path / "run", problem, NoMentor(), NoTraining(), PLAN)
    assert [(e.prompt, e.origin) for e in result.read(ScoredPrompt)] == [(prompt, "user")]
    assert len(prompt.tokens) < 9 or problem.space.fit(toy_task().description)[1]


def test_a_gradient_starts_from_the_first_prompt_of_a_file_which_alone_is_read(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, fill="repeat")
    assert torch.equal(problem.start()["prompt"], problem.space.embed([problem.space.fit(TEXTS[0])[0]])[0])
    result = carry_out(tmp_path / "run", problem)
    assert {entry.origin for entry in result.read(ScoredPrompt)} == {"gradient"}


def test_a_prompt_that_is_too_long_is_cut_and_the_run_says_so(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, "a very good film bad\nslow\n", length=3)
    (warning,) = problem.warnings
    assert warning == (
        'prompt.start=file: "a very good film bad" has more than prompt.length=3 tokens, and is cut to "a very good"'
    )


def test_a_prompt_without_a_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"prompt\.file: '\\u200b' holds no token of this tokenizer"):
        problem_of(tmp_path, "good film\n\u200b\n")
