"""A person at the terminal as the mentor."""

import sys
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from llm_catalyst.mentors.clients.base import Client, ClientResponse
from llm_catalyst.mentors.reply_parser import strip_invisible
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.validation import ConfigurationError, config_dataclass


@config_dataclass("mentor.client")
class Human(Client):
    """The `mentor.client` node of a human mentor: sees what a language model would see, and answers."""

    model = "human"
    interactive = True

    def preflight(self) -> None:
        """Raise ConfigurationError without a terminal."""
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise ConfigurationError(
                "mentor=human needs a terminal to ask at, and standard input or output is none; "
                "start the run in a terminal, or choose another mentor (mentor=local, mentor=evolution, mentor=none)"
            )

    def respond(self, messages: Sequence[Message], seed: int) -> ClientResponse:
        """The lines that the person types until an empty one; an error without any."""
        try:
            self.preflight()
        except ConfigurationError as failure:
            return ClientResponse(error=str(failure))
        print_conversation(messages)
        reply = read_lines()
        return ClientResponse(reply, answered="human", error=None if reply else "no proposal was typed")


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
    with suppress(EOFError):
        while line := input("> ").strip():
            lines.append(line)
    return "\n".join(lines)
