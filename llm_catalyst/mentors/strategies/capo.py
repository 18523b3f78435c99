"""Cross prompts and the examples in them, mutate the children, and let all race on blocks of training examples.

Source: CAPO (Zehle et al. 2025, "CAPO: Cost-Aware Prompt Optimization", arXiv 2504.16005), and its code
(finitearth/capo: capo.py, task.py, experiment_configs.py; finitearth/promptolution: capo.py), in our own words.

Faithful: a population of 10, each with up to 5 examples; 4 times in a step, a language model merges two random members
and rewrites the outcome in another style; a child takes half of its parents' examples, then one is added, one removed,
or none (a third each), and they are shuffled. Members and children race on blocks of 30 training examples, one block
after the other, the same ones in each step, up to 10 of them. After each block a candidate drops out if at least 10
others are significantly better, by a one-sided paired t-test at 0.2 that is not corrected for the number of tests. What
counts is rightness less 0.05 times the length, relative to the longest first member. 10 survive. A block is never paid
for twice. The examples in prompts come from a tenth of the training data that is in no block.

Different:
- A prompt has m tokens here. An example is added only where the whole text still fits into them, else the child stays
  without it: with prompt.length=8 nearly always.
- Length is that of the text before it is filled up to m tokens: it stands for brevity here, not for cost. What training
  found is m tokens long.
- A classifier gives no reasoning that an example could show.
- The first members are the pool, and what a language model writes for the task where the pool is smaller. What training
  finds later joins the population. Survivors that the run has not scored on dev are proposed, the best ones first.
- In a version of promptolution (commit 027e07e) an example that was to be added never is; here it is.
- One block is always run, and a block that is not full, too: small training sets have no other.
- Answers are forgotten when the classifier head has been trained since.
- The temperature is the default of promptolution's local models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil
from random import Random
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import parse_proposals
from llm_catalyst.mentors.strategies.base import Dialogue, Request
from llm_catalyst.mentors.strategies.capo_members import (
    CapoMember,
    CapoSchedule,
    Crossing,
    build_population,
    drop_duplicates,
    make_member,
    population_to_json,
)
from llm_catalyst.mentors.strategies.gepa import score_examples
from llm_catalyst.mentors.strategies.templates import (
    FORMS,
    MOST_READ,
    build_messages,
    build_reminder,
    describe_task,
    format_number,
    quote_json,
)
from llm_catalyst.runs.records import Advice, Message, Proposal, Rejected
from llm_catalyst.utils.validation import check_at_least, check_choice, check_range

HELD_BACK = 0.1  # share of the training examples that may stand in prompts, and are in no block
DECIMALS = 9  # of scores: what differs by the rounding of binary fractions only is the same

ROLE = "You write short text prompts that are put in front of the input of a frozen language model."
FIRST = "Write {prompts} for this task, in another style each time."
THERE = "There are already, in styles not to be repeated: {prompts}"
MERGE = (
    "Two people wrote these prompts for the task. Write the one that both would sign: it asks for what they both ask, "
    "and takes turns of phrase from each. An odd string of word pieces counts for what it hints at, not for its form."
)
REPHRASE = (
    "Say this prompt for the task in clearly other words and in another tone, so that it still asks for the same."
)
RULES = """\
- Write fewer than {words} words per prompt. Only its first {tokens} tokens are used.
- Write one prompt per line, each line beginning with "- ".
- Answer with {prompts} only: no introduction, no explanation."""
REMINDER = (
    "No usable prompt could be read from that answer. Please write {prompts} now, one per line, each line beginning "
    'with "- ", and nothing else.'
)


@dataclass(frozen=True)
class Capo:
    """The `strategy` node: evolution with races. Fields are explained in conf/strategy/capo.yaml."""

    needs_pool: ClassVar[bool] = False
    needs_model: ClassVar[bool] = True

    form: str = "chat"
    proposals: int = 4
    population: int = 10
    crossovers: int = 4
    shots: int = 5
    block: int = 30
    blocks: int = 10
    alpha: float = 0.2
    penalty: float = 0.05
    temperature: float | None = 0.1
    words: int = 9

    def __post_init__(self) -> None:
        check_choice("strategy.form", self.form, FORMS)
        for name in ("proposals", "crossovers", "block", "blocks"):
            check_at_least(f"strategy.{name}", getattr(self, name), 1)
        check_at_least("strategy.population", self.population, 2)
        check_at_least("strategy.shots", self.shots, 0)
        check_range("strategy.alpha", self.alpha, 0, 1)
        check_at_least("strategy.penalty", self.penalty, 0)
        check_at_least("strategy.temperature", self.temperature, 0)
        check_at_least("strategy.words", self.words, 2)

    def propose(self, context: MentorContext) -> Dialogue:
        """One step: the population is filled up, has children, and races; survivors new to the run are proposed."""
        course, population = self.course(context), build_population(context, self.population)
        if len(population) < self.population:
            (written,) = yield (self.first(context, population),)
            population = self.filled(population, written.texts, course, context)
        if len(population) < 2:
            return Advice()
        course = replace(course, longest=course.longest or max(member.length for member in population))
        crossings = [self.crossing(population, course, context.rng) for _ in range(self.crossovers)]
        merged = yield tuple(self.merge(context, crossing) for crossing in crossings)
        pairs = [(crossing, reply.texts[0]) for crossing, reply in zip(crossings, merged, strict=True) if reply.texts]
        rephrased = yield tuple(self.rephrase(context, text) for _, text in pairs)
        children = [
            self.child(context, crossing, (*reply.texts, text)[0])
            for (crossing, text), reply in zip(pairs, rephrased, strict=True)
        ]
        candidates = drop_duplicates([*population, *chain(*children)])
        survivors = self.race(candidates, course, context)
        known = {entry.prompt for entry in (*context.pool, *context.scored)}
        chosen = [member for member in survivors if member.prompt not in known][: self.proposals]
        left = {member.prompt for member in survivors}
        return Advice(
            tuple(Proposal(member.prompt, member.rationale, member.lost) for member in chosen),
            tuple(Rejected(each.prompt.text, "lost the race") for each in candidates if each.prompt not in left),
            memory=population_to_json(survivors, course, context.stage),
        )

    def first(self, context: MentorContext, population: Sequence[CapoMember]) -> Request:
        """The question for what is missing in the population."""
        prompts = format_number(self.population - len(population), "prompt")
        there = [THERE.format(prompts=", ".join(quote_json(member.instruction) for member in population))]
        return self.question(context, [FIRST.format(prompts=prompts), *there * bool(population)], prompts)

    def merge(self, context: MentorContext, crossing: Crossing) -> Request:
        """The question for one prompt of two."""
        prompts = (
            f"Prompt: {quote_json(crossing.mother.instruction)}\nPrompt: {quote_json(crossing.father.instruction)}"
        )
        return self.question(context, [MERGE, prompts], "1 prompt")

    def rephrase(self, context: MentorContext, instruction: str) -> Request:
        """The question for a prompt in other words."""
        return self.question(context, [REPHRASE, f"Prompt: {quote_json(instruction)}"], "1 prompt")

    def question(self, context: MentorContext, parts: Sequence[str], prompts: str) -> Request:
        """A question for texts: examples may come to them before they are prompts."""
        rules = RULES.format(words=self.words, tokens=context.space.length, prompts=prompts)
        messages = build_messages(self.form, ROLE, [describe_task(context.task), *parts, rules], "New prompt:")

        def remind(reply: str) -> list[Message]:
            return build_reminder(self.form, reply, REMINDER.format(prompts=prompts))

        return Request(messages, self.read, remind, 0, self.temperature)

    def read(self, reply: str) -> tuple[list[str], list[Rejected]]:
        """The prompts in a reply, and the lines that are none."""
        return parse_proposals(reply, MOST_READ)

    def filled(
        self, population: Sequence[CapoMember], texts: Sequence[str], course: CapoSchedule, context: MentorContext
    ) -> list[CapoMember]:
        """The population with new instructions, each with up to `shots` examples, as long as there is room."""
        rng, made = context.rng, list(population)
        for text in texts:
            most = min(rng.randint(0, self.shots), len(course.held_back))
            made += make_member(text, rng.sample(course.held_back, most), context, "written for the task")
        return drop_duplicates(made)[: self.population]

    def course(self, context: MentorContext) -> CapoSchedule:
        """What the first consultation settles for the run: a tenth of the examples held back, the others in blocks."""
        if context.memory:
            return CapoSchedule(**context.memory["course"])
        n = len(context.task.examples)
        order = context.rng.sample(range(n), n)
        held_back = order[: ceil(HELD_BACK * n)]
        rest = order[len(held_back) :] or order
        blocks = [rest[i : i + self.block] for i in range(0, len(rest), self.block)]
        return CapoSchedule(blocks[: self.blocks], held_back)

    def crossing(self, population: Sequence[CapoMember], course: CapoSchedule, rng: Random) -> Crossing:
        """Two parents, and half of their examples, one more, one fewer, or as many, in a drawn order."""
        mother, father = rng.sample(population, 2)
        both = list(dict.fromkeys((*mother.shots, *father.shots)))
        shots = rng.sample(both, min(len(both), (len(mother.shots) + len(father.shots)) // 2))
        others = [row for row in course.held_back if row not in shots]
        change = rng.choice(("add", "remove", "shuffle"))
        if change == "add" and others and len(shots) < self.shots:
            shots.append(rng.choice(others))
        if change == "remove" and shots:
            shots.remove(rng.choice(shots))
        return Crossing(mother, father, tuple(rng.sample(shots, len(shots))))

    def child(self, context: MentorContext, crossing: Crossing, instruction: str) -> list[CapoMember]:
        """A child with those of its examples that fit into m tokens. Empty where the instruction holds no token."""
        parents = f"{quote_json(crossing.mother.instruction)} crossed with {quote_json(crossing.father.instruction)}"
        return make_member(instruction, crossing.shots, context, parents)

    def race(self, candidates: Sequence[CapoMember], course: CapoSchedule, context: MentorContext) -> list[CapoMember]:
        """At most `population` members, the best first: they race block after block until so few are left.

        One block is always run. Whoever has no answers to a block yet is tried on it.
        """
        running, rows = list(candidates), 0
        for block in course.blocks:
            new = [member.prompt for member in running if len(member.right) <= rows]
            marks = score_examples(new, block, context)
            running = [replace(member, right=member.right + marks.get(member.prompt, "")) for member in running]
            rows += len(block)
            better = better_ones(self.scores(running, rows, course), self.alpha)
            running = [member for member, n in zip(running, better, strict=True) if n < self.population]
            if len(running) <= self.population:
                break
        rows = min(len(member.right) for member in running)  # members may have answered more blocks in earlier races
        order = np.argsort(-self.scores(running, rows, course).mean(1), kind="stable")
        return [running[i] for i in order[: self.population]]

    def scores(self, running: Sequence[CapoMember], rows: int, course: CapoSchedule) -> NDArray[np.float64]:
        """Scores (k, rows) on the first examples of the blocks: rightness less the penalty for relative length."""
        right = np.array([[int(mark) for mark in member.right[:rows]] for member in running], dtype=float)
        length = np.array([[member.length / course.longest] for member in running])
        return np.round(right - self.penalty * length, DECIMALS)


def better_ones(scores: NDArray[np.float64], alpha: float) -> list[int]:
    """For each of k candidates with scores (k, n), how many others are significantly better: one-sided paired t-tests.

    Where two candidates differ by the same amount everywhere, there is nothing to doubt: the better one is better.
    """
    difference = np.round(scores[None] - scores[:, None], DECIMALS)  # (k, k, n): by how much the second is better
    p = np.where(difference.mean(2) > 0, 0.0, 1.0)
    varied = np.ptp(difference, axis=2) > 0
    if varied.any():
        p[varied] = stats.ttest_1samp(difference[varied], 0, axis=1, alternative="greater").pvalue
    return [int(n) for n in (p < alpha).sum(1)]
