"""Less at a time where memory runs out: training passes of fewer examples, scoring passes of fewer tokens."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch

T = TypeVar("T")
SIGNS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass
class Room:
    """What one pass may hold: `examples` of each member in training, `tokens` of all members in scoring.

    Either is halved when memory runs out, and stays so. `said` collects what happened, until it is told.
    """

    examples: int
    tokens: int
    said: list[str] = field(default_factory=list)

    def fit(self, unit: Literal["examples", "tokens"], needed: int, work: Callable[[int], T]) -> T:
        """`work(size)`, begun anew with half the size as long as memory runs out; never more than is `needed`.

        Raises what `work` raises where it is anything else, or where not even one fits.
        """
        while True:
            size = min(needed, getattr(self, unit))
            try:
                return work(size)
            except RuntimeError as error:
                if size == 1 or not out_of_memory(error):
                    raise
            # Outside the handler: the error's frames, which hold the tensors, are gone.
            setattr(self, unit, size // 2)
            self.said.append(
                f"out of memory with {size} {unit} in one pass; going on with {size // 2} at a time, to the same result"
            )
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def told(self) -> list[str]:
        """What was said since the last call."""
        said, self.said = self.said, []
        return said


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in SIGNS)
