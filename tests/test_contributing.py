"""Follows CONTRIBUTING.md: its blocks are written where it says, and run."""

import re
from pathlib import Path

import pytest

import llm_catalyst.mentors
import llm_catalyst.optimizers
from llm_catalyst.cli.run import run_command
from llm_catalyst.runs.reader import read_run

ROOT = Path(__file__).parent.parent


def blocks(section: str) -> dict[str, str]:
    """The code blocks of a section of CONTRIBUTING.md, by the file that the text in front of each names."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    parts = re.split(r"```\w+\n(.*?)```", text, flags=re.S)
    return {
        re.findall(r"`((?:llm_catalyst|conf)/[^`]+)`", before)[-1]: code
        for before, code in zip(parts[::2], parts[1::2], strict=False)
    }


@pytest.mark.parametrize(
    ("section", "package", "override"),
    [
        ("Add a mentor", llm_catalyst.mentors, "mentor=shuffle"),
        ("Add a doer", llm_catalyst.optimizers, "optimizer=random_search"),
    ],
)
def test_a_walk_through_of_contributing_leads_to_a_run(
    section: str,
    package: object,
    override: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_task: Path,
) -> None:
    files = blocks(section)
    assert {Path(name).suffix for name in files} == {".py", ".yaml"}
    for name, code in files.items():
        place = tmp_path / Path(name).relative_to(Path(name).parts[0])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(code)
        if place.suffix == ".py":
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(place.parent)])  # type: ignore[attr-defined]
    words = f"task=local task.path={tiny_task} backbone=minilm head=similarity {override} stages=2 stage.steps=1"
    words += f" batch_size=4 prompt.length=3 view=none device=cpu hydra.run.dir={tmp_path}/run --config-dir={tmp_path}"
    assert run_command(words.split()) == 0
    run = read_run(tmp_path / "run")
    assert run.outcome is not None
    assert run.outcome.status == "done"
    if section == "Add a mentor":
        assert run.restarts[0].considered[0][0].rationale == "shuffled"
