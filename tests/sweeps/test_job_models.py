"""A sweep does not continue with another model at the same place."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.recorded import CONFIG, manifest
from helpers.tiny_models import CPU, folder

from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import load_text_backbone
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.sweeps.job import refuse_other_model
from llm_catalyst.utils.validation import ConfigurationError


def begin_run(path: Path, settings: TextBackbone) -> None:
    directory = RunDirectory(path)
    directory.write_config(CONFIG, replace(manifest(), backbone=load_text_backbone(settings, False, CPU).facts()))
    directory.close()


def test_a_sweep_is_refused_once_the_weights_of_its_runs_were_replaced(tmp_path: Path) -> None:
    model, other, sweep = tmp_path / "model", tmp_path / "other", tmp_path / "sweep"
    for path in (model, other):
        shutil.copytree(folder("bert"), path)
    refuse_other_model(TextBackbone(str(model)), sweep)  # it has no run yet
    for name, path in (("seed1", model), ("seed2", other)):
        begin_run(sweep / "local" / name, TextBackbone(str(path)))
    refuse_other_model(TextBackbone(str(model)), sweep)
    weights = model / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ConfigurationError, match=r"since the sweep in .* other content in model\.safetensors of"):
        refuse_other_model(TextBackbone(str(model)), sweep)
    refuse_other_model(TextBackbone(str(other)), sweep)  # whose files are the same
    refuse_other_model(TextBackbone("some/model"), sweep)
