"""OPRO: show the task, the best prompts so far with their scores and some examples; ask for one that beats them all.

Source: Yang et al. 2023, "Large Language Models as Optimizers" (arXiv 2309.03409), section 5, and its code
(google-deepmind/opro, opro/optimization/), in our own words. Faithful: the best `history` prompts of the whole run in
ascending score, only those of at least `threshold`; scores as integers from 0 to 100 (the metric); `exemplars` examples
drawn anew at each step; `proposals` requests with the same text for one prompt each, at temperature 1; responses
between <INS> and </INS>; those of over 500 characters, and prompts that were scored before, are dropped.

Different: the request also describes the task in words; scores come from the dev split, theirs from training examples;
a response without tags is read as a list of prompts, not taken whole; a tag within a prompt is removed, theirs drops
the prompt; the request states the limit of `words`, as prompts are a few tokens long. If no prompt reaches the
threshold, the best is shown. Their threshold depends on the model that is prompted: 0.3 for GPT, 0 for PaLM. Their
filter against digits is left out: it is for arithmetic only.
"""

import re
from collections.abc import Sequence

from llm_catalyst.mentors import reply_parser
from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.strategies import templates
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Strategy, repeat_request
from llm_catalyst.runs.records import ScoredPrompt
from llm_catalyst.utils.validation import Fraction, NonNegative, NonNegativeInt, PositiveInt, config_dataclass

LONGEST = 500  # characters of a prompt; longer ones are dropped
TAGGED = re.compile(r"<INS>((?:(?!<INS>).)*?)</INS>", re.DOTALL | re.IGNORECASE)

ROLE = """You improve short text prompts that are put in front of the input of a frozen language model. You are shown \
prompts with the scores that they reached, and write one that scores higher."""
ORDER = """These prompts were tried before. Their scores run from 0 to 100, and higher is better. They stand in order: \
the last one is the best."""
BEAT = """Your prompt must be unlike all of these, and score higher than each of them. Some of them are odd strings of \
word pieces: take up what they hint at, not their form."""
EXEMPLARS = "These are examples of the task with their true answers. <INS> marks where the prompt stands."
WISH = "Write one new prompt with a score as high as you can reach. It should be brief, and fit any input of the task."
RULES = """\
- Write fewer than {words} words. Only the first {tokens} tokens of the prompt are used.
- Write the prompt between <INS> and </INS>, and nothing else."""


@config_dataclass("strategy")
class Opro(Strategy):
    """Optimization by prompting; conf/strategy/opro.yaml explains the fields."""

    proposals: PositiveInt = 8
    history: PositiveInt = 20
    threshold: Fraction = 0.3
    exemplars: NonNegativeInt = 3
    temperature: NonNegative | None = 1.0
    show_gradient: bool = False

    def propose(self, context: MentorContext) -> Dialogue:
        """Send the same request for each of the proposals."""
        return repeat_request(self.build_request(context), self.proposals)

    def build_request(self, context: MentorContext) -> Request:
        """The request for one new prompt; its examples are drawn by `context.rng`."""
        best = self.select_history(context.scored)
        scores = templates.format_entries(best, context, self.show_gradient, rated=True) if best else []
        shown = [*([ORDER, *scores, BEAT] if best else []), *self.show_examples(context)]
        words, tokens = self.limits(context.space)
        rules = RULES.format(words=words, tokens=tokens)
        paragraphs = [templates.describe_task(context.task), *shown, WISH, rules]
        reminder = templates.ask_again("one new prompt now, unlike all that were listed", "between <INS> and </INS>")
        return self.make_request(ROLE, paragraphs, "New prompt:", reminder, parse=parse_tagged)

    def select_history(self, scored: Sequence[ScoredPrompt]) -> list[ScoredPrompt]:
        """The prompts that are shown, the best one last: by the metric, and among equal ones by the loss."""
        ranked = sorted(scored, key=lambda entry: entry.score.rank)
        passing = [entry for entry in ranked if entry.score.metric >= self.threshold]
        return passing[-self.history :] or ranked[-1:]

    def show_examples(self, context: MentorContext) -> list[str]:
        """A paragraph that explains the examples, and one for each drawn training example, in the order of the data."""
        task = context.task
        examples = [task.examples[row] for row in sorted(context.draw_examples(self.exemplars))]
        shown = [f"Input: <INS> {templates.format_input(each)}\nAnswer: {task.name_answer(each)}" for each in examples]
        return [EXEMPLARS, *shown] if shown else []


def parse_tagged(response: str) -> reply_parser.ParsedTexts:
    """The texts between tags in a response or, without any tag, its prompts; and the lines that are dropped."""
    answer, _ = reply_parser.split_reasoning(response)
    tagged = list(filter(None, map(reply_parser.clean_line, TAGGED.findall(answer or ""))))
    candidates = [reply_parser.Candidate(text, reply_parser.peel_markup(text)[0]) for text in tagged]
    parsed = reply_parser.screen_candidates(candidates) if tagged else reply_parser.parse_proposals(response)
    fault = f"longer than {LONGEST} characters"
    return reply_parser.reject_texts(parsed, lambda text: fault if len(text) > LONGEST else None)
