"""A run's files: appended whole, committed whole, restored whole, and refused where they are not whole."""

import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
from filelock import FileLock
from helpers.command import no_file_larger_than
from helpers.recorded import (
    CONFIG,
    evaluation,
    exchange,
    manifest,
    outcome,
    restart,
    run_records,
    stage_records,
    write_run,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_catalyst.runs.checkpoints import read_state
from llm_catalyst.runs.reader import FILES, parse_line, read_lines, read_run
from llm_catalyst.runs.records import (
    Evaluation,
    Event,
    LLMCall,
    Manifest,
    Outcome,
    Proposal,
    Score,
    ScoredPrompt,
    Snapshot,
    to_json,
)
from llm_catalyst.runs.run_config import PLACE, REPAIRS
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.utils.validation import ConfigurationError

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
    proposals = [Proposal(next(r for r in records if isinstance(r, ScoredPrompt)).prompt, "why", lost=" tail")]
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


def test_a_state_saved_while_another_thread_writes_agrees_with_the_records(directory: RunDirectory) -> None:
    answers = [exchange(0, "- a film") for _ in range(60)]

    def write() -> None:
        for answer in answers:
            directory.append(answer)

    writer = threading.Thread(target=write)
    writer.start()
    saves = 0
    while writer.is_alive():
        directory.checkpoint(0, saves, tensors(1.0), {"stage": 0, "step": saves})
        read_state(directory.path, directory.saved()[-1])
        saves += 1
    assert saves > 1
    assert len(read_lines(directory.path / FILES[LLMCall], LLMCall)) == len(answers)


def test_what_comes_after_the_run_has_left_its_directory_is_not_written(directory: RunDirectory) -> None:
    directory.append(event(1))
    directory.close()
    with pytest.raises(RuntimeError, match="is closed: its run has ended, or continues in another process"):
        directory.append(event(2))
    assert lines(directory, "events.jsonl")[1:] == [b""]


def test_an_exchange_about_an_earlier_stage_does_not_move_the_run_back(directory: RunDirectory) -> None:
    directory.append(evaluation(1, 7, 0.5, 0.5))
    directory.append(exchange(0, "- a film"))
    assert directory.reached == (1, 7)


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
        (b'{"stage": 0, "step": 0}', r"Evaluation record \(stage, step, member, split, score, .*, projected\)"),
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


def test_a_record_that_does_not_fit_on_the_disk_leaves_no_part_of_itself(directory: RunDirectory) -> None:
    directory.append(event(1))
    before = (directory.path / "events.jsonl").read_bytes()
    with no_file_larger_than(len(before) + 10), pytest.raises(OSError, match="File too large"):
        directory.append(event(2))
    assert (directory.path / "events.jsonl").read_bytes() == before
    directory.append(event(3))
    assert read_run(directory.path).events == (event(1), event(3))


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_one_before_it_and_no_part(
    directory: RunDirectory,
) -> None:
    directory.checkpoint(0, 1, tensors(1.0), {"stage": 0, "step": 1})
    with no_file_larger_than(100), pytest.raises(OSError, match="File too large"):
        directory.checkpoint(0, 2, tensors(2.0), {"stage": 0, "step": 2})
    assert [path.name for path in (directory.path / "stages").iterdir()] == ["00.step000001"]


def test_the_line_of_an_exchange_ends_in_its_checksum(directory: RunDirectory) -> None:
    directory.append(exchange(0, "- a film"))
    (line,) = lines(directory, "exchanges.jsonl")[:-1]
    digest = json.loads(line)["sha256"]
    assert line == to_json(exchange(0, "- a film")).encode()[:-1] + f', "sha256": "{digest}"}}'.encode()
    (directory.path / "exchanges.jsonl").write_bytes(line.replace(b"a film", b"a tilm") + b"\n")
    with pytest.raises(ConfigurationError, match=r"line 1 is not a LLMCall record .*: its sha256 says that it was"):
        read_run(directory.path)


def test_a_line_that_a_killed_run_left_torn_is_not_appended_to(directory: RunDirectory) -> None:
    directory.append(event(1))
    with open(directory.path / "events.jsonl", "ab") as file:
        file.write(b'{"stage"')
    directory.close()
    again = RunDirectory(directory.path)
    again.write_config(CONFIG, manifest())
    again.append(event(2))  # as a session does that is refused before it restores
    again.close()
    assert read_run(directory.path).events == (event(1), event(2))


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


def test_a_save_that_is_replaced_never_stands_there_by_half(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed while it removes the checkpoint before leaves no folder that looks like a save."""
    directory.checkpoint(0, 1, tensors(1.0), {"stage": 0, "step": 1})

    def killed(folder: Path, ignore_errors: bool = False) -> None:
        if folder.exists():
            (folder / "state.json").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            directory.checkpoint(0, 2, tensors(2.0), {"stage": 0, "step": 2})
    assert [folder.name for folder in directory.saved()] == ["00.step000002"]
    restored = directory.restore(directory.append)
    assert restored is not None
    assert restored[1] == {"stage": 0, "step": 2}
    assert [folder.name for folder in (directory.path / "stages").iterdir()] == ["00.step000002"]


def test_a_checkpoint_that_a_killed_run_left_beside_the_save_after_it_is_removed_when_it_goes_on(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last stage nothing is saved any more that would remove it."""
    directory.checkpoint(0, 1, tensors(1.0), {"stage": 0, "step": 1})

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("llm_catalyst.runs.writer.discard_state", killed)
        with pytest.raises(KeyboardInterrupt):
            directory.commit(0, tensors(2.0), {"stage": 1, "step": 1})
    assert [folder.name for folder in directory.saved()] == ["00.step000001", "00"]
    directory.restore(directory.append)
    assert [folder.name for folder in directory.saved()] == ["00"]


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
from llm_catalyst.runs.writer import RunDirectory
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
        [sys.executable, "-c", CLAIM.format(path=str(tmp_path / "run"))], capture_output=True, text=True, timeout=300
    )
    assert (killed.stdout, killed.returncode) == ("taken\n", -9)
    assert (tmp_path / "run" / ".lock").exists()
    RunDirectory(tmp_path / "run").close()


def test_a_run_that_another_process_has_just_finished_is_refused(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends between the first look into the directory and the lock."""
    acquire = FileLock.acquire

    def late(lock: FileLock, **settings: Any) -> Any:
        directory.finish(outcome())
        directory.close()
        return acquire(lock, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(FileLock, "acquire", late)
        with pytest.raises(ConfigurationError, match="holds a finished run"):
            RunDirectory(directory.path)
    with FileLock(directory.path / ".lock", timeout=0):
        pass  # it is free


@pytest.mark.parametrize("name", ["metrics.jsonl", "stages"])
def test_what_belongs_to_no_known_run_is_neither_taken_nor_changed(tmp_path: Path, name: str) -> None:
    content = b"my own notes"
    (tmp_path / "stages").mkdir() if name == "stages" else (tmp_path / name).write_bytes(content)
    directory = RunDirectory(tmp_path)
    with pytest.raises(ConfigurationError, match=rf"holds {name}, but no manifest.json; put it back, or choose"):
        directory.write_config(CONFIG, manifest())
    directory.close()
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {name}
    assert name == "stages" or (tmp_path / name).read_bytes() == content


def test_an_unfinished_run_is_gone_on_with_only_under_its_own_configuration(directory: RunDirectory) -> None:
    later = replace(manifest(), started="2030-01-01T00:00:00+00:00")
    directory.write_config(CONFIG, later)
    assert read_run(directory.path).manifest == manifest()
    with pytest.raises(
        ConfigurationError, match=r"another configuration \(seed=3 there and 4 here\); leave these keys"
    ):
        directory.write_config(CONFIG.replace("seed: 3", "seed: 4"), later)
    assert (directory.path / "config.yaml").read_text() == CONFIG
    assert read_run(directory.path).manifest == manifest()


def with_files(commit: str | None = None, **files: str) -> Manifest:
    return replace(manifest(), backbone={"name": "m", "location": "./m", "commit": commit, "files": files})


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_run_does_not_go_on_with_another_model_or_tokenizer_at_the_same_place(tmp_path: Path, name: str) -> None:
    files = {"model.safetensors": "aa", "config.json": "bb", "tokenizer.json": "cc"}
    directory = RunDirectory(tmp_path)
    directory.write_config(CONFIG, with_files(**files))
    directory.write_config(CONFIG, with_files(**files))
    for changed in (files | {name: "dd"}, {key: files[key] for key in files if key != name}):
        with pytest.raises(ConfigurationError, match=rf"model or its tokenizer has changed .* {name} of \./m .*"):
            directory.write_config(CONFIG, with_files(**changed))
    with pytest.raises(ConfigurationError, match=r"other content in vocab\.txt of"):
        directory.write_config(CONFIG, with_files(**files, **{"vocab.txt": "ee"}))
    directory.close()


def test_a_run_goes_on_where_no_checksums_are_known_or_the_hubs_cache_holds_more(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "before")
    directory.write_config(CONFIG, manifest())  # of a revision that recorded none
    directory.write_config(CONFIG, with_files(**{"config.json": "aa"}))
    directory.close()
    directory = RunDirectory(tmp_path / "hub")
    directory.write_config(CONFIG, with_files("abc", **{"config.json": "aa"}))
    directory.write_config(CONFIG, with_files("abc", **{"config.json": "aa", "vocab.txt": "bb"}))
    with pytest.raises(ConfigurationError, match=r"other content in config\.json"):
        directory.write_config(CONFIG, with_files("abd", **{"config.json": "bb"}))
    directory.close()


@pytest.mark.parametrize(
    ("key", "goes_on", "is_the_same"),
    [
        ("device", True, True),
        ("budget.usd", True, True),
        ("task.path", True, True),
        ("mentor.client.retry_s", True, True),
        ("mentor.client.at_once", True, True),
        ("mentor.client.per_minute", True, True),
        ("mentor.overlap", False, False),
        ("mentor.fallbacks[0].client.model", True, False),
        ("mentor.attempts", True, False),
        ("mentor.client.base_url", True, False),
        ("mentor.client.model", True, False),
        ("mentor.on_unusable", True, False),
        ("mentor.client._target_", False, False),
        ("mentor.client.temperature", True, False),
        ("optimizer.lr", False, False),
        ("seed", False, False),
    ],
)
def test_what_may_change_when_a_run_goes_on_and_what_makes_it_another_run(
    key: str, goes_on: bool, is_the_same: bool
) -> None:
    assert bool(re.fullmatch(f"{PLACE}|{REPAIRS}", key)) is goes_on
    assert bool(re.fullmatch(PLACE, key)) is is_the_same


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


# --- any bytes, any record

KINDS = (*FILES, Manifest, Outcome)
LEGIBLE = st.text(max_size=8)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)  # halves of surrogate pairs, too
FINITE = st.floats(allow_nan=False, allow_infinity=False)
HUGE = 10**600
EXAMPLES = [50, pytest.param(1000, marks=pytest.mark.slow)]


def values(hint: Any, text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Any values of a field's type, or of a record: texts as given, numbers of any size that JSON has."""
    arguments = get_args(hint)
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, **{name: values(kind, text) for name, kind in hints.items()})
    if get_origin(hint) is Literal:
        return st.sampled_from(arguments)
    if get_origin(hint) in (Union, UnionType):
        return st.one_of([values(argument, text) for argument in arguments])
    if get_origin(hint) is tuple and arguments[-1] is not Ellipsis:
        return st.tuples(*[values(argument, text) for argument in arguments])
    if get_origin(hint) is tuple:
        return st.lists(values(arguments[0], text), max_size=3).map(tuple)
    if get_origin(hint) is Mapping:
        return st.dictionaries(text, values(arguments[1], text), max_size=3)
    numbers = st.integers(-HUGE, HUGE)
    anything = st.dictionaries(text, text | numbers | st.lists(FINITE), max_size=2)
    return {str: text, float: FINITE, int: numbers, bool: st.booleans(), NoneType: st.none(), Any: anything}[hint]


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_record_with_any_text_is_written_on_a_line_and_read_back_as_it_was(kind: type[Any], examples: int) -> None:
    @settings(max_examples=examples)
    @given(values(kind, LEGIBLE | ANY_TEXT))
    def check(record: Any) -> None:
        line = to_json(record)
        assert line.isascii()
        assert "\n" not in line
        again = parse_line(kind, line.encode(), "a line")
        assert to_json(again) == line  # in which -0.0 is not 0.0, and 1 not 1.0
        assert again == record or re.search(r"[\ud800-\udfff]", "".join(texts_in(asdict(record))))

    check()


def texts_in(node: Any) -> Iterator[str]:
    """Every text of nested records, keys included."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        yield from texts_in([*node.keys(), *node.values()])
    elif isinstance(node, tuple | list):
        yield from itertools.chain.from_iterable(map(texts_in, node))


def read_or_refused(path: Path, kind: type[Any], content: bytes) -> None:
    """Reads a file of these bytes: each whole line is a record, or the first that is none is named."""
    path.unlink(missing_ok=True)  # to write over a file waits for the disk
    path.write_bytes(content)
    try:
        records, message = read_lines(path, kind), ""
    except ConfigurationError as error:
        message = str(error)
        number = re.match(rf"{re.escape(str(path))}, line (\d+) is not an? {kind.__name__} record \(", message)
        good = content.split(b"\n")[: int(number[1]) - 1 if number else None]
        content = b"".join(line + b"\n" for line in good)
        path.unlink()
        path.write_bytes(content)
        records = read_lines(path, kind)
    assert message.isprintable()
    assert len(records) == content.count(b"\n")
    assert all(isinstance(record, kind) for record in records)


JSONISH = st.lists(st.sampled_from([*'{}[]":,\n\n\\ue-1.', "stage", "null", "\x1b[31m", "\x00", "é"]), max_size=30)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_bytes_are_read_or_refused_by_file_and_line(tmp_path: Path, examples: int) -> None:
    @settings(max_examples=examples)
    @given(st.binary(max_size=60) | JSONISH.map(lambda pieces: "".join(pieces).encode()))
    def check(content: bytes) -> None:
        for kind in FILES:
            read_or_refused(tmp_path / "x.jsonl", kind, content)

    check()


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("kind", FILES)
def test_lines_that_were_damaged_anyhow_are_read_or_refused_by_file_and_line(
    kind: type[Any], tmp_path: Path, examples: int
) -> None:
    directory = RunDirectory(tmp_path / "run")
    for record in [r for r in (*run_records(2), event(1)) if isinstance(r, kind)][:3]:
        directory.append(record)
    directory.close()
    whole = (tmp_path / "run" / FILES[kind]).read_bytes()
    place = st.integers(0, len(whole))

    @settings(max_examples=examples)
    @given(st.lists(st.tuples(place, st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=3))
    def check(damages: list[tuple[int, int, bytes]]) -> None:
        content = whole
        for at, lost, added in damages:
            content = content[:at] + added + content[at + lost :]
        read_or_refused(tmp_path / "x.jsonl", kind, content)

    check()
