"""Drawn pictures: a shape of one colour on a noisy background. A first vision run needs no download.

A picture is a function of its shape, colour, seed and size. Place, extent, turn, shade and background are drawn at
random, so that only shape and colour tell the classes apart.
"""

import random
from math import cos, pi, sin
from pathlib import Path

import PIL
from PIL import Image, ImageColor, ImageDraw

from llm_catalyst.tasks.image_layouts import picture_cache
from llm_catalyst.utils.build_once import build_once
from llm_catalyst.utils.checksums import sha256

SIDES = {"circle": 60, "square": 4, "triangle": 3}
SHAPES = tuple(SIDES)
COLOURS = ("blue", "green", "red", "yellow")
COUNTS = {"train": 20, "val": 4, "test": 25}  # pictures of each class
SIZE = 64  # pixels
FINE = 4  # times larger when drawn, then scaled down: smooth edges


def draw_shape(shape: str, colour: str, seed: int, size: int = SIZE) -> Image.Image:
    """The picture (RGB, size x size pixels) of one of SHAPES in one of COLOURS; the same for the same seed."""
    rng = random.Random(f"{shape} {colour} {seed}")
    noise = Image.frombytes("RGB", (size, size), rng.randbytes(3 * size * size))
    ground = Image.new("RGB", (size, size), (rng.randint(90, 165),) * 3)
    fill = tuple(min(255, max(0, level + rng.randint(-25, 25))) for level in ImageColor.getrgb(colour)[:3])
    radius = rng.uniform(0.2, 0.4) * size
    x, y = (rng.uniform(radius, size - radius) for _ in range(2))
    mask = Image.new("L", (FINE * size, FINE * size))
    outline = shape_outline(shape, FINE * x, FINE * y, FINE * radius, rng.uniform(-0.3, 0.3))
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    picture = Image.blend(ground, noise, 0.3)
    picture.paste(Image.blend(Image.new("RGB", (size, size), fill), noise, 0.1), mask=mask.resize((size, size)))
    return picture


def shape_outline(shape: str, x: float, y: float, radius: float, turn: float) -> list[tuple[float, float]]:
    """The corners of a shape around (x, y), turned by `turn` radians from lying on a side."""
    sides = SIDES[shape]
    angles = [turn + pi / 2 + pi / sides + 2 * pi * i / sides for i in range(sides)]
    return [(x + radius * cos(a), y + radius * sin(a)) for a in angles]


def ensure_drawn() -> Path:
    """The folder split/class/*.png of the task `shapes`, drawn into the cache where it is not there yet.

    It is named by what makes the pictures: this file and the version of Pillow.
    """
    version = sha256(Path(__file__).read_bytes() + PIL.__version__.encode())[:16]
    return build_once(picture_cache() / f"shapes-{version}", draw_all)


def draw_all(folder: Path) -> None:
    """Draw the pictures of every split and class into a new folder."""
    seed = 0
    for split, count in COUNTS.items():
        for shape, colour in ((s, c) for s in SHAPES for c in COLOURS):
            of_class = folder / split / f"{colour} {shape}"
            of_class.mkdir(parents=True)
            for number in range(count):
                draw_shape(shape, colour, seed).save(of_class / f"{number:02}.png")
                seed += 1
