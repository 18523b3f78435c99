"""What `dry_run=true` tells, against what a real run then takes."""

import json
import math
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from helpers.loopback import openai_chat, serve
from helpers.tiny_models import CPU, adamw, folder, run_in, toy_data, toy_problem, toy_settings
from rich.console import Console
from torch import Tensor

from llm_catalyst.config.settings import Evaluations, Interval, PoolSettings
from llm_catalyst.mentors.clients.huggingface import LocalModel
from llm_catalyst.mentors.clients.human import Human
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.mentors.clients.replay import Replay
from llm_catalyst.mentors.controls import BestOfPool, Evolution, NoMentor, Perturb, RandomTokens
from llm_catalyst.mentors.llm import LanguageModel
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.loading import compile_seconds
from llm_catalyst.models.backbones.text import load_text_backbone
from llm_catalyst.models.heads.base import TextHead
from llm_catalyst.models.heads.text import Classifier, Similarity, Verbalizer
from llm_catalyst.models.prompted import PromptedText
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import Member, PromptOptimizer, StepResult
from llm_catalyst.optimizers.schedule import StepRange
from llm_catalyst.runs.analysis import MentorUsage
from llm_catalyst.runs.reader import FILES, read_lines
from llm_catalyst.runs.records import LLMCall, Outcome
from llm_catalyst.tasks.batching import Batch, TextBatch
from llm_catalyst.training.estimate import Estimate, estimate_run, render_estimate, sum_estimates
from llm_catalyst.training.loop import Experiment
from llm_catalyst.training.problem import Problem, assemble_problem
from llm_catalyst.utils.rng import make_generator
from llm_catalyst.utils.validation import ConfigurationError

PLAN = (5, 2, 4)
OPTIMIZER = Backprop(adamw)
FAST = Backprop(partial(torch.optim.AdamW, lr=0.5))  # every step projects to other tokens
FILLED = PoolSettings(candidates=3, size=4)


def carry_out(path: Path, problem: Problem, optimizer: Any, mentor: Any, plan: tuple[int, ...] = PLAN) -> Outcome:
    return run_in(path, Experiment(problem, optimizer, mentor, plan))


def asking(url: str = "http://127.0.0.1:1", model: str = "gpt-4o-mini", **settings: Any) -> LanguageModel:
    """A mentor of a provider; the estimate asks it nothing."""
    return LanguageModel(OpenAIChat(model, f"{url}/v1", None, max_tokens=600, retry_s=0), Paper(), **settings)


def printed(estimated: Estimate) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(render_estimate(estimated))
    return capture.get()


# Steps, examples, consultations


@dataclass(frozen=True)
class Late(RandomTokens):
    """Is asked while a stage trains: once less."""

    overlap: ClassVar[bool] = True


@dataclass(frozen=True)
class Wandering(PromptOptimizer):
    """An optimizer that takes every member to a prompt that nobody has been at."""

    problem: Problem

    def train(
        self, model: PromptedText, members: Sequence[Member], batches: Iterator[Batch], step_range: StepRange
    ) -> Iterator[StepResult]:
        for number in range(step_range.done + 1, step_range.end + 1):
            batch = next(batches)
            prompts = [self.problem.space.sample(make_generator(0, number, i)) for i in range(len(members))]
            for member, rows in zip(members, self.problem.space.embed(prompts), strict=True):
                member.parameters["prompt"].data.copy_(rows)
            yield StepResult(number, (0.0,) * len(members), batch.labels.numel())


