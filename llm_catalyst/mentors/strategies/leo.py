"""Two pools, one that explores and one that exploits, each with its own request and temperature; the better ones move.

Source: Brahmachary et al. 2024, "Large Language Model-Based Evolutionary Optimizer: Reasoning with elitism" (arXiv
2403.02054), from its description; no code is public.
Faithful: an explore pool and an exploit pool, each with its own request; exploring at a high temperature, exploiting
at a low one; then "port and filter": explored candidates enter the exploit pool where they are better than its worst;
elitism: each pool keeps its best.
Different: candidates are prompts, not vectors of numbers, and the single objective is the dev loss. What training
found, and what came from a mentor that stood in, enters the exploit pool by the same filter. A prompt that enters
it stays in the explore pool, too. All requests are in our own words, and all numbers are ours: `size`, half
of the proposals for each pool, and both temperatures; 1.0 is the highest that all providers take.
A client whose own temperature is null takes none: the two requests then differ in their words alone.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.reply_parser import parse_proposals
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
    format_entries,
    format_number,
)
from llm_catalyst.runs.records import Advice, Message, Proposal, ScoredPrompt
from llm_catalyst.utils.validation import check_at_least, check_choice

ROLE = "You search for short text prompts that make a frozen language model good at a task."
EXPLORE = (
    "Explore: write {proposals} unlike all of these, and unlike each other, in words and in idea. Look where nobody "
    "has looked so far; a bold guess is welcome, as long as its loss may turn out to be low."
)
EXPLOIT = (
    "Exploit: write {proposals} close to the best of these, above all to the last one. Keep what makes them good, "
    "and change as little as you need for a loss that is lower still."
)


@dataclass(frozen=True)
class Leo:
    """The `strategy` node: explore and exploit. Fields are explained in conf/strategy/leo.yaml."""

    needs_pool: ClassVar[bool] = True

    form: str = "chat"
    proposals: int = 6
    size: int = 5
    words: int = 9
    explore_temperature: float | None = 1.0
    exploit_temperature: float | None = 0.2
    show_gradient: bool = False

    def __post_init__(self) -> None:
        check_choice("strategy.form", self.form, FORMS)
        check_at_least("strategy.proposals", self.proposals, 2)
        check_at_least("strategy.size", self.size, 1)
        check_at_least("strategy.words", self.words, 2)
        check_at_least("strategy.explore_temperature", self.explore_temperature, 0)
        check_at_least("strategy.exploit_temperature", self.exploit_temperature, 0)

    @property
    def needs_model(self) -> bool:
        """For its gradients, where these are shown."""
        return self.show_gradient

    def propose(self, context: MentorContext) -> Dialogue:
        """Port and filter what was scored since, then one question for each pool; the exploited prompts come first."""
        explore, exploit = self.pools(context)
        share = self.proposals // 2
        explored, exploited = yield (
            replace(
                self.question(EXPLORE, explore, share, context),
                temperature=self.explore_temperature,
                rationale="explored: unlike the prompts so far",
            ),
            replace(
                self.question(EXPLOIT, exploit, self.proposals - share, context),
                temperature=self.exploit_temperature,
                rationale="exploited: close to the best prompts",
            ),
        )
        memory = {
            "explore": tokens_of(explore),
            "exploit": tokens_of(exploit),
            "explored": tokens_of(explored.proposals),
            "exploited": tokens_of(exploited.proposals),
        }
        return Advice((*exploited.proposals, *explored.proposals), memory=memory)

    def pools(self, context: MentorContext) -> tuple[list[ScoredPrompt], list[ScoredPrompt]]:
        """The explore pool and the exploit pool, at most `size` prompts each, the best one last.

        Each is filled with what it held and last time's proposals made from it; a prompt without a score is gone. One
        that is empty, as both are at first, takes its half of the trajectory: the better half is to be exploited.
        """
        scored, memory, pool = context.scored, context.memory, context.pool
        known = {entry.prompt.tokens: entry for entry in (*scored, *pool)}
        half = (len(pool) + 1) // 2
        explore = select_elite(recall_prompts(memory, known, "explore", "explored") or pool[:-half] or pool, self.size)
        exploit = select_elite(recall_prompts(memory, known, "exploit", "exploited") or pool[-half:], self.size)
        return explore, port_candidates(known.values(), exploit, self.size)

    def question(self, wish: str, pool: list[ScoredPrompt], number: int, context: MentorContext) -> Request:
        """The request of one pool for `number` new prompts."""
        wanted = format_number(number, "new prompt")
        parts = [
            describe_task(context.task),
            ORDER,
            *format_entries(pool, context, self.show_gradient),
            wish.format(proposals=wanted),
            RULES.format(words=self.words, tokens=context.space.length),
        ]

        def remind(reply: str) -> list[Message]:
            return build_reminder(self.form, reply, ASK_AGAIN.format(proposals=wanted))

        return Request(
            build_messages(self.form, ROLE, parts, "New prompts:"),
            lambda reply: parse_proposals(reply, MOST_READ),
            remind,
            number,
        )


def port_candidates(candidates: Iterable[ScoredPrompt], exploit: list[ScoredPrompt], size: int) -> list[ScoredPrompt]:
    """The exploit pool after those candidates have entered it that are better than its worst prompt."""
    worst = exploit[0].score.loss if exploit else math.inf
    return select_elite([*exploit, *(entry for entry in candidates if entry.score.loss < worst)], size)


def select_elite(entries: Iterable[ScoredPrompt], size: int) -> list[ScoredPrompt]:
    """The `size` distinct prompts with the lowest loss, the best one last."""
    distinct = {entry.prompt.tokens: entry for entry in entries}
    return sorted(distinct.values(), key=lambda entry: -entry.score.loss)[-size:]


def recall_prompts(
    memory: Mapping[str, list[list[int]]], known: Mapping[tuple[int, ...], ScoredPrompt], *names: str
) -> list[ScoredPrompt]:
    """The prompts that are remembered under these names and still have a score."""
    return [known[tuple(tokens)] for name in names for tokens in memory.get(name, []) if tuple(tokens) in known]


def tokens_of(prompts: Iterable[ScoredPrompt | Proposal]) -> list[list[int]]:
    """Prompts as JSON values."""
    return [list(each.prompt.tokens) for each in prompts]
