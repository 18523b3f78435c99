"""Evolution with a language model as its operator: EvoPrompt as a genetic algorithm, and as differential evolution.

Source: Guo et al. 2023, "Connecting Large Language Models with Evolutionary Algorithms Yields Powerful Prompt
Optimizers" (arXiv 2309.08532), algorithm 1, figures 1 and 2, and its code (beeevita/EvoPrompt: evoluter.py,
data/template_ga.py, data/template_de.py), in our own words and with an example of our own.

Faithful: 10 members, temperature 0.5; what is missing at the start are paraphrases of what is there; crossover and
mutation in one request with a worked example, which shows no scores; parents by roulette (or at random, or by
tournaments of two) and survival of the best in the genetic algorithm; two others, the best and the member itself, and
the better of old and new in differential evolution; the answer is the last <prompt>…</prompt>.

Different: members are prompts of m tokens that training found, or the start of the run, in place of hand-made ones.
Such prompts do not say what the task is, so the request does (`show_task=false`: as in the paper). One order selects
and lets survive, `Score.better_than`: the metric, then the loss (the code selects by one metric and lets survive by
another). No prompt is scored twice: an answer that was scored before is asked for again. Two parents are never the same
prompt. A generation is asked for as a whole, so the best changes between generations only. A number of words is told.
"""

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from math import ceil
from random import Random
from typing import ClassVar, TypeAlias

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.evolution import describe_parents
from llm_catalyst.mentors.reply_parser import parse_proposals, shorten_line
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Response, collect_proposals
from llm_catalyst.mentors.strategies.templates import (
    FORMS,
    MOST_READ,
    build_messages,
    build_reminder,
    describe_task,
    format_number,
    quote_json,
)
from llm_catalyst.runs.records import Advice, Message, Prompt, Proposal, Rejected, ScoredPrompt
from llm_catalyst.utils.validation import check_at_least, check_choice

ROLE = (
    "You breed short text prompts that are put in front of the input of a frozen language model: "
    "you make new ones out of those that did well."
)
ODD = "Some prompts are odd strings of word pieces: take up what they hint at, not their form."

VARIATIONS = "Write {variations} of this prompt: the same meaning in other words."
VARIATION_RULES = """\
- Write fewer than {words} words per variation. Only its first {tokens} tokens are used.
- Write one variation per line, each line beginning with "- ".
- Answer with the variations only: no introduction, no explanation."""
VARIATION_REMINDER = (
    "No new prompt could be read from that answer. Please write {variations} of the prompt now, one per line, each "
    'line beginning with "- ", and nothing else.'
)

GENETIC = """\
Make one new prompt out of two, in two steps:
1. Crossover: join parts of both into one prompt.
2. Mutation: change some words of it, so that it says the same in a way of its own."""
GENETIC_EXAMPLE = """\
An example, for another task:
Prompt 1: "sort this letter by its subject"
Prompt 2: "which office should answer the mail"
1. Crossover: "which office should sort this letter"
2. Mutation: <prompt>whose desk does this letter belong to</prompt>"""

DIFFERENTIAL = """\
Make one new prompt out of four, in four steps:
1. Differences: find the parts in which prompts 1 and 2 differ.
2. Mutation: change each of these parts at random, a little.
3. Combination: put some of the changed parts into prompt 3, the best so far, in place of parts of it.
4. Crossover: join parts of the result and of prompt 4 into one prompt."""
DIFFERENTIAL_EXAMPLE = """\
An example, for another task:
Prompt 1: "sort this letter by its subject"
Prompt 2: "which office should answer the mail"
Prompt 3: "read the letter and name the office"
Prompt 4: "tell me who this is for"
1. Differences: "sort" and "answer"; "this letter" and "the mail"; "by its subject" and "which office"
2. Mutation: "sort" to "file"; "the mail" to "the note"; "which office" to "whose desk"
3. Combination: "read the note and name the desk"
4. Crossover: <prompt>name the desk this note is for</prompt>"""

CHILD_RULES = """\
- Write fewer than {words} words in the last step's prompt. Only its first {tokens} tokens are used.
- Write each step on one line, as in the example, and the last step's prompt between <prompt> and </prompt>."""
CHILD_REMINDER = (
    "No new prompt could be read from that answer. Please take the steps again, to another result, and write the last "
    "step's prompt between <prompt> and </prompt>."
)

EvoPrompt: TypeAlias = "EvoPromptGA | EvoPromptDE"
Breeding = Generator[tuple[Request, ...], tuple[Response, ...], tuple[Proposal, ...]]
THOUGHTS = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)


