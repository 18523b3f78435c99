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

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.strategies.ape import by_loss, reject_candidate
from llm_catalyst.mentors.strategies.base import Dialogue, Request
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.mentors.strategies.templates import MOST_READ, quote_json
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.records import Advice, Prompt
from llm_catalyst.utils.validation import check_at_least, check_range

SAME = 1e-9  # a difference of cosines that is but rounding


@dataclass(frozen=True)
class Rank:
    """The `strategy` node: generate, rank, select. Fields are explained in conf/strategy/rank.yaml.

    Likeness is the cosine between the means of two prompts' token embeddings, as in `PromptSpace.spread`: the order of
    the tokens does not count. In the order of their loss, prompts whose likeness to a better one that stays is above
    `similarity` are dropped. Of the n that stay, the best one is chosen first, and then, until there are `proposals`,
    the one with the highest

        goodness - diversity · closeness

    Both terms lie in [0, 1], whatever the task and the backbone. Goodness is 1 - i / (n - 1) for the i-th best prompt
    (i from 0): of the losses only their order counts. Closeness is the highest likeness to any prompt chosen already,
    on the scale from the least to the most alike two of the n (0 where all are equally alike). So diversity = 0 takes
    the best ones; with 1, the worst prompt, where it is like none, is as welcome as the best one where it is most like
    a chosen one.
    """

    needs_pool: ClassVar[bool] = False
    needs_model: ClassVar[bool] = True

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
        check_at_least("strategy.proposals", self.proposals, 1)
        check_range("strategy.candidates", self.candidates, self.proposals, MOST_READ)
        check_at_least("strategy.examples", self.examples, 1)
        check_range("strategy.similarity", self.similarity, -1, 1)
        check_at_least("strategy.diversity", self.diversity, 0)
        check_at_least("strategy.temperature", self.temperature, 0)
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

    def propose(self, context: MentorContext) -> Dialogue:
        """One question; of the candidates in its answer, those that are selected."""
        paper = self.generator()
        messages = paper.messages(context)
        (reply,) = yield (Request(messages, paper.read, paper.remind, self.candidates, self.temperature),)
        if not reply.proposals:
            return Advice()
        ranked = by_loss(reply.proposals, context, self.examples)
        cosines = cosine_similarities([each.prompt for each in ranked], context.space)
        better = find_near_duplicates(cosines, self.similarity)
        rest = [i for i in range(len(ranked)) if i not in better]
        chosen = [rest[i] for i in choose_diverse(cosines[rest][:, rest], self.proposals, self.diversity)]
        alike = [
            reject_candidate(ranked[i], f"nearly {quote_json(ranked[j].prompt.text)} (cosine {cosines[i, j]:.3f})")
            for i, j in better.items()
        ]
        others = [
            reject_candidate(ranked[i], f"not among the {self.proposals} chosen") for i in rest if i not in chosen
        ]
        return Advice(tuple(ranked[i] for i in chosen), (*alike, *others))


def cosine_similarities(prompts: Sequence[Prompt], space: PromptSpace) -> Tensor:
    """Cosines (n, n) between the means of the prompts' token embeddings, in float64."""
    directions = space.directions(prompts)
    return (directions @ directions.T).clamp(-1, 1)


def find_near_duplicates(cosines: Tensor, similarity: float) -> dict[int, int]:
    """Of candidates in order, the best first, those too like a better one that is none itself, and which one that is.

    `cosines` (n, n) are their likeness; too like is what is more than `similarity`.
    """
    better: dict[int, int] = {}
    for i in range(len(cosines)):
        alike = [j for j in range(i) if j not in better and cosines[i, j] > similarity]
        if alike:
            better[i] = alike[0]
    return better


def choose_diverse(cosines: Tensor, most: int, diversity: float) -> list[int]:
    """At most `most` of n candidates in order, the best first, by goodness and closeness (see `Rank`), as chosen.

    `cosines` (n, n) are their likeness.
    """
    n = len(cosines)
    pairs = cosines[torch.ones(n, n, dtype=torch.bool).triu(1)] if n > 1 else cosines.new_zeros(1)
    low, span = pairs.min(), pairs.max() - pairs.min()
    closeness = ((cosines - low) / span if span > SAME else torch.zeros_like(cosines)).tolist()

    def merit(i: int) -> float:
        return 1 - i / (n - 1) - diversity * max(closeness[i][j] for j in chosen)

    chosen = [0]
    while len(chosen) < min(most, n):
        chosen.append(max((i for i in range(n) if i not in chosen), key=merit))  # of equal ones the better
    return chosen
