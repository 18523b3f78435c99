"""Runs that share one process and one frozen backbone, each carried out by a thread of its own.

One of them computes at a time, and it gives its turn away where it has to wait: for its mentor's answer (turns.py), or
for the others to come as far as a step that all take in one pass. So what a run computes depends on its own
configuration alone, but for the rounding in such a step.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

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

# What a pass costs on a GPU beside its tokens, for launching its kernels, in tokens. A batch that would have to be
# padded by more, to go with longer ones, goes in a pass of its own. Estimated, not measured.
PASS_TOKENS = 4096

T = TypeVar("T")


@dataclass(frozen=True)
class GradientRequest:
    """What run `number` waits for: the losses of its members, and their gradients left in them."""

    number: int
    model: PromptedModel
    members: Sequence[Member]
    batch: Batch
    losses: "Future[list[float]]" = field(default_factory=Future)


class SharedBackboneRuns:
    """So many runs whose task, backbone, head and length of the prompt are the same (see `sweep.together`).

    `joint` says whose steps go in one pass. auto: on a GPU, those whose batches are of similar length; a CPU has enough
    to do with one member, and so the runs take their steps alone there, to the bit those that they take without
    company. all: all of them. none: none. `interruption` is what all heed; `views` show them, by their numbers.
    """

    def __init__(self, runs: int, joint: str, interruption: SignalHandler, views: Mapping[int, RunCallback]) -> None:
        self.size = self.runs = runs
        self.joint, self.interruption, self.views = joint, interruption, views
        self._turn = threading.Condition(threading.Lock())
        self._waiting: list[GradientRequest] = []
        self._loaded: tuple[Any, int | None] = None, None

    @contextmanager
    def seat(self, number: int) -> Iterator[None]:
        """While entered, this thread carries out run `number`, and it is its turn."""
        with take_turn(self._turn):
            token = _seat.set((self, number))
            try:
                yield
            finally:
                _seat.reset(token)
                self.runs -= 1
                self._step_if_all_wait()

    def load(self, seed: int, load: Callable[[int], T]) -> T:
        """What `load` gives, loaded once for all runs; anew for another seed where some of the weights are drawn."""
        model, drawn = self._loaded
        if model is None or drawn not in (None, seed):
            model = load(seed)
            after = torch.get_rng_state()
            torch.manual_seed(seed)
            self._loaded = model, None if torch.equal(after, torch.get_rng_state()) else seed
        return cast(T, model)

    def step(self, request: GradientRequest) -> list[float]:
        """As `mean_gradients`, but for all runs at once: it returns when the last of them has come."""
        self._waiting.append(request)
        self._step_if_all_wait()
        self._turn.wait_for(request.losses.done)
        return request.losses.result()

    def _step_if_all_wait(self) -> None:
        if self._waiting and len(self._waiting) == self.runs:
            # In an order that does not depend on who came first.
            requests, self._waiting = sorted(self._waiting, key=lambda request: request.number), []
            for group in group_requests(requests, math.inf if self.joint == "all" else PASS_TOKENS):
                carry_out(group)
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


def carry_out(group: Sequence[GradientRequest]) -> None:
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


# --- what a run asks of its company, if it has any


def share_backbone(seed: int, load: Callable[[int], T]) -> T:
    """The backbone that `load` gives, or has given to another run of this one's company.

    `load` seeds torch's global generator, from which it may draw, with what it is given: `seed`.
    """
    seat = _seat.get()
    return seat[0].load(seed, load) if seat else load(seed)


def share_steps(optimizer: PromptOptimizer, device: torch.device) -> PromptOptimizer:
    """The optimizer, its steps taken in one pass with those of the other runs where that is wanted and possible."""
    seat = _seat.get()
    if not seat or seat[0].joint == "none" or (seat[0].joint == "auto" and device.type == "cpu"):
        return optimizer
    company, number = seat
    return optimizer.share_gradients(lambda *request: company.step(GradientRequest(number, *request)))


def get_signal_handler(patience_s: float) -> AbstractContextManager[SignalHandler]:
    """What tells a run of a signal: its own, or that of its company, which the main thread has entered."""
    seat = _seat.get()
    return nullcontext(seat[0].interruption) if seat else SignalHandler(patience_s)


def get_callback(mode: str, console: Console) -> RunCallback:
    """The view of that name (see `view_for`); that which its company has for the run stands for none."""
    seat = _seat.get()
    return seat[0].views[seat[1]] if seat and mode == "none" else make_callback(mode, console)


def count_runs() -> int:
    """How many runs began together, this one included."""
    seat = _seat.get()
    return seat[0].size if seat else 1
