"""Gradient-free evolution on the tokens of the pool: an offline mentor, and the control for an LLM's ideas."""

import random

from llm_catalyst.mentors.base import Mentor, MentorContext
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.records import Advice, Prompt, Proposal
from llm_catalyst.utils.validation import Fraction, PositiveInt, config_dataclass


@config_dataclass("mentor")
class Evolution(Mentor):
    """Children of the pool's best prompts by uniform crossover and token mutation.

    Two parents are drawn by rank (the best most often); each place takes its token from either; then each
    token mutates with probability `mutation`, to one of the `neighbours` nearest tokens of the vocabulary or,
    one time in four, to any readable token. The form follows the genetic algorithm of EvoPrompt (Guo et
    al. 2023, arXiv 2309.08532), with these operators in place of its language model.
    """

    proposals: PositiveInt = 3
    mutation: Fraction = 0.2
    neighbours: PositiveInt = 20

    def propose(self, context: MentorContext) -> Advice:
        if not context.pool:
            return Advice(fallback="the pool is empty")
        space, rng = context.space, context.rng
        seen = {scored.prompt.tokens for scored in context.pool}
        children: list[Proposal] = []
        # A pool of near-identical parents may not yield enough new children: so the number of tries is bounded.
        for _ in range(50 * self.proposals):
            mother, father = rng.choices(context.pool, weights=range(1, len(context.pool) + 1), k=2)
            child = self._breed(mother.prompt, father.prompt, space, rng)
            if child.tokens not in seen:
                seen.add(child.tokens)
                children.append(Proposal(child, describe_parents(mother.prompt, father.prompt)))
            if len(children) == self.proposals:
                break
        return Advice(tuple(children), fallback=None if children else "no new child was found")

    def _breed(self, mother: Prompt, father: Prompt, space: PromptSpace, rng: random.Random) -> Prompt:
        tokens = [rng.choice(pair) for pair in zip(mother.tokens, father.tokens, strict=True)]
        return space.prompt([self._mutate(t, space, rng) if rng.random() < self.mutation else t for t in tokens])

    def _mutate(self, token: int, space: PromptSpace, rng: random.Random) -> int:
        if rng.random() < 0.25:
            return rng.choice(space.allowed_ids)
        return space.neighbour(token, self.neighbours, rng)


def describe_parents(mother: Prompt, father: Prompt) -> str:
    """A child's parents in words."""
    if mother == father:
        return f"a mutation of {mother.text!r}"
    return f"{mother.text!r} crossed with {father.text!r}"
