"""The tables of a report: scores, comparisons with the reference row, and prices; in four ways to write them down."""

import re
from collections.abc import Mapping

from llm_catalyst.config.table import Published
from llm_catalyst.report.cell_statistics import ALPHA, MEASURES, CellStatistics, averages, tallies, values
from llm_catalyst.report.results import Place, Results
from llm_catalyst.report.tables.costs import price, price_by_entry
from llm_catalyst.report.tables.export import command_of
from llm_catalyst.report.tables.rendered import Field, RenderedTable, beyond_latin, in_latex, in_markdown
from llm_catalyst.runs.analysis import counted, first_of
from llm_catalyst.utils.terminal import printable

UNKNOWN = Field("–", "dim")
FIGURES = (
    "pairs",
    "difference",
    "95% interval",
    "p (t)",
    "p (Holm)",
    "p (Wilcoxon)",
    "d_z",
    "wins / ties / losses",
)
OF = {
    "test": "of the soft prompt that dev chose",
    "test_loss": "of the soft prompt that dev chose",
    "dev": "on dev, by which it was chosen, of the soft prompt",
    "dev_loss": "on dev, by which it was chosen, of the soft prompt",
    "best_prompt": "of the pool's best discrete prompt on dev",
    "best_prompt_loss": "of the pool's best discrete prompt on dev",
}


def markdown(results: Results) -> str:
    """All tables in GitHub's Markdown, and the run directories behind them, folded."""
    listed = "\n".join(f"{printable(str(run.path))}\n    {printable(command_of(run))}" for run in results.runs)
    fence = "`" * (3 + max(map(len, re.findall("`+", listed)), default=0))
    title = f"{counted(len(results.runs), 'run')}: directories and commands"
    folded = f"<details><summary>{title}</summary>\n\n{fence}text\n{listed}\n{fence}\n\n</details>\n"
    return "\n".join([*map(in_markdown, sheets(results)), folded])


def latex(results: Results) -> str:
    """All tables as LaTeX with booktabs; the run directories behind them are comments."""
    texts = [in_latex(sheet, f"{results.source.name}-{sheet.name}") for sheet in sheets(results)]
    head = [r"\usepackage{booktabs} goes before \begin{document}"]
    head += ["names hold letters that pdfLaTeX does not know: use LuaLaTeX"] if beyond_latin("".join(texts)) else []
    head += [f"{run.path}   {command_of(run)}" for run in results.runs]
    return "\n".join([*(f"% {printable(line)}" for line in head), *texts])


def sheets(results: Results) -> list[RenderedTable]:
    """The tables of a report: with comparisons where there is a reference row, by entry where there are columns."""
    compared = [comparisons(results)] if results.reference else []
    by_entry = [price_by_entry(results)] if len(results.columns) > 1 else []
    return [render(results), *compared, price(results), *by_entry]


def render(results: Results, measure: str = "test") -> RenderedTable:
    """The table of scores: each entry's mean and spread, and in lines of their own the figures that others published.

    rich prints it, as it does all sheets.
    """
    found = values(results, measure)
    means, won = averages(results, found), tallies(results, found, measure)
    headings = ["", *(heading(results, column) for column in results.columns)]
    headings += (["mean"] if means else []) + (["wins / ties / losses"] if won else [])
    lines = []
    for row in results.rows:
        line = [Field(row), *(score(found[row, column], measure) for column in results.columns)]
        line += [Field(figure(means[row], measure)) if row in means else UNKNOWN] if means else []
        line += [Field("/".join(map(str, won[row])) if row in won else "")] if won else []
        lines.append(tuple(line))
        theirs = [found[row, column].published for column in results.columns]
        if any(theirs):
            cited = [Field(f"{row}, published", "cited"), *(citation(entry) for entry in theirs)]
            lines.append((*cited, *[Field("")] * (len(headings) - len(cited))))
    notes = [*caption(results, found, measure), *compared(results, found, measure), *sources(found)]
    return RenderedTable(
        "scores",
        results.title,
        tuple(headings),
        tuple(lines),
        results.command,
        notes=(*notes, *[results.note] * bool(results.note)),
        warnings=(*warned(found), *diverged(results)),
        problems=results.problems,
    )


def heading(results: Results, column: str) -> str:
    """The column's name, with its metric where that is not the same in all columns."""
    names = results.metrics(column) if results.metric == "metric" else ()
    return f"{column} ({', '.join(names)})" if names else column


def figure(value: float, measure: str) -> str:
    return f"{value:.4f}" if measure.endswith("loss") else f"{100 * value:.1f}"


def score(value: CellStatistics, measure: str) -> Field:
    """'87.3 ± 1.2', and how many seeds that are where it is not all of them: '87.3 ± 1.2 (2/3)'."""
    missing = f" ({value.runs}/{value.expected})" if value.runs < value.expected else ""
    if value.summary is None:
        return Field(f"–{missing}", "dim")
    spread = "" if value.summary.std is None else f" ± {figure(value.summary.std, measure)}"
    return Field(f"{figure(value.summary.mean, measure)}{spread}{missing}", "bold" if value.bold else "")


