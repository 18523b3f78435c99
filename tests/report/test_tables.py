"""Tables say what the runs' files say: means, spreads, comparisons, prices; and what is not known, they leave blank."""

import csv as csv_reader
import io
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.recorded import HOSTILE, exchange
from helpers.recorded_tables import SEEDS, config, ended, write_result, write_results
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console, RenderableType
from scipy import stats

from llm_catalyst.report.cell_statistics import MEASURES, compare_rows, compute_statistics
from llm_catalyst.report.results import Results, collect_results
from llm_catalyst.report.statistics import adjust_holm
from llm_catalyst.report.tables.build import build_comparisons, render_scores, to_latex, to_markdown
from llm_catalyst.report.tables.costs import build_cost_by_cell, build_cost_table
from llm_catalyst.report.tables.export import summary_csv, to_csv
from llm_catalyst.report.tables.rendered import LATEX, Field, RenderedTable, escape_latex, render_latex, render_markdown
from llm_catalyst.runs.records import Event, Outcome, Prompt, Restart, Score, Usage, to_json
from llm_catalyst.utils.terminal import escape_controls

BASE = (0.70, 0.71, 0.69, 0.72, 0.70)
BETTER = (0.80, 0.82, 0.79, 0.83, 0.81)
NOISY = (0.95, 0.60, 0.99, 0.55, 0.97)


