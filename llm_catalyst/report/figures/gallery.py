"""All figures of a report by name."""

from collections.abc import Callable

from llm_catalyst.report.figures.drawing import Drawing, matplotlib_style
from llm_catalyst.report.figures.prompts import draw_diversity, draw_pool, draw_readability, draw_words
from llm_catalyst.report.figures.scores import (
    draw_convergence,
    draw_cost,
    draw_projection,
    draw_scores,
    draw_sensitivity,
    draw_usage,
)
from llm_catalyst.report.record_reader import RecordReader
from llm_catalyst.report.results import Results
from llm_catalyst.utils.validation import check_choice

FIGURES: dict[str, Callable[[Results, RecordReader], Drawing]] = {
    "scores": draw_scores,
    "convergence": draw_convergence,
    "cost": draw_cost,
    "sensitivity": draw_sensitivity,
    "pool": draw_pool,
    "words": draw_words,
    "projection": draw_projection,
    "diversity": draw_diversity,
    "readability": draw_readability,
    "ledger": draw_usage,
}


def draw_figures(results: Results, read: RecordReader) -> dict[str, Drawing]:
    """All figures by name, first those that the results' table asks for.

    Raises:
        ConfigurationError: the table asks for an unknown figure.
    """
    for name in results.figures:
        check_choice(f"{results.source}: figures", name, [*FIGURES])
    with matplotlib_style():
        return {name: FIGURES[name](results, read) for name in dict.fromkeys((*results.figures, *FIGURES))}
