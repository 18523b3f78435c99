"""Files that were damaged after they were written: a clear error, or the same numbers as if nothing had happened."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.recorded import exchange
from helpers.tiny_models import Stops, adamw, run_in, toy_problem
from rich.console import Console

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.cli.main import main
from llm_catalyst.config.settings import Checkpoints
from llm_catalyst.mentors.clients.replay import Replay
from llm_catalyst.mentors.llm import LanguageModel
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.runs.checkpoints import STATE
from llm_catalyst.runs.reader import EXCHANGES, FILES, read_json, read_lines
from llm_catalyst.runs.records import Event, LLMCall, Outcome, Record, Snapshot
from llm_catalyst.runs.run_config import FIXED
from llm_catalyst.runs.verify import print_verification, verify_run
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.training.loop import Experiment
from llm_catalyst.utils.checksums import SUMS, format_list, sha256
from llm_catalyst.utils.validation import ConfigurationError

PLAN = (3, 3, 3)
REPLIES = ("- slow music\n- a very good film\n- bad bad actor", "- the plot is good\n- light voice\n- a long story")
LAST = "stages/02.step000007"  # of the run that was stopped late
TENSORS, LAST_STATE = f"{LAST}/state.safetensors", f"{LAST}/state.json"
SAME = ("trajectory.jsonl", "pool.jsonl", "restarts.jsonl", "metrics.jsonl")


@dataclass
class StopsAt(RunCallback):
    """Raises when a record was written for which `when` holds."""

    when: Callable[[Record], bool]

    def on_record(self, record: Record) -> None:
        if self.when(record):
            raise Stops


@dataclass(frozen=True)
class Runs:
    """Runs of the same problem and mentor: one that was never stopped, and some that were, each in a folder."""

    home: Path

    def carry_out(self, path: Path, view: Any = None) -> Outcome:
        problem = toy_problem(checkpoint=Checkpoints(1))
        mentor = LanguageModel(Replay(str(self.home / "answers")), Paper(), attempts=1)
        optimizer = Backprop(partial(adamw, lr=0.05))
        return run_in(path, Experiment(problem, optimizer, mentor, PLAN), view)

    def stopped(self, name: str, when: Callable[[Record], bool]) -> None:
        with pytest.raises(Stops):
            self.carry_out(self.home / name, StopsAt(when))

    def copy(self, name: str, to: Path) -> Path:
        return Path(shutil.copytree(self.home / name, to))

    def equal(self, path: Path) -> bool:
        """Whether a finished run has the numbers of the one that was never stopped."""
        whole = self.home / "finished"
        outcomes = [read_json(p / "outcome.json", Outcome) for p in (path, whole)]
        mine, theirs = (replace(o, seconds=0.0, finished="", peak_memory_bytes=0) for o in outcomes)
        replies = [[e.reply for e in read_lines(p / EXCHANGES, LLMCall)] for p in (path, whole)]
        same = all((path / name).read_bytes() == (whole / name).read_bytes() for name in SAME)
        return same and mine == theirs and replies[0] == replies[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    runs = Runs(tmp_path_factory.mktemp("runs"))
    answers = RunDirectory(runs.home / "answers")
    for stage, reply in enumerate(REPLIES):
        answers.append(exchange(stage, reply))
    answers.close()
    runs.carry_out(runs.home / "finished")
    runs.stopped("begun", lambda record: getattr(record, "step", 0) == 1)
    runs.stopped("asked", lambda record: isinstance(record, LLMCall) and record.stage == 1)
    runs.stopped("late", lambda record: getattr(record, "step", 0) == 8)
    return runs


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flip(content: bytes, at: int, mask: int = 1) -> bytes:
    """The content with some bits of one byte turned over."""
    at %= len(content)
    return content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]


def flipped(name: str, at: int) -> Callable[[Path], None]:
    return lambda path: rewrite(path / name, lambda content: flip(content, at))


def cut(name: str, length: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path / name, length)


def added(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda path: rewrite(path / name, lambda before: before + content)


def removed(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def made(name: str, content: bytes | None = None) -> Callable[[Path], None]:
    """A file that does not belong there or, without content, a folder."""
    return lambda path: (path / name).mkdir() if content is None else (path / name).write_bytes(content) and None


def pickled(path: Path, listed: bool) -> None:
    """A pickle in place of the tensors, with the checksum of the old ones or its own."""
    folder = path / LAST
    torch.save({"member0/prompt": torch.zeros(4, 32)}, folder / "state.safetensors")
    if listed:
        files = {name: (folder / name).read_bytes() for name in STATE}
        (folder / SUMS).write_bytes(format_list({name: sha256(content) for name, content in files.items()}))


def every_save_damaged(path: Path) -> None:
    for file in path.glob("stages/*/state.json"):
        rewrite(file, lambda content: flip(content, 99))


Damage = Callable[[Path], None]
SAVE_BEFORE, BEGINNING = "stage 3, step 6", "the beginning"
RECOVERED: dict[str, tuple[Damage, str, str]] = {
    "a flipped byte in the tensors": (flipped(TENSORS, 2000), "state.safetensors is changed", SAVE_BEFORE),
    "a flipped byte in the state": (flipped(LAST_STATE, 1000), "state.json is changed", SAVE_BEFORE),
    "a flipped byte in a checksum": (flipped(f"{LAST}/{SUMS}", 10), "state.safetensors is changed", SAVE_BEFORE),
    "a flipped byte in a listed name": (flipped(f"{LAST}/{SUMS}", -3), "state.json is not listed", SAVE_BEFORE),
    "tensors cut short": (cut(TENSORS, 1000), "state.safetensors is changed", SAVE_BEFORE),
    "an empty state": (cut(LAST_STATE, 0), "state.json is changed", SAVE_BEFORE),
    "an empty list": (cut(f"{LAST}/{SUMS}", 0), "SHA256SUMS is no list of sums", SAVE_BEFORE),
    "no tensors": (removed(TENSORS), "state.safetensors is missing", SAVE_BEFORE),
    "no state": (removed(LAST_STATE), "state.json is missing", SAVE_BEFORE),
    "no list": (removed(f"{LAST}/{SUMS}"), "SHA256SUMS is missing", SAVE_BEFORE),
    "a pickle": (partial(pickled, listed=False), "state.safetensors is changed", SAVE_BEFORE),
    "every save": (every_save_damaged, "state.json is changed", BEGINNING),
    "an empty folder that looks like a save": (made("stages/07"), "stages/07 is damaged", "stage 3, step 7"),
    "a flipped byte in the last saved line": (
        flipped("trajectory.jsonl", -250), "trajectory.jsonl is changed", SAVE_BEFORE
    ),
    "a record file cut short": (cut("metrics.jsonl", 500), "metrics.jsonl is shorter", "stage 2, step 3"),
    "no exchanges.jsonl": (removed(EXCHANGES), "exchanges.jsonl is missing", BEGINNING),
    **{f"a flipped byte in {name}": (flipped(name, 70), f"{name} is changed", BEGINNING) for name in SAME},
    **{f"no {name}": (removed(name), f"{name} is missing", BEGINNING) for name in SAME},
}  # fmt: skip


def recoveries(path: Path) -> list[str]:
    return [event.message for event in read_lines(path / FILES[Event], Event) if event.kind == "recovered"]


@pytest.mark.parametrize("case", RECOVERED)
def test_a_damaged_save_or_record_is_made_again_from_the_save_before_it(runs: Runs, tmp_path: Path, case: str) -> None:
    damage, reason, start = RECOVERED[case]
    path = runs.copy("late", tmp_path / "run")
    damage(path)
    assert print_verification(path, Console(quiet=True)) is False
    runs.carry_out(path)
    assert runs.equal(path)
    told = recoveries(path)
    assert reason in told[0]
    assert told[0].endswith(f": the run continues from {start}")
    assert print_verification(path, Console(quiet=True)) is True


def test_a_pickle_is_never_opened_though_its_checksum_is_right(runs: Runs, tmp_path: Path) -> None:
    path = runs.copy("late", tmp_path / "run")
    pickled(path, listed=True)
    runs.carry_out(path)
    assert runs.equal(path)
    assert f"{LAST} is damaged (state.safetensors holds no tensors: " in recoveries(path)[0]


UNHARMED: dict[str, Damage] = {
    "the newest save is gone": lambda path: shutil.rmtree(path / LAST),
    "a flipped byte after the last save": flipped("trajectory.jsonl", -80),
    "a line after the last save that is no record": added("metrics.jsonl", b'{"stage": "?"}\n'),
    "a stray file": made("stages/07", b"notes"),
    "a stray folder": made("stages/copy of 00"),
    "half a save": made("stages/02.part"),
    "half a file": made("outcome.json.part", b'{"status"'),
    **{f"a torn last line of {name}": added(name, b'{"stage": 2, "st') for name in (*SAME, EXCHANGES)},
}


@pytest.mark.parametrize("case", UNHARMED)
def test_what_no_saved_state_rests_on_does_no_harm(runs: Runs, tmp_path: Path, case: str) -> None:
    path = runs.copy("late", tmp_path / "run")
    UNHARMED[case](path)
    runs.carry_out(path)
    assert runs.equal(path)
    assert not (path / "events.jsonl").exists()


REFUSED: dict[str, tuple[str, Damage, str]] = {
    **{
        f"{how} {name}, {base}": (base, damage, rf"{name} is {how}; put it back as it was when the run began \(where")
        for base in ("begun", "late")
        for name in (*FIXED, SUMS)
        for how, damage in (("changed", flipped(name, 200)), ("missing", removed(name)))
        if (name, how) not in ((SUMS, "changed"), ("manifest.json", "missing"))
    },
    "a changed list, begun": ("begun", flipped(SUMS, 3), r"config.yaml is changed; put it back"),
    "no manifest.json": ("late", removed("manifest.json"), r"holds trajectory.jsonl, but no manifest.json; put it"),
    "a changed exchange that was saved": (
        "late",
        flipped(EXCHANGES, 1500),
        r"exchanges.jsonl is changed since stages/02.step000007 was written; put it back as it was, or remove it to",
    ),
    "exchanges cut short": ("late", cut(EXCHANGES, 2000), r"exchanges.jsonl is shorter since stages/02.step000007"),
    "a changed answer that was not saved yet": (
        "asked",
        lambda path: rewrite(path / EXCHANGES, lambda content: content.replace(b"light voice", b"light movie")),
        r"exchanges.jsonl, line 2 is not a LLMCall record .*: its sha256 says that it was another; put the file back "
        r"as it was, or end it before that line to ask the mentor again",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_made_again_is_refused_with_the_mend_and_left_as_it_is(
    runs: Runs, tmp_path: Path, case: str
) -> None:
    base, damage, message = REFUSED[case]
    path = runs.copy(base, tmp_path / "run")
    damage(path)
    before = contents(path)
    assert print_verification(path, Console(quiet=True)) is False
    with pytest.raises(ConfigurationError, match=message):
        runs.carry_out(path)
    assert contents(path) == before


def contents(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != ".lock"}


def test_the_mend_for_a_changed_answer_asks_again(runs: Runs, tmp_path: Path) -> None:
    path = runs.copy("asked", tmp_path / "run")
    rewrite(path / EXCHANGES, lambda content: content.replace(b"light voice", b"light movie"))
    rewrite(path / EXCHANGES, lambda content: content.split(b"\n")[0] + b"\n")
    runs.carry_out(path)
    assert runs.equal(path)


def test_the_mend_for_a_changed_configuration_that_is_trusted_makes_the_list_anew(runs: Runs, tmp_path: Path) -> None:
    path = runs.copy("late", tmp_path / "run")
    removed(SUMS)(path)
    with pytest.raises(ConfigurationError) as refused:
        runs.carry_out(path)
    command = str(refused.value).rpartition("anew: ")[2].removesuffix(")")
    subprocess.run(command, shell=True, cwd=path, check=True)
    runs.carry_out(path)
    assert runs.equal(path)


def test_a_recovery_is_told_though_the_run_is_stopped_again_before_it_is_saved(runs: Runs, tmp_path: Path) -> None:
    path = runs.copy("late", tmp_path / "run")
    flipped(LAST_STATE, 1000)(path)
    for _ in range(2):
        with pytest.raises(Stops):
            runs.carry_out(path, StopsAt(lambda record: isinstance(record, Event)))
    runs.carry_out(path)
    assert runs.equal(path)
    assert len(recoveries(path)) == 1


# --- any byte


@pytest.mark.parametrize(
    "base", ["late", "finished", *(pytest.param(base, marks=pytest.mark.slow) for base in ("begun", "asked"))]
)
def test_a_flipped_byte_anywhere_is_noticed_or_changes_no_number(runs: Runs, tmp_path: Path, base: str) -> None:
    """Some 250 positions of each directory; a resume is tried wherever nothing was noticed, and now and then."""
    path, rng = runs.copy(base, tmp_path / "run"), random.Random(base)
    noticed = tried = 0
    for file, content in contents(path).items():
        for at in sorted(rng.sample(range(len(content)), 50 if base == "begun" else 15)):
            file.write_bytes(flip(content, at, rng.randrange(1, 256)))
            found = any(finding.damage for finding in verify_run(path))
            noticed += found
            assert found or base != "finished", f"byte {at} of {file}"
            if base != "finished" and (not found or rng.random() < 0.1):
                tried += 1
                again = Path(shutil.copytree(path, tmp_path / f"again{tried}"))
                with suppress(ConfigurationError):
                    runs.carry_out(again)
                    assert runs.equal(again), f"byte {at} of {file}"
        file.write_bytes(content)
    assert noticed > 100
    assert tried > 10 or base == "finished"


# --- catalyst show --verify


def verified(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of the command, and what it says."""
    with pytest.raises(SystemExit) as done:
        main(["show", "--verify", str(path)])
    printed = capsys.readouterr()
    return int(str(done.value.code)), " ".join((printed.out + printed.err).split())


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("finished", ""),
        ("late", "; catalyst resume PATH continues from stages/02.step000007"),
        ("asked", "; catalyst resume PATH continues from stages/01.step000006"),
        ("begun", "; catalyst resume PATH continues from the beginning"),
    ],
)
def test_a_whole_run_is_told_so(runs: Runs, capsys: pytest.CaptureFixture[str], base: str, words: str) -> None:
    path = runs.home / base
    code, said = verified(path, capsys)
    assert code == 0
    assert said.endswith("whole: these are the bytes that the run wrote" + words.replace("PATH", str(path)))
    for name in ("config.yaml", "metrics.jsonl", *(f"stages/{folder.name}" for folder in path.glob("stages/*"))):
        assert f"{name} ok" in said


