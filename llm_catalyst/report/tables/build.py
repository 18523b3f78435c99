"""The tables of a report: scores, comparisons with the reference row, and costs; as Markdown and as LaTeX."""

import re
from collections.abc import Mapping

from llm_catalyst.report import cell_statistics
from llm_catalyst.report.cell_statistics import ALPHA, CellStatistics, compare_rows, compute_statistics
from llm_catalyst.report.results import Place, Results
from llm_catalyst.report.statistics import Comparison
from llm_catalyst.report.tables.costs import build_cost_by_cell, build_cost_table
from llm_catalyst.report.tables.rendered import Field, RenderedTable, needs_unicode_latex, render_latex, render_markdown
from llm_catalyst.utils.format import format_count, join_first
from llm_catalyst.utils.terminal import escape_controls

UNKNOWN = Field("–", "dim")
SILENT, PARTIAL = "†", "‡"  # of cells with runs whose mentor never answered, and not always
FEW = 100  # rows, of which one is a point of accuracy
ALL_COLUMNS = "all columns"
FIGURES = ("pairs", "difference", "95% interval", "p (t)", "p (Holm)", "p (Wilcoxon)", "d_z", "wins / ties / losses")


def to_markdown(results: Results) -> str:
    """All tables in GitHub's Markdown, and the run directories behind them, folded."""
    listed = "\n".join(
        f"{escape_controls(str(run.path))}\n    {escape_controls(run.manifest.command_line)}" for run in results.runs
    )
    fence = "`" * (3 + max(map(len, re.findall("`+", listed)), default=0))
    title = f"{format_count(len(results.runs), 'run')}: directories and commands"
    folded = f"<details><summary>{title}</summary>\n\n{fence}text\n{listed}\n{fence}\n\n</details>\n"
    return "\n".join([*map(render_markdown, build_tables(results)), folded])


def to_latex(results: Results) -> str:
    """All tables as LaTeX with booktabs; the run directories behind them are comments."""
    texts = [render_latex(table, f"{results.source.name}-{table.name}") for table in build_tables(results)]
    head = [r"\usepackage{booktabs} goes before \begin{document}"]
    if needs_unicode_latex("".join(texts)):
        head.append("names hold letters that pdfLaTeX does not know: use LuaLaTeX")
    head += [f"{run.path}   {run.manifest.command_line}" for run in results.runs]
    return "\n".join([*(f"% {escape_controls(line)}" for line in head), *texts])


def build_tables(results: Results) -> list[RenderedTable]:
    """All tables: with comparisons if there is a reference row, with costs by cell if there are several columns."""
    compared = [build_comparisons(results)] if results.reference else []
    by_entry = [build_cost_by_cell(results)] if len(results.columns) > 1 else []
    return [render_scores(results), *compared, build_cost_table(results), *by_entry]


def render_scores(results: Results) -> RenderedTable:
    """The table of test scores: mean and spread of each cell, and published figures in lines of their own."""
    found = compute_statistics(results)
    means = cell_statistics.average_columns(results, found)
    won = cell_statistics.count_wins(results, found)
    headings = ["", *(column_heading(results, column) for column in results.columns)]
    headings += (["mean"] if means else []) + (["wins / ties / losses"] if won else [])
    lines = []
    for row in results.rows:
        line = [Field(results.label_row(row)), *(format_score(found[row, column]) for column in results.columns)]
        line += [Field(format_figure(means[row])) if row in means else UNKNOWN] if means else []
        line += [Field("/".join(map(str, won[row])) if row in won else "")] if won else []
        lines.append(line)
        theirs = [found[row, column].published for column in results.columns]
        if any(theirs):
            cited = [Field(format_mean(p.mean, p.std), "cited") if p else UNKNOWN for p in theirs]
            blank = [Field("")] * (len(headings) - 1 - len(cited))
            lines.append([Field(f"{row}, published", "cited"), *cited, *blank])
    notes = [*build_caption(results, found), *describe_answers(results), *describe_comparison(results, found)]
    return RenderedTable(
        "scores",
        results.title,
        headings,
        lines,
        results.command,
        notes=[*notes, *list_sources(found), *[results.note] * bool(results.note)],
        warnings=[*collect_warnings(found), *describe_diverged(results), *warn_few(results), *list_notes(results)],
        problems=results.problems,
    )


