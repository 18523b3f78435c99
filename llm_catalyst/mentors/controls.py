"""Mentors without a language model: the controls that say whether the LLM is needed, or only a restart."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.runs.records import Advice, Proposal
from llm_catalyst.utils.validation import check_at_least, check_choice, check_range


@dataclass(frozen=True)
class NoMentor:
    """Never proposes anything: plain gradient training, stage after stage."""

    def propose(self, context: MentorContext) -> Advice:
        return Advice()


@dataclass(frozen=True)
class RandomTokens:
    """Proposes prompts of tokens drawn evenly from the readable vocabulary (the paper's random restart)."""

    proposals: int = 3

    def __post_init__(self) -> None:
        check_at_least("mentor.proposals", self.proposals, 1)

    def propose(self, context: MentorContext) -> Advice:
        generator = torch.Generator().manual_seed(context.rng.getrandbits(63))
        drawn = [context.space.sample(generator) for _ in range(self.proposals)]
        return Advice(tuple(Proposal(prompt, "drawn at random") for prompt in drawn))


@dataclass(frozen=True)
class BestOfPool:
    """Proposes the pool's best prompt as it is: a restart that brings nothing new."""

    proposals: ClassVar[int] = 1

    def propose(self, context: MentorContext) -> Advice:
        if not context.pool:
            return Advice(fallback="the pool is empty")
        return Advice((Proposal(context.pool[-1].prompt, "the pool's best"),))


@dataclass(frozen=True)
class Perturb:
    """Proposes the pool's best prompt with some tokens replaced by others (the paper's perturbed restart).

    Each token is replaced with probability `rate`, one at least: by any of its `neighbours` nearest ones, or with
    `toward: gradient` by any of those that the gradient would move it to (`Consultation.hints`), the control for a
    language model that is shown them. The paper does not say how it perturbs. Noise on the embeddings does not do:
    projected again, a prompt in hundreds of dimensions stays what it was until the noise drowns it, and then all
    tokens are random.
    """

    proposals: int = 3
    rate: float = 0.25
    neighbours: int = 20
    toward: str = "neighbours"

    def __post_init__(self) -> None:
        check_at_least("mentor.proposals", self.proposals, 1)
        check_at_least("mentor.neighbours", self.neighbours, 1)
        check_range("mentor.rate", self.rate, 0, 1)
        check_choice("mentor.toward", self.toward, ("neighbours", "gradient"))

    @property
    def needs_model(self) -> bool:
        """For its gradients, where tokens go that way."""
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
