"""A person at the terminal as the mentor."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from llm_catalyst.mentors.clients.http import Answer, make_call
from llm_catalyst.mentors.reply_parser import strip_invisible
from llm_catalyst.runs.records import LLMCall, Message
from llm_catalyst.utils.validation import ConfigurationError


@dataclass(frozen=True)
class Human:
    """The `mentor.client` node of a human mentor: sees what a language model would see, and answers."""

    model: ClassVar[str] = "human"
    paid: ClassVar[bool] = False
    background: ClassVar[bool] = False

    def preflight(self) -> None:
        """Raise ConfigurationError without a terminal."""
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise ConfigurationError(
                "mentor=human needs a terminal to ask at, and standard input or output is none; "
                "start the run in a terminal, or choose another mentor (mentor=local, mentor=evolution, mentor=none)"
            )

    def reach(self) -> None:
        """Nothing: whoever started the run is there."""

    def parameters(self, seed: int) -> dict[str, float | int | str]:
        """A person has none."""
        return {}

    def complete(
        self, messages: Sequence[Message], stage: int, seed: int, number: int = 0, repetition: int = 0
    ) -> LLMCall:
        """What the person types until an empty line; an `error` where that is nothing. Costs no money."""

        def ask() -> Answer:
            try:
                self.preflight()
            except ConfigurationError as failure:
                return Answer(error=str(failure))
            print_conversation(messages)
            reply = read_lines()
            return Answer(reply, answered="human", error=None if reply else "no proposal was typed")

        return make_call(ask, messages=messages, stage=stage, model=self.model, parameters={}, free=True)


def print_conversation(messages: Sequence[Message]) -> None:
    """Print the conversation, or after an answer only the reminder. The texts are untrusted: no markup."""
    console = Console(highlight=False)
    answered = any(message.role == "assistant" for message in messages)
    for message in messages[-1:] if answered else messages:
        console.print(Panel(Text(strip_invisible(message.content)), title=message.role, title_align="left"))
    console.print(Text("One proposal per line; an empty line ends."))


def read_lines() -> str:
    """Lines typed until an empty one or the end of input (Ctrl-D)."""
    lines: list[str] = []
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            line = ""
        if not line:
            return "\n".join(lines)
        lines.append(line)
