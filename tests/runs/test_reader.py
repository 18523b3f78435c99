"""Run directories found below a place."""

import os
from pathlib import Path

import pytest
from helpers.recorded import write_run

from llm_catalyst.runs.reader import find_runs
from llm_catalyst.utils.validation import ConfigurationError


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs at different depths, one of them unfinished, and a folder that is none."""
    home = tmp_path_factory.mktemp("outputs")
    write_run(home / "sst2" / "b")
    write_run(home / "sst2" / "a", stages=1, finished=False)
    write_run(home / "z")
    (home / "sst2" / "notes").mkdir()
    return home


def test_runs_are_found_at_every_depth_and_sorted(runs: Path) -> None:
    assert find_runs(runs) == [runs / "sst2" / "a", runs / "sst2" / "b", runs / "z"]


def test_a_run_directory_is_itself_a_place_and_places_that_overlap_give_each_run_once(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_runs(runs / "z") == [runs / "z"]
    monkeypatch.chdir(runs)
    assert len(find_runs(runs, runs / "sst2", Path("z"), Path("."))) == 3


def test_what_lies_within_a_run_directory_is_no_run_of_its_own(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_run(tmp_path / "run" / "stages" / "copy")
    assert find_runs(tmp_path) == [tmp_path / "run"]


def test_links_are_not_followed_but_a_place_may_be_one(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(runs)
    assert find_runs(tmp_path / "inside") == []
    assert len(find_runs(tmp_path / "inside" / "link")) == 3


def test_a_place_that_is_no_folder_is_refused(runs: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone: No such file or directory; give the folder of a run"):
        find_runs(runs, runs / "gone")
    with pytest.raises(ConfigurationError, match=r"outcome\.json: Not a directory"):
        find_runs(runs / "z" / "outcome.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_not_passed_over(runs: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    with pytest.raises(ConfigurationError, match="locked: Permission denied"):
        find_runs(tmp_path)
