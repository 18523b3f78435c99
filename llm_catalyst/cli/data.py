"""`catalyst data`: what a run would understand of a task's files, before anything is trained."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from hydra import compose, initialize_config_dir
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from llm_catalyst.cli.model_view import ModelView, load_model_view
from llm_catalyst.config.backbone import drop_package, find_backbone_choice
from llm_catalyst.config.build import build_node
from llm_catalyst.config.overrides import refuse_missing_choices
from llm_catalyst.config.plugins import check_targets
from llm_catalyst.sweeps.job_checks import drop_hydra_node
from llm_catalyst.sweeps.quoting import quote_words
from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.tasks.data_facts import DataFacts, collect_facts
from llm_catalyst.tasks.file_guesses import guess_columns, guess_splits, holds_pictures
from llm_catalyst.tasks.request_layout import RequestLayout
from llm_catalyst.tasks.split_files import path_exists
from llm_catalyst.tasks.templates import list_columns
from llm_catalyst.tasks.text_tables import TaskTables, read_tables
from llm_catalyst.tasks.text_task import TextTask, code_labels
from llm_catalyst.utils import terminal
from llm_catalyst.utils.format import format_count, join_command, shorten_text
from llm_catalyst.utils.paths import conf_directory, expand_path, list_choices
from llm_catalyst.utils.terminal import escape_controls, escape_paragraphs, list_names
from llm_catalyst.utils.validation import ConfigurationError, did_you_mean

LONGEST_SHOWN = 600  # characters of an example
MOST_CLASSES = 8  # that have a column of their own in the table of splits
EXAMPLES = 2


def data_command(words: Sequence[str], config_dir: Path | None, console: Console) -> None:
    """Print what is understood of a task or file, the first of `words`; the others are overrides as of a run."""
    overrides, guessed = name_overrides(words, config_dir)
    config = compose_config(overrides, config_dir)
    check_targets(config)
    task = build_node(config["task"], "task")
    seed, on_dev = int(config["seed"]), config["protocol"]["report_on"] == "dev"
    tables = read_tables(task, on_dev) if isinstance(task, TextTask) else None
    data = task.split_tables(tables, seed, on_dev) if tables else task.load(seed, on_dev)
    layout = RequestLayout(task, task.draw_few_shot(data.train, seed), chat=False) if task.generates else None
    view = load_model_view(config, data) if task.modality == "text" else None
    facts = collect_facts(data)
    for part in (
        *render_source(data, tables, guessed),
        *render_splits(facts, data.labels or list(facts.splits["train"].labels)),
        *render_lengths(data, view, config["backbone"]),
        *render_repeats(facts),
        *render_warnings([*facts.warnings, *(view.warnings if view else ())]),
        *(render_requests(data, layout) if layout else render_examples(data, view)),
        *render_next(overrides),
    ):
        console.print(part, crop=False)


def name_overrides(words: Sequence[str], config_dir: Path | None) -> tuple[list[str], str]:
    """The overrides that `words` stand for, and how the columns of a file were found, '' where they were given.

    Raises:
        ConfigurationError: the first word is no task, no file and no override.
    """
    first, *others = words
    if "=" in first and not os.path.exists(expand_path(first)):
        return list(words), ""
    known = [path.stem for folder in (conf_directory(), config_dir) if folder for path in list_choices(folder / "task")]
    if first in known:
        return [f"task={first}", *others], ""
    place = expand_path(first)
    if not path_exists(place):
        near = did_you_mean(first, known)
        shown = shorten_text(escape_controls(first), LONGEST_SHOWN)
        raise ConfigurationError(f"{shown} is no task and no file{near}; the tasks are: {', '.join(sorted(known))}")
    guessed_keys, unused = guess_keys(place, others)
    keys = {"task": "local", "task.path": str(place.absolute()), **guessed_keys}
    overrides = [f"{key}={value}" for key, value in keys.items()]
    given = {word.partition("=")[0].lstrip("+") for word in others}
    kept = [word for word in overrides if word.partition("=")[0] not in given]
    guessed = [word for word in kept if not word.startswith(("task=local", "task.path="))]
    left_out = f"; texts in other columns are left out: {list_names(unused)} (task.pair={{COLUMN}})" if unused else ""
    return [*kept, *others], f"a guess: {' '.join(map(escape_controls, guessed))}{left_out}" if guessed else ""


def guess_keys(place: Path, others: Sequence[str]) -> tuple[dict[str, str], Sequence[str]]:
    """The keys that describe a file or folder as far as `others` do not: the task, the splits, the columns.

    Beside them the columns of texts that they leave out.
    """
    given = {key.lstrip("+"): value for key, _, value in (word.partition("=") for word in others)}
    if place.is_dir() and holds_pictures(place):
        return {"task": "image_folder"}, ()
    file, splits = guess_splits(place) if place.is_dir() else (place, {})
    if file is None:
        return {}, ()
    if "task" in given or {"task.text", "task.label"} <= given.keys():
        return splits, ()
    texts = sorted(list_columns(given.get("task.text", ""), given.get("task.pair", "")))
    found = guess_columns(file, given.get("task.label"), texts)
    unused = () if "task.text" in given else found.unused
    return {**splits, "task.text": f"{{{found.text}}}", "task.label": found.label}, unused


def compose_config(overrides: Sequence[str], config_dir: Path | None) -> dict[str, Any]:
    """The resolved configuration of a run with these overrides."""
    folders = [config_dir.absolute()] if config_dir else []
    refuse_missing_choices(overrides, folders)
    search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"] if folders else []
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        words = [*search, *quote_words(overrides, folders=folders)]
        composed = compose("config", words, return_hydra_config=True)
    config = drop_hydra_node(composed)
    choice = find_backbone_choice(composed.hydra.runtime.choices.backbone, [conf_directory(), *folders])
    config["backbone"] = drop_package(choice, config["backbone"])
    return config


def render_source(data: TaskData, tables: TaskTables | None, guessed: str) -> list[RenderableType]:
    """Where the rows come from, how the files were read, and what the columns hold."""
    task = data.task
    rows = {"task": f"{task.name}: {task.description}", "data": escape_controls(data.source)}
    if tables and isinstance(task, TextTask):
        coding, _ = code_labels(task, tables.splits)
        for role, table in tables.splits.items():
            rows[role] = f"{table.source}: {format_count(len(table.rows), 'row')} ({table.form})"
        templates = [f"text={task.text}", *[f"pair={task.pair}"] * bool(task.pair), *task.choices]
        rows["templates"] = escape_controls(", ".join(templates))
        rows["labels"] = f"column {escape_controls(task.label)}: {coding.form}"
    if guessed:
        rows["columns"] = guessed
    return [terminal.make_pairs(rows)]


def render_splits(facts: DataFacts, labels: Sequence[str]) -> list[RenderableType]:
    """The rows of each split and of each class in it."""
    shown = labels if len(labels) <= MOST_CLASSES else []
    classes = [] if shown or not labels else ["classes", "fewest rows", "most rows"]
    table = terminal.make_columns("split", "rows", "repeated", *map(escape_controls, shown), *classes)
    table.columns[0].justify = "left"
    for name, split in facts.splits.items():
        counts = split.labels.values()
        per_class = [f"{split.labels.get(label, 0):,}" for label in shown]
        per_class += [f"{len(counts):,}", f"{min(counts):,}", f"{max(counts):,}"] if classes else []
        table.add_row(name, f"{split.rows:,}", f"{split.repeated:,}", *per_class)
    return [*terminal.make_heading("Splits of a run"), Padding(table, (0, 0, 0, 2), expand=False)]


def render_lengths(data: TaskData, view: ModelView | None, backbone: Mapping[str, Any]) -> list[RenderableType]:
    """The lengths of the texts of each split, and the share of its rows that lose text; none for pictures."""
    if data.task.modality == "image":
        return []
    table = terminal.make_columns("split", "median", "99 %", "longest", *["rows cut"] * bool(view))
    table.columns[0].justify = "left"
    for name in ("train", "dev", "test"):
        lengths = sorted(view.lengths[name] if view else map(count_words, getattr(data, name)))
        cells = [f"{n:,.0f}" for n in (median(lengths), lengths[int(0.99 * (len(lengths) - 1))], lengths[-1])]
        table.add_row(name, *cells, *([f"{view.count_cut(name):.1%}"] if view else []))
    fix = "" if backbone.get("package") else "; backbone=minilm comes with the extra demo"
    unit = f"words, as backbone.name={escape_controls(str(backbone['name']))} is not on this machine{fix}"
    if view:
        unit = f"tokens of {view.name}, cut at {view.limit} (task.max_length)"
    return [*terminal.make_heading(f"Lengths in {unit}"), Padding(table, (0, 0, 0, 2), expand=False)]


def count_words(example: Example) -> int:
    """Words of the longest sequence of an example."""
    return max(sum(len((text or "").split()) for text in sequence) for sequence in example.sequences)


def render_repeats(facts: DataFacts) -> list[RenderableType]:
    """The inputs that stand in two splits, or with two labels."""
    rows = {pair: f"{n:,}" for pair, n in facts.shared.items()} | {"with two labels": f"{facts.contradictory:,}"}
    return [*terminal.make_heading("Rows whose input stands elsewhere, too"), terminal.make_pairs(rows)]


def render_warnings(warnings: Sequence[str]) -> list[RenderableType]:
    """What a reader of the scores must know."""
    lines = [terminal.indent_text(Text(f"- {escape_controls(warning)}", "yellow")) for warning in warnings]
    return [*terminal.make_heading("Warnings"), *lines] if lines else []


def render_examples(data: TaskData, view: ModelView | None) -> list[RenderableType]:
    """Examples of different classes as the model sees them, the place of the prompt included."""
    different = {row.label: row for row in reversed(data.train)}
    lines: list[RenderableType] = []
    for row in list(different.values())[:EXAMPLES][::-1]:
        lines.append(terminal.indent_text(Text(f"label {escape_controls(data.labels[row.label])}", "dim")))
        for text in view.show(row) if view else show_plainly(row):
            lines.append(terminal.indent_text(Text(shorten_text(escape_controls(text), LONGEST_SHOWN))))
    return [*terminal.make_heading("Examples as the model sees them"), *lines]


def render_requests(data: TaskData, layout: RequestLayout) -> list[RenderableType]:
    """A request as plain text, the place of the prompt included, and its reference answer."""
    row = data.train[0]
    texts = [layout.write_text(row, "[prompt]"), f"reference: {row.targets[0]}"]
    lines = [terminal.indent_text(Text(shorten_text(escape_paragraphs(text), LONGEST_SHOWN))) for text in texts]
    return [*terminal.make_heading("An example as the model sees it (a chat model in turns)"), *lines]


def show_plainly(example: Example) -> list[str]:
    """The sequences of an example without a tokenizer: prompt, text, and its pair."""
    return [f"[prompt] {' | '.join(filter(None, sequence))}" for sequence in example.sequences]


def render_next(overrides: Sequence[str]) -> list[RenderableType]:
    """The command of a run on these data."""
    command = join_command(["catalyst", "run", *overrides])
    return [*terminal.make_heading("Next"), terminal.UnbrokenPairs({"command": command})]
