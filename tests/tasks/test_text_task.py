"""Tasks: what is read, how it becomes text, and how rows are split into train, dev and test."""

import json
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.command import REPOSITORY, Command
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_catalyst.config.build import build_node
from llm_catalyst.tasks.base import Example, TaskData, fingerprint_split, majority_share
from llm_catalyst.tasks.splitting import carve_dev
from llm_catalyst.tasks.text_tables import BUILT_IN
from llm_catalyst.tasks.text_task import TextTask
from llm_catalyst.utils.validation import ConfigurationError

CONF = REPOSITORY / "conf"
NAMES = sorted(path.stem for path in (CONF / "task").glob("[a-z]*.yaml"))

# Rows of each label, from the README of the data.
COUNTS = {
    "boolq": ({0: 789, 1: 1211}, {0: 1237, 1: 2033}),
    "cb": ({0: 115, 1: 119, 2: 16}, {0: 23, 1: 28, 2: 5}),
    "copa": ({0: 195, 1: 205}, {0: 55, 1: 45}),
    "rte": ({0: 1249, 1: 1241}, {0: 146, 1: 131}),
    "sst2": ({0: 2629, 1: 3371}, {0: 428, 1: 444}),
    "wic": ({0: 2714, 1: 2714}, {0: 319, 1: 319}),
    "wsc": ({0: 295, 1: 259}, {0: 66, 1: 38}),
}
# How the method turns a row into text (docs: the paper's NLU settings).
METHOD = {
    "boolq": lambda row: ((row["question"], row["passage"]),),
    "rte": lambda row: ((row["premise"], row["hypothesis"]),),
    "copa": lambda row: tuple(
        (row["premise"] + (" because" if row["question"] == "cause" else " so"), row[choice])
        for choice in ("choice1", "choice2")
    ),
    "wic": lambda row: (
        (
            f"{row['sentence1']} {row['sentence2']} Does {row['word']} have the same meaning in both sentences?",
            None,
        ),
    ),
    "wsc": lambda row: ((f"{row['span2_text']}: {row['text']}", row["span1_text"]),),
}

Jsonl = Callable[[Path, Sequence[dict[str, Any]]], None]


def packaged(name: str, **changes: Any) -> TextTask:
    """The task of conf/task, with some keys changed."""
    base, own = (yaml.safe_load((CONF / "task" / f"{file}.yaml").read_text()) for file in ("_text_task", name))
    node = {key: value for key, value in (base | own).items() if key != "defaults"}
    task: TextTask = build_node(node | changes, "task")
    return task


def local(path: Path, **settings: Any) -> TextTask:
    return TextTask(**{"name": "local", "text": "{text}", "path": str(path), "test": "test", **settings})


def counts(rows: Sequence[Example]) -> dict[int, int]:
    return dict(Counter(e.label for e in rows))


def rows_of(*labels: Any) -> list[dict[str, Any]]:
    """Rows with these labels, each with a text of its own."""
    return [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]


@pytest.fixture
def folder(tmp_path: Path, jsonl: Jsonl) -> Callable[..., Path]:
    """A function that writes splits as JSON Lines into a new folder."""

    def make(**splits: Sequence[dict[str, Any]]) -> Path:
        for name, rows in splits.items():
            jsonl(tmp_path / "rows" / f"{name}.jsonl", rows)
        return tmp_path / "rows"

    return make


# --- the packaged tasks


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_task_composes_and_says_all_that_a_mentor_and_the_heads_need(
    name: str, composed: Callable[..., dict[str, Any]]
) -> None:
    task = build_node(composed(f"task={name}")["task"], "task")
    assert task.name == name
    assert task.description.endswith(".")
    if isinstance(task, TextTask) and name != "local":
        outputs = 2 if task.choices else len(task.labels)
        assert len(task.words) == len(task.descriptions) == outputs >= 2
        assert len(set(task.words)) == len(set(task.descriptions)) == outputs
        assert task.hub or (BUILT_IN / name).is_dir()


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_a_real_task_has_the_rows_and_labels_of_its_readme(name: str, real: Callable[[str], Path]) -> None:
    data = packaged(name, path=str(real(name))).load(seed=1)
    train, test = COUNTS[name]
    assert counts(data.test) == test
    assert Counter(counts(data.train)) + Counter(counts(data.dev)) == Counter(train)
    assert majority_share(data.test) == max(test.values()) / sum(test.values())


