"""GPO: the current prompt is changed in a few words only, fewer and fewer, with the prompts most like it in view.

Source: Tang et al. 2024, "Unleashing the Potential of Large Language Models as Prompt Optimizers" (arXiv 2402.17564),
and its code (RUCAIBox/GPO), in our own words. By analogy with gradient descent, the earlier prompts most similar to the
current one give the direction (momentum), and the number of words that may change is the learning rate.

Faithful: the current prompt, and the `similar` earlier ones nearest to it in ascending similarity, all with scores from
0 to 100 (the metric); a new prompt is written, not edited; at most K words may change, and K falls along a cosine to a
fifth; `proposals` requests with the same text for one prompt each, as their code sends them, at temperature 1.

What differs: K is a share of the current prompt's words (theirs: 50 to 10 words, for prompts of about 50), and it is
enforced: what changes more is rejected. Similarity is the cosine between mean token embeddings (theirs: BGE). Earlier
prompts are all that were scored, the gradient's too (theirs: the winner of each step). The current prompt is the pool's
best: theirs goes downhill, as the current one is put down with score 0 and earlier winners may not win again; nor is
the test split scored at each step. The task is told in words, without the three examples that theirs adds. Warm-up over
the first 5 % of steps is studied in the paper without gain (table 3): in runs of fewer than 20 consultations there is
none.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import parse_proposals, shorten_line
from llm_catalyst.mentors.strategies.base import Dialogue, Request, repeat_request
from llm_catalyst.mentors.strategies.templates import (
    FORMS,
    MOST_READ,
    build_messages,
    build_reminder,
    describe_task,
    format_entries,
    format_number,
    format_rating,
)
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.records import Message, Rejected, ScoredPrompt
from llm_catalyst.utils.validation import check_at_least, check_choice, check_range

ROLE = (
    "You improve a short text prompt that is put in front of the input of a frozen language model. You work step by "
    "step: from scored prompts you see what helps, and change the current prompt within a limit."
)
CURRENT = "This is the current prompt. Scores run from 0 to 100, and higher is better."
EARLIER = "Of the prompts that were tried before, these are the most like the current one; the nearest stands last."
WISH = (
    "Work out from the scores what makes a prompt better. Then write one new prompt that scores higher than the "
    "current one. You may change at most {changes} of the current prompt, which has {size}: a word added, removed or "
    "replaced counts as one."
)
RULES = """\
- Write fewer than {words} words. Only the first {tokens} tokens of the prompt are used.
- Write the prompt on one line that begins with "- ".
- Answer with the prompt only: no introduction, no score, no explanation."""
REMINDER = (
    "No usable prompt could be read from that answer: it must be new, and within the limit. Please write one new "
    "prompt now, with at most {changes} of the current prompt changed, on one line that begins with "
    '"- ", and nothing else.'
)


@dataclass(frozen=True)
class Gpo:
    """The `strategy` node: the gradient-inspired optimizer. Fields are explained in conf/strategy/gpo.yaml."""

    needs_pool: ClassVar[bool] = True

    form: str = "chat"
    proposals: int = 8
    similar: int = 2
    first: float = 1.0
    last: float = 0.2
    warmup: float = 0.05
    temperature: float | None = 1.0
    words: int = 9
    show_gradient: bool = False

    def __post_init__(self) -> None:
        check_choice("strategy.form", self.form, FORMS)
        check_at_least("strategy.proposals", self.proposals, 1)
        check_at_least("strategy.similar", self.similar, 1)
        check_range("strategy.first", self.first, 0, 1)
        check_range("strategy.last", self.last, 0, self.first)
        check_range("strategy.warmup", self.warmup, 0, 1)
        check_at_least("strategy.temperature", self.temperature, 0)
        check_at_least("strategy.words", self.words, 2)

    @property
    def needs_model(self) -> bool:
        """For its gradients, where these are shown."""
        return self.show_gradient

    def propose(self, context: MentorContext) -> Dialogue:
        """The same question for each of the proposals: the model's sampling makes the answers differ."""
        current, most = context.pool[-1].prompt.text, self.changes(context)
        question = Request(
            self.messages(context),
            partial(read_within_limit, current=current, most=most, space=context.space),
            partial(self.remind, most=most),
            1,
            self.temperature,
        )
        return (yield from repeat_request(question, self.proposals))

    def messages(self, context: MentorContext) -> tuple[Message, ...]:
        """The conversation that asks for one new prompt within the limit."""
        current = context.pool[-1]
        alike = most_similar(context.scored, current, self.similar, context.space)
        shown, *earlier = format_entries([current, *alike], context, self.show_gradient, format_rating)
        size = len(words_of(current.prompt.text))
        limit = max(self.words, size + 1)  # a prompt of the current length must always be allowed
        parts = [
            describe_task(context.task),
            CURRENT,
            shown,
            *([EARLIER] if alike else []),
            *earlier,
            WISH.format(changes=format_number(self.changes(context), "word"), size=size),
            RULES.format(words=limit, tokens=context.space.length),
        ]
        return build_messages(self.form, ROLE, parts, "New prompt:")

    def changes(self, context: MentorContext) -> int:
        """How many words of the current prompt may change (K): at least one."""
        share = self.share(context.stage, context.stages - 1)
        return max(1, round(share * len(words_of(context.pool[-1].prompt.text))))

    def share(self, step: int, steps: int) -> float:
        """The share of words that may change at `step` (from 0) of `steps`: up in a line to `first`, down to `last`."""
        rising = int(self.warmup * steps)
        if step < rising:
            return self.first * (step + 1) / (rising + 1)
        done = (step - rising) / max(1, steps - rising - 1)
        return self.last + (self.first - self.last) * (1 + math.cos(math.pi * done)) / 2

    def remind(self, reply: str, most: int) -> list[Message]:
        """The unusable reply and a repeated wish; nothing for plain text, which is simply asked again."""
        return build_reminder(self.form, reply, REMINDER.format(changes=format_number(most, "word")))