def text_of(renderable: RenderableType, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def squeezed(text: str) -> str:
    return " ".join(text.split())


def results_of(
    folder: Path,
    figures: Mapping[tuple[str, str], Sequence[Outcome | float | None]],
    reference: str | None = "Alone",
    **table: object,
) -> Results:
    (results,) = collect_results([write_results(folder / "nlu", figures, SEEDS, reference, **table)])
    return results


# --- values


def test_a_value_is_the_mean_and_the_sample_deviation_over_seeds(tmp_path: Path) -> None:
    value = compute_statistics(results_of(tmp_path, {("Alone", "x"): BASE}))["Alone", "x"]
    assert value.summary is not None
    assert value.summary.mean == pytest.approx(statistics.mean(BASE))
    assert value.summary.std == pytest.approx(statistics.stdev(BASE))
    assert (value.runs, value.expected, value.comparison, value.bold) == (5, 5, None, False)


def test_rows_are_paired_by_seed_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    mine: list[float | None] = [0.8, None, 0.7, 0.9, 0.7]
    theirs: list[float | None] = [0.6, 0.5, None, 0.8, 0.7]
    value = compute_statistics(results_of(tmp_path, {("Alone", "x"): theirs, ("B", "x"): mine}))["B", "x"]
    assert value.comparison is not None
    assert value.comparison.pairs == 3
    assert value.comparison.difference == pytest.approx(0.1)
    assert value.comparison.t_p == pytest.approx(stats.ttest_rel([0.8, 0.9, 0.7], [0.6, 0.8, 0.7]).pvalue)
    assert (value.runs, value.expected) == (4, 5)


def test_p_values_are_adjusted_over_all_comparisons_of_the_table(tmp_path: Path) -> None:
    figures = {(row, column): BASE for column in ("x", "y") for row in ("Alone",)}
    figures |= {("B", "x"): BETTER, ("B", "y"): NOISY, ("C", "x"): NOISY, ("C", "y"): BETTER}
    found = compute_statistics(results_of(tmp_path, figures))
    compared = [value for value in found.values() if value.comparison]
    assert len(compared) == 4
    assert [value.p for value in compared] == adjust_holm(
        [value.comparison.t_p for value in compared if value.comparison]
    )


def test_rows_are_compared_over_all_columns_with_a_pair_for_each_column_and_seed(tmp_path: Path) -> None:
    figures = {
        ("Alone", "x"): BASE, ("Alone", "y"): NOISY, ("A", "x"): BETTER, ("A", "y"): BASE,
        ("B", "x"): (0.7, None, 0.9, 0.8, 0.7), ("B", "y"): BETTER,
    }  # fmt: skip
    rows = compare_rows(results_of(tmp_path, figures))
    tests = {
        "A": stats.ttest_rel([*BETTER, *BASE], [*BASE, *NOISY]).pvalue,
        "B": stats.ttest_rel([0.7, 0.9, 0.8, 0.7, *BETTER], [0.70, 0.69, 0.72, 0.70, *NOISY]).pvalue,
    }
    assert [*rows] == ["A", "B"]
    assert {row: value.comparison.t_p for row, value in rows.items()} == pytest.approx(tests)
    assert {row: value.comparison.pairs for row, value in rows.items()} == {"A": 10, "B": 9}
    assert [value.p for value in rows.values()] == pytest.approx(adjust_holm([*tests.values()]))
    assert compare_rows(results_of(tmp_path / "other", {("Alone", "x"): BASE, ("A", "x"): BETTER})) == {}


@pytest.mark.parametrize(
    ("others", "bold"),
    [
        ({"B": BETTER}, {"B"}),
        ({"B": NOISY}, set()),  # the highest mean, but it may be chance
        ({"B": BETTER, "C": NOISY}, set()),  # B is better than the reference, but C's mean is higher
        ({"B": BETTER, "C": tuple(x - 0.05 for x in BETTER)}, {"B"}),
        ({"B": tuple(x - 0.3 for x in BETTER)}, set()),  # it differs, for the worse
        ({"B": BASE}, set()),
        ({"B": (BETTER[0], None, None, None, None)}, set()),  # one pair says nothing
    ],
)
def test_bold_is_the_best_mean_where_it_is_better_than_the_reference_beyond_chance(
    tmp_path: Path, others: Mapping[str, Sequence[float | None]], bold: set[str]
) -> None:
    figures = {("Alone", "x"): BASE, **{(row, "x"): figures for row, figures in others.items()}}
    found = compute_statistics(results_of(tmp_path, figures))
    assert {row for (row, _), value in found.items() if value.bold} == bold


def test_of_losses_the_lowest_is_bold_and_of_costs_none(tmp_path: Path) -> None:
    results = results_of(tmp_path, {("Alone", "x"): BASE, ("B", "x"): BETTER})
    assert compute_statistics(results, "test_loss")["B", "x"].bold
    assert not any(compute_statistics(results, "seconds")[place].bold for place in results.cells)


def test_nothing_is_compared_without_a_reference_row(tmp_path: Path) -> None:
    found = compute_statistics(results_of(tmp_path, {("Alone", "x"): BASE, ("B", "x"): BETTER}, reference=None))
    assert not any(value.comparison or value.bold for value in found.values())


def test_rows_scored_by_different_metrics_are_not_compared(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "t", {("Alone", "x"): BASE, ("B", "x"): ()}, SEEDS, "Alone")
    for seed, score in zip(SEEDS, BETTER, strict=True):
        write_result(folder / f"b/x/seed{seed}", score, config("x", seed=seed, task__metric="macro_f1"))
    (results,) = collect_results([folder])
    assert compute_statistics(results)["B", "x"].comparison is None


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("test", 0.5),
        ("test_loss", 0.5),
        ("dev", 0.8655),
        ("dev_loss", 0.3612),
        ("best_prompt", 0.7216),
        ("best_prompt_loss", 0.5123),
        ("seconds", 74.2),
        ("memory", 812 * 2**20),
        ("steps", 800),
        ("trained", 25600),
        ("scored", 9200),
        ("calls", 2),
        ("tokens", 1624 + 128),
        ("usd", 0.00246),
    ],
)
def test_each_measure_is_read_from_the_outcome(measure: str, expected: float) -> None:
    assert MEASURES[measure].read(ended(0.5)) == pytest.approx(expected)


def test_every_measure_of_a_run_that_ended_without_any_state_can_be_read() -> None:
    blank = ended(None, best=None, best_prompt=None, test_best_prompt=None)
    assert [name for name, measure in MEASURES.items() if measure.read(blank) is None] == [
        "test", "test_loss", "dev", "dev_loss", "best_prompt", "best_prompt_loss",
    ]  # fmt: skip


# --- the table of scores


def test_a_table_shows_percentages_with_their_spread(tmp_path: Path) -> None:
    text = text_of(render_scores(results_of(tmp_path, {("Alone", "BoolQ"): BASE, ("+ GPT-4", "BoolQ"): BETTER})))
    assert re.search(r"Alone +70\.4 ± 1\.1 *\n", text)
    assert re.search(r"\+ GPT-4 +81\.0 ± 1\.6 +5/0/0\n", text)
    assert "In %: accuracy of the soft prompt that dev chose; mean ± sample standard deviation over 5 seeds." in text
    assert "p < 0.05 (t test paired by seed, Holm-adjusted over 1 comparison)." in text
    assert f"Made by: catalyst report {tmp_path}/nlu" in text


