"""The cost of a table's runs: time, memory, steps, examples, and the mentor's calls, tokens and dollars."""

from collections.abc import Sequence
from dataclasses import astuple
from statistics import fmean

from llm_catalyst.report.results import Results
from llm_catalyst.report.tables.rendered import Field, RenderedTable
from llm_catalyst.runs.records import Outcome, Usage
from llm_catalyst.utils.format import format_count, format_dollars, format_duration, format_number

HEADINGS = ("time", "peak MiB", "steps", "trained", "scored", "calls", "tokens", "US dollars")


def build_cost_table(results: Results) -> RenderedTable:
    """For each row the mean cost of a run, and the cost of all its runs together."""
    lines: list[list[Field]] = []
    finished = {row: results.select([row]).outcomes for row in results.rows}
    for row, outcomes in finished.items():
        lines.append([Field(row), *sum_costs(outcomes, len(outcomes))])
        if len(outcomes) > 1:
            lines.append([Field(f"  {len(outcomes)} runs", "dim"), *sum_costs(outcomes, 1)])
    everything = results.outcomes
    if len(finished) > 1:
        lines.append([Field(f"all {format_count(len(everything), 'run')}"), *sum_costs(everything, 1)])
    means = ["A row's own line is the mean of its runs, the line below it their sum."] * (len(everything) > 1)
    return make_cost_table(results, "prices", "what it cost", lines, [*means, *build_notes(results, everything)])


def build_cost_by_cell(results: Results) -> RenderedTable:
    """For each row and column the mean cost of a run."""
    lines = [
        [Field(row), Field(column), *sum_costs(outcomes, len(outcomes))]
        for (row, column), cell in results.cells.items()
        if (outcomes := cell.outcomes)
    ]
    return make_cost_table(results, "prices-by-entry", "what a run of each entry cost", lines, ["Means over the runs."])


def make_cost_table(
    results: Results, name: str, title: str, lines: Sequence[Sequence[Field]], notes: Sequence[str]
) -> RenderedTable:
    """A table with HEADINGS, behind one or two columns of names."""
    texts = len(lines[0]) - len(HEADINGS) if lines else 1
    headings = (*[""] * texts, *HEADINGS)
    return RenderedTable(name, f"{results.title}: {title}", headings, lines, results.command, notes, texts=texts)


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
    used, memory = sum_usage(outcomes), fmean(outcome.peak_memory_bytes for outcome in outcomes) / 2**20
    tokens = used.input_tokens + used.output_tokens
    tokens_text = format_at_least(tokens, format_number(tokens / parts), used.unpriced_calls)
    counts = (used.gradient_steps, used.train_examples, used.scored_examples, used.mentor_calls)
    texts = [
        format_duration(sum(outcome.seconds for outcome in outcomes) / parts),
        format_number(memory) if parts == len(outcomes) else "",
        *(format_number(count / parts) for count in counts),
        "unknown" if used.mentor_calls and not tokens else tokens_text,
        format_cost(used, parts),
    ]
    return list(map(Field, texts))


def sum_usage(outcomes: Sequence[Outcome]) -> Usage:
    """The resources that runs have used together."""
    return Usage(*map(sum, zip(*(astuple(outcome.ledger) for outcome in outcomes), strict=True)))


def format_cost(used: Usage, parts: int = 1) -> str:
    """The dollars of calls, divided by `parts`; never $0.00 where no tokens of a call are known."""
    counted = used.input_tokens + used.output_tokens + used.cost_usd
    unknown = used.unpriced_calls or (0 if counted else used.mentor_calls)
    return format_at_least(used.cost_usd, format_dollars(used.cost_usd / parts), unknown)


def format_at_least(amount: float, text: str, unpriced_calls: int) -> str:
    """The text of an amount in which that of some calls may be missing, or that of all."""
    return text if not unpriced_calls else f"≥ {text}" if amount else "unknown"
