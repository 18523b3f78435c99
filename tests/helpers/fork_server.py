"""Python programs in forks of a process that has loaded their libraries: a start takes milliseconds, not seconds.

A program's process differs from a fresh one only in that libraries are loaded and share their hash seed.
Run as a script, this file is the server: `python fork_server.py FD`, where FD is an inherited socket.
"""

import gc
import importlib
import json
import os
import re
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

MODULES = (
    "torch._dynamo",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "hydra._internal.hydra",
    "hydra._internal.core_plugins.basic_sweeper",
    "openai.resources.chat",
    "rich.live",
    "rich.progress",
    "scipy.stats",
    "llm_catalyst.cli.run",
    "llm_catalyst.training.run",
    "llm_catalyst.report.show",
)
# Libraries read these variables when they are loaded: a program with other values needs a fresh process.
READ_AT_IMPORT = re.compile(
    "(HF|HUGGINGFACE|TRANSFORMERS|TOKENIZERS|DATASETS|TORCH|PYTORCH|OMP|MKL|OPENBLAS|PYTHON|LD|LC|XDG|MPL|CUDA)_?"
    "|((OPENAI|ANTHROPIC)_LOG|HOME|LANG|PATH|TMPDIR)$"
)
LARGEST = 2**17  # bytes of a request
NUMBER = struct.Struct("q")  # a process's number, then its status


class ForkedProcess:
    """A program in a fork, with the members of subprocess.Popen that tests use; its output is text.

    Attributes:
        pid: its process, to which any signal may be sent.
        returncode: its exit code, or the negative number of the signal that ended it; None while it runs.
    """

    def __init__(self, words: Sequence[str], status: int, stdout: int, stderr: int) -> None:
        self.args, self._status = words, status
        self._output = {stdout: bytearray(), stderr: bytearray()}
        self._open = {stdout, stderr}
        self.pid = self._number()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, or None while the program runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once the program has ended.

        Raises:
            subprocess.TimeoutExpired: it has not ended after `timeout` seconds.
        """
        if self.returncode is None:
            self._await([self._status], timeout)
            self.returncode = os.waitstatus_to_exitcode(self._number())
            os.close(self._status)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Standard output and standard error, once the program and all that write into them have ended.

        Raises:
            subprocess.TimeoutExpired: they have not ended after `timeout` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while self._open:
            for stream in self._await(self._open, None if end is None else end - time.monotonic()):
                chunk = os.read(stream, 2**16)
                self._output[stream] += chunk
                if not chunk:
                    os.close(stream)
                    self._open.remove(stream)
        self.wait(None if end is None else end - time.monotonic())
        out, err = (content.decode() for content in self._output.values())
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the program has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _number(self) -> int:
        answer = os.read(self._status, NUMBER.size)
        assert answer, f"the fork server could not start {self.args}, or the process that waits for it was killed"
        return NUMBER.unpack(answer)[0]

    def _await(self, files: Sequence[int] | set[int], timeout: float | None) -> list[int]:
        """Those of the files that can be read, one at least."""
        poll = select.poll()
        for file in files:
            poll.register(file, select.POLLIN)
        ready = poll.poll(None if timeout is None else max(0, round(1000 * timeout)))
        if not ready:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return [file for file, _ in ready]


class ForkServer:
    """A server process with these environment variables, which ends when this process does.

    Args:
        environment: its variables, which are those of the programs but for what is not READ_AT_IMPORT.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            words = [sys.executable, __file__, str(theirs.fileno())]
            self.process = subprocess.Popen(
                words,
                env=self.environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # programs' streams, which are the server's, must be those of a pipe
                stderr=subprocess.PIPE,
                text=True,
            )

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether the server's libraries would have been loaded the same way with these variables."""
        names = {name for name in {*environment, *self.environment} if READ_AT_IMPORT.match(name)}
        return all(environment.get(name) == self.environment.get(name) for name in names)

    def start(self, program: Path, words: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> ForkedProcess:
        """A Python script under way, with these words, without standard input."""
        (status, theirs), (out, stdout), (err, stderr) = (os.pipe() for _ in range(3))
        stdin = os.open(os.devnull, os.O_RDONLY)
        request = {"words": [str(program), *map(str, words)], "cwd": str(cwd), "environment": dict(environment)}
        message = json.dumps(request).encode()
        assert len(message) < LARGEST
        try:
            socket.send_fds(self.channel, [message], [stdin, stdout, stderr, theirs])
        finally:
            for file in (stdin, stdout, stderr, theirs):
                os.close(file)
        return ForkedProcess([str(program), *words], status, out, err)

    def close(self) -> None:
        """End the server; programs that still run go on."""
        self.channel.close()
        with self.process:
            pass  # which waits for it, and closes its pipes


def serve(channel: socket.socket) -> None:
    """Start what is asked for. In the server this returns when nobody can ask any more, in a program at its end.

    Each program is started by a fork that waits for it.
    """
    while True:
        message, files, _, _ = socket.recv_fds(channel, LARGEST, 4)
        if not message:
            return
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:
            channel.close()
            if child := os.fork():
                for file in files[:3]:
                    os.close(file)
                os.write(files[3], NUMBER.pack(child))
                status = os.waitpid(child, 0)[1]
                with suppress(BrokenPipeError):
                    os.write(files[3], NUMBER.pack(status))
                os._exit(0)
            become(json.loads(message), files)
            return
        for file in files:
            os.close(file)


def become(request: Mapping[str, Any], files: Sequence[int]) -> None:
    """Run the program of a request in this process, as the interpreter would have from its start."""
    for place, file in enumerate(files[:3]):
        os.dup2(file, place)
    for file in files:
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["words"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    for module in MODULES:
        importlib.import_module(module)
    # A fork has only the thread that forks. That of pyarrow's jemalloc is started again by itself.
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert len(threads) - threads.count("jemalloc_bg_thd") == 1, threads
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
