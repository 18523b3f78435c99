"""The `catalyst` command in a process of its own, and what tests need around it."""

import atexit
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Union

from helpers.fork_server import ForkedProcess, ForkServer

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).with_name("catalyst")
SECRETS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL")


Process = Union["subprocess.Popen[str]", ForkedProcess]
_lock, _servers = threading.Lock(), list[ForkServer]()  # one server, from the first command on


class Command:
    """The installed `catalyst`, run in a process of its own: offline, on one thread, without keys.

    Args:
        fresh: start an interpreter for each command, which loads the libraries again; else a command runs in a
            fork of a process that has loaded them, unless its environment has to be another.
    """

    def __init__(self, fresh: bool = False) -> None:
        self.fresh = fresh

    def environment(self, **changes: str) -> dict[str, str]:
        """This process's variables but for secrets, with `changes`; an empty value takes one away."""
        kept = {k: v for k, v in os.environ.items() if k not in (*SECRETS, "CATALYST_DATA", "CATALYST_DEBUG")}
        plain = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "100"}
        return {name: value for name, value in (kept | plain | changes).items() if value}

    def start(self, *words: str, cwd: Path, **environment: str) -> Process:
        """The running command."""
        variables = self.environment(**environment)
        if not self.fresh and (server := fork_server(self.environment())).fits(variables):
            return server.start(PROGRAM, words, cwd, variables)
        return subprocess.Popen(
            [PROGRAM, *words],
            cwd=cwd,
            env=variables,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *words: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        """The command's end: its exit code, and what it wrote."""
        process = self.start(*words, cwd=cwd, **environment)
        out, err = process.communicate(timeout=300)
        assert process.returncode is not None
        return subprocess.CompletedProcess(words, process.returncode, out, err)


def fork_server(environment: Mapping[str, str]) -> ForkServer:
    """The server of this process, started with these variables where it is not there yet."""
    with _lock:
        if not _servers:
            _servers.append(ForkServer(environment))
            atexit.register(_servers[0].close)
        return _servers[0]


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
