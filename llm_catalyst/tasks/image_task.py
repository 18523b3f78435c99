"""Image tasks: labelled pictures, few shots of each class, and halves of the classes (base and new).

The "text" of an example is the absolute path of its picture. A task is one YAML in conf/task; its fields are those of
`ImageTask`. image_layouts.py reads the layouts of data sets.

Few-shot sampling and the halves follow CoOp and CoCoOp (Zhou et al. 2022, IJCV, arXiv 2109.01134, and CVPR, arXiv
2203.05557; KaiyangZhou/CoOp, datasets/oxford_pets.py, and Dassl's generate_fewshot_dataset): with CoOp's split file,
the same seed and shots draw the same pictures as its code. Different: where a data set has no dev split (ImageNet,
whose validation split is test here as there), dev is drawn from train; CoOp takes test for it.
"""

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from llm_catalyst.tasks import image_layouts, shapes
from llm_catalyst.tasks.base import CLASS, Example, Task, TaskData
from llm_catalyst.tasks.image_layouts import Pictures, picture_row
from llm_catalyst.tasks.row_files import LONGEST_PATH, unreadable
from llm_catalyst.tasks.splitting import SplitRule, sample_coop_shots, split_rows
from llm_catalyst.utils.format import shorten_text
from llm_catalyst.utils.paths import expand_path
from llm_catalyst.utils.terminal import escape_controls, list_names
from llm_catalyst.utils.validation import ConfigurationError, NonNegativeInt, PositiveInt, config_dataclass

COOP_DEV_SHOTS = 4  # of each class at most
LONGEST = 100  # sides of a picture: a longer strip, scaled to the input of a model, would fill the memory
FIRST_BAD = 3  # bad pictures that an error describes
DEV_SHARE, DEV_ROWS = 0.1, 1000  # of train, where there are neither shots nor a dev split


