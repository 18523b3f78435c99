"""Text tasks: load rows by `datasets`, put them into templates, split them into train, dev and test.

A task is one YAML in conf/task; its fields are those of `TextTask` (docs/new-task.md shows how to add one).
"""

import hashlib
import json
import logging
import os
import random
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_catalyst.checks import ConfigurationError, at_least, did_you_mean, one_of, within
from llm_catalyst.randomness import derive

READERS = {".jsonl": "from_json", ".json": "from_json", ".csv": "from_csv", ".parquet": "from_parquet"}
BUILT_IN = Path(__file__).parent


def check_template(key: str, template: str) -> None:
    """Raise ConfigurationError unless `template` is text with named columns in braces."""
    try:
        empty = "" in {name for _, name, _, _ in string.Formatter().parse(template)}
    except ValueError as error:
        raise ConfigurationError(f"{key}={template!r} is no template: {error}") from error
    if empty:
        raise ConfigurationError(f"{key}={template!r} holds {{}}; name the column that goes there")


@dataclass(frozen=True)
class TextTask:
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
    metric: str = "accuracy"
    hub: str | None = None
    hub_config: str | None = None
    revision: str | None = None
    path: str | None = None
    train: str = "train"
    dev: str | None = None
    test: str | None = "validation"
    dev_share: float = 0.1
    dev_rows: int = 1000
    shots: int | None = None

    def __post_init__(self) -> None:
        at_least("task.shots", self.shots, 1)
        at_least("task.dev_rows", self.dev_rows, 1)
        within("task.dev_share", self.dev_share, 0.01, 0.5)
        one_of("task.metric", self.metric, ("accuracy", "macro_f1"))
        if "{mask}" not in self.cloze:
            raise ConfigurationError(f"task.cloze={self.cloze!r} must hold {{mask}} where the label word stands")
        for key, templates in (("text", [self.text]), ("pair", [self.pair or ""]), ("choices", self.choices)):
            for template in templates:
                check_template(f"task.{key}", template)
        if self.choices and self.pair:
            raise ConfigurationError("task.pair and task.choices exclude each other: each choice takes pair's place")
        expected = 2 if self.choices else len(self.labels)
        for key in ("words", "descriptions"):
            given = getattr(self, key)
            if given and expected and len(given) != expected:
                raise ConfigurationError(f"task.{key} has {len(given)} entries, but there must be {expected}")


@dataclass(frozen=True)
class Example:
    """One row: a (text, pair) per choice (a single one where the task has no choices), and its label id."""

    sequences: tuple[tuple[str, str | None], ...]
    label: int


@dataclass(frozen=True)
class TaskData:
    """A loaded task. `test` is what the run reports on: under protocol `official` the same rows as `dev`."""

    task: TextTask
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    source: str

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.task.words or self.labels)

    @property
    def descriptions(self) -> tuple[str, ...]:
        return tuple(self.task.descriptions or self.labels)

    @property
    def outputs(self) -> int:
        """How many scores a head gives a sequence: one per label, or two (wrong, right) for a choice."""
        return 2 if self.task.choices else len(self.labels)

    def fingerprints(self) -> dict[str, Any]:
        """Rows, label counts and a hash of each split's texts and labels, and where they came from."""
        splits = {"train": self.train, "dev": self.dev, "test": self.test}
        return {"source": self.source} | {name: fingerprint(rows) for name, rows in splits.items()}


def majority(examples: Sequence[Example]) -> float:
    """The accuracy of always answering the most frequent label."""
    return max(Counter(e.label for e in examples).values()) / len(examples)


