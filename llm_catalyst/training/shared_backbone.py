"""Runs that share one process and one frozen backbone, each carried out by a thread of its own.

One of them computes at a time, and it yields its turn while it waits: for its mentor's answer (utils/turn_taking.py),
or for the others to reach a step that all take in one pass. So the results of a run depend on its own configuration
alone, except for the rounding in such a step.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.callbacks.console import make_callback
from llm_catalyst.models.base import PromptedModel
from llm_catalyst.optimizers.backprop import mean_gradients
from llm_catalyst.optimizers.base import Member, PromptOptimizer
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.utils.signals import SignalHandler
from llm_catalyst.utils.turn_taking import take_turn

# The cost of launching a pass's kernels on a GPU, in tokens. A batch that would need more padding than this beside
# longer ones gets a pass of its own. Estimated, not measured.
PASS_TOKENS = 4096


@dataclass(frozen=True)
class GradientRequest:
    """A request of run `number` for the losses of its members, and their gradients left in them."""

    number: int
    model: PromptedModel
    members: Sequence[Member]
    batch: Batch
    losses: "Future[list[float]]" = field(default_factory=Future)


class SharedBackboneRuns:
    """Runs whose task, backbone, head and prompt length are the same (`group_by_backbone` in sweeps/launchers.py).

    `joint` says whose steps share a pass. auto: on a GPU, those whose batches are of similar length; one member keeps a
    CPU busy, so there the runs take their steps alone, with the same bits as in a process of their own. all: all of
    them. none: none. All runs check `signals`; `callbacks` are theirs, by their numbers.
    """

    def __init__(self, runs: int, joint: str, signals: SignalHandler, callbacks: Mapping[int, RunCallback]) -> None:
        self.size = self.runs = runs
        self.joint, self.signals, self.callbacks = joint, signals, callbacks
        self._turn = threading.Condition(threading.Lock())
        self._waiting: list[GradientRequest] = []
        self._loaded: tuple[Any, int | None] = None, None

    @contextmanager
    def seat(self, number: int) -> Iterator[None]:
        """While entered, this thread carries out run `number`, and has the turn."""
        with take_turn(self._turn):
            token = _seat.set((self, number))
            try:
                yield
            finally:
                _seat.reset(token)
                self.runs -= 1
                self._step_if_all_wait()

    def load(self, seed: int, load: Callable[[], Any]) -> Any:
        """The result of `load`, loaded once for all runs; anew for another seed if some of the weights are drawn."""
        model, drawn = self._loaded
        if model is None or drawn not in (None, seed):
            model = load_seeded(seed, load)
            after = torch.get_rng_state()
            torch.manual_seed(seed)
            self._loaded = model, None if torch.equal(after, torch.get_rng_state()) else seed
        return model

    def step(self, request: GradientRequest) -> list[float]:
        """As `mean_gradients`, but for all runs at once: it returns when the last of them has called it."""
        self._waiting.append(request)
        self._step_if_all_wait()
        self._turn.wait_for(request.losses.done)
        return request.losses.result()

    def _step_if_all_wait(self) -> None:
        if self._waiting and len(self._waiting) == self.runs:
            # In an order that does not depend on which run came first.
            requests, self._waiting = sorted(self._waiting, key=lambda request: request.number), []
            for group in group_requests(requests, math.inf if self.joint == "all" else PASS_TOKENS):
                compute_gradients(group)
            self._turn.notify_all()


_seat: ContextVar[tuple[SharedBackboneRuns, int] | None] = ContextVar("seat", default=None)


def group_requests(requests: Sequence[GradientRequest], spare: float) -> list[list[GradientRequest]]:
    """The requests in groups that go forward together; none adds more than `spare` tokens to its group by padding."""
    groups: list[list[GradientRequest]] = []
    for request in sorted(requests, key=lambda request: -request.batch.width):
        group = next((group for group in groups if can_join(request, group[0], spare)), None)
        if group is None:
            groups.append([request])
        else:
            group.append(request)
    return groups


def can_join(request: GradientRequest, widest: GradientRequest, spare: float) -> bool:
    """Whether a request can go with one whose batch is as wide or wider, padded by no more than `spare` tokens."""
    rows = len(request.members) * request.batch.size
    alike = request.batch.size == widest.batch.size and request.model.backbone is widest.model.backbone
    return alike and (widest.batch.width - request.batch.width) * rows <= spare


def compute_gradients(group: Sequence[GradientRequest]) -> None:
    """One pass, forward and backward, for the members of all these runs."""
    members = [member for request in group for member in request.members]
    first, *others = (request.batch for request in group)
    try:
        losses = iter(mean_gradients(group[0].model, members, first.beside(others)))
    except Exception as error:
        for request in group:
            request.losses.set_exception(error)
    else:
        for request in group:
            request.losses.set_result([next(losses) for _ in request.members])


# --- for each run, alone or beside others


def load_seeded(seed: int, load: Callable[[], Any]) -> Any:
    """The result of `load`, which draws weights that a checkpoint lacks, such as RoBERTa's pooler, from this seed."""
    torch.manual_seed(seed)
    return load()


def share_backbone(seed: int, load: Callable[[], Any]) -> Any:
    """The backbone that `load` returns, or that another run beside this one has loaded."""
    seat = _seat.get()
    return seat[0].load(seed, load) if seat else load_seeded(seed, load)


def share_steps(optimizer: PromptOptimizer, device: torch.device) -> PromptOptimizer:
    """The optimizer, its steps taken in one pass with those of other runs if that is configured and possible."""
    seat = _seat.get()
    if not seat or seat[0].joint == "none" or (seat[0].joint == "auto" and device.type == "cpu"):
        return optimizer
    runs, number = seat
    return optimizer.share_gradients(lambda *request: runs.step(GradientRequest(number, *request)))


def get_signal_handler(patience_s: float) -> AbstractContextManager[SignalHandler]:
    """The run's own signal handler, or that of all runs of this process, which the main thread has entered."""
    seat = _seat.get()
    return nullcontext(seat[0].signals) if seat else SignalHandler(patience_s)


def get_callback(mode: str, console: Console) -> RunCallback:
    """The callback of that mode (`make_callback`); for `none` the one that the run got beside others."""
    seat = _seat.get()
    return seat[0].callbacks[seat[1]] if seat and mode == "none" else make_callback(mode, console)


def count_runs() -> int:
    """The number of runs that began together, this one included."""
    seat = _seat.get()
    return seat[0].size if seat else 1
