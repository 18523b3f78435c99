"""The rows of a split that lost text because their tokens are more than a model reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_catalyst.tasks.batching import Encoded
from llm_catalyst.tasks.tokenization import Split, list_sequences, tokenize_sequences

NO_LIMIT = 10**9  # tokens


@dataclass(frozen=True)
class Truncation:
    """The rows that lost text at `limit` tokens.

    Args:
        limit: the tokens of a sequence, special ones included and the prompt not.
        rows: the number of rows of each split.
        cut: how many of them lost text.
        longest: the tokens of the longest sequence, uncut.
    """

    limit: int
    rows: Mapping[str, int]
    cut: Mapping[str, int]
    longest: int

    @property
    def shares(self) -> dict[str, float]:
        """The share of each split's rows that lost text."""
        return {name: self.cut[name] / rows for name, rows in self.rows.items()}

    def describe(self, most: int | None) -> list[str]:
        """A warning with the share and the key that changes it, where text is lost.

        Args:
            most: the tokens that fit into the model's positions beside the prompt; None: any number.
        """
        if not any(self.cut.values()):
            return []
        by_split = ", ".join(f"{name} {share:.1%}" for name, share in self.shares.items() if self.cut[name])
        problem = f"texts are cut at {self.limit} tokens, by which rows lose text: {by_split}; the longest has"
        enough = self.longest if most is None else min(self.longest, most)
        if enough <= self.limit:
            return [f"{problem} {self.longest:,} tokens, and the model reads no more"]
        rest = "them whole" if enough == self.longest else "all that the model can read"
        return [f"{problem} {self.longest:,} tokens; task.max_length={enough} keeps {rest}"]


def measure_truncation(
    tokenizer: Any, splits: Mapping[str, Split], encoded: Mapping[str, Encoded], limit: int, cloze: str | None
) -> Truncation:
    """The rows that lost text when these splits were encoded with this limit.

    Only sequences of `limit` tokens are tokenized again, without it: the others are whole.
    """
    pairs = {name: list(zip(list_sequences(splits[name]), rows.tokens, strict=True)) for name, rows in encoded.items()}
    full = sorted({text for rows in pairs.values() for text, tokens in rows if len(tokens) >= limit}, key=repr)
    uncut = tokenize_sequences(tokenizer, full, NO_LIMIT, cloze)[0] if full else []
    lengths = dict(zip(full, map(len, uncut), strict=True))
    lost = {text for text, length in lengths.items() if length > limit}
    cut = {name: sum(any(text in lost for text in row.sequences) for row in rows) for name, rows in splits.items()}
    shorter = (len(tokens) for rows in pairs.values() for _, tokens in rows)
    longest = max([*lengths.values(), *shorter], default=0)
    return Truncation(limit, {name: len(rows) for name, rows in splits.items()}, cut, longest)
