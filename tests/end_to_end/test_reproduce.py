"""`catalyst reproduce` as a user meets it: a table in a smoke run, killed, gone on with, estimated, refused."""

import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.command import Command
from helpers.kill_points import look

from llm_catalyst.runs.reader import read_run
from llm_catalyst.sweeps.status import JobStatus, write_status
from llm_catalyst.utils.signals import STOPPED

pytestmark = pytest.mark.slow

# On fewer rows, which saves ten of the 24 seconds of a run.
SMOKE = ("reproduce", "baselines", "--smoke", "device=cpu", "threads=1", "task.shots=4", "task.test=validation")
TABLE = "outputs/tables/baselines_smoke*"  # the folder's name ends with a sum of the overrides
PART = ("--only", "column=BoolQ", "row=single start,Combined (openai_small)")


@dataclass(frozen=True)
class Killed:
    """A part of a table that was killed after its first run, and how the same command went on with it."""

    folder: Path
    before: dict[str, tuple[int, int]]
    done: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def killed(catalyst: Command, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    home = tmp_path_factory.mktemp("reproduce")
    process = catalyst.start(*SMOKE, *PART, cwd=home)
    while process.poll() is None and not [*home.glob(f"{TABLE}/*/*/seed1/outcome.json")]:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (outcome,) = home.glob(f"{TABLE}/*/*/*/outcome.json")
    folder, before = outcome.parents[3], look(outcome.parent)
    return Killed(folder, before, catalyst(*SMOKE, *PART, cwd=home))


def test_a_killed_table_goes_on_without_repeating_a_finished_cell(killed: Killed) -> None:
    assert killed.done.returncode == 0, killed.done.stderr
    assert look(killed.folder / "single_start/boolq/seed1") == killed.before
    ended = sorted(path.parent.relative_to(killed.folder).as_posix() for path in killed.folder.rglob("outcome.json"))
    assert ended == [f"{row}/boolq/seed{seed}" for row in ("combined_openai_small", "single_start") for seed in (1, 2)]
    assert "[4/4]" in killed.done.stdout
    assert "4 of 4 runs finished" in killed.done.stdout


def test_the_printed_table_holds_the_runs_own_test_scores(killed: Killed) -> None:
    for row in ("single_start", "combined_openai_small"):
        runs = [read_run(killed.folder / row / "boolq" / f"seed{seed}") for seed in (1, 2)]
        scores = [run.outcome.test.metric for run in runs if run.outcome and run.outcome.test]
        assert f"{100 * sum(scores) / 2:.1f}" in killed.done.stdout


def test_each_run_has_the_words_that_make_it_alone(killed: Killed) -> None:
    run = read_run(killed.folder / "combined_openai_small/boolq/seed2")
    words = ("stage.steps=[4,4,8]", "experiment=quickstart", "mentor=evolution", "batch_size=8", "device=cpu", "seed=2")
    assert set(words) <= set(run.manifest.command)
    assert not any(word.startswith(("hydra", "view")) for word in run.manifest.command)


def test_a_report_is_written_with_figures_tables_and_the_command_that_made_them(
    killed: Killed, catalyst: Command
) -> None:
    done = catalyst("report", str(killed.folder), cwd=killed.folder)
    assert done.returncode == 0, done.stderr
    page = (killed.folder / "report/report.html").read_text()
    assert "<svg" in page
    assert "catalyst reproduce baselines --smoke device=cpu threads=1" in page
    assert len([*(killed.folder / "report/tables").iterdir()]) == 4
    assert catalyst("report", str(killed.folder), "--watch", "0", cwd=killed.folder).returncode == 2


def test_a_finished_table_starts_nothing_and_is_printed_again(killed: Killed, catalyst: Command) -> None:
    before = look(killed.folder)
    done = catalyst(*SMOKE, *PART, cwd=killed.folder.parents[2])
    assert done.returncode == 0
    assert "4 of 4 runs finished" in done.stdout
    assert {name: at for name, at in look(killed.folder).items() if "seed" in name} == {
        name: at for name, at in before.items() if "seed" in name
    }


def test_a_cell_that_fails_does_not_take_the_others_down(killed: Killed, catalyst: Command, tmp_path: Path) -> None:
    folder = tmp_path / killed.folder.relative_to(killed.folder.parents[2])
    shutil.copytree(killed.folder, folder)
    (folder / "single_start/boolq/seed1/outcome.json").unlink()
    (folder / "single_start/boolq/seed1/config.yaml").write_text("seed: 5\n")
    shutil.rmtree(folder / "combined_openai_small/boolq/seed2")
    for number in (0, 99):  # an earlier launch had more to do, and was stopped
        write_status(folder, JobStatus(number, (), "ended", code=STOPPED, status="stopped", message="by SIGTERM"))
    done = catalyst(*SMOKE, *PART, cwd=tmp_path)
    assert done.returncode == 1
    assert "3 of 4 runs finished; 1 failed" in done.stdout
    assert "config.yaml is changed" in done.stdout.replace("\n", " ")
    assert "the same command continues with the others" in done.stdout
    assert "SIGTERM" not in done.stdout


def test_an_estimate_names_each_cell_and_writes_nothing(catalyst: Command, tmp_path: Path) -> None:
    done = catalyst(*SMOKE, "--dry-run", "--only", "column=BoolQ", "row=Single start", "optimizer.lr=0.5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Single start +2: 0:0\d:\d\d, \$0\.00", done.stdout)
    assert "Estimate: 2 runs" in done.stdout
    assert not [*tmp_path.rglob("*.json*")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nlo",), "did you mean nlu"),
        (("nlu", "--only", "row=GPT"), "--only row=GPT is not known; there are: Prompt tuning"),
        (("nlu", "--smoke", "stagee.steps=3"), "did you mean stage.steps"),
        (("nlu", "--publish", "x"), "unrecognized arguments: --publish"),
        (("nlu", "mentors=[gtp4]"), "mentors=gtp4 is not known"),
        (("nlu", "mentors=[gpt4,gpt4]"), "must name each mentor once"),
        (("offline", "mentors=gpt4"), "no row of the table offline asks a language model"),
        (("nlu", "--smoke", "--published", "nowhere.yaml"), "nowhere.yaml cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    catalyst: Command, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = catalyst("reproduce", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "outputs").exists()


def test_without_a_name_the_tables_are_listed(catalyst: Command, tmp_path: Path) -> None:
    done = catalyst("reproduce", cwd=tmp_path)
    assert done.returncode == 0
    assert {"nlu", "baselines", "rounds", "iterations", "prompt_length", "meta_prompt", "convergence"} <= {
        line.split()[0] for line in done.stdout.splitlines() if line.split()
    }


@pytest.mark.parametrize("words", [("--budget-usd", "-1"), ("sweep.budget.usd=-1",), ("batch_size=0",)])
def test_a_value_that_is_wrong_for_all_runs_is_refused_before_the_first(
    catalyst: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = catalyst(*SMOKE, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert words[0].partition("=")[0] in done.stderr
    assert not [*tmp_path.rglob("manifest.json")]


def test_the_budget_of_a_table_stops_its_other_runs_and_a_larger_one_continues(
    catalyst: Command, tmp_path: Path
) -> None:
    words = (*SMOKE, "mentor=rehearsal", "--only", "column=BoolQ", "row=multi-start", "--budget-usd", "0")
    refused = catalyst(*words, cwd=tmp_path)
    assert refused.returncode == 3
    assert "sweep.budget.usd=0 is used up: the runs in" in refused.stdout
    assert "0 of 2 runs finished; 2 stopped before the end" in refused.stdout
    assert "with a larger budget the same command continues with the others" in " ".join(refused.stdout.split())
    assert not [*tmp_path.rglob("outcome.json")]
    done = catalyst(*words[:-1], "5", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 runs finished" in done.stdout
    again = catalyst(*words[:-2], cwd=tmp_path)
    assert "2 of 2 runs finished" in again.stdout
    assert len([*tmp_path.glob("outputs/tables/*")]) == 1