def test_what_is_not_saved_yet_and_a_torn_last_line_are_no_damage(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs.copy("late", tmp_path / "run")
    added("trajectory.jsonl", b'{"stage": 2, "st')(path)
    code, said = verified(path, capsys)
    assert code == 0
    assert "trajectory.jsonl ok 8 lines, 1 not saved yet, the last was not written to its end" in said


@pytest.mark.parametrize("how", ["changed", "missing"])
def test_every_file_of_a_finished_run_is_checked(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    path = runs.copy("finished", tmp_path / "run")
    for file, content in contents(path).items():
        name = file.relative_to(path).as_posix()
        file.unlink() if how == "missing" else file.write_bytes(flip(content, -2))
        code, said = verified(path, capsys)
        assert code == 1, name
        row = name if file.parent == path else f"{file.parent.relative_to(path).as_posix()} {file.name}"
        assert f"{row} {how}" in said or file.name == SUMS, said
        assert (" damaged; " in said) != (" not whole; outcome.json was removed" in said)
        file.write_bytes(content)
    assert verified(path, capsys)[0] == 0


def test_a_damaged_finished_run_is_made_anew_as_the_verdict_says(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs.copy("finished", tmp_path / "run")
    rewrite(path / "outcome.json", lambda content: content.replace(b'"metric": 0.', b'"metric": 0.9'))
    rewrite(path / "metrics.jsonl", lambda content: content.replace(b'"loss": 0.', b'"loss": 0.1', 1))
    code, said = verified(path, capsys)
    assert code == 1
    assert "metrics.jsonl changed 4 lines" in said
    assert "outcome.json changed" in said
    assert f"or remove outcome.json (if it is there) and make it anew: catalyst resume {path} continues from" in said
    (path / "outcome.json").unlink()
    runs.carry_out(path)
    assert runs.equal(path)
    assert verified(path, capsys)[0] == 0


def test_a_run_that_was_cut_off_before_its_outcome_is_completed_by_a_resume(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs.copy("finished", tmp_path / "run")  # its list of sums is there, and its outcome not yet
    (path / "outcome.json").unlink()
    code, said = verified(path, capsys)
    assert code == 1
    assert said.endswith(f"not whole; outcome.json was removed, or never written: catalyst resume {path} makes it")
    runs.carry_out(path)
    assert runs.equal(path)
    assert verified(path, capsys)[0] == 0


def test_a_damaged_unfinished_run_says_where_it_goes_on_from(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs.copy("late", tmp_path / "run")
    flipped(LAST_STATE, 1000)(path)
    code, said = verified(path, capsys)
    assert code == 1
    assert f"{LAST} state.json changed" in said
    assert said.endswith(
        f"damaged, and repaired when the run continues: catalyst resume {path} continues from stages/01"
    )
    flipped(EXCHANGES, 1500)(path)
    code, said = verified(path, capsys)
    assert code == 1
    assert said.endswith("damaged; put exchanges.jsonl back as it was: nothing can make that again")


def test_a_line_that_cannot_be_read_is_told_by_its_number(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs.copy("late", tmp_path / "run")
    rewrite(path / "pool.jsonl", lambda content: content.replace(b"\n{", b"\n[", 1))
    assert "pool.jsonl changed, line 2 cannot be read" in verified(path, capsys)[1]


def test_files_that_the_list_leaves_out_are_damage(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs.copy("finished", tmp_path / "run")
    rewrite(path / SUMS, lambda content: b"".join(content.splitlines(keepends=True)[3:]))
    code, said = verified(path, capsys)
    assert code == 1
    assert "trajectory.jsonl not listed" in said
    rewrite(path / SUMS, lambda content: content + b"0" * 64 + b"  \x1b[31m[/x]\n")
    assert "\\x1b[31m[/x] missing" in verified(path, capsys)[1]


@pytest.mark.parametrize("base", ["late", "finished"])
@pytest.mark.parametrize("left", ["config.yaml", "manifest.json", "metrics.jsonl", "stages", "outcome.json"])
def test_what_is_left_of_a_run_is_verified_too(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], base: str, left: str
) -> None:
    path = runs.copy(base, tmp_path / "run")
    for file in [file for file in path.iterdir() if file.name != left]:
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    if not any(path.iterdir()):  # an unfinished run has no outcome
        assert verified(path, capsys)[0] == 2
        return
    code, said = verified(path, capsys)
    assert code == 1
    assert "SHA256SUMS missing" in said
    for name in {*FIXED} - {left}:
        assert f"{name} missing" in said


def test_a_damage_that_came_before_the_end_is_not_listed_as_whole(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"

    class Damaging(RunCallback):
        def on_record(self, record: Record) -> None:
            if record.stage == 2 and isinstance(record, Snapshot):
                rewrite(path / "metrics.jsonl", lambda content: flip(content, 100))
                rewrite(path / "stages" / "00" / "state.json", lambda content: flip(content, 100))

    runs.carry_out(path, Damaging())
    code, said = verified(path, capsys)
    assert code == 1
    assert "metrics.jsonl changed" in said
    assert "stages/00 state.json changed" in said


def test_a_directory_that_is_no_run_or_is_being_written_is_refused(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        assert verified(path, capsys) == (
            2, f"error: {path} is not a run directory (no manifest.json); runs lie under outputs/"
        )  # fmt: skip
    directory = RunDirectory(runs.copy("late", tmp_path / "run"))
    code, said = verified(directory.path, capsys)
    assert code == 2
    assert said == f"error: {directory.path} is being written by another process; verify it when that has ended"
    directory.close()
    assert verified(directory.path, capsys)[0] == 0


def test_a_run_is_verified_without_torch(runs: Runs, python: Callable[[str], str]) -> None:
    code = f"""
import sys
from pathlib import Path
from rich.console import Console
from llm_catalyst.runs.verify import print_verification
print(print_verification(Path({str(runs.home / "late")!r}), Console(quiet=True)), "torch" in sys.modules)
"""
    assert python(code).strip() == "True False"