@pytest.mark.parametrize(
    ("mentor", "plan", "changes"),
    [
        (NoMentor(), PLAN, {}),
        (NoMentor(), (7,), {}),
        (RandomTokens(), PLAN, {}),
        (RandomTokens(), PLAN, {"restart": "first"}),
        (RandomTokens(2), PLAN, {"restart": "all"}),
        (RandomTokens(), PLAN, {"restart": "all", "head": Similarity()}),
        (RandomTokens(), PLAN, {"record": Interval(steps=2), "evaluate": Evaluations(steps=2)}),
        (RandomTokens(), PLAN, {"record": Interval(steps=100), "evaluate": Evaluations(epochs=1)}),
        (RandomTokens(2), PLAN, {"restart": "all", "evaluate": Evaluations(steps=2, projected=True)}),
        (BestOfPool(), PLAN, {"restart": "first"}),
        (RandomTokens(), PLAN, {"pool": PoolSettings(candidates=3, size=4, keep=False)}),
        (Perturb(rate=1.0), PLAN, {}),
        (Evolution(), PLAN, {}),
        (Late(), (5, 2, 4, 3), {}),
        (Late(2), (5, 2, 4, 3), {"restart": "all"}),
        (Late(), (5, 2, 4), {"restart": "first"}),
        (Late(), (5,), {}),
    ],
    ids=[
        "no mentor",
        "one stage",
        "restart=best",
        "restart=first",
        "restart=all",
        "a head without weights",
        "records and evaluations within stages",
        "records at stages' ends only",
        "projections scored, too",
        "best, restart=first",
        "a pool that forgets",
        "perturb",
        "evolution",
        "overlapped",
        "overlapped, restart=all",
        "overlapped, restart=first",
        "overlapped, one stage",
    ],
)
def test_a_run_whose_prompts_are_all_distinct_takes_exactly_what_was_counted(
    tmp_path: Path, mentor: Any, plan: tuple[int, ...], changes: dict[str, Any]
) -> None:
    problem = toy_problem(data=toy_data(train=20), **changes)  # 20 examples: the last batch of an epoch is smaller
    optimizer = Wandering(problem)
    expected, ledger = (
        estimate_run(Experiment(problem, optimizer, mentor, plan)),
        carry_out(tmp_path, problem, optimizer, mentor, plan).ledger,
    )
    assert (sum(expected.steps), expected.train_examples) == (ledger.gradient_steps, ledger.train_examples)
    assert expected.scored_examples == ledger.scored_examples
    assert expected.consultations == (
        0 if isinstance(mentor, NoMentor) else max(0, len(plan) - 1 - isinstance(mentor, Late))
    )
    assert (expected.bill, expected.most) == (MentorUsage(), MentorUsage())


def test_a_run_that_projects_to_the_same_prompts_again_scores_less_than_was_counted(tmp_path: Path) -> None:
    problem = toy_problem()
    still = Backprop(partial(torch.optim.AdamW, lr=1e-6))
    expected, ledger = (
        estimate_run(Experiment(problem, still, NoMentor(), PLAN)),
        carry_out(tmp_path, problem, still, NoMentor()).ledger,
    )
    assert ledger.scored_examples < expected.scored_examples
    assert ledger.gradient_steps == sum(expected.steps)


def test_steps_are_told_for_each_stage_and_for_every_member() -> None:
    assert estimate_run(Experiment(toy_problem(restart="all"), OPTIMIZER, RandomTokens(3), PLAN)).steps == (5, 6, 12)
    assert estimate_run(Experiment(toy_problem(restart="all"), OPTIMIZER, NoMentor(), PLAN)).steps == PLAN


def test_the_end_scores_the_soft_the_initial_and_the_best_discrete_prompt_on_test() -> None:
    assert estimate_run(Experiment(toy_problem(), OPTIMIZER, NoMentor(), PLAN)).test_examples == 3 * 14


# Nothing changes


@pytest.mark.parametrize("dropout", [False, True])
def test_a_run_after_an_estimate_writes_the_same_bytes_as_one_without(tmp_path: Path, dropout: bool) -> None:
    optimizer, mentor = replace(FAST, dropout=dropout), RandomTokens()
    problem = toy_problem(restart="all")
    problem = replace(
        problem, settings=replace(problem.settings, protocol=replace(problem.settings.protocol, dropout=dropout))
    )
    carry_out(tmp_path / "without", problem, optimizer, mentor)
    weights = {name: p.clone() for name, p in problem.model.backbone.state_dict().items()}
    streams = torch.get_rng_state(), random.getstate()
    estimate_run(Experiment(problem, optimizer, mentor, PLAN))
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert random.getstate() == streams[1]
    assert all(torch.equal(p, weights[name]) for name, p in problem.model.backbone.state_dict().items())
    assert not problem.model.backbone.training
    carry_out(tmp_path / "after", problem, optimizer, mentor)
    without, after = ([(tmp_path / name / file) for file in FILES.values()] for name in ("without", "after"))
    written = [(a.read_bytes(), b.read_bytes()) for a, b in zip(without, after, strict=True) if a.exists()]
    assert len(written) >= 4
    assert all(a == b for a, b in written)


