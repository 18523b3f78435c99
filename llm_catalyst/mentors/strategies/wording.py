"""What the strategies' requests have in common: the form of a conversation, and how texts stand in it."""

import json
from collections.abc import Sequence

from llm_catalyst.records import Message

FORMS = ("chat", "plain")
MOST_READ = 64  # proposals read from one answer, however many were asked for
LONGEST_ECHO = 2000  # characters of an unusable answer that are shown to its author again


def conversation(form: str, role: str, parts: Sequence[str], lead: str) -> list[Message]:
    """Role and paragraphs as a system and a user message (chat), or as one text that ends with `lead` (plain)."""
    if form == "chat":
        return [Message("system", role), Message("user", "\n\n".join(parts))]
    return [Message("user", "\n\n".join([role, *parts, lead]) + "\n")]


def reminder(form: str, reply: str, wish: str) -> list[Message]:
    """The unusable reply and a repeated wish; nothing for plain text, which is simply asked again."""
    if form == "plain":
        return []
    echo = reply.strip()[:LONGEST_ECHO] or "(no answer)"  # providers refuse an empty message
    return [Message("assistant", echo), Message("user", wish)]


def quoted(text: str) -> str:
    """`text` as a JSON string in which letters of all scripts stay, and what cannot be seen is escaped."""
    shown = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in shown)


def number_of(number: int, thing: str) -> str:
    """'1 new prompt', '3 new prompts'."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
