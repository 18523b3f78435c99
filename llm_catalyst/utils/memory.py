"""What a run takes of memory, and less at a time where it runs out: passes of fewer examples, or of fewer tokens."""

import re
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import torch

from llm_catalyst.utils.validation import ConfigurationError

T = TypeVar("T")
# As CUDA, cuBLAS and cuDNN, MPS, torch's CPU allocator, and oneDNN, which gives no reason, say it.
SIGNS = re.compile(
    r"out of memory|_STATUS_ALLOC_FAILED|(can't allocate|not enough) memory|could not (create|execute) a primitive$"
)
KEYS = {"examples": "micro_batch", "tokens": "token_budget"}


@dataclass
class PassLimits:
    """What one pass may hold: `examples` of each member in training, `tokens` of all members in scoring.

    Either is halved when memory runs out, and stays so. `said` collects what happened, until it is told.
    """

    examples: int
    tokens: int
    said: list[str] = field(default_factory=list)

    def fit(self, unit: Literal["examples", "tokens"], least: int, most: int, work: Callable[[int], T]) -> T:
        """`work(size)`, begun anew with half the size as long as memory runs out.

        `most` is all that there is to do, `least` what cannot be parted: one example. Raises ConfigurationError
        where not even that fits, and what `work` raises where it is anything else.
        """
        while True:
            size = min(most, getattr(self, unit))
            try:
                return work(size)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if size <= least:
                    raise too_small(error) from error
            # Outside the handler: the error's frames, which hold the tensors, are gone.
            half = max(least, size // 2)
            setattr(self, unit, half)
            self.said.append(
                f"out of memory with {size} {unit} in one pass; going on with {half} at a time, which add up to the "
                f"same ({KEYS[unit]}={half} begins with that)"
            )
            empty_caches()
            # Dropout draws as if this were the first try: a resumed run may have to try again, or no longer.
            torch.manual_seed(torch.initial_seed())

    def narrow(self, examples: int, tokens: int) -> None:
        """Hold no more than these, which a run that goes on had found to fit."""
        self.examples, self.tokens = min(self.examples, examples), min(self.tokens, tokens)

    def told(self) -> list[str]:
        """What was said since the last call."""
        said, self.said = self.said, []
        return said


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(SIGNS.search(str(error)))


def too_small(error: BaseException) -> ConfigurationError:
    """What to do where not even one example fits."""
    why = str(error).partition("\n")[0] or type(error).__name__
    return ConfigurationError(
        "not even one example at a time fits into memory; try a smaller backbone.max_length, "
        f"backbone.dtype=bfloat16, a smaller backbone, or another device ({why})"
    )


def empty_caches() -> None:
    """Give back what the devices' allocators hold in reserve: pieces of it may be too small for what comes."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def peak_memory(device: torch.device) -> int:
    """Bytes: the allocator's peak on a GPU, the process's peak resident size on a CPU; since `forget_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, IndexError):
        # Linux's own count: that of getrusage includes the process which started this one.
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak(device: torch.device) -> None:
    """Begin to measure anew: a process that carries out several runs has the peaks of those before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # where there is no Linux, or no right to, the peak stays that of the process
        Path("/proc/self/clear_refs").write_text("5")
