"""Mentors without a language model: the controls that show whether the LLM is needed, or only a restart."""

from itertools import zip_longest
from typing import Literal

from llm_catalyst.mentors.base import Mentor, MentorContext
from llm_catalyst.runs.records import Advice, Prompt, Proposal
from llm_catalyst.utils.validation import Fraction, PositiveInt, config_dataclass


@config_dataclass("mentor")
class NoMentor(Mentor):
    """Never proposes anything: plain gradient training, stage after stage."""

    def propose(self, context: MentorContext) -> Advice:
        return Advice()


@config_dataclass("mentor")
class RandomTokens(Mentor):
    """Proposes prompts of tokens drawn evenly from the readable vocabulary (the paper's random restart)."""

    proposals: PositiveInt = 3

    def propose(self, context: MentorContext) -> Advice:
        import torch

        generator = torch.Generator().manual_seed(context.rng.getrandbits(63))
        drawn = [context.space.sample(generator) for _ in range(self.proposals)]
        return Advice(tuple(Proposal(prompt, "drawn at random") for prompt in drawn))


@config_dataclass("mentor")
class BestOfPool(Mentor):
    """Proposes the pool's best prompt as it is: a restart that brings nothing new."""

    proposals = 1

    def propose(self, context: MentorContext) -> Advice:
        if not context.pool:
            return Advice(fallback="the pool is empty")
        return Advice((Proposal(context.pool[-1].prompt, "the pool's best"),))


@config_dataclass("mentor")
class Perturb(Mentor):
    """Proposes the pool's best prompt with some tokens replaced by others (the paper's perturbed restart).

    Each token is replaced with probability `rate`, one at least: by any of its `neighbours` nearest ones, or with
    `toward: gradient` by any of those that the gradient would move it to (`MentorContext.hints`), the control for a
    language model that is shown them. The paper does not say how it perturbs. Noise on the embeddings has no use:
    projected again, a prompt in hundreds of dimensions stays the same until the noise is so large that all tokens are
    random.
    """

    proposals: PositiveInt = 3
    rate: Fraction = 0.25
    neighbours: PositiveInt = 20
    toward: Literal["neighbours", "gradient"] = "neighbours"

    @property
    def needs_model(self) -> bool:
        return self.toward == "gradient"

    def propose(self, context: MentorContext) -> Advice:
        if not context.pool:
            return Advice(fallback="the pool is empty")
        space, rng, best = context.space, context.rng, context.pool[-1].prompt
        hints = context.hints([best])[0] if self.toward == "gradient" else None
        drawn = []
        for _ in range(self.proposals):
            tokens = list(best.tokens)
            places = [place for place in range(len(tokens)) if rng.random() < self.rate]
            for place in places or [rng.randrange(len(tokens))]:
                near = hints[place] if hints else ()
                tokens[place] = rng.choice(near) if near else space.neighbour(tokens[place], self.neighbours, rng)
            drawn.append(Proposal(space.prompt(tokens), "the pool's best, perturbed"))
        return Advice(tuple(drawn))


@config_dataclass("mentor")
class Evolution(Mentor):
    """Children of the pool's best prompts by uniform crossover and token mutation.

    Two parents are drawn by rank (the best most often); each place takes its token from either, and behind the end of
    the shorter one the token of the longer one or none; then each
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
        parents = {scored.prompt.tokens for scored in context.pool}
        children: dict[tuple[int, ...], Proposal] = {}
        # A pool of near-identical parents may not yield enough new children: so the number of tries is bounded.
        for _ in range(50 * self.proposals):
            mother, father = rng.choices(context.pool, weights=range(1, len(context.pool) + 1), k=2)
            places = zip_longest(mother.prompt.tokens, father.prompt.tokens)
            tokens = [token for token in map(rng.choice, places) if token is not None]
            for i, token in enumerate(tokens):
                if rng.random() < self.mutation:
                    far = rng.random() < 0.25
                    tokens[i] = rng.choice(space.allowed_ids) if far else space.neighbour(token, self.neighbours, rng)
            child = space.prompt(tokens)
            if child.tokens not in parents:
                children.setdefault(child.tokens, Proposal(child, describe_parents(mother.prompt, father.prompt)))
            if len(children) == self.proposals:
                break
        return Advice(tuple(children.values()), fallback=None if children else "no new child was found")


def describe_parents(mother: Prompt, father: Prompt) -> str:
    """A child's parents in words."""
    return f"a mutation of {mother.text!r}" if mother == father else f"{mother.text!r} crossed with {father.text!r}"
