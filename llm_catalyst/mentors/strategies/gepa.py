"""Reflect on a few answers of a prompt that is the best one somewhere, and keep the rewritten prompt if it does better.

Source: GEPA (Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", arXiv
2507.19457, algorithms 1 and 2), and its code (gepa-ai/gepa: gepa_utils.py, reflective_mutation.py, acceptance.py,
instruction_proposal.py), in our own words.

Faithful: a parent is drawn from the candidates that are the best ones on some of the Pareto examples, as often as they
are so, after candidates that are best only where another one is, too, were removed; it is tried on a minibatch of 3
training examples, which go round in a shuffled order; a minibatch without a mistake is skipped; the language model sees
the parent's answers and the right ones, and rewrites the prompt; the child is accepted where it gets strictly more of
the same minibatch right, and may be a parent at once.

Different:
- The Pareto examples are training examples, drawn once in a run; minibatches come from the others, and from all where
  not enough are left. Theirs are a split of their own, all of it. The dev split of the run stays what chooses.
- The candidates are the best prompts of the run, those among them that training found; theirs are the first prompt and
  its accepted descendants, without a bound.
- What is known of a candidate's answers is forgotten when the classifier head has been trained since.
- Feedback is the right answer; a classifier gives no reasoning that could be shown.
- Merges (up to 5 there) put together modules of two programs. A single prompt has one module: left out.
- The temperature is that of published examples with DSPy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from llm_catalyst.mentors.base import MentorContext, Trial
from llm_catalyst.mentors.reply_parser import parse_proposals
from llm_catalyst.mentors.strategies.base import Dialogue, Request
from llm_catalyst.mentors.strategies.templates import (
    FORMS,
    MOST_READ,
    build_messages,
    build_reminder,
    describe_task,
    format_answer,
    format_input,
    quote_json,
)
from llm_catalyst.runs.records import Advice, Message, Prompt, Proposal, Rejected
from llm_catalyst.utils.validation import check_at_least, check_choice

MOST_DRAWS = 10  # parents and minibatches that are tried in search of a mistake, for each question

ROLE = (
    "You improve a short text prompt that is put in front of the input of a frozen language model. You learn from the "
    "answers that it gave to single inputs, from the wrong ones above all."
)
WISH = (
    "Find out what these inputs ask for and what the model took them for. Then rewrite the prompt, so that the wrong "
    "answers become right, the right ones stay right, and other inputs of this kind gain, too. It may be an odd string "
    "of word pieces: keep what it hints at, not its form."
)
RULES = """\
- Write fewer than {words} words. Only the first {tokens} tokens are used.
- Write the new prompt on one line that begins with "- ".
- Answer with the new prompt only: no introduction, no explanation."""
REMINDER = (
    "No new prompt could be read from that answer. Please write one now that is unlike the one above, on one line that "
    'begins with "- ", and nothing else.'
)


@dataclass(frozen=True)
class Gepa:
    """The `strategy` node: reflection on mistakes. Fields are explained in conf/strategy/gepa.yaml."""

    needs_pool: ClassVar[bool] = True
    needs_model: ClassVar[bool] = True

    form: str = "chat"
    proposals: int = 4
    minibatch: int = 3
    pareto: int = 64
    candidates: int = 20
    temperature: float | None = 1.0
    words: int = 9

    def __post_init__(self) -> None:
        check_choice("strategy.form", self.form, FORMS)
        for name in ("proposals", "minibatch", "pareto", "candidates"):
            check_at_least(f"strategy.{name}", getattr(self, name), 1)
        check_at_least("strategy.temperature", self.temperature, 0)
        check_at_least("strategy.words", self.words, 2)

    def propose(self, context: MentorContext) -> Dialogue:
        """A question for each of `proposals` parents; the children that did better than theirs, in order."""
        rows, right = self.candidates_tried(context)
        batches = draw_minibatches(self.rows_beside(rows, context), self.minibatch, context.rng)
        accepted: list[Proposal] = []
        refused: list[Rejected] = []
        asked = False
        for _ in range(self.proposals):
            mistaken = find_mistake(right, batches, context)
            if mistaken is None:
                break
            asked = True
            parent, batch, before = mistaken
            (reply,) = yield (self.question(context, parent, batch, before),)
            for child in reply.proposals:
                after = context.attempt([child.prompt], batch)[0]
                told = f"{count_correct(after)} of {len(batch)} examples right, its parent {count_correct(before)}"
                if count_correct(after) > count_correct(before):
                    right |= score_examples([child.prompt], rows, context)
                    accepted.append(child)
                else:
                    refused.append(Rejected(child.prompt.text, told))
        known = [[list(prompt.tokens), marks] for prompt, marks in right.items()]
        memory = {"stage": context.stage, "pareto": rows, "right": known}
        # With questions asked, an empty advice says what it is in the method: no child was accepted.
        why = None if asked else "no mistake was found to reflect on"
        return Advice(tuple(accepted), tuple(refused), fallback=why, memory=memory)

    def candidates_tried(self, context: MentorContext) -> tuple[list[int], dict[Prompt, str]]:
        """The Pareto examples, and each candidate's marks on them, the worst candidate first.

        Candidates whose marks are not known are tried: those of earlier consultations need not be, unless a head was
        trained since.
        """
        memory = context.memory
        rows = memory.get("pareto") or sorted(context.draw_examples(self.pareto))
        known: dict[tuple[int, ...], str] = {}
        if memory and still_hold(memory["stage"], context):
            known = {tuple(tokens): marks for tokens, marks in memory["right"]}
        prompts = [entry.prompt for entry in context.scored[-self.candidates :]]
        tried = score_examples([prompt for prompt in prompts if prompt.tokens not in known], rows, context)
        return rows, {prompt: known.get(prompt.tokens) or tried[prompt] for prompt in prompts}

    def rows_beside(self, pareto: Sequence[int], context: MentorContext) -> list[int]:
        """The training examples that minibatches are drawn from."""
        everything = range(len(context.task.examples))
        others = sorted(set(everything) - set(pareto))
        return others if len(others) >= self.minibatch else list(everything)

    def question(
        self, context: MentorContext, parent: Prompt, batch: Sequence[int], trials: Sequence[Trial]
    ) -> Request:
        """The question that shows a parent's answers to a minibatch and asks for a better prompt."""
        rationale = f"rewritten from {quote_json(parent.text)}"
        messages = self.messages(context, parent, batch, trials)
        return Request(messages, self.read, self.remind, 1, self.temperature, rationale)

    def messages(
        self, context: MentorContext, parent: Prompt, batch: Sequence[int], trials: Sequence[Trial]
    ) -> tuple[Message, ...]:
        """The conversation that shows a parent's answers to a minibatch and asks for a better prompt."""
        parts = [
            describe_task(context.task),
            f"The prompt: {quote_json(parent.text)}",
            "With this prompt, the model answered:",
            *(format_trial(row, trial, context) for row, trial in zip(batch, trials, strict=True)),
            WISH,
            RULES.format(words=self.words, tokens=context.space.length),
        ]
        return build_messages(self.form, ROLE, parts, "New prompt:")

    def remind(self, reply: str) -> list[Message]:
        """The unusable reply and a repeated wish; nothing for plain text, which is simply asked again."""
        return build_reminder(self.form, reply, REMINDER)

    def read(self, reply: str) -> tuple[list[str], list[Rejected]]:
        """The new prompt in a reply, and the lines that are none."""
        return parse_proposals(reply, MOST_READ)


