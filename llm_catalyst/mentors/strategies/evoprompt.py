"""EvoPrompt: evolution with a language model as its operator, as a genetic algorithm and as differential evolution.

Source: Guo et al. 2023, "Connecting Large Language Models with Evolutionary Algorithms Yields Powerful Prompt
Optimizers" (arXiv 2309.08532), algorithm 1, figures 1 and 2, and its code (beeevita/EvoPrompt: evoluter.py,
data/template_ga.py, data/template_de.py), in our own words and with an example of our own.

Faithful: 10 members, temperature 0.5; a population that is incomplete at the start is filled with paraphrases; one
request for crossover and mutation with a worked example, which shows no scores; parents by roulette (or at random, or
by tournaments of two) and survival of the best in the genetic algorithm; two others, the best and the member itself,
and the better of old and new in differential evolution; the response is the last <prompt>…</prompt>.

Different: members are prompts of m tokens that training found, or the start of the run, in place of hand-made ones.
Such prompts do not say what the task is, so the request does (`show_task=false`: as in the paper). One order selects
and lets survive, `Score.better_than`: the metric, then the loss (the code selects by one metric and lets survive by
another). No prompt is scored twice: a child that was scored before is asked for again. Two parents are never the same
prompt. A whole generation is asked for at a time, so the best changes between generations only. The request states a
number of words.
"""

from abc import abstractmethod
from collections.abc import Sequence
from math import ceil
from operator import attrgetter
from random import Random
from typing import Annotated, Literal

from annotated_types import Ge

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.controls import describe_parents
from llm_catalyst.mentors.reply_parser import ParsedTexts, parse_proposals, shorten_line, split_reasoning
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Strategy, collect_proposals
from llm_catalyst.mentors.strategies.templates import ask_again, describe_task, quote_json, write_rules
from llm_catalyst.runs.records import Advice, Prompt, Proposal, Rejected, ScoredPrompt
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.validation import NonNegative, config_dataclass

ROLE = """You breed short text prompts that are put in front of the input of a frozen language model: you make new \
ones out of those that did well."""
ODD = "Some prompts are odd strings of word pieces: take up what they hint at, not their form."

VARIATIONS = "Write {variations} of this prompt: the same meaning in other words."

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
CHILD_REMINDER = """No new prompt could be read from that answer. Please take the steps again, to another result, and \
write the last step's prompt between <prompt> and </prompt>."""

BY_FITNESS = attrgetter("score.rank")


@config_dataclass("strategy")
class EvoPrompt(Strategy):
    """The base of both algorithms: the first population, and the request for a child."""

    needs_pool = True

    population: Annotated[int, Ge(2)] = 10
    temperature: NonNegative | None = 0.5
    show_task: bool = True

    @property
    def proposals(self) -> int:
        """The children of a generation: as many as members."""
        return self.population

    def propose(self, context: MentorContext) -> Dialogue:
        """Ask for the members that the population lacks, or else for a generation.

        The former are paraphrases of all scored prompts, in even shares, the best prompt's first.
        """
        entries = sort_by_fitness(context.scored)
        lacking = self.population - len(entries)
        paraphrases: tuple[Proposal, ...] = ()
        for i, entry in enumerate(entries):
            share = ceil((lacking - len(paraphrases)) / (len(entries) - i))
            if share < 1:
                break
            (response,) = yield (self.ask_paraphrases(context, entry.prompt, share),)
            paraphrases += response.proposals
        return Advice(paraphrases) if paraphrases else (yield from self.breed(context))

    @abstractmethod
    def breed(self, context: MentorContext) -> Dialogue:
        """Ask for the children of one generation."""

    def ask_paraphrases(self, context: MentorContext, prompt: Prompt, number: int) -> Request:
        """The request for paraphrases of a prompt."""
        variations = format_count(number, "variation")
        wish, quoted = VARIATIONS.format(variations=variations), f"Prompt: {quote_json(prompt.text)}"
        rules = write_rules(*self.limits(context.space), "variation", "the variations only: no introduction")
        paragraphs = [*self.describe_task(context), f"{wish} {ODD}", quoted, rules]
        reminder = ask_again(f"{variations} of the prompt now", noun="new prompt")
        rationale = f"a paraphrase of {prompt.text!r}"
        return self.make_request(ROLE, paragraphs, "Variations:", reminder, number, rationale)

    def ask_child(
        self, context: MentorContext, steps: str, example: str, sources: Sequence[Prompt], rationale: str
    ) -> Request:
        """The request for one child of the prompts in `sources`, by these steps and with this worked example."""
        prompts = "\n".join(f"Prompt {i}: {quote_json(prompt.text)}" for i, prompt in enumerate(sources, start=1))
        words, tokens = self.limits(context.space)
        rules = CHILD_RULES.format(words=words, tokens=tokens)
        paragraphs = [*self.describe_task(context), f"{steps}\n{ODD}", rules, example, f"Now with these:\n{prompts}"]
        # "1." begins the next line of the example.
        return self.make_request(ROLE, paragraphs, "1.", CHILD_REMINDER, rationale=rationale, parse=parse_last_prompt)

    def describe_task(self, context: MentorContext) -> list[str]:
        """The paragraph about the task, if it is shown."""
        return [describe_task(context.task)] if self.show_task else []


