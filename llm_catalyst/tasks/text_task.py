"""Text tasks: read rows, put them into templates, split them into train, dev and test.

A task is one YAML in conf/task; its fields are those of `TextTask` (docs/guide.md shows how to add one).
"""

import os
import random
import string
from collections.abc import Mapping
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from llm_catalyst.tasks.base import Example, Task, TaskData
from llm_catalyst.tasks.hub import name_source, read_hub_rows
from llm_catalyst.tasks.row_files import SUFFIXES, RowTable, list_names, read_rows, require_columns, shorten_value
from llm_catalyst.tasks.splitting import sample_shots, split_rows
from llm_catalyst.utils.rng import derive_seed
from llm_catalyst.utils.validation import ConfigurationError, PositiveInt, config_dataclass

BUILT_IN = Path(__file__).parent
NOT_PLAIN = list | dict | bytes  # a template would take such a value as Python writes it
# Of label names that are read off the rows: they become the words of the heads and of the mentor.
MOST_LABELS, LONGEST_LABEL = 1000, 200


def check_template(key: str, template: str) -> None:
    """Raise ConfigurationError unless `template` is text with named columns in braces, and nothing else in them."""
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        raise ConfigurationError(f"{key}={template!r} is no template: {error}") from error
    for _, name, form, conversion in fields:
        if not name:
            raise ConfigurationError(f"{key}={template!r} holds {{}}; name the column that goes there")
        if form or conversion or name.isdigit() or set(name) & set(".[]"):
            problem = f"{key}={template!r} holds more in braces than a column's name (. [ ] : ! or a bare number)"
            raise ConfigurationError(f"{problem}; write {{column}}, and rename a column whose name has such characters")


def names_in(*templates: str) -> set[str]:
    """The columns that templates name."""
    return {name for template in templates for _, name, _, _ in string.Formatter().parse(template) if name}


@config_dataclass("task")
class TextTask(Task):
    """The `task` node: where the rows are, how they become text, and what the labels are called.

    `text` and `pair` are templates with the columns in braces. `choices` makes the task multiple choice:
    one template per choice, each taking the place of `pair`. `values` renames a column's values before
    they enter a template. `words` (verbalizer) and `descriptions` (similarity) stand for the labels, in
    the order of the label ids; for a multiple choice task they stand for a wrong and a right choice.
    """

    name: str
    text: str
    pair: str | None = None
    choices: list[str] = field(default_factory=list)
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    label: str = "label"
    labels: list[str] = field(default_factory=list)
    description: str = ""
    words: list[str] = field(default_factory=list)
    cloze: str = "It was {mask}."
    descriptions: list[str] = field(default_factory=list)
    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    hub: str | None = None
    hub_config: str | None = None
    revision: str | None = None
    path: str | None = None
    train: str = "train"
    dev: str | None = None
    test: str | None = "validation"
    dev_share: Annotated[float, Ge(0.01), Le(0.5)] = 0.1
    dev_rows: PositiveInt = 1000
    shots: PositiveInt | None = None

    def __post_init__(self) -> None:
        single = (("cloze", self.cloze), ("text", self.text), ("pair", self.pair or ""))
        for key, template in (*single, *(("choices", choice) for choice in self.choices)):
            check_template(f"task.{key}", template)
        if names_in(self.cloze) != {"mask"}:
            raise ConfigurationError(f"task.cloze={self.cloze!r} must hold {{mask}}, and no other braces")
        if self.choices and self.pair:
            raise ConfigurationError("task.pair and task.choices exclude each other: each choice takes pair's place")
        expected = 2 if self.choices else len(self.labels)
        for key, given in (("words", self.words), ("descriptions", self.descriptions)):
            if given and expected and len(given) != expected:
                raise ConfigurationError(f"task.{key} has {len(given)} entries, but there must be {expected}")

    def load(self, seed: int, report_on_dev: bool = False) -> TaskData:
        """The task's rows as train, dev and test.

        By default dev, which chooses, is a part of the training split (or the task's own dev split), and test,
        which reports, is untouched by any choice. With `report_on_dev` (protocol `official`) both are the
        task's test split, as in the method's published code. With `shots` train and dev hold that many rows
        of each label, drawn by `seed`.
        """
        folder = local_folder(self)
        source = str(folder) if folder else name_source(self)
        labels = list(self.labels)
        named = {"train": self.train, "test": self.test, "dev": None if report_on_dev else self.dev}
        given = {role: read_examples(self, folder, split, labels) for role, split in named.items() if split}
        shots = (self.shots, self.shots) if self.shots else None
        sample = partial(sample_shots, rng=random.Random(derive_seed(seed, "shots")))
        splits = split_rows(given, shots, sample, self.dev_share, self.dev_rows, seed, report_on_dev)
        for name, rows in splits.items():
            if not rows:
                why = f"; task.shots={self.shots} leaves it no row" if self.shots else ""
                raise ConfigurationError(f"task={self.name}: the {name} split is empty{why}; look into {source}")
        return TaskData(self, tuple(labels), **{name: tuple(rows) for name, rows in splits.items()}, source=source)