def citation(published: Published | None) -> Field:
    if published is None:
        return UNKNOWN
    spread = "" if published.std is None else f" ± {figure(published.std, 'test')}"
    return Field(f"{figure(published.mean, 'test')}{spread}", "cited")


def caption(results: Results, found: Mapping[Place, CellStatistics], measure: str) -> list[str]:
    """The unit, what a figure and its spread are, and whether the data that chose report, too."""
    named = "the column's metric" if results.metric == "metric" else results.metric
    what = "In nats: loss" if measure.endswith("loss") else f"In %: {named}"
    seeds = {value.expected for value in found.values()} - {0}
    over = f"over {counted(max(seeds), 'seed')}" if len(seeds) == 1 else "over seeds"
    spread = "one seed, which has no spread" if seeds == {1} else f"mean ± sample standard deviation {over}"
    notes = [f"{what} {OF[measure]}; {spread}."]
    if any(value.runs < value.expected for value in found.values()):
        notes.append("In brackets: how many of the seeds have a score, where not all have.")
    outcomes = [run.outcome for run in results.runs if run.outcome]
    chose = [outcome for outcome in outcomes if outcome.reported_on == "dev"]
    if chose and not measure.startswith("dev"):
        which = "The" if len(chose) == len(outcomes) else f"In {len(chose)} of {counted(len(outcomes), 'run')} the"
        protocols = ", ".join(dict.fromkeys(outcome.protocol for outcome in chose))
        notes.append(f"{which} data that report also chose (protocol {protocols}): such figures are optimistic.")
    return notes


def compared(results: Results, found: Mapping[Place, CellStatistics], measure: str) -> list[str]:
    """What bold means, and what the last columns are."""
    tests = sum(value.p is not None for value in found.values())
    if not results.reference or all(value.comparison is None for value in found.values()):
        return []
    none = "" if any(value.bold for value in found.values()) else "; here none is"
    test = f"p < {ALPHA} (t test paired by seed, Holm-adjusted over {counted(tests, 'comparison')})"
    best = "highest" if MEASURES[measure].better > 0 else "lowest"
    rule = f"Bold: the {best} mean of its column, and better than {results.reference} with {test}{none}."
    return [rule] * bool(tests) + [f"Wins, ties and losses: against {results.reference}, over columns and seeds."]


def warned(found: Mapping[Place, CellStatistics]) -> list[str]:
    """The warnings of the statistics, each once; where only some comparisons have it, with their names."""
    of: dict[str, list[str]] = {}
    for (row, column), value in found.items():
        if value.comparison:
            of.setdefault(value.comparison.warning, []).append(f"{row} · {column}")
    return [words + (f" ({first_of(sorted(names))})" if len(of) > 1 else "") for words, names in of.items() if words]


def diverged(results: Results) -> list[str]:
    """The runs that ended without a score: a mean over the others is one over those that went well."""
    names = [
        f"{entry.row} · {entry.column} · seed {run.seed}"
        for entry in results.entries.values()
        for run in entry.runs
        if run.outcome is not None and run.outcome.test is None
    ]
    return [f"{counted(len(names), 'run')} diverged, without a score for the mean: {', '.join(names)}"] if names else []


def sources(found: Mapping[Place, CellStatistics]) -> list[str]:
    """Where the published figures stand."""
    published = [value.published for value in found.values() if value.published]
    named = "; ".join(dict.fromkeys(entry.source for entry in published if entry.source))
    return [f"Published: {named or 'the source is not given'}."] if published else []


def comparisons(results: Results) -> RenderedTable:
    """Each entry against the reference row's in its column, over the seeds that both have."""
    found = values(results)
    lines = []
    for (row, column), value in found.items():
        if value.comparison is not None:
            lines.append((Field(row), Field(column), *comparison(value)))
    return RenderedTable(
        "comparisons",
        f"{results.title}: compared with {results.reference}",
        ("", "", *FIGURES),
        tuple(lines),
        results.command,
        ("Differences in points of %, paired by seed; d_z: the mean difference over its standard deviation.",),
        tuple(warned(found)),
        texts=2,
    )


def comparison(value: CellStatistics) -> list[Field]:
    """A comparison's figures."""
    c = value.comparison
    assert c is not None
    ends = [signed(100 * end) for end in (c.low, c.high) if end is not None]
    return [
        Field(str(c.pairs)),
        Field(signed(100 * c.difference)),
        Field(f"[{', '.join(ends)}]") if ends else UNKNOWN,
        *(probability(p) for p in (c.t_p, value.p, c.wilcoxon_p)),
        UNKNOWN if c.effect is None else Field(signed(c.effect, 2)),
        Field(f"{c.wins}/{c.ties}/{c.losses}"),
    ]


def signed(value: float, digits: int = 1) -> str:
    """'+1.2', '−0.4', with a minus sign that is no hyphen."""
    return f"{value:+.{digits}f}".replace("-", "−")


def probability(p: float | None) -> Field:
    return UNKNOWN if p is None else Field("< 0.001" if p < 0.001 else f"{p:.3f}")
