"""Checks of configuration values: each error names the key, the value and what is allowed."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SHORTEST_SECRET = 8  # characters; shorter keys ("none", "EMPTY") are placeholders, and common words


class ConfigurationError(ValueError):
    """A configuration that cannot run; the message says what is wrong, where, and what to do."""


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise ConfigurationError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigurationError(
            f"{key}={value} is not known; there are: {', '.join(choices)}{did_you_mean(value, choices)}"
        )


def check_at_least(key: str, value: float | None, bound: float) -> None:
    """Raise ConfigurationError where `value` is given and below `bound`."""
    if value is not None and not value >= bound:
        raise ConfigurationError(f"{key}={value} is too small; it must be at least {bound}")


def check_range(key: str, value: float, low: float, high: float) -> None:
    """Raise ConfigurationError unless low <= value <= high."""
    if not low <= value <= high:
        raise ConfigurationError(f"{key}={value} is out of range; it must lie between {low} and {high}")


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """' (did you mean …?)' with the nearest of `known`, or '' where none is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def flatten_leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested dicts and lists, with its dotted path."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from flatten_leaves(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from flatten_leaves(value, f"{path}[{i}]")
    else:
        yield path, node
