"""Runs as they are written to a directory, without training: for the tests of whatever shows or reads them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llm_catalyst.callbacks.base import RunCallback, RunInfo
from llm_catalyst.runs.reader import RunRecords, read_run
from llm_catalyst.runs.records import (
    Best,
    Evaluation,
    Event,
    LLMCall,
    Manifest,
    Message,
    Outcome,
    Prompt,
    Proposal,
    Record,
    Rejected,
    Restart,
    Score,
    ScoredPrompt,
    Snapshot,
    Usage,
)
from llm_catalyst.runs.writer import RunDirectory

CONFIG = """\
seed: 3
task: {_target_: llm_catalyst.tasks.text_task.TextTask, name: sst2, metric: accuracy}
backbone: {_target_: llm_catalyst.models.backbones.config.TextBackbone, name: sentence-transformers/all-MiniLM-L6-v2}
head: {_target_: llm_catalyst.models.heads.text.Similarity, scale: 20.0}
mentor:
  _target_: llm_catalyst.mentors.llm.LanguageModel
  client: {_target_: llm_catalyst.mentors.clients.anthropic.Claude, model: claude-haiku-4-5}
  strategy: {_target_: llm_catalyst.mentors.strategies.paper.Paper}
protocol: {name: heldout, report_on: test}
"""
PLAN = (200, 200, 400)
DIRECTORY = "outputs/sst2/minilm/claude_haiku/2026-01-02_seed3"
OVERVIEW = RunInfo("sst2 · minilm · similarity · claude_haiku", DIRECTORY, PLAN, 0.509, "accuracy")

MOODS = ("Judge the mood", "Feel the tone")

HOSTILE = (
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 [/x] [bold]markup[/bold] <script>alert(1)</script> & \x00\x08\x9b2J "
    "\u202eltr\u200b \ufffe \r\n\t日本語のプロンプト zażółć " + "x" * 400
)


def prompt(text: str) -> Prompt:
    """A prompt whose ids follow from its text."""
    return Prompt(tuple(ord(c) for c in text[:8]), text)


def evaluation(
    stage: int, step: int, loss: float, accuracy: float, constant: str | None = None, member: int = 0
) -> Evaluation:
    metrics = {"accuracy": accuracy, "macro_f1": accuracy - 0.01}
    return Evaluation(stage, step, member, "dev", Score(loss, accuracy, 400), metrics, constant)


def exchange(stage: int, reply: str, cost_usd: float | None = 0.00123, error: str | None = None) -> LLMCall:
    seen = "\n".join(f"film tone {i}: 0.{i}" for i in range(9))
    messages = (
        Message("system", "You improve prompts of a text classifier."),
        Message("user", f"Prompts with loss and accuracy, the best last:\n\n{seen}"),
    )
    return LLMCall(
        stage=stage,
        messages=messages,
        reply=reply,
        asked="claude-haiku-4-5",
        answered=None if error else "claude-haiku-4-5-20251001",
        parameters={"max_tokens": 4000},
        not_sent=("temperature",),
        input_tokens=None if error else 812,
        output_tokens=None if error else 64,
        cost_usd=cost_usd,
        latency_s=2.91,
        date="2026-01-02T03:04:05+00:00",
        stop_reason="end_turn",
        error=error,
    )


def restart(
    stage: int, proposals: list[Proposal], losses: list[float], before: float, fallback: str | None = None
) -> Restart:
    scores = [Score(loss, 0.9 - loss / 3, 400) for loss in losses]
    return Restart(
        stage=stage,
        member=0,
        prompt=proposals[0].prompt,
        reason=f"best of {len(proposals)}: ",
        score_before=Score(before, 0.702, 400),
        score=scores[0],
        considered=tuple(zip(proposals, scores, strict=True)),
        rejected=(Rejected("Sure, here are three prompts:", "a phrase, not a proposal"),),
        fallback=fallback,
        distinct=7,
        shown=4,
    )


def stage_records(stage: int, extra: str) -> Iterator[Record]:
    """The records of one stage of training: snapshots, evaluations and the pool's new entries."""
    first = sum(PLAN[:stage])
    for step in range(first + 50, first + PLAN[stage] + 1, 50):
        for near in range(step - 40, step + 1, 10):
            text = f"{extra}sombre{near} film ##ness told verdict"
            yield Snapshot(stage, near, 0, 0.7 - near / 2000, prompt(text), 0.61)
        yield evaluation(stage, step, 0.68 - step / 2500, 0.55 + step / 2500)
    for i in range(4):
        entry = prompt(f"{stage}{i} {extra}film ##ness verdict")
        yield ScoredPrompt(
            entry, Score(0.66 - stage / 20 - i / 100, 0.61 + stage / 20 + i / 100, 400), "gradient", stage
        )


