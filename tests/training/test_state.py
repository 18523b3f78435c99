"""Where a run stands, laid out as tensors and JSON and read back."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from helpers.tiny_models import CPU, PromptIsLogits, labels_only
from safetensors.torch import load, save

from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import Member
from llm_catalyst.optimizers.schedule import StepRange
from llm_catalyst.runs.records import Best, LLMCall, Message, Prompt, Score, ScoredPrompt, Usage
from llm_catalyst.training.state import State, pack_state, unpack_state

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AdamW": partial(torch.optim.AdamW, lr=0.02, betas=(0.8, 0.95), weight_decay=0.01),
    "SGD with momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "plain SGD": partial(torch.optim.SGD, lr=0.1),
    "Adafactor": partial(torch.optim.Adafactor, lr=0.1),
}


def scored(text: str, loss: float, origin: Any = "gradient") -> ScoredPrompt:
    return ScoredPrompt(Prompt(tuple(map(ord, text)), text), Score(loss, 0.5, 12), origin, 1)


def new_member(seed: int) -> Member:
    """A prompt and a head whose names do not stand in alphabetical order."""
    rng = torch.Generator().manual_seed(seed)
    return Member.of(
        {
            "prompt": torch.randn(3, 2, generator=rng),
            "head.weight": torch.randn(2, 2, generator=rng),
            "head.bias": torch.randn(2, generator=rng),
        }
    )


class WithHead(PromptIsLogits):
    """As `PromptIsLogits`, with a linear head, so that every parameter has a gradient."""

    def logits(self, parameters: Any, batch: Any) -> torch.Tensor:
        rows = parameters["prompt"].sum(1, keepdim=True).expand(-1, batch.labels.shape[1], -1)
        return torch.einsum("kbd,kcd->kbc", rows, parameters["head.weight"]) + parameters["head.bias"][:, None]


def trained(name: str, members: list[Member], steps: int, first: int = 0) -> list[Member]:
    batches = itertools.repeat(labels_only([[0, 1, 1]] * len(members)))
    list(Backprop(OPTIMIZERS[name]).train(WithHead(), members, batches, StepRange(first, first + steps, 20, first)))  # type: ignore[arg-type]
    return members


def state_of(members: list[Member]) -> State:
    best = Best(1, 7, 0, Score(0.3, 0.75, 12), Prompt((3, 4), "a b"), 0.5)
    return State(
        members=tuple(members),
        stage=2,
        step=9,
        pool=(scored("worse", 0.7), scored("better", 0.2, "mentor")),
        score=Score(0.4, 0.5, 12),
        best=best,
        best_parameters={name: p.detach().clone() for name, p in members[0].parameters.items()},
        ledger=Usage(gradient_steps=9, cost_usd=0.25, train_tokens=700, padding_tokens=31),
        diverged=(1,),
        fallbacks=3,
        seconds=1.5,
        shown=(scored("worse", 0.7),),
    )


def through_disk(state: State) -> State:
    """The state written as a stage's files hold it, and read back."""
    tensors, values = pack_state(state)
    raw = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    return unpack_state(load(raw), json.loads(json.dumps(values, allow_nan=False)), CPU)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_comes_back_from_disk_as_it_was(name: str) -> None:
    state = state_of(trained(name, [new_member(1), new_member(2)], 3))
    back = through_disk(state)
    plain = {"members": (), "best_parameters": {}}
    assert replace(back, **plain) == replace(state, **plain)
    assert {n: t.tolist() for n, t in back.best_parameters.items()} == {
        n: t.tolist() for n, t in state.best_parameters.items()
    }
    for old, new in zip(state.members, back.members, strict=True):
        assert {n: p.tolist() for n, p in new.parameters.items()} == {n: p.tolist() for n, p in old.parameters.items()}
        assert all(p.requires_grad and p.is_leaf for p in new.parameters.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_come_back_in_their_order_which_optimizers_count_by(name: str) -> None:
    state = state_of(trained(name, [new_member(1)], 3))
    assert list(through_disk(state).members[0].parameters) == ["prompt", "head.weight", "head.bias"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_from_a_restored_state_to_the_same_bits(name: str) -> None:
    state = state_of(trained(name, [new_member(1), new_member(2)], 3))
    back = through_disk(state)
    on, resumed = (trained(name, list(s.members), 3, first=3) for s in (state, back))
    for a, b in zip(on, resumed, strict=True):
        for n, p in a.parameters.items():
            assert torch.equal(p, b.parameters[n]), n


def test_a_fresh_state_comes_back_too() -> None:
    state = State((new_member(1),))
    back = through_disk(state)
    assert back.members[0].optimizer_state is None
    assert (back.stage, back.step, back.pool, back.score, back.best, back.diverged) == (0, 0, (), None, None, ())
    assert back.ledger == Usage()
    assert dict(back.best_parameters) == {}


def test_the_pool_holds_the_lowest_losses_with_the_best_last_and_no_prompt_twice() -> None:
    entries = [scored("a", 0.5), scored("b", 0.1), scored("c", 0.9), scored("a", 0.3)]
    state = State(()).with_pool(entries, 2, "loss")
    assert [(s.prompt.text, s.score.loss) for s in state.pool] == [("a", 0.3), ("b", 0.1)]


def test_the_ledger_adds_up_what_exchanges_cost_and_counts_those_of_unknown_price() -> None:
    def exchange(cost: float | None, tokens: int | None) -> LLMCall:
        return LLMCall(0, (Message("user", "?"),), "!", "m", "m", {}, (), tokens, tokens, cost, 0.1, "2026-01-01")

    state = State(()).paid([exchange(0.5, 10), exchange(None, None)]).paid([exchange(0.25, 1)]).spent(gradient_steps=3)
    assert state.ledger == Usage(
        gradient_steps=3, mentor_calls=3, input_tokens=11, output_tokens=11, cost_usd=0.75, unpriced_calls=1
    )
