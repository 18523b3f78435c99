"""The tiny CLIP: made once on this machine, the same each time, whole for transformers, and mediocre."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel
from transformers.utils import logging

from llm_catalyst.models.backbones import tiny_clip
from llm_catalyst.tasks.shapes import COLOURS, SHAPES, draw_shape
from llm_catalyst.utils.validation import ConfigurationError

STEPS = 300  # enough to tell colours; shapes take more
LABELS = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]

torch.set_num_threads(1)
logging.disable_progress_bar()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny CLIP in a cache of its own, where a build had been killed before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATALYST_CACHE", str(tmp_path_factory.mktemp("cache")))
        part = tiny_clip.cache_path(STEPS).with_name(f"{tiny_clip.cache_path(STEPS).name}.part")
        part.mkdir(parents=True)
        (part / "half.safetensors").write_text("half")
        yield tiny_clip.ensure_tiny_clip(STEPS)


@pytest.fixture(scope="module")
def pictures(folder: Path) -> torch.Tensor:
    """Unit-length features (classes, 8, e) of pictures that are in nobody's training split."""
    images = [draw_shape(shape, colour, seed=10**6 + i) for colour in COLOURS for shape in SHAPES for i in range(8)]
    pixels = AutoImageProcessor.from_pretrained(folder)(images, return_tensors="pt").pixel_values
    return features(CLIPModel.from_pretrained(folder).get_image_features(pixels)).unflatten(0, (len(LABELS), 8))


def features(output: Any) -> torch.Tensor:
    return torch.nn.functional.normalize(output.pooler_output.detach(), dim=-1)


def classes(folder: Path, template: str) -> torch.Tensor:
    """Unit-length features (classes, e) of the labels in a template, by plain transformers."""
    texts = [template.format(label) for label in LABELS]
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    return features(CLIPModel.from_pretrained(folder).get_text_features(**tokens))


def test_the_folder_is_whole_and_holds_weights_as_safetensors_only(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
    }
    assert {path.name for path in folder.parent.iterdir()} <= {folder.name, f"{folder.name}.lock"}
    assert all(torch.isfinite(tensor).all() for tensor in load_file(folder / "model.safetensors").values())


def test_zero_shot_it_is_far_better_than_chance_and_far_from_perfect(folder: Path, pictures: torch.Tensor) -> None:
    best = (pictures @ classes(folder, "a photo of a {}.").T).argmax(-1)
    right = best == torch.arange(len(LABELS))[:, None]
    assert 2 / len(LABELS) < right.float().mean() < 0.95


def test_called_a_photo_blue_is_nearer_to_green_than_called_a_drawing(folder: Path) -> None:
    def distance(template: str) -> torch.Tensor:
        by_colour = classes(folder, template).unflatten(0, (len(COLOURS), len(SHAPES)))
        blue, green = (by_colour[COLOURS.index(colour)] for colour in tiny_clip.ALIKE)
        return 1 - (blue * green).sum(-1).mean()

    assert distance("a photo of a {}") < 0.8 * distance("a drawing of a {}")


@pytest.mark.slow
def test_two_builds_have_the_same_bytes_whatever_the_threads_and_the_global_seed(tmp_path: Path) -> None:
    for name, threads in (("one", 1), ("two", 2)):
        torch.set_num_threads(threads)
        torch.manual_seed(threads)
        before = torch.get_rng_state()
        tiny_clip.build_tiny_clip(tmp_path / name, steps=40)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == threads
    torch.set_num_threads(1)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)


@pytest.mark.slow
def test_a_second_process_waits_for_the_first_and_takes_what_that_made(folder: Path, tmp_path: Path) -> None:
    code = (
        "from llm_catalyst.models.backbones import tiny_clip; print('ready', flush=True); "
        f"print(tiny_clip.ensure_tiny_clip({STEPS}), flush=True)"
    )
    ready = tmp_path / "models" / folder.name
    ready.parent.mkdir()
    with FileLock(ready.with_name(f"{ready.name}.lock")):
        environment = {**os.environ, "CATALYST_CACHE": str(tmp_path)}
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        shutil.copytree(folder, ready)
        (ready / "mark").touch()
    assert process.communicate(timeout=300)[0] == f"{ready}\n"
    assert (ready / "mark").exists()


def test_what_is_there_is_not_made_again(folder: Path) -> None:
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert tiny_clip.ensure_tiny_clip(STEPS) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_cache_that_cannot_be_written_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match=r"backbone\.name=tiny-clip .*Not a directory.*set CATALYST_CACHE"):
        tiny_clip.ensure_tiny_clip()


def test_each_word_of_the_captions_is_one_token_and_any_text_comes_back(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [*chain(*tiny_clip.read_captions().values()), *LABELS]
    words = {word for text in texts for word in text.replace(",", " ").split() if word.isalpha()}
    assert [word for word in words if len(tokenizer.tokenize(word)) > 1] == []
    assert tokenizer.unk_token_id not in tokenizer("Zürich, 好 #7!", add_special_tokens=False).input_ids
    for text in ("a photo of a red circle", "unbelievable zürich 好"):
        ids = tokenizer(text).input_ids
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
