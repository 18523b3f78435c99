"""What is said of a task's rows: repeated inputs, rows in two splits, labels that lack, few rows."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.tasks.data_facts import DataFacts, collect_facts, describe_rows
from llm_catalyst.tasks.text_task import TextTask

Jsonl = Callable[[Path, Sequence[dict[str, Any]]], None]


@pytest.fixture
def load(tmp_path: Path, jsonl: Jsonl) -> Callable[..., DataFacts]:
    """A function that writes train.jsonl and test.jsonl, loads them, and gives the facts."""

    def facts(train: Sequence[tuple[str, Any]], other: Sequence[tuple[str, Any]] = (), **keys: Any) -> DataFacts:
        for name, rows in (("train", train), ("test", other)):
            jsonl(tmp_path / f"{name}.jsonl", [{"text": text, "label": label} for text, label in rows])
        given = {"name": "local", "text": "{text}", "path": str(tmp_path), "test": "test" if other else None}
        return collect_facts(TextTask(**{**given, **keys}).load(seed=1))

    return facts


def rows(n: int, word: str = "text") -> list[tuple[str, str]]:
    return [(f"{word} {i}", "ab"[i % 2]) for i in range(n)]


def test_the_repeats_of_a_split_are_counted(load: Callable[..., DataFacts]) -> None:
    facts = load(rows(40), [*rows(20, "test"), ("TEST 3", "b"), ("test  3 ", "b"), ("test 4", "a")])
    assert facts.splits["test"].repeated == 3
    assert (facts.splits["train"].repeated, facts.splits["dev"].repeated) == (0, 0)
    assert "test 23 rows (a 11, b 12; 3 repeated)" in describe_rows(facts)


# The README of the data: exact repeats of SST-2's sample, RTE and WiC; none has two labels, and no input is in both
# files. (WSC's indices, which its README counts as well, are in no text.)
@pytest.mark.parametrize(
    ("name", "repeats"),
    [("sst2", (3, 0)), ("rte", (2, 0)), ("wic", (1, 0)), ("cb", (0, 0)), ("boolq", (0, 0))],
)
def test_the_repeats_of_the_real_tasks_are_those_of_their_readme(
    real: Callable[[str], Path], composed: Callable[..., dict[str, Any]], name: str, repeats: tuple[int, int]
) -> None:
    from llm_catalyst.config.build import build_node

    facts = collect_facts(build_node(composed(f"task={name}", f"task.path={real(name)}")["task"], "task").load(seed=1))
    found = facts.splits["train"].repeated + facts.splits["dev"].repeated, facts.splits["test"].repeated
    assert found == repeats
    assert facts.contradictory == 0
    assert facts.shared["test in train"] == 0


def test_test_rows_that_stand_in_train_are_named_as_a_share(load: Callable[..., DataFacts]) -> None:
    facts = load(rows(40), [*rows(3), *rows(9, "test")], dev_share=0.01)
    dev = facts.shared["test in dev"]
    assert facts.shared["test in train"] + dev == 3
    assert facts.warnings[0].startswith("3 of 12 test rows (25.0%) stand in train, too: ") == (dev == 0)


def test_one_file_that_serves_train_and_test_is_named(load: Callable[..., DataFacts]) -> None:
    facts = load(rows(40), test="train", dev="train")
    assert facts.shared == {"test in train": 40, "test in dev": 40, "dev in train": 40}
    assert facts.warnings[0].startswith("40 of 40 test rows (100.0%) stand in train, too: ")


def test_a_split_that_is_made_here_leaks_nothing(load: Callable[..., DataFacts]) -> None:
    facts = load([*rows(40), *rows(40)])
    assert sum(facts.shared.values()) == 0
    assert sum(split.repeated for split in facts.splits.values()) == 40


def test_rows_with_one_text_and_two_labels_are_counted(load: Callable[..., DataFacts]) -> None:
    facts = load([*rows(40), ("Text 2", "b"), ("text 2", "b"), ("text 3", "a")], rows(120, "test"))
    assert facts.contradictory == 5
    assert facts.warnings == ("5 rows have an input that stands elsewhere with another label",)


def test_fewer_than_a_hundred_test_rows_are_named_with_the_weight_of_one(load: Callable[..., DataFacts]) -> None:
    assert load(rows(40), rows(100, "test")).warnings == ()
    assert load(rows(40), rows(50, "test")).warnings == (
        "the score is that of 50 test rows: each is 2.0 points of accuracy",
    )


def test_a_label_that_a_split_lacks_is_named(load: Callable[..., DataFacts]) -> None:
    facts = load([*rows(40), ("text", "c")], rows(100, "test"))
    assert facts.warnings == ("dev has no row of 'c'", "test has no row of 'c'")


def test_shots_that_a_label_does_not_have_are_named_with_the_counts(load: Callable[..., DataFacts]) -> None:
    train = [(f"text {i}", "bad" if i < 30 else "good") for i in range(40)]
    test = [(f"test {i}", "bad" if i < 50 else "good") for i in range(100)]
    assert load(train, test, shots=16).warnings == (
        "task.shots=16 is more than there is: 'bad' 15 in train, 15 in dev, 'good' 5 in train, 5 in dev",
    )


def test_a_key_without_effect_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CATALYST_DATA", raising=False)
    keys: dict[str, Any] = {"name": "quickstart", "text": "{text}", "test": "test", "dev": "validation"}
    (note,) = TextTask(**keys, dev_rows=8).load(seed=1).notes
    assert note.startswith("task.dev_rows=8 has no effect: dev and test are splits of their own (task.dev=validation")
    assert TextTask(**keys).load(seed=1).notes == ()
    assert not any("dev_rows" in each for each in TextTask(**{**keys, "dev": None}, dev_rows=8).load(seed=1).notes)


def test_pictures_repeat_only_where_their_paths_are_the_same() -> None:
    def picture(path: str) -> Example:
        return Example(((path, None),), 0)

    task = TextTask(name="pictures", text="{text}")
    train = (picture("/a/1.png"), picture("/a/1.PNG"), picture("/a/1.png"))
    data = TaskData(task, ("a",), train, (picture("/a/2.png"),), (picture("/a/1.PNG"),), "")
    facts = collect_facts(data)
    assert facts.splits["train"].repeated == 1
    assert facts.shared["test in train"] == 1
