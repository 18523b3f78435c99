"""Values of the command line as Hydra reads them once they are quoted."""

import os
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from llm_catalyst.sweeps.quoting import quote_words, read_overrides, split_values

# One text a line; those with blanks at their ends or line ends in them follow.
LINES = r"""
~/data
/d/a=b
/d/a,b
C:\x\y\
*.csv
a b
[1]
(a)
a[b]
[a
}{
a;b
{Review Text}
{review}: good?
{a}, {b}: it's "x"
{a b}=${c}
${x}
\${x}
a\\${x}
${
%s
007
1e3
1_000
true
inf
-1
a:b
{a:b}
http://x/y?z=1&b=c
choice(a,b)
#
it's
'a
a'
'a' 'b'
'a' and "b"
"
''a
\'a
\
\\
a\ b
é
差
😀
"""
TYPED = [*LINES.split("\n")[1:-1], "", " a ", "a\tb", "a\nb"]
KEYS = ("task.path", "task.text", "task.label", "prompt.text", "mentor.client.base_url", "replay.run")


def read_word(word: str) -> Any:
    """What Hydra and OmegaConf make of the value of an override."""
    config = OmegaConf.create()
    OmegaConf.update(config, "key", OverridesParser.create().parse_override(word).value())
    return OmegaConf.to_container(config, resolve=True)["key"]  # type: ignore[index, call-overload]


def list_swept(word: str) -> list[str]:
    """The values of a sweep over a key, as Hydra hands them to the jobs."""
    override = OverridesParser.create().parse_override(word)
    return [read_word(f"key={value}") for value in override.sweep_string_iterator()]


# E23
@pytest.mark.parametrize("typed", TYPED, ids=repr)
def test_a_path_or_text_is_taken_as_typed(typed: str) -> None:
    for word in quote_words([f"{key}={typed}" for key in KEYS]):
        assert read_word(word) == typed


# E23
@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("task.labels=[no,yes]", ["no", "yes"]),
        ("task.labels=[0,1,1e3]", ["0", "1", "1e3"]),
        ("task.words=[差, a=b]", ["差", "a=b"]),
        ('task.words=[" bad"," good, really"]', [" bad", " good, really"]),
        ("task.labels=[]", []),
        ("task.pair=null", None),
        ("task.text='{a}, {b}'", "{a}, {b}"),
        ('task.path="~/a b"', "~/a b"),
        ("seed=7", 7),
        ("optimizer.lr=1e-3", 1e-3),
        ("stage.steps=[100,200]", [100, 200]),
        ("dry_run=true", True),
        ("optimizer.betas=[0.9,0.99]", [0.9, 0.99]),
        ("task.names={cat: a cat}", {"cat": "a cat"}),
        ("hydra.run.dir=~/a=b", os.path.expanduser("~/a=b")),
    ],
)
def test_lists_null_numbers_and_what_is_quoted_keep_their_meaning(word: str, value: Any) -> None:
    (quoted,) = quote_words([word])
    assert read_word(quoted) == value


def test_an_interpolation_with_a_resolver_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/somewhere")
    assert read_word(quote_words(["task.path=${oc.env:PLACE}/a=b"])[0]) == "/somewhere/a=b"


# E23
@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("task.path=~/a,/d/b=c", ["~/a", "/d/b=c"]),
        ("task.text={a},{b} good?", ["{a}", "{b} good?"]),
        ("task.text={a, b},x", ["{a, b}", "x"]),
        ("task.text='{a}, {b}',x", ["{a}, {b}", "x"]),
        ("task.label=007,1e3", ["007", "1e3"]),
        ("mentor=none,random", ["none", "random"]),
        ("task.text=choice(a,b)", ["a", "b"]),
    ],
)
def test_in_a_sweep_commas_outside_quotes_and_brackets_separate_values(word: str, values: list[str]) -> None:
    (quoted,) = quote_words([word], sweeps=True)
    assert list_swept(quoted) == values


def test_words_that_are_no_overrides_and_deleted_keys_stay() -> None:
    words = ["-m", "--config-dir=~/x", "~task.pair", "task"]
    assert quote_words(words) == words


def test_a_key_of_a_users_own_class_is_text_where_its_annotation_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("_target_: own_tasks.Mine\n")
    (tmp_path / "own_tasks.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Mine:\n    spelling: str\n    rows: int\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = quote_words(["task.spelling=1e3", "task.rows=1e3"], folders=[tmp_path], plugins=["own_tasks"])
    assert words == ["task.spelling='1e3'", "task.rows=1e3"]


def test_overrides_of_a_resume_are_read_as_those_of_a_run() -> None:
    words = ["budget.usd=5", "task.path=~/a,b", "track=[wandb]", "prompt.text=${x}"]
    expected = {"budget": {"usd": 5}, "task": {"path": "~/a,b"}, "track": ["wandb"], "prompt": {"text": "${x}"}}
    assert read_overrides(words) == expected


def test_values_are_split_at_the_commas_between_them() -> None:
    assert split_values("a,(b,c),'d,e',it's,f") == ["a", "(b,c)", "'d,e'", "it's", "f"]
