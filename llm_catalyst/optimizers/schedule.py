"""The `schedule` node of the configuration, a stage's steps, and whose moments a restart keeps: all without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llm_catalyst.utils.validation import Fraction, NonNegative, config_dataclass

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

Moments = Literal["prompt", "reset", "keep"]  # whose of a restarted member start anew: its prompt's, all, or none


@dataclass(frozen=True)
class StepRange:
    """The steps `begin` + 1 to `end` of a stage, in a run of `total`; those up to `done` are taken already.

    After a restart of a member its learning rate grows over `warm_up` steps. An epoch has `epoch` steps.
    """

    begin: int
    end: int
    total: int
    done: int
    warm_up: int = 0
    epoch: int = 1


@config_dataclass("schedule")
class Schedule:
    """The learning rate over the whole run (`over: run`), or anew in every stage (`over: stage`).

    `warm_up` is the share of those steps during which the rate grows linearly from 0 or, where that is given, is
    `warm_up_rate` (CoOp). With `step: epoch` the course goes on by one of its steps at the end of each epoch, as in the
    method's published code: at the end of a run it has hardly begun.
    """

    name: Literal["constant", "linear", "cosine"] = "constant"
    warm_up: Fraction = 0.0
    over: Literal["run", "stage"] = "run"
    warm_up_rate: NonNegative | None = None
    step: Literal["step", "epoch"] = "step"

    def attach(self, optimizer: "Optimizer", step_range: StepRange, restarted_at: int | None = None) -> "LambdaLR":
        """The scheduler of an optimizer that has taken the steps up to `step_range.done`.

        After `restarted_at`, the step of its member's restart, the rate grows linearly over `step_range.warm_up` steps.
        """
        import transformers
        from torch.optim.lr_scheduler import LambdaLR

        begin, end = (0, step_range.total) if self.over == "run" else (step_range.begin, step_range.end)
        done, span, full_rate = step_range.done - begin, end - begin, optimizer.param_groups[0]["lr"]
        warm_up = round(self.warm_up * span)
        make: Any = getattr(transformers, f"get_{self.name}_schedule_with_warmup")
        steps = {} if self.name == "constant" else {"num_training_steps": span}
        scheduler: LambdaLR = make(optimizer, num_warmup_steps=warm_up, last_epoch=done - 1, **steps)
        scale: Callable[[int], float] = scheduler.lr_lambdas[0]
        if self.warm_up_rate is not None:
            course, share = scale, self.warm_up_rate / (full_rate or 1)
            scale = lambda step: share if step < warm_up else course(step)  # noqa: E731
        if self.step == "epoch":
            each = scale
            scale = lambda step: each(step // step_range.epoch)  # noqa: E731
        if restarted_at is not None and step_range.warm_up:
            before, restart = scale, restarted_at - begin
            scale = lambda step: before(step) * min(1.0, (step - restart + 1) / step_range.warm_up)  # noqa: E731
        return scheduler if scale is scheduler.lr_lambdas[0] else LambdaLR(optimizer, scale, done - 1)