@dataclass(frozen=True)
class Cramped(TextHead):
    """A classifier for which memory runs out with more than `most` examples in a pass with gradients."""

    head: Classifier
    most: int
    words: ClassVar[bool] = False
    trained: ClassVar[bool] = True

    def weights(self, *rest: Any) -> dict[str, Tensor]:
        return self.head.weights(*rest)

    def constants(self, *rest: Any) -> dict[str, Tensor]:
        return self.head.constants(*rest)

    def scores(self, backbone: Any, parameters: Any, batch: Batch, *rest: Any) -> Tensor:
        if torch.is_grad_enabled() and batch.size > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return self.head.scores(backbone, parameters, batch, *rest)


def test_memory_that_runs_out_is_told_and_leaves_the_problem_as_it_was() -> None:
    problem = toy_problem(head=Cramped(Classifier(), 4))
    (note,) = estimate_run(Experiment(problem, OPTIMIZER, NoMentor(), PLAN)).notes
    assert "continuing with 4 at a time" in note
    assert (problem.model.limits.examples, problem.model.limits.take_messages()) == (8, [])
    with pytest.raises(ConfigurationError, match="not even one example"):
        estimate_run(Experiment(toy_problem(head=Cramped(Classifier(), 0)), OPTIMIZER, NoMentor(), PLAN))


# Time, memory, sizes


class Clock:
    """Seconds that pass only where something sleeps, so that no other process of the machine is measured."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all measurements."""
    found = Clock()
    monkeypatch.setattr("llm_catalyst.training.estimate.time", found)
    return found


@dataclass(frozen=True)
class Sleeping(PromptOptimizer):
    """An optimizer whose step takes 0.5 ms for each token of each member, as time on a device does, roughly."""

    clock: Clock

    def train(
        self, model: PromptedText, members: Sequence[Member], batches: Iterator[Batch], step_range: StepRange
    ) -> Iterator[StepResult]:
        for number in range(step_range.done + 1, step_range.end + 1):
            batch = next(batches)
            self.clock.sleep(seconds_asleep(batch))
            yield StepResult(number, (0.0,) * len(members), batch.labels.numel())


def seconds_asleep(batch: Batch) -> float:
    return 5e-4 * batch.tokens.numel()


@pytest.mark.parametrize("restart", ["best", "all"])
def test_the_time_of_training_is_that_of_all_steps_of_all_members(restart: str, clock: Clock) -> None:
    problem, plan = toy_problem(data=toy_data(train=44), restart=restart), (6, 6, 6)
    expected = 0.0
    for stage in range(3):
        batches = problem.batches(3 if stage and restart == "all" else 1, 6 * stage)
        expected += sum(seconds_asleep(next(batches)) for _ in range(6))
    estimated = estimate_run(Experiment(problem, Sleeping(clock), RandomTokens(3), plan))
    assert 0.8 * expected < estimated.train_seconds < 2 * expected
    assert 1 <= estimated.measured_steps <= 6


@dataclass
class Noting(PromptOptimizer):
    """An optimizer that keeps the shapes of the batches that it trained on: members, rows, tokens of a row."""

    shapes: list[torch.Size] = field(default_factory=list)

    def train(
        self, model: PromptedText, members: Any, batches: Iterator[Batch], step_range: StepRange
    ) -> Iterator[StepResult]:
        batch = next(batches)
        self.shapes.append(batch.tokens.shape)
        return OPTIMIZER.train(model, members, iter([batch]), step_range)


def test_memory_is_measured_on_the_runs_longest_batch_and_time_on_one_of_mean_size() -> None:
    optimizer, problem = Noting(), toy_problem(data=toy_data(train=44), restart="all")
    estimate_run(Experiment(problem, optimizer, RandomTokens(2), (4, 4)))
    batches = problem.batches(1, 0)
    sizes = [rows * (length + 4) for _, rows, length in (next(batches).tokens.shape for _ in range(8))]
    usual = min(sizes, key=lambda size: abs(size - sum(sizes) / 8))
    assert min(sizes) < usual < max(sizes)
    (members, rows, length), *timed = optimizer.shapes
    assert (members, rows * (length + 4)) == (2, max(sizes))
    assert {(k, rows * (length + 4)) for k, rows, length in timed} == {(1, usual), (2, usual)}


