"""Text tasks: read rows, put them into templates, split them into train, dev and test.

A task is one YAML in conf/task; its fields are those of `TextTask` (docs/guide.md shows how to add one).
"""

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from itertools import chain
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from llm_catalyst.tasks.base import Example, Task, TaskData, hash_content
from llm_catalyst.tasks.duplicates import hash_input, hash_text
from llm_catalyst.tasks.json_rows import shorten_value
from llm_catalyst.tasks.labels import (
    INVISIBLE,
    MISSING,
    LabelCoding,
    LabelName,
    clean_labels,
    code_declared,
    code_found,
    code_given,
    find_forms,
    name_numbers,
)
from llm_catalyst.tasks.row_files import RowTable
from llm_catalyst.tasks.splitting import SplitRule, sample_shots, split_rows
from llm_catalyst.tasks.templates import check_template, fill_template, list_columns
from llm_catalyst.tasks.text_tables import TaskTables, name_task, read_tables
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.rng import derive_seed
from llm_catalyst.utils.terminal import escape_controls, list_names
from llm_catalyst.utils.validation import (
    ConfigurationError,
    NonNegativeInt,
    PositiveInt,
    config_dataclass,
    did_you_mean,
)

FEWEST_TEXTS = 4  # different ones from which train, dev and test can be told apart


