"""The responses of an earlier run, once more: no network, no key, no cost."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from llm_catalyst.mentors.clients.base import LONGEST_ERROR, Client, ClientResponse, NotRecordedError, utc_now
from llm_catalyst.runs.reader import read_lines
from llm_catalyst.runs.records import LLMCall, Message, Restart
from llm_catalyst.utils.paths import expand_path
from llm_catalyst.utils.validation import ConfigurationError, config_dataclass


@config_dataclass("mentor.client")
class Replay(Client):
    """The `mentor.client` node of a replayed mentor: `run` is the directory of an earlier run.

    A request gets the response that the same stage of the earlier run got to it, whichever of its models gave it, and
    one that was not sent there the response of its number; if that run then fell back, the next request fails for
    the recorded reason. `overlap` says that it used each response a stage later. Tokens are repeated, cost and latency
    are not: this run spends neither.
    """

    model = "replay"
    background = True
    replays = True

    run: str
    overlap: bool = False

    @property
    def path(self) -> Path:
        return expand_path(self.run) / "exchanges.jsonl"

    @cached_property
    def recorded(self) -> tuple[LLMCall, ...]:
        """All calls of the earlier run. Raises ConfigurationError where they cannot be read."""
        if not self.path.is_file():
            raise ConfigurationError(
                f"replay.run={self.run} holds no exchanges.jsonl to replay; give the directory of a run whose "
                "mentor was a language model"
            )
        return read_lines(self.path, LLMCall)

    @cached_property
    def fallen_back(self) -> dict[int, str]:
        """Why the earlier run restarted from its pool's best, by the stage after which it had asked, where it did.

        Raises as `recorded` does.
        """
        restarts: tuple[Restart, ...] = read_lines(self.path.with_name("restarts.jsonl"), Restart)
        return {restart.stage - self.overlap: restart.fallback for restart in restarts if restart.fallback is not None}

    def preflight(self) -> None:
        """Raise ConfigurationError where there is nothing to replay."""
        if not self.recorded:
            raise ConfigurationError(f"{self.path} is empty: that run asked no language model")
        self.fallen_back  # noqa: B018 - a line that cannot be read is found before training

    def complete(
        self, messages: Sequence[Message], stage: int, seed: int, number: int = 0, repetition: int = 0
    ) -> LLMCall:
        """The recorded call with these messages and this seed, or this repetition of them; else the one of this number.

        Several requests at once get their responses in any order, so the one of their number may be another's: then
        `reused` says so. Raises NotRecordedError if the earlier run had no more responses and did not fall back either.
        """
        calls = [earlier for earlier in self.recorded if earlier.stage == stage and earlier.answered is not None]
        if number < len(calls):
            sent = tuple(messages)
            same = [earlier for earlier in calls if earlier.messages == sent]
            by_seed = (earlier for earlier in same if earlier.parameters.get("seed") == seed)
            earlier = next(by_seed, same[repetition] if repetition < len(same) else calls[number])
            reused = self.run if earlier.messages == sent else f"{self.run}, where the messages were others"
            return replace(earlier, messages=sent, cost_usd=0.0, latency_s=0.0, date=utc_now(), reused=reused)
        if stage not in self.fallen_back:
            raise NotRecordedError(
                f"{self.path} holds {len(calls)} answers for stage {stage} (from 0), and all are used up: this run "
                "is not the recorded one; repeat its command with mentor=replay, and with the mentor.fallbacks that "
                "ask no model"
            )
        failed = super().complete(messages, stage, seed)
        return replace(failed, latency_s=0.0, reused=self.run, error=self.fallen_back[stage][:LONGEST_ERROR])

    def respond(self, messages: Sequence[Message], seed: int) -> ClientResponse:
        return ClientResponse(error="the recorded run fell back here")
