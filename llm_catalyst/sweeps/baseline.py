"""The baseline of a run: the same run without a mentor, at the same steps, in a run directory of its own beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_catalyst.report.summary import compare_answers
from llm_catalyst.runs.reader import read_predictions, read_run
from llm_catalyst.utils.terminal import open_console

TARGET = "llm_catalyst.mentors.NoMentor"


def needs_baseline(config: Mapping[str, Any]) -> bool:
    """Whether the run of this configuration is to be compared with one: `baseline=none`, and it has a mentor."""
    return config.get("baseline") is not None and config["mentor"].get("_target_") != TARGET


def configure_baseline(config: Mapping[str, Any], choices: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The configuration and the choices of the baseline of the run that has these."""
    return {**config, "mentor": {"_target_": TARGET}, "baseline": None}, {**choices, "mentor": "none"}


def place_baseline(path: Path, mentor: str) -> Path:
    """The run directory of the baseline: in the folder `none` beside the one of its mentor, or with `_none` behind."""
    return path.parents[1] / "none" / path.name if path.parent.name == mentor else path.with_name(f"{path.name}_none")


def name_command(words: Sequence[str]) -> list[str]:
    """The command that makes the baseline of the run of `words`."""
    kept = [word for word in words if word.partition("=")[0].lstrip("+") not in ("mentor", "baseline", "hydra.run.dir")]
    return [*(word for word in kept if not word.lstrip("+").startswith("mentor.")), "mentor=none", "baseline=null"]


def print_gain(path: Path, baseline: Path) -> None:
    """Print what the mentor of the run in `path` has gained over its baseline, over the rows of the reporting split."""
    answers, theirs = read_predictions(path), read_predictions(baseline)
    if answers and theirs:
        open_console().print(compare_answers(read_run(path), read_run(baseline), answers, theirs), crop=False)
