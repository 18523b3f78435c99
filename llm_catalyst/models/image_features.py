"""Image features, computed once for each image and view, and kept on disk for all runs.

$CATALYST_CACHE/features/<sha256>.npy   one view of a set of images (n, e), memory-mapped

The name is the SHA-256 of all that the features depend on: the images' contents, the image tower's weights and dtype,
how an image becomes pixels, the view's number and the seed that it is drawn from. The device is not part of it.
Shapes: n images, e width of the features, k members, b images of each, h x w pixels.
"""

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from llm_catalyst.models.backbones.clip import FrozenClip, Pixels
from llm_catalyst.tasks.base import Example, Tell, ignore
from llm_catalyst.tasks.batching import Batch, Device, Examples, Rows
from llm_catalyst.tasks.image_task import check_images, open_image
from llm_catalyst.utils.build_once import build_once
from llm_catalyst.utils.checksums import sha256
from llm_catalyst.utils.paths import writable_cache
from llm_catalyst.utils.rng import derive_seed
from llm_catalyst.utils.validation import ConfigurationError

IMAGES = 64  # that go forward together
RATIO, TRIES = (3 / 4, 4 / 3), 10  # of a random crop: width to height
FORMAT = 2  # of the cache's files and of the transformations: what changes them counts this up


@dataclass(frozen=True)
class ImageBatch(Batch):
    """b images for each of k members: features (k, b, e), float32, and labels (k, b)."""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ImageFeatures(Examples):
    """A split as image features: an array (n, e) for each view; example i is row `places[i]` of it."""

    views: tuple[NDArray[np.floating], ...]
    places: tuple[int, ...]
    labels: tuple[int, ...]
    choices: int = 1

    def pick(self, rows: Sequence[int]) -> "ImageFeatures":
        """These examples, in this order."""
        return ImageFeatures(self.views, tuple(self.places[i] for i in rows), tuple(self.labels[i] for i in rows))

    def batch(self, rows: Rows, device: Device, pad_to: int | None = None, epoch: int = 0) -> ImageBatch:
        """The images `rows[j]` for member j, in view `epoch` mod the number of views; nothing is padded."""
        places = [[self.places[i] for i in member] for member in rows]
        features = torch.from_numpy(self.views[epoch % len(self.views)][places]).float()
        labels = torch.tensor([[self.labels[i] for i in member] for member in rows])
        return ImageBatch(features.to(device), labels.to(device))


def load_features(
    backbone: FrozenClip, examples: Sequence[Example], views: int = 0, seed: int = 0, tell: Tell = ignore
) -> ImageFeatures:
    """The features of a split, from the cache or computed now; `tell` is called with the progress.

    With `views` that many augmented ones, as for training, each drawn from `seed`, its number and the image's content;
    0 gives the plain image alone, as for dev and test. Files of equal content share their features. Raises
    ConfigurationError where images cannot be read (it names them) or the cache cannot be written.
    """
    paths = [example.sequences[0][0] for example in examples]
    content = {path: content_of(path) for path in dict.fromkeys(paths)}
    files = dict(sorted((digest, path) for path, digest in content.items()))
    place = {digest: i for i, digest in enumerate(files)}
    made = tuple(load_view(backbone, files, number, seed, tell) for number in (range(views) if views else (None,)))
    return ImageFeatures(made, tuple(place[content[path]] for path in paths), tuple(e.label for e in examples))


def content_of(path: str) -> str:
    """SHA-256 of an image's file. Raises ConfigurationError where it cannot be read."""
    try:
        return sha256(Path(path).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}); correct it or leave its row out") from None


