"""Runs for Weights & Biases."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_catalyst.callbacks.base import RunInfo
from llm_catalyst.callbacks.tracking_log import MISSING, Point, TrackingLog
from llm_catalyst.utils import checksums
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError


class WeightsAndBiases(TrackingLog):
    """A run of Weights & Biases; its local files are in the run directory's folder `wandb`."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise ConfigurationError(MISSING.format(name="wandb")) from None
        try:
            keyless = wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False)
        except wandb.Error as error:
            raise ConfigurationError(f"track=[wandb]: {escape_controls(str(error))}") from None
        if keyless:
            raise ConfigurationError("track=[wandb] finds no key of W&B: call `wandb login`, or set WANDB_MODE=offline")
        self.path, self.config, self.wandb = path, config, wandb

    def open(self, info: RunInfo) -> None:
        # A resumed run directory keeps its W&B run; a new run in the same place gets another one.
        made_by = (self.path / "manifest.json").read_bytes() + str(self.path.absolute()).encode()
        identity = checksums.sha256(made_by)[:16]
        for before in (self.path / "wandb").glob(f"offline-run-*-{identity}"):
            shutil.rmtree(before)  # the new files will hold all of it
        self.run = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "llm-catalyst",
            dir=str(self.path),
            id=identity,
            name=info.title,
            config=dict(self.config),
            resume="allow",
            reinit="create_new",
            settings=self.wandb.Settings(console="off", quiet=True, disable_git=True),
        )

    def add(self, point: Point) -> None:
        # W&B keeps the points from before a resume, which are the same: equal steps give equal points.
        if point.step >= self.run.starting_step:
            self.run.log({**point.figures, **point.texts}, step=point.step)

    def close(self, result: Mapping[str, float | str] | None) -> None:
        if result is not None:
            self.run.summary.update({f"outcome/{name}": value for name, value in result.items()})
        self.run.finish(exit_code=0 if result is not None else 1)