@config_dataclass("task")
class ImageTask(Task):
    """The `task` node: where the pictures are, and how their classes stand in prompts.

    `template` and `templates` hold {} where the class goes: the one is the hand-made prompt, the others its ensemble.
    `names` renames classes; underscores in names become blanks. `classes` takes all of them, or the first (base) or
    second (new) half. `shots` takes images of each class (null: all). `layout` says how the folder is laid
    out: coop (`split_file`, pictures below `pictures`), aircraft, imagenet, folders (split/class/picture, or
    class/picture), or shapes, which are drawn. `train`, `dev`, `test` name splits of folders and on the hub.
    """

    modality = "image"

    name: str
    template: str = "a photo of a {}."
    templates: list[str] = field(default_factory=list)
    description: str = ""
    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    shots: PositiveInt | None = 16
    classes: Literal["all", "base", "new"] = "all"
    names: dict[str, str] = field(default_factory=dict)
    layout: Literal["coop", "aircraft", "imagenet", "folders", "shapes"] = "folders"
    folder: str = ""
    pictures: str = ""
    split_file: str = ""
    hub: str | None = None
    hub_config: str | None = None
    revision: str | None = None
    image: str = "image"
    label: str = "label"
    path: str | None = None
    train: str = "train"
    dev: str | None = None
    test: str | None = "test"
    split_seed: NonNegativeInt | None = 0

    def __post_init__(self) -> None:
        if self.layout == "coop" and not self.split_file:
            raise ConfigurationError("task.layout=coop needs task.split_file, such as split_zhou_Caltech101.json")
        for key, template in [("template", self.template), *(("templates", t) for t in self.templates)]:
            if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
                raise ConfigurationError(f"task.{key}={template!r} must hold {{}} once, where the class goes")

    def load(self, seed: int, report_on_dev: bool = False) -> TaskData:
        """The task's images as train, dev and test; labels are the names of the chosen classes, in their order.

        With `shots`, train has that many images of each class and dev at most 4, drawn by `seed`; test is whole.
        With `report_on_dev` (protocol `official`) dev is test. Images are not opened here.
        """
        pictures = read_pictures(self, seed)
        shots = (self.shots, min(self.shots, COOP_DEV_SHOTS)) if self.shots else None
        # Train and dev are drawn one after the other from one stream, seeded by the run's seed itself, as CoOp's are.
        sample = partial(sample_coop_shots, rng=random.Random(seed))
        rule = SplitRule(self.name, seed, self.split_seed, report_on_dev, shots, DEV_SHARE, DEV_ROWS)
        splits = split_rows(pictures.splits, rule, sample, pictures.names)
        trained = {example.label for example in splits["train"]}
        if unknown := sorted({e.label for e in (*splits["dev"], *splits["test"])} - trained):
            names = list_names(pictures.names[label] for label in unknown)
            raise ConfigurationError(f"task={self.name}: train has no picture of {names}; add some, or leave them out")
        chosen = select_half(trained, self.classes)
        if len(chosen) < 2:
            problem = f"there are {len(trained)} classes, and task.classes={self.classes} takes {len(chosen)}"
            fix = "at least two are needed to tell apart: add another, or set task.classes=all"
            raise ConfigurationError(f"task={self.name}: {problem}; {fix}")
        # As the classes stand in prompts: renamed where the task says so, with blanks for underscores.
        renamed = (self.names.get(pictures.names[label], pictures.names[label]) for label in chosen)
        labels = tuple(name.replace("_", " ").strip() for name in renamed)
        twice = sorted({name for name in labels if labels.count(name) > 1})
        if twice and self.layout == "folders":  # a benchmark's own names are as they are
            folders = list_names(pictures.names[i] for i, name in zip(chosen, labels, strict=True) if name in twice)
            problem = f"task={self.name}: the classes {folders} have the same name, {list_names(twice)}"
            raise ConfigurationError(f"{problem}; rename one in task.names, or put their pictures together")
        found = {split: renumber_labels(pictures, rows, chosen) for split, rows in splits.items()}
        for split, rows in found.items():
            check_files(f"task={self.name}, {split}", rows, pictures.source)
        dev = found["test"] if report_on_dev else found["dev"]
        return TaskData(self, labels, found["train"], dev, found["test"], pictures.source)

    def load_unseen(self, seed: int, report_on_dev: bool = False) -> TaskData | None:
        """The second half of the classes of a task with `classes=base`: what base-to-new reports on."""
        return replace(self, classes="new").load(seed, report_on_dev) if self.classes == "base" else None

    def describe(self) -> str:
        """The task in words, for a mentor, with the placeholder for the name of a class."""
        return f"{self.description} {CLASS} in a prompt stands for the name of a class.".strip()

    def start_text(self) -> str:
        """The words of the hand-made prompt in front of the class's name, or the description where there are none."""
        return self.template.partition("{}")[0].strip() or self.description

    def show(self, example: Example) -> Example:
        """An example as a mentor sees it: the image itself is not sent."""
        return picture_row("(a picture)", example.label)

    def identify(self, example: Example) -> Example:
        """An image by its own name and that of its folder, without the place of that folder."""
        ((path, _),) = example.sequences
        return picture_row("/".join(Path(path).parts[-2:]), example.label)


def read_pictures(task: ImageTask, seed: int) -> Pictures:
    """Every picture of the task's data set. Raises ConfigurationError where it is not there or not as it should be."""
    if task.layout == "shapes":
        return image_layouts.read_folders(shapes.ensure_drawn(), image_layouts.SPLITS)
    named = {"train": task.train, "dev": task.dev, "test": task.test}
    splits = {role: split for role, split in named.items() if split}
    folder = local_folder(task)
    if folder is None:
        return image_layouts.read_hub_pictures(task, splits)
    try:
        return read_folder(task, folder, splits, seed)
    except OSError as error:
        raise unreadable(Path(error.filename or folder), error) from error


def read_folder(task: ImageTask, folder: Path, splits: Mapping[str, str], seed: int) -> Pictures:
    """The data set in a folder. Raises ConfigurationError where it is not as it should be, and OSError."""
    if task.layout == "coop":
        return image_layouts.read_split_file(folder / task.split_file, folder / task.pictures)
    if task.layout == "aircraft":
        return image_layouts.read_aircraft(folder)
    if task.layout == "imagenet":
        return image_layouts.read_imagenet(folder)
    if (folder / task.train).is_dir():
        return image_layouts.read_folders(folder, splits)
    return image_layouts.divide_folders(folder, seed, task.split_seed)