@dataclass
class Slow(TextHead):
    """A classifier that takes `pace` seconds for each token of a pass without gradients, and keeps their numbers."""

    pace: float
    clock: Clock
    passes: list[int] = field(default_factory=list)
    words: ClassVar[bool] = False
    trained: ClassVar[bool] = True

    def weights(self, *rest: Any) -> dict[str, Tensor]:
        return Classifier().weights(*rest)

    def constants(self, *rest: Any) -> dict[str, Tensor]:
        return Classifier().constants(*rest)

    def scores(self, backbone: Any, parameters: Any, batch: TextBatch, *rest: Any) -> Tensor:
        if not torch.is_grad_enabled():
            k, rows, length = batch.tokens.shape
            self.passes.append(k * rows * (parameters["prompt"].shape[1] + length))
            self.clock.sleep(self.pace * self.passes[-1])
        return Classifier().scores(backbone, parameters, batch, *rest)


def test_the_time_of_scoring_is_measured_on_one_pass_and_holds_for_all(tmp_path: Path, clock: Clock) -> None:
    head = Slow(2e-4, clock)
    problem = toy_problem(head=head, data=toy_data(dev=40, test=40), token_budget=300)
    estimated = estimate_run(Experiment(problem, Wandering(problem), RandomTokens(), PLAN))
    assert len(set(head.passes)) == 1
    assert 200 < head.passes[0] <= 300
    head.pace, head.passes = 0.0, []
    carry_out(tmp_path, problem, Wandering(problem), RandomTokens())
    assert 0.9 < estimated.score_seconds / (2e-4 * sum(head.passes)) < 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's compiler warns of itself (2.13)
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler is here")
def test_what_compiling_takes_is_told_apart_from_the_time_of_steps_and_of_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "llm_catalyst.training.estimate.PATIENCE_S", 1e-9
    )  # measured once: a median would lose the first
    compiled = load_text_backbone(TextBackbone(folder("bert"), compile=True), False, CPU)
    compiled.base.compile(dynamic=True, backend="eager")  # traced as ever, but not translated, which takes a minute
    problem = assemble_problem(toy_data(), compiled, Classifier(), toy_settings(restart="all"))
    estimated = estimate_run(Experiment(problem, OPTIMIZER, RandomTokens(2), (2, 2)))
    assert estimated.compile_seconds > 1
    assert estimated.train_seconds + estimated.score_seconds < 0.5
    minutes, seconds = divmod(math.ceil(estimated.compile_seconds), 60)
    assert f"compiling up to 0:{minutes:02d}:{seconds:02d} more" in " ".join(printed(estimated).split())
    torch.compiler.reset()  # a run has a process of its own
    problem = replace(problem, compiled_before=compile_seconds())
    outcome = carry_out(tmp_path, problem, OPTIMIZER, NoMentor(), (1,))
    assert 1 < outcome.compile_seconds < outcome.seconds
    assert estimate_run(Experiment(toy_problem(), OPTIMIZER, NoMentor(), (1,))).compile_seconds is None


def test_sizes_are_those_of_the_model_and_of_one_member() -> None:
    problem = toy_problem()
    estimated = estimate_run(Experiment(problem, OPTIMIZER, NoMentor(), PLAN))
    assert estimated.weight_bytes == 4 * sum(p.numel() for p in problem.model.backbone.parameters())
    assert estimated.trained == 4 * 32 + 32 * 2 + 2
    assert estimated.device == "cpu"


MEASURE = """
import json, sys
sys.path.insert(0, "tests")
from pathlib import Path
from helpers.runs import OPTIMIZER, carry_out
from helpers.tiny_models import toy_data, toy_problem
from llm_catalyst.mentors.controls import NoMentor
from llm_catalyst.training.estimate import estimate_run
from llm_catalyst.training.loop import Experiment
from llm_catalyst.utils.memory import peak_memory

problem = toy_problem(data=toy_data(train=2000), batch_size=2000)
before = peak_memory(problem.device)
estimated = estimate_run(Experiment(problem, OPTIMIZER, NoMentor(), (1, 1)))
outcome = carry_out(Path("FOLDER"), problem, NoMentor(), OPTIMIZER, (1, 1)).outcome
print(json.dumps([before, estimated.peak_memory_bytes, outcome.peak_memory_bytes]))
"""


