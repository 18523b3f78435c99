"""Ask for a direction first, and then for a step along it: feedback that says how to change the prompt.

Source: Nie et al. 2024, "The Importance of Directional Feedback for LLM-based Optimizers" (arXiv 2405.16434), from its
description; no optimizer code is public.
Faithful: a history of prompts, outputs and rewards; one request that turns it into a direction of change (the paper's
feedback synthesizer), a second one that changes the prompt along it; a selector that keeps only improvements.
Different: the outputs are the best prompt's answers to some training examples. The selector is the pool: the prompt
with the lowest dev loss of all is changed next (in an alternating run, training meanwhile continues from the best new
one). The directions of earlier consultations are shown with their results. All requests are in our own words, and all
numbers are ours. With `show_gradient` the synthesizer also sees, for each token, where the gradient of the loss points:
directional feedback that needs access to the model's weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import ParsedTexts, clean_line, shorten_line, split_reasoning
from llm_catalyst.mentors.strategies import templates
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Strategy
from llm_catalyst.runs.records import Advice, Rejected
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.validation import NonNegative, NonNegativeInt, PositiveInt, config_dataclass

LONGEST_DIRECTION = 1000  # characters of a direction that are used

SYNTHESIZER = """You study how short text prompts for a frozen language model fared, and say in which direction the \
best one should be changed."""
EDITOR = "You change short text prompts for a frozen language model in the direction that you are told."
TAKEN = """\
Directions that were taken before, the latest one last. Stay with one that helped, turn away from one that did not:"""
ASK_DIRECTION = """\
In which direction should the best prompt be changed so that its loss falls? Say what to put in, leave out or replace, \
and why the scores speak for it. A prompt holds only {tokens} tokens, so ask for nothing long.

Answer with the direction in one to three sentences, and with nothing else: no new prompt."""
REMINDER = """No direction could be read from that answer. Please say now, in one to three sentences, in \
which direction the best prompt should be changed."""
ALONG = "Change it in this direction: {direction}"
FREELY = "Change it so that its loss falls."
WISH = "Write {proposals}, each another way to do so. Take over what need not change."


@config_dataclass("strategy")
class Directional(Strategy):
    """A direction, then a step; conf/strategy/directional.yaml explains the fields."""

    needs_pool = True

    proposals: PositiveInt = 3
    trace: PositiveInt = 5
    examples: NonNegativeInt = 8
    outputs: PositiveInt = 3
    directions: PositiveInt = 3
    temperature: NonNegative | None = None
    show_gradient: bool = False

    @property
    def needs_model(self) -> bool:
        """For the best prompt's answers, and for gradients if they are shown."""
        return self.examples > 0 or self.show_gradient

    def propose(self, context: MentorContext) -> Dialogue:
        """Ask for a direction, then for steps along it; without a direction only for steps.

        A direction without usable steps is not remembered.
        """
        taken = context.memory.get("directions", [])
        (answer,) = yield (self.ask_direction(context, taken),)
        direction = answer.texts[0] if answer.texts else None
        (response,) = yield (self.ask_prompts(context, direction),)
        if not response.proposals:  # stated here, as a direction alone counts as a usable response
            return Advice(fallback="no usable proposal in the answer")
        if direction:
            edited = list(context.pool[-1].prompt.tokens)
            written = [list(proposal.prompt.tokens) for proposal in response.proposals]
            taken = [*taken, {"direction": direction, "edited": edited, "written": written}]
        return Advice(response.proposals, memory={"directions": taken[-self.directions :]})

    def ask_direction(self, context: MentorContext, taken: Sequence[Mapping[str, Any]]) -> Request:
        """The synthesizer's request: the history, the best prompt's outputs, and the results of earlier directions."""
        outcomes = [TAKEN, *(describe_outcome(each, context) for each in taken)] if taken else []
        trajectory, outputs = self.show_trajectory(context, self.show_gradient), self.show_outputs(context)
        paragraphs = [*trajectory, *outputs, *outcomes, ASK_DIRECTION.format(tokens=context.space.length)]
        return self.make_request(SYNTHESIZER, paragraphs, "Direction:", REMINDER, prompts=0, parse=parse_direction)

    def ask_prompts(self, context: MentorContext, direction: str | None) -> Request:
        """The optimizer's request: the history, its best prompt, and the direction if there is one."""
        wanted = format_count(self.proposals, "new prompt")
        best = f"The prompt to change: {templates.quote_json(context.pool[-1].prompt.text)}"
        how = ALONG.format(direction=direction) if direction else FREELY
        rules = templates.write_rules(*self.limits(context.space))
        paragraphs = [*self.show_trajectory(context), best, how, WISH.format(proposals=wanted), rules]
        rationale = f"along: {shorten_line(direction)}" if direction else "the best prompt, changed"
        reminder = templates.ask_again(f"{wanted} now, none of them among the ones listed")
        return self.make_request(EDITOR, paragraphs, "New prompts:", reminder, self.proposals, rationale)

    def show_trajectory(self, context: MentorContext, gradient: bool = False) -> list[str]:
        """The task, and the best prompts of the trajectory with their losses."""
        entries = templates.format_entries(context.pool[-self.trace :], context, gradient)
        return [templates.describe_task(context.task), templates.ORDER, *entries]

    def show_outputs(self, context: MentorContext) -> list[str]:
        """The best prompt's answers to training examples drawn for this consultation: wrong ones, then right ones."""
        task, best = context.task, context.pool[-1].prompt
        rows = context.draw_examples(self.examples)
        if not rows:
            return []
        tried = list(zip(rows, context.attempt([best], rows)[0], strict=True))
        hits = sum(trial.right for _, trial in tried)
        shown = [f"Of {format_count(len(rows), 'training example')} the best prompt got {hits} right."]
        for right, heading in ((False, "It got wrong, for example:"), (True, "It got right, for example:")):
            of_kind = [(task.examples[row], trial) for row, trial in tried if trial.right == right][: self.outputs]
            shown += [heading] * bool(of_kind)
            for example, trial in of_kind:
                answer = f"Input: {templates.format_input(example)}\nIts answer: {trial.answer}"
                shown.append(answer if right else f"{answer}\nThe right answer: {task.name_answer(example)}")
        return shown


def parse_direction(response: str) -> ParsedTexts:
    """The direction in a response, on one line, without a model's reasoning before it."""
    answer, rejected = split_reasoning(response)
    if answer is None:
        return [], rejected
    text = clean_line(answer).removeprefix("Direction:").strip()[:LONGEST_DIRECTION]
    if any(character.isalnum() for character in text):
        return [text], rejected
    return [], [*rejected, Rejected(shorten_line(text), "no letter or digit in it")]


def describe_outcome(taken: Mapping[str, Any], context: MentorContext) -> str:
    """A direction that was taken, and whether it helped: by the present losses of the prompts before and after."""
    losses = {entry.prompt.tokens: entry.score.loss for entry in (*context.scored, *context.pool)}
    before = losses.get(tuple(taken["edited"]))
    after = [losses[tuple(tokens)] for tokens in taken["written"] if tuple(tokens) in losses]
    if before is None or not after:
        return f"Direction: {taken['direction']}\nWhat came of it is not known."
    verdict = "It helped" if min(after) < before else "It did not help"
    return f"Direction: {taken['direction']}\n{verdict}: a loss of {before:.3f} before, at best {min(after):.3f} after."
