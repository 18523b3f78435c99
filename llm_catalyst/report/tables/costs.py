"""The cost of a table's runs: time, memory, steps, examples, and the mentor's calls, tokens and dollars."""

from collections.abc import Sequence
from statistics import fmean

from llm_catalyst.report.results import Results
from llm_catalyst.report.tables.rendered import Field, RenderedTable
from llm_catalyst.runs.records import Outcome
from llm_catalyst.utils.format import format_count, format_dollars, format_duration, format_number

HEADINGS = ("time", "peak MiB", "steps", "trained", "scored", "calls", "tokens", "US dollars")


def build_cost_table(results: Results) -> RenderedTable:
    """For each row the mean cost of a run, and the cost of all its runs together."""
    lines: list[tuple[Field, ...]] = []
    finished = {row: [o for column in results.columns for o in results.outcomes(row, column)] for row in results.rows}
    for row, outcomes in finished.items():
        lines.append((Field(row), *sum_costs(outcomes, len(outcomes))))
        if len(outcomes) > 1:
            lines.append((Field(f"  {len(outcomes)} runs", "dim"), *sum_costs(outcomes, 1)))
    everything = [outcome for outcomes in finished.values() for outcome in outcomes]
    if len(finished) > 1:
        lines.append((Field(f"all {format_count(len(everything), 'run')}"), *sum_costs(everything, 1)))
    means = ["A row's own line is the mean of its runs, the line below it their sum."] * (len(everything) > 1)
    return make_cost_table(results, "prices", "what it cost", lines, (*means, *build_notes(results, everything)))


def build_cost_by_cell(results: Results) -> RenderedTable:
    """For each row and column the mean cost of a run."""
    lines = [
        (Field(row), Field(column), *sum_costs(outcomes, len(outcomes)))
        for row, column in results.cells
        if (outcomes := results.outcomes(row, column))
    ]
    return make_cost_table(
        results, "prices-by-entry", "what a run of each entry cost", lines, ("Means over the runs.",)
    )


def make_cost_table(
    results: Results, name: str, title: str, lines: Sequence[tuple[Field, ...]], notes: tuple[str, ...]
) -> RenderedTable:
    """A table with HEADINGS, behind one or two columns of names."""
    texts = len(lines[0]) - len(HEADINGS) if lines else 1
    headings = (*[""] * texts, *HEADINGS)
    return RenderedTable(name, f"{results.title}: {title}", headings, tuple(lines), results.command, notes, texts=texts)


def build_notes(results: Results, outcomes: Sequence[Outcome]) -> list[str]:
    """The notes below a cost table."""
    devices = dict.fromkeys(outcome.device for outcome in outcomes)
    found = [f"Time in h:mm:ss, on {' and '.join(devices)}."] if devices else []
    found.append("Trained and scored: examples, each once for every prompt that saw it.")
    found.append("Tokens, sent and received, and dollars: the mentor's.")
    if any(outcome.ledger.unpriced_calls for outcome in outcomes):
        found.append("≥ and unknown: calls whose tokens or price are not known are not in the figure.")
    if unfinished := len(results.runs) - len(outcomes):
        found.append(f"{format_count(unfinished, 'run')} not finished yet: nothing of it is counted here.")
    return found


def sum_costs(outcomes: Sequence[Outcome], parts: int) -> list[Field]:
    """Sums over runs, divided by `parts`: 1, or the number of runs for their mean; only a mean has a peak memory."""
    if not outcomes:
        return [Field("–", "dim")] * len(HEADINGS)
    ledgers = [outcome.ledger for outcome in outcomes]
    calls, unpriced = sum(each.mentor_calls for each in ledgers), sum(each.unpriced_calls for each in ledgers)
    memory = fmean(outcome.peak_memory_bytes for outcome in outcomes) / 2**20

    def at_least(amount: float, text: str) -> str:
        """An amount that may lack that of some calls, or of all."""
        return text if not unpriced else f"≥ {text}" if amount else "unknown"

    tokens = sum(each.input_tokens + each.output_tokens for each in ledgers)
    cost = sum(each.cost_usd for each in ledgers)
    counts = ("gradient_steps", "train_examples", "scored_examples", "mentor_calls")
    return [
        Field(format_duration(sum(outcome.seconds for outcome in outcomes) / parts)),
        Field(format_number(memory) if parts == len(outcomes) else ""),
        *(Field(format_number(sum(getattr(each, count) for each in ledgers) / parts)) for count in counts),
        Field("unknown" if calls and not tokens else at_least(tokens, format_number(tokens / parts))),
        Field(at_least(cost, format_dollars(cost / parts))),
    ]
