"""The cost of a response: tokens times the dated prices of conf/prices.yaml."""

import math
from dataclasses import dataclass
from functools import cache

import yaml

from llm_catalyst.utils.paths import conf_directory


@dataclass(frozen=True)
class TokenPrice:
    """USD per million tokens, as read in `source` on `date`; valid up to `up_to` input tokens, if given."""

    input: float
    output: float
    date: str
    source: str
    up_to: int | None = None


@cache
def load_prices() -> dict[str, TokenPrice]:
    """Prices by the exact name of the model."""
    table = yaml.safe_load((conf_directory() / "prices.yaml").read_text(encoding="utf-8"))
    return {model: TokenPrice(**{**row, "date": str(row["date"])}) for model, row in table["models"].items()}


def compute_cost(model: str, input_tokens: int | None, output_tokens: int | None) -> float | None:
    """USD of one response; None, never zero, if the price or the usage is not known.

    Only exact names are found: a dated snapshot can cost something else than its alias.
    """
    price = load_prices().get(model)
    if price is None or input_tokens is None or output_tokens is None or input_tokens > (price.up_to or math.inf):
        return None
    return (input_tokens * price.input + output_tokens * price.output) / 1_000_000
