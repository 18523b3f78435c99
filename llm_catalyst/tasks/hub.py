"""Data sets of the Hugging Face hub, for tasks with the keys `hub`, `hub_config` and `revision`."""

import logging
from typing import Any

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
        raise ConfigurationError(
            f"task={task.name}: {task.hub} could not be loaded from the Hugging Face hub "
            f"({type(error).__name__}: {error}). "
            f"Offline? Put the files into $CATALYST_DATA/{task.name}/ or set task.path=FOLDER"
        ) from error


def name_source(task: Any) -> str:
    """Where a data set of the hub comes from, for manifest.json."""
    return f"hub:{task.hub}/{task.hub_config or ''}@{task.revision or 'main'}"
