"""The records that a run writes, each one JSON line; nothing here imports torch.

A record never holds NaN or infinity: divergence is a status (`Outcome.status`, `Event.kind`), not a number.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal, TypeVar, cast

from pydantic import TypeAdapter

from llm_catalyst.utils.format import join_command

Origin = Literal["gradient", "mentor", "user"]
Status = Literal["done", "diverged", "stopped", "failed"]
Split = Literal["train", "dev", "test"]
Criterion = Literal["loss", "metric"]  # by which dev chooses
ROUNDING = 1e-4  # of a mean cosine in float32


@dataclass(frozen=True)
class Prompt:
    """A discrete prompt: m vocabulary ids, or with prompt.fill=none at most m, and the text that they decode to."""

    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy in nats and the task's metric in [0, 1], over `examples` examples."""

    loss: float
    metric: float
    examples: int

    @property
    def rank(self) -> tuple[float, float]:
        """A sort key, larger for the better score: by the metric and, where that is equal, by the loss."""
        return self.metric, -self.loss

    def rank_by(self, criterion: Criterion) -> tuple[float, float]:
        """A sort key, larger for the better score: by the criterion and, where that is equal, by the other one."""
        return self.rank if criterion == "metric" else self.rank[::-1]

    def better_than(self, other: "Score", criterion: Criterion = "metric") -> bool:
        """Whether the score is better by the criterion or, where it is equal, by the other one."""
        return self.rank_by(criterion) > other.rank_by(criterion)


@dataclass(frozen=True)
class Snapshot:
    """A soft prompt during training, projected to its nearest tokens (method, step 2).

    `step` counts the optimizer steps of all stages, `member` the prompts that are trained side by side. `train_loss` is
    the loss of the batch at `step`, in nats; `similarity` the mean cosine between the soft prompt's rows and their
    nearest tokens, 1 for an exact projection.
    """

    stage: int
    step: int
    member: int
    train_loss: float
    prompt: Prompt
    similarity: float


@dataclass(frozen=True)
class ScoredPrompt:
    """An entry of the prompt pool: a discrete prompt, its score on dev, its origin and stage."""

    prompt: Prompt
    score: Score
    origin: Origin
    stage: int


@dataclass(frozen=True)
class Message:
    """One message of a conversation with a mentor."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class LLMCall:
    """One call of a language-model mentor, as sent and as received.

    `asked` is the model in the request, `answered` the one in the response, None if there was none. `parameters` are
    the sampling settings that were sent, `not_sent` those that the provider does not take. `cost_usd` is None if the
    price or the usage is unknown, `error` if the response is usable. `reused` is the source of a response that was not
    requested now, the cache or an earlier run: it costs nothing, and its tokens are those of the original call. Of the
    `input_tokens`, `cached_tokens` were read from the provider's cache and `cache_write_tokens` written to it.
    """

    stage: int
    messages: tuple[Message, ...]
    reply: str
    asked: str
    answered: str | None
    parameters: Mapping[str, float | int | str]
    not_sent: tuple[str, ...]
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    latency_s: float
    date: str
    request_id: str | None = None
    stop_reason: str | None = None
    attempts: int = 1
    error: str | None = None
    reused: str | None = None
    cached_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def billed(self) -> bool:
        """Whether a model responded to a request of this run: only such a call has tokens and costs."""
        return self.answered is not None and self.reused is None


@dataclass(frozen=True)
class Proposal:
    """A prompt that a mentor proposes; `lost` is the part of its text beyond m tokens."""

    prompt: Prompt
    rationale: str = ""
    lost: str = ""


@dataclass(frozen=True)
class Rejected:
    """A line of a mentor's response that did not become a proposal, and the reason."""

    line: str
    reason: str


