"""The instruction of the paper: learn from scored prompts, and write better ones.

Source: Guo et al., "LLM as a Complementary Optimizer to Gradient Descent" (arXiv 2405.19732), section on the
mentor, and its code (guozix/LLM-catalyst, exp_lm/chatgpt_hk.py), in our own words: a list of prompts with
their loss and accuracy, from the worst to the best; the hint that patterns in it make a prompt good; the wish
for new prompts with a lower loss, below a number of words, and for nothing else in the answer.
"""

from dataclasses import dataclass
from typing import ClassVar

from llm_catalyst.checks import at_least, one_of
from llm_catalyst.mentors.consultation import Consultation, TaskDescription
from llm_catalyst.mentors.reply import parse, parse_official
from llm_catalyst.mentors.strategies.wording import FORMS, MOST_READ, conversation, number_of, quoted, reminder
from llm_catalyst.records import Message, Rejected, Scored

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
RULES = """\
- Write fewer than {words} words per prompt. Only its first {tokens} tokens are used.
- Write one prompt per line, each line beginning with "- ".
- Answer with the prompts only: no introduction, no scores, no explanation."""
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
    words: int = 9
    parsing: str = "lenient"

    def __post_init__(self) -> None:
        one_of("strategy.form", self.form, FORMS)
        one_of("strategy.parsing", self.parsing, ("lenient", "official"))
        at_least("strategy.words", self.words, 2)

    def messages(self, consultation: Consultation, proposals: int) -> list[Message]:
        """The conversation that asks for `proposals` new prompts: system and user, or one plain text."""
        parts = [
            describe(consultation.task, self.description),
            *([ORDER, *map(entry, consultation.pool), PATTERNS] if consultation.pool else []),
            WISH.format(proposals=number_of(proposals, "new prompt")),
            RULES.format(words=self.words, tokens=consultation.space.length),
        ]
        return conversation(self.form, ROLE, parts, "New prompts:")

    def reminder(self, reply: str, proposals: int) -> list[Message]:
        """The unusable reply and a repeated wish; nothing for plain text, which is simply asked again."""
        return reminder(self.form, reply, REMINDER.format(proposals=number_of(proposals, "new prompt")))

    def read(self, reply: str) -> tuple[list[str], list[Rejected]]:
        """The proposals in a reply, and the lines that are none."""
        return (parse_official if self.parsing == "official" else parse)(reply, MOST_READ)


def describe(task: TaskDescription, description: str | None) -> str:
    """The paragraph about the task; `description` stands for the task's own text where it is given."""
    labels = f" The answers to choose from: {', '.join(task.labels)}." if task.labels else ""
    return f"The task of the language model: {(description or task.text).strip()}{labels}"


def entry(scored: Scored) -> str:
    """A scored prompt as three lines; its text is quoted, so that odd tokens stay on their line."""
    return f"Prompt: {quoted(scored.prompt.text)}\nLoss: {scored.score.loss:.3f}\nAccuracy: {scored.score.metric:.3f}"