def column_heading(results: Results, column: str) -> str:
    """The column's name, with the rows that a score is the mean over, and its metric if columns have different ones."""
    names = list(results.metrics(column)) if results.metric == "metric" else []
    n = results.count_examples(column)
    inside = ", ".join(
        [*names, *([f"n={' to '.join(f'{each:,}' for each in dict.fromkeys((n[0], n[-1])))}"] if n else [])]
    )
    return f"{column} ({inside})" if inside else column


def warn_few(results: Results) -> list[str]:
    """A warning of the columns whose scores are means over fewer than FEW rows."""
    few = {column: n[0] for column in results.columns if (n := results.count_examples(column)) and n[0] < FEW}
    named = join_first([f"{column} {n}" for column, n in few.items()], 10)
    return [f"Fewer than {FEW} rows, of which each is more than a point: {named}"] if few else []


def format_figure(value: float) -> str:
    """A metric in percent."""
    return f"{100 * value:.1f}"


def format_score(value: CellStatistics) -> Field:
    """A cell of the table: '87.3 ± 1.2'; with the number of seeds if some are missing: '87.3 ± 1.2 (2/3)'."""
    missing = f" ({value.runs}/{value.expected})" if value.runs < value.expected else ""
    missing += mark_answers(value)
    if value.summary is None:
        return Field(f"–{missing}", "dim")
    return Field(format_mean(value.summary.mean, value.summary.std) + missing, "bold" if value.bold else "")


def mark_answers(value: CellStatistics) -> str:
    """The signs of a cell whose mentor did not always answer."""
    return SILENT * bool(value.silent) + PARTIAL * bool(value.partial)


def describe_answers(results: Results) -> list[str]:
    """Notes on the runs whose mentor did not always answer."""
    finished = [(cell.label(run), run.answers) for cell in results.cells.values() for run in cell.runs if run.outcome]
    silent = [label for label, answers in finished if answers.silent]
    partial = [f"{label} ({a.replaced} of {a.given + a.replaced})" for label, a in finished if a.partial]
    notes = []
    if silent:
        notes.append(f"{SILENT} The mentor never gave a usable answer, so there is no score: {join_first(silent, 10)}.")
    if partial:
        notes.append(
            f"{PARTIAL} In part of the consultations the mentor gave no usable answer, and the pool's best prompt or "
            f"a mentor of mentor.fallbacks took its place: {join_first(partial, 10)}."
        )
    return notes


def format_mean(mean: float, std: float | None) -> str:
    """A mean with its spread, if that is known: '87.3 ± 1.2'."""
    return format_figure(mean) + ("" if std is None else f" ± {format_figure(std)}")


def build_caption(results: Results, found: Mapping[Place, CellStatistics]) -> list[str]:
    """Notes on the unit, the mean and its spread, and on scores from the data that also chose the prompt."""
    named = "the column's metric" if results.metric == "metric" else results.metric
    seeds = {value.expected for value in found.values()} - {0}
    over = f"over {format_count(max(seeds), 'seed')}" if len(seeds) == 1 else "over seeds"
    spread = "one seed, which has no spread" if seeds == {1} else f"mean ± sample standard deviation {over}"
    notes = [f"In %: {named} of the soft prompt that dev chose; {spread}. n: rows of {results.reported_on}."]
    if any(value.runs < value.expected for value in found.values()):
        notes.append("In brackets: how many of the seeds have a score, where not all have.")
    outcomes = results.outcomes
    chose = [outcome for outcome in outcomes if outcome.reported_on == "dev"]
    if chose:
        which = "The" if len(chose) == len(outcomes) else f"In {len(chose)} of {format_count(len(outcomes), 'run')} the"
        protocols = ", ".join(dict.fromkeys(outcome.protocol for outcome in chose))
        notes.append(f"{which} data that report also chose (protocol {protocols}): such figures are optimistic.")
    return notes


