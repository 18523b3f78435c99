"""Event files for TensorBoard."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_catalyst.callbacks.base import RunInfo
from llm_catalyst.callbacks.tracking_log import MISSING, Point, TrackingLog
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError, flatten_leaves

FLUSH_S = 30  # seconds after which TensorBoard sees what was written


class TensorBoard(TrackingLog):
    """Event files in the run directory's folder `tensorboard`."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigurationError(MISSING.format(name="tensorboard")) from None
        self.folder, self.config, self.make_writer = path / "tensorboard", config, SummaryWriter

    def open(self, info: RunInfo) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        # purge_step: a TensorBoard that has read the removed files drops their points.
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
    """Text as a Markdown code block, since TensorBoard renders all text as Markdown."""
    return "\n".join(f"    {escape_controls(line)}" for line in text.split("\n"))
