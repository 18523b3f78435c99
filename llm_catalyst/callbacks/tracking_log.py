"""The interface to a tracking library."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from llm_catalyst.callbacks.base import RunInfo

MISSING = "track=[{name}] needs a library that is not installed here: pip install {name}, or leave it out"


@dataclass(frozen=True)
class Point:
    """The figures and texts of a record at an optimizer step, by name."""

    step: int
    figures: Mapping[str, float]
    texts: Mapping[str, str] = field(default_factory=dict)


class TrackingLog(ABC):
    """Receives the points of one run. The constructor raises ConfigurationError if the library cannot be used here."""

    @abstractmethod
    def open(self, info: RunInfo) -> None:
        """Begin a new log; all points of the run follow, also those from before a resume."""

    @abstractmethod
    def add(self, point: Point) -> None:
        """Add a point."""

    @abstractmethod
    def close(self, result: Mapping[str, float | str] | None) -> None:
        """End the log with the run's result by the column names of `load_runs`; None for an unfinished run."""