@dataclass(frozen=True)
class EvoPromptGA:
    """The `strategy` node: EvoPrompt's genetic algorithm. Fields are explained in conf/strategy/evoprompt_ga.yaml.

    Nothing needs to be remembered: all children are scored by the run, so the survivors of a generation are the best
    `population` of all scored prompts. Prompts that training found compete with them there.
    """

    needs_pool: ClassVar[bool] = True
    needs_model: ClassVar[bool] = False

    form: str = "chat"
    population: int = 10
    selection: str = "roulette"
    words: int = 9
    temperature: float | None = 0.5
    show_task: bool = True

    def __post_init__(self) -> None:
        check_bounds(self, smallest=2)
        check_choice("strategy.selection", self.selection, ("roulette", "random", "tournament"))

    @property
    def proposals(self) -> int:
        """A generation has as many children as members."""
        return self.population

    def propose(self, context: MentorContext) -> Dialogue:
        """The paraphrases that the population lacks, or else a generation: a question for each child."""
        return Advice((yield from request_paraphrases(self, context)) or (yield from self.generation(context)))

    def generation(self, context: MentorContext) -> Breeding:
        """As many children as members, each of two of the best; none of fewer than two."""
        members = best_first(context.scored)[: self.population]
        if len(members) < 2:
            return ()
        pairs = [select_parents(members, self.selection, context.rng) for _ in range(self.population)]
        families = [(one.prompt, other.prompt) for one, other in pairs]
        replies = yield tuple(
            child_request(self, context, GENETIC, GENETIC_EXAMPLE, parents, describe_parents(*parents))
            for parents in families
        )
        return collect_proposals(replies)


@dataclass(frozen=True)
class EvoPromptDE:
    """The `strategy` node: EvoPrompt's differential evolution. Fields are explained in conf/strategy/evoprompt_de.yaml.

    Remembered are the slots of the population: the tokens of the member in each, and of the child that is to replace
    it if it is better, which the next consultation knows. A prompt that training found meanwhile takes the place of the
    worst member if it is better; the paper has no such newcomers. With a trained head, under which the pool is scored
    anew, older ones count as newcomers too. Where both prompts of a slot are gone (the pool had no room for them, or
    their loss was not finite), the best prompt that is in no slot takes it.
    """

    needs_pool: ClassVar[bool] = True
    needs_model: ClassVar[bool] = False

    form: str = "chat"
    population: int = 10
    words: int = 9
    temperature: float | None = 0.5
    show_task: bool = True

    def __post_init__(self) -> None:
        check_bounds(self, smallest=3)

    @property
    def proposals(self) -> int:
        """A generation has a child for each member."""
        return self.population

    def propose(self, context: MentorContext) -> Dialogue:
        """The paraphrases that the population lacks, or else a generation: a question for each member's child."""
        if initial := (yield from request_paraphrases(self, context)):
            return Advice(initial)
        members = self.members(context)
        if len(members) < 3:
            return Advice()
        best = max(members, key=rank_key)
        questions = []
        for member in members:
            others = [other for other in members if other is not member]
            sources = [each.prompt for each in (*context.rng.sample(others, 2), best, member)]
            questions.append(
                child_request(
                    self, context, DIFFERENTIAL, DIFFERENTIAL_EXAMPLE, sources, describe_differential(*sources)
                )
            )
        replies = yield tuple(questions)
        slots = [
            [list(prompt.tokens) for prompt in (member.prompt, *(child.prompt for child in reply.proposals))]
            for member, reply in zip(members, replies, strict=True)
        ]
        return Advice(collect_proposals(replies), memory={"slots": slots})

    def members(self, context: MentorContext) -> list[ScoredPrompt]:
        """The member in each slot, after the last generation's children and what training found since then."""
        ranked = best_first(context.scored)
        known = {entry.prompt.tokens: entry for entry in ranked}
        members: list[ScoredPrompt] = []
        for slot in context.memory.get("slots", ()):
            if found := [known[tokens] for tokens in map(tuple, slot) if tokens in known]:
                members.append(max(found, key=rank_key))  # the old one, where they are equal
        outside = [entry for entry in ranked if entry not in members]
        free = max(0, self.population - len(members))
        members += outside[:free]
        for entry in outside[free:]:
            worst = min(members, key=rank_key)
            new = entry.origin == "gradient" and entry.stage == context.stage
            if new and rank_key(entry) > rank_key(worst):
                members[members.index(worst)] = entry
        return members


def check_bounds(strategy: EvoPrompt, smallest: int) -> None:
    """Raise ConfigurationError where a field that both have is out of bounds."""
    check_choice("strategy.form", strategy.form, FORMS)
    check_at_least("strategy.population", strategy.population, smallest)
    check_at_least("strategy.words", strategy.words, 2)
    check_at_least("strategy.temperature", strategy.temperature, 0)


