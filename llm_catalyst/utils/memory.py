"""Memory use of a run, and smaller passes when memory runs out: fewer examples, or fewer tokens, at a time."""

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
# The messages of CUDA, cuBLAS and cuDNN, MPS, torch's CPU allocator, and oneDNN, which gives no reason.
SIGNS = re.compile(
    r"out of memory|_STATUS_ALLOC_FAILED|(can't allocate|not enough) memory|could not (create|execute) a primitive$"
)
KEYS = {"examples": "micro_batch", "tokens": "token_budget"}


@dataclass
class PassLimits:
    """The size of a pass: `examples` of each member in training, `tokens` of all members in scoring.

    Either is halved when memory runs out, and stays so. `messages` collects what happened, until `take_messages`.
    """

    examples: int
    tokens: int
    messages: list[str] = field(default_factory=list)

    def fit(self, unit: Literal["examples", "tokens"], least: int, most: int, work: Callable[[int], T]) -> T:
        """`work(size)`, repeated with half the size as long as memory runs out.

        Args:
            unit: the limit that applies.
            least: the size that cannot be divided: one example.
            most: the size of all the work.
            work: computes with passes of at most this size.

        Raises:
            ConfigurationError: not even `least` fits. Other errors of `work` pass through.
        """
        while True:
            size = min(most, getattr(self, unit))
            try:
                return work(size)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if size <= least:
                    why = str(error).partition("\n")[0] or type(error).__name__
                    raise ConfigurationError(
                        "not even one example at a time fits into memory; try a smaller task.max_length, "
                        f"backbone.dtype=bfloat16, a smaller backbone, or another device ({why})"
                    ) from error
            # Outside the handler, where the error's frames, which hold the tensors, are gone.
            half = max(least, size // 2)
            setattr(self, unit, half)
            self.messages.append(
                f"out of memory with {size} {unit} in one pass; continuing with {half} at a time, which add up to the "
                f"same ({KEYS[unit]}={half} begins with that)"
            )
            empty_caches()
            # Dropout draws as in a first try, since a resumed run may need more tries or fewer.
            torch.manual_seed(torch.initial_seed())

    def narrow(self, examples: int, tokens: int) -> None:
        """Lower the limits to these, which a resumed run had found to fit."""
        self.examples, self.tokens = min(self.examples, examples), min(self.tokens, tokens)

    def take_messages(self) -> list[str]:
        """The messages since the last call."""
        messages, self.messages = self.messages, []
        return messages


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(SIGNS.search(str(error)))


def empty_caches() -> None:
    """Release the reserves of the devices' allocators, which may be too fragmented for the next pass."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def peak_memory(device: torch.device) -> int:
    """Bytes since `forget_peak`: the allocator's peak on a GPU, the process's peak resident size on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, IndexError):
        # Linux's own count: that of getrusage includes the process which started this one.
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak(device: torch.device) -> None:
    """Begin to measure again: a process with several runs would report the peaks of earlier ones."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # where there is no Linux, or no right to, the peak stays that of the process
        Path("/proc/self/clear_refs").write_text("5")
