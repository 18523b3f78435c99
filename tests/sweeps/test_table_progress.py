"""The view over all cells of a table: what it makes of the runs' files."""

import io
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.recorded import HOSTILE, write_run
from rich.console import Console
from rich.text import Text

from llm_catalyst.config.table import Line, PlannedRun, Table, list_runs
from llm_catalyst.sweeps.status import JobStatus, write_status
from llm_catalyst.sweeps.table_progress import TableProgress, inspect_run, make_grid, summarize_progress

TABLE = Table(
    "moods",
    "Moods of reviews",
    rows=(Line("Prompt tuning"), Line("+ Claude")),
    columns=(Line("SST-2"), Line("MR")),
    seeds=(1, 2),
)
CELLS = list_runs(TABLE)


def at(row: str, column: str, seed: int) -> PlannedRun:
    return next(cell for cell in CELLS if (cell.row, cell.column, cell.seed) == (row, column, seed))


def board(folder: Path, console: Console, failures: Mapping[PlannedRun, str] | None = None) -> TableProgress:
    jobs = dict(enumerate(failures or {}))
    for number, cell in jobs.items():
        write_status(folder, JobStatus(number, (), "ended", code=1, message=(failures or {})[cell]))
    return TableProgress(TABLE, folder, jobs, console)


def terminal(width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, _environ={"TERM": "xterm"})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def shown(board: TableProgress, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    board.refresh()
    console.print(board)
    return written(console)


def test_a_grid_of_long_cells_keeps_the_names_of_its_rows_on_a_narrow_terminal() -> None:
    columns = tuple(Line(name) for name in ("BoolQ", "COPA", "RTE", "WiC", "WSC"))
    console = Console(file=io.StringIO(), width=80)
    console.print(make_grid(replace(TABLE, columns=columns), lambda *_: Text("3: 1:02:11, $12.34"), "runs to do"))
    text = written(console)
    assert text.count("$12.34") == text.count("1:02:11,") == 10
    assert "+ Claude" in text
    assert "Prompt" in text
    assert "…" not in text


def test_a_run_is_waiting_then_running_then_done(tmp_path: Path) -> None:
    before, run = time.time() - 1, tmp_path / "run"
    assert inspect_run(run, before).state == "waiting"
    write_run(run, stages=1, finished=False)
    snapshot = inspect_run(run, before)
    assert (snapshot.state, snapshot.words) == ("running", "stage 1, step 200, dev 0.630")
    assert inspect_run(run, time.time() + 60).state == "waiting"  # nothing was written since: nobody is at it
    snapshot = inspect_run(write_run(tmp_path / "done"), before)
    assert (snapshot.state, snapshot.words) == ("done", "test 0.871 in 0:01:14")
    assert (snapshot.usage.calls, snapshot.usage.cost_usd) == (2, 0.00246)


def test_the_board_shows_means_seeds_runs_under_way_failures_and_the_bill(tmp_path: Path) -> None:
    view = board(tmp_path, Console(file=io.StringIO()), {at("+ Claude", "MR", 2): "no key"})
    for seed in (1, 2):
        write_run(tmp_path / at("Prompt tuning", "SST-2", seed).folder)
    write_run(tmp_path / at("+ Claude", "SST-2", 1).folder, stages=2, finished=False)
    lines = shown(view).splitlines()
    assert lines[0].strip() == "Moods of reviews"
    assert lines[2].startswith("2 of 8 runs done, 1 running, 1 failed; ")
    assert lines[3].strip() == "mentors: 6 calls, 4,872 + 384 tokens, $0.0074"
    grid = [" ".join(line.split()) for line in lines[5:8]]
    assert grid == ["SST-2 MR", "Prompt tuning 0.871 2/2 0/2", "+ Claude 0/2 ▶ 0/2 ✗"]
    assert [line.rstrip() for line in lines[8:]] == [
        "running  + Claude · SST-2 · seed 1: stage 2, step 400, dev 0.710",
        "failed  + Claude · MR · seed 2: no key",
    ]
    assert summarize_progress(view.snapshots) == "2 of 8 runs finished; 1 failed; 5 were not run to the end"


def test_a_run_that_failed_and_has_its_outcome_after_all_is_done(tmp_path: Path) -> None:
    cell = at("+ Claude", "MR", 2)
    view = board(tmp_path, Console(file=io.StringIO()), {cell: "an earlier try"})
    write_run(tmp_path / cell.folder)
    view.refresh()
    assert view.snapshots[cell].state == "done"


def test_where_there_is_no_terminal_a_line_tells_of_each_change(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    write_run(tmp_path / CELLS[0].folder)
    with board(tmp_path, console).watch() as view:
        write_run(tmp_path / CELLS[1].folder, finished=False)
        view.refresh()
        view.refresh()
        write_run(tmp_path / CELLS[2].folder)
    lines = [line.partition("  ")[2] for line in written(console).splitlines()]
    assert lines == [
        "[1/8] + Claude · SST-2 · seed 1: running",
        "[2/8] Prompt tuning · MR · seed 1: done: test 0.871 in 0:01:14",
    ]


def test_in_a_terminal_the_board_is_drawn_and_goes_away(tmp_path: Path) -> None:
    console = terminal()
    with board(tmp_path, console).watch():
        assert "0 of 8 runs done" in written(console)
    assert written(console).endswith("\x1b[?25h") or "\x1b[2K" in written(console)


def test_the_time_left_follows_from_the_runs_that_ended_since_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / CELLS[0].folder)
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    view = board(tmp_path, Console(file=io.StringIO()))
    assert view.left() == "–"
    write_run(tmp_path / CELLS[1].folder)
    write_run(tmp_path / CELLS[2].folder)
    now[0] += 120
    view.refresh()
    assert view.left() == "about 0:05:00"


def test_a_damaged_run_keeps_what_was_seen_of_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / CELLS[0].folder, stages=1, finished=False)
    view = board(tmp_path, Console(file=io.StringIO()))
    view.since -= 1
    view.refresh()
    (run / "exchanges.jsonl").write_text("{\n")
    (run / "metrics.jsonl").write_text("{\n")
    view.refresh()
    assert view.snapshots[CELLS[0]].words == "stage 1, step 200, dev 0.630"


def test_hostile_names_and_messages_are_shown_as_text(tmp_path: Path) -> None:
    table = Table("x", HOSTILE, rows=(Line(HOSTILE),), columns=(Line("[bold]x[/y]"),), seeds=(1,))
    (cell,) = list_runs(table)
    write_status(tmp_path, JobStatus(0, (), "ended", code=1, message=HOSTILE))
    view = TableProgress(table, tmp_path, {0: cell}, Console(file=io.StringIO()))
    text = shown(view, 500)
    assert "\x1b" not in text
    assert "[bold]x[/y]" in text
    assert "<script>" in text
