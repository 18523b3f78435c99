"""The `catalyst` command in a process of its own, and what tests need around it."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).with_name("catalyst")
SECRETS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL")


class Command:
    """The installed `catalyst`, run in a process of its own: offline, on one thread, without keys."""

    def environment(self, **changes: str) -> dict[str, str]:
        """This process's variables but for secrets, with `changes`; an empty value takes one away."""
        kept = {k: v for k, v in os.environ.items() if k not in (*SECRETS, "CATALYST_DATA", "CATALYST_DEBUG")}
        plain = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "100"}
        return {name: value for name, value in (kept | plain | changes).items() if value}

    def start(self, *words: str, cwd: Path, **environment: str) -> "subprocess.Popen[str]":
        """The running command."""
        return subprocess.Popen(
            [PROGRAM, *words],
            cwd=cwd,
            env=self.environment(**environment),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *words: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        """The command's end: its exit code, and what it wrote."""
        process = self.start(*words, cwd=cwd, **environment)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(words, process.returncode, out, err)


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """A limit of this process, in bytes, while entered: what a full disk is like."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
