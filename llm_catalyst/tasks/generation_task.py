"""Generation tasks: a model is given an instruction and an input, and its answer is read out of what it writes.

A task is one YAML in conf/task; its fields are those of `GenerationTask`.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from statistics import fmean
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from llm_catalyst.tasks.answers import (
    UNREADABLE_SHARE,
    AnswerMetric,
    Extraction,
    compile_pattern,
    extract_answer,
    infer_extraction,
    score_answer,
)
from llm_catalyst.tasks.base import Example, Modality, Task, TaskData, hash_content
from llm_catalyst.tasks.duplicates import hash_text
from llm_catalyst.tasks.json_rows import shorten_value
from llm_catalyst.tasks.row_files import RowTable
from llm_catalyst.tasks.splitting import SplitRule, sample_shots, split_rows
from llm_catalyst.tasks.templates import check_template, fill_template, list_columns
from llm_catalyst.tasks.text_tables import TaskTables, list_texts, read_tables
from llm_catalyst.utils.format import format_count, format_share
from llm_catalyst.utils.rng import derive_seed
from llm_catalyst.utils.terminal import escape_controls, list_names
from llm_catalyst.utils.validation import ConfigurationError, NonNegativeInt, PositiveInt, config_dataclass

Position = Literal["before", "question_begin", "question_end", "answer_begin", "system"]


@config_dataclass("task")
class GenerationTask(Task):
    """The `task` node of a generation task: where the rows are, and how an answer is asked for, read and scored.

    `text` and `target` are templates with the columns in braces. A list in a column of `text` becomes lettered options,
    one a line; one in `target` several references, of which the best counts. `values` renames a column's values before
    they enter a template. `question` holds the input at {input}, `answer` is what the response continues; `position`
    says where between them the instruction stands. `few_shot` examples, drawn from train by the run's seed, stand in
    front. `max_new_tokens` and `stop` end a response; `extract` with `pattern` reads its answer, which `metric`
    compares with that of the reference. `subset` names one of several data sets in the task's folder or on the hub.
    `train_rows` and `dev_rows` are drawn by the seed; without a test split of its own, the others are test.
    """

    modality: ClassVar[Modality] = "generation"
    label: ClassVar[str] = ""
    labels: ClassVar[Sequence[str]] = ()
    column_keys: ClassVar[str] = "task.text and task.target"
    takes_lists: ClassVar[bool] = True

    name: str
    text: str
    target: str
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    description: str = ""
    prompts: list[str] = field(default_factory=list)
    position: Position = "before"
    question: str = "Q: {input}"
    answer: str = "A:"
    few_shot: NonNegativeInt = 0
    max_new_tokens: PositiveInt = 64
    stop: list[str] = field(default_factory=list)
    extract: Extraction | Literal["auto"] = "auto"
    pattern: str | None = None
    metric: AnswerMetric = "exact_match"
    subset: str | None = None
    hub: str | None = None
    hub_config: str | None = None
    revision: str | None = None
    path: str | None = None
    train: str = "train"
    dev: str | None = None
    test: str | None = "test"
    dev_share: Annotated[float, Ge(0.01), Le(0.5)] = 0.1
    dev_rows: PositiveInt = 100
    train_rows: PositiveInt | None = None
    split_seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        for key, template in (("text", self.text), ("target", self.target), ("question", self.question)):
            check_template(f"task.{key}", template)
        if list_columns(self.question) != {"input"}:
            raise ConfigurationError(f"task.question={self.question!r} must hold {{input}}, and no other braces")
        for key, template in (("text", self.text), ("target", self.target)):
            if not list_columns(template):
                raise ConfigurationError(f"task.{key}={template!r} names no column; write it in braces: {{column}}")
        if self.extract in ("regex", "marker") and not self.pattern:
            raise ConfigurationError(f"task.extract={self.extract} needs task.pattern")
        if self.extract == "regex":
            compile_pattern(self.pattern or "")
        if self.extract not in ("regex", "marker") and self.pattern is not None:
            raise ConfigurationError(f"task.pattern has no effect with task.extract={self.extract}; set it to regex")

    @property
    def columns(self) -> set[str]:
        """The columns that the templates need."""
        return list_columns(self.text, self.target)

    def read_answer(self, response: str) -> str | None:
        """The answer that a response gives; None where it gives none. `extract` must be known (see `load`)."""
        assert self.extract != "auto"
        return extract_answer(response, self.extract, self.pattern)

    def load(self, seed: int, report_on_dev: bool = False) -> TaskData:
        """The task's rows as train, dev and test (see `Task.load`); its `extract` is no longer `auto`."""
        tables = read_tables(self, report_on_dev)
        given = {role: build_examples(self, table) for role, table in tables.splits.items()}
        task = self
        if self.extract == "auto":
            task = replace(self, extract=infer_extraction([row.targets[0] for row in given["train"]]))
        notes = (*tables.notes, *refuse_unreadable(task, given, tables))
        shots = (self.train_rows, self.dev_rows) if self.train_rows else None
        rule = SplitRule(self.name, seed, self.split_seed, report_on_dev, shots, self.dev_share, self.dev_rows)
        sample = partial(sample_shots, rng=random.Random(derive_seed(seed, "shots")))
        splits = split_rows(given, rule, sample, {0: "row"})
        if lacking := [name for name, rows in splits.items() if not rows]:
            counts = list_names(f"{role} {format_count(len(rows), 'row')}" for role, rows in given.items())
            problem = f"task={self.name}: nothing is left for {list_names(lacking)} ({counts})"
            raise ConfigurationError(f"{problem}; make task.train_rows and task.dev_rows smaller, or add rows")
        train, dev, test = (tuple(splits[name]) for name in ("train", "dev", "test"))
        return TaskData(task, (), train, dev, test, tables.source, notes, hash_content(given))

    def draw_few_shot(self, train: Sequence[Example], seed: int) -> tuple[Example, ...]:
        """The examples of the few-shot block, drawn from train. Raises ConfigurationError where there are too few."""
        if self.few_shot > len(train):
            raise ConfigurationError(f"task.few_shot={self.few_shot}, and train has {format_count(len(train), 'row')}")
        return tuple(random.Random(derive_seed(seed, "few_shot")).sample(list(train), self.few_shot))


