"""Disks that are full, read-only or shared, and directories that were moved: with the installed command."""

import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.command import Command
from helpers.loopback import Loopback, openai_chat, serve
from helpers.tiny_models import folder

from llm_catalyst.runs.reader import read_json, read_run
from llm_catalyst.runs.records import Outcome
from llm_catalyst.runs.verify import verify_run

pytestmark = pytest.mark.slow

SAME = ("config.yaml", "trajectory.jsonl", "pool.jsonl", "restarts.jsonl", "metrics.jsonl")
# Each place where a disk can become full writes a larger file than the one before: a record, a checkpoint, an answer.
REPLY = "- slow music\n- a very good film\n- bad bad actor\n" + "\nThat is all. " * 5000
SMALLER_THAN_A_CHECKPOINT, SMALLER_THAN_AN_ANSWER = 8_000, 50_000
PAGE = resource.getpagesize()
BEGUN = ("config.yaml", "resolved.json", "manifest.json", "SHA256SUMS")  # what a run writes before its first record

FULL = (
    "error: the run directory: No space left on device; "
    "free some space and resume the run, or start it again if it saved nothing yet"
)
LIMITED = "error: the run directory: File too large; raise the limit of file sizes (ulimit -f) and resume the run"


@dataclass(frozen=True)
class Ended:
    """A command's end, and the names of the record files and saved states that it left."""

    code: int
    said: str
    left: frozenset[str]


class Disk:
    """Starts runs of one kind, each in a directory of its own, and waits for them."""

    def __init__(self, catalyst: Command, task: Path, home: Path, url: str) -> None:
        self.catalyst, self.home = catalyst, home
        self.words = (
            *("task=local", f"task.path={task}", "backbone=bert_base", f"backbone.name={folder('bert')}"),
            *("batch_size=8", "prompt.length=24", "pool.candidates=3", "stage.steps=[3,3]", "record.steps=1"),
            *("evaluate.steps=3", "checkpoint.every=1", "threads=1", "view=none", "mentor=openai_compatible"),
            *("mentor.client.model=gpt-4o-mini", f"mentor.client.base_url={url}/v1"),
        )

    def start(self, path: Path, **environment: str) -> "subprocess.Popen[str]":
        return self.catalyst.start("run", *self.words, f"hydra.run.dir={path}", cwd=self.home, **environment)

    def resume(self, path: Path, **environment: str) -> "subprocess.Popen[str]":
        return self.catalyst.start("resume", str(path), cwd=self.home, **environment)

    def end(self, process: "subprocess.Popen[str]", path: Path) -> Ended:
        out, err = process.communicate(timeout=200)
        left = {file.name for file in path.glob("*.jsonl") if file.stat().st_size}
        return Ended(process.returncode, out + err, frozenset(left | {f.name for f in path.glob("stages/*")}))

    def wait_for(self, process: "subprocess.Popen[str]", file: Path) -> None:
        """Until the file is there, or the process has ended."""
        while not file.exists() and process.poll() is None:
            time.sleep(0.0005)


