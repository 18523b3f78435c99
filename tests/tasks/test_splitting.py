"""Splits: twins on one side, every label in train and dev of few-shot runs, one test for all seeds."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.command import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_catalyst.config.build import build_node
from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.tasks.splitting import carve_dev
from llm_catalyst.tasks.text_task import TextTask
from llm_catalyst.utils.validation import ConfigurationError

Jsonl = Callable[[Path, Sequence[dict[str, Any]]], None]


@pytest.fixture
def make_task(tmp_path: Path, jsonl: Jsonl) -> Callable[..., TextTask]:
    """A function that writes train.jsonl with these rows, and gives the task that holds test out of it."""

    def make(train: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]] = (), **keys: Any) -> TextTask:
        jsonl(tmp_path / "train.jsonl", train)
        if test:
            jsonl(tmp_path / "test.jsonl", test)
        given = {"name": "local", "text": "{text}", "path": str(tmp_path), "test": "test" if test else None}
        return TextTask(**{**given, **keys})

    return make


def rows_of(**counts: int) -> list[dict[str, Any]]:
    """That number of rows of each label, each with a text of its own, shuffled."""
    rows = [{"text": f"{label} {i}", "label": label} for label, n in counts.items() for i in range(n)]
    return random.Random(7).sample(rows, len(rows))


def counts(data: TaskData, rows: Sequence[Example]) -> dict[str, int]:
    return {data.labels[label]: n for label, n in sorted(Counter(row.label for row in rows).items())}


def texts(rows: Sequence[Example]) -> set[str]:
    return {row.sequences[0][0] for row in rows}


def wsc(path: Path, **keys: Any) -> TextTask:
    base, own = (yaml.safe_load((REPOSITORY / f"conf/task/{file}.yaml").read_text()) for file in ("_text_task", "wsc"))
    keys = {**base, **own, "path": str(path), **keys}
    task: TextTask = build_node({key: value for key, value in keys.items() if key != "defaults"}, "task")
    return task


# --- twins


@pytest.mark.parametrize("keys", [{}, {"test": None}, {"shots": 16}, {"test": None, "shots": 16}], ids=str)
def test_rows_of_one_text_of_wsc_stand_on_one_side_of_a_split(
    real: Callable[[str], Path], keys: dict[str, Any]
) -> None:
    path = real("wsc")
    data = wsc(path, **keys).load(seed=1)
    raw = [json.loads(line)["text"] for line in (path / "train.jsonl").read_bytes().split(b"\n") if line]
    sides = [{raw[row.row - 1] for row in rows if row.row} for rows in (data.train, data.dev, data.test)]
    train, dev, test = sides
    assert train
    assert dev
    assert not train & dev
    if "test" in keys:
        assert test
        assert not test & (train | dev)


def test_the_rule_of_earlier_runs_separates_twins(real: Callable[[str], Path]) -> None:
    data = wsc(real("wsc"), split_seed=None).load(seed=1)
    assert texts(data.train) & texts(data.dev)


@pytest.mark.parametrize("other", ["Is  IT so?", "\tis it so?\n", "\uff29s it so?", "IS IT SO?"])
def test_texts_are_twins_in_spite_of_case_blanks_and_unicode_form(
    make_task: Callable[..., TextTask], other: str
) -> None:
    for seed in range(20):
        rows = [*rows_of(a=20, b=20), *({"text": text, "label": "a"} for text in ("Is it so?", other))]
        data = make_task(rows, dev_share=0.5).load(seed)
        sides = [sum(row.row in (41, 42) for row in rows) for rows in (data.train, data.dev, data.test)]
        assert sorted(sides) == [0, 0, 2]


def test_a_first_text_that_most_rows_share_does_not_keep_them_together(make_task: Callable[..., TextTask]) -> None:
    rows = [{"question": "Is it true?", "text": f"text {i}", "label": i % 2} for i in range(40)]
    data = make_task(rows, text="{question}", pair="{text}", dev_share=0.25).load(1)
    assert [len(part) for part in (data.train, data.dev, data.test)] == [22, 8, 10]


def test_rows_that_all_have_one_text_are_refused(make_task: Callable[..., TextTask]) -> None:
    with pytest.raises(ConfigurationError, match="every row of train has the same text"):
        make_task([{"text": "the same", "label": i % 2} for i in range(40)]).load(1)


@given(
    rows=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), min_size=2, max_size=60),
    share=st.floats(0.05, 0.5),
    limit=st.integers(1, 30),
)
@settings(max_examples=200, derandomize=True)
def test_a_carved_part_separates_no_twins_and_leaves_each_label_a_row(
    rows: list[tuple[int, int]], share: float, limit: int
) -> None:
    examples = [Example(((str(text), None),), label, i) for i, (text, label) in enumerate(rows)]
    rest, taken = carve_dev(examples, share, limit, 0, key=lambda row: row.sequences)
    assert sorted(row.row or 0 for row in (*rest, *taken)) == list(range(len(rows)))
    assert not texts(rest) & texts(taken)
    assert {row.label for row in rest} == {label for _, label in rows}


# --- few shots


# E3
def test_each_class_stands_in_train_and_dev_though_it_has_fewer_rows_than_shots(
    make_task: Callable[..., TextTask],
) -> None:
    task = make_task(rows_of(bad=30, good=10), test=rows_of(bad=5, good=5), shots=16)
    for seed in range(5):
        data = task.load(seed)
        assert counts(data, data.train) == {"bad": 15, "good": 5}
        assert counts(data, data.dev) == {"bad": 15, "good": 5}
        assert not texts(data.train) & texts(data.dev)


# E3
def test_a_class_with_one_row_is_refused_with_the_counts(make_task: Callable[..., TextTask]) -> None:
    task = make_task(rows_of(bad=30, good=12, ugly=1), test=rows_of(bad=5, good=5), shots=4)
    with pytest.raises(
        ConfigurationError, match=r"task=local: task\.shots=4.*not two of ugly.*bad 30, good 12, ugly 1"
    ):
        task.load(1)


def test_in_few_shot_runs_all_other_rows_are_test_and_the_same_for_every_seed(
    make_task: Callable[..., TextTask],
) -> None:
    task = make_task(rows_of(a=70, b=66, c=64), shots=16)
    first, second = task.load(1), task.load(2)
    assert counts(first, first.train) == counts(first, first.dev) == {"a": 16, "b": 16, "c": 16}
    assert counts(first, first.test) == {"a": 38, "b": 34, "c": 32}
    assert first.test == second.test
    assert set(first.train) != set(second.train)
    assert {*first.train, *first.dev} == {*second.train, *second.dev}


@pytest.mark.parametrize(("n", "wanted"), [(2, (1, 1, 0)), (3, (1, 1, 1)), (6, (3, 2, 1)), (40, (8, 8, 24))])
def test_a_class_of_three_rows_or_more_leaves_one_for_test(
    make_task: Callable[..., TextTask], n: int, wanted: tuple[int, int, int]
) -> None:
    data = make_task(rows_of(many=60, few=n), shots=8).load(1)
    assert tuple(counts(data, rows).get("few", 0) for rows in (data.train, data.dev, data.test)) == wanted


def test_labels_that_share_their_texts_both_stand_in_train_and_dev(make_task: Callable[..., TextTask]) -> None:
    rows = [{"text": f"text {i // 2}", "pair": f"{i}", "label": i % 2} for i in range(40)]
    data = make_task(rows, test=rows[:4], pair="{pair}", shots=16).load(1)
    assert counts(data, data.train) == counts(data, data.dev) == {"0": 5, "1": 5}


# --- one test for all seeds


@pytest.mark.parametrize("keys", [{}, {"shots": 4}], ids=str)
def test_split_seed_draws_test_and_the_seed_draws_dev(make_task: Callable[..., TextTask], keys: dict[str, Any]) -> None:
    rows = rows_of(a=60, b=60)
    first, second = make_task(rows, **keys).load(1), make_task(rows, **keys).load(2)
    assert first.test == second.test
    assert first.dev != second.dev
    other = make_task(rows, split_seed=5, **keys).load(1)
    assert set(other.test) != set(first.test)


def test_without_split_seed_the_seed_draws_test(make_task: Callable[..., TextTask]) -> None:
    task = make_task(rows_of(a=60, b=60), split_seed=None)
    assert set(task.load(1).test) != set(task.load(2).test)
