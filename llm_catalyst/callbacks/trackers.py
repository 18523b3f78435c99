"""TensorBoard and Weights & Biases, where `track` names them: a run's records, told to the library as they are written.

The records are the truth: what a tracker shows is made from them, and made anew where a run is resumed. What a library
writes beside them in the run directory is no part of the run, and a fault of it never ends one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_catalyst.callbacks.tensorboard import TensorBoard
from llm_catalyst.callbacks.tracker import Tracker
from llm_catalyst.callbacks.wandb import WeightsAndBiases


def make_trackers(names: Sequence[str], path: Path, config: Mapping[str, Any]) -> list[Tracker]:
    """A tracker for each name, of the run in `path`; nothing is written yet.

    Raises ConfigurationError where a library is not installed, or W&B has no key that it can use.
    """
    logs: dict[str, type[TensorBoard | WeightsAndBiases]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
    return [Tracker(name, logs[name](path, config), path) for name in dict.fromkeys(names)]
