"""Texts that several strategies share: rules and reminders; tasks, scored prompts and examples as text."""

import json
from collections.abc import Sequence

from llm_catalyst.mentors.base import MentorContext, TaskDescription
from llm_catalyst.runs.records import ScoredPrompt
from llm_catalyst.tasks.base import Example

LONGEST_INPUT = 1000  # characters of an example's text that are shown
ORDER = """These prompts were tried before, each with its loss and its accuracy on held-out examples. The loss falls \
from the first to the last, so the last one is the best. Some prompts are odd strings of word pieces: take up what \
they hint at, not their form."""
GRADIENT = """The lines "Gradient" say, for each token of a prompt in turn, towards which tokens the gradient of the \
loss would move it (the likeliest first)."""
MOVES = """Training has just moved a prompt that has no exact words. These are, for each of its places in turn, the \
words that its way points to (the nearest first): {moves}."""
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


def format_entry(scored: ScoredPrompt, rated: bool) -> str:
    """A prompt, quoted so that odd tokens stay on their line, with its loss and accuracy or its rating."""
    prompt, score = f"Prompt: {quote_json(scored.prompt.text)}", scored.score
    if rated:
        return f"{prompt}\nScore: {round(100 * score.metric)}"
    return f"{prompt}\n{format_score(scored)}"


def format_score(scored: ScoredPrompt) -> str:
    """A prompt's loss and accuracy, one line each."""
    return f"Loss: {scored.score.loss:.3f}\nAccuracy: {scored.score.metric:.3f}"


def format_entries(
    entries: Sequence[ScoredPrompt], context: MentorContext, show_gradient: bool = False, rated: bool = False
) -> list[str]:
    """One paragraph for each scored prompt; with `show_gradient` also the gradient's moves, and what they mean.

    A prompt is shown with its loss and accuracy or, with `rated`, with its metric as a score from 0 to 100.
    """
    shown = [format_entry(scored, rated) for scored in entries]
    if not show_gradient:
        return shown
    hints = context.hints([scored.prompt for scored in entries])
    moves = [format_gradient_moves(scored, hint, context) for scored, hint in zip(entries, hints, strict=True)]
    return [*map("\n".join, zip(shown, moves, strict=True)), GRADIENT]


def format_gradient_moves(scored: ScoredPrompt, hint: Sequence[Sequence[int]], context: MentorContext) -> str:
    """One line: each token of a prompt, and the tokens that the gradient would move it to."""

    def quote_token(token: int) -> str:
        return quote_json(context.space.decode([token]))

    pairs = zip(scored.prompt.tokens, hint, strict=True)
    moves = [f"{quote_token(token)} to {', '.join(map(quote_token, near))}" for token, near in pairs]
    return "Gradient: " + "; ".join(moves)


def format_moves(context: MentorContext) -> list[str]:
    """A paragraph about where training has moved each row of the running prompt; none where that is not known."""
    places = [", ".join(quote_json(context.space.decode([token])) for token in near) for near in context.moves]
    return [MOVES.format(moves="; ".join(f"{i}. {words}" for i, words in enumerate(places, 1)))] if places else []


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