@pytest.mark.slow
def test_the_peak_memory_of_a_run_is_near_the_estimated_one(tmp_path: Path, python: Any) -> None:
    before, estimated, taken = json.loads(python(MEASURE.replace("FOLDER", str(tmp_path))))
    assert estimated > before + 60 * 2**20  # the step's activations are seen
    assert taken < before + 1.3 * (estimated - before)


# The mentor's bill

ANSWERS = (
    "- slow music\n- a very good film\n- bad bad actor",
    "- the plot was long\n- so very slow\n- not a good voice",
)


@pytest.mark.parametrize("history", [True, "shuffled", "absent"])
def test_a_mentor_whose_first_answers_can_be_used_is_called_and_asked_what_was_counted(
    tmp_path: Path, history: bool | str
) -> None:
    problem = toy_problem(pool=FILLED)
    optimizer = Wandering(problem)
    with serve(*map(openai_chat, ANSWERS)) as server:
        mentor = asking(server.url, history=history)
        estimated = estimate_run(Experiment(problem, optimizer, mentor, PLAN))
        assert server.requests == []
        ledger = carry_out(tmp_path, problem, optimizer, mentor).ledger
    assert ledger.mentor_calls == estimated.bill.calls == estimated.consultations == 2
    assert ledger.scored_examples == estimated.scored_examples
    assert estimated.bill.input_tokens == pytest.approx(sent_tokens(problem, tmp_path), rel=0.05)
    assert estimated.bill.output_tokens == 2 * 3 * (4 + 3)


def test_a_mentor_whose_answers_are_all_unusable_costs_no_more_than_the_most(tmp_path: Path) -> None:
    problem = toy_problem(pool=FILLED)
    rambling = openai_chat("it was so very long " * 110, finish_reason="content_filter")
    with serve(*[rambling] * 6) as server:
        mentor = asking(server.url, attempts=3)
        estimated = estimate_run(Experiment(problem, FAST, mentor, PLAN))
        ledger = carry_out(tmp_path, problem, FAST, mentor).ledger
    assert ledger.mentor_calls == estimated.most.calls == 6
    assert 3 * estimated.bill.input_tokens < sent_tokens(problem, tmp_path) < estimated.most.input_tokens
    assert estimated.most.output_tokens == 6 * 600


def sent_tokens(problem: Problem, path: Path) -> int:
    """Tokens of all messages that a run sent, by the backbone's tokenizer."""
    exchanges = read_lines(path / FILES[LLMCall], LLMCall)
    texts = [message.content for exchange in exchanges for message in exchange.messages]
    return sum(map(len, problem.space.tokenizer(texts, add_special_tokens=False).input_ids))


def test_a_bill_is_priced_call_by_call_and_unknown_prices_stay_unknown() -> None:
    known = estimate_run(Experiment(toy_problem(), OPTIMIZER, asking(), PLAN))
    for bill in (known.bill, known.most):
        assert bill.cost_usd == pytest.approx((0.15 * bill.input_tokens + 0.6 * bill.output_tokens) / 1e6)
    unknown = estimate_run(Experiment(toy_problem(), OPTIMIZER, asking(model="my-own"), PLAN))
    assert (unknown.bill.unpriced, unknown.most.unpriced) == (unknown.bill.calls, unknown.most.calls)
    assert unknown.unpriced == ("my-own",)
    assert unknown.bill.input_tokens == known.bill.input_tokens
    assert "unknown: conf/models.yaml has no price for my-own" in printed(unknown)


