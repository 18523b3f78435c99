"""The interface of a task: its name and metric, and its rows as train, dev and test."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from llm_catalyst.utils.checksums import sha256

Modality = Literal["text", "image", "generation"]

Text = tuple[str, str | None]  # a text, and its second segment
Tell = Callable[[str], None]  # is called with the progress of what takes long

MOST_COUNTED = 10  # different references that are counted one by one
CLASS = "[CLASS]"  # the placeholder for the name of a class in a prompt


@dataclass(frozen=True)
class Example:
    """One row: a (text, pair) per choice (a single one where the task has no choices), and its label id.

    The text of an image task's example is the path of the image. `row` is its number in its file, from 1 on, as
    errors name it (the line of a text), or in all files of a split that has several. `twin` is the hash of the text by
    which rows are twins (duplicates.py); None for images. `targets` are the reference answers of a generation task,
    whose label ids are all 0.
    """

    sequences: tuple[Text, ...]
    label: int
    row: int | None = field(default=None, compare=False)
    twin: str | None = field(default=None, compare=False)
    targets: tuple[str, ...] = ()


def ignore(line: str) -> None:
    """Do nothing with the progress."""


class Task(ABC):
    """The base of the `task` node: a labelled data set. A subclass is a frozen dataclass of the node's keys.

    `modality` is that of the backbones and heads which fit. `metric`
    chooses prompts, `description` is for the mentor.
    `words` and `descriptions` stand for the labels under the heads `verbalizer` and `similarity`, in the order of the
    label ids; empty: the names of the labels. `cloze` is the sentence that holds a label word, at {mask}. `choices`
    is not empty where an example holds one sequence per class. `template` and `templates` hold the name of a class, at
    {}, under the heads of image tasks. `max_length` bounds the tokens of a text, `shots` the rows of a class in train.
    `hub` is the name of the data set there.
    """

    modality: ClassVar[Modality] = "text"
    name: str
    metric: str
    description: str = ""
    words: Sequence[str] = ()
    descriptions: Sequence[str] = ()
    cloze: str = "It was {mask}."
    choices: Sequence[str] = ()
    max_length: int | None = None
    shots: int | None = None
    hub: str | None = None
    template: str = "a photo of a {}."
    templates: Sequence[str] = ()

    @property
    def generates(self) -> bool:
        """Whether its answers are generated, and no classes."""
        return self.modality == "generation"

    @abstractmethod
    def load(self, seed: int, report_on_dev: bool = False) -> "TaskData":
        """The rows as train, dev and test.

        Args:
            seed: of every random choice, such as the rows held out of train.
            report_on_dev: whether test is the same rows as dev (protocol `official`).

        Raises:
            ConfigurationError: data are missing or cannot be used; the message names the place and the fix.
        """

    def load_unseen(self, seed: int, report_on_dev: bool = False) -> "TaskData | None":
        """Other classes, on which a prompt learned on those of `load` is reported too; None: there are none."""
        return None

    def describe(self) -> str:
        """The task in words, for a mentor."""
        return self.description

    def start_text(self) -> str:
        """The text that prompt.start=task begins from."""
        return self.description

    def show(self, example: Example) -> Example:
        """An example as a mentor sees it."""
        return example

    def identify(self, example: Example) -> Example:
        """An example without what differs between machines, for the hash of its split."""
        return example


@dataclass(frozen=True)
class TaskData:
    """A loaded task. `test` is what the run reports on: under protocol `official` the same rows as `dev`.

    `notes` are what a reader of the results should know of the data, such as labels that are almost equal. `content` is
    a hash of all rows before any of them were drawn or held out, which is equal for all seeds; '' where none was taken.
    """

    task: Task
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    source: str
    notes: tuple[str, ...] = ()
    content: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.task.words or self.labels)

    @property
    def descriptions(self) -> tuple[str, ...]:
        return tuple(self.task.descriptions or self.labels)

    def fingerprints(self) -> dict[str, Any]:
        """Rows, label counts and a hash of each split's texts and labels, and where they came from."""
        splits = {"train": self.train, "dev": self.dev, "test": self.test}
        found = {name: fingerprint_split([self.task.identify(row) for row in rows]) for name, rows in splits.items()}
        return {"source": self.source, **({"content": self.content} if self.content else {}), **found}


def majority_share(examples: Sequence[Example]) -> float:
    """The accuracy of always answering the most frequent label."""
    return max(Counter(e.label for e in examples).values()) / len(examples)


def fingerprint_split(examples: Sequence[Example]) -> dict[str, Any]:
    """Rows, label counts and sha256 of a split: equal hashes mean equal texts, labels and order."""
    parts = ([each.sequences, each.label, *([each.targets] if each.targets else [])] for each in examples)
    digest = sha256("".join(map(json.dumps, parts)).encode())
    return {"rows": len(examples), "labels": count_answers(examples), "sha256": digest}


def hash_content(given: Mapping[str, Sequence[Example]]) -> str:
    """The sha256 of all rows of the splits that a task has, before any of them are drawn or held out."""
    digests = [[role, fingerprint_split(rows)["sha256"]] for role, rows in given.items()]
    return sha256(json.dumps(digests).encode())


def count_answers(examples: Sequence[Example]) -> dict[str, int]:
    """The rows of each label id that occurs, or of each first reference; of more references than MOST_COUNTED none."""
    if examples and examples[0].targets:
        found = Counter(example.targets[0] for example in examples)
        return dict(sorted(found.items())) if len(found) <= MOST_COUNTED else {}
    counts = Counter(example.label for example in examples)
    return {str(label): counts[label] for label in sorted(counts)}


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches of one pass over the training split; the last one may be smaller."""
    return -(-examples // batch_size)
