"""The method on a generation task: the same loop, whose scores come from generated answers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs import carry_out
from helpers.tiny_models import StoppingView, Stops, backbone, toy_settings

from llm_catalyst.config.settings import Checkpoints
from llm_catalyst.mentors.clients.mock import MockModel
from llm_catalyst.mentors.controls import NoMentor, RandomTokens
from llm_catalyst.mentors.llm import LanguageModel
from llm_catalyst.mentors.strategies.gepa import Gepa
from llm_catalyst.models.heads.generation import Generation
from llm_catalyst.runs.reader import read_predictions
from llm_catalyst.runs.records import Evaluation, LLMCall, Restart
from llm_catalyst.tasks.answers import extract_answer, score_answer
from llm_catalyst.tasks.generation_task import GenerationTask
from llm_catalyst.training.problem import Problem, assemble_problem
from llm_catalyst.utils.validation import ConfigurationError

WORDS = ("good", "bad", "slow", "film", "music", "actor")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose answer is a word of the question."""
    folder = tmp_path_factory.mktemp("rows")
    lines = [
        {"question": f"{WORDS[i % 6]} {WORDS[(i // 6) % 6]} a very", "answer": ["good", "bad"][i % 2]}
        for i in range(36)
    ]
    for split, own in (("train", lines[:24]), ("test", lines[24:])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in own))
    return folder


def problem_of(rows: Path, name: str = "gpt2", few_shot: int = 0, new: int = 4, **changes: Any) -> Problem:
    task = GenerationTask(
        "toy",
        "{question}",
        "{answer}",
        path=str(rows),
        question="film {input}",
        answer="actor",
        max_new_tokens=new,
        few_shot=few_shot,
        dev_rows=6,
        dev_share=0.25,
        extract="verbatim",
        metric="contains",
    )
    data = task.load(1)
    return assemble_problem(data, backbone(name, words=True), Generation(), toy_settings(**changes))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_training_lowers_the_loss_of_the_references(rows: Path, tmp_path: Path, name: str) -> None:
    result = carry_out(tmp_path, problem_of(rows, name), NoMentor(), plan=(6, 6))
    losses = [each.score.loss for each in result.read(Evaluation)]
    assert losses[-1] < losses[0]
    assert result.outcome.test is not None


def test_predictions_hold_what_was_generated_and_its_marks(rows: Path, tmp_path: Path) -> None:
    problem = problem_of(rows)
    result = carry_out(tmp_path, problem, NoMentor())
    found = read_predictions(tmp_path)
    assert found is not None
    assert found.soft_prompt is not None
    assert found.labels == tuple(row.targets[0] for row in problem.data.test)
    marks = [
        score_answer(extract_answer(str(text), "verbatim"), [str(reference)], "contains")
        for text, reference in zip(found.soft_prompt, found.labels, strict=True)
    ]
    assert list(found.marks["soft_prompt"]) == marks
    assert result.outcome.test is not None
    assert result.outcome.test.metric == pytest.approx(sum(marks) / len(marks))
    assert set(result.outcome.test_metrics) == {"contains", "answered"}


def test_members_and_requests_are_scored_alike_alone_and_together(rows: Path) -> None:
    problem = problem_of(rows)
    one, two = problem.start(), problem.start()
    two["prompt"] = two["prompt"].flip(0)
    together = problem.score([one, two])
    narrow = problem_of(rows, token_budget=1)
    for alone, found in zip([narrow.score([member])[0] for member in (one, two)], together, strict=True):
        assert alone is not None
        assert found is not None
        assert found.answers == alone.answers
        torch.testing.assert_close(found.losses, alone.losses, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mentor", [RandomTokens(), LanguageModel(MockModel(), Gepa())], ids=["random", "gepa"])
def test_a_run_that_was_cut_off_and_resumed_equals_one_that_was_not(rows: Path, tmp_path: Path, mentor: Any) -> None:
    whole = carry_out(tmp_path / "whole", problem_of(rows), mentor)
    cut = problem_of(rows, checkpoint=Checkpoints(1))
    with pytest.raises(Stops):
        carry_out(tmp_path / "cut", cut, mentor, view=StoppingView(5))
    resumed = carry_out(tmp_path / "cut", cut, mentor)
    dated = {"exchanges.jsonl": b""}  # requests to a mentor have dates
    assert resumed.bytes() | dated == whole.bytes() | dated
    assert whole.read(Restart) or whole.read(LLMCall)
    settle = {"seconds": 0.0, "finished": "", "peak_memory_bytes": 0}
    assert replace(resumed.outcome, **settle) == replace(whole.outcome, **settle)  # type: ignore[arg-type]


def test_examples_of_the_few_shot_block_are_not_trained_on(rows: Path) -> None:
    plain, shots = problem_of(rows), problem_of(rows, few_shot=2)
    assert len(shots.data.train) == len(plain.data.train) - 2
    assert shots.data.test == plain.data.test
    assert min(shots.splits["train"].length(i) for i in range(4)) > min(
        plain.splits["train"].length(i) for i in range(4)
    )


def test_what_does_not_fit_is_refused_with_the_share_of_rows(rows: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"task\.max_new_tokens=1 is less than .* rows \(100.0%\) of train"):
        problem_of(rows, new=1)
    with pytest.raises(
        ConfigurationError, match=r"of train need up to \d+ tokens, .* has 64 positions; make task\.few"
    ):
        problem_of(rows, new=60)
