"""GPO: change the current prompt in a few words only, fewer and fewer, in view of the prompts most similar to it.

Source: Tang et al. 2024, "Unleashing the Potential of Large Language Models as Prompt Optimizers" (arXiv 2402.17564),
and its code (RUCAIBox/GPO), in our own words. By analogy with gradient descent, the earlier prompts most similar to the
current one give the direction (momentum), and the number of words that may change is the learning rate.

Faithful: the current prompt, and the `similar` earlier ones nearest to it in ascending similarity, all with scores from
0 to 100 (the metric); a new prompt is written, not edited; at most K words may change, and K falls along a cosine to a
fifth; `proposals` requests with the same text for one prompt each, as their code sends them, at temperature 1.

Different: K is a share of the current prompt's words (theirs: 50 to 10 words, for prompts of about 50), and it is
enforced: a prompt that changes more is rejected. Similarity is the cosine between mean token embeddings (theirs: BGE).
Earlier prompts are all that were scored, the gradient's too (theirs: the winner of each step). The current prompt is
the pool's best: theirs goes downhill, as it records the current one with score 0 and earlier winners may not win again;
nor is the test split scored at each step. The request describes the task in words, without the three examples that
theirs adds. Warm-up over the first 5 % of steps is studied in the paper without gain (table 3): runs of fewer than 20
consultations have none.
"""

import math
import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import ParsedTexts, parse_proposals, reject_texts
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Strategy, repeat_request
from llm_catalyst.mentors.strategies.templates import describe_task, format_entries
from llm_catalyst.runs.records import ScoredPrompt
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.validation import Fraction, NonNegative, PositiveInt, check_range, config_dataclass

if TYPE_CHECKING:
    from llm_catalyst.models.soft_prompt import PromptSpace

ROLE = """You improve a short text prompt that is put in front of the input of a frozen language model. You work step \
by step: from scored prompts you see what helps, and change the current prompt within a limit."""
CURRENT = "This is the current prompt. Scores run from 0 to 100, and higher is better."
EARLIER = "Of the prompts that were tried before, these are the most like the current one; the nearest stands last."
WISH = """Work out from the scores what makes a prompt better. Then write one new prompt that scores higher than the \
current one. You may change at most {changes} of the current prompt, which has {size}: a word added, removed or \
replaced counts as one."""
RULES = """\
- Write fewer than {words} words. Only the first {tokens} tokens of the prompt are used.
- Write the prompt on one line that begins with "- ".
- Answer with the prompt only: no introduction, no score, no explanation."""
REMINDER = """\
No usable prompt could be read from that answer: it must be new, and within the limit. Please write one new prompt \
now, with at most {changes} of the current prompt changed, on one line that begins with "- ", and nothing else."""


@config_dataclass("strategy")
class Gpo(Strategy):
    """The gradient-inspired optimizer; conf/strategy/gpo.yaml explains the fields."""

    needs_pool = True

    proposals: PositiveInt = 8
    similar: PositiveInt = 2
    first: Fraction = 1.0
    last: float = 0.2
    warmup: Fraction = 0.05
    temperature: NonNegative | None = 1.0
    show_gradient: bool = False

    def __post_init__(self) -> None:
        check_range("strategy.last", self.last, 0, self.first)

    def propose(self, context: MentorContext) -> Dialogue:
        """Send the same request for each of the proposals."""
        return repeat_request(self.build_request(context), self.proposals)

    def build_request(self, context: MentorContext) -> Request:
        """The request for one new prompt within the limit of changed words."""
        current, space, most = context.pool[-1], context.space, self.count_changes(context)
        alike = find_similar(context.scored, current, self.similar, space)
        shown, *earlier = format_entries([current, *alike], context, self.show_gradient, rated=True)
        size, changes = len(split_words(current.prompt.text)), format_count(most, "word")
        words, tokens = self.limits(space)
        limit = max(words, size + 1)  # a prompt of the current length must always be allowed
        wish, rules = WISH.format(changes=changes, size=size), RULES.format(words=limit, tokens=tokens)
        paragraphs = [describe_task(context.task), CURRENT, shown, *[EARLIER] * bool(alike), *earlier, wish, rules]
        parse = partial(parse_within_limit, current=current.prompt.text, most=most, space=space)
        return self.make_request(ROLE, paragraphs, "New prompt:", REMINDER.format(changes=changes), parse=parse)

    def count_changes(self, context: MentorContext) -> int:
        """The number of words of the current prompt that may change (K): at least one."""
        share = self.compute_share(context.stage, context.stages - 1)
        return max(1, round(share * len(split_words(context.pool[-1].prompt.text))))

    def compute_share(self, step: int, steps: int) -> float:
        """The share of words that may change at `step` (from 0) of `steps`: it rises linearly to `first`, then falls
        along a cosine to `last`."""
        rising = int(self.warmup * steps)
        if step < rising:
            return self.first * (step + 1) / (rising + 1)
        done = (step - rising) / max(1, steps - rising - 1)
        return self.last + (self.first - self.last) * (1 + math.cos(math.pi * done)) / 2


def find_similar(
    scored: Sequence[ScoredPrompt], current: ScoredPrompt, most: int, space: "PromptSpace"
) -> list[ScoredPrompt]:
    """At most `most` other prompts, the most similar to the current one last; among equal ones the better one."""
    others = [entry for entry in scored if entry.prompt.tokens != current.prompt.tokens]
    ours, *theirs = space.directions([entry.prompt for entry in (current, *others)])
    # Rounded, so that the same tokens in another order are equally near.
    cosines = [round(float(ours @ direction), 6) for direction in theirs]
    ranked = sorted(range(len(others)), key=cosines.__getitem__)
    return [others[i] for i in ranked[-most:]]


def parse_within_limit(response: str, current: str, most: int, space: "PromptSpace") -> ParsedTexts:
    """The prompts in a response that differ from the current one by at most `most` words, and the dropped lines."""

    def find_fault(text: str) -> str | None:
        words = count_changed_words(text, current, space)
        return f"{format_count(words, 'word')} changed, at most {most} may be" if words > most else None

    return reject_texts(parse_proposals(response), find_fault)


def count_changed_words(text: str, current: str, space: "PromptSpace") -> int:
    """The words that differ between the current prompt and a text: as it is written, or as it is used if that is less.

    A text is cut to m tokens, or repeated where `prompt.fill` says so, as the current prompt was.
    """
    try:
        forms = {text, space.fit(text)[0].text}
    except ValueError:
        forms = {text}  # no token at all: the text is rejected for that later
    return min(count_edits(split_words(current), split_words(form)) for form in forms)


def split_words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation: tokenizers keep neither as it was written."""
    return re.findall(r"\w+", text.casefold())


def count_edits(old: Sequence[str], new: Sequence[str]) -> int:
    """The smallest number of words added, removed or replaced that turns one text into the other (Levenshtein)."""
    row = list(range(len(new) + 1))
    for i, word in enumerate(old, start=1):
        above, row = row, [i]
        for j, other in enumerate(new, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != other)))
    return row[-1]
