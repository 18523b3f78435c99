"""The instruction of the paper: learn from scored prompts, and write better ones.

Source: Guo et al., "LLM as a Complementary Optimizer to Gradient Descent" (arXiv 2405.19732), section on the
mentor, and its code (guozix/LLM-catalyst, exp_lm/chatgpt_hk.py), in our own words: a list of prompts with
their loss and accuracy, from the worst to the best; the hint that patterns in it make a prompt good; the wish
for new prompts with a lower loss, below a number of words, and for nothing else in the answer.
"""

from dataclasses import dataclass
from typing import ClassVar

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import parse_official, parse_proposals
from llm_catalyst.mentors.strategies.base import Dialogue, Request
from llm_catalyst.mentors.strategies.templates import (
    FORMS,
    MOST_READ,
    RULES,
    build_messages,
    build_reminder,
    describe_task,
    format_entries,
    format_number,
)
from llm_catalyst.runs.records import Advice, Message, Rejected
from llm_catalyst.utils.validation import check_at_least, check_choice

ROLE = (
    "You improve short text prompts that are put in front of the input of a frozen language model. "
    "You find out from scored examples what makes such a prompt work, and write better ones."
)
ORDER = (
    "These prompts were tried before, each with its loss and its accuracy on held-out examples. They stand in "
    "order: the loss falls from the first to the last, so the last one is the best."
)
PATTERNS = (
    "Look for patterns that set the better prompts apart from the worse ones. Some prompts are odd strings of "
    "word pieces: take up what they hint at, not their form. Write prompts unlike the ones above."
)
WISH = "Write {proposals} with a loss as low as you can reach."
REMINDER = (
    "No usable prompt could be read from that answer. Please write {proposals} now, new and unlike the ones "
    'listed, one per line, each line beginning with "- ", and nothing else.'
)


@dataclass(frozen=True)
class Paper:
    """The `strategy` node: the paper's instruction. Fields are explained in conf/strategy/paper.yaml."""

    needs_pool: ClassVar[bool] = False

    form: str = "chat"
    description: str | None = None
    proposals: int = 3
    words: int = 9
    parsing: str = "lenient"
    show_gradient: bool = False

    def __post_init__(self) -> None:
        check_choice("strategy.form", self.form, FORMS)
        check_choice("strategy.parsing", self.parsing, ("lenient", "official"))
        check_at_least("strategy.proposals", self.proposals, 1)
        check_at_least("strategy.words", self.words, 2)

    @property
    def needs_model(self) -> bool:
        """For its gradients, where these are shown."""
        return self.show_gradient

    def propose(self, context: MentorContext) -> Dialogue:
        """One question, and its answer as it is."""
        (reply,) = yield (Request(self.messages(context), self.read, self.remind, self.proposals),)
        return Advice(reply.proposals)

    def messages(self, context: MentorContext) -> tuple[Message, ...]:
        """The conversation that asks for new prompts: system and user, or one plain text."""
        pool = context.pool
        shown = [ORDER, *format_entries(pool, context, self.show_gradient), PATTERNS] if pool else []
        parts = [
            describe_task(context.task, self.description),
            *shown,
            WISH.format(proposals=format_number(self.proposals, "new prompt")),
            RULES.format(words=self.words, tokens=context.space.length),
        ]
        return build_messages(self.form, ROLE, parts, "New prompts:")

    def remind(self, reply: str) -> list[Message]:
        """The unusable reply and a repeated wish; nothing for plain text, which is simply asked again."""
        return build_reminder(self.form, reply, REMINDER.format(proposals=format_number(self.proposals, "new prompt")))

    def read(self, reply: str) -> tuple[list[str], list[Rejected]]:
        """The proposals in a reply, and the lines that are none."""
        return (parse_official if self.parsing == "official" else parse_proposals)(reply, MOST_READ)
