"""Scores of many prompts on one split."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from helpers.tiny_models import LABELS, CrossEntropy, PromptIsLogits, examples, toy_data, toy_problem
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor

from llm_catalyst.models.base import Parameters
from llm_catalyst.models.heads.text import Similarity, Verbalizer
from llm_catalyst.runs.records import Best, Score
from llm_catalyst.tasks.batching import Batch, Encoded
from llm_catalyst.training.final_evaluation import describe_verdict
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.scoring import ScoringResult, classification_metrics, make_result, score_members
from llm_catalyst.training.state import State
from llm_catalyst.utils.memory import PassLimits


@dataclass
class Watched(CrossEntropy):
    """A model that notes how many padded tokens, prompts included, each forward pass took."""

    problem: Problem
    limits: PassLimits
    passes: list[int] = field(default_factory=list)

    @property
    def backbone(self) -> Any:
        return self.problem.model.backbone

    def logits(self, parameters: Parameters, batch: Batch) -> Tensor:
        k, rows, length = batch.tokens.shape
        self.passes.append(k * rows * (length + parameters["prompt"].shape[1]))
        return self.problem.model.logits(parameters, batch)


def members_of(problem: Problem, k: int) -> list[dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(4)
    return [{name: torch.randn(p.shape, generator=rng) for name, p in problem.start().items()} for _ in range(k)]


@pytest.mark.parametrize("head", [None, Similarity(), Verbalizer()])
def test_prompts_scored_together_get_the_scores_that_they_get_one_by_one(head: Any) -> None:
    problem = toy_problem(head=head)
    members = members_of(problem, 4)
    together = problem.score(members)
    for member, found in zip(members, together, strict=True):
        (alone,) = problem.score([member])
        assert found is not None
        assert alone is not None
        assert found.score.loss == pytest.approx(alone.score.loss, abs=1e-5)
        assert found.metrics == alone.metrics
    assert len({found.score.loss for found in together if found}) == 4


@pytest.mark.parametrize("budget", [1, 60, 100_000])
def test_the_scores_do_not_depend_on_the_budget(budget: int) -> None:
    problem = toy_problem(data=toy_data(dev=40))
    members = members_of(problem, 3)
    usual = problem.score(members)
    narrow = replace(problem.model, limits=PassLimits(8, budget))
    other = score_members(narrow, members, problem.splits["dev"], "accuracy")
    for a, b in zip(usual, other, strict=True):
        assert a is not None
        assert b is not None
        assert a.score.loss == pytest.approx(b.score.loss, abs=1e-5)
        assert a.metrics == b.metrics


@pytest.mark.parametrize("pad_to", [None, 32])
def test_forward_passes_stay_within_the_token_budget_prompts_and_padding_included(pad_to: int | None) -> None:
    problem = toy_problem(data=toy_data(dev=60))
    watched, budget = Watched(problem, PassLimits(8, 400)), 400
    score_members(watched, members_of(problem, 3), problem.splits["dev"], "accuracy", pad_to)  # type: ignore[arg-type]
    assert len(watched.passes) > 1
    assert max(watched.passes) <= budget


def test_the_loss_and_the_answers_are_those_of_the_formula() -> None:
    """Logits (0, 1) for every example: cross-entropy is log(1 + e^-1) for label 1, log(1 + e) for label 0."""
    data = Encoded(((1,), (1, 2), (3,)), None, (1, 1, 0), 1, 0)
    (found,) = score_members(PromptIsLogits(), [{"prompt": torch.tensor([[0.0, 1.0]])}], data, "macro_f1")  # type: ignore[arg-type]
    assert found is not None
    one, other = torch.tensor([1 + torch.e**-1, 1 + torch.e]).log().tolist()
    assert found.score.loss == pytest.approx((2 * one + other) / 3, abs=1e-6)
    assert found.metrics == {"accuracy": pytest.approx(2 / 3), "macro_f1": pytest.approx(0.4)}
    assert found.score.metric == pytest.approx(0.4)  # the task's metric
    assert found.score.examples == 3
    assert found.constant == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_member_whose_loss_is_not_finite_has_no_score_and_the_others_keep_theirs(bad: float) -> None:
    problem = toy_problem()
    members = members_of(problem, 3)
    before = problem.score(members)
    members[1] = {**members[1], "prompt": torch.full_like(members[1]["prompt"], bad)}
    after = problem.score(members)
    assert after[1] is None
    assert [after[0], after[2]] == [before[0], before[2]]


def test_a_loss_that_is_not_finite_is_no_result() -> None:
    losses, answers, truth = torch.zeros(2), torch.tensor([0, 1]), torch.tensor([0, 1])
    assert make_result(float("nan"), losses, answers, truth, "accuracy") is None
    assert make_result(float("inf"), losses, answers, truth, "accuracy") is None
    assert make_result(0.5, losses, answers, truth, "accuracy") is not None


@pytest.mark.parametrize("always", [0, 1])
def test_answers_that_are_always_the_same_are_named(always: int) -> None:
    problem = toy_problem()
    (member,) = members_of(problem, 1)
    bias = torch.tensor([100.0, -100.0]) * (1 if always == 0 else -1)
    (found,) = problem.score([member | {"head.weight": member["head.weight"] * 0, "head.bias": bias}])
    assert found is not None
    assert problem.label(found.constant) == LABELS[always]
    assert found.metrics["accuracy"] == 0.5


def test_answers_that_vary_name_no_class() -> None:
    found = make_result(0.5, torch.zeros(3), torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0]), "accuracy")
    assert found is not None
    assert found.constant is None
    assert toy_problem().label(None) is None


@pytest.mark.parametrize("seed", range(8))
def test_metrics_are_those_of_scikit_learn(seed: int) -> None:
    rng = random.Random(seed)
    classes, n = rng.randint(2, 6), rng.randint(1, 40)
    truth = [rng.randrange(classes) for _ in range(n)]
    answers = [rng.choice([t, rng.randrange(classes)]) for t in truth]
    found = classification_metrics(torch.tensor(answers), torch.tensor(truth))
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, answers))
    expected = f1_score(truth, answers, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected)


@pytest.mark.parametrize("training", [True, False])
def test_scoring_evaluates_without_dropout_and_leaves_the_models_mode_as_it_was(training: bool) -> None:
    problem = toy_problem("roberta")
    members = members_of(problem, 1)
    problem.model.backbone.train(training)
    try:
        torch.manual_seed(1)
        assert problem.score(members) == problem.score(members)
        assert problem.model.backbone.training is training
    finally:
        problem.model.backbone.train(False)


def test_scoring_leaves_no_gradient_and_no_inference_tensor_behind() -> None:
    problem = toy_problem()
    members = [{n: p.requires_grad_() for n, p in member.items()} for member in members_of(problem, 2)]
    problem.score(members)
    assert all(p.grad is None and not p.is_inference() for member in members for p in member.values())
    problem.space.project(members[0]["prompt"][None])
    assert not problem.space.allowed.is_inference()


def test_no_prompts_have_no_scores() -> None:
    problem = toy_problem()
    assert problem.score_prompts([], problem.start()) == []


def test_the_verdict_compares_the_tasks_metric_with_that_of_one_answer_for_all() -> None:
    """Three of four rows are class 0: always answering 0 gives F1 of 6/7 and 0, on average 3/7, and accuracy 3/4."""
    data = replace(
        toy_data(metric="macro_f1"), test=tuple(replace(e, label=int(i == 3)) for i, e in enumerate(examples(4, 3)))
    )
    problem = toy_problem(data=data)
    assert (problem.majority, problem.majority_metric) == (0.75, pytest.approx(3 / 7))
    state = State((), best=Best(0, 0, 0, Score(0.6, 0.5, 8), problem.space.fit("a")[0], 1.0))
    result = ScoringResult(Score(0.5, 0.5, 4), {"accuracy": 0.7, "macro_f1": 0.5}, None)
    verdict = "macro_f1 0.500 beats the majority class (0.429)"
    assert (
        describe_verdict(problem, state, result)
        == f"{verdict}; on dev nothing was better than the start, before any training"
    )
    assert describe_verdict(problem, replace(state, best=replace(state.best, step=3)), result) == verdict