@pytest.mark.parametrize("name", sorted(METHOD))
def test_templates_are_filled_as_the_method_has_it(name: str, real: Callable[[str], Path]) -> None:
    path = real(name)
    raw = [json.loads(line) for line in (path / "validation.jsonl").read_bytes().split(b"\n") if line]
    data = packaged(name, path=str(path)).load(seed=1)
    wanted = [METHOD[name](row) for row in raw]
    stripped = [tuple((text.strip(), pair and pair.strip()) for text, pair in sequences) for sequences in wanted]
    assert [e.sequences for e in data.test] == stripped
    assert [e.label for e in data.test] == [row["label"] for row in raw]


def test_both_questions_of_copa_occur_and_each_choice_stands_in_the_second_place(real: Callable[[str], Path]) -> None:
    data = packaged("copa", path=str(real("copa"))).load(seed=1)
    ends = {text.rsplit(" ", 1)[1] for e in data.test for text, _ in e.sequences}
    assert ends == {"because", "so"}
    assert all(len(e.sequences) == 2 for e in (*data.train, *data.dev, *data.test))


def test_the_data_folder_of_the_environment_is_found(real: Callable[[str], Path], monkeypatch: Any) -> None:
    path = real("cb")
    monkeypatch.setenv("CATALYST_DATA", str(path.parent))
    data = packaged("cb").load(seed=1)
    assert data.source == str(path)
    assert len(data.test) == 56


def test_the_built_in_quickstart_data_is_found_without_any_path(monkeypatch: Any) -> None:
    monkeypatch.delenv("CATALYST_DATA", raising=False)
    data = TextTask(name="quickstart", text="{text}", test="test", dev="validation").load(seed=1)
    assert (len(data.train), len(data.dev), len(data.test)) == (240, 160, 400)
    for split in (data.train, data.dev, data.test):
        assert counts(split) == {0: len(split) / 2, 1: len(split) / 2}


