"""The lines of a sweep's jobs: one count over the whole sweep, whichever part of it a launcher carries out at once."""

from pathlib import Path

import pytest

from llm_catalyst.sweeps.status import JobStatus, end_job, print_endings, write_status


def test_a_sweep_in_groups_has_one_running_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = {
        number: ["task=sst2", f"prompt.length={length}", f"seed={number}"]
        for number, length in enumerate([4, 8, 8, 4, 8])
    }
    for number, words in jobs.items():
        write_status(tmp_path, JobStatus(number, tuple(words)))
    for group in ([0, 3], [1, 2, 4]):
        with print_endings(tmp_path, {number: jobs[number] for number in group}):
            for number in group:
                end_job(tmp_path, JobStatus(number, tuple(jobs[number])), code=0, status="done", dev=0.5)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["[1/5]", "[2/5]", "[3/5]", "[4/5]", "[5/5]"]
    assert [line.split("seed=")[1][0] for line in lines] == ["0", "3", "1", "2", "4"]
    assert all("prompt.length" in line for line in lines)  # what tells jobs of the sweep apart
