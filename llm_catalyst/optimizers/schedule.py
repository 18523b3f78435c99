"""The `schedule` node of the configuration, which is checked without torch."""

from typing import TYPE_CHECKING, Any, Literal

from llm_catalyst.utils.validation import Fraction, NonNegative, config_dataclass

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

    from llm_catalyst.optimizers.base import StepRange


@config_dataclass("schedule")
class Schedule:
    """The learning rate over the whole run (`over: run`), or anew in every stage (`over: stage`).

    `warm_up` is the share of those steps during which the rate grows linearly from 0 or, where that is given, is
    `warm_up_rate` (CoOp).
    """

    name: Literal["constant", "linear", "cosine"] = "constant"
    warm_up: Fraction = 0.0
    over: Literal["run", "stage"] = "run"
    warm_up_rate: NonNegative | None = None

    def attach(self, optimizer: "Optimizer", step_range: "StepRange") -> "LambdaLR":
        """The scheduler of an optimizer that has taken the steps up to `step_range.done`."""
        import transformers
        from torch.optim.lr_scheduler import LambdaLR

        begin, end = (0, step_range.total) if self.over == "run" else (step_range.begin, step_range.end)
        done, span, full_rate = step_range.done - begin, end - begin, optimizer.param_groups[0]["lr"]
        warm_up = round(self.warm_up * span)
        make: Any = getattr(transformers, f"get_{self.name}_schedule_with_warmup")
        steps = {} if self.name == "constant" else {"num_training_steps": span}
        scheduler: LambdaLR = make(optimizer, num_warmup_steps=warm_up, last_epoch=done - 1, **steps)
        if self.warm_up_rate is None:
            return scheduler
        after, share = scheduler.lr_lambdas[0], self.warm_up_rate / (full_rate or 1)
        return LambdaLR(optimizer, lambda step: share if step < warm_up else after(step), done - 1)
