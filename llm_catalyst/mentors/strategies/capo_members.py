"""The population of strategy=capo: how a prompt with examples in it is made, found in the pool, and remembered."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.strategies.gepa import still_hold
from llm_catalyst.mentors.strategies.templates import format_answer, format_input
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.records import Prompt


@dataclass(frozen=True)
class CapoMember:
    """A prompt of the population: its instruction, the training examples that stand in it, and its answers so far.

    `length` is that of the whole text in tokens, at most m, before it was filled up to m; `lost` is what did not fit.
    `right` has a "1" for each right answer and a "0" for each wrong one to the examples of the blocks, in order.
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
    """What stays the same in a run: training examples in blocks to race on, and those that may stand in prompts.

    Both are numbers of training examples. `longest` is the length of the longest first member in tokens.
    """

    blocks: Sequence[Sequence[int]]
    held_back: Sequence[int]
    longest: int = 0


@dataclass(frozen=True)
class Crossing:
    """What a child is made of: two parents, and the training examples that are to stand in it."""

    mother: CapoMember
    father: CapoMember
    shots: tuple[int, ...]


def build_population(context: MentorContext, most: int) -> list[CapoMember]:
    """The population of the consultation before, and what training has found since; at first the best of the pool.

    It does not matter whether the run has scored a member on dev: the race decides. Answers that may come from another
    head are forgotten.
    """
    memory, space = context.memory, context.space
    if not memory:
        return [member_from_prompt(entry.prompt, space) for entry in reversed(context.pool[-most:])]
    hold = still_hold(memory["stage"], context)
    kept = [member_from_json(each, space) for each in memory["population"]]
    new = [
        member_from_prompt(entry.prompt, space)
        for entry in reversed(context.pool)
        if entry.origin == "gradient" and entry.stage == context.stage
    ]
    return drop_duplicates([*(member if hold else replace(member, right="") for member in kept), *new])


def drop_duplicates(candidates: Sequence[CapoMember]) -> list[CapoMember]:
    """The first of each prompt."""
    first: dict[Prompt, CapoMember] = {}
    for member in candidates:
        first.setdefault(member.prompt, member)
    return list(first.values())


def member_from_prompt(prompt: Prompt, space: PromptSpace) -> CapoMember:
    """A prompt of the pool as a member. Where a text was repeated up to m tokens, that text is its instruction."""
    tokens, m = prompt.tokens, len(prompt.tokens)
    once = next(n for n in range(1, m + 1) if tokens[n:] == tokens[: m - n])
    return CapoMember(prompt, space.decode(tokens[:once]), (), once)


def make_member(instruction: str, shots: Sequence[int], context: MentorContext, rationale: str) -> list[CapoMember]:
    """An instruction with those of the examples, in their order, that fit into m tokens behind it.

    Empty where the instruction holds no token.
    """
    task, space = context.task, context.space
    text, kept = instruction, list[int]()
    for row in shots:
        example = task.examples[row]
        longer = f"{text} Input: {format_input(example)} Output: {format_answer(task, example.label)}"
        if length_of(longer, space) <= space.length:
            text, kept = longer, [*kept, row]
    try:
        prompt, lost = space.fit(text)
    except ValueError:
        return []
    return [
        CapoMember(prompt, instruction, tuple(kept), min(length_of(text, space), space.length), lost, "", rationale)
    ]


def length_of(text: str, space: PromptSpace) -> int:
    """The length of a text in tokens."""
    return len(space.tokenizer(text, add_special_tokens=False).input_ids)


def population_to_json(survivors: Sequence[CapoMember], course: CapoSchedule, stage: int) -> dict[str, Any]:
    """What the next consultation is to know, as JSON has it."""
    population = [
        {**asdict(member), "prompt": list(member.prompt.tokens), "shots": list(member.shots)} for member in survivors
    ]
    return {"stage": stage, "course": asdict(course), "population": population}


def member_from_json(member: Mapping[str, Any], space: PromptSpace) -> CapoMember:
    """A member as it was remembered."""
    return CapoMember(**{**member, "prompt": space.prompt(member["prompt"]), "shots": tuple(member["shots"])})