def test_missing_seeds_are_visible(tmp_path: Path) -> None:
    figures = {("Alone", "x"): (0.7, 0.8, None), ("B", "x"): (None,), ("C", "x"): (0.5,)}
    text = text_of(render_scores(results_of(tmp_path, figures)))
    assert re.search(r"Alone +75\.0 ± 7\.1 \(2/5\)", text)
    assert re.search(r"B +– \(0/5\)", text)
    assert re.search(r"C +50\.0 \(1/5\)", text)
    assert "In brackets: how many of the seeds have a score" in text


def test_a_diverged_run_has_no_score_and_is_named(tmp_path: Path) -> None:
    text = text_of(render_scores(results_of(tmp_path, {("Alone", "x"): (0.7, ended(None), 0.8, 0.7, 0.8)})))
    assert "75.0 ± 5.8 (4/5)" in text
    assert "1 run diverged, without a score for the mean: Alone · x · seed 2" in text


def test_the_warning_about_few_pairs_stands_below_the_table_once(tmp_path: Path) -> None:
    few = {(row, column): (0.7, 0.8 if row == "B" else 0.72) for row in ("Alone", "B") for column in ("x", "y")}
    assert text_of(render_scores(results_of(tmp_path / "all", few))).count("2 pairs: too few for a test\n") == 1
    some = {**few, ("Alone", "y"): (0.7, 0.8, 0.6, 0.7), ("B", "y"): (0.8, 0.7, 0.9, 0.7)}
    text = text_of(render_scores(results_of(tmp_path / "some", some)))
    assert "2 pairs: too few for a test (B · x)" in text
    assert "3 pairs that differ: the Wilcoxon test cannot give less than p = 0.25 (B · y)" in text


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    (results,) = collect_results([write_results(tmp_path / "t", {("a", "x"): (0.5,)}, [1])])
    text = text_of(render_scores(results))
    assert re.search(r"a +50\.0 *\n", text)
    assert "one seed, which has no spread" in text


def test_the_table_of_comparisons_has_the_figures_of_each(tmp_path: Path) -> None:
    worse = tuple(score - 0.1 for score in BETTER)
    results = results_of(tmp_path, {("Alone", "x"): BETTER, ("B", "x"): worse})
    c = compute_statistics(results)["B", "x"].comparison
    assert c is not None
    text = text_of(build_comparisons(results))
    assert re.search(r"B +x +5 +−10\.0 +\[−10\.0, −10\.0\] +– +– +0\.062 +– +0/0/5", text)
    noisy = text_of(build_comparisons(results_of(tmp_path / "noisy", {("Alone", "x"): BASE, ("B", "x"): NOISY})))
    assert re.search(r"B +x +5 +\+10\.8 +\[−\d+\.\d, \+\d+\.\d\] +0\.\d+ +0\.\d+ +0\.\d+ +\+0\.\d\d +3/0/2", noisy)


def test_a_mean_over_columns_is_only_for_rows_that_fill_them_all(tmp_path: Path) -> None:
    figures = {("Alone", "x"): BASE, ("Alone", "y"): BETTER, ("B", "x"): BETTER, ("B", "y"): ()}
    text = text_of(render_scores(results_of(tmp_path, figures)))
    assert re.search(r"Alone +70\.4 ± 1\.1 +81\.0 ± 1\.6 +75\.7", text)
    assert re.search(r"B +81\.0 ± 1\.6 +– \(0/5\) +– +5/0/0", text)
    one = text_of(render_scores(results_of(tmp_path / "one", {("Alone", "x"): BASE})))
    assert " mean\n" not in one


def test_metrics_that_differ_between_columns_stand_in_their_headings_and_have_no_mean(tmp_path: Path) -> None:
    write_result(tmp_path / "1", 0.5, config())
    write_result(tmp_path / "2", 0.5, config("cb", task__metric="macro_f1"))
    (results,) = collect_results([tmp_path])
    lines = text_of(render_scores(results)).splitlines()
    assert "cb (macro_f1, n=1,000)  sst2 (accuracy, n=1,000)" in lines[2]
    assert "mean" not in lines[2]


