"""Warnings about what a tokenizer makes of a task's texts: unknown tokens, and special ones that stand in a text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llm_catalyst.tasks.batching import Rows
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.terminal import list_names

MOST_UNKNOWN = 0.05  # of the tokens of texts, from which share on a reader must know


def warn_tokens(tokenizer: Any, name: str, splits: Mapping[str, Rows], fixed: Sequence[int]) -> list[str]:
    """The warnings about the tokens of these splits.

    Args:
        tokenizer: that of the model called `name`.
        splits: the ids of every text, by name of the split.
        fixed: the ids that stand around every text: special tokens and the cloze.
    """
    return [*warn_unknown(tokenizer, name, splits, fixed), *warn_special(tokenizer, splits, fixed)]


def warn_unknown(tokenizer: Any, name: str, splits: Mapping[str, Rows], fixed: Sequence[int]) -> list[str]:
    """A warning where many tokens of the texts are the one for what is not in the vocabulary."""
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return []
    rows = [row for split in splits.values() for row in split]
    total = sum(map(len, rows)) - len(rows) * len(fixed)
    share = sum(row.count(unknown) for row in rows) / max(1, total)
    if share < MOST_UNKNOWN:
        return []
    fix = "choose a backbone that was trained on their language"
    return [f"{share:.0%} of the tokens of the texts are unknown to {name} ({tokenizer.unk_token}); {fix}"]


def warn_special(tokenizer: Any, splits: Mapping[str, Rows], fixed: Sequence[int]) -> list[str]:
    """A warning for each split whose texts hold special tokens such as [SEP], which the model does not read as text."""
    special = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    usual = Counter(token for token in fixed if token in special)
    found = []
    for name, split in splits.items():
        more = [Counter(token for token in row if token in special) - usual for row in split]
        if rows := sum(map(bool, more)):
            tokens = list_names(tokenizer.convert_ids_to_tokens(sorted(sum(more, Counter()))))
            held = (
                f"{rows:,} of {format_count(len(more), 'text')} of {name} hold special tokens of the model ({tokens})"
            )
            found.append(f"{held}, which it does not read as text; write them otherwise, or take them out")
    return found
