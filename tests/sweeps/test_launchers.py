"""What a sweep's notes say together, how jobs are handed to launchers, and what a search makes of Hydra's overrides."""

import itertools
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.launcher import Launcher
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from llm_catalyst.sweeps import launchers
from llm_catalyst.sweeps.job import take_gpu
from llm_catalyst.sweeps.launchers import (
    Sweep,
    begin_sweep,
    describe_cause,
    group_consecutive,
    launch_all,
    list_local_jobs,
)
from llm_catalyst.sweeps.status import (
    JobStatus,
    distinguish_jobs,
    read_statuses,
    summarize_jobs,
    write_status,
)
from llm_catalyst.utils.validation import ConfigurationError

optuna = pytest.importorskip("optuna", reason="the sweep extra is not installed")

from llm_catalyst.sweeps.optuna_search import (  # noqa: E402
    Plan,
    make_row,
    next_trials,
    open_study,
    parse_distribution,
    rank_rows,
    read_rows,
    record_result,
    render_results,
    split_overrides,
    write_rows,
)

PLAN = Plan(trials=4, at_once=2, sampler="TPESampler", seed=1)


def note(number: int, code: int | None = 0, message: str = "", **more: Any) -> JobStatus:
    state = "running" if code is None else "ended"
    return JobStatus(number, ("task=sst2", f"seed={number}"), state, code=code, message=message, **more)


def parsed(*words: str) -> Any:
    return OverridesParser.create().parse_overrides(list(words))


# --- notes


def test_a_note_is_read_back_as_it_was_written_and_the_later_one_counts(tmp_path: Path) -> None:
    for one in (note(10, None), note(2), note(10, 1, "out of memory", dev=0.5)):
        assert write_status(tmp_path, one) is one
    assert read_statuses(tmp_path) == {2: note(2), 10: note(10, 1, "out of memory", dev=0.5)}
    assert list(read_statuses(tmp_path)) == [2, 10]


def test_a_sweep_without_notes_has_none(tmp_path: Path) -> None:
    assert read_statuses(tmp_path) == {}


# --- workers and their GPUs


def work(folder: Path, seen: Any, leave: Any) -> None:
    take_gpu(folder)
    take_gpu(folder)  # for the second run of this worker
    seen.put(os.environ["CUDA_VISIBLE_DEVICES"])
    leave.wait(300)


