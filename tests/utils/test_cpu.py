"""How many cores a process may use, by affinity and by made-up control groups, and the threads of a run."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.components import parts
from helpers.tiny_models import toy_settings

from llm_catalyst.models.heads.text import Classifier
from llm_catalyst.training.run import load_problem
from llm_catalyst.utils.cpu import count_usable_cores
from llm_catalyst.utils.validation import ConfigurationError


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which this process may use 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)


def groups(root: Path, membership: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": membership, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V1 = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n"


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 64),
        ("0::/user/job\n", {"user/job/cpu.max": "max 100000\n", "user/cpu.max": "400000 100000\n"}, 4),
        ("0::/user/job\n", {"user/job/cpu.max": "300000 100000\n", "user/cpu.max": "400000 100000\n"}, 3),
        ("0::/user/job\n", {"user/other/cpu.max": "300000 100000\n"}, 64),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "150000\n", "cpu/docker/abc/cpu.cfs_period_us": "50000\n"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "700000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 7),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ("", {}, 64),
    ],
)
def test_cores_are_those_of_the_affinity_within_the_quotas_of_all_groups_above(
    tmp_path: Path, membership: str, files: dict[str, str], cores: int
) -> None:
    here = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    assert count_usable_cores(groups(tmp_path, membership, here)) == cores


def test_the_affinity_counts_where_it_is_less_than_the_quota_and_where_there_are_no_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3}, raising=False)
    assert count_usable_cores(tmp_path) == 2
    assert count_usable_cores(groups(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.max": "400000 100000\n"})) == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert count_usable_cores(tmp_path / "nowhere") == os.cpu_count()


@pytest.fixture
def threads() -> Iterator[None]:
    """torch's number of threads, set back in the end."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("asked", "torchs", "allowed", "found"), [(None, 3, 2, 2), (None, 1, 64, 1), (4, 1, 2, 4)], ids=str
)
def test_a_run_takes_as_many_threads_as_it_is_told_or_torchs_number_within_what_it_may_use(
    asked: int | None, torchs: int, allowed: int, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(allowed)), raising=False)
    torch.set_num_threads(torchs)
    run = replace(parts(head=Classifier()), settings=toy_settings(threads=asked))
    with pytest.raises(ConfigurationError, match="task=nowhere has no data yet"):
        load_problem(run)
    assert torch.get_num_threads() == found
