"""Memory that runs out: fewer examples or tokens at a time, to the same result; real failures where they can be had."""

import json
import math
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command import REPOSITORY
from helpers.runs import carry_out, large_run
from helpers.tiny_models import (
    CrossEntropy,
    PromptIsLogits,
    StoppingView,
    Stops,
    choice_data,
    labels_only,
    toy_data,
    toy_problem,
)
from torch import Tensor

from llm_catalyst.config.build import build_components
from llm_catalyst.config.settings import Checkpoints
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import Member, StepResult
from llm_catalyst.optimizers.schedule import StepRange
from llm_catalyst.runs.records import Event
from llm_catalyst.training.problem import Problem
from llm_catalyst.utils.memory import PassLimits, forget_peak, out_of_memory, peak_memory
from llm_catalyst.utils.validation import ConfigurationError

STEPS = 7  # of an epoch and a half: 20 examples in batches of 8 make 3 steps, the last of 4 examples
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AdamW": partial(torch.optim.AdamW, lr=0.02),
    "Adam": partial(torch.optim.Adam, lr=0.02),
    "SGD": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "Adafactor": partial(torch.optim.Adafactor, lr=0.1),
}
ADAMW = Backprop(OPTIMIZERS["AdamW"])
CPU_ERROR = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 1677721600 bytes. Error code 12 (Cannot allocate memory)"
)


@dataclass
class Cramped(CrossEntropy):
    """The problem's model on a device where passes of more than `most` examples fail: in the middle, with `fails`.

    `sizes` are the examples of every pass; `alive` counts, at the beginning of each, what is left of those before.
    """

    problem: Problem
    most: int
    fails: Callable[[Tensor], Tensor] | None = None
    limits: PassLimits = field(init=False)
    sizes: list[int] = field(default_factory=list)
    alive: list[int] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limits = replace(self.problem.model.limits, messages=[])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.problem.model, name)

    def logits(self, parameters: Any, batch: Any) -> Tensor:
        self.alive.append(sum(seen() is not None for seen in self.seen))
        self.sizes.append(batch.size)
        with torch.autograd.graph.saved_tensors_hooks(self.pack, lambda held: held.tensor):
            logits = self.problem.model.logits(parameters, batch)
        if batch.size > self.most:
            return (self.fails or no_memory)(logits)
        return logits

    def pack(self, tensor: Tensor) -> "Held":
        held = Held(tensor.detach())  # an output that is kept whole would keep its graph, and itself
        self.seen.append(weakref.ref(held))
        return held


@dataclass(eq=False)
class Held:
    """A tensor that the graph of a pass keeps for the way back."""

    tensor: Tensor


