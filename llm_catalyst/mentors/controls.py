"""Mentors without a language model: the controls that say whether the LLM is needed, or only a restart."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from llm_catalyst.checks import at_least, within
from llm_catalyst.mentors.consultation import Consultation
from llm_catalyst.records import Advice, Proposal


@dataclass(frozen=True)
class NoMentor:
    """Never proposes anything: plain gradient training, stage after stage."""

    def propose(self, consultation: Consultation) -> Advice:
        return Advice()


@dataclass(frozen=True)
class RandomTokens:
    """Proposes prompts of tokens drawn evenly from the readable vocabulary (the paper's random restart)."""

    proposals: int = 3

    def __post_init__(self) -> None:
        at_least("mentor.proposals", self.proposals, 1)

    def propose(self, consultation: Consultation) -> Advice:
        generator = torch.Generator().manual_seed(consultation.rng.getrandbits(63))
        drawn = [consultation.space.sample(generator) for _ in range(self.proposals)]
        return Advice(tuple(Proposal(prompt, "drawn at random") for prompt in drawn))


@dataclass(frozen=True)
class BestOfPool:
    """Proposes the pool's best prompt as it is: a restart that brings nothing new."""

    proposals: ClassVar[int] = 1

    def propose(self, consultation: Consultation) -> Advice:
        if not consultation.pool:
            return Advice(fallback="the pool is empty")
        return Advice((Proposal(consultation.pool[-1].prompt, "the pool's best"),))


@dataclass(frozen=True)
class Perturb:
    """Proposes the pool's best prompt with noise on it (the paper's perturbed restart).

    To each embedding of the best prompt is added N(0, (noise * s)^2), s the standard deviation of the
    vocabulary's entries; the sum is projected to tokens again.
    """

    proposals: int = 3
    noise: float = 1.0

    def __post_init__(self) -> None:
        at_least("mentor.proposals", self.proposals, 1)
        within("mentor.noise", self.noise, 0, 100)

    def propose(self, consultation: Consultation) -> Advice:
        if not consultation.pool:
            return Advice(fallback="the pool is empty")
        space = consultation.space
        generator = torch.Generator().manual_seed(consultation.rng.getrandbits(63))
        rows = space.embed([consultation.pool[-1].prompt]).expand(self.proposals, -1, -1)
        noise = torch.randn(rows.shape, generator=generator).to(rows.device)
        prompts, _ = space.project(rows + self.noise * space.vocabulary.float().std() * noise)
        return Advice(tuple(Proposal(prompt, "the pool's best, perturbed") for prompt in prompts))
