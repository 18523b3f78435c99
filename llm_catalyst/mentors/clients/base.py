"""Clients: whoever answers a conversation, be it a provider, a local model, a recorded run or a person.

Each is a frozen dataclass whose fields are the `mentor.client` node of the configuration.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from llm_catalyst.runs.records import LLMCall, Message


class NotRecordedError(RuntimeError):
    """A replay is asked what the recorded run does not answer: this run is not the recorded one."""


class Client(Protocol):
    """One conversation in, one exchange out. `paid` says whether somebody sends a bill for the answers.

    `background` says whether it may answer while this process trains. A client with a field `at_once` is asked from
    other threads than the run's, so many requests under way at a time.
    """

    paid: ClassVar[bool]
    background: ClassVar[bool]

    @property
    def model(self) -> str:
        """The name of the model that is asked."""
        ...

    def parameters(self, seed: int) -> Mapping[str, float | int | str]:
        """The sampling settings that go with each request."""
        ...

    def complete(
        self, messages: Sequence[Message], stage: int, seed: int, number: int = 0, repetition: int = 0
    ) -> LLMCall:
        """The answer to `messages`, as an exchange. What goes wrong is its `error`; a replay may raise NotRecorded.

        `number` counts the questions of this consultation, from 0, and `repetition` those with the same messages.
        """
        ...

    def preflight(self) -> None:
        """Raise ConfigurationError where `complete` is bound to fail. Called before training; no network."""
        ...

    def reach(self) -> None:
        """Raise ConfigurationError where the provider is not there, refuses the key or does not know the model."""
        ...