def most_similar(
    scored: Sequence[ScoredPrompt], current: ScoredPrompt, most: int, space: PromptSpace
) -> list[ScoredPrompt]:
    """At most `most` other prompts, the one most similar to the current one last; of equal ones the better one."""
    others = [entry for entry in scored if entry.prompt.tokens != current.prompt.tokens]
    if not others:
        return []
    ours, *theirs = space.directions([entry.prompt for entry in (current, *others)])
    # Rounded, so that the same tokens in another order are equally near.
    cosines = [round(float(ours @ direction), 6) for direction in theirs]
    ranked = sorted(range(len(others)), key=cosines.__getitem__)
    return [others[i] for i in ranked[-most:]]


def read_within_limit(reply: str, current: str, most: int, space: PromptSpace) -> tuple[list[str], list[Rejected]]:
    """The prompts in a reply that are within `most` changed words of the current one, and the lines that are none."""
    texts, rejected = parse_proposals(reply, MOST_READ)
    changed = [word_distance(text, current, space) for text in texts]
    near = [text for text, words in zip(texts, changed, strict=True) if words <= most]
    far = [
        Rejected(shorten_line(text), f"{format_number(words, 'word')} changed, at most {most} may be")
        for text, words in zip(texts, changed, strict=True)
        if words > most
    ]
    return near, rejected + far


def word_distance(text: str, current: str, space: PromptSpace) -> int:
    """Words changed between the current prompt and a text as it is written or, where that is nearer, as it is used.

    Used are m tokens: a text is cut or repeated to fit, as the current prompt was.
    """
    try:
        forms = {text, space.fit(text)[0].text}
    except ValueError:
        forms = {text}  # no token at all: it is rejected for that later
    return min(edit_distance(words_of(current), words_of(form)) for form in forms)


def words_of(text: str) -> list[str]:
    """The words of a text in small letters, without marks: tokenizers do not keep these as they were written."""
    return re.findall(r"\w+", text.casefold())


def edit_distance(old: Sequence[str], new: Sequence[str]) -> int:
    """The fewest words added, removed or replaced that turn one text into the other (Levenshtein)."""
    row = list(range(len(new) + 1))
    for i, word in enumerate(old, start=1):
        above, row = row, [i]
        for j, other in enumerate(new, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != other)))
    return row[-1]