def test_the_rows_of_a_column_stand_in_its_heading_in_every_form_and_few_are_warned_of(tmp_path: Path) -> None:
    few = replace(ended(0.5), test=Score(0.5, 0.5, 24))
    write_result(tmp_path / "1", few, config())
    write_result(tmp_path / "2", 0.5, config("cb"))
    write_result(tmp_path / "3", few, config("cb", seed=2))
    (results,) = collect_results([tmp_path])
    table = render_scores(results)
    assert table.headings[1:3] == ["cb (n=24 to 1,000)", "sst2 (n=24)"]
    for text in (text_of(table), to_markdown(results), to_latex(results)):
        assert "sst2 (n=24)" in text
    assert table.warnings == ["Fewer than 100 rows, of which each is more than a point: cb 24, sst2 24"]
    lines = list(csv_reader.DictReader(to_csv(results).splitlines()))
    assert sorted(line["test_examples"] for line in lines) == ["1000", "24", "24"]
    assert {
        line["column"]: line["test_examples"] for line in csv_reader.DictReader(summary_csv(results).splitlines())
    } == {
        "cb": "24 1000",
        "sst2": "24",
    }


def test_figures_of_data_that_also_chose_are_called_optimistic(tmp_path: Path) -> None:
    official = [ended(score, protocol="official", reported_on="dev") for score in BASE]
    words = "data that report also chose (protocol official): such figures are optimistic"
    text = squeezed(text_of(render_scores(results_of(tmp_path / "a", {("Alone", "x"): official}))))
    assert f"The {words}" in text
    mixed = squeezed(text_of(render_scores(results_of(tmp_path / "b", {("Alone", "x"): [*official[:2], *BASE[2:]]}))))
    assert f"In 2 of 5 runs the {words}" in mixed
    assert words not in squeezed(text_of(render_scores(results_of(tmp_path / "c", {("Alone", "x"): BASE}))))


def test_published_figures_have_a_line_of_their_own_only_where_they_were_given(tmp_path: Path) -> None:
    results = results_of(tmp_path, {("Alone", "x"): BASE, ("Alone", "y"): BASE})
    assert "ublished " not in text_of(render_scores(results))
    (results.source / "published.yaml").write_text(
        "Alone:\n  x: {mean: 0.731, std: 0.004, source: 'Someone, Table 9'}\n"
    )
    (results,) = collect_results([results.source])
    text = text_of(render_scores(results))
    assert re.search(r"Alone, published +73\.1 ± 0\.4 +–", text)
    assert "Published: Someone, Table 9." in text


def test_problems_stand_below_the_table(tmp_path: Path) -> None:
    results = replace(results_of(tmp_path, {("Alone", "x"): BASE}), problems=("one run is broken",))
    assert "one run is broken" in text_of(render_scores(results))
    assert "one run is broken" in to_markdown(results)


def test_a_table_without_any_run_can_be_written(tmp_path: Path) -> None:
    results = results_of(tmp_path, {("Alone", "x"): (), ("B", "x"): ()})
    for text in (
        text_of(render_scores(results)),
        text_of(build_cost_table(results)),
        to_markdown(results),
        to_latex(results),
    ):
        assert "Alone" in text
        assert "nan" not in text.lower()
    assert to_csv(results).strip() == ""


# --- prices


def spent(**ledger: float) -> Outcome:
    return ended(0.7, seconds=3600.0, ledger=Usage(**ledger))  # type: ignore[arg-type]


def test_prices_are_per_run_and_in_sum(tmp_path: Path) -> None:
    runs = [
        spent(gradient_steps=100 * seed, mentor_calls=3, input_tokens=1000, output_tokens=50, cost_usd=0.5)
        for seed in SEEDS
    ]
    text = text_of(build_cost_table(results_of(tmp_path, {("Alone", "x"): BASE, ("B", "x"): runs})))
    assert re.search(r"B +1:00:00 +812 +300 +0 +0 +3 +1,050 +\$0\.5000\n", text)
    assert re.search(r"5 runs +5:00:00 +1,500 +0 +0 +15 +5,250 +\$2\.50\n", text)
    assert re.search(r"all 10 runs +5:06:11 ", text)
    assert "on cpu" in text


