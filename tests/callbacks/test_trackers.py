"""TensorBoard's and W&B's files, read back by themselves: what they hold, what a resume and a fault leave of them."""

import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.command import no_file_larger_than
from helpers.recorded import CONFIG, HOSTILE, OVERVIEW, PLAN, evaluation, outcome, prompt, run_records, write_run
from helpers.tiny_models import StoppingView, Stops, adamw, run_in, toy_problem
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from llm_catalyst.callbacks.base import CallbackList, RunCallback, RunInfo
from llm_catalyst.callbacks.trackers import Tracker, Values, collect_values, make_trackers
from llm_catalyst.cli.run import run_command
from llm_catalyst.mentors.controls import RandomTokens
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.runs.records import Score, Snapshot
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.training.loop import Experiment
from llm_catalyst.utils.signals import RunInterrupted
from llm_catalyst.utils.validation import ConfigurationError

SETTINGS = yaml.safe_load(CONFIG)
KEY = "0123456789abcdef" * 3


def track(path: Path, name: str = "tensorboard") -> Tracker:
    """A tracker of the run in `path` that has begun."""
    (tracker,) = make_trackers([name], path, SETTINGS)
    tracker.on_run_start(OVERVIEW)
    return tracker


def events(path: Path) -> EventAccumulator:
    """All that TensorBoard reads of a run."""
    everything = {"scalars": 0, "tensors": 0}
    return EventAccumulator(str(path / "tensorboard"), everything, purge_orphaned_data=False).Reload()


def scalars(path: Path) -> dict[str, dict[int, float]]:
    """Each tag's values by step; a step that stands there twice is refused."""
    read = events(path)
    found = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    assert [tag for tag, points in found.items() if len(dict(points)) < len(points)] == []
    return {tag: dict(points) for tag, points in found.items()}


