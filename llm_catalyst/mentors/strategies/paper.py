"""The paper's instruction: learn from scored prompts, and write better ones.

Source: Guo et al., "LLM as a Complementary Optimizer to Gradient Descent" (arXiv 2405.19732), section on the mentor,
and its code (guozix/LLM-catalyst, exp_lm/chatgpt_hk.py), in our own words: a list of prompts with their loss and
accuracy, from the worst to the best; a hint to look for patterns that make a prompt good; a request for new prompts
with a lower loss, below a number of words, and for nothing else in the response.
"""

from typing import Literal

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import parse_official, parse_proposals
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Strategy, repeat_request
from llm_catalyst.mentors.strategies.templates import (
    ask_again,
    describe_task,
    format_entries,
    format_moves,
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


@config_dataclass("strategy")
class Paper(Strategy):
    """The paper's instruction; conf/strategy/paper.yaml explains the fields."""

    proposals: PositiveInt = 3
    description: str | None = None
    parsing: Literal["lenient", "official"] = "lenient"
    show_gradient: bool = False
    show_moves: bool = True

    def propose(self, context: MentorContext) -> Dialogue:
        """Send one request, and propose all prompts in its response."""
        return repeat_request(self.build_request(context), 1)

    def build_request(self, context: MentorContext) -> Request:
        """The request for `proposals` new prompts in view of the pool."""
        pool, wanted = context.pool, format_count(self.proposals, "new prompt")
        moves = format_moves(context) if self.show_moves else []
        trajectory = [ORDER, *format_entries(pool, context, self.show_gradient), *moves, PATTERNS] if pool else []
        task, rules = describe_task(context.task, self.description), write_rules(self.words, context.space.length)
        paragraphs = [task, *trajectory, WISH.format(proposals=wanted), rules]
        parse = parse_official if self.parsing == "official" else parse_proposals
        reminder = ask_again(f"{wanted} now, new and unlike the ones listed")
        return self.make_request(ROLE, paragraphs, "New prompts:", reminder, self.proposals, parse=parse)
