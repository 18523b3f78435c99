"""Event files for TensorBoard."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_catalyst.callbacks.base import RunInfo
from llm_catalyst.callbacks.tracker import FLUSH_S, MISSING, Point
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError, flatten_leaves


class TensorBoard:
    """Event files in the run directory's folder `tensorboard`."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigurationError(MISSING.format(name="tensorboard")) from None
        self.folder, self.config, self.make_writer = path / "tensorboard", config, SummaryWriter

    def open(self, overview: RunInfo) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        # A TensorBoard that has read the files before forgets what it read.
        self.writer = self.make_writer(str(self.folder), purge_step=0, flush_secs=FLUSH_S)

    def add(self, point: Point) -> None:
        for name, value in point.figures.items():
            self.writer.add_scalar(name, value, point.step)
        for name, text in point.texts.items():
            self.writer.add_text(name, escape_markdown(text), point.step)

    def close(self, result: Mapping[str, float | str] | None) -> None:
        if result is not None:
            for name, value in result.items():
                if isinstance(value, str):
                    self.writer.add_text(f"outcome/{name}", escape_markdown(value))
            settings = {
                key: value for key, value in flatten_leaves(self.config) if isinstance(value, bool | int | float | str)
            }
            figures = {f"outcome/{name}": value for name, value in result.items() if not isinstance(value, str)}
            self.writer.add_hparams(settings, figures, run_name=".")
        self.writer.close()


def escape_markdown(text: str) -> str:
    """Text as Markdown that shows it as it is: TensorBoard reads all text as Markdown."""
    return "\n".join(f"    {escape_controls(line)}" for line in text.split("\n"))