def limit(process: "subprocess.Popen[str]", size: int) -> "subprocess.Popen[str]":
    """Let no file that the process writes become larger, in bytes."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    return process


@dataclass(frozen=True)
class Story:
    """What a run met with on its way, by the name of the place, and where it came to its end."""

    met: dict[str, Ended]
    path: Path


def limited(disk: Disk) -> Story:
    """A run whose files may not grow: at its first record, at a checkpoint, at an answer; then it is moved and ends."""
    path = disk.home / "limited"
    process = disk.start(path)
    disk.wait_for(process, path / "manifest.json")
    met = {"a record": disk.end(limit(process, 0), path)}
    for place, size in (("a checkpoint", SMALLER_THAN_A_CHECKPOINT), ("an answer", SMALLER_THAN_AN_ANSWER)):
        met[place] = disk.end(limit(disk.resume(path), size), path)
    shutil.copytree(path, disk.home / "copied")
    moved = Path(shutil.move(path, disk.home / "elsewhere" / "moved"))
    return Story({**met, "the end": disk.end(disk.resume(moved), moved)}, moved)


def mount(path: Path, *options: str) -> None:
    """A disk in memory. Skips the test where that may not be mounted."""
    path.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", path], capture_output=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")


def remount(path: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", path], check=True)


def filled(disk: Disk, mounted: Path, files: Path) -> Story:
    """A run on a disk that is full at the same places, and is made larger each time."""
    path = mounted / "run"
    begun = sum(-(-(files / name).stat().st_size // PAGE) for name in BEGUN)
    met = {}
    # A record file takes a page, a saved state seven (two are there while one is saved), an answer about twenty.
    for place, pages in (("a record", begun), ("a checkpoint", begun + 4), ("an answer", begun + 22)):
        remount(mounted, f"size={pages * PAGE}")
        process = disk.resume(path) if met else disk.start(path)
        met[place] = disk.end(process, path)
    remount(mounted, "size=16m")
    return Story({**met, "the end": disk.end(disk.resume(path), path)}, path)


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    """A model that gives the same long answer each time it is asked."""
    with serve(*[openai_chat(REPLY)] * 20) as loopback:
        yield loopback


@pytest.fixture(scope="module")
def disk(catalyst: Command, tiny_task: Path, tmp_path_factory: pytest.TempPathFactory, server: Loopback) -> Disk:
    disk = Disk(catalyst, tiny_task, tmp_path_factory.mktemp("disk"), server.url)
    (disk.home / "elsewhere").mkdir()
    return disk


@dataclass(frozen=True)
class Shared:
    """A run, a second process that was sent into its directory meanwhile, and how the first one ended."""

    second: Ended
    first: Ended
    path: Path


def shared(disk: Disk) -> Shared:
    path = disk.home / "shared"
    process = disk.start(path)
    disk.wait_for(process, path / "trajectory.jsonl")
    process.send_signal(signal.SIGSTOP)
    try:
        second = disk.end(disk.resume(path), path)
    finally:
        process.send_signal(signal.SIGCONT)
    return Shared(second, disk.end(process, path), path)


@pytest.fixture(scope="module")
def started(disk: Disk) -> Iterator[dict[str, Future[Any]]]:
    """The runs that need no mount, under way."""
    with ThreadPoolExecutor(3) as pool:
        yield {"limited": pool.submit(limited, disk), "shared": pool.submit(shared, disk)}


@pytest.fixture
def mounted(disk: Disk) -> Iterator[Path]:
    """The place of a small disk in memory, or a skip."""
    path = disk.home / "mounted"
    mount(path, "size=16m")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture(scope="module")
def undisturbed(started: dict[str, Future[Any]]) -> Path:
    """The directory of the run that the second process could not get at: what every run here comes to."""
    path: Path = started["shared"].result().path
    return path


def check_equal(path: Path, other: Path) -> None:
    """That two finished runs have the same bytes but for clocks, and are whole."""
    for name in SAME:
        assert (path / name).read_bytes() == (other / name).read_bytes(), name
    mine, theirs = (read_json(p / "outcome.json", Outcome) for p in (path, other))
    assert without_clock(mine) == without_clock(theirs)
    assert [e.reply for e in read_run(path).exchanges] == [REPLY]
    assert not [finding for finding in verify_run(path) if finding.damage]


def without_clock(outcome: Outcome) -> Outcome:
    return replace(outcome, seconds=0.0, finished="", peak_memory_bytes=0)


def test_a_second_process_is_refused_at_once_and_the_first_is_not_disturbed(started: dict[str, Future[Any]]) -> None:
    found: Shared = started["shared"].result()
    said = f"error: {found.path} is being written by another process; wait for it or stop it"
    assert (found.second.code, " ".join(found.second.said.split())) == (2, said)
    assert (found.first.code, found.first.said) == (0, "")
    assert read_run(found.path).events == ()
    assert not [finding for finding in verify_run(found.path) if finding.damage]


def check_stops(story: Story, words: str) -> None:
    """That the run stopped at each place with one message, and there only."""
    *places, end = story.met.values()
    for stopped in places:
        assert (stopped.code, " ".join(stopped.said.split())) == (1, words)
    assert (end.code, end.said) == (0, "")
    checkpoint, answer = story.met["a checkpoint"].left, story.met["an answer"].left
    assert {"metrics.jsonl", "trajectory.jsonl"} <= checkpoint
    assert not [name for name in checkpoint if name.startswith("0")], "a checkpoint was written, or half of one"
    assert {"00.step000003", "pool.jsonl"} <= answer
    assert "exchanges.jsonl" not in answer


def test_a_full_disk_stops_a_run_with_the_mend_and_with_room_it_ends_with_the_same_bytes(
    disk: Disk, mounted: Path, undisturbed: Path
) -> None:
    story = filled(disk, mounted, undisturbed)
    check_stops(story, FULL)
    assert story.met["a record"].left == frozenset()
    check_equal(story.path, undisturbed)


def test_files_that_may_not_grow_stop_a_run_with_the_mend(started: dict[str, Future[Any]]) -> None:
    story: Story = started["limited"].result()
    check_stops(story, LIMITED)
    assert "exchanges.jsonl" not in story.met["a record"].left


def test_a_directory_that_was_moved_is_gone_on_with_where_it_is(
    started: dict[str, Future[Any]], undisturbed: Path
) -> None:
    story: Story = started["limited"].result()
    assert not (story.path.parents[1] / "limited").exists()
    check_equal(story.path, undisturbed)


def test_a_disk_that_cannot_be_written_is_told_with_the_mend(
    started: dict[str, Future[Any]], disk: Disk, mounted: Path
) -> None:
    started["limited"].result()
    path = Path(shutil.copytree(disk.home / "copied", mounted / "run"))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    remount(mounted, "ro")
    assert not [finding for finding in verify_run(path) if finding.damage]
    resumed = disk.end(disk.resume(path), path)
    assert resumed.code == 2
    assert re.fullmatch(
        r"error: \S+: Read-only file system; choose a directory that can be written: hydra\.run\.dir=DIR",
        " ".join(resumed.said.split()),
    )
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_a_directory_below_a_file_is_told_with_the_mend(disk: Disk) -> None:
    (disk.home / "file").write_text("not a folder")
    path = disk.home / "file" / "run"
    refused = disk.end(disk.start(path), disk.home)
    assert refused.code == 2
    said = f"error: {path}: Not a directory; a file is in its way; choose another directory: hydra.run.dir=DIR"
    assert " ".join(refused.said.split()) == said