def build_examples(task: GenerationTask, table: RowTable) -> list[Example]:
    """The rows of a split in the task's templates."""
    examples = []
    for number, row in enumerate(table.rows):
        renamed = {key: rename_values(task.values.get(key, {}), cell) for key, cell in row.items()}
        shown = {key: letter_options(cell) if isinstance(cell, list) else cell for key, cell in renamed.items()}
        text = fill_template(task.text, shown)
        targets = tuple(dict.fromkeys(list_targets(task.target, renamed)))
        place = table.numbers[number] if len(table.parts) < 2 else number + 1
        examples.append(Example(((text, None),), 0, place, hash_text(text), targets))
    return examples


def rename_values(names: Mapping[str, str], cell: Any) -> str | list[str]:
    """A cell as text, or the texts of one that holds several, under the names that `task.values` gives them."""
    if isinstance(cell, list | dict):
        return [names.get(text, text) for text in list_texts(cell)]
    return names.get(str(cell), str(cell))


def letter_options(texts: Sequence[str]) -> str:
    """(A) first, (B) second, … one a line."""
    return "\n".join(f"({chr(ord('A') + i)}) {text}" for i, text in enumerate(texts))


def list_targets(template: str, cells: Mapping[str, str | list[str]]) -> list[str]:
    """The reference answers of a row: one for each text of the cells that hold several."""
    several = [key for key in sorted(list_columns(template)) if isinstance(cells[key], list)]
    if not several:
        return [fill_template(template, {key: str(cell) for key, cell in cells.items()})]
    first = several[0]
    return [target for text in cells[first] for target in list_targets(template, {**cells, first: text})]


def refuse_unreadable(task: GenerationTask, given: Mapping[str, Sequence[Example]], tables: TaskTables) -> list[str]:
    """A note on the rows from whose reference no answer can be read, which count as they are written.

    Raises:
        ConfigurationError: they are more than a twentieth of the rows of a split, or a row has no reference.
    """
    notes = []
    for role, rows in given.items():
        if empty := [row.row for row in rows if not any(target.strip() for target in row.targets)]:
            places = f"{tables.splits[role].source}: {len(empty):,} of {format_count(len(rows), 'row')}"
            raise ConfigurationError(f"task={task.name}: {places} have no reference answer ({task.target}); fill it in")
        odd = [row for row in rows if all(task.read_answer(target) is None for target in row.targets)]
        if not odd:
            continue
        said = (
            f"task.extract={task.extract} reads no answer from the references of "
            f"{format_share(len(odd), len(rows))} of {role}, such as {shorten_value(odd[0].targets[0])}"
        )
        if len(odd) > UNREADABLE_SHARE * len(rows):
            raise ConfigurationError(f"task={task.name}: {said}; choose another task.extract, or mend the rows")
        notes.append(said)
    return [escape_controls(note) for note in notes]


def measure_constant(task: GenerationTask, rows: Sequence[Example]) -> float:
    """The metric of always giving the most frequent answer of these rows: the baseline of a task of few answers."""
    answers = [read_reference(task, row.targets[0]) for row in rows]
    (constant, _), *_ = Counter(answers).most_common(1)
    references = [[read_reference(task, target) for target in row.targets] for row in rows]
    return fmean(score_answer(constant, own, task.metric) for own in references)


def read_reference(task: GenerationTask, target: str) -> str:
    """The answer that a reference gives; the whole of one from which the rule reads none."""
    found = task.read_answer(target)
    return target.strip() if found is None else found
