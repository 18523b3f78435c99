"""What a loaded task holds: rows, labels and repeated inputs of each split, and what is wrong with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llm_catalyst.tasks.base import Example, TaskData, count_answers
from llm_catalyst.tasks.duplicates import count_contradictory, count_repeated, count_shared, hash_input
from llm_catalyst.utils.format import format_count, format_share
from llm_catalyst.utils.terminal import list_names

FEW = 100  # test rows, below which one row is more than a point
FEW_OF_A_CLASS = 5  # test rows


@dataclass(frozen=True)
class SplitFacts:
    """Facts about a split: rows, rows of each label by its name, and rows whose input stands in an earlier row."""

    rows: int
    labels: Mapping[str, int]
    repeated: int


@dataclass(frozen=True)
class DataFacts:
    """Facts about the rows of a run.

    Args:
        splits: those of train, dev and test; of test only where it is not dev.
        shared: the rows of a split whose input stands in another, too: {"test in train": 3}.
        contradictory: rows of any split whose input stands in a row with another label.
        warnings: a sentence for each thing that a reader of the scores must know.
    """

    splits: Mapping[str, SplitFacts]
    shared: Mapping[str, int]
    contradictory: int
    warnings: tuple[str, ...]


def collect_facts(data: TaskData) -> DataFacts:
    """The facts about the rows that a run trains on, chooses by and reports on."""
    on_dev = [*map(id, data.test)] == [*map(id, data.dev)]  # and not another file of the same content
    rows = {"train": data.train, "dev": data.dev} | ({} if on_dev else {"test": data.test})
    inputs = {name: [hash_input(row) for row in split] for name, split in rows.items()}
    splits = {
        name: SplitFacts(len(split), count_labels(split, data.labels), count_repeated(inputs[name]))
        for name, split in rows.items()
    }
    pairs = [(name, other) for name, other in (("test", "train"), ("test", "dev"), ("dev", "train")) if name in rows]
    shared = {f"{name} in {other}": count_shared(inputs[name], inputs[other]) for name, other in pairs}
    every = [row.targets or row.label for split in rows.values() for row in split]
    contradictory = count_contradictory([each for split in inputs.values() for each in split], every)
    warnings = (*data.notes, *warn_shared(shared, splits), *warn_labels(contradictory, splits, data), *warn_few(splits))
    return DataFacts(splits, shared, contradictory, warnings)


def count_labels(rows: Sequence[Example], names: Sequence[str]) -> dict[str, int]:
    """The rows of each label that occurs, by its name; of a generation task those of each of a few references."""
    counts = count_answers(rows)
    return {names[int(label)]: n for label, n in counts.items()} if names else counts


def warn_shared(shared: Mapping[str, int], splits: Mapping[str, SplitFacts]) -> list[str]:
    """A warning for each two splits that have inputs in common."""
    found = []
    for pair, n in shared.items():
        name, _, other = pair.split()
        rows = splits[name].rows
        if n:
            said = f"{format_share(n, rows, f'{name} row')} stand in {other}, too"
            found.append(f"{said}: remove them from one of the two, or the score says little about new texts")
    return found


def warn_labels(contradictory: int, splits: Mapping[str, SplitFacts], data: TaskData) -> list[str]:
    """The warnings that an input has two labels, and that a split lacks a label, or has fewer rows than task.shots."""
    found = []
    if contradictory:
        found.append(f"{format_count(contradictory, 'row')} have an input that stands elsewhere with another label")
    for name, split in splits.items():
        if lacking := [label for label in data.labels if label not in split.labels]:
            found.append(f"{name} has no row of {list_names(map(repr, lacking))}")
    shots = data.task.shots
    by_split = [(name, splits[name].labels) for name in ("train", "dev")]
    if shots and data.task.modality == "text" and "test" in splits:
        short = [label for label in data.labels if min(counts.get(label, 0) for _, counts in by_split) < shots]
        numbers = [f"{label!r} " + ", ".join(f"{n.get(label, 0)} in {name}" for name, n in by_split) for label in short]
        found += [f"task.shots={shots} is more than there is: {list_names(numbers)}"] if short else []
    return found


def warn_few(splits: Mapping[str, SplitFacts]) -> list[str]:
    """The warnings that the split that reports has few rows, in all or of a class."""
    name = "test" if "test" in splits else "dev"
    rows = splits[name].rows
    found = []
    if rows < FEW:
        found = [
            f"the score is that of {format_count(rows, f'{name} row')}: each is {100 / rows:.1f} points of accuracy"
        ]
    if rare := [f"{label!r} {n}" for label, n in splits[name].labels.items() if n < FEW_OF_A_CLASS]:
        found.append(f"{name} has few rows of some classes, of which little can be said: {list_names(rare)}")
    return found


def describe_rows(facts: DataFacts) -> str:
    """The rows of each split with their labels, in a line: 'train 240 rows (bad 120, good 120), dev …'."""

    def describe(name: str, split: SplitFacts) -> str:
        labels = list_names(f"{label} {n:,}" for label, n in split.labels.items())
        again = f"{split.repeated:,} repeated" if split.repeated else ""
        more = "; ".join(filter(None, [labels, again]))
        return f"{name} {format_count(split.rows, 'row')}" + (f" ({more})" if more else "")

    return ", ".join(describe(name, split) for name, split in facts.splits.items())
