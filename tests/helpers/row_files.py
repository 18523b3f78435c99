"""Files of rows, written by other people's libraries, and the task that reads them."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_catalyst.tasks.base import TaskData
from llm_catalyst.tasks.text_task import TextTask

TEXTS = [f'Text {i}, with a comma; and "quotes"' for i in range(20)]
PAIRS = [(text, "good" if i % 2 else "bad") for i, text in enumerate(TEXTS)]


def as_csv(
    rows: Sequence[Sequence[Any]] = PAIRS, header: Sequence[str] = ("text", "label"), delimiter: str = ","
) -> str:
    """Rows as delimited text."""
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([header, *rows])
    return stream.getvalue()


def as_jsonl(rows: Sequence[Sequence[Any]] = PAIRS) -> str:
    """Rows as JSON Lines."""
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


def write_files(folder: Path, files: dict[str, str | bytes]) -> Path:
    """The folder, with these files in it."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def load_rows(place: Path, **changes: Any) -> TaskData:
    """The task whose rows lie at a place."""
    return TextTask(**{"name": "local", "text": "{text}", "path": str(place), "test": "test", **changes}).load(seed=1)


def list_rows(data: TaskData) -> set[tuple[str, str]]:
    """All texts of a task, each with the name of its label."""
    return {(e.sequences[0][0], data.labels[e.label]) for e in (*data.train, *data.dev, *data.test)}
