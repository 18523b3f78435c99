"""CAPO: cross prompts and the examples in them, mutate the children, and let all race on blocks of training examples.

Source: CAPO (Zehle et al. 2025, "CAPO: Cost-Aware Prompt Optimization", arXiv 2504.16005), and its code
(finitearth/capo: capo.py, task.py, experiment_configs.py; finitearth/promptolution: capo.py), in our own words.

Faithful: a population of 10, each with up to 5 examples; 4 times in a step, a language model merges two random members
and rewrites the result in another style; a child takes half of its parents' examples, then one is added, one removed,
or none (a third each), and they are shuffled. Members and children race on blocks of 30 training examples, one block
after the other, the same ones in each step, up to 10 of them. After each block a candidate drops out if at least 10
others are significantly better, by a one-sided paired t-test at 0.2 that is not corrected for the number of tests. The
score is 1 for a right answer, less 0.05 times the length, relative to the longest first member. 10 survive. A block is
never paid for twice. The examples in prompts come from a tenth of the training data that is in no block.

Different:
- A prompt has m tokens here. An example is added only if the whole text still fits into them, else the child stays
  without it: with prompt.length=8 nearly always.
- Length is that of the text before it is filled up to m tokens: it measures brevity here, not cost. Prompts that
  training found are m tokens long.
- A classifier gives no reasoning that an example could show.
- The first members are the pool; if it is smaller than the population, a language model writes the others for the task.
  Prompts that training finds later join the population. Survivors that the run has not scored on dev are proposed, the
  best ones first.
- In a version of promptolution (commit 027e07e) an example that was to be added never is; here it is.
- One block is always run, even if it is not full: small training sets have no other.
- Known answers are dropped when the classifier head has been trained since.
- The temperature is the default of promptolution's local models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Strategy
from llm_catalyst.mentors.strategies.templates import ask_again, describe_task, format_input, quote_json, write_rules
from llm_catalyst.mentors.strategies.trials import mark_answers, marks_are_valid
from llm_catalyst.runs.records import Advice, Prompt, Proposal, Rejected
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.validation import Fraction, NonNegative, NonNegativeInt, PositiveInt, config_dataclass

if TYPE_CHECKING:
    from llm_catalyst.models.soft_prompt import PromptSpace

HELD_BACK = 0.1  # share of the training examples that may stand in prompts, and are in no block
DECIMALS = 9  # of scores: values that differ only by the rounding of binary fractions are the same

ROLE = "You write short text prompts that are put in front of the input of a frozen language model."
FIRST = "Write {prompts} for this task, in another style each time."
THERE = "There are already, in styles not to be repeated: {prompts}"
MERGE = """Two people wrote these prompts for the task. Write the one that both would sign: it asks for what they both \
ask, and takes turns of phrase from each. An odd string of word pieces counts for what it hints at, not for its form."""
REPHRASE = """\
Say this prompt for the task in clearly other words and in another tone, so that it still asks for the same."""


@dataclass(frozen=True)
class CapoMember:
    """A prompt of the population: its instruction, the training examples in it, and its answers so far.

    `shots` are row numbers of training examples. `length` counts the tokens of the whole text, at most m, before it was
    filled up to m; `lost` did not fit. `right` has "1" for each right and "0" for each wrong answer to the examples of
    the blocks, in order.
    """

    prompt: Prompt
    instruction: str
    shots: tuple[int, ...]
    length: int
    lost: str = ""
    right: str = ""
    rationale: str = ""


@dataclass(frozen=True)
class CapoSchedule:
    """The constants of a run: `blocks` of training examples to race on, those `held_back` for use in prompts (as row
    numbers), and the tokens of the `longest` first member."""

    blocks: Sequence[Sequence[int]]
    held_back: Sequence[int]
    longest: int = 0


Members = Sequence[CapoMember]
Crossing = tuple[CapoMember, CapoMember, tuple[int, ...]]  # two parents, and the training examples for their child


@config_dataclass("strategy")
class Capo(Strategy):
    """Evolution with races; conf/strategy/capo.yaml explains the fields."""

    needs_model = True

    proposals: PositiveInt = 4
    population: Annotated[int, Ge(2)] = 10
    crossovers: PositiveInt = 4
    shots: NonNegativeInt = 5
    block: PositiveInt = 30
    blocks: PositiveInt = 10
    alpha: Fraction = 0.2
    penalty: NonNegative = 0.05
    temperature: NonNegative | None = 0.1

    def propose(self, context: MentorContext) -> Dialogue:
        """One step: fill the population, breed children and race; propose the survivors that are new to the run."""
        schedule, population = self.make_schedule(context), build_population(context, self.population)
        if len(population) < self.population:
            (written,) = yield (self.ask_first(context, population),)
            population = self.fill_population(population, written.texts, schedule, context)
        if len(population) < 2:
            return Advice()
        schedule = replace(schedule, longest=schedule.longest or max(member.length for member in population))
        crossings = [self.cross_parents(population, schedule, context.rng) for _ in range(self.crossovers)]
        merged = yield tuple(self.ask_merge(context, crossing) for crossing in crossings)
        pairs = [(crossing, each.texts[0]) for crossing, each in zip(crossings, merged, strict=True) if each.texts]
        rephrased = yield tuple(self.ask_texts(context, REPHRASE, f"Prompt: {quote_json(text)}") for _, text in pairs)
        candidates = [*population]
        for (crossing, text), response in zip(pairs, rephrased, strict=True):
            candidates += make_child(crossing, (*response.texts, text)[0], context)
        candidates = drop_duplicates(candidates)
        survivors = self.race(candidates, schedule, context)
        known = {entry.prompt for entry in (*context.pool, *context.scored)}
        chosen = [member for member in survivors if member.prompt not in known][: self.proposals]
        left, kept = {member.prompt for member in survivors}, [member_to_json(member) for member in survivors]
        return Advice(
            tuple(Proposal(member.prompt, member.rationale, member.lost) for member in chosen),
            tuple(Rejected(each.prompt.text, "lost the race") for each in candidates if each.prompt not in left),
            memory={"stage": context.stage, "course": asdict(schedule), "population": kept},
        )

    def ask_first(self, context: MentorContext, population: Members) -> Request:
        """The request for the prompts that the population lacks."""
        prompts = format_count(self.population - len(population), "prompt")
        there = THERE.format(prompts=", ".join(quote_json(member.instruction) for member in population))
        return self.ask_texts(context, FIRST.format(prompts=prompts), *[there] * bool(population), prompts=prompts)

    def ask_merge(self, context: MentorContext, crossing: Crossing) -> Request:
        """The request for one prompt out of two."""
        mother, father, _ = crossing
        both = f"Prompt: {quote_json(mother.instruction)}\nPrompt: {quote_json(father.instruction)}"
        return self.ask_texts(context, MERGE, both)

    def ask_texts(self, context: MentorContext, *paragraphs: str, prompts: str = "1 prompt") -> Request:
        """A request for texts, not prompts: examples may be added before they are fitted into m tokens."""
        rules = write_rules(*self.limits(context.space), only=f"{prompts} only: no introduction")
        whole = [describe_task(context.task), *paragraphs, rules]
        return self.make_request(ROLE, whole, "New prompt:", ask_again(f"{prompts} now"), prompts=0)

    def fill_population(
        self, population: Members, texts: Sequence[str], schedule: CapoSchedule, context: MentorContext
    ) -> list[CapoMember]:
        """The population and new instructions, each with up to `shots` examples, at most `population` members."""
        rng, made = context.rng, list(population)
        for text in texts:
            most = min(rng.randint(0, self.shots), len(schedule.held_back))
            made += make_member(text, rng.sample(schedule.held_back, most), context, "written for the task")
        return drop_duplicates(made)[: self.population]

    def make_schedule(self, context: MentorContext) -> CapoSchedule:
        """The schedule of the run, drawn at its first consultation: a tenth of the examples is held back."""
        if context.memory:
            return CapoSchedule(**context.memory["course"])
        n = len(context.task.examples)
        order = context.rng.sample(range(n), n)
        held_back = order[: ceil(HELD_BACK * n)]
        rest = order[len(held_back) :] or order
        blocks = [rest[i : i + self.block] for i in range(0, len(rest), self.block)]
        return CapoSchedule(blocks[: self.blocks], held_back)

    def cross_parents(self, population: Members, schedule: CapoSchedule, rng: Random) -> Crossing:
        """Two parents, and half of their examples, one more, one fewer, or as many, in a random order."""
        mother, father = rng.sample(population, 2)
        both = list(dict.fromkeys((*mother.shots, *father.shots)))
        shots = rng.sample(both, min(len(both), (len(mother.shots) + len(father.shots)) // 2))
        others = [row for row in schedule.held_back if row not in shots]
        change = rng.choice(("add", "remove", "shuffle"))
        if change == "add" and others and len(shots) < self.shots:
            shots.append(rng.choice(others))
        if change == "remove" and shots:
            shots.remove(rng.choice(shots))
        return mother, father, tuple(rng.sample(shots, len(shots)))

    def race(self, candidates: Members, schedule: CapoSchedule, context: MentorContext) -> list[CapoMember]:
        """At most `population` members, the best first: they race on block after block until that few are left."""
        running, rows = list(candidates), 0
        for block in schedule.blocks:
            new = [member.prompt for member in running if len(member.right) <= rows]
            marks = mark_answers(new, block, context)
            running = [replace(member, right=member.right + marks.get(member.prompt, "")) for member in running]
            rows += len(block)
            better = count_better(self.score_members(running, rows, schedule), self.alpha)
            running = [member for member, n in zip(running, better, strict=True) if n < self.population]
            if len(running) <= self.population:
                break
        rows = min(len(member.right) for member in running)  # members may have answered more blocks in earlier races
        order = np.argsort(-self.score_members(running, rows, schedule).mean(1), kind="stable")
        return [running[i] for i in order[: self.population]]

    def score_members(self, running: Members, rows: int, schedule: CapoSchedule) -> NDArray[np.float64]:
        """Scores (k, rows) of k members on the first examples: 1 for a right answer, less the penalty for length."""
        right = np.array([[int(mark) for mark in member.right[:rows]] for member in running], dtype=float)
        length = np.array([[member.length / schedule.longest] for member in running])
        return np.round(right - self.penalty * length, DECIMALS)


def make_child(crossing: Crossing, instruction: str, context: MentorContext) -> list[CapoMember]:
    """A child with those of its examples that fit into m tokens; empty if the instruction has no token."""
    mother, father, shots = crossing
    parents = f"{quote_json(mother.instruction)} crossed with {quote_json(father.instruction)}"
    return make_member(instruction, shots, context, parents)


def count_better(scores: NDArray[np.float64], alpha: float) -> list[int]:
    """For each of k candidates with scores (k, n), how many others are significantly better: one-sided paired t-tests.

    If two candidates differ by the same amount everywhere, the better one is significantly better.
    """
    difference = np.round(scores[None] - scores[:, None], DECIMALS)  # (k, k, n): by how much the second is better
    p = np.where(difference.mean(2) > 0, 0.0, 1.0)
    varied = np.ptp(difference, axis=2) > 0
    if varied.any():
        from scipy import stats

        p[varied] = stats.ttest_1samp(difference[varied], 0, axis=1, alternative="greater").pvalue
    return [int(n) for n in (p < alpha).sum(1)]


def build_population(context: MentorContext, most: int) -> list[CapoMember]:
    """The population in the memory, and the prompts that training has found since; at first the best of the pool.

    Members need no score on dev: the race decides. Answers that may come from another head are dropped.
    """
    memory, space = context.memory, context.space
    if not memory:
        return [member_from_prompt(entry.prompt, space) for entry in reversed(context.pool[-most:])]
    members = [member_from_json(each, space) for each in memory["population"]]
    if not marks_are_valid(memory["stage"], context):
        members = [replace(member, right="") for member in members]
    new = [e.prompt for e in reversed(context.pool) if e.origin == "gradient" and e.stage == context.stage]
    return drop_duplicates([*members, *(member_from_prompt(prompt, space) for prompt in new)])


def drop_duplicates(candidates: Members) -> list[CapoMember]:
    """The first member of each prompt."""
    first: dict[Prompt, CapoMember] = {}
    for member in candidates:
        first.setdefault(member.prompt, member)
    return list(first.values())


def member_from_prompt(prompt: Prompt, space: "PromptSpace") -> CapoMember:
    """A prompt of the pool as a member. If a text was repeated up to m tokens, that text is its instruction."""
    tokens, m = prompt.tokens, len(prompt.tokens)
    once = m if space.settings.as_written else next(n for n in range(1, m + 1) if tokens[n:] == tokens[: m - n])
    return CapoMember(prompt, space.decode(tokens[:once]), (), once)


def make_member(instruction: str, shots: Sequence[int], context: MentorContext, rationale: str) -> list[CapoMember]:
    """An instruction with those of the examples that fit into m tokens behind it; empty if it has no token itself."""
    task, space = context.task, context.space
    text, kept = instruction, list[int]()
    for row in shots:
        example = task.examples[row]
        longer = f"{text} Input: {format_input(example)} Output: {task.name_answer(example)}"
        if len(space.tokenize(longer)) <= space.length:
            text, kept = longer, [*kept, row]
    try:
        prompt, lost = space.fit(text)
    except ValueError:
        return []
    length = min(len(space.tokenize(text)), space.length)
    return [CapoMember(prompt, instruction, tuple(kept), length, lost, rationale=rationale)]


def member_to_json(member: CapoMember) -> dict[str, Any]:
    """A member as JSON values, for the memory."""
    return {**asdict(member), "prompt": list(member.prompt.tokens), "shots": list(member.shots)}


def member_from_json(member: Mapping[str, Any], space: "PromptSpace") -> CapoMember:
    """A member from the memory."""
    return CapoMember(**{**member, "prompt": space.prompt(member["prompt"]), "shots": tuple(member["shots"])})