def test_workers_see_different_gpus_where_there_are_enough_and_leave_them_when_they_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs").mkdir()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    context = multiprocessing.get_context("spawn")
    seen, leave = context.Queue(), context.Event()
    workers = [context.Process(target=work, args=(tmp_path, seen, leave)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert sorted(seen.get(timeout=300) for _ in workers) == ["3", "3", "5"]
    leave.set()
    for worker in workers:
        worker.join(120)
    take_gpu(tmp_path)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3", "the first place is free again"


# --- the folder of a sweep


def sweep_in(folder: Path, launcher: Launcher) -> Sweep:
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    return Sweep(launcher, config, ConfigLoaderImpl(ConfigSearchPathImpl()))


def test_two_processes_do_not_carry_out_one_sweep(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(ConfigurationError, match="another process carries out the sweep"):
        begin_sweep(sweep_in(tmp_path, BasicLauncher()))
    begin_sweep(sweep_in(tmp_path, BasicLauncher()))


def test_a_sweep_waits_for_what_is_left_of_one_that_was_killed_and_forgets_its_notes(tmp_path: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    write_status(tmp_path, note(0, None, host=socket.gethostname(), pid=worker.pid))
    write_status(tmp_path, note(1, None, host="elsewhere", pid=worker.pid))
    assert [one.number for one in list_local_jobs(tmp_path)] == [0]
    threading.Timer(0.3, worker.communicate, [b"\n"]).start()
    begin_sweep(sweep_in(tmp_path, BasicLauncher()))
    assert worker.poll() == 0
    assert read_statuses(tmp_path) == {}


# --- the summary


def told(*notes: JobStatus) -> list[str]:
    return [line.plain for line in summarize_jobs({one.number: one for one in notes}, Path("outputs/sweeps/x"))]


def test_a_sweep_that_has_finished_needs_one_line() -> None:
    assert told(note(1), note(2), note(3)) == ["3 of 3 runs finished"]


def test_a_summary_counts_every_run_once_and_says_what_goes_on() -> None:
    notes = [note(0), note(1, 1, "boom"), note(2, 75, "stopped by SIGTERM"), note(3, 3, "spent"), note(4, None)]
    notes.append(note(6, 4, "not finite"))
    notes.append(JobStatus(5, ("task=sst2", "seed=5")))
    first, *rest = told(*notes)
    assert first == (
        "1 of 7 runs finished; 1 failed; 1 diverged; 3 stopped before the end; 1 was not run; "
        "with a larger budget the same command continues with them (outputs/sweeps/x)"
    )
    assert rest[:2] == ["  seed=6: not finite", "  seed=1: boom"]
    assert len(rest) == 5


def test_one_reason_of_many_runs_is_told_once() -> None:
    lines = told(*(note(number, 2, "no key") for number in range(9)))
    assert lines[1:] == ["  seed=0, seed=1, seed=2 and 6 more: no key"]


def test_a_failure_is_told_by_its_directory_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "swept" / "1").mkdir(parents=True)
    there = note(1, 1, "boom", directory=str(tmp_path / "swept" / "1"))
    assert told(there, note(2, 1, "bang", directory=str(tmp_path / "gone")))[1:] == [
        "  swept/1: boom",
        "  seed=2: bang",
    ]


def test_a_message_cannot_write_into_the_terminal() -> None:
    assert "\x1b" not in "".join(told(note(1, 1, "a\x1b[2Jb"), note(2)))


def test_dry_runs_are_estimated_and_not_finished() -> None:
    assert told(note(1, estimate={"runs": 1}), note(2, estimate={"runs": 1})) == ["2 of 2 runs estimated"]


def test_runs_are_told_apart_by_what_not_all_share() -> None:
    jobs = {0: ["task=sst2", "seed=1", "mentor=none"], 1: ["task=sst2", "seed=2", "mentor=none"]}
    assert distinguish_jobs(jobs) == {0: "seed=1", 1: "seed=2"}
    assert distinguish_jobs({0: ["task=sst2"]}) == {0: "task=sst2"}


class Fragile(Launcher):
    """A pool of one worker that ends with the first of its jobs that is killed, or that cannot begin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, **_: Any) -> None:
        """Nothing is needed."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        for number, (word,) in enumerate(job_overrides, initial_job_idx):
            if word == "obstructed":
                raise FileExistsError("there is a file")
            write_status(self.folder, JobStatus(number, (word,), "running"))
            if word == "killed":
                raise RuntimeError("a worker was terminated")
            write_status(self.folder, JobStatus(number, (word,), "ended", code=0, status="done"))
        return []


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(["good", "killed", "obstructed"]), max_size=4))
def test_a_pool_that_breaks_at_some_jobs_carries_out_all_others(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sweep = sweep_in(Path(folder), Fragile(Path(folder)))
        jobs = {2 * number: [word] for number, word in enumerate(words)}
        jobs |= {number + 1: ["good"] for number in jobs}
        for number, overrides in jobs.items():
            write_status(sweep.folder, JobStatus(number, tuple(overrides)))
        launch_all(sweep, jobs)
        for one in read_statuses(sweep.folder).values():
            assert (one.state, one.code) == ("ended", 0 if one.overrides == ("good",) else 1)
            if one.overrides == ("killed",):
                assert one.message == "its process is lost (RuntimeError: a worker was terminated)"
            if one.overrides == ("obstructed",):
                assert one.message == "it cannot begin (FileExistsError: there is a file)"


class Counting(BasicLauncher):
    """Hydra's own launcher, which keeps the configurations of a launch; `launches` counts the jobs of each."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: list[int] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        self.launches.append(len(job_overrides))
        return []


def test_hydras_own_launcher_gets_one_job_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "check_composition", lambda *_: True)
    sweep = replace(sweep_in(tmp_path, Counting()), prints=False)
    monkeypatch.setattr(type(sweep), "kind", "BasicLauncher")
    statuses = launchers.launch_jobs(sweep, {number: [f"seed={number}"] for number in range(3)})
    assert sweep.launcher.launches == [1, 1, 1]
    assert [status.message for status in statuses.values()] == ["it ended without a status"] * 3


def test_the_cause_of_a_lost_run_is_the_end_of_a_traceback_that_a_launcher_hands_on() -> None:
    handed_on = "Job failed with trace:\n---\nTraceback:\n  File x\nFileExistsError: [Errno 17] there\n---\nsee the log"
    assert describe_cause(RuntimeError(handed_on)) == "FileExistsError: [Errno 17] there"
    assert (
        describe_cause(RuntimeError("a worker was\x1b terminated\nit says"))
        == r"RuntimeError: a worker was\x1b terminated"
    )


@given(st.sets(st.integers(0, 30)))
def test_jobs_are_handed_over_in_groups_that_a_launcher_numbers_rightly(numbers: set[int]) -> None:
    groups = group_consecutive({number: [f"seed={number}"] for number in numbers})
    assert [number for group in groups for number in group] == sorted(numbers)
    for group in groups:
        assert list(group) == list(range(min(group), min(group) + len(group)))
    for before, after in itertools.pairwise(groups):
        assert max(before) + 1 < min(after)


# --- a search


def test_overrides_are_split_into_what_all_trials_share_and_what_is_searched() -> None:
    fixed, space = split_overrides(
        parsed(
            "task=sst2",
            "stage.steps=[2,2]",
            "optimizer.lr=tag(log,interval(1e-4,1e-1))",
            "batch_size=range(8,33,8)",
            "prompt.length=int(interval(2,9))",
            "schedule.warm_up=range(0.0,0.5,0.25)",
            "mentor=none,evolution",
        )
    )
    assert fixed == ["task=sst2", "stage.steps=[2,2]"]
    named = optuna.distributions
    assert space == {
        "optimizer.lr": named.FloatDistribution(1e-4, 1e-1, log=True),
        "batch_size": named.IntDistribution(8, 32, step=8),
        "prompt.length": named.IntDistribution(2, 9),
        "schedule.warm_up": named.FloatDistribution(0.0, 0.25, step=0.25),
        "mentor": named.CategoricalDistribution(["none", "evolution"]),
    }


def test_a_list_among_choices_reaches_the_run_as_it_was_written() -> None:
    assert parse_distribution(parsed("stage.steps=[2,2],[4,4]")[0]).choices == ("[2,2]", "[4,4]")


@pytest.mark.parametrize(
    ("words", "message"),
    [(["task=sst2"], "nothing to search for"), (["optimizer.lr=1,2", "dry_run=true"], "cannot be estimated")],
)
def test_what_cannot_be_searched_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        split_overrides(parsed(*words))


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"at_once": 0}, {"sampler": "Guess"}])
def test_a_plan_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"hydra\.sweeper\."):
        Plan(**{**vars(PLAN), **wrong})


SPACE = {"lr": optuna.distributions.FloatDistribution(1e-3, 1.0, log=True)}
WORDS = ["task=sst2", "lr=interval(1e-3,1)"]


def searched(folder: Path, plan: Plan, until: int) -> list[float]:
    """The values of `until` trials, or of those that the plan still wants; a small value is a good one."""
    folder.mkdir(exist_ok=True)
    study = open_study(folder, WORDS)
    while len(study.trials) < until and (trials := next_trials(study, SPACE, plan)):
        for trial in trials:
            assert record_result(study, trial.number, note(trial.number, dev=1 - trial.params["lr"]))
    return [trial.params["lr"] for trial in study.trials]


@pytest.mark.parametrize("sampler", ["TPESampler", "RandomSampler", "GPSampler"])
def test_a_search_finds_the_same_values_with_the_same_seed_whether_it_was_stopped_or_not(
    tmp_path: Path, sampler: str
) -> None:
    plan = Plan(trials=14, at_once=2, sampler=sampler, seed=1)  # ten are random, before Optuna begins to model
    whole = searched(tmp_path / "whole", plan, 14)
    for until in (4, 12, 14):
        stopped = searched(tmp_path / "stopped", plan, until)
    assert stopped == whole
    assert len(set(whole)) == 14
    assert searched(tmp_path / "other", replace(plan, seed=2), 4) != whole[:4]


def test_a_study_is_not_continued_by_another_search(tmp_path: Path) -> None:
    open_study(tmp_path, WORDS)
    open_study(tmp_path, [*WORDS, "device=cuda"])
    with pytest.raises(ConfigurationError, match="holds another search"):
        open_study(tmp_path, ["task=rte", *WORDS[1:]])


def test_a_study_whose_last_line_a_crash_has_cut_off_is_continued(tmp_path: Path) -> None:
    before = searched(tmp_path, PLAN, 2)
    journal = tmp_path / "study.journal"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "wor')
    assert searched(tmp_path, PLAN, 4)[:2] == before
    assert len(open_study(tmp_path, WORDS).trials) == 4


def test_a_study_is_continued_after_its_process_is_gone(tmp_path: Path) -> None:
    study = open_study(tmp_path, WORDS)
    first = next_trials(study, SPACE, PLAN)
    assert record_result(study, first[0].number, note(0, dev=0.75))
    assert not record_result(study, first[1].number, note(1, 75, "stopped by SIGTERM"))

    later = open_study(tmp_path, WORDS)
    (cut_off,) = next_trials(later, SPACE, PLAN)
    assert (cut_off.number, cut_off.params) == (first[1].number, first[1].params)
    assert record_result(later, cut_off.number, note(1, dev=0.5))
    last = next_trials(later, SPACE, PLAN)
    assert [trial.number for trial in last] == [2, 3]
    assert not {trial.params["lr"] for trial in last} & {trial.params["lr"] for trial in first}
    for trial in last:
        assert record_result(later, trial.number, note(trial.number, 1, "boom"))
    assert next_trials(later, SPACE, PLAN) == []
    assert (later.best_trial.number, later.best_value) == (0, 0.75)
    assert [trial.state.name for trial in later.trials] == ["COMPLETE", "COMPLETE", "FAIL", "FAIL"]


def test_a_trial_whose_values_were_never_written_is_given_up(tmp_path: Path) -> None:
    study = open_study(tmp_path, WORDS)
    study.ask()
    trials = next_trials(open_study(tmp_path, WORDS), SPACE, PLAN)
    assert [trial.number for trial in trials] == [1, 2]


def test_a_run_that_finished_without_a_score_on_dev_is_a_failed_trial(tmp_path: Path) -> None:
    study = open_study(tmp_path, WORDS)
    trial, *_ = next_trials(study, SPACE, PLAN)
    assert record_result(study, trial.number, note(0, dev=None))
    assert study.trials[0].state.name == "FAIL"


def test_the_results_of_a_search_rank_by_dev_and_keep_failed_trials(tmp_path: Path) -> None:
    ended = [note(0, dev=0.5), note(1, dev=0.75), note(2, 1, "boom"), note(3, dev=0.75)]
    rows = {one.number: make_row({"lr": one.number / 10}, one) for one in ended}
    write_rows(tmp_path, rows)
    assert read_rows(tmp_path) == rows
    assert [one["number"] for one in rank_rows(rows)] == [1, 3, 0]
    written = json.loads((tmp_path / "search.json").read_bytes())
    assert written["best"]["values"] == {"lr": 0.1}
    assert written["best"]["command"] == "catalyst run task=sst2 seed=1"
    assert [one["dev"] for one in written["trials"]] == [0.5, 0.75, None, 0.75]


def test_a_search_without_any_score_has_no_best(tmp_path: Path) -> None:
    rows = {0: make_row({"lr": 1.0}, note(0, 1, "boom"))}
    write_rows(tmp_path, rows)
    assert json.loads((tmp_path / "search.json").read_bytes())["best"] is None
    assert "no trial has a score" in str(render_results(rows, tmp_path))
