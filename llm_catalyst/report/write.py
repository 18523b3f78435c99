"""`catalyst report DIR…`: tables, figures and a page, written from run directories."""

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from llm_catalyst.config.table import FILE, folder_of
from llm_catalyst.report.figures import prompts, scores
from llm_catalyst.report.figures.drawing import Drawing, matplotlib_style, save_figure
from llm_catalyst.report.html.exchanges import render_exchanges
from llm_catalyst.report.html.page import build_section, render_page
from llm_catalyst.report.results import Results, collect_results
from llm_catalyst.report.runs import RecordReader
from llm_catalyst.report.tables.build import render_scores, to_latex, to_markdown
from llm_catalyst.report.tables.costs import build_cost_table
from llm_catalyst.report.tables.export import summary_csv, to_csv
from llm_catalyst.runs.reader import FILES, find_runs
from llm_catalyst.runs.records import Snapshot
from llm_catalyst.utils import checksums
from llm_catalyst.utils.files import write_atomically
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError, check_choice

PAGE = "report.html"
EXCHANGES = "exchanges.html"
FOLDERS = ("tables", "figures")  # beside it
WATCHED = ("manifest.json", "outcome.json", *FILES.values())
PATIENCE = 20  # looks without any change, after which a watch ends

State = Mapping[Path, tuple[int, int]]

FIGURES: dict[str, Callable[[Results, RecordReader], Drawing]] = {
    "scores": scores.draw_scores,
    "convergence": scores.draw_convergence,
    "cost": scores.draw_cost,
    "sensitivity": scores.draw_sensitivity,
    "pool": prompts.draw_pool,
    "words": prompts.draw_words,
    "projection": scores.draw_projection,
    "diversity": prompts.draw_diversity,
    "readability": prompts.draw_readability,
    "ledger": scores.draw_usage,
}


def write_report(places: Sequence[Path], target: Path | None, console: Console, watch: float | None = None) -> None:
    """Write a report on the runs below `places`, and print its tables and its path.

    Args:
        places: run directories, or folders around them.
        target: the report's folder; None means report/ in the folder around all places.
        console: where to print.
        watch: seconds between two updates while runs are unfinished; None writes the report once.

    Raises:
        ConfigurationError: there is no run, or the folder cannot be written.
    """
    target = target or Path(os.path.commonpath([place.absolute() for place in places])) / "report"
    try:
        if watch is not None:
            watch_runs(places, target, console, watch)
    finally:  # whatever ended the watch, the last page has the current state and no longer reloads
        results = collect_results(places)
        files = build_files(results)
        update_files(target, files)
    for one in results:
        console.print(render_scores(one), Text(), build_cost_table(one), Text())
    console.print(Text(escape_controls(str(target / PAGE))), soft_wrap=True)
    if EXCHANGES in files:
        words = f"{escape_controls(str(target / EXCHANGES))}: every request to a mentor, and what became of its answer"
        console.print(Text(words, "dim"), soft_wrap=True)
    for folder in FOLDERS:
        if number := sum(name.startswith(f"{folder}/") for name in files):
            words = f"{escape_controls(str(target / folder))}: {format_count(number, 'file')}"
            console.print(Text(words, "dim"), soft_wrap=True)


def build_files(results: Sequence[Results], refresh: float | None = None) -> dict[str, bytes]:
    """The files of a report by name; the page is last, so that it exists only with all the others."""
    files: dict[str, bytes] = {}
    sections = []
    for name, one in name_results(results).items():
        read = RecordReader()
        texts = {"md": to_markdown(one), "tex": to_latex(one), "csv": to_csv(one), "summary.csv": summary_csv(one)}
        files |= {f"tables/{name}.{ending}": text.encode() for ending, text in texts.items()}
        drawings = draw_figures(one, read)
        svgs = {}
        for figure, drawing in drawings.items():
            if drawing.figure is not None:
                svgs[figure], pdf = save_figure(drawing.figure)
                files[f"figures/{name}-{figure}.svg"] = svgs[figure].encode()
                files[f"figures/{name}-{figure}.pdf"] = pdf
        sections.append(build_section(name, one, read, drawings, svgs))
    if exchanges := render_exchanges(results, PAGE):
        files[EXCHANGES] = exchanges.encode()
    files[PAGE] = render_page(sections, refresh).encode()
    return files


