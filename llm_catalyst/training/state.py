"""The state of a run after any step, and its form on disk: tensors and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter
from torch import Tensor

from llm_catalyst.optimizers.base import Member, StepResult
from llm_catalyst.runs.records import Advice, Best, Criterion, LLMCall, Score, ScoredPrompt, Snapshot, Usage


@dataclass(frozen=True)
class State:
    """Everything that the rest of the run needs, at the end of a stage or after any step within one.

    `stage` and `step` are the next stage and the number of steps taken. `members` train in that stage; `trained` says
    that it lacks only the mentor's advice. `room` has the sizes that fitted into memory in one pass: examples in
    training, tokens in scoring. `memory` is passed to the mentor again (`Advice.memory`), and `shown` is the pool that
    it is asked about while this stage trains (`mentor.overlap`): None if it is not asked then.
    `score` is the dev score of the member that the last stage ended with, and `losses` (n,) its loss on each row of dev
    in nats, None if that is not known. `racing` says that the members of this stage race. `distinct` counts the
    distinct projections in each stage so far. `best` and `best_parameters` are
    the soft prompt with the best dev score of the run and its head.
    `trajectory` (of this stage) and `scored` (of the run, in the order of scoring) repeat the run's records:
    they are not saved with the state, and a resumed run reads them from the records.
    """

    members: tuple[Member, ...]
    stage: int = 0
    step: int = 0
    trained: bool = False
    pool: tuple[ScoredPrompt, ...] = ()
    score: Score | None = None
    best: Best | None = None
    best_parameters: Mapping[str, Tensor] = field(default_factory=dict)
    ledger: Usage = field(default_factory=Usage)
    diverged: tuple[int, ...] = ()
    fallbacks: int = 0
    seconds: float = 0.0
    room: tuple[int, int] | None = None
    memory: Mapping[str, Any] = field(default_factory=dict)
    shown: tuple[ScoredPrompt, ...] | None = None
    racing: bool = False
    distinct: tuple[int, ...] = ()
    losses: Tensor | None = None
    trajectory: tuple[Snapshot, ...] = ()
    scored: tuple[ScoredPrompt, ...] = ()

    @property
    def parameters(self) -> list[dict[str, Tensor]]:
        """Each member's parameters, detached."""
        return [{name: p.detach() for name, p in member.parameters.items()} for member in self.members]

    def after(self, step: StepResult, moved: int) -> "State":
        """The state after a step of training that moved `moved` members, with the step's usage."""
        tokens = {"train_tokens": step.tokens, "padding_tokens": step.padding}
        return replace(self, step=step.number).spent(gradient_steps=moved, train_examples=step.examples, **tokens)

    def with_pool(self, entries: Sequence[ScoredPrompt], size: int, criterion: Criterion) -> "State":
        """The state whose pool holds the best `size` of the entries, the best last, no prompt twice."""
        return replace(self, pool=rank_entries(entries, criterion)[-size:])

    def remembering(self, advice: Advice) -> "State":
        """The state with the memory that the mentor gets at its next stage."""
        return self if advice.memory is None else replace(self, memory=advice.memory)

    def paid(self, calls: Sequence[LLMCall]) -> "State":
        """The state with the usage of these calls; reused responses cost nothing."""
        calls = [call for call in calls if call.reused is None]
        return self.spent(
            mentor_calls=len(calls),
            input_tokens=sum(e.input_tokens or 0 for e in calls),
            output_tokens=sum(e.output_tokens or 0 for e in calls),
            cost_usd=sum(e.cost_usd or 0.0 for e in calls),
            unpriced_calls=sum(e.billed and e.cost_usd is None for e in calls),
        )

    def spent(self, **amounts: float) -> "State":
        """The state with these amounts added to its usage."""
        sums = {name: getattr(self.ledger, name) + amount for name, amount in amounts.items()}
        return replace(self, ledger=replace(self.ledger, **sums))


def rank_entries(entries: Sequence[ScoredPrompt], criterion: Criterion) -> tuple[ScoredPrompt, ...]:
    """Each prompt with its latest score, the best last."""
    latest = {entry.prompt: entry for entry in entries}
    return tuple(sorted(latest.values(), key=lambda entry: entry.score.rank_by(criterion)))


# The types of the fields that are saved as JSON.
ELSEWHERE = ("members", "best_parameters", "trajectory", "scored", "losses")
TYPES = {name: kind for name, kind in get_type_hints(State).items() if name not in ELSEWHERE}


def pack_state(state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state as named tensors (for safetensors) and as JSON values."""
    tensors = {f"best/{name}": tensor for name, tensor in state.best_parameters.items()}
    if state.losses is not None:
        tensors["losses"] = state.losses
    optimizers: list[Any] = []
    for i, member in enumerate(state.members):
        tensors |= {f"member{i}/{name}": p.detach() for name, p in member.parameters.items()}
        if member.stage_start is not None:
            tensors[f"stage_start{i}"] = member.stage_start
        optimizers.append(None)
        if member.optimizer_state is not None:
            moments = {f"{j}/{name}": v for j, s in member.optimizer_state["state"].items() for name, v in s.items()}
            tensors |= {f"optimizer{i}/{name}": v for name, v in moments.items() if isinstance(v, Tensor)}
            plain = {name: v for name, v in moments.items() if not isinstance(v, Tensor)}
            optimizers[i] = {"groups": member.optimizer_state["param_groups"], "plain": plain}
    values = asdict(replace(state, members=(), best_parameters={}, trajectory=(), scored=(), losses=None))
    # Optimizers count parameters by their place, and files of tensors do not keep the order.
    order = list(state.members[0].parameters) if state.members else []
    diverged = [member.diverged for member in state.members]
    members = {"optimizers": optimizers, "members_diverged": diverged, "parameters": order}
    members["restarted_at"] = [member.restarted_at for member in state.members]
    members["numbers"] = [member.number for member in state.members]
    return tensors, {name: values[name] for name in TYPES} | members


def unpack_state(tensors: Mapping[str, Tensor], values: Mapping[str, Any], device: torch.device) -> State:
    """The state from which `pack_state` made `tensors` and `values`, its tensors on `device`."""

    def named(prefix: str) -> dict[str, Tensor]:
        found = {n.removeprefix(prefix): t.to(device) for n, t in tensors.items() if n.startswith(prefix)}
        return {n: found[n] for n in values["parameters"] if n in found} | found

    members = []
    k = len(values["optimizers"])
    restarted_at, numbers = values.get("restarted_at") or [None] * k, values.get("numbers") or range(k)  # added later
    for i, (saved, diverged) in enumerate(zip(values["optimizers"], values["members_diverged"], strict=True)):
        member = Member.of(named(f"member{i}/"))
        member.diverged = diverged
        member.restarted_at, member.number = restarted_at[i], numbers[i]
        if (start := tensors.get(f"stage_start{i}")) is not None:
            member.stage_start = start.to(device)
        if saved is not None:
            state: dict[int, dict[str, Any]] = {}
            for key, value in [*named(f"optimizer{i}/").items(), *saved["plain"].items()]:
                j, name = key.split("/", 1)
                state.setdefault(int(j), {})[name] = value
            member.optimizer_state = {"state": state, "param_groups": saved["groups"]}
        members.append(member)
    plain = {name: TypeAdapter(kind).validate_python(values[name]) for name, kind in TYPES.items() if name in values}
    return State(tuple(members), best_parameters=named("best/"), losses=tensors.get("losses"), **plain)