def texts(path: Path) -> dict[str, list[str]]:
    read = events(path)
    tags = [tag for tag in read.Tags()["tensors"] if tag.endswith("/text_summary")]
    return {
        tag.removesuffix("/text_summary"): [e.tensor_proto.string_val[0].decode() for e in read.Tensors(tag)]
        for tag in tags
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, tracked by TensorBoard from its first record to its outcome."""
    path = tmp_path_factory.mktemp("runs") / "run"
    directory = RunDirectory(path)
    (tracker,) = make_trackers(["tensorboard"], path, SETTINGS)
    tracker.on_run_start(OVERVIEW)
    for record in run_records():
        directory.append(record)
        tracker.on_record(record)
    tracker.on_run_end(outcome())
    directory.close()
    return path


# --- what is shown


def test_tensorboard_shows_every_figure_of_the_records_at_its_step(finished: Path) -> None:
    found = scalars(finished)
    assert found["train/loss"] == pytest.approx({step: 0.7 - step / 2000 for step in range(10, 801, 10)})
    assert found["dev/accuracy"][0] == pytest.approx(0.491)
    assert set(found["dev/loss"]) == set(found["dev/macro_f1"]) == set(range(0, 801, 50))
    assert set(found["restart/dev_loss"]) == set(found["restart/dev_loss_before"]) == {200, 400}
    assert found["outcome/test_metric"] == {0: pytest.approx(0.8712)}
    assert found["outcome/cost_usd"] == {0: pytest.approx(0.00246)}


def test_tensorboard_shows_prompts_and_restarts_as_text(finished: Path) -> None:
    found = texts(finished)
    assert found["prompt/text"][0] == '    "sombre10 film ##ness told verdict"'
    assert len(found["restart/text"]) == 2
    assert "best of 3" in found["restart/text"][0]
    assert '0.6400  "1. Verdict:"' in found["restart/text"][0]
    assert found["outcome/best_prompt"] == ["    Feel the tone of the review"]


def test_text_of_a_model_is_shown_as_it_is_and_not_as_markdown(tmp_path: Path) -> None:
    tracker = track(write_run(tmp_path / "run", stages=0, finished=False))
    tracker.on_record(evaluation(0, 0, 0.7, 0.5))
    tracker.on_record(Snapshot(0, 10, 0, 0.7, prompt(HOSTILE), 0.6))
    tracker.on_run_end(outcome(HOSTILE))
    shown = [line for found in texts(tmp_path / "run").values() for text in found for line in text.split("\n")]
    assert any("<script>" in line for line in shown)
    assert all(line.startswith("    ") and line.isprintable() for line in shown)


def test_prompts_side_by_side_have_their_own_names() -> None:
    assert set(collect_values(evaluation(0, 50, 0.6, 0.5, member=2))) == {
        "dev/loss/3",
        "dev/accuracy/3",
        "dev/macro_f1/3",
    }
    projected = replace(evaluation(0, 50, 0.6, 0.5), projected=Score(0.9, 0.4, 400))
    shown = collect_values(projected)
    assert (shown["dev/projected_loss"], shown["dev/projected_metric"]) == (0.9, 0.4)


def test_what_is_unknown_is_no_figure(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", finished=False, fails=True)  # a call of unknown price
    tracker = track(path)
    tracker.on_run_end(replace(outcome(), status="diverged", best=None, test=None, test_metrics={}))
    found = scalars(path)
    assert not {"outcome/cost_usd", "outcome/input_tokens", "outcome/test_metric"} & set(found)
    assert found["outcome/mentor_calls"] == {0: 2}
    assert texts(path)["outcome/status"] == ["    diverged"]


# --- resumption


def carry_out(path: Path, tracked: bool, stop_at: int | None = None) -> None:
    """A tiny run of three stages, or the rest of it, as a session carries it out."""
    problem = toy_problem()
    experiment = Experiment(problem, Backprop(adamw), RandomTokens(), (3, 3, 3))
    shown = StoppingView(stop_at) if stop_at else RunCallback()
    view = CallbackList(*make_trackers(["tensorboard"] if tracked else [], path, SETTINGS), shown)
    path.mkdir(exist_ok=True)
    view.on_run_start(RunInfo("toy", str(path), (3, 3, 3), 0.5, "accuracy"))
    try:
        ended = run_in(path, experiment, view)
    except Stops:
        view.on_run_end(None)
        raise
    view.on_run_end(ended)


def files(path: Path) -> dict[str, bytes]:
    """The run's own files, but for what the clock says in them."""
    paths = (file for file in path.rglob("*") if file.is_file() and "tensorboard" not in file.parts)
    timed = re.compile(rb'"(seconds|finished|peak_memory_bytes)": [^,}]*|\b[0-9a-f]{64}\b')
    return {file.relative_to(path).as_posix(): timed.sub(b"", file.read_bytes()) for file in paths}


def test_a_resumed_run_shows_each_step_once_and_what_an_uninterrupted_one_shows(tmp_path: Path) -> None:
    carry_out(tmp_path / "plain", tracked=False)
    carry_out(tmp_path / "whole", tracked=True)
    with pytest.raises(Stops):
        carry_out(tmp_path / "cut", tracked=True, stop_at=6)
    assert set(scalars(tmp_path / "cut")["train/loss"]) == {1, 2, 3, 4, 5}
    carry_out(tmp_path / "cut", tracked=True)
    whole, cut = (scalars(tmp_path / name) for name in ("whole", "cut"))
    assert set(whole["train/loss"]) == set(range(1, 10))
    same = [tag for tag in whole if tag not in ("outcome/seconds", "outcome/peak_memory_bytes")]
    assert {tag: cut[tag] for tag in same} == {tag: whole[tag] for tag in same}
    # The date of the end is that of the clock, in seconds: the two runs may end in different ones.
    cut_texts, whole_texts = ({**texts(tmp_path / name), "outcome/finished": None} for name in ("cut", "whole"))
    assert cut_texts == whole_texts
    assert files(tmp_path / "plain") == files(tmp_path / "whole")


def test_a_run_that_is_stopped_again_before_its_first_record_keeps_what_was_shown(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", stages=1, finished=False)
    track(path).on_run_end(None)
    assert set(scalars(path)["train/loss"]) == set(range(10, PLAN[0] + 1, 10))
    assert "outcome/status" not in texts(path)


def test_a_run_of_the_command_line_is_tracked_where_its_configuration_says_so(
    tiny_task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"task=local task.path={tiny_task} backbone=minilm head=similarity mentor=random stages=2 stage.steps=1"
    words += f" batch_size=4 prompt.length=3 view=none device=cpu hydra.run.dir={tmp_path}/run"
    with pytest.raises(SystemExit):
        run_command([*words.split(), "track=[tensorbord]"])
    assert "track=tensorbord is not known; there are: tensorboard, wandb" in capsys.readouterr().err
    run_command([*words.split(), "track=[tensorboard]"])
    found = scalars(tmp_path / "run")
    assert set(found["dev/loss"]) == {0, 1, 2}
    assert set(found["restart/dev_loss"]) == {1}
    assert "outcome/test_metric" in found


# --- faults


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
def test_a_disk_that_is_full_for_tensorboard_ends_its_figures_and_not_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, threads = write_run(tmp_path / "run", finished=False), set(threading.enumerate())
    with no_file_larger_than(4096):
        tracker = track(path)
        for record in run_records():
            tracker.on_record(record)
        tracker.on_run_end(outcome())
    for thread in {*threading.enumerate()} - threads:
        thread.join()
    assert capsys.readouterr().err.count("warning: track=[tensorboard] failed; the run continues without it") == 1


def test_a_folder_that_tensorboard_cannot_make_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(tmp_path / "run", finished=False)
    (path / "tensorboard").write_text("not a folder")
    tracker = track(path)
    tracker.on_record(evaluation(0, 0, 0.7, 0.5))
    tracker.on_run_end(outcome())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: track=[tensorboard] failed; the run continues without it (")


class Faulty(Tracker):
    """A tracker that raises this in one of its methods, and notes what it was asked."""

    name = "wandb"

    def __init__(self, path: Path, at: str, error: BaseException) -> None:
        super().__init__(path, SETTINGS)
        self.at, self.error = at, error
        self.asked: list[str] = []

    def open_log(self, info: RunInfo) -> None:
        self._do("open")

    def add_values(self, step: int, values: Values) -> None:
        self._do("add")

    def close_log(self, result: Values | None) -> None:
        self._do("close")

    def _do(self, what: str) -> None:
        self.asked.append(what)
        if what == self.at:
            raise self.error


@pytest.mark.parametrize("at", ["open", "add", "close"])
def test_after_a_fault_a_log_is_asked_nothing_more(tmp_path: Path, capsys: pytest.CaptureFixture[str], at: str) -> None:
    tracker = Faulty(write_run(tmp_path / "run", finished=False), at, RuntimeError("\x1b[31mno network"))
    tracker.on_run_start(OVERVIEW)
    tracker.on_record(evaluation(0, 50, 0.6, 0.5))
    tracker.on_run_end(outcome())
    tracker.on_run_end(None)
    assert tracker.asked.count(at) == 1
    assert tracker.asked[-1] == at
    assert capsys.readouterr().err == (
        "warning: track=[wandb] failed; the run continues without it (RuntimeError: \\x1b[31mno network)\n"
    )


def test_a_signal_within_a_log_is_not_swallowed(tmp_path: Path) -> None:
    tracker = Faulty(write_run(tmp_path / "run", finished=False), "add", RunInterrupted(15))
    tracker.on_run_start(OVERVIEW)
    with pytest.raises(RunInterrupted):
        tracker.on_record(evaluation(0, 50, 0.6, 0.5))


def test_a_library_that_is_not_installed_is_named_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    for name in ("tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(
            ConfigurationError, match=rf"track=\[{name}\] needs .*: pip install {name}, or leave it out"
        ):
            make_trackers([name], tmp_path, SETTINGS)
    assert list(tmp_path.iterdir()) == []


# --- Weights & Biases


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The library, with a key in its environment and a home of its own."""
    library = pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_API_KEY": KEY, "HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    library.teardown()  # it reads its environment once
    yield library
    library.teardown()


def wandb_files(path: Path) -> list[Path]:
    """The files of a run that W&B uploads from, each a folder's."""
    return sorted((path / "wandb").glob("offline-run-*/*.wandb"))


def test_wandb_logs_a_run_offline_and_anew_where_it_is_resumed(wandb: Any, tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", finished=False)
    track(path, "wandb").on_run_end(None)
    (cut,) = wandb_files(path)
    assert b"outcome/" not in cut.read_bytes()
    track(path, "wandb").on_run_end(outcome())
    (whole,) = wandb_files(path)
    assert whole.name == cut.name  # the same run of W&B
    content = whole.read_bytes()
    for word in ("train/loss", "dev/accuracy", "restart/text", "outcome/test_metric", "sst2", "sombre800 film"):
        assert word.encode() in content


def test_the_key_of_wandb_reaches_no_file(wandb: Any, tmp_path: Path) -> None:
    track(write_run(tmp_path / "run", finished=False), "wandb").on_run_end(outcome())
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == "debug.log" for file in written)
    assert [file for file in written if KEY.encode() in file.read_bytes()] == []


@pytest.mark.parametrize(
    ("key", "words"), [("", "no key of W&B: call `wandb login`, or set WANDB_MODE=offline"), ("k", "API_KEY invalid")]
)
def test_without_a_usable_key_wandb_is_refused_before_any_work(
    wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, words: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", key)
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        make_trackers(["wandb"], tmp_path / "run", SETTINGS)
