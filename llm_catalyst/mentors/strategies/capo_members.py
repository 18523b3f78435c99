"""The population of strategy=capo: members from instructions, from the pool, and from the memory."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.strategies.templates import format_input
from llm_catalyst.mentors.strategies.trials import marks_are_valid
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.records import Prompt


@dataclass(frozen=True)
class CapoMember:
    """A prompt of the population: its instruction, the training examples in it, and its answers so far.

    Attributes:
        shots: The training examples in the prompt, as row numbers.
        length: Tokens of the whole text, at most m, before it was filled up to m.
        lost: The rest of the text that did not fit.
        right: "1" for each right and "0" for each wrong answer to the examples of the blocks, in order.
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
    """The constants of a run.

    Attributes:
        blocks: Training examples to race on, as row numbers.
        held_back: Training examples that may stand in prompts, as row numbers.
        longest: The length of the longest first member in tokens.
    """

    blocks: Sequence[Sequence[int]]
    held_back: Sequence[int]
    longest: int = 0


@dataclass(frozen=True)
class Crossing:
    """Two parents, and the training examples for their child."""

    mother: CapoMember
    father: CapoMember
    shots: tuple[int, ...]


def build_population(context: MentorContext, most: int) -> list[CapoMember]:
    """The population in the memory, and the prompts that training has found since; at first the best of the pool.

    Members need no score on dev: the race decides. Answers that may come from another head are dropped.
    """
    memory, space = context.memory, context.space
    if not memory:
        return [member_from_prompt(entry.prompt, space) for entry in reversed(context.pool[-most:])]
    valid = marks_are_valid(memory["stage"], context)
    kept = [member_from_json(each, space) for each in memory["population"]]
    new = [
        member_from_prompt(entry.prompt, space)
        for entry in reversed(context.pool)
        if entry.origin == "gradient" and entry.stage == context.stage
    ]
    return drop_duplicates([*(member if valid else replace(member, right="") for member in kept), *new])


def drop_duplicates(candidates: Sequence[CapoMember]) -> list[CapoMember]:
    """The first member of each prompt."""
    first: dict[Prompt, CapoMember] = {}
    for member in candidates:
        first.setdefault(member.prompt, member)
    return list(first.values())


def member_from_prompt(prompt: Prompt, space: PromptSpace) -> CapoMember:
    """A prompt of the pool as a member. If a text was repeated up to m tokens, that text is its instruction."""
    tokens, m = prompt.tokens, len(prompt.tokens)
    once = next(n for n in range(1, m + 1) if tokens[n:] == tokens[: m - n])
    return CapoMember(prompt, space.decode(tokens[:once]), (), once)


def make_member(instruction: str, shots: Sequence[int], context: MentorContext, rationale: str) -> list[CapoMember]:
    """An instruction with those of the examples, in their order, that fit into m tokens behind it.

    Empty if the instruction has no token.
    """
    task, space = context.task, context.space
    text, kept = instruction, list[int]()
    for row in shots:
        example = task.examples[row]
        longer = f"{text} Input: {format_input(example)} Output: {task.labels[example.label]}"
        if count_tokens(longer, space) <= space.length:
            text, kept = longer, [*kept, row]
    try:
        prompt, lost = space.fit(text)
    except ValueError:
        return []
    length = min(count_tokens(text, space), space.length)
    return [CapoMember(prompt, instruction, tuple(kept), length, lost, rationale=rationale)]


def count_tokens(text: str, space: PromptSpace) -> int:
    """The number of tokens of a text."""
    return len(space.tokenizer(text, add_special_tokens=False).input_ids)


def population_to_json(survivors: Sequence[CapoMember], schedule: CapoSchedule, stage: int) -> dict[str, Any]:
    """The memory for the next consultation, as JSON values."""
    population = [
        {**asdict(member), "prompt": list(member.prompt.tokens), "shots": list(member.shots)} for member in survivors
    ]
    return {"stage": stage, "course": asdict(schedule), "population": population}


def member_from_json(member: Mapping[str, Any], space: PromptSpace) -> CapoMember:
    """A member from the memory."""
    return CapoMember(**{**member, "prompt": space.prompt(member["prompt"]), "shots": tuple(member["shots"])})
