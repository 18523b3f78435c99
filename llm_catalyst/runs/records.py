"""What a run writes, reads back and reports: frozen dataclasses, each one JSON line.

Nothing here imports torch, so that a run can be read on a machine that could not have made it.
A record never holds NaN or infinity: divergence is a status (`Outcome.status`, `Event.kind`), not a number.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal, TypeVar, cast

from pydantic import TypeAdapter

Role = Literal["system", "user", "assistant"]
Origin = Literal["gradient", "mentor", "user"]
Status = Literal["done", "diverged", "stopped", "failed"]
Split = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class Prompt:
    """A discrete prompt: m vocabulary ids, and the text that they decode to."""

    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy in nats and the task's metric in [0, 1], over `examples` examples."""

    loss: float
    metric: float
    examples: int

    def better_than(self, other: "Score") -> bool:
        """Whether the metric is higher or, where it is equal, the loss lower."""
        return (self.metric, -self.loss) > (other.metric, -other.loss)


@dataclass(frozen=True)
class Snapshot:
    """A soft prompt seen on the way, projected to its nearest tokens (method, steps 2).

    `train_loss` is that of the batch at `step` (nats); `similarity` is the mean cosine between the soft
    prompt's rows and the tokens that stand for them: 1 means that the projection loses nothing.
    """

    stage: int
    step: int
    member: int
    train_loss: float
    prompt: Prompt
    similarity: float


@dataclass(frozen=True)
class ScoredPrompt:
    """An entry of the prompt pool: a discrete prompt, its score on dev, who proposed it and when."""

    prompt: Prompt
    score: Score
    origin: Origin
    stage: int


@dataclass(frozen=True)
class Message:
    """One message of a conversation with a mentor."""

    role: Role
    content: str


@dataclass(frozen=True)
class LLMCall:
    """One call of a language-model mentor, as sent and as received.

    `asked` is the model named in the request, `answered` the one named in the answer. `parameters` are the
    sampling settings that were sent, `not_sent` the configured ones that the provider does not take.
    `cost_usd` is None where the price or the usage is unknown. `error` is None for a usable answer. `reused`
    says where the answer comes from if nobody was asked for it (the cache, or an earlier run): it costs nothing
    now, and its tokens are those of the call that once brought it.
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

    @property
    def billed(self) -> bool:
        """Whether a model answered, now and for this run: only such an exchange counts in tokens and money."""
        return self.answered is not None and self.reused is None


@dataclass(frozen=True)
class Proposal:
    """A prompt that a mentor proposes; `lost` is the part of its text that did not fit into m tokens."""

    prompt: Prompt
    rationale: str = ""
    lost: str = ""


@dataclass(frozen=True)
class Rejected:
    """A line of a mentor's answer that did not become a proposal, and why."""

    line: str
    reason: str


@dataclass(frozen=True)
class Advice:
    """A mentor's answer to one consultation. No proposals means: carry on without a restart.

    `fallback` says why the mentor could not answer, where that happened; the pool's best then restarts.
    `memory` is what it wants to know at its next consultation (JSON values; None: what it knew before). `rows` are the
    soft prompts (n, m, d), float32, where it proposes such ones: the proposals are then their projections.
    """

    proposals: tuple[Proposal, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    fallback: str | None = None
    memory: Mapping[str, Any] | None = None
    rows: Any = None  # a torch.Tensor; nothing here imports torch


@dataclass(frozen=True)
class Restart:
    """The point from which the stage after `stage` starts, and what was weighed to choose it.

    `score_before` is the dev score of the soft prompt that the restart replaces; `considered` are the
    proposals with their dev scores (None where the protocol takes the first unscored). `spread` is the mean cosine
    distance between two of them, each the mean of its token embeddings: None where there is but one.
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


@dataclass(frozen=True)
class Evaluation:
    """Loss and metrics of the soft prompt itself (not its projection) on a split.

    `constant` names the class where every prediction is that class: nothing was learned yet. `projected` is the
    score of its projection under the same head, where that was evaluated (`evaluate.projected`).
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
    """What a run has spent.

    Examples are counted once per prompt that saw them: a member, a point beside one (zeroth-order doers), a candidate.
    `train_tokens` are those of the texts in training, with their padding and without the prompts; `padding_tokens` are
    the padding among them. Pictures have neither.
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
    """The soft prompt with the best dev score of the run, and its projection (shown, not scored)."""

    stage: int
    step: int
    member: int
    score: Score
    prompt: Prompt
    similarity: float


@dataclass(frozen=True)
class Outcome:
    """How a run ended. Written last: its presence means that the run finished.

    `test` belongs to `best`, the soft prompt chosen on dev; `best_prompt` is the pool's best discrete
    prompt and `test_best_prompt` its score. `majority` is the share of the reporting split's largest class.
    `compile_seconds` are those of `seconds` in which the process that ended the run compiled the backbone; None where
    it is not compiled.
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


@dataclass(frozen=True)
class Manifest:
    """What made a run: the command and the choice of each group, versions, machine and data.

    `together` is how many runs shared its process, its backbone and so its peak of memory, this one included.
    `format` is that of manifest.json and config.yaml (old_configs.py).
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

    @property
    def code(self) -> str:
        """The git revision of the code, and whether it had changes."""
        revision = str(self.git.get("revision", ""))[:10]
        return f"{revision}{', with changes' if self.git.get('dirty') else ''}" if revision else "no git"


# A run writes one of these at a time, and shows it.
Record = Snapshot | ScoredPrompt | LLMCall | Restart | Evaluation | Event

Emit = Callable[[Record], None]

R = TypeVar("R")


def to_json(record: Any) -> str:
    """One line of ASCII JSON. Raises ValueError where a number is NaN or infinite.

    Half a surrogate pair, which a model can send, becomes a question mark: no reader takes it for text.
    """
    text = json.dumps(asdict(record), ensure_ascii=False, allow_nan=False).encode(errors="replace")
    return json.dumps(json.loads(text), ensure_ascii=True, allow_nan=False)


def from_json(kind: type[R], line: str | bytes) -> R:
    """The record of class `kind` that `line` holds. Raises pydantic.ValidationError naming the field."""
    return cast(R, record_reader(cast(Any, kind)).validate_json(line))


@cache
def record_reader(kind: Any) -> TypeAdapter[Any]:
    """What reads records of this class: to make one takes as long as to read some hundreds of lines."""
    return TypeAdapter(kind)
