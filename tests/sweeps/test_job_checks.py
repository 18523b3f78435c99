"""Every job of a sweep is checked before the first one begins."""

from pathlib import Path

import pytest
from helpers.command import Command


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mentor=none,foo"], "error: mentor=foo is not known"),
        (["mentor=none,gtp4"], "error: mentor=gtp4 is not known (did you mean gpt4?)"),
        (["batch_size=8,0"], "error: batch_size=0 is too small; it must be at least 1 (batch_size=0; no run"),
        (["seed=1,true"], "error: seed=true does not fit: it must be a number (seed=True; no run"),
        (["mentor=none,gpt4"], "error: the environment variable OPENAI_API_KEY is not set"),
        (["batch_size=8,"], "error: batch_size=8,: a value is missing before or behind a comma; write batch_size=A,B"),
        (["mentor=none,null"], "error: mentor=none,null names no choice; there are: azure, bedrock, "),
        (["experiment=quickstart,null"], "error: experiment=quickstart,null names no choice; there are: "),
        (["mentor=none,openai_compatible"], "error: mentor.client.model must be given"),
    ],
    ids=str,
)
def test_a_sweep_with_a_wrong_job_is_refused_before_any_run(
    catalyst: Command, tmp_path: Path, words: list[str], message: str
) -> None:
    done = catalyst("run", "-m", "experiment=quickstart", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("error: ") == 1
    assert [*tmp_path.iterdir()] == []


def test_a_kind_that_contradicts_the_folder_of_one_job_is_refused_before_any_run(
    catalyst: Command, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    words = ["backbone.name=model", "backbone.kind=causal_lm,encoder"]
    done = catalyst("run", "-m", "experiment=quickstart", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "backbone.kind=encoder contradicts config.json of model" in done.stderr
    assert "(backbone.kind=encoder; no run of the sweep was started)" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
