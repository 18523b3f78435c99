"""The figures that there are, by the names under which a table asks for them."""

from collections.abc import Callable

from llm_catalyst.report.figures.drawing import Drawing, style
from llm_catalyst.report.figures.prompts import diversity, pool, readability, words
from llm_catalyst.report.figures.scores import convergence, cost, ledger, projection, scores, sensitivity
from llm_catalyst.report.record_reader import RecordReader
from llm_catalyst.report.results import Results
from llm_catalyst.utils.validation import one_of

FIGURES: dict[str, Callable[[Results, RecordReader], Drawing]] = {
    "scores": scores,
    "convergence": convergence,
    "cost": cost,
    "sensitivity": sensitivity,
    "pool": pool,
    "words": words,
    "projection": projection,
    "diversity": diversity,
    "readability": readability,
    "ledger": ledger,
}


def gallery(results: Results, read: RecordReader) -> dict[str, Drawing]:
    """All figures by name, those first that the results' table asks for."""
    for name in results.figures:
        one_of(f"{results.source}: figures", name, [*FIGURES])
    with style():
        return {name: FIGURES[name](results, read) for name in dict.fromkeys((*results.figures, *FIGURES))}
