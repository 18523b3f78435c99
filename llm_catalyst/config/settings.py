"""The run's own settings: the top level of conf/config.yaml, its types and bounds."""

import math
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import BeforeValidator

from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.optimizers.schedule import Moments, Schedule
from llm_catalyst.runs.records import Criterion
from llm_catalyst.tasks.base import steps_per_epoch
from llm_catalyst.utils.validation import (
    ConfigurationError,
    Fraction,
    NonNegative,
    NonNegativeInt,
    PositiveInt,
    config_dataclass,
)

DEFAULT_STAGES = 4
MOST_THREADS = 1024  # with many more the process dies without a message


@dataclass(frozen=True)
class Interval:
    """A number of optimizer steps or, where given, of epochs; for a stage also a list of either."""

    steps: Any = None
    epochs: Any = None

    def in_steps(self, key: str, per_epoch: int) -> list[int]:
        """The interval, or each of a list, in whole steps. Raises ConfigurationError where one is below 1."""
        name, value = ("epochs", self.epochs) if self.epochs is not None else ("steps", self.steps)
        values = value if isinstance(value, list | tuple) else [value]
        if not values:
            raise ConfigurationError(f"{key}.{name}=[] names no stage; give at least one number")
        numbers = []
        for entry in values:
            is_number = isinstance(entry, int | float) and not isinstance(entry, bool)
            if not is_number or (name == "steps" and math.isfinite(entry) and entry != int(entry)):
                raise ConfigurationError(f"{key}.{name}={entry} is not a number of {name}")
            if not 0 < entry < math.inf:
                raise ConfigurationError(f"{key}.{name}={entry} must be more than 0")
            numbers.append(max(1, round(entry * per_epoch)) if name == "epochs" else int(entry))
        return numbers


@config_dataclass("stage")
class StageLengths(Interval):
    """The length of each stage; `early_share` is the share of the run that each stage but the last one takes."""

    early_share: Fraction | None = 0.1

    def divide_run(self, stages: int, steps: int) -> tuple[int, ...]:
        """The steps of each stage of a run of `stages` times `steps`: equal, or those but the last one short."""
        if self.early_share is None or self.early_share * stages >= 1:
            return (steps,) * stages
        early = max(1, round(self.early_share * stages * steps))
        return (*[early] * (stages - 1), stages * steps - early * (stages - 1))


@config_dataclass("evaluate")
class Evaluations(Interval):
    """The interval at which soft prompts are scored on dev; with `projected` their projections are scored, too."""

    projected: bool = False


@config_dataclass("pool")
class PoolSettings:
    """The prompt pool: how many of a stage's projected prompts are scored, and how many entries it keeps.

    Without `keep` a stage's pool starts empty.
    """

    candidates: PositiveInt = 8
    size: PositiveInt = 10
    keep: bool = True


@config_dataclass("restart")
class RestartSettings:
    """The restart points of a stage: which of a mentor's proposals, and how training goes on from there.

    `carry` is the share of the soft prompt's difference to its own projection that is added to a proposal. `moments`
    says whose optimizer moments start anew: the prompt's, all (`reset`), or none (`keep`). The learning rate grows over
    `warm_up` steps. A race lasts `race_steps`.
    """

    choose: Literal["best", "first", "all", "if_better", "race"] = "if_better"
    carry: Fraction = 1.0
    moments: Moments = "prompt"
    warm_up: NonNegativeInt = 10
    race_steps: PositiveInt = 10

    @property
    def keeps_running(self) -> bool:
        """Whether going on from the running prompt is among the candidates."""
        return self.choose in ("if_better", "race")


def refuse_short_form(value: Any) -> Any:
    """Raise ConfigurationError where a YAML file has `restart: best`, as earlier revisions had it."""
    if isinstance(value, str):
        raise ConfigurationError(f"restart={value} is a group of keys; write restart: {{choose: {value}}}")
    return value


@config_dataclass("protocol")
class Protocol:
    """The split of the data, and the choices of the published code that are followed (docs/protocols.md)."""

    name: str = "heldout"
    report_on: Literal["test", "dev"] = "test"
    embed_twice: bool = False
    dropout: bool = False
    max_length: Annotated[int, Ge(4)] | None = None
    pad_to_max_length: bool = False
    first_candidates: bool = False
    candidate_gap: PositiveInt = 1
    count_start: bool = True
    official_states: bool = False


