"""Guess the instruction from demonstrations, keep the guesses under which the answers are likeliest, vary the best.

Source: APE and iterative APE (Zhou et al. 2022, "Large Language Models Are Human-Level Prompt Engineers", arXiv
2211.01910, algorithm 1 and figures 2 and 3), and its code (keirp/automatic_prompt_engineer: generate.py, ape.py,
evaluation/likelihood.py, configs/default.yaml), in our own words.

Faithful: neither the task nor a score is shown, only inputs and outputs; 5 subsets of 5 examples; temperature 0.9;
duplicates removed; candidates are ranked by the mean log-likelihood of the answers on 50 training examples (here:
lowest mean loss first, which is its negative); later rounds ask for variations of the best prompts that keep their
meaning.

Different:
- One request asks for a list of `candidates` prompts. Theirs draws 50 completions of 50 tokens each for every subset;
  few providers give several to one request, so that would be 50 requests, each with the demonstrations in it. A list
  is one, and within it a model need not repeat itself.
- All candidates are ranked on the same examples. Theirs draws other ones for each prompt, so that a prompt also wins by
  the luck of easy examples.
- The bandit that shares trials out among the candidates is left out: 50 prompts on 50 examples are cheap here.
- The run scores `proposals` candidates on the whole dev split. Varied next are the `best` of all prompts scored so,
  those that training found among them. In the paper its own score decides which share of them is varied; its code
  stops after the first round.
- It says how many words and tokens an instruction may have.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import parse_proposals
from llm_catalyst.mentors.strategies.base import Dialogue, Request, collect_proposals
from llm_catalyst.mentors.strategies.paraphrase import Paraphrase
from llm_catalyst.mentors.strategies.templates import (
    FORMS,
    MOST_READ,
    build_messages,
    build_reminder,
    format_answer,
    format_input,
    format_number,
    quote_json,
)
from llm_catalyst.runs.records import Advice, Message, Proposal, Rejected
from llm_catalyst.utils.validation import check_at_least, check_choice, check_range

ROLE = "You find out which instruction was followed, from what came out of it."
STORY = (
    "Somebody was given an instruction and, one by one, the inputs below. By the instruction, they gave these outputs:"
)
WISH = (
    "What was the instruction? Write {instructions} that would lead to these outputs, and to the right ones for other "
    "inputs of this kind. Let each be another guess, not the same one in other words."
)
RULES = """\
- Write fewer than {words} words per instruction. Only its first {tokens} tokens are used.
- Write one instruction per line, each line beginning with "- ".
- Answer with the instructions only: no introduction, no explanation."""
REMINDER = (
    "No usable instruction could be read from that answer. Please write {instructions} now that would lead to the "
    'outputs, one per line, each line beginning with "- ", and nothing else.'
)


@dataclass(frozen=True)
class Ape:
    """The `strategy` node: instructions guessed from demonstrations. Fields are explained in conf/strategy/ape.yaml."""

    needs_pool: ClassVar[bool] = False
    needs_model: ClassVar[bool] = True

    form: str = "chat"
    proposals: int = 8
    subsets: int = 5
    demonstrations: int = 5
    candidates: int = 10
    examples: int = 50
    best: int = 5
    temperature: float | None = 0.9
    words: int = 9

    def __post_init__(self) -> None:
        check_choice("strategy.form", self.form, FORMS)
        for name in ("proposals", "subsets", "demonstrations", "examples", "best"):
            check_at_least(f"strategy.{name}", getattr(self, name), 1)
        check_range("strategy.candidates", self.candidates, 1, MOST_READ)
        check_at_least("strategy.temperature", self.temperature, 0)
        check_at_least("strategy.words", self.words, 2)

    def propose(self, context: MentorContext) -> Dialogue:
        """The best of the guesses; of variations, once guesses were made and where there is a prompt to vary."""
        vary = context.memory.get("guessed") and context.scored
        candidates = collect_proposals((yield tuple(self.variations(context) if vary else self.guesses(context))))
        if not candidates:
            return Advice()
        ranked = by_loss(candidates, context, self.examples)
        rejected = [reject_candidate(each, f"not among the best {self.proposals}") for each in ranked[self.proposals :]]
        return Advice(tuple(ranked[: self.proposals]), tuple(rejected), memory={"guessed": True})

    def guesses(self, context: MentorContext) -> Iterator[Request]:
        """A question for each subset of demonstrations."""
        for _ in range(self.subsets):
            rows = context.draw_examples(self.demonstrations)
            messages = self.messages(context, rows)
            yield Request(messages, self.read, self.remind, self.candidates, self.temperature, "from demonstrations")

    def variations(self, context: MentorContext) -> Iterator[Request]:
        """A question for each of the best prompts scored so far, the best one first: that of strategy=paraphrase."""
        asked = Paraphrase(self.form, self.candidates, self.words)
        for parent in reversed(context.scored[-self.best :]):
            messages = asked.messages(replace(context, pool=(parent,)))
            rationale = f"a variation of {quote_json(parent.prompt.text)}"
            yield Request(messages, asked.read, asked.remind, self.candidates, self.temperature, rationale)

    def messages(self, context: MentorContext, rows: Sequence[int]) -> tuple[Message, ...]:
        """The conversation that asks which instruction led to the outputs of these training examples."""
        task = context.task
        examples = [task.examples[row] for row in rows]
        shown = [
            f"Input: {format_input(example)}\nOutput: {format_answer(task, example.label)}" for example in examples
        ]
        rules = RULES.format(words=self.words, tokens=context.space.length)
        wish = WISH.format(instructions=format_number(self.candidates, "instruction"))
        return build_messages(self.form, ROLE, [STORY, *shown, wish, rules], "Instructions:")

    def remind(self, reply: str) -> list[Message]:
        """The unusable reply and a repeated wish; nothing for plain text, which is simply asked again."""
        wish = REMINDER.format(instructions=format_number(self.candidates, "instruction"))
        return build_reminder(self.form, reply, wish)

    def read(self, reply: str) -> tuple[list[str], list[Rejected]]:
        """The instructions in a reply, and the lines that are none."""
        return parse_proposals(reply, MOST_READ)


def by_loss(candidates: Sequence[Proposal], context: MentorContext, examples: int) -> list[Proposal]:
    """The candidates by their mean loss over at most `examples` training examples, the lowest first.

    The examples are drawn once, the same for all. Each rationale tells the loss (nats); one that is no number is last.
    """
    rows = context.draw_examples(examples)
    trials = context.attempt([candidate.prompt for candidate in candidates], rows)
    losses = [fmean(trial.loss for trial in each) for each in trials]
    order = sorted(range(len(candidates)), key=lambda i: math.inf if math.isnan(losses[i]) else losses[i])
    told = [f"loss {loss:.3f} on {format_number(len(rows), 'training example')}" for loss in losses]
    rationales = [
        f"{each.rationale}, " * bool(each.rationale) + loss for each, loss in zip(candidates, told, strict=True)
    ]
    return [replace(candidates[i], rationale=rationales[i]) for i in order]


def reject_candidate(candidate: Proposal, why: str) -> Rejected:
    """A candidate that is not proposed, with its rationale and the reason."""
    return Rejected(candidate.prompt.text, f"{candidate.rationale}: {why}")
