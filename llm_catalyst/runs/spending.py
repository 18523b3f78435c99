"""What the mentors of all runs below a folder have used so far, from the exchanges on disk."""

import math
from functools import lru_cache
from pathlib import Path

from llm_catalyst.runs.analysis import MentorUsage, sum_usage
from llm_catalyst.runs.reader import EXCHANGES, read_lines, run_directories
from llm_catalyst.runs.records import LLMCall

LETTERS_PER_TOKEN = 3  # rather too few than too many: English has about 4


def sum_folder(folder: Path) -> tuple[MentorUsage, int]:
    """The usage of all calls of all runs in a folder, and the tokens of those without usage (see `estimate_tokens`).

    Runs of other processes that are under way count, too.
    """
    files = [run / EXCHANGES for run in run_directories(folder)] if folder.is_dir() else []
    found = [read_usage(file, file.stat().st_size) for file in files if file.exists()]
    return sum((usage for usage, _ in found), MentorUsage()), sum(estimated for _, estimated in found)


@lru_cache(maxsize=4096)  # a file of exchanges only grows
def read_usage(file: Path, size: int) -> tuple[MentorUsage, int]:
    """The usage of the calls in a file of that many bytes, and the tokens of those without."""
    calls = read_lines(file, LLMCall)
    return sum_usage(calls), sum(map(estimate_tokens, calls))


def estimate_tokens(call: LLMCall) -> int:
    """The tokens of a paid answer that came without usage, by its characters; 0 where they are known."""
    known = call.input_tokens is not None and call.output_tokens is not None
    if not call.billed or known or call.cost_usd is not None:
        return 0
    letters = sum(len(message.content) for message in call.messages) + len(call.reply)
    counted = (call.input_tokens or 0) + (call.output_tokens or 0)  # in the usage already
    return max(0, math.ceil(letters / LETTERS_PER_TOKEN) - counted)
