"""The answers of an earlier run, once more: no network, no key, no cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from llm_catalyst.checks import ConfigurationError
from llm_catalyst.mentors.clients.calls import Answer, exchange, utc_now
from llm_catalyst.records import Exchange, Message, from_json


@dataclass(frozen=True)
class Replay:
    """The `mentor.client` node of a replayed mentor: `run` is the directory of an earlier run.

    Each stage gets the answers that the same stage of the earlier run got, in their order; so a replay that
    is resumed goes on where it stopped. Their tokens are repeated, their cost and latency are not: this run
    spends neither.
    """

    run: str

    @property
    def path(self) -> Path:
        return Path(self.run).expanduser() / "exchanges.jsonl"

    @cached_property
    def recorded(self) -> tuple[Exchange, ...]:
        """All exchanges of the earlier run. Raises ConfigurationError where they cannot be read."""
        try:
            lines = [line for line in self.path.read_bytes().split(b"\n") if line.strip()]
        except OSError as error:
            raise ConfigurationError(
                f"mentor.client.run={self.run} holds no exchanges.jsonl to replay ({error.strerror}); give the "
                "directory of a run whose mentor was a language model"
            ) from None
        try:
            return tuple(from_json(Exchange, line) for line in lines)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigurationError(f"{self.path} holds a line that is no exchange: {first['msg']}") from None

    @cached_property
    def _used(self) -> dict[int, int]:
        return {}

    def preflight(self) -> None:
        """Raise ConfigurationError where there is nothing to replay."""
        if not self.recorded:
            raise ConfigurationError(f"{self.path} is empty: that run asked no language model")

    def complete(self, messages: Sequence[Message], stage: int, seed: int) -> Exchange:
        """The next recorded answer of this stage; `parameters` say whether the messages are the recorded ones."""
        answers = [earlier for earlier in self.recorded if earlier.stage == stage]
        used = self._used.get(stage, 0)
        if used >= len(answers):
            used_up = f"{self.path} holds {len(answers)} answers for stage {stage} (from 0), and all are used up"
            return exchange(
                lambda: Answer(error=used_up),
                messages=messages,
                stage=stage,
                model="replay",
                parameters={"replayed": self.run},
                free=True,
            )
        self._used[stage] = used + 1
        earlier = answers[used]
        same = earlier.messages == tuple(messages)
        return replace(
            earlier,
            messages=tuple(messages),
            parameters={**earlier.parameters, "replayed": self.run, "messages": "as recorded" if same else "differ"},
            cost_usd=0.0,
            latency_s=0.0,
            date=utc_now(),
        )
