"""Data sets of the Hugging Face hub, for tasks with the keys `hub`, `hub_config` and `revision`."""

import logging
from collections.abc import Sequence
from typing import Any

from llm_catalyst.tasks.row_files import RowTable
from llm_catalyst.utils.proxies import hub_url, name_proxy
from llm_catalyst.utils.terminal import escape_controls, list_names
from llm_catalyst.utils.validation import ConfigurationError


def read_hub(task: Any, split: str) -> Any:
    """A split of the task's data set on the Hugging Face hub, as a `datasets.Dataset`."""
    import datasets

    datasets.disable_progress_bars()
    # It reports each retry; the failure is reported once, below.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return datasets.load_dataset(task.hub, task.hub_config, split=split, revision=task.revision)
    except Exception as error:
        place = f"the Hugging Face hub{name_proxy(hub_url())}"
        problem = f"{task.hub} could not be loaded from {place} ({type(error).__name__}: {error})"
        fix = f"Offline? Put the files into $CATALYST_DATA/{task.name}/ or set task.path=FOLDER"
        raise ConfigurationError(f"task={task.name}: {problem}. {fix}") from error


def read_hub_rows(task: Any, split: str, needed: Sequence[str]) -> RowTable:
    """The rows of a split in those of the columns `needed` that it has."""
    data, source = read_hub(task, split), f"split {split}"
    names = [name for name in needed if name in data.column_names]
    classes = {name: tuple(feature.names) for name, feature in data.features.items() if hasattr(feature, "names")}
    try:
        rows = data.select_columns(names).to_list()
    except Exception as error:
        why = escape_controls(str(error)[:300])
        raise ConfigurationError(f"task={task.name}, {source}: {list_names(names)} could not be read: {why}") from error
    return RowTable(source, "row", rows, range(1, len(rows) + 1), data.column_names, "the hub", classes)


def name_source(task: Any) -> str:
    """The hub's name, configuration and revision of a data set, for manifest.json."""
    return f"hub:{task.hub}/{task.hub_config or ''}@{task.revision or 'main'}"