@config_dataclass("task")
class TextTask(Task):
    """The `task` node: where the rows are, how they become text, and what the labels are called.

    `text` and `pair` are templates with the columns in braces. `choices` makes the task multiple choice:
    one template per choice, each taking the place of `pair`. `values` renames a column's values before
    they enter a template. `words` (verbalizer) and `descriptions` (similarity) stand for the labels, in
    the order of the label ids; for a multiple choice task they stand for a wrong and a right choice. `prompts` are
    those that a person who knows the task would write, which `mentor=listed` proposes. `max_length` is the number of
    tokens of a text at most.
    """

    subset: ClassVar[str | None] = None
    column_keys: ClassVar[str] = "task.text, task.pair, task.choices and task.label"
    takes_lists: ClassVar[bool] = False

    name: str
    text: str
    pair: str | None = None
    choices: list[str] = field(default_factory=list)
    max_length: Annotated[int, Ge(4)] | None = None
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    label: str = "label"
    labels: list[LabelName] = field(default_factory=list)
    description: str = ""
    prompts: list[str] = field(default_factory=list)
    words: list[LabelName] = field(default_factory=list)
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
    split_seed: NonNegativeInt | None = 0
    shots: PositiveInt | None = None

    def __post_init__(self) -> None:
        single = (("cloze", self.cloze), ("text", self.text), ("pair", self.pair or ""))
        for key, template in (*single, *(("choices", choice) for choice in self.choices)):
            check_template(f"task.{key}", template)
        if list_columns(self.cloze) != {"mask"} or self.cloze.count("{mask}") > 1:
            raise ConfigurationError(f"task.cloze={self.cloze!r} must hold {{mask}} once, and no other braces")
        if not list_columns(self.text, self.pair or "", *self.choices):
            fix = "write the column of the texts in braces: task.text={column}"
            raise ConfigurationError(f"task.text={self.text!r} names no column; {fix}")
        if twice := sorted({name for name in self.labels if self.labels.count(name) > 1}):
            raise ConfigurationError(f"task.labels names {list_names(twice)} more than once; name each class once")
        if self.choices and self.pair:
            raise ConfigurationError("task.pair and task.choices exclude each other: each choice takes pair's place")
        expected = 2 if self.choices else len(self.labels)
        for key, given in (("words", self.words), ("descriptions", self.descriptions)):
            if given and expected and len(given) != expected:
                raise ConfigurationError(f"task.{key} has {len(given)} entries, but there must be {expected}")

    @property
    def columns(self) -> set[str]:
        """The columns that the label and the templates need."""
        return {self.label.strip()} | list_columns(self.text, self.pair or "", *self.choices)

    def load(self, seed: int, report_on_dev: bool = False) -> TaskData:
        """The task's rows as train, dev and test.

        By default dev, which chooses, is a part of the training split (or the task's own dev split), and test,
        which reports, is untouched by any choice. With `report_on_dev` (protocol `official`) both are the
        task's test split, as in the method's published code. With `shots` train and dev hold that many rows
        of each label, drawn by `seed`.
        """
        return self.split_tables(read_tables(self, report_on_dev), seed, report_on_dev)

    def split_tables(self, tables: TaskTables, seed: int, report_on_dev: bool) -> TaskData:
        """The rows that `read_tables` read as train, dev and test, as `load` gives them."""
        coding, labels = code_labels(self, tables.splits)
        if len(set(labels["train"])) < 2:
            problem = f"every row has the same label, {shorten_value(labels['train'][0])}; add rows of another label"
            raise ConfigurationError(f"task={self.name}: {tables.splits['train'].source}: {problem}")
        given = {role: build_examples(self, table, coding, labels[role]) for role, table in tables.splits.items()}
        shots = (self.shots, self.shots) if self.shots else None
        rule = SplitRule(self.name, seed, self.split_seed, report_on_dev, shots, self.dev_share, self.dev_rows)
        sample = partial(sample_shots, rng=random.Random(derive_seed(seed, "shots")))
        splits = split_rows(given, rule, sample, dict(enumerate(coding.names)))
        for name, rows in splits.items():
            if not rows:
                why = self.explain_empty(name, given["train"], coding.names)
                problem = f"task={self.name}: the {name} split is empty: {why}"
                raise ConfigurationError(f"{problem}; look into {escape_controls(tables.source)}")
        notes = (*tables.notes, *coding.notes, *(note for role in given for note in count_empty(role, given[role])))
        notes += (*self.list_unused_keys(given.keys()), *self.check_names(coding.names))
        train, dev, test = (tuple(splits[name]) for name in ("train", "dev", "test"))
        return TaskData(self, coding.names, train, dev, test, tables.source, notes, hash_content(given))

    def check_names(self, labels: Sequence[str]) -> list[str]:
        """A note on what words and descriptions stand for where the labels were read off the rows.

        Raises:
            ConfigurationError: there are not as many of them as labels, or they are the labels in another order.
        """
        notes = []
        for key, given in (("words", self.words), ("descriptions", self.descriptions)):
            if not given or self.choices:
                continue
            if len(given) != len(labels):
                problem = (
                    f"task.{key} has {len(given)} entries, but there are {len(labels)} labels ({list_names(labels)})"
                )
                raise ConfigurationError(f"task={self.name}: {problem}; write one for each, in their order")
            if list(given) != list(labels) and sorted(given) == sorted(labels):
                problem = f"task.{key} has the labels in another order than they have ({list_names(labels)})"
                raise ConfigurationError(f"task={self.name}: {problem}; write them in this order, or name task.labels")
            if not self.labels:
                pairs = ", ".join(f"{label!r} by {word!r}" for label, word in zip(labels, given, strict=True))
                notes.append(f"the labels were read off the rows, and task.{key} takes their order: {pairs}")
        return [escape_controls(note) for note in notes]

    def explain_empty(self, name: str, train: Sequence[Example], names: Sequence[str]) -> str:
        """The reason why no row could be held out of `train` for a split."""
        different, where = len({hash_input(row) for row in train}), f"(task.text={self.text!r})"
        if different == 1:
            return f"every row of {self.train} has the same text {where}"
        if different < min(FEWEST_TEXTS, len(train)):
            return f"the rows of {self.train} have {different} different texts {where}, and none stands in two splits"
        if FEWEST_TEXTS <= len(train) == len({row.label for row in train}):
            return f"every row of {self.train} has a label of its own (task.label={self.label}); name the right column"
        if self.shots:
            return f"task.shots={self.shots} leaves it no row"
        counts = Counter(names[row.label] for row in train)
        rows = f"{format_count(len(train), 'row')} ({list_names(f'{label} {n}' for label, n in counts.items())})"
        return f"it is held out of the {rows} of train, where each label keeps one; add rows, or set task.{name}=SPLIT"

    def list_unused_keys(self, given: Collection[str]) -> tuple[str, ...]:
        """A note for each key that was changed, and has no effect as nothing is held out by it; `given` are splits."""
        if self.shots:
            why = f"task.shots={self.shots} draws train and dev"
        elif {"dev", "test"} <= {*given}:
            why = f"dev and test are splits of their own (task.dev={self.dev}, task.test={self.test})"
        else:
            return ()
        unchanged = self.dev_rows == type(self).dev_rows
        return () if unchanged else (f"task.dev_rows={self.dev_rows} has no effect: {why}",)