def local_folder(task: ImageTask) -> Path | None:
    """The folder of the data set; None means the hub.

    Looked for below `task.path`, or else $CATALYST_DATA/<task> and CoOp's own $CATALYST_DATA/<folder>.
    """
    # The file, below the data set's folder, by which its layout is known; "" for any folder.
    marker = {"coop": task.split_file, "aircraft": "variants.txt", "imagenet": "classnames.txt"}.get(task.layout, "")
    root = task.path or os.environ.get("CATALYST_DATA")
    below = ["", task.folder] if task.path else [task.name, f"{task.name}/{task.folder}", task.folder or task.name]
    places = list(dict.fromkeys((expand_path(root) / name).absolute() for name in below)) if root else []
    for place in places:
        if os.path.isdir(place) and os.path.exists(place / marker):
            return place
    if task.hub and not task.path and not any(map(os.path.isdir, places)):
        return None
    shown = ", ".join(shorten_text(escape_controls(str(place)), LONGEST_PATH) for place in places)
    looked = f" (looked into {shown})" if places else ""
    fix = "set task.path=FOLDER, or put its folder into $CATALYST_DATA"
    if marker:
        fix += ", laid out as https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md says"
    raise ConfigurationError(f"task={task.name}: there is no {marker or 'folder of pictures'}{looked}; {fix}")


def select_half(labels: set[int], classes: str) -> list[int]:
    """The label ids of a half of the classes, sorted: base is the first, the larger where their number is odd."""
    ordered = sorted(labels)
    middle = (len(ordered) + 1) // 2
    return {"all": ordered, "base": ordered[:middle], "new": ordered[middle:]}[classes]


def renumber_labels(pictures: Pictures, rows: Sequence[Example], chosen: Sequence[int]) -> tuple[Example, ...]:
    """The rows of the chosen classes with ids from 0 on, each with the path of its picture."""
    number = {label: i for i, label in enumerate(chosen)}
    kept = [row for row in rows if row.label in number]
    return tuple(picture_row(pictures.file(row.sequences[0][0]), number[row.label], row.row) for row in kept)


def check_files(where: str, examples: Sequence[Example], source: str) -> None:
    """Raise ConfigurationError where a split has no picture, or one of its pictures is no file."""
    if not examples:
        raise ConfigurationError(f"{where}: there is no picture; take fewer task.shots, or add pictures to {source}")
    missing = [path for example in examples for path, _ in example.sequences if not os.path.isfile(path)]
    if missing:
        problem = f"{len(missing)} of {len(examples)} pictures are missing, such as {escape_controls(missing[0])}"
        raise ConfigurationError(f"{where}: {problem}; is the archive unpacked as a whole, and in the right folder?")


def open_image(path: str | Path) -> Image.Image:
    """The picture as 8-bit RGB, upright; its content counts, not its suffix.

    CMYK, palettes, gray and 16 bits are converted, transparency is laid on white, and a picture is turned as its EXIF
    says; of an animation the first frame counts. (CoOp converts to RGB only.) Raises ConfigurationError with the file
    and the fix for what is no picture, ends too early, or is too large or too long to be scaled.
    """
    file = escape_controls(str(path))
    if not os.path.isfile(path):
        raise ConfigurationError(f"{file}: there is no such file; fetch it anew, or leave its row out")
    try:
        with Image.open(path) as image:
            rgb = as_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        what = "the file is empty" if not os.path.getsize(path) else "this is no picture that can be read"
        raise ConfigurationError(f"{file}: {what}; save it anew as JPEG or PNG, or remove it") from None
    except Image.DecompressionBombError as error:
        raise ConfigurationError(f"{file}: the picture is too large ({error}); scale it down") from None
    except Exception as error:  # the content is untrusted, and decoders raise errors of any class
        problem = escape_controls(str(error)[:200])
        raise ConfigurationError(f"{file}: the picture is damaged ({problem}); fetch it anew, or remove it") from None
    if max(rgb.size) > LONGEST * min(rgb.size):
        raise ConfigurationError(f"{file}: {rgb.width} x {rgb.height} pixels are too long a strip; crop it")
    return rgb


def as_rgb(image: Image.Image) -> Image.Image:
    """An opened picture as 8-bit RGB."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Whole numbers of 16 bits: a plain conversion would clip them at 255.
        numbers = np.asarray(image).astype(np.int64).clip(0, 65535) // 257
        return Image.fromarray(numbers.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are fractions without a known range")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return image.convert("RGB")


def check_images(paths: Sequence[str]) -> None:
    """Raise ConfigurationError where some pictures cannot be read; it counts them, and describes the first ones."""
    problems = []
    for path in paths:
        try:
            open_image(path)
        except ConfigurationError as error:
            problems.append(str(error))
    if problems:
        problem = f"{len(problems)} of {len(paths)} pictures cannot be used: {' | '.join(problems[:FIRST_BAD])}"
        raise ConfigurationError(problem)