def load_view(
    backbone: FrozenClip, files: Mapping[str, str], number: int | None, seed: int, tell: Tell
) -> NDArray[np.floating]:
    """The features (n, e) of the images `files` (content to path) in one view, from the cache or computed now."""
    dtype = np.dtype("float32" if backbone.vocabulary.dtype == torch.float32 else "float16")
    drawn_from = None if number is None else (number, seed, backbone.settings.crop)
    key = sha256(json.dumps([FORMAT, backbone.identity, asdict(backbone.pixels), drawn_from, *files]).encode())
    name = "image features" if number is None else f"image features, view {number + 1}"
    computed: list[NDArray[np.floating]] = []

    def build(file: Path) -> None:
        features = compute_features(backbone, files, number, seed, lambda done: tell(f"{name}: {done} of {len(files)}"))
        computed.append(features.astype(dtype))
        np.save(file, computed[0], allow_pickle=False)

    try:
        path = build_once(writable_cache("features", "image features are kept") / f"{key}.npy", build)
        # Copied where it is written to: torch takes no array that is read-only.
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except OSError:  # a run must not die of a full cache
        if not computed:
            raise
        return computed[0]


@torch.inference_mode()
def compute_features(
    backbone: FrozenClip, files: Mapping[str, str], number: int | None, seed: int, tell: Callable[[int], None]
) -> NDArray[np.floating]:
    """The features (n, e) of images in one view, batch by batch; `tell` is called with the number that is done."""

    def prepared(item: tuple[str, str]) -> Tensor:
        content, path = item
        image, edge = open_image(path), backbone.pixels
        if number is None:
            return preprocess_image(image, edge)
        rng = random.Random(derive_seed(seed, "view", number, content))
        return augment_image(image, edge, backbone.settings.crop, rng)

    items, done = list(files.items()), []
    with ThreadPoolExecutor() as pool:
        for i in range(0, len(items), IMAGES):
            tell(i)
            try:
                pixels = torch.stack(list(pool.map(prepared, items[i : i + IMAGES])))
            except ConfigurationError:
                check_images(list(files.values()))  # its error names all the bad images at once
                raise
            done.append(backbone.image_features(pixels).cpu())
    return torch.cat(done).numpy()


def preprocess_image(image: Image.Image, pixels: Pixels) -> Tensor:
    """An image as CLIP sees it: shortest edge scaled, middle cut out, channels normalized (3, h, w)."""
    width, height = image.size
    shortest, crop = pixels.shortest, pixels.crop
    scaled = [max(shortest, shortest * side // min(width, height)) for side in (width, height)]
    image = image.resize((scaled[0], scaled[1]), Image.Resampling.BICUBIC)
    left, top = ((side - crop) // 2 for side in scaled)
    return normalize_pixels(image.crop((left, top, left + crop, top + crop)), pixels)


def augment_image(image: Image.Image, pixels: Pixels, least: float, rng: random.Random) -> Tensor:
    """A random view of an image (3, h, w): CoOp's random resized crop, bicubic, and a flip every other time.

    The crop (Szegedy et al. 2015, arXiv 1409.4842, section 6) takes a share of the area, even from `least` to 1, and a
    ratio of width to height, log-even in RATIO; where none of TRIES fits into the image, the largest middle part whose
    ratio is allowed.
    """
    part = image.crop(random_box(*image.size, least, rng))
    image = part.resize((pixels.crop, pixels.crop), Image.Resampling.BICUBIC)
    return normalize_pixels(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image, pixels)


def random_box(width: int, height: int, least: float, rng: random.Random) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random crop."""
    for _ in range(TRIES):
        area = width * height * rng.uniform(least, 1)
        ratio = math.exp(rng.uniform(*map(math.log, RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            return left, top, left + w, top + h
    w, h = min(width, max(1, round(height * RATIO[1]))), min(height, max(1, round(width / RATIO[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def normalize_pixels(image: Image.Image, pixels: Pixels) -> Tensor:
    """An RGB image as numbers (3, h, w): each channel less its mean, over its deviation."""
    numbers = torch.from_numpy(np.array(image, dtype=np.float32) / 255)
    return ((numbers - torch.tensor(pixels.mean)) / torch.tensor(pixels.std)).permute(2, 0, 1)