def code_labels(task: TextTask, splits: Mapping[str, RowTable]) -> tuple[LabelCoding, dict[str, list[str]]]:
    """The coding of the label column, and its values in each split, as the coding takes them."""
    column, train = task.label.strip(), splits["train"]
    raw = [row[column] for table in splits.values() for row in table.rows]
    values = iter(clean_labels(raw))
    labels = {role: [next(values) for _ in table.rows] for role, table in splits.items()}
    names = task.labels or [f"choice {i + 1}" for i in range(len(task.choices))]
    declared = {role: table.classes[column] for role, table in splits.items() if column in table.classes}
    if len(set(declared.values())) == 1:
        (classes,) = set(declared.values())
        named = {role: name_numbers(labels[role], classes) for role in splits.keys() - declared.keys()}
        declared |= {role: classes for role, found in named.items() if found}
        labels |= {role: found for role, found in named.items() if found}
    with name_task(f"{task.name}: {train.source}"):
        if "train" in declared:
            coding = code_declared(names, declared["train"])
        elif names:
            coding = code_given(names, set().union(*labels.values()), set(labels["train"]), bool(task.choices))
        else:
            coding = code_found(labels["train"], column)
    return replace(coding, notes=(*coding.notes, *find_forms(raw))), labels


def build_examples(task: TextTask, table: RowTable, coding: LabelCoding, labels: Sequence[str]) -> list[Example]:
    """The rows of a split in the task's templates; `labels` are the values of its label column."""
    pairs: list[str | None] = [*task.choices] or [task.pair]
    columns = sorted(list_columns(task.text))  # in an order that is the same in every process
    examples = []
    for number, (row, value) in enumerate(zip(table.rows, labels, strict=True)):
        if (label := coding.ids.get(value)) is None:
            raise unknown_label(task, table, number, value, coding.names)
        texts = {key: task.values.get(key, {}).get(str(cell), str(cell)) for key, cell in row.items()}
        text = fill_template(task.text, texts)
        sequences = tuple((text, pair and fill_template(pair, texts)) for pair in pairs)
        twin = hash_text(max((texts[column] for column in columns), key=len, default=text))
        place = table.numbers[number] if len(table.parts) < 2 else number + 1
        examples.append(Example(sequences, label, place, twin))
    return examples


def unknown_label(task: TextTask, table: RowTable, number: int, value: str, names: Sequence[str]) -> ConfigurationError:
    """The error for a row whose label is none of the classes."""
    cell = table.rows[number][task.label.strip()]
    given = bool(task.labels or task.choices)
    numbers = f" nor an integer in 0..{len(names) - 1}" if given else "; all others were read off the training rows"
    near = escape_controls(did_you_mean(value[:100], names))
    problem = f"label {shorten_value(cell)} is neither one of the labels ({list_names(names)}){numbers}{near}"
    fix = "correct the row, or name the labels in task.labels"
    if value == "-1":
        fix = "where -1 says that a label is not told, name another split in task.test or task.dev, or remove the row"
    return ConfigurationError(f"task={task.name}: {table.place(number)}: {problem}; {fix}")


def count_empty(role: str, examples: Sequence[Example]) -> list[str]:
    """A note where rows of a split have no text, and where it says that it is missing."""
    rows = f"of {format_count(len(examples), 'row')} of {role}"
    texts = [
        "".join(filter(None, chain.from_iterable(example.sequences))).strip(INVISIBLE).lower() for example in examples
    ]
    empty, missing = texts.count(""), Counter(text for text in texts if text in (*MISSING, "none"))
    notes = [f"{empty:,} {rows} have an empty text"] if empty else []
    if missing:
        notes.append(f"{missing.total():,} {rows} have the text {list_names(map(repr, missing))}; is it missing there?")
    return notes