@dataclass(frozen=True)
class Advice:
    """A mentor's answer after a stage. Without proposals the run continues without a restart.

    `fallback` is why the mentor could not answer; the pool's best prompt then restarts. `instead` says why another
    mentor proposes in its place, and which; `failure` why a request got no answer at all. `memory` has JSON values that
    the mentor gets at its next stage; None keeps the earlier ones. `rows` are soft prompts (n, m, d), float32, if it
    proposes such; the proposals are then their projections.
    """

    proposals: tuple[Proposal, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    fallback: str | None = None
    memory: Mapping[str, Any] | None = None
    instead: str = ""
    failure: str = ""
    rows: Any = None  # a torch.Tensor; nothing here imports torch


@dataclass(frozen=True)
class Restart:
    """The point from which the stage after `stage` starts, and the alternatives.

    `score_before` is the dev score of the soft prompt that the restart replaces, `score` that of the point from which
    training starts: the prompt's tokens and what `restart.carry` adds. `considered` has the proposals with the scores
    of such points; None if the protocol takes the first unscored. `spread` is the mean pairwise cosine distance of the
    proposals' mean token embeddings; None for a single proposal.

    `difference` is the loss of that point minus the one before, the mean over dev rows, and `error` its standard error.
    `kept` marks a stage that goes on from the running prompt, whose
    projection is `prompt`. `distinct` counts the distinct projections in the stage, `shown` the prompts of the pool
    that the mentor was shown. All of these are None in runs of earlier revisions.
    """

    stage: int
    member: int
    prompt: Prompt
    reason: str
    score_before: Score | None
    score: Score | None
    considered: tuple[tuple[Proposal, Score | None], ...]
    rejected: tuple[Rejected, ...]
    fallback: str | None
    spread: float | None = None
    difference: float | None = None
    error: float | None = None
    kept: bool = False
    distinct: int | None = None
    shown: int | None = None

    @property
    def within_error(self) -> bool | None:
        """Whether the difference is no larger than its standard error; None where it is not known."""
        return None if self.difference is None or self.error is None else abs(self.difference) <= self.error


@dataclass(frozen=True)
class Evaluation:
    """Loss and metrics of the soft prompt on a split.

    `constant` is the label of every prediction, if all are equal; `projected` the score of the prompt's projection
    under the same head, if that was evaluated (`evaluate.projected`).
    """

    stage: int
    step: int
    member: int
    split: Split
    score: Score
    metrics: Mapping[str, float]
    constant: str | None = None
    projected: Score | None = None


@dataclass(frozen=True)
class Event:
    """Something that a reader of the run must know: a warning, a stage's end, a fallback."""

    stage: int
    step: int
    kind: str
    message: str


@dataclass(frozen=True)
class Usage:
    """The resources that a run has used.

    Examples count once for each prompt that saw them: a member, a point next to it (zeroth order), a candidate.
    `train_tokens` are those of texts in training, without prompts, and `padding_tokens` the padding among them.
    """

    gradient_steps: int = 0
    train_examples: int = 0
    scored_examples: int = 0
    mentor_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unpriced_calls: int = 0
    train_tokens: int = 0
    padding_tokens: int = 0


@dataclass(frozen=True)
class Best:
    """The soft prompt with the best dev score of the run, and its projection, which is shown but not scored."""

    stage: int
    step: int
    member: int
    score: Score
    prompt: Prompt
    similarity: float

    @property
    def discrete(self) -> bool:
        """Whether the prompt is its nearest tokens, as with an optimizer of tokens or none: then they were scored."""
        return self.similarity > 1 - ROUNDING


@dataclass(frozen=True)
class Outcome:
    """The result of a run. It is written last: a run with an outcome is finished.

    `best` is the soft prompt that dev chose, `test` its score on the split `reported_on`; `best_prompt` the pool's best
    discrete prompt, `test_best_prompt` its score; `start_dev` and `start_test` those of the initial prompt before any
    training, None in runs of earlier revisions. `distinct` counts the distinct projections in each stage. `majority` is
    the share of the reporting split's largest class, `majority_metric` the task's metric of always answering that one,
    None in runs of earlier revisions, and `compile_seconds` the part of `seconds` in which the last process compiled
    the backbone; None without compiling.
    """

    status: Status
    message: str
    protocol: str
    reported_on: str
    best: Best | None
    test: Score | None
    test_metrics: Mapping[str, float]
    best_prompt: ScoredPrompt | None
    test_best_prompt: Score | None
    majority: float
    diverged_stages: tuple[int, ...]
    fallbacks: int
    ledger: Usage
    seconds: float
    peak_memory_bytes: int
    device: str
    finished: str
    compile_seconds: float | None = None
    start_dev: Score | None = None
    start_test: Score | None = None
    majority_metric: float | None = None
    distinct: tuple[int, ...] = ()

    @property
    def one_prompt(self) -> bool:
        """Whether `best` and `best_prompt` are the same tokens."""
        best, entry = self.best, self.best_prompt
        return best is not None and entry is not None and best.discrete and best.prompt.tokens == entry.prompt.tokens

    @property
    def majority_score(self) -> float:
        """The task's metric of always answering the largest class, or the accuracy where no more is known."""
        return self.majority if self.majority_metric is None else self.majority_metric


@dataclass(frozen=True)
class Manifest:
    """The provenance of a run: command, choice of each group, versions, machine and data.

    `together` is the number of runs that shared its process, its backbone and so its peak memory, including this one.
    `format` is that of manifest.json and config.yaml (old_configs.py). `mentor_notes` are what a reader must know of
    the models that were asked: their shutdown, and another model in the place of the paper's.
    """

    command: tuple[str, ...]
    choices: Mapping[str, str]
    started: str
    versions: Mapping[str, str]
    git: Mapping[str, str | bool]
    python: str
    platform: str
    device: str
    threads: int
    backbone: Mapping[str, Any]
    data: Mapping[str, Any] = field(default_factory=dict)
    together: int = 1
    format: int = 1
    mentor_notes: tuple[str, ...] = ()

    @property
    def command_line(self) -> str:
        """The command line that made the run."""
        return join_command(("catalyst", "run", *self.command))

    @property
    def code(self) -> str:
        """The git revision of the code, and whether it had changes."""
        revision = str(self.git.get("revision", ""))[:10]
        return f"{revision}{', with changes' if self.git.get('dirty') else ''}" if revision else "no git"


# The records that a run writes line by line, and passes to its callbacks.
Record = Snapshot | ScoredPrompt | LLMCall | Restart | Evaluation | Event
Emit = Callable[[Record], None]
R = TypeVar("R")


def to_json(record: Any) -> str:
    """One line of ASCII JSON, in which half a surrogate pair becomes "?". Raises ValueError for NaN and infinity."""
    text = json.dumps(asdict(record), ensure_ascii=False, allow_nan=False).encode(errors="replace")
    return json.dumps(json.loads(text), ensure_ascii=True, allow_nan=False)


def from_json(kind: type[R], line: str | bytes) -> R:
    """The record of class `kind` in `line`. Raises pydantic.ValidationError, which names the field."""
    return cast(R, make_reader(kind).validate_json(line))


# Making a reader takes as long as reading some hundreds of lines.
make_reader: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
