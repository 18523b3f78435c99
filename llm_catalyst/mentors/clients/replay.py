"""The answers of an earlier run, once more: no network, no key, no cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from llm_catalyst.mentors.clients.base import NotRecordedError
from llm_catalyst.mentors.clients.http import Answer, make_call, utc_now
from llm_catalyst.runs.reader import read_lines
from llm_catalyst.runs.records import LLMCall, Message, Restart
from llm_catalyst.utils.validation import ConfigurationError


@dataclass(frozen=True)
class Replay:
    """The `mentor.client` node of a replayed mentor: `run` is the directory of an earlier run.

    A question gets the answer that the same stage of the earlier run got to it, whichever of its models gave it, and
    one that was not asked there the answer of its number; where that run then fell back, the next question fails for
    the recorded reason. `overlap` says that it used each answer a stage later. Tokens are repeated, cost and latency
    are not: this run spends neither.
    """

    model: ClassVar[str] = "replay"
    paid: ClassVar[bool] = False
    background: ClassVar[bool] = True

    run: str
    overlap: bool = False

    @property
    def path(self) -> Path:
        return Path(self.run).expanduser() / "exchanges.jsonl"

    @cached_property
    def recorded(self) -> tuple[LLMCall, ...]:
        """All exchanges of the earlier run. Raises ConfigurationError where they cannot be read."""
        if not self.path.is_file():
            raise ConfigurationError(
                f"replay.run={self.run} holds no exchanges.jsonl to replay; give the directory of a run whose "
                "mentor was a language model"
            )
        return read_lines(self.path, LLMCall)

    @cached_property
    def fallbacks(self) -> dict[int, str]:
        """Why the earlier run restarted from its pool's best, by the stage after which it had asked, where it did.

        Raises as `recorded` does.
        """
        restarts: tuple[Restart, ...] = read_lines(self.path.with_name("restarts.jsonl"), Restart)
        return {restart.stage - self.overlap: restart.fallback for restart in restarts if restart.fallback is not None}

    def preflight(self) -> None:
        """Raise ConfigurationError where there is nothing to replay."""
        if not self.recorded:
            raise ConfigurationError(f"{self.path} is empty: that run asked no language model")
        self.fallbacks  # noqa: B018 - a line that cannot be read is found before training

    def reach(self) -> None:
        """Nothing: the answers are on the disk."""

    def parameters(self, seed: int) -> dict[str, float | int | str]:
        """None of its own: an exchange keeps the recorded ones."""
        return {}

    def complete(
        self, messages: Sequence[Message], stage: int, seed: int, number: int = 0, repetition: int = 0
    ) -> LLMCall:
        """The recorded answer to this question, or to that of its number: `reused` says then that it was another.

        Raises NotRecorded where the earlier run had no more answers and did not fall back either.
        """
        answers = [earlier for earlier in self.recorded if earlier.stage == stage and earlier.answered is not None]
        if number < len(answers):
            earlier = the_one_for(tuple(messages), seed, number, repetition, answers)
            same = earlier.messages == tuple(messages)
            return replace(
                earlier,
                messages=tuple(messages),
                cost_usd=0.0,
                latency_s=0.0,
                date=utc_now(),
                reused=self.run if same else f"{self.run}, where the messages were others",
            )
        if stage not in self.fallbacks:
            raise NotRecordedError(
                f"{self.path} holds {len(answers)} answers for stage {stage} (from 0), and all are used up: this run "
                "is not the recorded one; repeat its command with mentor=replay, and with the mentor.fallbacks that "
                "ask no model"
            )
        failed = Answer(error=self.fallbacks[stage])
        again = make_call(lambda: failed, messages=messages, stage=stage, model=self.model, parameters={}, free=True)
        return replace(again, latency_s=0.0, reused=self.run)


def the_one_for(
    messages: tuple[Message, ...], seed: int, number: int, repetition: int, answers: Sequence[LLMCall]
) -> LLMCall:
    """The answer to these messages and this seed, or to this repetition of them; else that of this number.

    Several questions at once are answered in any order: so that of their number may be another's.
    """
    same = [earlier for earlier in answers if earlier.messages == messages]
    by_seed = [earlier for earlier in same if earlier.parameters.get("seed") == seed]
    if by_seed:
        return by_seed[0]
    return same[repetition] if repetition < len(same) else answers[number]