def test_the_task_of_the_tutorial_composes_and_loads_as_it_is_written(
    catalyst: Command, tmp_path: Path, folder: Callable[..., Path]
) -> None:
    page = (REPOSITORY / "docs" / "tutorial.md").read_text(encoding="utf-8")
    block = re.search(r"`(my_conf/task/(\w+)\.yaml)`.*?```yaml\n(.*?)```", page, re.DOTALL)
    assert block
    file = tmp_path / block[1]
    file.parent.mkdir(parents=True)
    file.write_text(block[3], encoding="utf-8")
    node = yaml.safe_load(block[3])
    assert node.pop("defaults") == ["local"]
    done = catalyst("run", "--config-dir=my_conf", f"task={block[2]}", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    composed = yaml.safe_load(done.stdout)["task"]
    assert composed | node == composed
    column = node["text"].strip("{}")
    rows = [{column: f"text {i}", node["label"]: label} for i, label in enumerate(node["labels"] * 10)]
    path = folder(train=rows, test=rows[:2])
    assert build_node(composed | {"path": str(path)}, "task").load(seed=1).labels == tuple(node["labels"])


# --- splits


@pytest.mark.parametrize("shots", [1, 4, 9])
def test_shots_are_exact_for_each_label_in_train_and_dev(tiny_task: Path, shots: int) -> None:
    data = local(tiny_task, shots=shots).load(seed=1)
    assert counts(data.train) == counts(data.dev) == {0: shots, 1: shots}
    assert len(data.test) == 20


def test_the_seed_draws_the_shots_and_the_same_seed_draws_them_again(tiny_task: Path) -> None:
    def drawn(seed: int) -> TaskData:
        return local(tiny_task, shots=4).load(seed)

    assert drawn(1) == drawn(1)
    assert set(drawn(1).train) != set(drawn(2).train)
    assert set(drawn(1).dev) != set(drawn(2).dev)
    assert drawn(1).test == drawn(2).test


@pytest.mark.parametrize("settings", [{}, {"shots": 4}, {"test": None}, {"test": None, "shots": 4}], ids=str)
def test_train_dev_and_test_share_no_row_under_heldout(tiny_task: Path, settings: dict[str, Any]) -> None:
    data = local(tiny_task, **settings).load(seed=3)
    splits = [set(data.train), set(data.dev), set(data.test)]
    assert all(splits)
    assert len(set.union(*splits)) == sum(map(len, splits)) == len(data.train) + len(data.dev) + len(data.test)


@pytest.mark.parametrize("settings", [{}, {"shots": 4}, {"test": None}], ids=str)
def test_dev_is_test_where_the_protocol_reports_on_dev(tiny_task: Path, settings: dict[str, Any]) -> None:
    data = local(tiny_task, **settings).load(seed=1, report_on_dev=True)
    assert data.dev == data.test
    assert not set(data.train) & set(data.test)
    assert counts(data.train) == {0: settings["shots"], 1: settings["shots"]} if "shots" in settings else data.train


def test_a_dev_split_of_the_tasks_own_is_taken_whole(folder: Callable[..., Path]) -> None:
    path = folder(train=rows_of(*[0, 1] * 10), mine=rows_of(1, 0, 1), test=rows_of(0, 1))
    data = local(path, dev="mine").load(seed=1)
    assert len(data.train) == 20
    assert [e.label for e in data.dev] == [1, 0, 1]


def test_dev_is_carved_by_label_and_bounded(folder: Callable[..., Path]) -> None:
    path = folder(train=rows_of(*[0] * 60, *[1] * 20), test=rows_of(0, 1))
    assert counts(local(path).load(seed=1).dev) == {0: 6, 1: 2}
    assert counts(local(path, dev_share=0.5).load(seed=1).dev) == {0: 30, 1: 10}
    assert counts(local(path, dev_share=0.5, dev_rows=4).load(seed=1).dev) == {0: 3, 1: 1}


@given(
    sizes=st.lists(st.integers(2, 40), min_size=2, max_size=6),
    share=st.floats(0.01, 0.5),
    limit=st.integers(1, 60),
    seed=st.integers(0, 3),
)
@settings(max_examples=200, derandomize=True)
def test_a_carved_part_takes_of_each_label_and_never_more_than_its_limit(
    sizes: list[int], share: float, limit: int, seed: int
) -> None:
    rows = [Example(((f"{label} {i}", None),), label) for label, n in enumerate(sizes) for i in range(n)]
    rest, taken = carve_dev(rows, share, limit, seed)
    assert Counter(rest) + Counter(taken) == Counter(rows)
    assert counts(taken).keys() == counts(rest).keys() == set(range(len(sizes)))
    assert len(taken) <= max(limit, len(sizes))


@given(sizes=st.lists(st.integers(2, 12), min_size=2, max_size=9), share=st.floats(0.01, 0.5), limit=st.integers(1, 60))
@settings(max_examples=200, derandomize=True)
def test_of_a_carved_part_that_is_too_large_the_largest_label_gives_first(
    sizes: list[int], share: float, limit: int
) -> None:
    rows = [Example(((f"{label} {i}", None),), label) for label, n in enumerate(sizes) for i in range(n)]
    wanted = [min(max(1, round(min(share, limit / len(rows)) * n)), n - 1) for n in sizes]
    while sum(wanted) > max(limit, len(wanted)):
        wanted[wanted.index(max(wanted))] -= 1
    assert counts(carve_dev(rows, share, limit, 0)[1]) == dict(enumerate(wanted))


def test_carving_is_quick_with_very_many_labels() -> None:
    rows = [Example(((f"{i}", None),), i // 3) for i in range(60_000)]
    start = time.process_time()
    assert len(carve_dev(rows, 0.5, 30_000, 0)[1]) == 30_000
    assert time.process_time() - start < 3


def test_a_label_with_a_single_row_is_trained_on(folder: Callable[..., Path]) -> None:
    path = folder(train=rows_of(*[0, 1] * 10, 2), test=rows_of(0, 1, 2))
    assert 2 in counts(local(path).load(seed=1).train)


def test_fingerprints_change_with_one_character_and_with_one_label(folder: Callable[..., Path]) -> None:
    train, test = rows_of(*[0, 1] * 10), rows_of(0, 1, 1)

    def prints(test: list[dict[str, Any]]) -> dict[str, Any]:
        return local(folder(train=train, test=test)).load(seed=1).fingerprints()

    before = prints(test)
    assert (before["test"]["rows"], before["test"]["labels"]) == (3, {"0": 1, "1": 2})
    assert prints(test) == before
    for changed in ({"text": "text O", "label": 1}, {"text": "text 2", "label": 0}):
        after = prints([*test[:2], changed])
        assert after["test"]["sha256"] != before["test"]["sha256"]
        assert after["train"] == before["train"]


def test_a_fingerprint_tells_a_pair_from_a_longer_text_and_one_order_from_another() -> None:
    whole, split = Example((("a b", None),), 0), Example((("a", "b"),), 0)
    hashes = [fingerprint_split(rows)["sha256"] for rows in ([whole, split], [split, whole], [whole, whole], [whole])]
    assert len(set(hashes)) == 4


# --- local files


def write_table(path: Path, rows: Sequence[dict[str, Any]], form: str) -> None:
    """Rows as one file of the given form, written by someone else's library."""
    import datasets

    table = datasets.Dataset.from_list(list(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    writers = {"jsonl": table.to_json, "csv": table.to_csv, "parquet": table.to_parquet}
    writers[form](str(path.with_suffix(f".{form}")))


LABELS = {
    "strings": (["bad", "good"], [], ("bad", "good")),
    "0/1": ([0, 1], [], ("0", "1")),
    "1/2": ([1, 2], [], ("1", "2")),
    "stars": ([1, 2, 3, 4, 5], [], ("1", "2", "3", "4", "5")),
    "booleans": ([False, True], ["no", "yes"], ("no", "yes")),
    "named integers": ([0, 1], ["no", "yes"], ("no", "yes")),
}


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("kind", LABELS)
def test_local_files_are_read_in_every_form_with_every_kind_of_label(tmp_path: Path, form: str, kind: str) -> None:
    values, named, wanted = LABELS[kind]
    for split, times in (("train", 8), ("test", 2)):
        rows = [{"text": f"{split} {i}, with a comma", "mark": values[i % len(values)]} for i in range(times * 5)]
        write_table(tmp_path / split, rows, form)
    data = local(tmp_path, label="mark", labels=named).load(seed=1)
    assert data.labels == wanted
    assert [e.label for e in data.test] == [i % len(values) for i in range(10)]
    assert data.test[3].sequences == (("test 3, with a comma", None),)


def test_unnamed_booleans_get_their_own_names(folder: Callable[..., Path]) -> None:
    data = local(folder(train=rows_of(*[True, False] * 10), test=rows_of(True, False, False))).load(seed=1)
    assert set(data.labels) == {"True", "False"}
    assert [data.labels[e.label] for e in data.test] == ["True", "False", "False"]


def test_ten_and_more_numbers_are_ordered_as_numbers(folder: Callable[..., Path]) -> None:
    numbers = list(range(1, 13))
    data = local(folder(train=rows_of(*numbers * 3), test=rows_of(*numbers))).load(seed=1)
    assert data.labels == tuple(map(str, numbers))


def test_multiple_choice_rows_have_a_sequence_for_each_choice(folder: Callable[..., Path]) -> None:
    rows = [{"start": f"Then {i}", "a": "it rained ", "b": "it ran", "c": "it is", "label": i % 3} for i in range(12)]
    task = local(folder(train=rows, test=rows[:3]), text="{start}", choices=["{a}", "and {b}", "{c}"])
    data = task.load(seed=1)
    assert data.test[1] == Example((("Then 1", "it rained"), ("Then 1", "and it ran"), ("Then 1", "it is")), 1)
    assert data.labels == ("choice 1", "choice 2", "choice 3")


def test_changed_rows_are_seen_although_datasets_keeps_copies(folder: Callable[..., Path]) -> None:
    test = rows_of(0, 1)
    assert local(folder(train=rows_of(*[0, 1] * 5), test=test)).load(seed=1).test[0].label == 0
    assert local(folder(train=rows_of(*[0, 1] * 5), test=rows_of(1, 0))).load(seed=1).test[0].label == 1


def test_local_files_are_read_without_asking_the_network(folder: Callable[..., Path], monkeypatch: Any) -> None:
    """`datasets.load_dataset` tells the hub of every load, of local files too, and waits for it where it is away."""
    import datasets

    asked: list[Any] = []

    def refuse(*address: Any, **options: Any) -> Any:
        asked.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    local(folder(train=rows_of(*[0, 1] * 5), test=rows_of(0, 1))).load(seed=1)
    assert asked == []


# --- errors


def refusal(task: TextTask, **settings: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        task.load(seed=1, **settings)
    return str(caught.value)


GOOD = rows_of(*[0, 1] * 10)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label": "lable"}, ["train.jsonl", "no column 'lable'", "text, label", "did you mean label"]),
        ({"text": "{txt}"}, ["train.jsonl", "no column 'txt'", "did you mean text"]),
        ({"pair": "{other}"}, ["train.jsonl", "no column 'other'"]),
        ({"choices": ["{text}", "{b}"]}, ["train.jsonl", "no column 'b'"]),
        ({"train": "trian"}, ["holds no trian.jsonl", "test.jsonl, train.jsonl", "task.train"]),
        ({"test": "validation"}, ["holds no validation.jsonl", "task.test"]),
        ({"dev": "validation"}, ["holds no validation.jsonl", "task.dev"]),
        ({"labels": ["a", "b"], "label": "text"}, ["train.jsonl, line 1: ", "'text 0'", "a, b", "0..1"]),
    ],
    ids=str,
)
def test_what_the_configuration_gets_wrong_is_named_with_the_mend(
    folder: Callable[..., Path], settings: dict[str, Any], words: list[str]
) -> None:
    message = refusal(local(folder(train=GOOD, test=GOOD[:4]), **settings))
    assert "task=local" in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("text", ["{", "{}", "{text"])
def test_a_malformed_template_is_refused_by_its_key(folder: Callable[..., Path], text: str) -> None:
    path = folder(train=GOOD, test=GOOD[:4])
    with pytest.raises(ConfigurationError, match=r"task\.text|template"):
        local(path, text=text).load(seed=1)


@pytest.mark.parametrize(
    ("train", "test", "settings", "words"),
    [
        (rows_of(0, 1, 0, 2), GOOD, {"labels": ["a", "b"]}, ["train.jsonl, line 4: ", "label 2", "a, b", "0..1"]),
        (rows_of(0, 1, -1), GOOD, {"labels": ["a", "b"]}, ["train.jsonl, line 3: ", "label -1"]),
        (rows_of(0, 1, 0.5), GOOD, {"labels": ["a", "b"]}, ["train.jsonl, line 3: ", "label 0.5"]),
        (GOOD, rows_of(0, 1, 3), {"labels": ["a", "b"]}, ["test.jsonl, line 3: ", "label 3"]),
        (rows_of(1, 1, 1), GOOD, {}, ["train.jsonl", "same label"]),
        (GOOD, rows_of("bad", "1"), {"labels": ["0", "1"]}, ["test.jsonl, line 1: ", "'bad'"]),
    ],
)
def test_what_is_wrong_with_a_row_is_named_with_its_place(
    folder: Callable[..., Path],
    train: list[dict[str, Any]],
    test: list[dict[str, Any]],
    settings: dict[str, Any],
    words: list[str],
) -> None:
    message = refusal(local(folder(train=train, test=test), **settings))
    assert "task=local" in message
    for word in words:
        assert word in message


def test_a_number_that_no_training_row_has_is_not_taken_for_another_label(folder: Callable[..., Path]) -> None:
    """Stars 1, 2, 4, 5 become ids 0..3: a test row with 3 stars must not become id 3, which is five stars."""
    path = folder(train=rows_of(*[1, 2, 4, 5] * 5), test=rows_of(1, 3, 5))
    message = refusal(local(path))
    assert "test.jsonl, line 2: " in message
    assert "label 3" in message


@pytest.mark.parametrize("column", ["label", "text"])
def test_a_missing_value_is_refused_instead_of_becoming_the_word_none(folder: Callable[..., Path], column: str) -> None:
    train = [*GOOD, {**GOOD[0], column: None}]
    message = refusal(local(folder(train=train, test=GOOD[:4])))
    assert "train.jsonl, line 21: " in message
    assert column in message


@pytest.mark.parametrize("content", ["", "text,label\n"], ids=["no bytes", "a header only"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split_is_refused_by_name(tmp_path: Path, content: str, split: str) -> None:
    write_table(tmp_path / "train", GOOD, "csv")
    write_table(tmp_path / "test", GOOD, "csv")
    (tmp_path / f"{split}.csv").write_text(content)
    message = refusal(local(tmp_path))
    assert split in message
    assert re.search("no rows|empty|No columns", message)


def test_an_empty_jsonl_file_is_called_empty(folder: Callable[..., Path]) -> None:
    assert re.search(r"train(\.jsonl)?\b.*(no rows|empty)", refusal(local(folder(train=[], test=GOOD))))


def test_a_file_that_is_no_jsonl_is_named(tmp_path: Path, folder: Callable[..., Path]) -> None:
    path = folder(train=GOOD, test=GOOD)
    (path / "train.jsonl").write_text("<html>not found</html>\n")
    message = refusal(local(path))
    assert str(path / "train.jsonl") in message
    assert "this is a web page" in message


def test_a_path_that_is_not_there_says_what_should_lie_there(tmp_path: Path) -> None:
    message = refusal(local(tmp_path / "nowhere"))
    assert f"task.path={tmp_path / 'nowhere'} does not exist" in message
    assert "train.jsonl" in message


def test_a_task_without_any_data_says_where_to_put_it(monkeypatch: Any) -> None:
    monkeypatch.delenv("CATALYST_DATA", raising=False)
    message = refusal(TextTask(name="mine", text="{text}"))
    assert "task=mine has no data yet" in message
    assert "task.path=FOLDER" in message
    assert "$CATALYST_DATA/mine/" in message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shots": 0}, r"task\.shots=0 is too small.*at least 1"),
        ({"dev_rows": 0}, r"task\.dev_rows=0 is too small"),
        ({"dev_share": 0.9}, r"task\.dev_share=0\.9 is out of range.*0\.01 and 0\.5"),
        ({"metric": "acuracy"}, r"task\.metric=acuracy is not known.*did you mean accuracy"),
        ({"cloze": "It was great."}, r"task\.cloze='It was great\.' must hold \{mask\}"),
        ({"pair": "{a}", "choices": ["{b}", "{c}"]}, r"task\.pair and task\.choices exclude each other"),
        ({"labels": ["a", "b"], "words": ["x"]}, r"task\.words has 1 entries, but there must be 2"),
        ({"choices": ["{a}", "{b}", "{c}"], "descriptions": ["x", "y", "z"]}, r"task\.descriptions has 3 .* be 2"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_before_anything_is_read(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        TextTask(**{"name": "local", "text": "{text}", **settings})