def local_folder(task: TextTask) -> Path | None:
    """The folder of the task's files: `task.path`, `$CATALYST_DATA/<task>`, or the package; None means the hub."""
    if task.path:
        path = Path(task.path).expanduser()
        if not path.is_dir():
            fix = f"it must hold {task.train}.jsonl (or .csv, .parquet) and the other splits"
            raise ConfigurationError(f"task.path={task.path} is not a folder; {fix}")
        return path
    for root in (os.environ.get("CATALYST_DATA"), BUILT_IN):
        if root and (Path(root) / task.name).is_dir():
            return Path(root) / task.name
    if not task.hub:
        fix = f"set task.path=FOLDER, or put files into $CATALYST_DATA/{task.name}/"
        raise ConfigurationError(f"task={task.name} has no data yet: {fix}")
    return None


def read_split(task: TextTask, folder: Path | None, split: str) -> RowTable:
    """The rows of one split, from its file or the hub, in the columns that the templates and the label need."""
    needed = sorted({task.label} | names_in(task.text, task.pair or "", *task.choices))
    found = read_rows(split_file(task, folder, split), needed) if folder else read_hub_rows(task, split, needed)
    found = replace(found, source=f"task={task.name}, {found.source}")
    if not found.rows:
        raise ConfigurationError(f"{found.source}: there are no rows")
    fix = "name the columns in task.text, task.pair, task.choices and task.label"
    require_columns(found.source, needed, found.columns, fix)
    return found


def split_file(task: TextTask, folder: Path, split: str) -> Path:
    """The file of a split: `<split>.jsonl`, `.json`, `.csv` or `.parquet`."""
    for file in (folder / f"{split}{suffix}" for suffix in SUFFIXES):
        if file.is_file():
            return file
        if os.path.lexists(file):
            problem = f"task={task.name}: {file} is a folder, a pipe, a device or a broken link; put a file there"
            raise ConfigurationError(problem)
    there = list_names(sorted(p.name for p in folder.iterdir() if p.suffix in SUFFIXES)) or "no data file"
    problem = f"task={task.name}: {folder} holds no {split}.jsonl, .csv or .parquet (there: {there})"
    raise ConfigurationError(f"{problem}; name the splits by task.train, task.dev and task.test")


def read_examples(task: TextTask, folder: Path | None, name: str, labels: list[str]) -> list[Example]:
    """The rows of a split in the task's templates. Fills `labels` from the rows where the task names none."""
    split = read_split(task, folder, name)
    pairs: list[str | None] = [*task.choices] or [task.pair]
    for number, row in enumerate(split.rows):
        if problem := next(filter(None, (problem_of(name, value, task) for name, value in row.items())), ""):
            raise ConfigurationError(f"{split.place(number)}: {problem}")
    if not labels and not task.choices:
        labels += labels_of(task, split)
    known = {name: i for i, name in enumerate(labels)}
    count = len(task.labels) or (len(pairs) if task.choices else 0)
    examples = []
    for number, row in enumerate(split.rows):
        label = label_id(row[task.label], known, count)
        if label is None:
            numbers = f" nor an integer in 0..{count - 1}" if count else "; all others were read off the training rows"
            named = f"{shorten_value(row[task.label])} is neither one of the labels ({list_names(labels) or 'none'})"
            fix = "correct the row, or name the labels in task.labels"
            raise ConfigurationError(f"{split.place(number)}: label {named}{numbers}; {fix}")
        texts = {key: task.values.get(key, {}).get(str(value), str(value)) for key, value in row.items()}
        text = task.text.format_map(texts).strip()
        sequences = tuple((text, pair and pair.format_map(texts).strip()) for pair in pairs)
        examples.append(Example(sequences, label))
    if len({e.label for e in examples}) < 2:
        raise ConfigurationError(f"{split.source}: every row has the same label; add rows of another label")
    if not labels:
        labels += [f"choice {i + 1}" for i in range(len(pairs))]
    return examples


def problem_of(name: str, value: Any, task: TextTask) -> str:
    """The reason why a cell cannot be used, and the fix; '' if it can be a text or a label."""
    if isinstance(value, NOT_PLAIN):
        return f"{name} is a {type(value).__name__}, {shorten_value(value)}; it must be a text or a number"
    if value is None or value != value or (name == task.label and str(value).strip().lower() in ("", "nan")):
        return f"there is no {name}; fill it in or remove the row"
    if isinstance(value, str) and not value.isascii() and value != value.encode("utf-8", "replace").decode():
        return f"{name}, {shorten_value(value)}, holds half a surrogate pair, which is no text; write it anew"
    return ""


def labels_of(task: TextTask, split: RowTable) -> list[str]:
    """The names of the labels, as the rows have them; numbers in their order."""
    named = sorted({str(row[task.label]) for row in split.rows}, key=lambda name: (len(name), name))
    longest = named[-1]
    if len(named) > MOST_LABELS or len(longest) > LONGEST_LABEL:
        what = f"{len(named)} different labels" if len(named) > MOST_LABELS else f"a label of {len(longest)} characters"
        problem = f"column {task.label!r} holds {what}, such as {shorten_value(longest)}"
        fix = "name the right column in task.label, or the labels in task.labels"
        raise ConfigurationError(f"{split.source}: {problem}; {fix}")
    return named


def label_id(value: Any, known: Mapping[str, int], count: int) -> int | None:
    """The label's id, from its name, or from an integer or a truth value in 0..count-1; None where it is neither."""
    name = str(value)
    if name in known or not count:
        return known.get(name)
    try:
        number = float({"true": 1, "false": 0}.get(name.lower(), value))
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() and 0 <= number < count else None
