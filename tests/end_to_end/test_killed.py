"""Runs of the installed command that are ended wherever they stand, by every signal, and go on."""

import os
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
    Moment,
    Point,
    Trial,
    Variant,
    carry_out,
    differences,
    exchanges,
    live,
    look,
    overlapped,
    trials,
    unreadable,
    variants,
)
from helpers.loopback import serve

pytestmark = pytest.mark.slow

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
        carry_out(self.catalyst, self.variants[name])
        return list(trials(self.catalyst, self.variants[name], POINTS[name], SEED))

    def killed_sweep(self, variant: Variant) -> Sweep:
        """A sweep of two runs, killed in the second, and the same command again."""
        words = [word.replace("mentor=evolution", "mentor=none,evolution") for word in ("run", "-m", *variant.words)]
        process = self.catalyst.start(*words, cwd=variant.home)
        pattern = "outputs/sweeps/*/local/bert_base/none/0_seed1/outcome.json"
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
def started(catalyst: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with serve() as server, serve() as other, ThreadPoolExecutor(2) as pool:
        advised, evolved = variants(tmp_path_factory.mktemp("killed"), server)
        yield Started(catalyst, pool, advised, evolved, overlapped(advised, other))


@pytest.fixture(params=POINTS)
def ended(request: pytest.FixtureRequest, started: Started) -> list[Trial]:
    """The runs of one kind that were ended again and again."""
    return started.trials[request.param].result()


def test_a_run_that_is_ended_anywhere_loses_nothing_and_ends_as_if_nothing_had_been(ended: list[Trial]) -> None:
    found = [f"{finding.kind}: {finding.words}" for trial in ended for finding in trial.findings]
    assert not found, "\n".join(found)


def test_the_points_are_as_many_as_they_should_be_and_spread(started: Started) -> None:
    points = [p for name in POINTS for trial in started.trials[name].result() for p in trial.points]
    assert len(points) == sum(POINTS.values())
    assert {point.number for point in points} == {*DECK}
    assert len({point.phase for point in points}) >= 3


def test_a_question_is_asked_again_only_where_its_answer_never_came(started: Started) -> None:
    for trial in (*started.trials["advised"].result(), *started.trials["overlapped"].result()):
        assert 0 <= trial.asked_again <= len(trial.points)
    asked = exchanges(started.reference("advised"))
    assert len({exchange.messages for exchange in asked}) == len(asked)
    assert len(asked) >= STAGES, "no consultation took two calls"


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
    started: Started, tmp_path: Path, spoil: Callable[[Path], Any], kinds: set[str]
) -> None:
    path = shutil.copytree(started.reference("advised"), tmp_path / "run")
    spoil(path)
    assert {finding.kind for finding in differences(path, started.reference("advised"))} == kinds


@pytest.mark.parametrize("name", ["stages/01/state.safetensors", "stages/02/SHA256SUMS", "metrics.jsonl"])
def test_a_changed_byte_is_seen(started: Started, tmp_path: Path, name: str) -> None:
    path = shutil.copytree(started.reference("advised"), tmp_path / "run")
    assert unreadable(path) == []
    change(name, lambda content: bytes([content[0] ^ 1]) + content[1:])(path)
    assert [finding.kind for finding in unreadable(path)] == ["unreadable"]
