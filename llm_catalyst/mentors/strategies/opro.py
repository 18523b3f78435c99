"""OPRO: the task, the best prompts so far with their scores, some examples, and the wish for one that beats them all.

Source: Yang et al. 2023, "Large Language Models as Optimizers" (arXiv 2309.03409), section 5, and its code
(google-deepmind/opro, opro/optimization/), in our own words. Faithful: the best `history` prompts of the whole run in
ascending score, those of at least `threshold` only; scores as integers from 0 to 100 (the metric); `exemplars` examples
drawn anew at each step; `proposals` requests with the same text for one prompt each, at temperature 1; answers between
<INS> and </INS>; those of over 500 characters, and what was scored before, are dropped.

What differs: the task is told in words, too; scores come from the dev split, theirs from training examples; an answer
without tags is read as a list of prompts, not taken whole; a tag within a prompt is removed, where theirs drops the
prompt; the limit of `words` is told, as prompts are a few tokens long. Where no prompt reaches the threshold, the best
is shown. Their threshold hangs on the model that is prompted: 0.3 for GPT, 0 for PaLM. Their filter against digits is
left out: it is for arithmetic only.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import (
    Candidate,
    clean_line,
    parse_proposals,
    peel_markup,
    screen_candidates,
    shorten_line,
    strip_invisible,
)
from llm_catalyst.mentors.strategies.base import Dialogue, Request, repeat_request
from llm_catalyst.mentors.strategies.templates import (
    FORMS,
    MOST_READ,
    build_messages,
    build_reminder,
    describe_task,
    format_answer,
    format_entries,
    format_input,
    format_rating,
)
from llm_catalyst.runs.records import Message, Rejected, ScoredPrompt
from llm_catalyst.utils.validation import check_at_least, check_choice, check_range

LONGEST = 500  # characters of a prompt; longer ones are dropped
TAGGED = re.compile(r"<INS>((?:(?!<INS>).)*?)</INS>", re.DOTALL | re.IGNORECASE)

ROLE = (
    "You improve short text prompts that are put in front of the input of a frozen language model. You are shown "
    "prompts with the scores that they reached, and write one that scores higher."
)
ORDER = (
    "These prompts were tried before. Their scores run from 0 to 100, and higher is better. They stand in order: the "
    "last one is the best."
)
BEAT = (
    "Your prompt must be unlike all of these, and score higher than each of them. Some of them are odd strings of word "
    "pieces: take up what they hint at, not their form."
)
EXEMPLARS = "These are examples of the task with their true answers. <INS> marks where the prompt stands."
WISH = "Write one new prompt with a score as high as you can reach. It should be brief, and fit any input of the task."
RULES = """\
- Write fewer than {words} words. Only the first {tokens} tokens of the prompt are used.
- Write the prompt between <INS> and </INS>, and nothing else."""
REMINDER = (
    "No usable prompt could be read from that answer. Please write one new prompt now, unlike all that were listed, "
    "between <INS> and </INS>, and nothing else."
)


@dataclass(frozen=True)
class Opro:
    """The `strategy` node: optimization by prompting. Fields are explained in conf/strategy/opro.yaml."""

    needs_pool: ClassVar[bool] = False

    form: str = "chat"
    proposals: int = 8
    history: int = 20
    threshold: float = 0.3
    exemplars: int = 3
    temperature: float | None = 1.0
    words: int = 9
    show_gradient: bool = False

    def __post_init__(self) -> None:
        check_choice("strategy.form", self.form, FORMS)
        check_at_least("strategy.proposals", self.proposals, 1)
        check_at_least("strategy.history", self.history, 1)
        check_range("strategy.threshold", self.threshold, 0, 1)
        check_at_least("strategy.exemplars", self.exemplars, 0)
        check_at_least("strategy.temperature", self.temperature, 0)
        check_at_least("strategy.words", self.words, 2)

    @property
    def needs_model(self) -> bool:
        """For its gradients, where these are shown."""
        return self.show_gradient

    def propose(self, context: MentorContext) -> Dialogue:
        """The same question for each of the proposals: the model's sampling makes the answers differ."""
        question = Request(self.messages(context), read_tagged, self.remind, 1, self.temperature)
        return (yield from repeat_request(question, self.proposals))

    def messages(self, context: MentorContext) -> tuple[Message, ...]:
        """The conversation that asks for one new prompt; the examples in it are drawn from `context.rng`."""
        best = self.best(context.scored)
        parts = [
            describe_task(context.task),
            *([ORDER, *format_entries(best, context, self.show_gradient, format_rating), BEAT] if best else []),
            *self.examples(context),
            WISH,
            RULES.format(words=self.words, tokens=context.space.length),
        ]
        return build_messages(self.form, ROLE, parts, "New prompt:")

    def best(self, scored: Sequence[ScoredPrompt]) -> list[ScoredPrompt]:
        """The prompts that are shown, the best one last: where the metric is equal, the loss tells."""
        ranked = sorted(scored, key=lambda entry: (entry.score.metric, -entry.score.loss))
        passing = [entry for entry in ranked if entry.score.metric >= self.threshold]
        return passing[-self.history :] or ranked[-1:]

    def examples(self, context: MentorContext) -> list[str]:
        """A paragraph for each training example drawn, in the order of the data, and one that explains them."""
        task = context.task
        drawn = sorted(context.draw_examples(self.exemplars))
        shown = [
            f"Input: <INS> {format_input(example)}\nAnswer: {format_answer(task, example.label)}"
            for example in (task.examples[row] for row in drawn)
        ]
        return [EXEMPLARS, *shown] if shown else []

    def remind(self, reply: str) -> list[Message]:
        """The unusable reply and a repeated wish; nothing for plain text, which is simply asked again."""
        return build_reminder(self.form, reply, REMINDER)


def read_tagged(reply: str) -> tuple[list[str], list[Rejected]]:
    """What stands between tags in a reply or, without any, the prompts in it; and the lines that are none."""
    tagged = [clean_line(text) for text in TAGGED.findall(strip_invisible(reply).rpartition("</think>")[2])]
    if any(tagged):
        texts, rejected = screen_candidates(
            [Candidate(text, peel_markup(text)[0]) for text in tagged if text], MOST_READ
        )
    else:
        texts, rejected = parse_proposals(reply, MOST_READ)
    long = [Rejected(shorten_line(text), f"longer than {LONGEST} characters") for text in texts if len(text) > LONGEST]
    return [text for text in texts if len(text) <= LONGEST], rejected + long