def test_prices_are_told_by_entry_in_each_kind_of_file(tmp_path: Path) -> None:
    dear = [spent(gradient_steps=7, mentor_calls=3, input_tokens=1000, output_tokens=50, cost_usd=0.5) for _ in SEEDS]
    results = results_of(tmp_path, {("Alone", "x"): BASE, ("Alone", "y"): dear})
    assert re.search(r"Alone +y +1:00:00 +812 +7 +0 +0 +3 +1,050 +\$0\.5000\n", text_of(build_cost_by_cell(results)))
    assert r"| Alone | y | 1:00:00 | 812 | 7 | 0 | 0 | 3 | 1,050 | \$0.5000 |" in to_markdown(results)
    assert r"Alone & y & 1:00:00 & 812 & 7 & 0 & 0 & 3 & 1,050 & \$0.5000 \\" in to_latex(results)
    means = {name: text for name, text in lines_of(summary_csv(results))[1].items() if name.startswith("mean_")}
    assert {name: float(text) for name, text in means.items()} == {
        "mean_seconds": 3600, "mean_memory": 812 * 2**20, "mean_steps": 7, "mean_trained": 0, "mean_scored": 0,
        "mean_calls": 3, "mean_tokens": 1050, "mean_usd": 0.5,
    }  # fmt: skip


def test_a_mean_cost_of_which_a_part_is_not_known_is_blank(tmp_path: Path) -> None:
    runs = [
        spent(mentor_calls=1, input_tokens=9, cost_usd=1.0),
        spent(mentor_calls=1, input_tokens=9, unpriced_calls=1),
    ]
    (line,) = lines_of(summary_csv(results_of(tmp_path, {("Alone", "x"): runs})))
    assert (line["mean_usd"], line["mean_calls"]) == ("", "1.0")


@pytest.mark.parametrize(
    ("ledger", "cost"),
    [
        ({"mentor_calls": 2, "input_tokens": 10, "output_tokens": 1, "unpriced_calls": 2}, r" 2 +≥ 11 +unknown"),
        (
            {"mentor_calls": 2, "input_tokens": 9, "output_tokens": 1, "unpriced_calls": 1, "cost_usd": 1.2},
            r"≥ \$1\.20",
        ),
        ({"mentor_calls": 2, "unpriced_calls": 2}, r" 2 +unknown +unknown"),
        ({}, r" 0 +0 +0 +\$0\.00"),
    ],
)
def test_an_unknown_cost_is_never_shown_as_none(tmp_path: Path, ledger: dict[str, float], cost: str) -> None:
    (results,) = collect_results([write_results(tmp_path / "t", {("Alone", "x"): [spent(**ledger)]}, [1])])
    assert re.search(cost, text_of(build_cost_table(results)))


def test_what_unfinished_runs_spent_is_not_counted_and_that_is_said(tmp_path: Path) -> None:
    text = text_of(build_cost_table(results_of(tmp_path, {("Alone", "x"): (0.7, None)})))
    assert "1 run not finished yet" in text


# --- as CSV


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv_reader.DictReader(io.StringIO(text)))


def test_the_evidence_has_a_line_for_each_run_with_the_figures_of_its_files(tmp_path: Path) -> None:
    results = results_of(tmp_path, {("Alone", "x"): BASE, ("B", "x"): (0.123456789012345, None)})
    lines = lines_of(to_csv(results))
    assert len(lines) == 7
    assert [line["directory"] for line in lines] == [str(run.path) for run in results.runs]
    line = lines[5]
    expected = {
        "row": "B", "column": "x", "seed": "1", "status": "done", "metric": "accuracy", "test": "0.123456789012345",
        "dev": "0.8655", "steps": "800", "usd": "0.00246",
    }  # fmt: skip
    assert {name: line[name] for name in expected} == expected
    assert line["command"] == "catalyst run task=x mentor=gpt4 backbone=minilm seed=1"
    assert (lines[6]["status"], lines[6]["test"]) == ("unfinished", "")


def test_in_the_evidence_an_unknown_price_is_empty(tmp_path: Path) -> None:
    runs = [spent(mentor_calls=2, unpriced_calls=1, cost_usd=1.2), spent(mentor_calls=1, cost_usd=0.25)]
    first, second = lines_of(to_csv(results_of(tmp_path, {("Alone", "x"): runs})))
    assert (first["usd"], first["usd_at_least"], first["unpriced_calls"]) == ("", "1.2", "1")
    assert second["usd"] == "0.25"


