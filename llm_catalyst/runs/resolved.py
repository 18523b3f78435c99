"""What makes a run directory readable without the run's data and without the defaults of this revision's classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_catalyst.runs.records import Split

Answers = tuple[int, ...] | tuple[str, ...]


@dataclass(frozen=True)
class Predictions:
    """The answers on each row of the reporting split at the end of a run: label ids, or generated texts.

    Args:
        split: test, or dev where the protocol reports on dev.
        rows: of each row its number in its file, as errors name it: the line of a text, the row of a table, from 1 on.
            Where a split has several files, as with pictures, its number among all. None where a task does not say it.
        labels: the true label ids, or the first references.
        soft_prompt: those of the soft prompt that dev chose; None if the run diverged.
        best_prompt: those of the pool's best discrete prompt; None if there is none.
        start: those of the initial prompt, before any training.
        marks: of each of these names the task's metric of each generated text; {} where answers are label ids.
    """

    split: Split
    rows: tuple[int | None, ...]
    labels: Answers
    soft_prompt: Answers | None
    best_prompt: Answers | None
    start: Answers | None
    marks: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Resolved:
    """What a run's command leaves to defaults and to its data.

    Args:
        config: the configuration with every default of the classes that it names.
        labels: the names of the labels, in the order of their ids.
        words: of each label (of a wrong and a right choice in a multiple choice task) under head=verbalizer.
        descriptions: the same under head=similarity.
        data: the facts about the rows of each split (tasks/data_facts.py), and `truncation`, of those that lose text
            (tasks/truncation.py); None for pictures. `rows` has the numbers of the rows of train and dev, as
            `Predictions.rows` counts them, in ranges: "2-14, 17".
    """

    config: Mapping[str, Any]
    labels: tuple[str, ...]
    words: tuple[str, ...]
    descriptions: tuple[str, ...]
    data: Mapping[str, Any]
