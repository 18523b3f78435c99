"""Runs of the installed command that are ended wherever they stand, by every signal, and go on."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.command import Command
from helpers.kill_points import (
    DECK,
    STAGES,
    Answers,
    Moment,
    Point,
    Trial,
    Variant,
    carry_out,
    differences,
    exchanges,
    go_through,
    live,
    look,
    overlapped,
    trials,
    unreadable,
    variants,
)
from helpers.loopback import serve

# One trial of each kind; the others are slow.
ONCE = {
    "SIGKILL in training": Moment(r"trajectory\.jsonl", 3, 0.0, signal.SIGKILL),
    "SIGKILL in scoring": Moment(r"exchanges\.jsonl", 2, 0.0, signal.SIGKILL),  # once an answer is there
    "SIGKILL between a request and its record": Moment("question", 2, 0.0, signal.SIGKILL),
    "SIGTERM": Moment(r"stages/01\.step.*", 1, 0.0, signal.SIGTERM),
}
POINTS = {"advised": 10, "evolved": 9, "overlapped": 5}  # and one in the sweep
SEED = 1
IN_THE_SECOND_STAGE = Moment(r"stages/01\.step.*", 2, 0.01, signal.SIGKILL)


@dataclass(frozen=True)
class Sweep:
    """A sweep that was killed, how it went on, the folder of its second run, and what that of the first held before."""

    point: Point | None
    done: "subprocess.CompletedProcess[str]"
    second: Path
    before: dict[str, tuple[int, int]]


class Started:
    """All runs of this file, under way two at a time: most of a run is the import of its libraries."""

    def __init__(self, catalyst: Command, pool: ThreadPoolExecutor, *variants: Variant) -> None:
        self.catalyst = catalyst
        self.variants = {variant.name: variant for variant in variants}
        self.trials: dict[str, Future[list[Trial]]] = {name: pool.submit(self.killed, name) for name in self.variants}
        self.sweep = pool.submit(self.killed_sweep, self.variants["evolved"])

    def killed(self, name: str) -> list[Trial]:
        catalyst = Command(fresh=True) if name == "overlapped" else self.catalyst
        carry_out(catalyst, self.variants[name])
        return list(trials(catalyst, self.variants[name], POINTS[name], SEED))

    def killed_sweep(self, variant: Variant) -> Sweep:
        """A sweep of two runs, killed in the second, and the same command again."""
        words = [word.replace("mentor=evolution", "mentor=none,evolution") for word in ("run", "-m", *variant.words)]
        process = self.catalyst.start(*words, cwd=variant.home)
        pattern = "outputs/sweeps/*/local/*/none/0_seed1/outcome.json"
        while process.poll() is None and not [*variant.home.glob(pattern)]:
            time.sleep(0.005)
        (outcome,) = variant.home.glob(pattern)
        path = outcome.parents[2] / "evolution" / "1_seed1"
        point, _ = live(process, variant, path, IN_THE_SECOND_STAGE)
        before = look(outcome.parent)
        return Sweep(point, self.catalyst(*words, cwd=variant.home), path, before)

    def reference(self, name: str) -> Path:
        """The finished directory of the run that nothing interrupted."""
        self.trials[name].result()
        return self.variants[name].reference


@pytest.fixture(scope="module")
def advised(catalyst: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Variant]:
    """A run that a language model advises; nothing interrupts its reference."""
    with serve() as server:
        variant, _ = variants(tmp_path_factory.mktemp("killed_once"), server)
        carry_out(catalyst, variant)
        yield variant


@pytest.mark.parametrize("name", ONCE)
def test_a_run_that_is_ended_once_loses_nothing(catalyst: Command, advised: Variant, name: str) -> None:
    assert advised.server
    waits = name == "SIGKILL between a request and its record"
    advised.server.script = Answers(advised.server, delay_s=0.5 if waits else 0.03)
    path = advised.home / name
    trial = go_through(catalyst, advised, path, iter([ONCE[name]]), random.Random(SEED))
    assert [point.number for point in trial.points] == [ONCE[name].number]
    assert trial.findings == ()
    assert not waits or trial.asked_again == 1


@pytest.fixture(scope="module")
def started(catalyst: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with serve() as server, serve() as other, ThreadPoolExecutor(2) as pool:
        advised, evolved = variants(tmp_path_factory.mktemp("killed"), server)
        yield Started(catalyst, pool, advised, evolved, overlapped(advised, other))


@pytest.fixture(params=POINTS)
def ended(request: pytest.FixtureRequest, started: Started) -> list[Trial]:
    """The runs of one kind that were ended again and again."""
    return started.trials[request.param].result()


@pytest.mark.slow
def test_a_run_that_is_ended_anywhere_loses_nothing_and_ends_as_if_nothing_had_been(ended: list[Trial]) -> None:
    found = [f"{finding.kind}: {finding.words}" for trial in ended for finding in trial.findings]
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_the_points_are_as_many_as_they_should_be_and_spread(started: Started) -> None:
    points = [p for name in POINTS for trial in started.trials[name].result() for p in trial.points]
    assert len(points) == sum(POINTS.values())
    assert {point.number for point in points} == {*DECK}
    assert len({point.phase for point in points}) >= 3


@pytest.mark.slow
def test_a_question_is_asked_again_only_where_its_answer_never_came(started: Started) -> None:
    for trial in (*started.trials["advised"].result(), *started.trials["overlapped"].result()):
        assert 0 <= trial.asked_again <= len(trial.points)
    asked = exchanges(started.reference("advised"))
    assert len({exchange.messages for exchange in asked}) == len(asked)
    assert len(asked) >= STAGES, "no consultation took two calls"


@pytest.mark.slow
def test_a_sweep_goes_on_by_the_same_command(started: Started) -> None:
    sweep = started.sweep.result()
    assert sweep.point
    assert sweep.done.returncode == 0, sweep.done.stderr
    assert sweep.done.stdout.count("finished already, nothing to do") == 1
    assert "2 of 2 runs finished" in sweep.done.stderr
    assert look(sweep.second.parents[1] / "none" / "0_seed1") == sweep.before
    assert len(os.listdir(sweep.second.parents[4])) == 1
    assert differences(sweep.second, started.reference("evolved")) == []


# --- what would be seen


def change(name: str, act: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    return lambda path: (path / name).write_bytes(act((path / name).read_bytes()))


def leave_a_part(path: Path) -> None:
    (path / "stages" / "00.step000003.part").mkdir()
    (path / "stages" / "00.step000003.part" / "state.json").touch()


@pytest.mark.parametrize(
    ("spoil", "kinds"),
    [
        (change("trajectory.jsonl", lambda content: content.partition(b"\n")[2]), {"lost", "unequal"}),
        (change("pool.jsonl", lambda content: content + content.splitlines(True)[-1]), {"doubled", "unequal"}),
        (change("exchanges.jsonl", lambda content: content * 2), {"doubled", "unequal"}),
        (change("outcome.json", lambda content: content.replace(b'"majority": 0.5', b'"majority": 0.6')), {"unequal"}),
        (leave_a_part, {"unequal"}),
        (lambda path: None, set()),
    ],
)
def test_what_is_lost_doubled_or_unequal_is_seen(
    advised: Variant, tmp_path: Path, spoil: Callable[[Path], Any], kinds: set[str]
) -> None:
    path = shutil.copytree(advised.reference, tmp_path / "run")
    spoil(path)
    assert {finding.kind for finding in differences(path, advised.reference)} == kinds


@pytest.mark.parametrize("name", ["stages/01/state.safetensors", "stages/02/SHA256SUMS", "metrics.jsonl"])
def test_a_changed_byte_is_seen(advised: Variant, tmp_path: Path, name: str) -> None:
    path = shutil.copytree(advised.reference, tmp_path / "run")
    assert unreadable(path) == []
    change(name, lambda content: bytes([content[0] ^ 1]) + content[1:])(path)
    assert [finding.kind for finding in unreadable(path)] == ["unreadable"]