def still_hold(stage: int, context: MentorContext) -> bool:
    """Whether the answers of prompts that were tried after `stage` are what they would be now.

    `scored` holds only what was scored under the present head: with an entry from that stage or one before it, the
    head has not moved since. Without any nobody knows, and the prompts are to be tried again.
    """
    return any(entry.stage <= stage for entry in context.scored)


def score_examples(prompts: Sequence[Prompt], rows: Sequence[int], context: MentorContext) -> dict[Prompt, str]:
    """Each prompt's marks on the training examples `rows`: a "1" for each right answer, a "0" for each wrong one."""
    tried = context.attempt(prompts, rows) if prompts else []
    return {
        prompt: "".join(str(int(trial.right)) for trial in trials)
        for prompt, trials in zip(prompts, tried, strict=True)
    }


def draw_minibatches(rows: Sequence[int], size: int, rng: Random) -> Iterator[list[int]]:
    """Minibatches without end: all rows in a shuffled order, again and again; what does not fill one is left out."""
    size = min(size, len(rows))
    while True:
        order = rng.sample(rows, len(rows))
        yield from (order[i : i + size] for i in range(0, len(order) - size + 1, size))


def find_mistake(
    right: Mapping[Prompt, str], batches: Iterator[list[int]], context: MentorContext
) -> tuple[Prompt, list[int], list[Trial]] | None:
    """A parent, a minibatch and its answers there, one of them wrong; None where a number of draws brought no mistake.

    The first parent with a mistake is taken, as theirs goes on to the next iteration where there is none.
    """
    wins = count_front_wins(list(right.values()))
    for _ in range(MOST_DRAWS):
        (parent,) = context.rng.choices(list(right), weights=wins)
        batch = next(batches)
        trials = context.attempt([parent], batch)[0]
        if count_correct(trials) < len(batch):
            return parent, batch, trials
    return None


def count_front_wins(marks: Sequence[str]) -> list[int]:
    """On how many examples each candidate is one of the best; 0 for those that are dominated.

    Dominated is who is best only where another one, who is not dominated, is, too. The worst candidates are looked at
    first, so that of two with the same marks the earlier one goes.
    """
    best = [max(column) for column in zip(*marks, strict=True)]
    winners = [{i for i, mine in enumerate(marks) if mine[row] == top} for row, top in enumerate(best)]
    for i in sorted(range(len(marks)), key=lambda i: marks[i].count("1")):
        if all(len(who) > 1 for who in winners if i in who):
            for who in winners:
                who.discard(i)
    return [sum(i in who for who in winners) for i in range(len(marks))]


def format_trial(row: int, trial: Trial, context: MentorContext) -> str:
    """A training example with the answer that was given to it, and the right one."""
    task = context.task
    example = task.examples[row]
    verdict = "right" if trial.right else f"wrong, the right answer is {format_answer(task, example.label)}"
    return f"Input: {format_input(example)}\nAnswer: {format_answer(task, trial.answer)} ({verdict})"


def count_correct(trials: Sequence[Trial]) -> int:
    """The number of right answers."""
    return sum(trial.right for trial in trials)