@pytest.mark.parametrize(
    ("client", "calls"), [(Human(), 2), (LocalModel("any"), 2), (Replay("any"), 0)], ids=["human", "local", "replay"]
)
def test_mentors_that_send_no_bill_cost_nothing(client: Any, calls: int) -> None:
    estimated = estimate_run(Experiment(toy_problem(), OPTIMIZER, LanguageModel(client, Paper()), PLAN))
    assert (estimated.bill.calls, estimated.bill.cost_usd, estimated.most.cost_usd) == (calls, 0.0, 0.0)
    assert (estimated.bill.unpriced, estimated.most.unpriced) == (0, 0)
    assert (estimated.bill.input_tokens > 0) is isinstance(client, LocalModel)
    assert "nothing" in printed(estimated)


def test_fallbacks_are_in_the_most_only() -> None:
    alone = estimate_run(Experiment(toy_problem(), OPTIMIZER, asking(), PLAN))
    second, third = (asking(model=name, attempts=1) for name in ("gpt-4o-mini", "my-own"))
    backed = estimate_run(Experiment(toy_problem(), OPTIMIZER, asking(fallbacks=[Evolution(), second]), PLAN))
    assert backed.bill == alone.bill
    assert (alone.most.calls, backed.most.calls) == (4, 6)
    assert backed.most.cost_usd > alone.most.cost_usd
    unknown = estimate_run(Experiment(toy_problem(), OPTIMIZER, asking(fallbacks=[third]), PLAN))
    assert (unknown.bill, unknown.most.unpriced) == (alone.bill, 2)
    assert "without fallbacks; with them unknown: conf/models.yaml has no price for my-own" in printed(unknown)


def test_a_single_stage_asks_nobody() -> None:
    estimated = estimate_run(Experiment(toy_problem(), OPTIMIZER, asking(), (3,)))
    assert (estimated.consultations, estimated.bill, estimated.most) == (0, MentorUsage(), MentorUsage())


def test_a_causal_model_under_a_verbalizer_is_estimated_too() -> None:
    estimated = estimate_run(Experiment(toy_problem("gpt2", Verbalizer()), OPTIMIZER, asking(), PLAN))
    assert estimated.bill.input_tokens > 300
    assert estimated.trained == 4 * 32


# What is printed


def test_an_estimate_is_read_at_a_glance() -> None:
    text = printed(
        replace(
            estimate_run(Experiment(toy_problem(), OPTIMIZER, asking(), (3, 3, 3))),
            bill=MentorUsage(2, 1624, 121, cost_usd=0.0021),
            most=MentorUsage(4, 4210, 2400, cost_usd=0.08),
            train_seconds=909.5,
            score_seconds=354.2,
            measured_steps=3,
            peak_memory_bytes=912 * 2**20,
        )
    )
    for words in (
        "9 steps in 3 stages of 3, on 72 examples",
        "up to 324 examples, and 42 at the end",
        "about 0:21:04 on cpu: training 0:15:10, scoring 0:05:55",
        "about 912 MiB",
        "194 parameters trained",
        "2 consultations, 2 to 4 calls",
        "about 1,624 to 4,210 sent, 121 to 2,400 received",
        "about $0.0021, at most $0.0800",
        "on 3 steps and a scoring pass",
    ):
        assert words in text


def test_a_sweep_is_the_sum_of_its_runs_and_needs_the_memory_of_the_largest() -> None:
    problem = toy_problem()
    runs = [
        estimate_run(Experiment(problem, OPTIMIZER, mentor, plan))
        for mentor, plan in ((asking(), PLAN), (NoMentor(), (3,)))
    ]
    both = sum_estimates(
        [
            replace(runs[0], peak_memory_bytes=5 * 2**20, train_seconds=60.0),
            replace(runs[1], peak_memory_bytes=3 * 2**20, train_seconds=5.0),
        ]
    )
    assert (both.runs, sum(both.steps), both.train_seconds, both.peak_memory_bytes) == (2, 14, 65.0, 5 * 2**20)
    assert both.scored_examples == runs[0].scored_examples + runs[1].scored_examples
    assert both.bill == runs[0].bill
    assert "2 runs, one after another" in printed(both)
    assert "14 steps, on" in printed(both)
    unknown = sum_estimates([runs[0], estimate_run(Experiment(problem, OPTIMIZER, asking(model="my-own"), PLAN))])
    assert (unknown.bill.unpriced, unknown.unpriced) == (2, ("my-own",))
    assert sum_estimates([sum_estimates(runs), *runs]).runs == 4
