"""A run's files: appended whole, committed whole, restored whole, and refused where they are not whole."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded import CONFIG, evaluation, exchange, manifest, outcome, restart, stage_records, write_run

from llm_catalyst.checks import ConfigurationError
from llm_catalyst.records import Evaluation, Event, Proposal, Score, Scored, Snapshot, to_json
from llm_catalyst.run_directory import FILES, RunDirectory, read_run

PROMPT = evaluation(0, 0, 0.5, 0.5)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RunDirectory]:
    """A run directory with its configuration in it."""
    directory = RunDirectory(tmp_path / "run")
    directory.write_config(CONFIG, manifest())
    yield directory
    directory.close()


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"member0/prompt": torch.full((2, 3), value), "best/prompt": torch.arange(6.0).reshape(2, 3).T}


def no_space(*_: Any) -> None:
    raise OSError("no space")


def event(step: int) -> Event:
    return Event(0, step, "note", f"step {step}")


def lines(directory: RunDirectory, name: str) -> list[bytes]:
    return (directory.path / name).read_bytes().split(b"\n")


# --- records


def test_what_was_appended_is_read_back_as_it_was(directory: RunDirectory) -> None:
    records = [*stage_records(0, "é好\u2028 "), exchange(0, "- a film\r\n- a tone\u2029"), event(1)]
    proposals = [Proposal(next(r for r in records if isinstance(r, Scored)).prompt, "why", lost=" tail")]
    records.append(restart(0, proposals, [0.5], 0.6))
    for record in records:
        directory.append(record)
    directory.finish(outcome("é"))
    run = read_run(directory.path)
    read = [*run.trajectory, *run.pool, *run.restarts, *run.exchanges, *run.metrics, *run.events]
    assert sorted(map(to_json, read)) == sorted(map(to_json, records))
    assert {type(record) for record in records} == set(FILES)
    assert run.outcome == outcome("é")
    assert run.manifest == manifest()


def test_every_line_is_ascii_json_and_ends_in_a_line_end(directory: RunDirectory) -> None:
    directory.append(Event(0, 0, "note", 'é\u2028\n"\x00'))
    content = (directory.path / "events.jsonl").read_bytes()
    assert content.isascii()
    assert content.count(b"\n") == 1
    assert content.endswith(b"}\n")
    assert json.loads(content)["message"] == 'é\u2028\n"\x00'


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_raises_and_writes_nothing(directory: RunDirectory, number: float) -> None:
    directory.append(PROMPT)
    before = (directory.path / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        directory.append(replace(PROMPT, score=Score(number, 0.5, 8)))
    with pytest.raises(ValueError, match="not JSON compliant"):
        directory.append(replace(PROMPT, metrics={"accuracy": number}))
    assert (directory.path / "metrics.jsonl").read_bytes() == before
    with pytest.raises(ValueError, match="not JSON compliant"):
        directory.finish(replace(outcome(), seconds=number))
    assert not (directory.path / "outcome.json").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"stage": 0, "step": 0}', r"Evaluation record \(stage, step, member, split, score, metrics, constant\)"),
        (b"not json", "Evaluation record"),
        (b"", "Evaluation record"),
        (to_json(event(1)).encode(), "Evaluation record"),
        (to_json(PROMPT).replace("0.5", "null", 1).encode(), "Evaluation record"),
    ],
)
def test_a_broken_line_is_named_by_file_and_number(directory: RunDirectory, line: bytes, words: str) -> None:
    good = to_json(PROMPT).encode()
    (directory.path / "metrics.jsonl").write_bytes(good + b"\n" + line + b"\n" + good + b"\n")
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_run(directory.path)
    assert str(caught.value).startswith(f"{directory.path / 'metrics.jsonl'}, line 2 ")


def test_a_torn_last_line_does_not_count_when_it_is_read(directory: RunDirectory) -> None:
    directory.append(event(1))
    directory.append(event(2))
    path = directory.path / "events.jsonl"
    whole = path.read_bytes()
    for cut in range(1, len(whole.split(b"\n")[1]) + 1):
        path.write_bytes(whole[:-cut])
        assert read_run(directory.path).events == (event(1),)


def test_a_run_without_an_outcome_is_unfinished(directory: RunDirectory) -> None:
    directory.append(event(1))
    assert read_run(directory.path).outcome is None


# --- commit and restore


def test_a_new_directory_restores_to_nothing(directory: RunDirectory) -> None:
    assert directory.restore(directory.append) is None


def test_a_committed_stage_is_restored_as_it_was(directory: RunDirectory) -> None:
    directory.commit(0, tensors(1.0), {"stage": 1, "pool": [0.1]})
    directory.commit(1, tensors(2.5), {"stage": 2, "step": 9, "pool": [0.1, 1e-30]})
    restored = directory.restore(directory.append)
    assert restored is not None
    read, state = restored
    assert state == {"stage": 2, "step": 9, "pool": [0.1, 1e-30]}
    assert read.keys() == tensors(2.5).keys()
    assert all(torch.equal(read[name], tensors(2.5)[name]) for name in read)


def test_the_latest_of_more_than_a_hundred_stages_is_restored(directory: RunDirectory) -> None:
    for stage in (9, 10, 99, 100):
        directory.commit(stage, tensors(float(stage)), {"stage": stage + 1, "step": 0})
        restored = directory.restore(directory.append)
        assert restored is not None
        assert restored[1] == {"stage": stage + 1, "step": 0}


def test_what_was_written_after_the_last_whole_stage_is_cut_off(directory: RunDirectory) -> None:
    directory.append(event(1))
    directory.append(PROMPT)
    directory.commit(0, tensors(1.0), {"stage": 1, "step": 0})
    before = {name: (directory.path / name).read_bytes() for name in ("events.jsonl", "metrics.jsonl")}
    directory.append(event(2))
    directory.append(Snapshot(1, 3, 0, 0.5, outcome().best_prompt.prompt, 0.5))  # type: ignore[union-attr]
    with open(directory.path / "metrics.jsonl", "ab") as file:
        file.write(b'{"stage": 1, "st')
    directory.restore(directory.append)
    assert {name: (directory.path / name).read_bytes() for name in before} == before
    assert (directory.path / "trajectory.jsonl").read_bytes() == b""
    directory.append(event(2))
    assert read_run(directory.path).events == (event(1), event(2))


def test_without_a_whole_stage_a_run_starts_with_empty_files(directory: RunDirectory) -> None:
    directory.append(event(1))
    with open(directory.path / "events.jsonl", "ab") as file:
        file.write(b'{"stage"')
    assert directory.restore(directory.append) is None
    assert (directory.path / "events.jsonl").read_bytes() == b""


def test_half_a_commit_is_ignored_and_done_again(directory: RunDirectory) -> None:
    directory.append(event(1))
    directory.commit(0, tensors(1.0), {"stage": 1, "step": 0})
    part = directory.path / "stages" / "01.part"
    part.mkdir()
    (part / "state.safetensors").write_bytes(b"half")
    restored = directory.restore(directory.append)
    assert restored is not None
    assert restored[1] == {"stage": 1, "step": 0}
    directory.commit(1, tensors(2.0), {"stage": 2, "step": 0})
    restored = directory.restore(directory.append)
    assert restored is not None
    assert restored[1] == {"stage": 2, "step": 0}
    assert sorted(p.name for p in (directory.path / "stages").iterdir()) == ["00", "01"]


def test_a_commit_that_fails_leaves_the_stage_before_it(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.commit(0, tensors(1.0), {"stage": 1, "step": 0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        directory.commit(1, tensors(2.0), {"stage": math.nan, "step": 0})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", no_space)
        with pytest.raises(OSError, match="no space"):
            directory.commit(1, tensors(2.0), {"stage": 2, "step": 0})
    restored = directory.restore(directory.append)
    assert restored is not None
    assert restored[1] == {"stage": 1, "step": 0}


def test_the_sums_of_a_saved_state_are_those_that_sha256sum_checks(directory: RunDirectory) -> None:
    directory.commit(0, tensors(1.0), {"stage": 1, "step": 0})
    folder = directory.path / "stages" / "00"
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.stdout == "state.safetensors: OK\nstate.json: OK\n"


# --- who may write


def test_a_finished_run_is_refused_with_the_command_that_shows_it(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", stages=1)
    with pytest.raises(ConfigurationError, match=re.escape(f"{path} holds a finished run; see it with: catalyst show")):
        RunDirectory(path)


CLAIM = """
import os, sys
from pathlib import Path
from llm_catalyst.run_directory import RunDirectory
try:
    directory = RunDirectory(Path({path!r}))
    print("taken", flush=True)
    os.kill(os.getpid(), 9)