def consultation_records(stage: int, extra: str, fails: bool = False) -> Iterator[Record]:
    """The records of one question to the mentor: the exchange, its proposals' scores and the restart."""
    reply = f"Sure, here are three prompts:\n1. {extra}Judge the mood of the review\n2. Is it praise?\n3. Verdict:"
    yield exchange(stage, "" if fails else reply, None if fails else 0.00123, "overloaded (529)" if fails else None)
    if fails:
        yield Event(stage, sum(PLAN[: stage + 1]), "fallback", "overloaded (529); the pool's best restarts")
    proposals = [
        Proposal(prompt(f"{MOODS[stage]}{extra} of the review"), "names what is asked", lost=" and its tone"),
        Proposal(prompt(f"{stage + 1}. Is it praise or blame?")),
        Proposal(prompt(f"{stage + 1}. Verdict:")),
    ]
    losses = [0.55 - stage / 20, 0.60 - stage / 50, 0.64]
    for proposal, loss in zip(proposals, losses, strict=True):
        yield ScoredPrompt(proposal.prompt, Score(loss, 0.9 - loss / 3, 400), "mentor", stage)
    yield restart(stage, proposals, losses, 0.62, "overloaded (529)" if fails else None)


def run_records(stages: int = 3, extra: str = "", fails: bool = False) -> Iterator[Record]:
    """The records of the first `stages` stages; the mentor's second answer fails where `fails`."""
    yield evaluation(0, 0, 0.7012, 0.491, constant="negative")
    for stage in range(stages):
        yield from stage_records(stage, extra)
        if stage + 1 < len(PLAN):
            yield from consultation_records(stage, extra, fails and stage == 1)


def manifest() -> Manifest:
    return Manifest(
        command=("task=sst2", "backbone=minilm", "head=similarity", "mentor=claude_haiku", "seed=3"),
        choices={
            "task": "sst2",
            "backbone": "minilm",
            "head": "similarity",
            "mentor": "claude_haiku",
            "strategy": "paper",
        },
        started="2026-01-02T03:00:00+00:00",
        versions={"llm-catalyst": "0.1.0", "torch": "2.13.0", "transformers": "5.1.0"},
        git={"revision": "0123456789abcdef", "dirty": True},
        python="3.11.7",
        platform="Linux-6.1",
        device="cpu",
        threads=2,
        backbone={"name": "sentence-transformers/all-MiniLM-L6-v2"},
        data={
            "source": "hub",
            "dev": {"rows": 1000, "labels": {"0": 491, "1": 509}, "sha256": "cd"},
            "test": {"rows": 1000, "labels": {"0": 491, "1": 509}, "sha256": "ab"},
        },
    )


def outcome(extra: str = "") -> Outcome:
    return Outcome(
        status="done",
        message="accuracy 0.871 beats the majority class (0.509)",
        protocol="heldout",
        reported_on="test",
        best=Best(2, 800, 0, Score(0.3612, 0.8655, 400), prompt(f"{extra}sombre800 film ##ness told verdict"), 0.6137),
        test=Score(0.3724, 0.8712, 1000),
        test_metrics={"accuracy": 0.8712, "macro_f1": 0.8698},
        best_prompt=ScoredPrompt(prompt(f"{MOODS[1]}{extra} of the review"), Score(0.5, 0.7333, 400), "mentor", 1),
        test_best_prompt=Score(0.5123, 0.7216, 1000),
        majority=0.509,
        diverged_stages=(),
        fallbacks=0,
        ledger=Usage(800, 25600, 9200, 2, 1624, 128, 0.00246, 0),
        seconds=74.2,
        peak_memory_bytes=812 * 2**20,
        device="cpu",
        finished="2026-01-02T03:01:14+00:00",
    )


def write_run(path: Path, stages: int = 3, finished: bool = True, extra: str = "", fails: bool = False) -> Path:
    """A run directory, written by the class that writes all of them."""
    directory = RunDirectory(path)
    directory.write_config(CONFIG, manifest())
    for record in run_records(stages, extra, fails):
        directory.append(record)
    if finished:
        directory.finish(outcome(extra))
    directory.close()
    return path


def play(view: RunCallback, stages: int = 3, extra: str = "", fails: bool = False, members: int = 1) -> None:
    """Tell a view of a run, as experiment.run does: a tick for each step, then the records of that step."""
    view.on_run_start(OVERVIEW)
    step, last = 0, -1
    for record in run_records(stages, extra, fails):
        goal = record.step if isinstance(record, Evaluation | Snapshot) else step
        while step < goal:
            step += 1
            view.on_step(record.stage, step, (0.7 - step / 2000,) * members)
        last = max(last, record.stage)
        view.on_record(record)


def raced(path: Path, winner: int) -> RunRecords:
    """The run in `path` after whose first stage two proposals and the running prompt raced; the member `winner` won."""
    run = read_run(path)
    first = run.restarts[0]
    second = replace(first, member=1, prompt=prompt("2. Verdict:"), considered=first.considered[:2])
    second = replace(second, considered=(first.considered[0], (Proposal(second.prompt), first.considered[1][1])))
    first, second = (replace(one, considered=second.considered, reason="race of 2") for one in (first, second))
    running = replace(first, member=2, prompt=prompt("film"), kept=True, score=first.score_before)
    metrics = [evaluation(1, 210, 0.5, 0.7, member=i) for i in range(3)]
    metrics.append(evaluation(1, 400, 0.4, 0.7, member=winner))
    return replace(run, restarts=(first, second, running), metrics=tuple(metrics), outcome=None)
