"""A control for the history: the best prompt, said in other words by a language model that is shown nothing else.

Source: the resampling step of APE (Zhou et al. 2022, "Large Language Models Are Human-Level Prompt Engineers", arXiv
2211.01910, figure 3), in our own words: a variation of an instruction that keeps its meaning. Like there, neither the
task nor a score nor another prompt is shown: what such restarts gain, the history and the task's description did not
give.
"""

from dataclasses import dataclass
from typing import ClassVar

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import parse_proposals
from llm_catalyst.mentors.strategies.base import Dialogue, Request
from llm_catalyst.mentors.strategies.templates import (
    FORMS,
    MOST_READ,
    build_messages,
    build_reminder,
    format_number,
    quote_json,
)
from llm_catalyst.runs.records import Advice, Message, Rejected
from llm_catalyst.utils.validation import check_at_least, check_choice

ROLE = "You say short texts in other words."
WISH = (
    "Write {variations} of this text with the same meaning. It may be an odd string of word pieces: keep what it "
    "hints at, not its form."
)
RULES = """\
- Write fewer than {words} words per variation. Only its first {tokens} tokens are used.
- Write one variation per line, each line beginning with "- ".
- Answer with the variations only: no introduction, no explanation."""
REMINDER = (
    "No usable variation could be read from that answer. Please write {variations} of the text now, one per line, each "
    'line beginning with "- ", and nothing else.'
)


@dataclass(frozen=True)
class Paraphrase:
    """The `strategy` node: paraphrases of the best prompt. Fields are explained in conf/strategy/paraphrase.yaml."""

    needs_pool: ClassVar[bool] = True
    needs_model: ClassVar[bool] = False

    form: str = "chat"
    proposals: int = 3
    words: int = 9

    def __post_init__(self) -> None:
        check_choice("strategy.form", self.form, FORMS)
        check_at_least("strategy.proposals", self.proposals, 1)
        check_at_least("strategy.words", self.words, 2)

    def propose(self, context: MentorContext) -> Dialogue:
        """One question, and its answer as it is."""
        (reply,) = yield (Request(self.messages(context), self.read, self.remind, self.proposals),)
        return Advice(reply.proposals)

    def messages(self, context: MentorContext) -> tuple[Message, ...]:
        """The conversation that asks for variations of the pool's best prompt."""
        parts = [
            WISH.format(variations=format_number(self.proposals, "variation")),
            f"Text: {quote_json(context.pool[-1].prompt.text)}",
            RULES.format(words=self.words, tokens=context.space.length),
        ]
        return build_messages(self.form, ROLE, parts, "Variations:")

    def remind(self, reply: str) -> list[Message]:
        """The unusable reply and a repeated wish; nothing for plain text, which is simply asked again."""
        return build_reminder(self.form, reply, REMINDER.format(variations=format_number(self.proposals, "variation")))

    def read(self, reply: str) -> tuple[list[str], list[Rejected]]:
        """The variations in a reply, and the lines that are none."""
        return parse_proposals(reply, MOST_READ)