@config_dataclass("strategy")
class EvoPromptGA(EvoPrompt):
    """EvoPrompt's genetic algorithm; conf/strategy/evoprompt_ga.yaml explains the fields.

    It needs no memory: the run scores all children, so the survivors of a generation are the best `population` of all
    scored prompts. Prompts that training found compete with them there.
    """

    selection: Literal["roulette", "random", "tournament"] = "roulette"

    def breed(self, context: MentorContext) -> Dialogue:
        """Ask for as many children as members, each of two of the best; none if there are fewer than two."""
        members = sort_by_fitness(context.scored)[: self.population]
        if len(members) < 2:
            return Advice()
        requests = []
        for _ in range(self.population):
            parents = [each.prompt for each in select_parents(members, self.selection, context.rng)]
            requests.append(self.ask_child(context, GENETIC, GENETIC_EXAMPLE, parents, describe_parents(*parents)))
        return Advice(collect_proposals((yield tuple(requests))))


@config_dataclass("strategy")
class EvoPromptDE(EvoPrompt):
    """EvoPrompt's differential evolution; conf/strategy/evoprompt_de.yaml explains the fields.

    The memory has the slots of the population: the tokens of the member in each, and of the child that replaces it if
    the child is better, which the next consultation knows. A prompt that training found meanwhile replaces the worst
    member if it is better; the paper has no such newcomers. With a trained head, under which the pool is scored anew,
    older prompts count as newcomers too. If both prompts of a slot are gone (the pool had no place for them, or their
    loss was not finite), the best prompt outside the slots takes it.
    """

    population: Annotated[int, Ge(3)] = 10

    def breed(self, context: MentorContext) -> Dialogue:
        """Ask for a child of each member; none if there are fewer than three."""
        members = self.update_members(context)
        if len(members) < 3:
            return Advice()
        best = max(members, key=BY_FITNESS)
        requests = []
        for member in members:
            one, other = context.rng.sample([other for other in members if other is not member], 2)
            sources = [each.prompt for each in (one, other, best, member)]
            differ = f"{one.prompt.text!r} and {other.prompt.text!r} differ"
            rationale = f"{describe_parents(member.prompt, best.prompt)}, changed where {differ}"
            requests.append(self.ask_child(context, DIFFERENTIAL, DIFFERENTIAL_EXAMPLE, sources, rationale))
        responses = yield tuple(requests)
        pairs = zip(members, responses, strict=True)
        families = [[member.prompt, *(child.prompt for child in response.proposals)] for member, response in pairs]
        slots = [[list(prompt.tokens) for prompt in family] for family in families]
        return Advice(collect_proposals(responses), memory={"slots": slots})

    def update_members(self, context: MentorContext) -> list[ScoredPrompt]:
        """The member in each slot, after the last generation's children and the prompts that training found since."""
        ranked = sort_by_fitness(context.scored)
        known = {entry.prompt.tokens: entry for entry in ranked}
        members: list[ScoredPrompt] = []
        for slot in context.memory.get("slots", ()):
            if found := [known[tokens] for tokens in map(tuple, slot) if tokens in known]:
                members.append(max(found, key=BY_FITNESS))  # the old one, if they are equal
        outside = [entry for entry in ranked if entry not in members]
        free = max(0, self.population - len(members))
        members += outside[:free]
        for entry in outside[free:]:
            worst = min(members, key=BY_FITNESS)
            new = entry.origin == "gradient" and entry.stage == context.stage
            if new and entry.score.better_than(worst.score):
                members[members.index(worst)] = entry
        return members


def sort_by_fitness(entries: Sequence[ScoredPrompt]) -> list[ScoredPrompt]:
    """The prompts, the fittest first."""
    return sorted(entries, key=BY_FITNESS, reverse=True)


def select_parents(members: Sequence[ScoredPrompt], selection: str, rng: Random) -> tuple[ScoredPrompt, ScoredPrompt]:
    """Two different members, drawn one after the other."""
    first = select_one(members, selection, rng)
    return first, select_one([member for member in members if member is not first], selection, rng)


def select_one(members: Sequence[ScoredPrompt], selection: str, rng: Random) -> ScoredPrompt:
    """One member: by roulette (in proportion to its metric), at random, or the better of two drawn at random."""
    if selection == "tournament":
        return max(rng.sample(members, min(2, len(members))), key=BY_FITNESS)
    wheel = [member.score.metric for member in members]
    if selection == "random" or not any(wheel):  # an empty wheel cannot be spun: all are equally likely
        return rng.choice(members)
    return rng.choices(members, wheel)[0]


def parse_last_prompt(response: str) -> ParsedTexts:
    """The last `<prompt>…</prompt>` of a response outside its reasoning; without such tags, its last prompt."""
    answer, _ = split_reasoning(response)
    before, closed, _ = (answer or "").rpartition("</prompt>")
    _, opened, tagged = before.rpartition("<prompt>")
    if closed and opened:
        return parse_proposals(" ".join(tagged.split()), 1)
    texts, rejected = parse_proposals(response)
    steps = [Rejected(shorten_line(text), "a step on the way to the last prompt") for text in texts[:-1]]
    return texts[-1:], rejected + steps