def test_the_summary_has_a_line_for_each_entry_with_its_comparison(tmp_path: Path) -> None:
    results = results_of(tmp_path, {("Alone", "x"): BASE, ("B", "x"): BETTER, ("C", "x"): ()})
    found = compute_statistics(results)
    alone, better, none = lines_of(summary_csv(results))
    assert float(alone["mean"]) == pytest.approx(statistics.mean(BASE))
    assert alone["reference"] == alone["difference"] == ""
    assert (better["reference"], better["pairs"], better["bold"]) == ("Alone", "5", "True")
    assert float(better["holm_p"]) == found["B", "x"].p
    assert float(better["difference_low"]) < float(better["difference"]) < float(better["difference_high"])
    assert (none["seeds"], none["expected"], none["mean"]) == ("0", "5", "")


# --- as Markdown and LaTeX

TEXTS = st.one_of(
    st.text(max_size=40), st.sampled_from(["+ GPT-4", "1. a", "[0.1]", "--", "| a |", "*", HOSTILE, "a\\"])
)


@st.composite
def sheets(draw: st.DrawFn) -> RenderedTable:
    """A table of any texts."""
    width = draw(st.integers(1, 4))
    fields = st.builds(Field, TEXTS, st.sampled_from(["", "bold", "dim", "cited"]))
    return RenderedTable(
        "scores",
        draw(TEXTS),
        tuple(draw(st.lists(TEXTS, min_size=width, max_size=width))),
        tuple(map(tuple, draw(st.lists(st.lists(fields, min_size=width, max_size=width), max_size=3)))),
        draw(TEXTS),
        tuple(draw(st.lists(TEXTS, max_size=2))),
        tuple(draw(st.lists(TEXTS, max_size=2))),
        tuple(draw(st.lists(TEXTS, max_size=2))),
    )


def shown(text: str) -> str:
    """A text as all ways to write a table show it: control characters escaped, blanks at its ends gone."""
    return escape_controls(text.strip()).strip()


@given(sheets())
def test_a_markdown_parser_reads_back_the_very_texts_of_a_table(sheet: RenderedTable) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(render_markdown(sheet))
    assert not [token for token in tokens if token.type.startswith(("html", "code", "fence", "hr"))]
    inline = [token for token in tokens if token.type == "inline"]
    assert not [c for token in inline for c in token.children or () if c.type not in MARKS]
    texts = ["".join(c.content for c in token.children or ()) for token in inline]
    cells = [*sheet.headings, *(field.text for line in sheet.lines for field in line)]
    below = [*map(shown, sheet.notes), shown(f"Made by: {sheet.made_by}")]
    below += [f"Note: {shown(warning)}".strip() for warning in (*sheet.warnings, *sheet.problems)]
    assert [t for t in texts if t] == [t for t in [shown(sheet.title), *map(shown, cells), *below] if t]


MARKS = ("text", "text_special", "strong_open", "strong_close", "em_open", "em_close")


def decoded(latex: str) -> str:
    """The text that LaTeX sets: its commands undone, the longest first."""
    signs = {command: chr(code) for code, command in LATEX.items()} | {"-{}": "-"}
    pattern = "|".join(re.escape(command) for command in sorted(signs, key=len, reverse=True))
    return re.sub(pattern, lambda found: signs[found[0]], latex)


@given(TEXTS)
def test_latex_sets_a_text_as_it_is(text: str) -> None:
    written = escape_latex(text)
    assert decoded(written) == escape_controls(text)
    bare = re.sub(r"\\([&%$#_{}])", "", written)
    bare = re.sub(r"\$\\(pm|geq|cdot|times)\$|\$-\$|\\[a-z]+(34)?\{\}|\{[\[\]*]\}|-\{\}", "", bare)
    assert not set(bare) & set('\\&%$#_{}~^[]*<>|"`')


@given(sheets())
def test_a_latex_table_is_balanced_and_each_of_its_lines_has_as_many_fields(sheet: RenderedTable) -> None:
    lines = render_latex(sheet, "a/b c").split("\n")
    comments = [line for line in lines if line.startswith("%")]
    assert len(comments) == 1 + len(sheet.problems)
    text = "\n".join(line for line in lines if line not in comments)
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    braces = re.sub(r"\\[\\{}]", "", text)
    assert braces.count("{") == braces.count("}")
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 1 + len(sheet.lines)
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(sheet.headings) - 1}


