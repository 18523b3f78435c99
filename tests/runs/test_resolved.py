"""resolved.json and predictions.json: written, covered by the checksums, and missed nowhere in older runs."""

import json
from pathlib import Path

import pytest
from helpers.recorded import CONFIG, manifest, outcome, write_run

from llm_catalyst.runs.analysis import collect_warnings, read_metric_name
from llm_catalyst.runs.reader import read_predictions, read_resolved, read_run
from llm_catalyst.runs.resolved import Predictions, Resolved
from llm_catalyst.runs.verify import verify_run
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.utils.checksums import read_list, sha256
from llm_catalyst.utils.validation import ConfigurationError

RESOLVED = Resolved(
    {"task": {"metric": "macro_f1"}}, ("schlecht", "好"), ("bad", "good"), (), {"warnings": ["few rows"]}
)
PREDICTIONS = Predictions("test", (4, 9, None), (0, 1, 1), (0, 1, 0), None, (1, 1, 1))
PLAIN = "seed: 3\ntask: {name: mine}\n"


def write(path: Path, finished: bool = True) -> Path:
    directory = RunDirectory(path)
    directory.write_config(PLAIN, manifest(), RESOLVED)
    if finished:
        directory.finish(outcome(), PREDICTIONS)
    directory.close()
    return path


def test_both_files_are_read_back_and_listed_with_their_sums(tmp_path: Path) -> None:
    path = write(tmp_path / "run")
    assert read_resolved(path) == RESOLVED
    assert read_predictions(path) == PREDICTIONS
    sums = read_list(path)
    assert all(sums[name] == sha256((path / name).read_bytes()) for name in ("resolved.json", "predictions.json"))
    assert not any(finding.damage for finding in verify_run(path))


@pytest.mark.parametrize("name", ["resolved.json", "predictions.json"])
def test_a_changed_file_is_found(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "run")
    (path / name).write_bytes((path / name).read_bytes().replace(b"1", b"2").replace(b"macro", b"micro"))
    assert [finding.file for finding in verify_run(path) if finding.damage] == [name]


@pytest.mark.parametrize("how", ["changed", "missing"])
def test_an_unfinished_run_does_not_continue_with_another_resolved_file(tmp_path: Path, how: str) -> None:
    path = write(tmp_path / "run", finished=False)
    (path / "resolved.json").write_text("{}") if how == "changed" else (path / "resolved.json").unlink()
    directory = RunDirectory(path)
    with pytest.raises(ConfigurationError, match=rf"resolved\.json is {how}; put it back"):
        directory.write_config(PLAIN, manifest(), RESOLVED)
    directory.close()


def test_a_resumed_run_keeps_its_own_and_lists_it_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "run", finished=False)
    before = (path / "resolved.json").read_bytes()
    directory = RunDirectory(path)
    directory.write_config(PLAIN, manifest(), Resolved({}, (), (), (), {}))
    directory.finish(outcome(), PREDICTIONS)
    directory.close()
    assert (path / "resolved.json").read_bytes() == before
    assert read_list(path)["resolved.json"] == sha256(before)


def test_a_run_of_an_earlier_revision_is_read_verified_and_continued_without_them(tmp_path: Path) -> None:
    finished = write_run(tmp_path / "finished")
    assert not (finished / "resolved.json").exists()
    assert read_resolved(finished) is read_predictions(finished) is None
    assert not any(finding.damage for finding in verify_run(finished))
    unfinished = write_run(tmp_path / "unfinished", finished=False)
    directory = RunDirectory(unfinished)
    directory.write_config(CONFIG, manifest(), RESOLVED)
    directory.close()
    assert not (unfinished / "resolved.json").exists()


def test_the_metric_that_a_task_left_to_its_class_and_the_warnings_of_its_data_are_shown(tmp_path: Path) -> None:
    run = read_run(write(tmp_path / "run"))
    assert read_metric_name(run) == "macro_f1"
    assert collect_warnings(run)[0] == "few rows"


def test_an_older_outcome_has_no_scores_of_the_start(tmp_path: Path) -> None:
    path = write(tmp_path / "run")
    content = json.loads((path / "outcome.json").read_bytes())
    assert {"start_dev", "start_test"} <= content.keys()
    (path / "outcome.json").write_text(json.dumps({k: v for k, v in content.items() if not k.startswith("start_")}))
    found = read_run(path).outcome
    assert found is not None
    assert found.start_dev is found.start_test is None
