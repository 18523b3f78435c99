"""Strategies: how a mentor is asked. Pure text in, pure text out; each is the `strategy` configuration node."""

from typing import ClassVar, Protocol

from llm_catalyst.mentors.consultation import Consultation
from llm_catalyst.records import Message, Rejected


class Strategy(Protocol):
    """The request for proposals, and how the answer is read.

    `needs_pool` says that there is nothing to ask about where the pool is empty: `messages` is not called then.
    """

    needs_pool: ClassVar[bool]

    def messages(self, consultation: Consultation, proposals: int) -> list[Message]:
        """The conversation that asks for `proposals` new prompts."""
        ...

    def reminder(self, reply: str, proposals: int) -> list[Message]:
        """What to append to the conversation after a reply without any usable proposal."""
        ...

    def read(self, reply: str) -> tuple[list[str], list[Rejected]]:
        """The proposals in a reply, as texts, and the lines that are none."""
        ...