def test_in_a_narrow_terminal_names_wrap_between_words_and_columns_without_room_stand_below(tmp_path: Path) -> None:
    figures = {(row, column): BETTER for row in ("Multi-start with perturbation", "Alone") for column in "abcdef"}
    results = results_of(tmp_path, figures, reference=None)
    lines = text_of(render_scores(results), 80).splitlines()
    assert sum(line.count("81.0 ± 1.6") for line in lines) == 12
    assert [line.split() for line in lines if line.startswith(" ") and line.strip()] == [
        [*"abcde"],
        ["(n=1,000)"] * 5,
        ["f", "(n=1,000)", "mean"],
    ]
    assert [line.split("  ")[0] for line in lines if line.startswith("Multi")] == [
        "Multi-start with",
        "Multi-start with perturbation",
    ]
    costs = text_of(build_cost_table(results), 80).splitlines()
    assert [line.split()[0] for line in costs if "0:01:14" in line] == ["Multi-start", "Alone"]
    assert all(len(line) <= 80 for line in (*lines, *costs))


@example(RenderedTable("scores", "", ("\U00011a8a", ""), (), ""), 20)  # a letter that takes no cell
@given(sheets(), st.integers(20, 120))
def test_a_terminal_shows_every_letter_of_a_table_however_narrow_it_is(sheet: RenderedTable, width: int) -> None:
    fields = [field.text for line in sheet.lines for field in line]
    text = text_of(sheet, width)
    for letter in set("".join([*sheet.headings, *fields])) - {" "}:
        if letter.isprintable():
            here = "".join([*sheet.headings, *fields]).count(letter)
            assert text.count(letter) >= here


@given(sheets())
def test_no_text_of_a_table_reaches_the_terminal_as_a_command(sheet: RenderedTable) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, legacy_windows=False)
    console.print(sheet)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.sub(r"\x1b\[[\d;]*m|\n", "", text).isprintable()


def test_markdown_and_latex_hold_all_tables_their_command_and_the_directories(tmp_path: Path) -> None:
    results = results_of(tmp_path, {("Alone", "x"): BASE, ("B", "x"): BETTER})
    text = to_markdown(results)
    assert "| B | **81.0 ± 1.6** | 5/0/0 |" in text
    assert text.count(f"Made by: catalyst report {tmp_path}/nlu".replace("_", r"\_")) == 3
    assert text.count("\n### ") + text.startswith("### ") == 3
    _, _, folded = text.partition("<details>")
    for run in results.runs:
        assert f"{run.path}\n    catalyst run task=x" in folded
    text = to_latex(results)
    assert r"B & \textbf{81.0 $\pm$ 1.6} & 5/0/0 \\" in text
    assert text.count(r"\begin{tabular}") == 3
    assert len(set(re.findall(r"\\label\{(.*)\}", text))) == 3
    for run in results.runs:
        assert f"% {run.path} " in text
    assert text.count(f"% made by: catalyst report {tmp_path}/nlu\n") == 3


def test_hostile_names_break_no_table(tmp_path: Path) -> None:
    row = "```\n" + HOSTILE[:60]
    results = results_of(tmp_path, {(row, "</details>|x"): BASE}, reference=row)
    assert "\x1b" not in text_of(render_scores(results)) + to_markdown(results) + to_latex(results)
    for line in to_latex(results).splitlines():
        assert "%" not in line or line.startswith("%") or r"\%" in line
    tokens = MarkdownIt("commonmark").enable("table").parse(to_markdown(results))
    assert len([token for token in tokens if token.type == "fence"]) == 1
    assert len([token for token in tokens if token.type == "html_block"]) == 2


def test_letters_that_pdflatex_does_not_know_are_told(tmp_path: Path) -> None:
    assert "LuaLaTeX" in to_latex(results_of(tmp_path / "a", {("日本", "x"): BASE}, reference=None))
    assert "LuaLaTeX" not in to_latex(results_of(tmp_path / "b", {("Żółć", "x"): BASE}, reference=None))


# --- mentors that did not answer


def without_answers(results: Results, row: str, seed: int, given: int, replaced: int) -> Results:
    """The table read again, after the mentor of one run failed in `replaced` of its consultations."""
    (run,) = (run for run in results.select([row]).runs if run.seed == seed)
    events = [Event(stage, 10, "fallback", "answered 404; the pool's best restarts") for stage in range(replaced)]
    text = Prompt((1,), "a")
    restarts = [Restart(stage, 0, text, "best", None, None, (), (), None) for stage in range(given + replaced)]
    (run.path / "events.jsonl").write_text("".join(to_json(event) + "\n" for event in events))
    (run.path / "restarts.jsonl").write_text("".join(to_json(restart) + "\n" for restart in restarts))
    (again,) = collect_results([results.source])
    return again


