"""The paper's instruction: learn from scored prompts, and write better ones.

Source: Guo et al., "LLM as a Complementary Optimizer to Gradient Descent" (arXiv 2405.19732), section on the mentor,
and its code (guozix/LLM-catalyst, exp_lm/chatgpt_hk.py), in our own words: a list of prompts with their loss and
accuracy, from the worst to the best; a hint to look for patterns that make a prompt good; a request for new prompts
with a lower loss, below a number of words, and for nothing else in the response.
"""

from dataclasses import replace
from typing import Literal

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import parse_official, parse_proposals
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Strategy, repeat_request
from llm_catalyst.mentors.strategies.templates import (
    ask_again,
    describe_task,
    format_entries,
    format_moves,
    format_score,
    write_rules,
)
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.validation import PositiveInt, config_dataclass

ROLE = """You improve short text prompts that are put in front of the input of a frozen language model. You find out \
from scored examples what makes such a prompt work, and write better ones."""
ORDER = """These prompts were tried before, each with its loss and its accuracy on held-out examples. They stand in \
order: the loss falls from the first to the last, so the last one is the best."""
PATTERNS = """Look for patterns that set the better prompts apart from the worse ones. Some prompts are odd strings of \
word pieces: take up what they hint at, not their form. Write prompts unlike the ones above."""
WISH = "Write {proposals} with a loss as low as you can reach."
# For a model that only continues texts: no instruction, no scores, the order alone says what is better.
LIST_HEADING = """{task} The answers to choose from: {labels}.

Short instructions for this task, each with fewer than {words} words and better than the one before it:
"""
# What the code itself asks, which names no task, and speaks of images by mistake: `name_task=False`.
NAMELESS_ROLE = "You find out from examples what makes a short text template work."
NAMELESS_ORDER = """These templates are used for text classification with a pretrained language model. Each stands \
with its loss and its accuracy on validation examples. The loss falls from the first to the last; lower is better."""
NAMELESS_PATTERNS = """The better templates have something in common. Go by that, and write templates that differ from \
those above and have a loss as low as possible."""
NAMELESS_RULES = """\
- Answer with templates only.
- Each has fewer than {words} words.
- Write {proposals} that promise better image classification."""


@config_dataclass("strategy")
class Paper(Strategy):
    """The paper's instruction; conf/strategy/paper.yaml explains the fields."""

    proposals: PositiveInt = 3
    description: str | None = None
    parsing: Literal["lenient", "official"] = "lenient"
    show_gradient: bool = False
    show_moves: bool = True
    name_task: bool = True

    def propose(self, context: MentorContext) -> Dialogue:
        """Send one request, and propose all prompts in its response."""
        return repeat_request(self.build_request(context), 1)

    def build_request(self, context: MentorContext) -> Request:
        """The request for `proposals` new prompts in view of the pool."""
        pool, wanted = context.pool, format_count(self.proposals, "new prompt")
        parse = parse_official if self.parsing == "official" else parse_proposals
        reminder = ask_again(f"{wanted} now, new and unlike the ones listed")
        if not self.name_task:
            paragraphs, lead = self.write_nameless(context), "New templates:"
            request = self.make_request(NAMELESS_ROLE, paragraphs, lead, reminder, self.proposals, parse=parse)
            return replace(request, repeats=True)
        if self.form == "list":
            task, (words, _) = (self.description or context.task.text).strip(), self.limits(context.space)
            heading = LIST_HEADING.format(task=task, labels=", ".join(context.task.labels), words=words)
            return self.make_list(heading, [one.prompt.text for one in pool], self.proposals, parse=parse)
        moves = format_moves(context) if self.show_moves else []
        trajectory = [ORDER, *format_entries(pool, context, self.show_gradient), *moves, PATTERNS] if pool else []
        task, rules = describe_task(context.task, self.description), write_rules(*self.limits(context.space))
        paragraphs = [task, *trajectory, WISH.format(proposals=wanted), rules]
        return self.make_request(ROLE, paragraphs, "New prompts:", reminder, self.proposals, parse=parse)

    def write_nameless(self, context: MentorContext) -> list[str]:
        """The paragraphs of the request that names neither the task nor its labels nor how many tokens are used."""
        entries = [f"Template: {one.prompt.text}\n{format_score(one)}" for one in context.pool]
        words, _ = self.limits(context.space)
        wanted = format_count(self.proposals, "template")
        trajectory = [NAMELESS_ORDER, *entries, NAMELESS_PATTERNS] if entries else []
        return [*trajectory, NAMELESS_RULES.format(words=words, proposals=wanted)]
