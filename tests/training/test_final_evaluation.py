"""The end of a run: the scores of the untrained start, and the answers on each row."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.runs import carry_out
from helpers.tiny_models import toy_data, toy_problem

from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.runs.reader import read_predictions
from llm_catalyst.runs.records import Evaluation

LEARNING = Backprop(partial(torch.optim.Adam, lr=0.05))


def test_the_scores_are_those_of_the_answers_on_each_row(tmp_path: Path) -> None:
    data = toy_data()
    numbered = replace(data, test=tuple(replace(row, row=10 + i) for i, row in enumerate(data.test)))
    result = carry_out(tmp_path, toy_problem(data=numbered), optimizer=LEARNING)
    found, outcome = read_predictions(tmp_path), result.outcome
    assert found is not None
    assert outcome.test
    assert outcome.start_test
    assert outcome.test_best_prompt
    assert (found.split, found.rows) == ("test", tuple(range(10, 24)))
    assert found.labels == tuple(row.label for row in data.test)
    for answers, score in (
        (found.soft_prompt, outcome.test),
        (found.best_prompt, outcome.test_best_prompt),
        (found.start, outcome.start_test),
    ):
        assert answers is not None
        right = sum(answer == label for answer, label in zip(answers, found.labels, strict=True))
        assert right / len(found.labels) == pytest.approx(score.metric)


def test_the_start_has_the_scores_of_the_initial_prompt_before_any_step(tmp_path: Path) -> None:
    problem = toy_problem()
    outcome = carry_out(tmp_path / "trained", problem, optimizer=LEARNING).outcome
    untrained = problem.score([problem.start()], "test")[0]
    assert untrained
    assert outcome.start_test == untrained.score != outcome.test
    (first,) = (e for e in carry_out(tmp_path / "again", problem).read(Evaluation) if e.step == 0)
    assert outcome.start_dev == first.score
