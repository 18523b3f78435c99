"""The baseline of a run: trained beside it without a mentor, and compared with it row by row."""

import json
import math
import re
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from helpers.command import Command
from helpers.tiny_models import folder

from llm_catalyst.sweeps.baseline import name_command, place_baseline


@pytest.fixture
def words(tiny_task: Path) -> tuple[str, ...]:
    model = ("backbone=bert_base", f"backbone.name={folder('bert')}", "prompt.length=4", "batch_size=8")
    steps = (
        "stage.steps=[2,2]",
        "optimizer.lr=0.1",
        "restart=best",
        "restart.carry=0",
        "pool.candidates=2",
        "threads=1",
    )
    return ("task=local", f"task.path={tiny_task}", *model, *steps, "view=plain", "device=cpu")


def read(run: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((run / name).read_text()))


def test_the_same_run_without_a_mentor_is_trained_beside_and_the_gain_is_that_over_the_same_rows(
    catalyst: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = catalyst("run", *words, "mentor=random", "baseline=none", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run, baseline = tmp_path / "run", tmp_path / "run_none"
    assert (read(run, "manifest.json")["choices"]["mentor"], read(baseline, "manifest.json")["choices"]["mentor"]) == (
        "random",
        "none",
    )
    assert read(baseline, "manifest.json")["command"] == [*words, "mentor=none", "baseline=null"]
    ours, theirs = read(run, "predictions.json"), read(baseline, "predictions.json")
    assert ours["rows"] == theirs["rows"]
    right = [[a == b for a, b in zip(each["soft_prompt"], ours["labels"], strict=True)] for each in (ours, theirs)]
    gains = [int(a) - int(b) for a, b in zip(*right, strict=True)]
    gain, half = 100 * fmean(gains), 196 * stdev(gains) / math.sqrt(len(gains))
    assert "What mentor=random gained over mentor=none" in done.stdout
    told = re.search(r"(\S+) points of accuracy, 95 % interval (\S+) to ([^:\s]+)", done.stdout)
    assert told
    assert told[1] == f"{gain:+.1f}"
    # The interval is a bootstrap's, which for a mean of many rows is near that of the normal distribution.
    assert [float(told[2]), float(told[3])] == pytest.approx([gain - half, gain + half], abs=0.15 * half)
    rows = f"{len(gains)} test rows: {gains.count(1)} are better with it, {gains.count(-1)} without"
    assert f"paired over {rows}" in done.stdout
    # Alone the baseline is the same run.
    alone = catalyst("run", *words, "mentor=none", "hydra.run.dir=alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    for name in ("trajectory.jsonl", "metrics.jsonl", "pool.jsonl", "predictions.json"):
        assert (baseline / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_a_second_time_nothing_is_trained_and_the_gain_is_printed_again(
    catalyst: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    command = ("run", *words, "mentor=best", "baseline=none", "hydra.run.dir=run")
    first, second = (catalyst(*command, cwd=tmp_path) for _ in range(2))
    assert second.stdout.count("finished already, nothing to do") == 2
    assert first.stdout.partition("What mentor=best")[2] == second.stdout.partition("What mentor=best")[2] != ""


@pytest.mark.parametrize(
    "more", [("mentor=none",), ("mentor=random", "dry_run=true"), ("mentor=random", "baseline=null")]
)
def test_there_is_none_without_a_mentor_or_training_or_where_it_is_left_out(
    catalyst: Command, tmp_path: Path, words: tuple[str, ...], more: tuple[str, ...]
) -> None:
    done = catalyst("run", *words, "baseline=none", *more, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gained" not in done.stdout
    assert not (tmp_path / "run_none").exists()


def test_in_a_sweep_it_is_a_job_of_its_own_and_the_table_compares(
    catalyst: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    mentors = ("mentor=none,random", "seed=1,2", "baseline=none", "hydra.sweep.dir=sweep")
    done = catalyst("run", "-m", *words, *mentors, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        sorted(path.parent.name for path in (tmp_path / "sweep").glob("local/*/*/*_seed*"))
        == ["none"] * 2 + ["random"] * 2
    )
    assert "Runs below sweep: compared with none" in done.stdout
    assert "a page with figures and comparisons: catalyst report sweep" in done.stdout


def test_its_folder_stands_beside_that_of_its_mentor() -> None:
    usual = Path("outputs/sst2/roberta/gpt4/2026_seed1")
    assert place_baseline(usual, "gpt4") == Path("outputs/sst2/roberta/none/2026_seed1")
    assert place_baseline(Path("outputs/first"), "gpt4") == Path("outputs/first_none")


def test_its_command_leaves_out_what_belongs_to_the_mentor() -> None:
    words = [
        "experiment=quickstart",
        "+mentor.proposals=2",
        "mentor=gpt4",
        "mentor.client.seed=1",
        "hydra.run.dir=x",
        "seed=3",
    ]
    assert name_command(words) == ["experiment=quickstart", "seed=3", "mentor=none", "baseline=null"]