def no_memory(_: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class NoWayBack(torch.autograd.Function):
    """Runs out of memory on the way back."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        no_memory(gradients)


def members_of(problem: Problem, k: int) -> list[Member]:
    rng = torch.Generator().manual_seed(3)
    start = problem.start()
    return [Member.of({n: p + 0.3 * torch.randn(p.shape, generator=rng) for n, p in start.items()}) for _ in range(k)]


def trained(
    optimizer: Backprop, problem: Problem, model: Any = None, k: int = 3
) -> tuple[list[Member], list[StepResult]]:
    """The k members after some steps, and the steps."""
    members = members_of(problem, k)
    steps = list(optimizer.train(model or problem.model, members, problem.batches(k, 0), StepRange(0, STEPS, STEPS, 0)))
    return members, steps


def assert_same(found: tuple[list[Member], list[StepResult]], wanted: tuple[list[Member], list[StepResult]]) -> None:
    """The same parameters, up to the order in which floats are added."""
    for one, other in zip(found[0], wanted[0], strict=True):
        for name, parameter in one.parameters.items():
            torch.testing.assert_close(parameter, other.parameters[name], atol=2e-5, rtol=1e-4)
    for step, other_step in zip(found[1], wanted[1], strict=True):
        assert (step.number, step.examples) == (other_step.number, other_step.examples)
        assert step.losses == pytest.approx(other_step.losses, abs=1e-5, nan_ok=True)


# Pieces of a batch add up to the batch


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("micro", [1, 3, 7])
def test_training_in_pieces_is_training_on_whole_batches(name: str, micro: int) -> None:
    optimizer, data = Backprop(OPTIMIZERS[name]), toy_data(train=20)
    whole, parted = toy_problem(data=data), toy_problem(data=data, micro_batch=micro)
    cramped = Cramped(parted, 8)
    assert_same(trained(optimizer, parted, cramped), trained(optimizer, whole))
    assert {sum(cramped.sizes[:n]) for n in range(len(cramped.sizes))} >= {0, 8}
    assert max(cramped.sizes) == micro
    assert cramped.limits.take_messages() == []


def test_an_example_of_several_choices_is_never_parted() -> None:
    whole, parted = (toy_problem(data=choice_data(), micro_batch=micro, batch_size=4) for micro in (None, 3))
    cramped = Cramped(parted, 8)
    optimizer = Backprop(
        OPTIMIZERS["SGD"]
    )  # Adam makes steps of the rounding errors of the bias, which changes no choice
    assert_same(trained(optimizer, parted, cramped), trained(optimizer, whole))
    assert cramped.sizes[:2] in ([3, 1], [2, 3])


def test_a_member_that_is_nan_in_one_piece_stops_alone() -> None:
    def train(limits: PassLimits) -> tuple[list[Member], list[StepResult]]:
        model = PromptIsLogits()
        model.limits = limits
        labels = [[0, 1, 1, 0, 1]] * 3
        spoiled = labels_only(labels)
        spoiled.tokens[1, 3] = 99  # one example of the member in the middle
        members = [Member.of({"prompt": torch.tensor([row])}) for row in ((0.5, -0.2), (0.1, 0.9), (-1.0, 1.0))]
        batches = iter([labels_only(labels), spoiled, labels_only(labels)])
        return members, list(ADAMW.train(model, members, batches, StepRange(0, 3, 3, 0)))  # type: ignore[arg-type]

    members, steps = train(PassLimits(2, 1))
    assert_same((members, steps), train(PassLimits(5, 1)))
    assert [[math.isnan(loss) for loss in step.losses] for step in steps] == [[False] * 3, *[[False, True, False]] * 2]


# Memory that runs out while training


def fails_back(logits: Tensor) -> Tensor:
    return NoWayBack.apply(logits)


@pytest.mark.parametrize("fails", [None, fails_back], ids=["forward", "backward"])
def test_memory_that_runs_out_halves_the_pieces_and_the_result_is_the_same(fails: Any) -> None:
    problem = toy_problem(data=toy_data(train=20))
    cramped = Cramped(problem, 3, fails)
    assert_same(trained(ADAMW, problem, cramped), trained(ADAMW, problem))
    assert cramped.sizes[:6] == [8, 4, 2, 2, 2, 2]
    assert max(cramped.sizes[6:]) == 2, "what did not fit is tried again in later steps"
    assert cramped.limits.examples == 2
    assert [words.partition(";")[0] for words in cramped.limits.take_messages()] == [
        "out of memory with 8 examples in one pass",
        "out of memory with 4 examples in one pass",
    ]
    assert cramped.limits.take_messages() == []


def test_gradients_of_pieces_before_the_one_that_failed_do_not_count() -> None:
    problem = toy_problem(data=toy_data(train=20), micro_batch=3)
    there: list[bool] = []
    members = members_of(problem, 1)

    def fails_once(logits: Tensor) -> Tensor:
        if len(cramped.sizes) == 2:  # the second of three pieces
            there.append(members[0].parameters["prompt"].grad is not None)
            return NoWayBack.apply(logits)
        return logits

    cramped = Cramped(problem, 0, fails_once)
    step_range = StepRange(0, STEPS, STEPS, 0)
    steps = list(ADAMW.train(cramped, members, problem.batches(1, 0), step_range))  # type: ignore[arg-type]
    assert there == [True]
    assert_same((members, steps), trained(ADAMW, toy_problem(data=toy_data(train=20)), k=1))


@pytest.mark.parametrize("fails", [None, fails_back], ids=["forward", "backward"])
def test_nothing_of_a_pass_that_failed_is_left_when_the_next_begins(fails: Any) -> None:
    problem = toy_problem(data=toy_data(train=20))
    cramped = Cramped(problem, 3, fails)
    trained(ADAMW, problem, cramped)
    assert len(cramped.seen) > 100
    assert not any(cramped.alive)


def test_dropout_draws_in_a_second_try_what_it_draws_in_a_first() -> None:
    """Else a resumed run, which tries the whole batch again, would draw otherwise than one that went on."""
    data, optimizer = toy_data(train=20), Backprop(OPTIMIZERS["AdamW"], dropout=True)
    tried, known = toy_problem("roberta", data=data), toy_problem("roberta", data=data, micro_batch=4)
    found, _ = trained(optimizer, tried, Cramped(tried, 4))
    wanted, _ = trained(optimizer, known)
    without, _ = trained(ADAMW, known)
    for one, other, plain in zip(found, wanted, without, strict=True):
        assert torch.equal(one.parameters["prompt"], other.parameters["prompt"])
        assert not torch.allclose(one.parameters["prompt"], plain.parameters["prompt"], atol=1e-3)


def test_where_not_even_one_example_fits_the_error_says_what_to_do() -> None:
    problem = toy_problem()
    with pytest.raises(ConfigurationError, match=r"not even one example at a time.*task\.max_length.*2\.00 GiB"):
        trained(ADAMW, problem, Cramped(problem, 0))


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    problem = toy_problem()

    def breaks(_: Tensor) -> Tensor:
        raise RuntimeError("expected scalar type Float but found Half")

    cramped = Cramped(problem, 0, breaks)
    with pytest.raises(RuntimeError, match="expected scalar type"):
        trained(ADAMW, problem, cramped)
    assert (cramped.sizes, cramped.limits.examples) == ([8], 8)


# Room


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(CPU_ERROR),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB)"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("could not create a primitive"),
        MemoryError(),
    ],
    ids=str,
)
def test_a_lack_of_memory_is_known_on_every_device(error: Exception) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("could not create a primitive descriptor for a matmul primitive"),
    ],
    ids=str,
)
def test_other_errors_are_none(error: Exception) -> None:
    assert not out_of_memory(error)


def test_room_asks_for_no_more_than_there_is_to_do_and_parts_no_example() -> None:
    limits, sizes = PassLimits(8, 1000), list[int]()

    def work(size: int) -> int:
        sizes.append(size)
        return size if size <= 12 else torch.empty(10**16).numel()  # which the CPU's allocator really refuses

    assert limits.fit("tokens", 10, 50, work) == 12
    assert (sizes, limits.tokens, limits.examples) == ([50, 25, 12], 12, 8)
    with pytest.raises(ConfigurationError, match=r"not even one example.*DefaultCPUAllocator"):
        limits.fit("tokens", 15, 60, lambda size: torch.empty(10**16))
    assert limits.take_messages()[-1].endswith("(token_budget=12 begins with that)")


def test_the_configuration_says_how_large_a_piece_is(composed: Callable[..., dict[str, Any]]) -> None:
    words = ("experiment=quickstart", "batch_size=8")
    assert build_components(composed(*words, "micro_batch=2")).settings.micro_batch == 2
    assert build_components(composed(*words)).settings.micro_batch is None
    with pytest.raises(ConfigurationError, match="micro_batch=0 is too small"):
        build_components(composed(*words, "micro_batch=0"))
    assert toy_problem(micro_batch=2).model.limits.examples == 2
    assert toy_problem().model.limits.examples == 8


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a process's peak")
def test_the_peak_of_a_run_is_not_that_of_an_earlier_one_in_the_same_process() -> None:
    before = torch.ones(2**26)
    high = peak_memory(before.device)
    del before
    forget_peak(torch.device("cpu"))
    assert peak_memory(torch.device("cpu")) < high - 2**27


# A run


def test_a_run_tells_of_memory_that_ran_out(tmp_path: Path) -> None:
    problem = toy_problem(data=toy_data(train=20))
    usual = carry_out(tmp_path / "usual", problem)
    cramped: Any = Cramped(problem, 4)
    found = carry_out(tmp_path / "cramped", replace(problem, model=cramped))
    events = [event for event in found.read(Event) if event.kind == "out_of_memory"]
    assert {(event.stage, event.step) for event in events} == {(0, 1)}, "told after the first step"
    assert [event.message.split(";")[0] for event in events if "examples" in event.message] == [
        "out of memory with 8 examples in one pass"
    ]
    assert any("tokens" in event.message for event in events), "dev was scored before the first step"
    assert usual.read(Event) == ()
    assert usual.outcome.best is not None
    assert found.outcome.best is not None
    assert found.outcome.best.score.loss == pytest.approx(usual.outcome.best.score.loss, abs=1e-4)


def test_a_run_that_goes_on_where_there_is_more_memory_keeps_to_what_fitted(tmp_path: Path) -> None:
    def problem() -> Problem:
        return toy_problem(data=toy_data(train=20), checkpoint=Checkpoints(1))

    def cramped() -> Any:
        roomy = problem()
        return replace(roomy, model=Cramped(roomy, 4))  # type: ignore[arg-type]

    whole = carry_out(tmp_path / "whole", cramped())
    with pytest.raises(Stops):
        carry_out(tmp_path / "cut", cramped(), view=StoppingView(5))
    assert carry_out(tmp_path / "cut", problem()).bytes() == whole.bytes()


LIMITED = """
import json, resource, sys
from pathlib import Path

from helpers.runs import large_run
from llm_catalyst.runs.records import Event

def limit():
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 18 * 2**20,) * 2)