def draw_figures(results: Results, read: RecordReader) -> dict[str, Drawing]:
    """All figures by name, first those that the results' table asks for.

    Raises:
        ConfigurationError: the table asks for an unknown figure.
    """
    for name in results.figures:
        check_choice(f"{results.source}: figures", name, [*FIGURES])
    with matplotlib_style():
        return {name: FIGURES[name](results, read) for name in dict.fromkeys((*results.figures, *FIGURES))}


def name_results(results: Sequence[Results]) -> dict[str, Results]:
    """Each of the results by a name for its files: that of its folder, numbered if two are equal."""
    names: dict[str, Results] = {}
    for one in results:
        name = folder_of(one.source.resolve().name)
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        names[next(unique for unique in itertools.chain([name], numbered) if unique not in names)] = one
    return names


def update_files(target: Path, files: Mapping[str, bytes]) -> None:
    """Write the files that have changed, each atomically, and remove those of the previous report.

    SHA256SUMS lists them all; a file that differs from its listed sum is not the report's, and stays.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    before = checksums.read_list(target)
    now = {name: checksums.sha256(content) for name, content in files.items()}
    try:
        for name, content in {**files, checksums.SUMS: checksums.format_list(now)}.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != content:
                write_atomically(path, content)
        for path in [*(path for folder in FOLDERS for path in (target / folder).glob("*")), target / EXCHANGES]:
            name = path.relative_to(target).as_posix()
            if name in before and name not in now and checksums.sha256(path.read_bytes()) == before[name]:
                path.unlink()
    except OSError as error:
        words = f"{error.filename}: {error.strerror}; choose another folder: --output FOLDER"
        raise ConfigurationError(words) from None


def watch_runs(places: Sequence[Path], target: Path, console: Console, seconds: float) -> None:
    """Update the report until the runs have ended, or until PATIENCE looks in a row find nothing new.

    A run whose process was killed looks like one with a slow step.
    """
    seen: State | None = None
    printed, quiet, left = "", 0, 0
    while quiet < PATIENCE:
        now = snapshot_files(places)
        quiet = quiet + 1 if now == seen else 0
        if seen is None or visible_files(now) != visible_files(seen):
            results = collect_results(places)
            left = sum(map(count_missing, results))
            finished = sum(len(one.outcomes) for one in results)
            if (words := f"{format_count(finished, 'run')} finished, {left} to come: {target / PAGE}") != printed:
                console.print(Text(escape_controls(words)), soft_wrap=True)
                printed = words
            if not left:
                return
            update_files(target, build_files(results, seconds))
        seen = now
        time.sleep(seconds)
    console.print(Text(f"nothing new in {PATIENCE} looks: {format_count(left, 'run')} did not end"), soft_wrap=True)


def snapshot_files(places: Sequence[Path]) -> State:
    """The files of the runs, each with its modification time in nanoseconds and its size in bytes."""
    paths = [run / name for run in find_runs(*places) for name in WATCHED]
    found = {path: path.stat() for path in paths if path.exists()}
    return {path: (status.st_mtime_ns, status.st_size) for path, status in found.items()}


def visible_files(state: State) -> State:
    """The files whose content a report shows: all but the trajectory."""
    return {path: status for path, status in state.items() if path.name != FILES[Snapshot]}


def count_missing(results: Results) -> int:
    """The number of runs that are unfinished, or missing in a table."""
    expected = sum(len(cell.seeds) for cell in results.cells.values()) if (results.source / FILE).is_file() else 0
    return max(expected, len(results.runs)) - len(results.outcomes)
