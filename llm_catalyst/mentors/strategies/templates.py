"""Texts that several strategies share: rules and reminders; tasks, scored prompts and examples as text."""

import json
from collections.abc import Callable, Sequence

from llm_catalyst.mentors.base import MentorContext, TaskDescription
from llm_catalyst.runs.records import ScoredPrompt
from llm_catalyst.tasks.base import Example

LONGEST_INPUT = 1000  # characters of an example's text that are shown
ORDER = """These prompts were tried before, each with its loss and its accuracy on held-out examples. The loss falls \
from the first to the last, so the last one is the best. Some prompts are odd strings of word pieces: take up what \
they hint at, not their form."""
GRADIENT = """The lines "Gradient" say, for each token of a prompt in turn, towards which tokens the gradient of the \
loss would move it (the likeliest first)."""
ONE_PER_LINE = 'one per line, each line beginning with "- "'


def write_rules(
    words: int, tokens: int, noun: str = "prompt", only: str = "the prompts only: no introduction, no scores"
) -> str:
    """The paragraph about the form of a response: a list of texts, each called `noun`, and nothing else."""
    return f"""\
- Write fewer than {words} words per {noun}. Only its first {tokens} tokens are used.
- Write one {noun} per line, each line beginning with "- ".
- Answer with {only}, no explanation."""


def ask_again(wish: str, form: str = ONE_PER_LINE, noun: str = "usable prompt") -> str:
    """The reminder after an unusable response: what to write, and in which form."""
    return f"No {noun} could be read from that answer. Please write {wish}, {form}, and nothing else."


def describe_task(task: TaskDescription, description: str | None = None) -> str:
    """The paragraph about the task; `description` replaces the task's own text if it is given."""
    labels = f" The answers to choose from: {', '.join(task.labels)}." if task.labels else ""
    return f"The task of the language model: {(description or task.text).strip()}{labels}"


def format_losses(scored: ScoredPrompt) -> str:
    """A prompt with its loss and accuracy; its text is quoted, so that odd tokens stay on their line."""
    loss, accuracy = scored.score.loss, scored.score.metric
    return f"Prompt: {quote_json(scored.prompt.text)}\nLoss: {loss:.3f}\nAccuracy: {accuracy:.3f}"


def format_rating(scored: ScoredPrompt) -> str:
    """A prompt with its metric as a score from 0 to 100."""
    return f"Prompt: {quote_json(scored.prompt.text)}\nScore: {round(100 * scored.score.metric)}"


def format_entries(
    entries: Sequence[ScoredPrompt],
    context: MentorContext,
    show_gradient: bool = False,
    format_entry: Callable[[ScoredPrompt], str] = format_losses,
) -> list[str]:
    """One paragraph for each scored prompt; with `show_gradient` also the gradient's moves, and what they mean."""
    if not show_gradient:
        return [format_entry(scored) for scored in entries]
    pairs = zip(entries, context.hints([scored.prompt for scored in entries]), strict=True)
    return [*(f"{format_entry(each)}\n{format_gradient_moves(each, hint, context)}" for each, hint in pairs), GRADIENT]


def format_gradient_moves(scored: ScoredPrompt, hint: Sequence[Sequence[int]], context: MentorContext) -> str:
    """One line: each token of a prompt, and the tokens that the gradient would move it to."""

    def quote_token(token: int) -> str:
        return quote_json(context.space.decode([token]))

    pairs = zip(scored.prompt.tokens, hint, strict=True)
    moves = [f"{quote_token(token)} to {', '.join(map(quote_token, near))}" for token, near in pairs]
    return "Gradient: " + "; ".join(moves)


def format_input(example: Example) -> str:
    """The input of an example: its text and its pair, or its choices, one line each."""
    texts = dict.fromkeys(text for text, _ in example.sequences)
    pairs = [pair for _, pair in example.sequences if pair is not None]
    numbered = pairs if len(pairs) < 2 else [f"choice {i}: {pair}" for i, pair in enumerate(pairs, start=1)]
    return "\n".join([*texts, *numbered])[:LONGEST_INPUT]


def quote_json(text: str) -> str:
    """`text` as a JSON string; letters of all scripts stay, invisible characters are escaped."""
    shown = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in shown)
