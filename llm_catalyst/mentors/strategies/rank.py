"""Generate many prompts, rank them by a cheap score, and select the best and most different ones.

Source: the idea of Optima (Chen et al. 2024, "Optimizing Effectiveness and Efficiency for LLM-Based Multi-Agent
System", arXiv 2410.08115; its code, thunlp/Optima: train/sft.py, train/monte_carlo_deploy.py, looked at). That is a
method to train agents: they generate many conversations, a reward ranks them, the best are selected, and the model is
trained on these.

Only the idea is taken over: more is generated than is used, a score that costs little decides, and what is nearly the
same as something chosen already is left out. Nothing else is Optima's: no agents, no reward for brevity and fluency, no
training of the language model, no tree; it finds near-duplicates by edit distance (less than a quarter of the longer
text), here the embeddings tell.

- Generate: the question of strategy=paper, word for word, for more prompts. What differs from it is the choice alone.
- Rank: by the mean loss on some training examples, the same for all.
- Select: see `Rank`. The greedy choice follows maximal marginal relevance (Carbonell and Goldstein 1998, "The Use of
  MMR, Diversity-Based Reranking for Reordering Documents and Producing Summaries").

Shapes: n candidates, m virtual tokens, d embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from llm_catalyst.checks import at_least, within
from llm_catalyst.mentors.consultation import Consultation
from llm_catalyst.mentors.strategies import Dialogue, Question
from llm_catalyst.mentors.strategies.ape import by_loss, dropped
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.mentors.strategies.wording import quoted
from llm_catalyst.records import Advice, Prompt, Proposal, Rejected
from llm_catalyst.soft_prompt import PromptSpace


@dataclass(frozen=True)
class Rank:
    """The `strategy` node: generate, rank, select. Fields are explained in conf/strategy/rank.yaml.

    Likeness is the cosine between the means of two prompts' token embeddings, as in `PromptSpace.spread`: the order of
    the tokens does not count. In the order of their loss, prompts whose likeness to a better one that stays is above
    `similarity` are dropped. Of the n that stay, the best one is chosen first, and then, until there are `proposals`,
    the one with the highest

        goodness - diversity · likeness

    Both terms lie in [0, 1], whatever the task and the backbone: goodness is 1 - i / (n - 1) for the i-th best prompt
    (from 0), so that losses count by their order alone; likeness is the highest one to any prompt chosen already, put
    on the scale between the least and the most alike two of the n (all 0 where these are equally alike). With
    diversity = 0 these are the best ones; with 1 the worst prompt, if it is like none, weighs as much as the best one
    that is most like another.
    """

    needs_pool: ClassVar[bool] = False

    form: str = "chat"
    description: str | None = None
    proposals: int = 3
    candidates: int = 24
    examples: int = 64
    similarity: float = 0.95
    diversity: float = 0.5
    temperature: float | None = None
    words: int = 9
    show_gradient: bool = False

    def __post_init__(self) -> None:
        at_least("strategy.proposals", self.proposals, 1)
        at_least("strategy.candidates", self.candidates, self.proposals)
        at_least("strategy.examples", self.examples, 1)
        within("strategy.similarity", self.similarity, -1, 1)
        at_least("strategy.diversity", self.diversity, 0)
        at_least("strategy.temperature", self.temperature, 0)
        self.generator()

    def generator(self) -> Paper:
        """The strategy that asks for the candidates."""
        return Paper(
            form=self.form,
            description=self.description,
            proposals=self.candidates,
            words=self.words,
            show_gradient=self.show_gradient,
        )

    def propose(self, consultation: Consultation) -> Dialogue:
        """One question; of the candidates in its answer, those that are selected."""
        paper = self.generator()
        reply = yield Question(
            paper.messages(consultation), paper.read, paper.remind, self.candidates, self.temperature
        )
        if not reply.proposals:
            return Advice()
        ranked = by_loss(reply.proposals, consultation, self.examples)
        different, alike = self.distinct(ranked, consultation.space)
        selected = self.select(different, consultation.space)
        others = [dropped(each, f"not among the {self.proposals} chosen") for each in different if each not in selected]
        return Advice(tuple(selected), (*alike, *others))

    def distinct(self, ranked: Sequence[Proposal], space: PromptSpace) -> tuple[list[Proposal], list[Rejected]]:
        """The candidates that are not too like a better one, in their order, and those that are."""
        cosines = likeness([each.prompt for each in ranked], space)
        kept: list[int] = []
        alike = []
        for i, candidate in enumerate(ranked):
            nearest = max(kept, key=lambda j: cosines[i, j].item(), default=None)
            if nearest is None or cosines[i, nearest] <= self.similarity:
                kept.append(i)
            else:
                better = quoted(ranked[nearest].prompt.text)
                alike.append(dropped(candidate, f"like {better} (cosine {cosines[i, nearest]:.3f})"))
        return [ranked[i] for i in kept], alike

    def select(self, ranked: Sequence[Proposal], space: PromptSpace) -> list[Proposal]:
        """`proposals` of the candidates, in the order of their choice."""
        ...


def likeness(prompts: Sequence[Prompt], space: PromptSpace) -> Tensor:
    """Cosines (n, n) between the means of the prompts' token embeddings, in float64."""
    directions = torch.nn.functional.normalize(space.embed(prompts).cpu().double().mean(1), dim=-1)
    return directions @ directions.T
