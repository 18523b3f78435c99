"""Checked components of a run."""

from dataclasses import replace
from typing import Any

from helpers.tiny_models import (
    folder,
    toy_settings,
    toy_task,
)

from llm_catalyst.config.build import RunComponents
from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.heads.text import Verbalizer


def parts(**changes: Any) -> RunComponents:
    base = RunComponents(
        task=toy_task(name="nowhere"),
        backbone=TextBackbone(folder("bert"), kind="encoder"),
        head=Verbalizer(),
        optimizer=None,
        mentor=None,
        settings=toy_settings(),
    )
    return replace(base, **changes)