@config_dataclass("checkpoint")
class Checkpoints:
    """The interval at which a stage's progress is saved, in optimizer steps or seconds ('60s')."""

    every: bool | int | str = "60s"  # were bool not named here, pydantic would take true for 1

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not re.fullmatch(r"[1-9]\d*|\d*\.?\d+s", str(self.every)):
            raise ConfigurationError(
                f"checkpoint.every={self.every} is neither a number of steps (100) nor of seconds (60s)"
            )

    def due(self, steps: int, seconds: float) -> bool:
        """Whether to save, `steps` and `seconds` after the last checkpoint."""
        every = str(self.every)
        return seconds >= float(every[:-1]) if every.endswith("s") else steps >= int(every)


@config_dataclass("budget")
class Budget:
    """The limits of a run: US dollars and tokens (sent and received) on its mentor, minutes of its own time.

    `scored_examples` counts the examples of all scored prompts. `when_spent` decides whether the run then stops, to be
    resumed with more, or continues to its end without its mentor; when its minutes are spent it always stops.
    """

    usd: NonNegative | None = None
    tokens: NonNegativeInt | None = None
    scored_examples: NonNegativeInt | None = None
    minutes: NonNegative | None = None
    when_spent: Literal["stop", "conclude"] = "stop"


@config_dataclass("sweep.budget")
class SweepBudget:
    """The limits of all runs of a sweep or table together: US dollars and tokens on their mentors."""

    usd: NonNegative | None = None
    tokens: NonNegativeInt | None = None


@config_dataclass("sweep")
class SweepSettings:
    """What the runs in one folder share; a sweep or a table sets `folder`."""

    budget: SweepBudget = field(default_factory=SweepBudget)
    folder: str | None = None


@config_dataclass("")
class Settings:
    """Top level of the configuration; conf/config.yaml says what each key means."""

    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 1
    stages: PositiveInt | None = None
    stage: StageLengths = field(default_factory=lambda: StageLengths(steps=200))
    batch_size: PositiveInt = 32
    bucket_batches: NonNegativeInt | None = None
    schedule: Schedule = field(default_factory=Schedule)
    clip_norm: Annotated[float, Ge(1e-9)] | None = 1.0
    prompt: PromptSettings = field(default_factory=PromptSettings)
    record: Interval = field(default_factory=lambda: Interval(steps=5))
    evaluate: Evaluations = field(default_factory=lambda: Evaluations(steps=50))
    pool: PoolSettings = field(default_factory=PoolSettings)
    baseline: Literal["none"] | None = None
    restart: Annotated[RestartSettings, BeforeValidator(refuse_short_form)] = field(default_factory=RestartSettings)
    criterion: Criterion | None = "loss"
    protocol: Protocol = field(default_factory=Protocol)
    device: str = "auto"
    threads: Annotated[int, Ge(1), Le(MOST_THREADS)] | None = None
    token_budget: PositiveInt = 16384
    micro_batch: PositiveInt | None = None
    checkpoint: Checkpoints = field(default_factory=Checkpoints)
    budget: Budget = field(default_factory=Budget)
    sweep: SweepSettings = field(default_factory=SweepSettings)
    dry_run: bool = False
    view: Literal["auto", "live", "plain", "none"] = "auto"
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    plugins: tuple[str, ...] = ()
    models: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise ConfigurationError(f"device={self.device} is not known; there are: auto, cpu, cuda, cuda:0, …, mps")
        self.plan(examples=1)
        self.every("record", 1), self.every("evaluate", 1)

    @property
    def result_criterion(self) -> Criterion:
        """That by which the reported prompt is chosen. Earlier revisions, without a key, took the metric."""
        return self.criterion or "metric"

    @property
    def prompt_criterion(self) -> Criterion:
        """That by which the pool, restarts and races are ranked. Earlier revisions, without a key, took the loss."""
        return self.criterion or "loss"

    def plan(self, examples: int) -> tuple[int, ...]:
        """Steps of each stage, for a training split of `examples` examples."""
        numbers = self.stage.in_steps("stage", steps_per_epoch(examples, self.batch_size))
        if isinstance(self.stage.steps if self.stage.epochs is None else self.stage.epochs, list | tuple):
            if self.stages not in (None, len(numbers)):
                raise ConfigurationError(
                    f"stages={self.stages}, but the list in stage has {len(numbers)} entries; drop one of the two"
                )
            return tuple(numbers)
        return self.stage.divide_run(self.stages or DEFAULT_STAGES, numbers[0])

    def every(self, key: str, examples: int) -> int:
        """Steps between two recordings (`record`) or evaluations (`evaluate`)."""
        node = getattr(self, key)
        numbers = node.in_steps(key, steps_per_epoch(examples, self.batch_size))
        if len(numbers) != 1:
            raise ConfigurationError(f"{key} takes one number, not a list")
        return numbers[0]