except ValueError as error:
    print(error)
"""


def test_a_second_writer_is_refused_until_the_first_has_closed(
    directory: RunDirectory, python: Callable[[str], str]
) -> None:
    with pytest.raises(ConfigurationError, match="is being written by another process"):
        RunDirectory(directory.path)
    answer = python(CLAIM.format(path=str(directory.path)))
    assert "is being written by another process; wait for it or stop it" in answer
    directory.close()
    RunDirectory(directory.path).close()


def test_the_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", CLAIM.format(path=str(tmp_path / "run"))], capture_output=True, text=True, timeout=60
    )
    assert (killed.stdout, killed.returncode) == ("taken\n", -9)
    assert (tmp_path / "run" / ".lock").exists()
    RunDirectory(tmp_path / "run").close()


def test_an_unfinished_run_is_gone_on_with_only_under_its_own_configuration(directory: RunDirectory) -> None:
    later = replace(manifest(), started="2030-01-01T00:00:00+00:00")
    directory.write_config(CONFIG, later)
    assert read_run(directory.path).manifest == manifest()
    with pytest.raises(ConfigurationError, match=r"another configuration \(seed=3 there and 4 here\); choose another"):
        directory.write_config(CONFIG.replace("seed: 3", "seed: 4"), later)
    assert (directory.path / "config.yaml").read_text() == CONFIG
    assert read_run(directory.path).manifest == manifest()


def test_a_folder_without_a_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a run directory \(no manifest\.json\)"):
        read_run(tmp_path)


def test_the_outcome_is_never_there_by_half(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="no space"):
            directory.finish(outcome())
    assert not (directory.path / "outcome.json").exists()
    directory.finish(outcome())
    assert isinstance(read_run(directory.path).outcome, type(outcome()))
    assert not list(directory.path.glob("*.part"))


def test_each_kind_of_record_has_its_own_file() -> None:
    assert len(set(FILES.values())) == len(FILES) == 6
    assert FILES[Evaluation] == "metrics.jsonl"
