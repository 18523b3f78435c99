"""llm-catalyst: a language model as a complementary optimizer to gradient descent in prompt tuning.

In a notebook, `load_runs`, `load_trajectories`, `load_metrics` and `load_predictions` give runs as pandas tables
(docs/guide.md).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_catalyst.report.dataframes import load_metrics, load_predictions, load_runs, load_trajectories

__version__ = "0.1.0"
__all__ = ["__version__", "load_metrics", "load_predictions", "load_runs", "load_trajectories"]


def __getattr__(name: str) -> Any:
    """What only a notebook needs is imported when it is asked for: pandas takes a second."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llm_catalyst.report import dataframes

    return getattr(dataframes, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