def test_a_run_whose_mentor_never_answered_has_no_score_and_a_partial_one_a_mark(tmp_path: Path) -> None:
    results = results_of(tmp_path, {("Alone", "x"): (0.7,), ("Gone", "x"): (0.9,), ("Late", "x"): (0.8,)})
    results = without_answers(results, "Gone", 1, given=0, replaced=2)
    results = without_answers(results, "Late", 1, given=1, replaced=2)
    found = compute_statistics(results)
    assert found["Gone", "x"].summary is None
    assert found["Gone", "x"].comparison is None
    never = "† The mentor never gave a usable answer, so there is no score: Gone · x · seed 1."
    partly = "took its place: Late · x · seed 1 (2 of 3)."
    shown = squeezed(text_of(render_scores(results)))
    assert "Gone – (0/5)†" in shown
    assert "Late 80.0 (1/5)‡" in shown
    assert "90.0" not in shown
    for text in (shown, squeezed(to_markdown(results))):
        assert never in text
        assert partly in text
    latex = to_latex(results)
    assert r"\textendash{} (0/5)$\dagger$" in latex
    assert r"80.0 (1/5)$\ddagger$" in latex
    assert "The mentor never gave a usable answer" in latex
    alone, gone, late = (line for line in lines_of(to_csv(results)))
    assert [line["mentor_answered"] for line in (alone, gone, late)] == ["", "never", "partly"]
    assert gone["test"] == gone["dev"] == gone["accuracy"] == ""
    assert (late["test"], gone["steps"]) == ("0.8", "800")
    counts = [(line["never_answered"], line["partly_answered"]) for line in lines_of(summary_csv(results))]
    assert counts == [("0", "0"), ("1", "0"), ("0", "1")]


def test_a_row_carries_the_models_that_answered_and_a_table_what_was_said_of_them(tmp_path: Path) -> None:
    results = results_of(tmp_path, {("Alone", "x"): (0.7, 0.7), ("Asked", "x"): (0.9, 0.8), ("gpt-9", "x"): (0.8,)})
    note = "GPT-4 of the paper, gpt-4-1106-preview, was shut down on 2026-10-23; asking gpt-6.2-sol"
    for row, models in {"Asked": ("gpt-6.2-sol", "gpt-5.5-2026-04-23"), "gpt-9": ("gpt-9",)}.items():
        for run, model in zip(results.select([row]).runs, models, strict=True):
            calls = [replace(exchange(stage, "- a", 0.1), answered=model) for stage in (0, 1)]
            failed = replace(calls[0], answered=None, error="no answer")
            (run.path / "exchanges.jsonl").write_text("".join(to_json(call) + "\n" for call in (failed, *calls)))
            (run.path / "manifest.json").write_text(to_json(replace(run.manifest, mentor_notes=(note,))))
            (run.path / "SHA256SUMS").unlink()
    (again,) = collect_results([results.source])
    shown = squeezed(text_of(render_scores(again)))
    assert "Asked (gpt-6.2-sol, gpt-5.5-2026-04-23) 85.0" in shown
    assert "gpt-9 80.0" in shown
    assert "Alone 70.0" in shown
    assert shown.count(note) == 1
    assert note in squeezed(to_markdown(again))
    lines = {(line["row"], line["seed"]): line["models"] for line in lines_of(to_csv(again))}
    assert lines["Asked", "2"] == "gpt-5.5-2026-04-23"
    assert lines["Alone", "1"] == ""


def test_the_cost_of_calls_without_any_known_tokens_is_unknown_and_not_zero(tmp_path: Path) -> None:
    runs = [spent(mentor_calls=3), spent(), spent(mentor_calls=1, input_tokens=5)]
    results = results_of(tmp_path, {("Alone", "x"): runs})
    assert [line["usd"] for line in lines_of(to_csv(results))] == ["", "0.0", "0.0"]
    only = results_of(tmp_path / "only", {("Alone", "x"): runs[:1]})
    assert "$0.00" not in text_of(build_cost_table(only))
