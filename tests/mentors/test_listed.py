"""Prompts of a file as proposals."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.runs import carry_out
from helpers.tiny import prompt_space

from llm_catalyst.config.build import build_components
from llm_catalyst.config.overrides import absolutize_paths
from llm_catalyst.mentors.base import MentorContext, TaskDescription
from llm_catalyst.mentors.listed import Listed
from llm_catalyst.runs.records import Advice, Restart
from llm_catalyst.utils.validation import ConfigurationError

TEXTS = ["good film", "a bad movie", "great story", "dull review", "the mood is fine"]
TASK = TaskDescription("toy", "Say how the film was.", ("bad", "good"))


def write_prompts(folder: Path, content: str = "\n".join(TEXTS)) -> str:
    (folder / "prompts.txt").write_text(content, encoding="utf-8")
    return str(folder / "prompts.txt")


def ask(mentor: Listed, stage: int) -> Advice:
    space = prompt_space(length=4)
    return mentor.propose(MentorContext(TASK, (), stage, 9, space, random.Random(0), lambda call: None))


def test_each_restart_proposes_the_next_prompts_and_begins_anew_after_the_last(tmp_path: Path) -> None:
    mentor, space = Listed(write_prompts(tmp_path), proposals=2), prompt_space(length=4)
    wanted = [TEXTS[0:2], TEXTS[2:4], [TEXTS[4], TEXTS[0]], TEXTS[1:3]]
    for stage, texts in enumerate(wanted):
        advice = ask(mentor, stage)
        assert [proposal.prompt for proposal in advice.proposals] == [space.fit(text)[0] for text in texts]
    assert ask(mentor, 2).proposals[0].rationale == "prompt 5 of 5 in the file"


def test_prompts_may_stand_in_the_configuration_itself() -> None:
    advice = ask(Listed(prompts=("good film", "a bad movie")), 0)
    assert [p.prompt.text for p in advice.proposals] == ["good film good film", "a bad movie a"]
    assert advice.proposals[1].rationale == "prompt 2 of 2 in the list"


def test_the_prompts_of_the_task_are_proposed_where_no_file_is_given(composed: Callable[..., dict[str, Any]]) -> None:
    assert composed("mentor=listed", "task=sst2")["mentor"]["prompts"][0] == "the sentiment of this movie review is"
    with pytest.raises(ConfigurationError, match=r"mentor=listed has no prompt, .*mentor\.file=prompts\.txt"):
        build_components(composed("mentor=listed", "task=boolq"))


def test_no_prompt_is_proposed_twice_at_one_restart(tmp_path: Path) -> None:
    assert len(ask(Listed(write_prompts(tmp_path), proposals=9), 3).proposals) == len(TEXTS)


def test_only_the_end_of_a_line_ends_a_prompt(tmp_path: Path) -> None:
    """Editors number lines by line feeds; a form feed, U+0085, U+2028 and the separators of ASCII stand within one."""
    path = write_prompts(tmp_path, "good film\f\x1c\x85\u2028\na bad movie\r\n")
    assert [p.rationale for p in ask(Listed(path), 0).proposals] == [
        "prompt 1 of 2 in the file",
        "prompt 2 of 2 in the file",
    ]


def test_a_path_that_no_system_knows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"mentor\.file=.* cannot be read \(.*null byte"):
        Listed("a\0b.txt").preflight()


def test_blank_lines_a_mark_of_byte_order_and_windows_line_ends_are_no_prompts(tmp_path: Path) -> None:
    path = write_prompts(tmp_path, "\ufeffgood film\r\n\r\n   \r\n  a bad movie  \r\n")
    assert [p.prompt.text for p in ask(Listed(path), 0).proposals] == ["good film good film", "a bad movie a"]


def test_a_prompt_that_is_too_long_is_cut_and_one_without_a_token_rejected(tmp_path: Path) -> None:
    advice = ask(Listed(write_prompts(tmp_path, "good film good film dull\n\u200b\u200b\n")), 0)
    assert [(p.prompt.text, p.lost) for p in advice.proposals] == [("good film good film", "dull")]
    assert [rejected.line for rejected in advice.rejected] == ["\u200b\u200b"]
    assert advice.fallback is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"prompts\.txt cannot be read \(No such file"),
        ("\n \n", "holds no prompt"),
        (b"\xff\xfe\xe9", "cannot be"),
    ],
    ids=["no file", "blank", "no UTF-8"],
)
def test_a_file_without_prompts_is_refused_before_anything_is_loaded(
    tmp_path: Path, composed: Callable[..., dict[str, Any]], content: str | bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "prompts.txt").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigurationError, match=words):
        build_components(composed("mentor=listed", f"mentor.file={tmp_path}/prompts.txt"))


def test_a_relative_path_is_made_absolute_for_a_resume_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_prompts(tmp_path)
    config = {"task": {"path": None}, "backbone": {}, "mentor": {"file": "prompts.txt"}}
    assert absolutize_paths(config)["mentor"]["file"] == f"{tmp_path}/prompts.txt"


def test_a_run_restarts_from_the_prompts_of_a_file(tmp_path: Path) -> None:
    result = carry_out(tmp_path / "run", mentor=Listed(write_prompts(tmp_path, "slow music\na very good film\n"), 2))
    for restart in result.read(Restart):
        texts = {proposal.prompt.text for proposal, _ in restart.considered}
        assert texts == {"slow music slow music", "a very good film"}