def describe_comparison(results: Results, found: Mapping[Place, CellStatistics]) -> list[str]:
    """Notes on bold figures and on the last columns."""
    tests = sum(value.p is not None for value in found.values())
    if not results.reference or all(value.comparison is None for value in found.values()):
        return []
    none = "" if any(value.bold for value in found.values()) else "; here none is"
    test = f"p < {ALPHA} (t test paired by seed, Holm-adjusted over {format_count(tests, 'comparison')})"
    rule = f"Bold: the highest mean of its column, and better than {results.reference} with {test}{none}."
    return [rule] * bool(tests) + [f"Wins, ties and losses: against {results.reference}, over columns and seeds."]


def collect_warnings(found: Mapping[Place, CellStatistics]) -> list[str]:
    """The warnings of the statistics, each once; with the places of the comparisons if warnings differ."""
    of: dict[str, list[str]] = {}
    for (row, column), value in found.items():
        if value.comparison:
            of.setdefault(value.comparison.warning, []).append(f"{row} · {column}")
    return [words + (f" ({join_first(sorted(names))})" if len(of) > 1 else "") for words, names in of.items() if words]


def describe_diverged(results: Results) -> list[str]:
    """A warning of runs without a score: the means leave them out."""
    cells = results.cells.values()
    names = [cell.label(run) for cell in cells for run in cell.runs if run.outcome and not run.outcome.test]
    many = format_count(len(names), "run")
    return [f"{many} diverged, without a score for the mean: {', '.join(names)}"] if names else []


def list_sources(found: Mapping[Place, CellStatistics]) -> list[str]:
    """The sources of the published figures."""
    published = [value.published for value in found.values() if value.published]
    named = "; ".join(dict.fromkeys(entry.source for entry in published if entry.source))
    return [f"Published: {named or 'the source is not given'}."] if published else []


def list_notes(results: Results) -> list[str]:
    """What the manifests say of the models that were asked, each sentence once."""
    return list(dict.fromkeys(note for run in results.runs for note in run.manifest.mentor_notes))


def build_comparisons(results: Results) -> RenderedTable:
    """Each row against the reference row over all columns, and each cell against that row's in its column.

    A pair are the runs of both rows in one column and of one seed.
    """
    found, rows = compute_statistics(results), compare_rows(results)
    lines = [
        (Field(row), Field(ALL_COLUMNS), *format_comparison(value.comparison, value.p)) for row, value in rows.items()
    ]
    lines += [
        (Field(row), Field(column + mark_answers(value)), *format_comparison(value.comparison, value.p))
        for (row, column), value in found.items()
        if value.comparison
    ]
    return RenderedTable(
        "comparisons",
        f"{results.title}: compared with {results.reference}",
        ("", "", *FIGURES),
        lines,
        results.command,
        ["Differences in points of %, paired by seed; d_z: the mean difference over its standard deviation."]
        + ["Holm: adjusted over the rows with all columns, and by itself over the cells."] * bool(rows)
        + describe_answers(results),
        collect_warnings(found),
        texts=2,
    )


def format_comparison(c: Comparison, holm_p: float | None) -> list[Field]:
    """The fields of a comparison, under FIGURES."""
    ends = [format_signed(100 * end) for end in (c.low, c.high) if end is not None]
    return [
        Field(str(c.pairs)),
        Field(format_signed(100 * c.difference)),
        Field(f"[{', '.join(ends)}]") if ends else UNKNOWN,
        *(format_probability(p) for p in (c.t_p, holm_p, c.wilcoxon_p)),
        UNKNOWN if c.effect is None else Field(format_signed(c.effect, 2)),
        Field(f"{c.wins}/{c.ties}/{c.losses}"),
    ]


def format_signed(value: float, digits: int = 1) -> str:
    """A number with its sign, '+1.2' or '−0.4', with a typographic minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def format_probability(p: float | None) -> Field:
    """A p-value as a field."""
    return UNKNOWN if p is None else Field("< 0.001" if p < 0.001 else f"{p:.3f}")
