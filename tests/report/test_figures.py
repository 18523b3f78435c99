"""Figures drawn from run directories: what they show, what they refuse to draw, and their bytes."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
from helpers import recorded
from helpers.reports import results_of, write_told
from matplotlib.figure import Figure

from llm_catalyst.report.curves import average_curve
from llm_catalyst.report.figures.drawing import MOST_ROWS, WIDTH, format_compact, save_figure, shorten_label
from llm_catalyst.report.figures.prompts import MOST_PROMPTS, distinct_ngrams
from llm_catalyst.report.figures.scores import read_numbers
from llm_catalyst.report.results import Results
from llm_catalyst.report.runs import RecordReader
from llm_catalyst.report.write import FIGURES, draw_figures
from llm_catalyst.runs.records import Restart, Snapshot
from llm_catalyst.utils.validation import ConfigurationError


def texts(figure: Figure) -> str:
    """The words of a figure, read back from its SVG."""
    return " ".join(ElementTree.fromstring(save_figure(figure)[0]).itertext())


@pytest.fixture
def told(tmp_path: Path) -> Results:
    return results_of(write_told(tmp_path / "told", ["plain", "mentor"], records=recorded.run_records()))


def test_every_figure_with_data_is_drawn_one_column_wide_and_the_others_say_why_not(told: Results) -> None:
    drawings = draw_figures(told, RecordReader())
    assert [*drawings] == [*FIGURES]
    undrawn = {name for name, drawing in drawings.items() if drawing.figure is None}
    assert undrawn == {"sensitivity", "projection"}
    assert drawings["sensitivity"].caption == "neither the rows nor the columns are numbers"
    assert "evaluate.projected=true" in drawings["projection"].caption
    for drawing in drawings.values():
        if drawing.figure is not None:
            assert drawing.figure.get_size_inches()[0] == WIDTH
            assert {run.path for run in drawing.runs} <= {run.path for run in told.runs}
            assert drawing.runs


def test_runs_that_recorded_nothing_give_no_empty_figure(tmp_path: Path) -> None:
    drawings = draw_figures(results_of(write_told(tmp_path / "bare", ["plain", "mentor"])), RecordReader())
    assert {name for name, drawing in drawings.items() if drawing.figure} == {"scores", "cost", "ledger"}


def test_the_same_runs_give_the_same_bytes(told: Results) -> None:
    first, second = (draw_figures(told, RecordReader())["convergence"].figure for _ in range(2))
    assert first is not None
    assert second is not None
    assert save_figure(first) == save_figure(second)


def test_text_stays_text_in_svg_and_is_an_embedded_truetype_font_in_pdf(told: Results) -> None:
    figure = draw_figures(told, RecordReader())["cost"].figure
    assert figure is not None
    svg, pdf = save_figure(figure)
    assert "accuracy on test" in " ".join(ElementTree.fromstring(svg).itertext())
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf


def test_a_course_holds_mean_and_spread_over_seeds_and_the_restart_points(tmp_path: Path) -> None:
    folder = write_told(tmp_path / "t", ["plain"], records=recorded.run_records())
    metrics = folder / "plain" / "sst2" / "seed2" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"metric": 0.491', '"metric": 0.591'))
    found = average_curve(results_of(folder).cells["plain", "sst2"].runs, RecordReader())
    assert found is not None
    assert found.std is not None
    assert found.seeds == 2
    assert found.steps[:2] == (0, 50)
    assert found.mean[0] == pytest.approx(0.541)
    assert found.std[0] == pytest.approx(stdev([0.491, 0.591]))
    assert [found.steps[i] for i in found.restarts] == [200, 400]
    assert found.mean[found.restarts[0]] == pytest.approx(0.9 - 0.55 / 3)


def test_axes_and_bands_of_a_metric_end_at_its_bounds(tmp_path: Path) -> None:
    folder = write_told(tmp_path / "t", ["plain"], records=recorded.run_records())
    for seed, metric in ((1, "1.0"), (2, "0.8")):
        file = folder / "plain" / "sst2" / f"seed{seed}" / "metrics.jsonl"
        file.write_text(re.sub(r'"metric": [\d.]+', f'"metric": {metric}', file.read_text()))
    figure = draw_figures(results_of(folder), RecordReader())["convergence"].figure
    assert figure is not None
    axis = figure.axes[0]
    assert axis.get_ylim()[1] <= 1
    (band,) = axis.collections
    assert band.get_paths()[0].vertices[:, 1].max() == 1.0  # the mean of 0.9 and a deviation of 0.14 lead beyond it


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    results = results_of(write_told(tmp_path / "t", ["plain"], seeds=[1], records=recorded.run_records()))
    found = average_curve(results.runs, RecordReader())
    assert found is not None
    assert found.std is None
    assert "no spread" in draw_figures(results, RecordReader())["convergence"].caption


def test_projected_scores_are_drawn_where_they_are_recorded(tmp_path: Path) -> None:
    records = [
        replace(r, projected=r.score) if isinstance(r, recorded.Evaluation) else r for r in recorded.run_records()
    ]
    results = results_of(write_told(tmp_path / "t", ["plain"], records=records))
    figure = draw_figures(results, RecordReader())["projection"].figure
    assert figure is not None
    assert "projected prompt" in texts(figure)


def test_rows_that_are_numbers_give_a_sensitivity_curve_in_their_order(tmp_path: Path) -> None:
    figure = draw_figures(results_of(write_told(tmp_path / "t", ["16", "4", "64"])), RecordReader())[
        "sensitivity"
    ].figure
    assert figure is not None
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["4", "16", "64"]
    assert axis.get_xscale() == "log"


def test_the_scores_of_each_run_are_drawn_with_their_mean_beside_that_of_the_reference(tmp_path: Path) -> None:
    folder = write_told(tmp_path / "t", ["plain", "mentor"], reference="plain")
    drawing = draw_figures(results_of(folder), RecordReader())["scores"]
    assert drawing.figure is not None
    (axis,) = drawing.figure.axes
    drawn = [np.asarray(line.get_xdata(), float).round(4).tolist() for line in axis.get_lines()]
    for points in ([0.703, 0.703], [0.702, 0.704], [0.703], [0.712, 0.714], [0.713]):
        assert points in drawn
    assert [label.get_text() for label in axis.get_yticklabels()] == ["plain", "mentor"]
    assert "dotted: the mean of plain" in drawing.caption


def test_too_many_rows_are_cut_to_the_reference_and_the_best_and_the_caption_says_so(tmp_path: Path) -> None:
    rows = [f"row {i}" for i in range(MOST_ROWS + 3)]
    folder = write_told(tmp_path / "t", rows, seeds=[1], reference="row 9", records=recorded.run_records(1))
    drawing = draw_figures(results_of(folder), RecordReader())["convergence"]
    assert f"Drawn: {MOST_ROWS} of {len(rows)} rows, row 9 and the best on dev." in drawing.caption
    assert drawing.figure is not None
    assert "row 9" in texts(drawing.figure)


def test_the_nearest_words_are_drawn_in_the_order_in_which_they_came_with_the_stages_ends(told: Results) -> None:
    drawing = draw_figures(told, RecordReader())["words"]
    assert drawing.figure is not None
    axis = drawing.figure.axes[0]
    snapshots = [s for s in recorded.run_records() if isinstance(s, Snapshot) and s.member == 0]
    assert len({s.prompt.text for s in snapshots}) > MOST_PROMPTS
    names = [label.get_text() for label in axis.get_yticklabels()]
    there = [shorten_label(text, 30) for text in dict.fromkeys(s.prompt.text for s in snapshots)]
    assert len(names) == MOST_PROMPTS
    assert names == [name for name in there if name in names]
    (points,) = axis.collections
    steps, strengths = np.asarray(points.get_offsets())[:, 0], np.asarray(points.get_facecolors())[:, 3]
    drawn = dict(zip(steps.tolist(), strengths.tolist(), strict=True))
    similarity = {s.step: s.similarity for s in snapshots}
    assert drawn == pytest.approx({step: similarity[round(step)] for step in drawn})
    assert f"those {MOST_PROMPTS} of" in drawing.caption
    (run,) = drawing.runs
    assert "best on dev" in drawing.caption
    assert str(run.path) in drawing.caption


def test_diversity_is_drawn_with_the_spread_where_it_is_known(tmp_path: Path) -> None:
    records = [replace(r, spread=0.4) if isinstance(r, Restart) else r for r in recorded.run_records()]
    figure = draw_figures(results_of(write_told(tmp_path / "t", ["mentor"], records=records)), RecordReader())[
        "diversity"
    ].figure
    assert figure is not None
    assert [axis.get_title(loc="left") for axis in figure.axes if axis.get_title(loc="left")] == [
        "distinct-1",
        "distinct-2",
        "spread",
    ]


def test_distinct_n_counts_different_n_grams_of_all() -> None:
    assert distinct_ngrams(["a b a", "A b"], 1) == 2 / 5
    assert distinct_ngrams(["a b a", "A b"], 2) == 2 / 3
    assert distinct_ngrams(["word"], 2) is None


def test_a_price_that_is_not_known_of_all_runs_is_not_drawn_as_if_it_were(told: Results) -> None:
    assert "US dollars" in draw_figures(told, RecordReader())["cost"].caption
    run = told.runs[0]
    assert run.outcome is not None
    unpriced = replace(run, outcome=replace(run.outcome, ledger=replace(run.outcome.ledger, unpriced_calls=1)))
    entry = told.cells["plain", "sst2"]
    cells = {**told.cells, ("plain", "sst2"): replace(entry, runs=(unpriced, *entry.runs[1:]))}
    assert "tokens of the mentor" in draw_figures(replace(told, cells=cells), RecordReader())["cost"].caption


@pytest.mark.slow
def test_hostile_names_are_drawn_as_text(tmp_path: Path) -> None:
    names = ("$\\input{x}$", "日本語", "\x1b[31m<script>&amp;", "a" * 300, "\ufffe\x00")
    results = results_of(write_told(tmp_path / "t", ["plain"], records=recorded.run_records(1)))
    entry = results.cells["plain", "sst2"]
    cells = {(row, names[0]): replace(entry, row=row, column=names[0]) for row in names}
    for drawing in draw_figures(replace(results, rows=names, columns=names[:1], cells=cells), RecordReader()).values():
        if drawing.figure is not None:
            root = ElementTree.fromstring(save_figure(drawing.figure)[0])
            assert not [element for element in root.iter() if element.tag.endswith("script")]


def test_a_figure_that_is_not_known_is_refused_by_name(told: Results) -> None:
    with pytest.raises(ConfigurationError, match="figures=convergance is not known"):
        draw_figures(replace(told, figures=("convergance",)), RecordReader())


def test_a_damaged_record_is_told_and_stops_nothing(told: Results) -> None:
    read = RecordReader()
    (told.runs[0].path / "pool.jsonl").write_text("{broken\n")
    assert draw_figures(told, read)["pool"].figure is not None
    assert [problem for problem in read.problems if "pool.jsonl, line 1" in problem]


def test_names_of_one_number_or_none_are_no_axis() -> None:
    assert read_numbers(["1", "2.5"]) == {"1": 1.0, "2.5": 2.5}
    assert read_numbers(["1"]) == read_numbers(["1", "x"]) == read_numbers(["1", "inf"]) == {}


def test_short_numbers() -> None:
    assert [format_compact(x) for x in (0, 0.05, 800, 1752, 25600, 2e7)] == [
        "0",
        "0.05",
        "800",
        "1.75k",
        "25.6k",
        "20M",
    ]
