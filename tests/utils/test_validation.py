"""Bounds in annotations: what the error for a value beyond them says."""

from typing import Annotated

import pytest
from annotated_types import Ge, Le

from llm_catalyst.utils.validation import ConfigurationError, config_dataclass


@config_dataclass("mine")
class Bounded:
    low: Annotated[int, Ge(1)] = 1
    high: Annotated[int, Le(5)] = 5
    both: Annotated[float, Ge(0), Le(1)] = 0.5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"low": 0}, "mine.low=0 is too small; it must be at least 1"),
        ({"high": 6}, "mine.high=6 is too large; it must be at most 5"),
        ({"both": 1.5}, "mine.both=1.5 is out of range; it must lie between 0 and 1"),
    ],
)
def test_a_value_beyond_a_bound_is_named_with_what_is_allowed(given: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{said}$"):
        Bounded(**given)
