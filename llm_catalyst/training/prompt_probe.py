"""A mentor's experiments between two stages: results of prompts on examples, and gradients of their loss."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from llm_catalyst.mentors.base import Trial
from llm_catalyst.models.base import Parameters
from llm_catalyst.optimizers.backprop import mean_gradients
from llm_catalyst.optimizers.base import Member
from llm_catalyst.runs.records import Prompt
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.scoring import score_examples
from llm_catalyst.training.state import State
from llm_catalyst.utils.rng import make_generator

HINT_EXAMPLES = 64  # training examples over which a prompt's gradient is taken
HINT_TOKENS = 3  # tokens named for each row
# In lengths of a row: with a shorter step the nearest tokens are its neighbours (figures: scripts/bench/README.md).
STEP = 4.0


class PromptProbe:
    """The trials of one request for advice, under the head of the state at its beginning; training examples only.

    They cost as much as training and scoring: `paid` adds them to the usage.
    """

    def __init__(self, problem: Problem, state: State) -> None:
        self._problem, self._state = problem, state
        self._scored = self._differentiated = 0

    def paid(self, state: State) -> State:
        """The state with the trials so far in its usage."""
        return state.spent(scored_examples=self._scored, train_examples=self._differentiated)

    def attempt(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
        """Each prompt's answers to the training examples `rows`, in their order."""
        if not prompts or not rows:
            return [[] for _ in prompts]
        problem = self._problem
        data = problem.splits["train"].pick(rows)
        losses, answers = score_examples(problem.model, self._members(prompts), data, problem.padding)
        self._scored += losses.numel()
        return [
            [Trial(loss, answer, answer == label) for loss, answer, label in zip(*pair, data.labels, strict=True)]
            for pair in zip(losses.tolist(), answers.tolist(), strict=True)
        ]

    def hints(self, prompts: Sequence[Prompt]) -> list[tuple[tuple[int, ...], ...]]:
        """For each prompt and each of its m tokens, the nearest other tokens to e - eta dL/de, nearest first.

        e is the token's embedding, L the mean loss over some training examples, the same for all prompts of a
        request. eta is chosen for each row, so that the step is STEP times as long as e.
        """
        if not prompts:
            return []
        space = self._problem.space
        gradients = self._gradients(prompts)
        self._differentiated += len(prompts) * self._batch.size
        rows = space.embed(prompts)
        length = STEP * rows.norm(dim=-1, keepdim=True)
        target = rows - length * torch.nn.functional.normalize(gradients, dim=-1)
        near = space.nearest(target, HINT_TOKENS + 1).tolist()
        return [
            tuple(
                tuple([other for other in found if other != token][:HINT_TOKENS])
                for token, found in zip(prompt.tokens, places, strict=True)
            )
            for prompt, places in zip(prompts, near, strict=True)
        ]

    def _members(self, prompts: Sequence[Prompt]) -> list[Parameters]:
        head = self._state.parameters[0]
        return [{**head, "prompt": rows} for rows in self._problem.space.embed(prompts)]

    @cached_property
    def _batch(self) -> Batch:
        """The examples for gradients, drawn for this stage."""
        problem = self._problem
        train = problem.splits["train"]
        order = torch.randperm(len(train), generator=make_generator(problem.settings.seed, "hints", self._state.stage))
        return train.batch([order[:HINT_EXAMPLES].tolist()], problem.device, problem.padding)

    def _gradients(self, prompts: Sequence[Prompt]) -> Tensor:
        """Gradients (k, m, d) of each prompt's mean loss in its embeddings."""
        model, members = self._problem.model, [Member.of(parameters) for parameters in self._members(prompts)]
        model.backbone.train(False)
        mean_gradients(model, members, self._batch.expand(len(prompts)))
        gradients = (member.parameters["prompt"].grad for member in members)
        return torch.stack([gradient for gradient in gradients if gradient is not None])