def rank_key(entry: ScoredPrompt) -> tuple[float, float]:
    """What is to be high, in the order of `Score.better_than`."""
    return entry.score.metric, -entry.score.loss


def best_first(entries: Sequence[ScoredPrompt]) -> list[ScoredPrompt]:
    """The fittest prompt first."""
    return sorted(entries, key=rank_key, reverse=True)


def select_parents(members: Sequence[ScoredPrompt], selection: str, rng: Random) -> tuple[ScoredPrompt, ScoredPrompt]:
    """Two different members, drawn one after the other."""
    first = select_one(members, selection, rng)
    return first, select_one([member for member in members if member is not first], selection, rng)


def select_one(members: Sequence[ScoredPrompt], selection: str, rng: Random) -> ScoredPrompt:
    """One member: by roulette (as likely as its metric is high), at random, or the better of two drawn at random."""
    if selection == "tournament":
        return max(rng.sample(members, min(2, len(members))), key=rank_key)
    wheel = [member.score.metric for member in members]
    if selection == "random" or not any(wheel):  # nobody has a part of the wheel: all are alike
        return rng.choice(members)
    return rng.choices(members, wheel)[0]


def request_paraphrases(strategy: EvoPrompt, context: MentorContext) -> Breeding:
    """Paraphrases of all scored prompts, in even shares, as many as the population lacks: the best one's first."""
    entries = best_first(context.scored)
    lacking = strategy.population - len(entries)
    proposals: tuple[Proposal, ...] = ()
    for i, entry in enumerate(entries):
        share = ceil((lacking - len(proposals)) / (len(entries) - i))
        if share < 1:
            break
        (reply,) = yield (paraphrase_request(strategy, context, entry.prompt, share),)
        proposals += reply.proposals
    return proposals


def paraphrase_request(strategy: EvoPrompt, context: MentorContext, prompt: Prompt, number: int) -> Request:
    """The request for paraphrases of one prompt."""
    variations = format_number(number, "variation")
    parts = [
        *task_paragraph(strategy, context),
        f"{VARIATIONS.format(variations=variations)} {ODD}",
        f"Prompt: {quote_json(prompt.text)}",
        VARIATION_RULES.format(words=strategy.words, tokens=context.space.length),
    ]

    def remind(reply: str) -> list[Message]:
        return build_reminder(strategy.form, reply, VARIATION_REMINDER.format(variations=variations))

    asked = build_messages(strategy.form, ROLE, parts, "Variations:")
    rationale = f"a paraphrase of {prompt.text!r}"
    return Request(
        asked, lambda reply: parse_proposals(reply, MOST_READ), remind, number, strategy.temperature, rationale
    )


def child_request(
    strategy: EvoPrompt,
    context: MentorContext,
    steps: str,
    example: str,
    sources: Sequence[Prompt],
    rationale: str,
) -> Request:
    """The request for one child of the prompts in `sources`, by these steps."""
    prompts = "\n".join(f"Prompt {i}: {quote_json(prompt.text)}" for i, prompt in enumerate(sources, start=1))
    parts = [
        *task_paragraph(strategy, context),
        f"{steps}\n{ODD}",
        CHILD_RULES.format(words=strategy.words, tokens=context.space.length),
        example,
        f"Now with these:\n{prompts}",
    ]

    def remind(reply: str) -> list[Message]:
        return build_reminder(strategy.form, reply, CHILD_REMINDER)

    asked = build_messages(strategy.form, ROLE, parts, "1.")  # the example's next line
    return Request(asked, last_prompt, remind, 1, strategy.temperature, rationale)


def task_paragraph(strategy: EvoPrompt, context: MentorContext) -> list[str]:
    """The paragraph about the task, if it is shown."""
    return [describe_task(context.task)] if strategy.show_task else []


def describe_differential(one: Prompt, other: Prompt, best: Prompt, member: Prompt) -> str:
    """In words, where a child of differential evolution comes from."""
    return f"{describe_parents(member, best)}, changed where {one.text!r} and {other.text!r} differ"


def last_prompt(reply: str) -> tuple[list[str], list[Rejected]]:
    """The last `<prompt>…</prompt>` of an answer, thoughts aside; without such tags, the last prompt found in it."""
    before, closed, _ = THOUGHTS.sub("", reply).rpartition("</prompt>")
    _, opened, tagged = before.rpartition("<prompt>")
    if closed and opened:
        return parse_proposals(" ".join(tagged.split()), 1)
    texts, rejected = parse_proposals(reply, MOST_READ)
    steps = [Rejected(shorten_line(text), "a step on the way to the last prompt") for text in texts[:-1]]
    return texts[-1:], rejected + steps
