"""What the strategies' requests have in common: the form of a conversation, and how things stand in it as text."""

import json
from collections.abc import Callable, Sequence

from llm_catalyst.mentors.base import MentorContext, TaskDescription
from llm_catalyst.runs.records import Message, ScoredPrompt
from llm_catalyst.tasks.text_task import Example

FORMS = ("chat", "plain")
MOST_READ = 64  # proposals read from one answer, however many were asked for
LONGEST_ECHO = 2000  # characters of an unusable answer that are shown to its author again
LONGEST_INPUT = 1000  # characters of an example's text that are shown
ORDER = (
    "These prompts were tried before, each with its loss and its accuracy on held-out examples. The loss falls from "
    "the first to the last, so the last one is the best. Some prompts are odd strings of word pieces: take up what "
    "they hint at, not their form."
)
RULES = """\
- Write fewer than {words} words per prompt. Only its first {tokens} tokens are used.
- Write one prompt per line, each line beginning with "- ".
- Answer with the prompts only: no introduction, no scores, no explanation."""
ASK_AGAIN = (
    "No usable prompt could be read from that answer. Please write {proposals} now, none of them among the ones "
    'listed, one per line, each line beginning with "- ", and nothing else.'
)
GRADIENT = (
    'The lines "Gradient" say, for each token of a prompt in turn, towards which tokens the gradient of the loss would '
    "move it (the likeliest first)."
)


def build_messages(form: str, role: str, parts: Sequence[str], lead: str) -> tuple[Message, ...]:
    """Role and paragraphs as a system and a user message (chat), or as one text that ends with `lead` (plain)."""
    if form == "chat":
        return Message("system", role), Message("user", "\n\n".join(parts))
    return (Message("user", "\n\n".join([role, *parts, lead]) + "\n"),)


def build_reminder(form: str, reply: str, wish: str) -> list[Message]:
    """The unusable reply and a repeated wish; nothing for plain text, which is simply asked again."""
    if form == "plain":
        return []
    echo = reply.strip()[:LONGEST_ECHO] or "(no answer)"  # providers refuse an empty message
    return [Message("assistant", echo), Message("user", wish)]


def describe_task(task: TaskDescription, description: str | None = None) -> str:
    """The paragraph about the task; `description` stands for the task's own text where it is given."""
    labels = f" The answers to choose from: {', '.join(task.labels)}." if task.labels else ""
    return f"The task of the language model: {(description or task.text).strip()}{labels}"


def with_losses(scored: ScoredPrompt) -> str:
    """A prompt with its loss and accuracy; its text is quoted, so that odd tokens stay on their line."""
    return (
        f"Prompt: {quote_json(scored.prompt.text)}\nLoss: {scored.score.loss:.3f}\nAccuracy: {scored.score.metric:.3f}"
    )


def format_rating(scored: ScoredPrompt) -> str:
    """A prompt with its score from 0 to 100: the metric."""
    return f"Prompt: {quote_json(scored.prompt.text)}\nScore: {round(100 * scored.score.metric)}"


def format_entries(
    pool: Sequence[ScoredPrompt],
    context: MentorContext,
    show_gradient: bool = False,
    form: Callable[[ScoredPrompt], str] = with_losses,
) -> list[str]:
    """Scored prompts, a paragraph each; with `show_gradient` they say what the gradient would do to each token."""
    if not show_gradient:
        return [form(scored) for scored in pool]
    hints = context.hints([scored.prompt for scored in pool])
    shown = [
        f"{form(scored)}\n{format_gradient_moves(scored, hint, context)}"
        for scored, hint in zip(pool, hints, strict=True)
    ]
    return [*shown, GRADIENT]


def format_gradient_moves(scored: ScoredPrompt, hint: Sequence[Sequence[int]], context: MentorContext) -> str:
    """One line: each token of a prompt, and where the gradient would move it."""

    def shown(token: int) -> str:
        return quote_json(context.space.decode([token]))

    pairs = zip(scored.prompt.tokens, hint, strict=True)
    return "Gradient: " + "; ".join(f"{shown(token)} to {', '.join(map(shown, near))}" for token, near in pairs)


def format_input(example: Example) -> str:
    """The input of an example, as it is shown: its text and its pair, or its choices, a line each."""
    texts = dict.fromkeys(text for text, _ in example.sequences)
    pairs = [pair for _, pair in example.sequences if pair is not None]
    numbered = pairs if len(pairs) < 2 else [f"choice {i}: {pair}" for i, pair in enumerate(pairs, start=1)]
    return "\n".join([*texts, *numbered])[:LONGEST_INPUT]


def format_answer(task: TaskDescription, label: int) -> str:
    """A label id in words."""
    return task.labels[label]


def quote_json(text: str) -> str:
    """`text` as a JSON string in which letters of all scripts stay, and what cannot be seen is escaped."""
    shown = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in shown)


def format_number(number: int, thing: str) -> str:
    """'1 new prompt', '3 new prompts'."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
