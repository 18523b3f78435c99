"""A control for the history: a language model rewrites the best prompt, and is shown nothing else.

Source: the resampling step of APE (Zhou et al. 2022, "Large Language Models Are Human-Level Prompt Engineers", arXiv
2211.01910, figure 3), in our own words: a variation of an instruction that keeps its meaning. As there, the request
shows neither the task nor a score nor another prompt: the history and the task's description do not contribute to what
such restarts gain.
"""

from typing import TYPE_CHECKING

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Strategy, repeat_request
from llm_catalyst.mentors.strategies.templates import ask_again, quote_json, write_rules
from llm_catalyst.runs.records import Prompt
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.validation import PositiveInt, config_dataclass

if TYPE_CHECKING:
    from llm_catalyst.models.soft_prompt import PromptSpace

ROLE = "You say short texts in other words."
WISH = """Write {variations} of this text with the same meaning. It may be an odd string of word pieces: keep what it \
hints at, not its form."""


@config_dataclass("strategy")
class Paraphrase(Strategy):
    """Paraphrases of the pool's best prompt; conf/strategy/paraphrase.yaml explains the fields."""

    needs_pool = True

    proposals: PositiveInt = 3

    def propose(self, context: MentorContext) -> Dialogue:
        """Send one request, and propose all prompts in its response."""
        return repeat_request(self.build_request(context.pool[-1].prompt, context.space), 1)

    def build_request(self, prompt: Prompt, space: "PromptSpace") -> Request:
        """The request for `proposals` variations of a prompt."""
        wanted = format_count(self.proposals, "variation")
        rules = write_rules(*self.limits(space), "variation", "the variations only: no introduction")
        paragraphs = [WISH.format(variations=wanted), f"Text: {quote_json(prompt.text)}", rules]
        reminder = ask_again(f"{wanted} of the text now", noun="usable variation")
        return self.make_request(ROLE, paragraphs, "Variations:", reminder, self.proposals)
