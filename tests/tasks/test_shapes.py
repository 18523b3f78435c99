"""The drawn task: pictures are functions of their seeds, and their classes can be told apart."""

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llm_catalyst.tasks import shapes
from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.image_task import ImageTask
from llm_catalyst.tasks.shapes import COLOURS, SHAPES, draw_shape
from llm_catalyst.utils.validation import ConfigurationError

TASK = ImageTask("shapes", layout="shapes")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this file's own, filled once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATALYST_CACHE", str(folder))
        yield folder


def path(example: Example) -> str:
    return example.sequences[0][0]


@pytest.mark.parametrize("size", [32, 64])
def test_a_picture_is_a_function_of_its_shape_colour_seed_and_size(size: int) -> None:
    random.seed(0)
    first = draw_shape("square", "red", 5, size)
    random.seed(1)
    assert (first.mode, first.size) == ("RGB", (size, size))
    assert first.tobytes() == draw_shape("square", "red", 5, size).tobytes()
    others = [
        draw_shape("square", "red", 6, size),
        draw_shape("circle", "red", 5, size),
        draw_shape("square", "blue", 5, size),
    ]
    assert first.tobytes() not in [other.tobytes() for other in others]


def test_a_shape_or_colour_that_is_not_known_is_refused() -> None:
    with pytest.raises(KeyError, match="hexagon"):
        draw_shape("hexagon", "red", 1)
    with pytest.raises(ValueError, match="colourless"):
        draw_shape("circle", "colourless", 1)


def test_a_first_run_finds_enough_pictures_of_twelve_classes() -> None:
    data = TASK.load(seed=1)
    assert set(data.labels) == {f"{colour} {shape}" for colour in COLOURS for shape in SHAPES}
    assert Counter(e.label for e in data.train) == dict.fromkeys(range(12), 16)
    assert Counter(e.label for e in data.dev) == dict.fromkeys(range(12), 4)
    assert len(data.test) == 300
    everything = [path(e) for e in (*data.train, *data.dev, *data.test)]
    assert len({Path(file).read_bytes() for file in everything}) == len(everything)
    assert all(Path(path(e)).parent.name == data.labels[e.label] for e in data.test)


def test_pictures_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shapes.ensure_drawn()
    monkeypatch.setattr(shapes, "draw_shape", lambda *arguments: pytest.fail("drawn again"))
    assert shapes.ensure_drawn() == folder


def test_pictures_are_the_same_wherever_they_are_drawn_and_by_however_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shapes.ensure_drawn()
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        places = {task.result() for task in [pool.submit(shapes.ensure_drawn) for _ in range(2)]}
    assert places == {path for path in (tmp_path / "images").iterdir() if path.suffix != ".lock"}
    (other,) = places
    files = sorted(folder.rglob("*.png"))
    assert len(files) == len(list(other.rglob("*.png"))) == 588
    assert all((other / file.relative_to(folder)).read_bytes() == file.read_bytes() for file in files)


def test_a_cache_that_cannot_be_written_is_named_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match=r"kept in .*/file/images, .*set CATALYST_CACHE to a folder of yours"):
        TASK.load(seed=1)


def test_base_and_new_shapes_differ_in_colour() -> None:
    base_task = ImageTask("shapes", layout="shapes", classes="base")
    base, new = base_task.load(seed=1), base_task.load_unseen(seed=1)
    assert new is not None
    assert {label.split()[0] for label in base.labels} == {"blue", "green"}
    assert {label.split()[0] for label in new.labels} == {"red", "yellow"}


def description(file: str) -> np.ndarray:
    """The mean colour of what is not gray, and how much of the circle around it it fills: (4,)."""
    pixels = np.asarray(Image.open(file)).astype(float)
    figure = np.ptp(pixels, axis=2) > 80
    places = np.argwhere(figure)
    reach = np.linalg.norm(places - places.mean(0), axis=1).max()
    return np.array([*pixels[figure].mean(0) / 255, 2 * figure.sum() / (np.pi * reach**2)])


def test_classes_can_be_told_apart_by_colour_and_outline() -> None:
    data = TASK.load(seed=1)
    centres = np.stack([np.mean([description(path(e)) for e in data.train if e.label == i], 0) for i in range(12)])
    right = [np.linalg.norm(centres - description(path(e)), axis=1).argmin() == e.label for e in data.test]
    assert np.mean(right) > 0.95
