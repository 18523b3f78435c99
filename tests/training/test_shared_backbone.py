"""Runs that share a process and a backbone: each is what it would be alone, whoever computes, waits, ends or fails."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import StoppingView, Stops, adamw, backbone, labels_only, run_in, toy_data, toy_settings

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.mentors.controls import Perturb
from llm_catalyst.models.heads.text import Classifier
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import Member
from llm_catalyst.runs.reader import read_run
from llm_catalyst.runs.records import Outcome
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.training import shared_backbone
from llm_catalyst.training.loop import Experiment
from llm_catalyst.training.problem import assemble_problem
from llm_catalyst.training.shared_backbone import PASS_TOKENS, GradientRequest, SharedBackboneRuns, group_requests
from llm_catalyst.utils.signals import SignalHandler
from llm_catalyst.utils.turn_taking import yield_turn

FILES = ("trajectory.jsonl", "pool.jsonl", "restarts.jsonl", "metrics.jsonl", "stages/02/state.safetensors")
BERT = backbone("bert")


def experiment(seed: int, **changes: Any) -> Experiment:
    problem = assemble_problem(toy_data(), BERT, Classifier(), toy_settings(seed=seed, **changes))
    return Experiment(problem, Backprop(adamw), Perturb(), problem.settings.plan(problem.examples))


def carried_out(path: Path, seed: int, view: Any = None, **changes: Any) -> Outcome:
    """A run as session.py carries it out, with what company it has."""
    alone = experiment(seed, **changes)
    optimizer = shared_backbone.share_steps(alone.optimizer, alone.problem.device)
    with shared_backbone.get_signal_handler(5.0) as interruption:
        return run_in(path, replace(alone, optimizer=optimizer), view, interruption)


def together(
    runs: Sequence[Callable[[], Any]], joint: str = "none", interruption: SignalHandler | None = None
) -> list[Any]:
    """What each of the runs gives or raises, all in one company."""
    views = dict.fromkeys(range(len(runs)), RunCallback())
    group = SharedBackboneRuns(len(runs), joint, interruption or SignalHandler(), views)

    def one(number: int) -> Any:
        with group.seat(number):
            return runs[number]()

    with ThreadPoolExecutor(len(runs)) as pool:
        futures = [pool.submit(one, number) for number in range(len(runs))]
    return [future.exception() or future.result() for future in futures]


@contextmanager
def counted_passes() -> Iterator[list[int]]:
    """The rows of each pass that goes backward through the tiny BERT, while entered."""
    rows: list[int] = []

    def note(module: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        if torch.is_grad_enabled():
            rows.append(len(kwargs["inputs_embeds"]))

    handle = BERT.base.register_forward_pre_hook(note, with_kwargs=True)
    yield rows
    handle.remove()


def same_files(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


@pytest.mark.parametrize("joint", ["none", "auto"])
def test_on_a_cpu_runs_in_company_write_the_bytes_that_each_writes_alone(joint: str, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        carried_out(tmp_path / f"alone{seed}", seed)
    together([partial(carried_out, tmp_path / f"together{seed}", seed) for seed in (1, 2, 3)], joint)
    for seed in (1, 2, 3):
        assert same_files(tmp_path / f"alone{seed}", tmp_path / f"together{seed}")


def test_steps_in_one_pass_are_those_that_each_run_takes_alone(tmp_path: Path) -> None:
    with counted_passes() as alone:
        for seed in (1, 2, 3):
            carried_out(tmp_path / f"alone{seed}", seed)
    with counted_passes() as joint:
        together([partial(carried_out, tmp_path / f"joint{seed}", seed) for seed in (1, 2, 3)], "all")
    assert alone == [8] * 27
    assert joint == [24] * 9
    for seed in (1, 2, 3):
        one, other = (read_run(tmp_path / f"{kind}{seed}") for kind in ("alone", "joint"))
        pairs = list(zip(one.trajectory, other.trajectory, strict=True))
        assert len(pairs) == 9
        for snapshot, twin in pairs:
            assert twin == replace(snapshot, train_loss=twin.train_loss, similarity=twin.similarity)
            assert twin.train_loss == pytest.approx(snapshot.train_loss, abs=1e-5)
        assert [e.score.loss for e in other.metrics] == pytest.approx([e.score.loss for e in one.metrics], abs=1e-5)


def test_side_by_side_restarts_take_their_steps_with_the_other_runs(tmp_path: Path) -> None:
    # A first stage of one prompt each, then one with three in the first run and one in the second.
    with counted_passes() as rows:
        side_by_side = partial(carried_out, tmp_path / "all", 1, stages=2, restart="all")
        runs = [side_by_side, partial(carried_out, tmp_path / "one", 2, stages=2)]
        outcomes = together(runs, "all")
    assert rows == [16] * 3 + [32] * 3
    assert [outcome.status for outcome in outcomes] == ["done", "done"]


def test_a_run_that_ends_before_the_others_or_fails_does_not_keep_them_waiting(tmp_path: Path) -> None:
    short = partial(carried_out, tmp_path / "short", 1, stages=1)
    broken = partial(carried_out, tmp_path / "broken", 2, StoppingView(2))
    whole = partial(carried_out, tmp_path / "whole", 3)
    first, second, third = together([short, broken, whole], "all")
    assert first.status == third.status == "done"
    assert isinstance(second, Stops)
    assert third.ledger.gradient_steps == 9


def test_what_a_joint_pass_raises_is_raised_in_every_run_that_took_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> list[float]:
        raise MemoryError("no room")

    monkeypatch.setattr(shared_backbone, "mean_gradients", no_room)
    ends = together([partial(carried_out, tmp_path / str(seed), seed) for seed in (1, 2)], "all")
    assert [str(end) for end in ends] == ["no room", "no room"]


def test_while_one_run_waits_for_its_mentor_the_others_go_on() -> None:
    answered = threading.Event()

    def waits() -> bool:
        with yield_turn():
            return answered.wait(10)  # for what the other does, whose turn never comes otherwise

    def answers() -> None:
        answered.set()

    assert together([waits, answers])[0] is True


def test_one_run_computes_at_a_time() -> None:
    inside = threading.Lock()

    def computes() -> bool:
        free = inside.acquire(blocking=False)
        for _ in range(200):
            torch.randn(50, 50) @ torch.randn(50, 50)
        if free:
            inside.release()
        return free

    assert together([computes] * 4) == [True] * 4


def test_a_signal_lets_every_run_save_itself_and_each_goes_on_to_the_same_end(tmp_path: Path) -> None:
    asked = SignalHandler()

    class Signal(RunCallback):
        def on_step(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
            if step == 4:
                asked.number = 15

    seeds = (1, 2)
    stopped = [partial(run_once, tmp_path / f"stopped{seed}", seed, Signal()) for seed in seeds]
    assert together(stopped, "all", asked) == ["by SIGTERM", "by SIGTERM"]
    assert not any((tmp_path / f"stopped{seed}" / "outcome.json").exists() for seed in seeds)
    for seed in seeds:
        carried_out(tmp_path / f"stopped{seed}", seed)
        carried_out(tmp_path / f"whole{seed}", seed)
        one, other = (read_run(tmp_path / f"{kind}{seed}").trajectory for kind in ("stopped", "whole"))
        assert [s.prompt for s in one] == [s.prompt for s in other]


def run_once(path: Path, seed: int, view: Any) -> str:
    try:
        return carried_out(path, seed, view).status
    except SystemExit as stopped:
        return str(stopped)


def test_a_backbone_is_loaded_once_for_all_unless_its_weights_are_drawn_from_the_seed() -> None:
    loaded: list[int] = []

    def load(seed: int, draws: bool) -> object:
        loaded.append(seed)
        if draws:
            torch.rand(1)
        return object()

    def backbones(draws: bool) -> list[Any]:
        return together(
            [lambda seed=seed: shared_backbone.share_backbone(seed, partial(load, seed, draws)) for seed in (1, 2, 1)]
        )

    assert len(set(backbones(draws=False))) == 1
    assert len(loaded) == 1
    first, second, third = backbones(draws=True)
    assert first is not second
    assert third is not second


def request(number: int, width: int, size: int = 2) -> GradientRequest:
    batch = labels_only([[0] * size])
    tokens = batch.tokens.expand(1, size, width)
    member = Member.of({"prompt": torch.zeros(1, 2)})
    return GradientRequest(number, MODEL, [member], replace(batch, tokens=tokens, mask=torch.ones_like(tokens)))


MODEL: Any = experiment(1).problem.model


@pytest.mark.parametrize(
    ("widths", "spare", "groups"),
    [
        ((10, 10, 10), 0, [[0, 1, 2]]),
        ((10, 30, 20), 0, [[1], [2], [0]]),
        ((10, 30, 20), 20, [[1, 2], [0]]),  # two rows, each padded by ten
        ((10, 30, 20), 40, [[1, 2, 0]]),
        ((30, 10, 29, 11), 2, [[0, 2], [3, 1]]),
    ],
)
def test_batches_go_together_where_that_pads_them_by_no_more_than_a_pass_is_worth(
    widths: Sequence[int], spare: float, groups: list[list[int]]
) -> None:
    requests = [request(i, width) for i, width in enumerate(widths)]
    assert [[one.number for one in group] for group in group_requests(requests, spare)] == groups


def test_batches_of_different_sizes_go_apart() -> None:
    assert len(group_requests([request(0, 5, size=2), request(1, 5, size=3)], PASS_TOKENS)) == 2


def test_a_batch_beside_others_has_the_rows_of_all_padded_to_the_widest() -> None:
    short = TextBatch(torch.tensor([[[1, 2]]]), torch.ones(1, 1, 2, dtype=torch.long), None, torch.tensor([[0]]), 1)
    long = TextBatch(
        torch.tensor([[[3, 4, 5]]]), torch.ones(1, 1, 3, dtype=torch.long), torch.tensor([[[0, 0, 1]]]),
        torch.tensor([[1]]), 1,
    )  # fmt: skip
    both = short.beside([long])
    assert both.mask.tolist() == [[[1, 1, 0]], [[1, 1, 1]]]
    assert both.tokens[0, 0, :2].tolist() == [1, 2]
    assert both.tokens[1, 0].tolist() == [3, 4, 5]
    assert both.types is not None
    assert both.types.tolist() == [[[0, 0, 0]], [[0, 0, 1]]]
    assert both.labels.tolist() == [[0], [1]]
