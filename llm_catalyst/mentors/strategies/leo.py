"""Keep two pools, one to explore and one to exploit, each with its own request and temperature; better prompts move.

Source: Brahmachary et al. 2024, "Large Language Model-Based Evolutionary Optimizer: Reasoning with elitism" (arXiv
2403.02054), from its description; no code is public.
Faithful: an explore pool and an exploit pool, each with its own request; exploring at a high temperature, exploiting
at a low one; then "port and filter": explored candidates enter the exploit pool if they are better than its worst;
elitism: each pool keeps its best.
Different: candidates are prompts, not vectors of numbers, and the single objective is the dev loss. Prompts that
training or a fallback mentor found enter the exploit pool by the same filter. A prompt that enters it also stays in the
explore pool. All requests are in our own words, and all numbers are ours: `size`, half of the proposals for each pool,
and both temperatures; 1.0 is the highest that all providers take.
A client whose own temperature is null takes none: the two requests then differ only in their words.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated

from annotated_types import Ge

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Strategy
from llm_catalyst.mentors.strategies.templates import ORDER, ask_again, describe_task, format_entries, write_rules
from llm_catalyst.runs.records import Advice, Proposal, ScoredPrompt
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.validation import NonNegative, PositiveInt, config_dataclass

ROLE = "You search for short text prompts that make a frozen language model good at a task."
EXPLORE = """Explore: write {proposals} unlike all of these, and unlike each other, in words and in idea. Look where \
nobody has looked so far; a bold guess is welcome, as long as its loss may turn out to be low."""
EXPLOIT = """Exploit: write {proposals} close to the best of these, above all to the last one. Keep what makes them \
good, and change as little as you need for a loss that is lower still."""
RATIONALES = {EXPLORE: "explored: unlike the prompts so far", EXPLOIT: "exploited: close to the best prompts"}


@config_dataclass("strategy")
class Leo(Strategy):
    """Explore and exploit; conf/strategy/leo.yaml explains the fields."""

    needs_pool = True

    proposals: Annotated[int, Ge(2)] = 6
    size: PositiveInt = 5
    explore_temperature: NonNegative | None = 1.0
    exploit_temperature: NonNegative | None = 0.2
    show_gradient: bool = False

    def propose(self, context: MentorContext) -> Dialogue:
        """Port and filter new scores, then send one request for each pool; the exploited prompts come first."""
        explore, exploit = self.fill_pools(context)
        few, many = self.proposals // 2, (self.proposals + 1) // 2
        explored, exploited = yield (
            replace(self.ask_prompts(EXPLORE, explore, few, context), temperature=self.explore_temperature),
            replace(self.ask_prompts(EXPLOIT, exploit, many, context), temperature=self.exploit_temperature),
        )
        pools: dict[str, Sequence[ScoredPrompt | Proposal]] = {"explore": explore, "exploit": exploit}
        pools |= {"explored": explored.proposals, "exploited": exploited.proposals}
        memory = {name: [list(each.prompt.tokens) for each in pool] for name, pool in pools.items()}
        return Advice((*exploited.proposals, *explored.proposals), memory=memory)

    def fill_pools(self, context: MentorContext) -> tuple[list[ScoredPrompt], list[ScoredPrompt]]:
        """The explore pool and the exploit pool, at most `size` prompts each, the best one last.

        Each is filled with its former prompts and the last proposals made from them; prompts without a score leave.
        A pool that is empty, as both are at first, takes its half of the trajectory: the better half is exploited.
        """
        memory, pool = context.memory, context.pool
        known = {entry.prompt.tokens: entry for entry in (*context.scored, *pool)}
        half = (len(pool) + 1) // 2

        def recall(*names: str) -> list[ScoredPrompt]:
            return [known[tokens] for name in names for tokens in map(tuple, memory.get(name, ())) if tokens in known]

        explore = select_elite(recall("explore", "explored") or pool[:-half] or pool, self.size)
        exploit = select_elite(recall("exploit", "exploited") or pool[-half:], self.size)
        worst = exploit[0].score.loss if exploit else math.inf
        better = (entry for entry in known.values() if entry.score.loss < worst)
        return explore, select_elite([*exploit, *better], self.size)

    def ask_prompts(self, wish: str, pool: list[ScoredPrompt], number: int, context: MentorContext) -> Request:
        """The request of one pool for `number` new prompts."""
        wanted, rules = format_count(number, "new prompt"), write_rules(*self.limits(context.space))
        entries = format_entries(pool, context, self.show_gradient)
        paragraphs = [describe_task(context.task), ORDER, *entries, wish.format(proposals=wanted), rules]
        reminder = ask_again(f"{wanted} now, none of them among the ones listed")
        return self.make_request(ROLE, paragraphs, "New prompts:", reminder, number, RATIONALES[wish])


def select_elite(entries: Iterable[ScoredPrompt], size: int) -> list[ScoredPrompt]:
    """The `size` distinct prompts with the lowest loss, the best one last."""
    distinct = {entry.prompt.tokens: entry for entry in entries}
    return sorted(distinct.values(), key=lambda entry: -entry.score.loss)[-size:]