def fingerprint(examples: Sequence[Example]) -> dict[str, Any]:
    """Rows, label counts and sha256 of a split: equal hashes mean equal texts, labels and order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.sequences, example.label]).encode())
    counts = Counter(e.label for e in examples)
    return {"rows": len(examples), "labels": {str(k): counts[k] for k in sorted(counts)}, "sha256": digest.hexdigest()}


def load(task: TextTask, seed: int, report_on_dev: bool = False) -> TaskData:
    """The task's rows as train, dev and test.

    By default dev, which chooses, is a part of the training split (or the task's own dev split), and test,
    which reports, is untouched by any choice. With `report_on_dev` (protocol `official`) both are the
    task's test split, as in the method's published code. With `task.shots` train and dev hold that many
    rows of each label, drawn by `seed`.
    """
    folder = local_folder(task)
    source = str(folder) if folder else f"hub:{task.hub}/{task.hub_config or ''}@{task.revision or 'main'}"
    labels = list(task.labels)
    train = examples_of(task, read_rows(task, folder, task.train), labels, task.train)
    test_rows = read_rows(task, folder, task.test) if task.test else None
    if test_rows is None:
        train, test = carve(train, task.dev_share, task.dev_rows, derive(seed, "test"))
    else:
        test = examples_of(task, test_rows, labels, task.test or "")
    rng = random.Random(derive(seed, "shots"))
    if report_on_dev:
        train, dev = sample(train, task.shots, rng)[0], test
    elif task.dev:
        dev = examples_of(task, read_rows(task, folder, task.dev), labels, task.dev)
        train, dev = sample(train, task.shots, rng)[0], sample(dev, task.shots, rng)[0]
    elif task.shots:
        train, rest = sample(train, task.shots, rng)
        dev = sample(rest, task.shots, rng)[0]
    else:
        train, dev = carve(train, task.dev_share, task.dev_rows, derive(seed, "dev"))
    for name, rows in (("train", train), ("dev", dev), ("test", test)):
        if not rows:
            why = f"; task.shots={task.shots} leaves it no row" if task.shots else ""
            raise ConfigurationError(f"task={task.name}: the {name} split is empty{why}; look into {source}")
    return TaskData(task, tuple(labels), tuple(train), tuple(dev), tuple(test), source)


def local_folder(task: TextTask) -> Path | None:
    """Where the task's files lie: `task.path`, `$CATALYST_DATA/<task>`, or the package; None means the hub."""
    if task.path:
        path = Path(task.path).expanduser()
        if not path.is_dir():
            raise ConfigurationError(
                f"task.path={task.path} is not a folder; it must hold {task.train}.jsonl (or .csv, .parquet) "
                "and the other splits"
            )
        return path
    for root in (os.environ.get("CATALYST_DATA"), BUILT_IN):
        if root and (Path(root) / task.name).is_dir():
            return Path(root) / task.name
    if not task.hub:
        raise ConfigurationError(
            f"task={task.name} has no data yet: set task.path=FOLDER, or put files into $CATALYST_DATA/{task.name}/"
        )
    return None


def read_rows(task: TextTask, folder: Path | None, split: str) -> list[dict[str, Any]]:
    """The rows of one split, read by Hugging Face `datasets`."""
    import datasets

    datasets.disable_progress_bars()
    # Its retries would otherwise be told line by line; a failure is told once, below.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if folder is None:
        try:
            data = datasets.load_dataset(task.hub, task.hub_config, split=split, revision=task.revision)
        except Exception as error:
            raise ConfigurationError(
                f"task={task.name}: {task.hub} could not be loaded from the Hugging Face hub "
                f"({type(error).__name__}: {error}). "
                f"Offline? Put the files into $CATALYST_DATA/{task.name}/ or set task.path=FOLDER"
            ) from error
        return list(data)
    file = split_file(task, folder, split)
    if not file.stat().st_size:
        raise ConfigurationError(f"task={task.name}: {file} is empty")
    try:
        # Not load_dataset, which tells the hub of every load, of local files too, and waits where it is away.
        return list(getattr(datasets.Dataset, READERS[file.suffix])(str(file)))
    except Exception as error:
        if "corresponds to no data" in str(error):
            return []
        raise ConfigurationError(f"{file} could not be read: {error.__cause__ or error}") from error


def split_file(task: TextTask, folder: Path, split: str) -> Path:
    """The file of a split: `<split>.jsonl`, `.json`, `.csv` or `.parquet`."""
    for suffix in READERS:
        if (folder / f"{split}{suffix}").is_file():
            return folder / f"{split}{suffix}"
    there = sorted(p.name for p in folder.iterdir() if p.suffix in READERS) or ["no data file"]
    raise ConfigurationError(
        f"task={task.name}: {folder} holds no {split}.jsonl, .csv or .parquet (there: {', '.join(there)}); "
        f"name the splits by task.train, task.dev and task.test"
    )


def examples_of(task: TextTask, rows: list[dict[str, Any]], labels: list[str], split: str) -> list[Example]:
    """The rows put into the task's templates. Fills `labels` from the rows where the task names none."""
    where = f"task={task.name}, split {split}"
    if not rows:
        raise ConfigurationError(f"{where}: there are no rows")
    needed = check_columns(task, rows[0], where)
    if not labels and not task.choices:
        named = {str(row[task.label]) for row in rows if row[task.label] is not None}
        labels += sorted(named, key=lambda name: (len(name), name))
    known = {name: i for i, name in enumerate(labels)}
    pairs: list[str | None] = [*task.choices] or [task.pair]
    examples = []
    for number, row in enumerate(rows, start=1):
        texts = {key: task.values.get(key, {}).get(str(value), str(value)) for key, value in row.items()}
        for name in needed:
            if row[name] is None:
                raise ConfigurationError(f"{where}, row {number}: there is no {name}; fill it in or remove the row")
        count = len(task.labels) or (len(pairs) if task.choices else 0)
        label = label_id(row[task.label], known, count, f"{where}, row {number}")
        text = task.text.format_map(texts).strip()
        sequences = tuple((text, pair and pair.format_map(texts).strip()) for pair in pairs)
        examples.append(Example(sequences, label))
    if len({e.label for e in examples}) < 2:
        raise ConfigurationError(f"{where}: every row has the same label; there is nothing to learn")
    if not labels:
        labels += [f"choice {i + 1}" for i in range(len(pairs))]
    return examples


def check_columns(task: TextTask, row: dict[str, Any], where: str) -> list[str]:
    """The columns that the templates and the label need. Raises ConfigurationError where the rows lack one."""
    templates = [task.text, *([task.pair] if task.pair else []), *task.choices]
    needed = [task.label] + [name for t in templates for _, name, _, _ in string.Formatter().parse(t) if name]
    for name in needed:
        if name not in row:
            raise ConfigurationError(
                f"{where}: there is no column {name!r}; there are: {', '.join(row)}{did_you_mean(name, list(row))}"
            )
    return needed


def label_id(value: Any, known: dict[str, int], count: int, where: str) -> int:
    """The label's id, from its name or from an integer in 0..count-1."""
    if str(value) in known:
        return known[str(value)]
    try:
        number = int(value)
        if number == float(value) and 0 <= number < count:
            return number
    except (TypeError, ValueError):
        pass
    names = ", ".join(known) or "none"
    numbers = f" nor an integer in 0..{count - 1}" if count else "; all others were read off the training rows"
    raise ConfigurationError(f"{where}: label {value!r} is neither one of the labels ({names}){numbers}")


def carve(rows: Sequence[Example], share: float, limit: int, seed: int) -> tuple[list[Example], list[Example]]:
    """The rows without, and with only, a random share of each label (stratified), at most `limit` in all."""
    share = min(share, limit / len(rows))
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    counts = Counter(e.label for e in rows)
    # A label with a single row stays where it can be trained on.
    wanted = {label: min(max(1, round(share * count)), count - 1) for label, count in counts.items()}
    while sum(wanted.values()) > max(limit, len(wanted)):
        wanted[max(wanted, key=wanted.__getitem__)] -= 1
    taken = set(first_of_each(rows, order, wanted))
    return [e for i, e in enumerate(rows) if i not in taken], [rows[i] for i in sorted(taken)]


def first_of_each(rows: Sequence[Example], order: Sequence[int], wanted: Mapping[int, int]) -> list[int]:
    """The numbers of the first `wanted` rows of each label, in `order`."""
    left, taken = dict(wanted), []
    for i in order:
        if left[rows[i].label] > 0:
            left[rows[i].label] -= 1
            taken.append(i)
    return taken


def sample(rows: Sequence[Example], shots: int | None, rng: random.Random) -> tuple[list[Example], list[Example]]:
    """`shots` rows of each label (fewer where a label has fewer), and the rest; everything without `shots`."""
    if shots is None:
        return list(rows), []
    order = list(range(len(rows)))
    rng.shuffle(order)
    taken = first_of_each(rows, order, dict.fromkeys({e.label for e in rows}, shots))
    chosen = set(taken)
    return [rows[i] for i in taken], [e for i, e in enumerate(rows) if i not in chosen]
