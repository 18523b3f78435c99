"""Generate many prompts, rank them by a cheap score, and select the best and most different ones.

Source: the idea of Optima (Chen et al. 2024, "Optimizing Effectiveness and Efficiency for LLM-Based Multi-Agent
System", arXiv 2410.08115; we looked at its code, thunlp/Optima: train/sft.py, train/monte_carlo_deploy.py). Optima
trains agents: they generate many conversations, a reward ranks them, the best are selected, and the model is trained
on these.

Only the idea is taken: generate more than is used, decide by a score that costs little, and leave out near-duplicates
of prompts that are chosen already. Nothing else is Optima's: no agents, no reward for brevity and fluency, no training
of the language model, no tree. Optima finds near-duplicates by edit distance (less than a quarter of the longer text);
here the embeddings decide.

- Generate: the request of strategy=paper, word for word, for more prompts. Only the choice differs.
- Rank: by the mean loss on some training examples, the same for all.
- Select: see `Rank`. The greedy choice follows maximal marginal relevance (Carbonell and Goldstein 1998, "The Use of
  MMR, Diversity-Based Reranking for Reordering Documents and Producing Summaries").

Shapes: n candidates, m virtual tokens, d embedding width.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import MOST_READ
from llm_catalyst.mentors.strategies.base import Dialogue, Strategy
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.mentors.strategies.templates import quote_json
from llm_catalyst.mentors.strategies.trials import rank_by_loss, reject_candidate
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.records import Advice, Prompt
from llm_catalyst.utils.validation import NonNegative, PositiveInt, check_range, config_dataclass

SAME = 1e-9  # cosines that differ by less differ by rounding only


@config_dataclass("strategy")
class Rank(Strategy):
    """Generate, rank, select; conf/strategy/rank.yaml explains the fields.

    Likeness is the cosine between the means of two prompts' token embeddings, as in `PromptSpace.spread`: the order of
    the tokens does not count. In the order of their loss, prompts whose likeness to a better one that stays is above
    `similarity` are dropped. Of the n that stay, the best one is chosen first, and then, until there are `proposals`,
    the one with the highest

        goodness - diversity · closeness

    Both terms lie in [0, 1], whatever the task and the backbone. Goodness is 1 - i / (n - 1) for the i-th best prompt
    (i from 0): only the order of the losses counts. Closeness is the highest likeness to any prompt chosen already,
    on the scale from the least to the most alike two of the n (0 if all are equally alike). So diversity = 0 takes
    the best ones; with 1, the worst prompt, if it is like none, counts as much as the best one if that is most like
    a chosen one.
    """

    needs_model = True

    proposals: PositiveInt = 3
    description: str | None = None
    candidates: int = 24
    examples: PositiveInt = 64
    similarity: Annotated[float, Ge(-1), Le(1)] = 0.95
    diversity: NonNegative = 0.5
    temperature: NonNegative | None = None
    show_gradient: bool = False

    def __post_init__(self) -> None:
        check_range("strategy.candidates", self.candidates, self.proposals, MOST_READ)

    def propose(self, context: MentorContext) -> Dialogue:
        """Send the paper's request for `candidates` prompts, and propose the selected ones."""
        paper = Paper(
            self.form, self.words, self.candidates, self.description, "lenient", self.show_gradient, show_moves=False
        )
        (response,) = yield (replace(paper.build_request(context), temperature=self.temperature),)
        if not response.proposals:
            return Advice()
        ranked = rank_by_loss(response.proposals, context, self.examples)
        cosines = cosine_similarities([each.prompt for each in ranked], context.space)
        better, texts = find_near_duplicates(cosines, self.similarity), [each.prompt.text for each in ranked]
        rest = [i for i in range(len(ranked)) if i not in better]
        chosen = [rest[i] for i in choose_diverse(cosines[rest][:, rest], self.proposals, self.diversity)]
        reasons = {i: f"nearly {quote_json(texts[j])} (cosine {cosines[i, j]:.3f})" for i, j in better.items()}
        reasons |= {i: f"not among the {self.proposals} chosen" for i in rest if i not in chosen}
        rejected = tuple(reject_candidate(ranked[i], reason) for i, reason in reasons.items())
        return Advice(tuple(ranked[i] for i in chosen), rejected)


def cosine_similarities(prompts: Sequence[Prompt], space: PromptSpace) -> Tensor:
    """Cosines (n, n) between the means of the prompts' token embeddings, in float64."""
    directions = space.directions(prompts)
    return (directions @ directions.T).clamp(-1, 1)


def find_near_duplicates(cosines: Tensor, similarity: float) -> dict[int, int]:
    """For each near-duplicate among n candidates, best first: the better candidate that it nearly repeats.

    Args:
        cosines: The likeness (n, n) of the candidates.
        similarity: Two candidates above it are near-duplicates. A near-duplicate excludes no further candidate.
    """
    better: dict[int, int] = {}
    for i in range(len(cosines)):
        if alike := [j for j in range(i) if j not in better and cosines[i, j] > similarity]:
            better[i] = alike[0]
    return better


def choose_diverse(cosines: Tensor, most: int, diversity: float) -> list[int]:
    """At most `most` of n candidates, best first, in the order in which goodness and closeness choose them (`Rank`).

    `cosines` (n, n) is the likeness of the candidates.
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
