"""What the mentors of all runs below a folder have used so far, from the exchanges on disk."""

from functools import lru_cache
from pathlib import Path

from llm_catalyst.runs.analysis import MentorUsage, sum_usage
from llm_catalyst.runs.reader import EXCHANGES, read_lines, run_directories
from llm_catalyst.runs.records import LLMCall


def sum_folder(folder: Path) -> MentorUsage:
    """The usage of all calls of all runs in a folder; runs of other processes that are under way count, too."""
    files = [run / EXCHANGES for run in run_directories(folder)] if folder.is_dir() else []
    sizes = [(file, file.stat().st_size) for file in files if file.exists()]
    return sum((read_usage(*one) for one in sizes), MentorUsage())


@lru_cache(maxsize=4096)  # a file of exchanges only grows
def read_usage(file: Path, size: int) -> MentorUsage:
    """The usage of the calls in a file of that many bytes."""
    return sum_usage(read_lines(file, LLMCall))