result = large_run(Path(sys.argv[1]), limit)
events = [(event.kind, event.message) for event in result.read(Event)]
best = result.outcome.best.score
print(json.dumps([events, best.loss, best.metric, result.outcome.test.loss]))
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[str]"]:
    """The same run in a process that may take no more than 18 MB once everything is loaded."""
    path = tmp_path_factory.mktemp("limited")
    # What is freed then goes back to the system at once, as on a GPU.
    returning = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "tests"), "OMP_NUM_THREADS": "1"} | returning
    command = [sys.executable, "-c", LIMITED, path]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        yield process


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's address space")
def test_a_process_that_really_gets_no_more_memory_goes_on_with_less_at_a_time(
    limited: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    usual = large_run(tmp_path, lambda: None)
    out, err = limited.communicate(timeout=120)
    assert limited.returncode == 0, err
    events, loss, metric, test = json.loads(out)
    said = [message for kind, message in events if kind == "out_of_memory"]
    assert any("with 128 examples" in message for message in said)
    assert any("tokens" in message for message in said)
    assert usual.outcome.best is not None
    assert loss == pytest.approx(usual.outcome.best.score.loss, abs=1e-5)
    assert metric == usual.outcome.best.score.metric
    assert test == pytest.approx(usual.outcome.test.loss, abs=1e-5)
    assert not [event for event in usual.read(Event) if event.kind == "out_of_memory"]
