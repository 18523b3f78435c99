"""Image features: how an image becomes pixels, augmented views, and the cache on disk."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_clip import CPU, backbone, drawing, folder
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from llm_catalyst.models.image_features import ImageFeatures, augment_image, load_features, preprocess_image, random_box
from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.image_task import open_image
from llm_catalyst.utils.validation import ConfigurationError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the features, below an empty $CATALYST_CACHE."""
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Five drawn images of two classes."""
    paths = [drawing(tmp_path / f"{i}.png", i) for i in range(5)]
    return [Example(((path, None),), i % 2) for i, path in enumerate(paths)]


def counted() -> tuple[list[str], Callable[[str], None]]:
    """The lines that were told while features were computed, and what tells them."""
    lines: list[str] = []
    return lines, lines.append


def everything(split: ImageFeatures, epoch: int = 0) -> torch.Tensor:
    return split.batch([range(len(split))], CPU, None, epoch).features[0]


# From image to pixels


@pytest.mark.parametrize("size", [(50, 40), (33, 90), (1, 1), (36, 36), (37, 300), (20, 21)])
def test_a_plain_image_has_the_pixels_of_clips_own_processor(size: tuple[int, int], tmp_path: Path) -> None:
    image = open_image(drawing(tmp_path / "x.png", 3, size))
    expected = CLIPImageProcessorPil.from_pretrained(folder())(image, return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(preprocess_image(image, backbone().pixels), expected, atol=1e-5, rtol=0)


def test_random_crops_lie_in_the_image_and_have_coops_areas_and_ratios() -> None:
    rng = random.Random(1)
    boxes = [random_box(200, 160, 0.08, rng) for _ in range(2000)]
    assert all(0 <= left < right <= 200 and 0 <= top < bottom <= 160 for left, top, right, bottom in boxes)
    shares = [(right - left) * (bottom - top) / 32000 for left, top, right, bottom in boxes]
    ratios = [(right - left) / (bottom - top) for left, top, right, bottom in boxes]
    assert 0.075 < min(shares) < 0.1 < 0.9 < max(shares) <= 1
    assert 0.73 < min(ratios) < 0.8 < 1.25 < max(ratios) < 1.37
    assert random_box(1, 1, 0.08, rng) == (0, 0, 1, 1)
    assert random_box(300, 2, 0.08, rng) == (148, 0, 151, 2)


def test_a_view_is_flipped_every_other_time(tmp_path: Path) -> None:
    half = Image.new("RGB", (64, 64), "black")
    half.paste("white", (32, 0, 64, 64))
    views = [augment_image(half, backbone().pixels, 0.08, random.Random(i)) for i in range(200)]
    brighter_left = [bool(v[0, :, 0].mean() > v[0, :, -1].mean()) for v in views]
    brighter_right = [bool(v[0, :, 0].mean() < v[0, :, -1].mean()) for v in views]
    assert all(v.shape == (3, 32, 32) for v in views)
    assert 0.35 < sum(brighter_left) / (sum(brighter_left) + sum(brighter_right)) < 0.65


# Splits and batches


def test_features_are_the_backbones_own_for_each_image(examples: list[Example]) -> None:
    split = load_features(backbone(), examples)
    with torch.no_grad():
        for example, found in zip(examples, everything(split), strict=True):
            pixels = preprocess_image(open_image(example.sequences[0][0]), backbone().pixels)
            torch.testing.assert_close(found, backbone().image_features(pixels[None])[0], atol=1e-5, rtol=0)
    assert (len(split), split.labels, split.choices, split.length(0)) == (5, (0, 1, 0, 1, 0), 1, 1)


def test_a_batch_holds_each_members_images_and_comes_apart_and_together(examples: list[Example]) -> None:
    split = load_features(backbone(), examples)
    rows = everything(split)
    batch = split.batch([[0, 1, 2], [4, 3, 0]], CPU)
    assert torch.equal(batch.features, torch.stack([rows[[0, 1, 2]], rows[[4, 3, 0]]]))
    assert batch.labels.tolist() == [[0, 1, 0], [0, 1, 0]]
    assert [part.size for part in batch.parts(2)] == [2, 1]
    assert torch.equal(torch.cat([part.features for part in batch.parts(2)], 1), batch.features)
    assert torch.equal(batch.repeat(2).features[2:], batch.features)
    assert batch.repeat(2).labels.shape == (4, 3)
    one = split.batch([[1, 2]], CPU).expand(3)
    assert (one.features.shape, one.labels.shape) == ((3, 2, 16), (3, 2))
    assert torch.equal(everything(split.pick([3, 3, 1])), rows[[3, 3, 1]])
    assert split.pick([3, 3, 1]).labels == (1, 1, 1)
    assert batch.token_counts == (0, 0)


def test_views_differ_by_epoch_come_again_and_follow_from_the_seed(examples: list[Example]) -> None:
    split = load_features(backbone(), examples, views=2, seed=1)
    first, second, third = (everything(split, epoch) for epoch in range(3))
    assert torch.equal(first, third)
    assert ((first - second).norm(dim=1) > 1e-3).all()
    assert torch.equal(everything(load_features(backbone(), examples, views=3, seed=1), 1), second)
    assert not torch.equal(everything(load_features(backbone(), examples, views=1, seed=2)), first)


def test_an_images_view_depends_on_its_content_and_not_on_its_path_or_neighbours(
    examples: list[Example], tmp_path: Path
) -> None:
    moved = tmp_path / "moved.jpg"
    moved.write_bytes(Path(examples[3].sequences[0][0]).read_bytes())
    alone = load_features(backbone(), [Example(((str(moved), None),), 0)], views=2, seed=1)
    whole = load_features(backbone(), examples, views=2, seed=1)
    torch.testing.assert_close(everything(alone, 1)[0], everything(whole, 1)[3], atol=1e-5, rtol=0)


# The cache


def test_features_are_computed_once_and_read_back_as_a_memory_map(examples: list[Example], cache: Path) -> None:
    lines, tell = counted()
    first = load_features(backbone(), examples, views=2, seed=1, tell=tell)
    assert lines == ["image features, view 1: 0 of 5", "image features, view 2: 0 of 5"]
    again = load_features(backbone(), examples, views=2, seed=1, tell=tell)
    assert len(lines) == 2
    assert all(isinstance(view, np.memmap) for view in again.views)
    assert torch.equal(everything(first, 1), everything(again, 1))
    assert len(list(cache.glob("*.npy"))) == 2


def test_files_of_equal_content_and_other_orders_share_their_features(examples: list[Example], tmp_path: Path) -> None:
    lines, tell = counted()
    rows = everything(load_features(backbone(), examples, tell=tell))
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(examples[2].sequences[0][0]).read_bytes())
    more = [Example(((str(copy), None),), 7), *reversed(examples)]
    split = load_features(backbone(), more, tell=tell)
    assert len(lines) == 1
    assert torch.equal(everything(split), rows[[2, 4, 3, 2, 1, 0]])
    assert split.labels[0] == 7


def test_another_image_dtype_or_crop_is_computed_anew(examples: list[Example]) -> None:
    lines, tell = counted()
    load_features(backbone(), examples, tell=tell)
    half = load_features(backbone(dtype="float16"), examples, tell=tell)
    assert half.views[0].dtype == np.float16
    drawing(Path(examples[0].sequences[0][0]), 99)
    load_features(backbone(), examples, tell=tell)
    load_features(backbone(), examples, views=1, tell=tell)
    load_features(backbone(crop=0.5), examples, views=1, tell=tell)
    assert len(lines) == 5


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def damage_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def damage_foreign(path: Path) -> None:
    others = [drawing(path.with_name(f"{i}.png"), 50 + i) for i in range(5)]
    load_features(backbone(), [Example(((other, None),), 0) for other in others])
    other = next(file for file in path.parent.glob("*.npy") if file != path)
    path.write_bytes(other.read_bytes())


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_cut, damage_bit, damage_foreign, damage_empty])
def test_a_damaged_or_foreign_file_is_computed_anew(damage: Any, examples: list[Example], cache: Path) -> None:
    lines, tell = counted()
    before = everything(load_features(backbone(), examples)).clone()
    path = next(iter(cache.glob("*.npy")))
    damage(path)
    assert torch.equal(everything(load_features(backbone(), examples, tell=tell)), before)
    assert len(lines) == 1
    load_features(backbone(), examples, tell=tell)
    assert len(lines) == 1


def test_a_write_that_fails_leaves_the_run_with_its_features(
    examples: list[Example], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **settings: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save", full)
    assert everything(load_features(backbone(), examples)).shape == (5, 16)
    assert not list(cache.glob("*.npy"))


def test_a_cache_that_cannot_be_made_is_named(
    examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="set CATALYST_CACHE to a folder of yours"):
        load_features(backbone(), examples)


# Bad images


def test_bad_images_are_named_together_and_nothing_is_kept(
    examples: list[Example], tmp_path: Path, cache: Path
) -> None:
    cut, text = tmp_path / "cut.jpg", tmp_path / "text.png"
    Image.effect_noise((80, 80), 50).save(cut)
    cut.write_bytes(cut.read_bytes()[:600])
    text.write_text("no image")
    bad = [Example(((str(path), None),), 0) for path in (cut, text)]
    with pytest.raises(ConfigurationError, match="2 of 7") as caught:
        load_features(backbone(), [*examples, *bad])
    assert "cut.jpg" in str(caught.value)
    assert "text.png" in str(caught.value)
    assert not list(cache.glob("*.npy"))
    missing = Example(((str(tmp_path / "gone.png"), None),), 0)
    with pytest.raises(ConfigurationError, match=r"gone\.png cannot be read"):
        load_features(backbone(), [missing])


def test_odd_but_good_images_are_read(tmp_path: Path) -> None:
    whole = open_image(drawing(tmp_path / "x.png", 1))
    for name, mode in (("cmyk.jpg", "CMYK"), ("palette.png", "P"), ("gray.png", "L")):
        whole.convert(mode).save(tmp_path / name)
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    (tmp_path / "wrong.jpg").write_bytes((tmp_path / "x.png").read_bytes())
    names = ("cmyk.jpg", "palette.png", "gray.png", "dot.png", "wrong.jpg")
    split = load_features(backbone(), [Example(((str(tmp_path / name), None),), 0) for name in names], views=1)
    assert torch.isfinite(everything(split)).all()
