"""A direction first, and then a step along it: feedback that says how to change the prompt, not only how good it is.

Source: Nie et al. 2024, "The Importance of Directional Feedback for LLM-based Optimizers" (arXiv 2405.16434), from its
description; no optimizer code is public.
Faithful: a history of prompts, outputs and rewards; one request that turns it into a direction of change (the paper's
feedback synthesizer), a second one that changes the prompt along it; a selector that keeps only what improves.
Different: the outputs are the best prompt's answers to some training examples. The selector is the pool: the prompt
with the lowest dev loss of all is the one that is changed next (in an alternating run, training meanwhile goes on from
the best new one). Directions of earlier consultations are shown with what came of them. All requests are in our own
words, and all numbers are ours. With `show_gradient` the synthesizer also sees, for each token, where the gradient of
the loss points: directional feedback that only a model whose weights are at hand can give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import clean_line, parse_proposals, shorten_line, strip_invisible
from llm_catalyst.mentors.strategies.base import Dialogue, Request
from llm_catalyst.mentors.strategies.templates import (
    ASK_AGAIN,
    FORMS,
    MOST_READ,
    ORDER,
    RULES,
    build_messages,
    build_reminder,
    describe_task,
    format_answer,
    format_entries,
    format_input,
    format_number,
    quote_json,
)
from llm_catalyst.runs.records import Advice, Message, Rejected
from llm_catalyst.utils.validation import check_at_least, check_choice

LONGEST_DIRECTION = 1000  # characters of a direction that are used

SYNTHESIZER = (
    "You study how short text prompts for a frozen language model fared, and say in which direction the best one "
    "should be changed."
)
EDITOR = "You change short text prompts for a frozen language model in the direction that you are told."
TAKEN = (
    "Directions that were taken before, the latest one last. Stay with one that helped, turn away from one that did "
    "not:"
)
ASK_DIRECTION = (
    "In which direction should the best prompt be changed so that its loss falls? Say what to put in, leave out or "
    "replace, and why the scores speak for it. "
    "A prompt holds only {tokens} tokens, so ask for nothing long.\n\n"
    "Answer with the direction in one to three sentences, and with nothing else: no new prompt."
)
ASK_DIRECTION_AGAIN = (
    "No direction could be read from that answer. Please say now, in one to three sentences, in which direction the "
    "best prompt should be changed."
)
ALONG = "Change it in this direction: {direction}"
FREELY = "Change it so that its loss falls."
WISH = "Write {proposals}, each another way to do so. Take over what need not change."


@dataclass(frozen=True)
class Directional:
    """The `strategy` node: a direction, then a step. Fields are explained in conf/strategy/directional.yaml."""

    needs_pool: ClassVar[bool] = True

    form: str = "chat"
    proposals: int = 3
    words: int = 9
    trace: int = 5
    examples: int = 8
    outputs: int = 3
    directions: int = 3
    temperature: float | None = None
    show_gradient: bool = False

    def __post_init__(self) -> None:
        check_choice("strategy.form", self.form, FORMS)
        check_at_least("strategy.proposals", self.proposals, 1)
        check_at_least("strategy.words", self.words, 2)
        check_at_least("strategy.trace", self.trace, 1)
        check_at_least("strategy.examples", self.examples, 0)
        check_at_least("strategy.outputs", self.outputs, 1)
        check_at_least("strategy.directions", self.directions, 1)
        check_at_least("strategy.temperature", self.temperature, 0)

    @property
    def needs_model(self) -> bool:
        """For the best prompt's answers, and for gradients where these are shown."""
        return self.examples > 0 or self.show_gradient

    def propose(self, context: MentorContext) -> Dialogue:
        """Ask for a direction, then for steps along it; without a direction for steps alone.

        A direction along which nothing was written is not remembered.
        """
        taken = context.memory.get("directions", [])
        (said,) = yield (self.ask_direction(context, taken),)
        direction = said.texts[0] if said.texts else None
        (reply,) = yield (self.ask_prompts(context, direction),)
        if not reply.proposals:  # said here, as a direction alone counts as a usable answer
            return Advice(fallback="no usable proposal in the answer")
        if direction:
            edited = list(context.pool[-1].prompt.tokens)
            written = [list(proposal.prompt.tokens) for proposal in reply.proposals]
            taken = [*taken, {"direction": direction, "edited": edited, "written": written}]
        return Advice(reply.proposals, memory={"directions": taken[-self.directions :]})

    def ask_direction(self, context: MentorContext, taken: Sequence[Mapping[str, Any]]) -> Request:
        """The synthesizer's request: the history, the best prompt's outputs, and what came of earlier directions."""
        parts = [
            describe_task(context.task),
            ORDER,
            *format_entries(context.pool[-self.trace :], context, self.show_gradient),
            *self.outputs_of_the_best(context),
            *([TAKEN, *(describe_outcome(each, context) for each in taken)] if taken else []),
            ASK_DIRECTION.format(tokens=context.space.length),
        ]
        return Request(
            build_messages(self.form, SYNTHESIZER, parts, "Direction:"),
            read_direction,
            lambda reply: build_reminder(self.form, reply, ASK_DIRECTION_AGAIN),
            prompts=0,
            temperature=self.temperature,
        )

    def ask_prompts(self, context: MentorContext, direction: str | None) -> Request:
        """The optimizer's request: the history, its best prompt, and the direction where there is one."""
        wanted = format_number(self.proposals, "new prompt")
        parts = [
            describe_task(context.task),
            ORDER,
            *format_entries(context.pool[-self.trace :], context),
            f"The prompt to change: {quote_json(context.pool[-1].prompt.text)}",
            ALONG.format(direction=direction) if direction else FREELY,
            WISH.format(proposals=wanted),
            RULES.format(words=self.words, tokens=context.space.length),
        ]

        def remind(reply: str) -> list[Message]:
            return build_reminder(self.form, reply, ASK_AGAIN.format(proposals=wanted))

        return Request(
            build_messages(self.form, EDITOR, parts, "New prompts:"),
            lambda reply: parse_proposals(reply, MOST_READ),
            remind,
            self.proposals,
            self.temperature,
            f"along: {shorten_line(direction)}" if direction else "the best prompt, changed",
        )

    def outputs_of_the_best(self, context: MentorContext) -> list[str]:
        """What the best prompt answered to training examples drawn for this consultation: wrong ones, right ones."""
        task, best = context.task, context.pool[-1].prompt
        rows = context.draw_examples(self.examples)
        if not rows:
            return []
        tried = list(zip(rows, context.attempt([best], rows)[0], strict=True))
        shown = []
        for right, words in ((False, "It got wrong, for example:"), (True, "It got right, for example:")):
            of_kind = [(row, trial) for row, trial in tried if trial.right == right][: self.outputs]
            shown += [words] * bool(of_kind)
            for row, trial in of_kind:
                example = task.examples[row]
                answer = f"Input: {format_input(example)}\nIts answer: {format_answer(task, trial.answer)}"
                shown.append(answer if right else f"{answer}\nThe right answer: {format_answer(task, example.label)}")
        hits = sum(trial.right for _, trial in tried)
        return [f"Of {format_number(len(rows), 'training example')} the best prompt got {hits} right.", *shown]


