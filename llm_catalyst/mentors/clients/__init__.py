"""Clients: whoever answers a conversation, be it a provider, a local model, a recorded run or a person.

Each is a frozen dataclass whose fields are the `mentor.client` node of the configuration.
"""

from collections.abc import Sequence
from typing import Protocol

from llm_catalyst.records import Exchange, Message


class Client(Protocol):
    """One conversation in, one exchange out."""

    def complete(self, messages: Sequence[Message], stage: int, seed: int) -> Exchange:
        """The answer to `messages`, as an exchange. What goes wrong is its `error`; nothing is raised."""
        ...

    def preflight(self) -> None:
        """Raise ConfigurationError where `complete` is bound to fail. Called before training; no network."""
        ...
