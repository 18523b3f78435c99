"""What a mentor may find out between two stages: answers on training examples, and where the gradient points."""

import pytest
import torch
from helpers.tiny_models import toy_problem

from llm_catalyst.models.base import example_losses
from llm_catalyst.models.heads.text import Verbalizer
from llm_catalyst.optimizers.base import Member
from llm_catalyst.runs.records import Prompt
from llm_catalyst.training.mentor_queries import HINT_TOKENS, STEP, PromptProbe
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.scoring import score_members
from llm_catalyst.training.state import State
from llm_catalyst.utils.memory import PassLimits
from llm_catalyst.utils.rng import make_generator


def trials_of(problem: Problem) -> tuple[PromptProbe, State, list[Prompt]]:
    state = State((Member.of(problem.start()),))
    prompts = [problem.space.sample(make_generator(seed, "test")) for seed in range(3)]
    return PromptProbe(problem, state), state, prompts


@pytest.mark.parametrize("tokens", [20, 10**6])
def test_trials_are_the_answers_behind_a_score_in_the_order_of_the_rows(tokens: int) -> None:
    problem = toy_problem()
    problem.model.limits.tokens = tokens
    trials, state, prompts = trials_of(problem)
    rows = [7, 0, 19, 4, 11]
    for prompt, found in zip(prompts, trials.attempt(prompts, rows), strict=True):
        member = {**state.parameters[0], "prompt": problem.space.embed([prompt])[0]}
        for row, trial in zip(rows, found, strict=True):
            alone = score_members(problem.model, [member], problem.splits["train"].pick([row]), "accuracy")[0]
            assert alone is not None
            assert trial.loss == pytest.approx(alone.score.loss, abs=1e-5)
            assert trial.right == (alone.score.metric == 1)
            label = problem.data.labels[problem.splits["train"].labels[row]]
            assert trial.right == (trial.answer == label)
    assert trials.paid(state).ledger.scored_examples == 3 * 5
    assert trials.attempt([], rows) == []
    assert trials.attempt(prompts, []) == [[], [], []]


def test_hints_are_the_tokens_nearest_to_a_step_against_the_gradient() -> None:
    problem = toy_problem(head=Verbalizer())
    trials, state, prompts = trials_of(problem)
    hints = trials.hints(prompts)
    space, train = problem.space, problem.splits["train"]
    batch = train.batch([list(range(len(train)))], "cpu")  # 24 examples: all of them
    for prompt, found in zip(prompts, hints, strict=True):
        rows = space.embed([prompt]).requires_grad_()
        example_losses(problem.model.logits({"prompt": rows}, batch), batch.labels).mean().backward()
        assert rows.grad is not None
        for token, row, gradient, near in zip(prompt.tokens, rows[0].detach(), rows.grad[0], found, strict=True):
            target = row - STEP * row.norm() * gradient / gradient.norm()
            cosines = torch.cosine_similarity(target[None], space.vocabulary.float(), dim=-1)
            best = [i for i in cosines.argsort(descending=True).tolist() if space.allowed[i] and i != token]
            assert near == tuple(best[:HINT_TOKENS])
    assert trials.paid(state).ledger.train_examples == 3 * 24


def test_hints_do_not_depend_on_the_room_in_memory_and_leave_no_gradient() -> None:
    problem = toy_problem(head=Verbalizer())
    trials, _, prompts = trials_of(problem)
    whole = trials.hints(prompts)
    problem.model.limits.examples = 5
    assert trials.hints(prompts) == whole
    assert all(p.grad is None for p in problem.model.backbone.parameters())
    assert isinstance(problem.model.limits, PassLimits)
    assert trials.hints([]) == []