def read_direction(reply: str) -> tuple[list[str], list[Rejected]]:
    """The direction in an answer, on one line; a model's reasoning before it is dropped."""
    thoughts, closed, answer = strip_invisible(reply).rpartition("</think>")
    text = clean_line(answer).removeprefix("Direction:").strip()[:LONGEST_DIRECTION]
    if not closed and text.startswith("<think>"):
        return [], [Rejected(shorten_line(text), "reasoning without an answer; the answer may have been cut off")]
    dropped = [Rejected(shorten_line(thoughts.strip()), "reasoning before the answer")] if closed else []
    if not any(character.isalnum() for character in text):
        return [], [*dropped, Rejected(shorten_line(text), "no letter or digit in it")]
    return [text], dropped


def describe_outcome(taken: Mapping[str, Any], context: MentorContext) -> str:
    """A direction that was taken, and whether it helped: by the losses that the prompts before and after have now."""
    losses = {entry.prompt.tokens: entry.score.loss for entry in (*context.scored, *context.pool)}
    before = losses.get(tuple(taken["edited"]))
    after = [losses[tuple(tokens)] for tokens in taken["written"] if tuple(tokens) in losses]
    if before is None or not after:
        came = "What came of it is not known."
    else:
        verdict = "It helped" if min(after) < before else "It did not help"
        came = f"{verdict}: a loss of {before:.3f} before, at best {min(after):.3f} after."
    return f"Direction: {taken['direction']}\n{came}"
