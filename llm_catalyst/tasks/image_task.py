"""Image tasks: labelled pictures, few shots of each class, and halves of the classes (base and new).

The "text" of an example is the absolute path of its picture. A task is one YAML in conf/task; its fields are those of
`ImageTask`. How data sets lie on disk is read in image_layouts.py.

Few-shot sampling and the halves follow CoOp and CoCoOp (Zhou et al. 2022, IJCV, arXiv 2109.01134, and CVPR, arXiv
2203.05557; KaiyangZhou/CoOp, datasets/oxford_pets.py, and Dassl's generate_fewshot_dataset): with CoOp's split file,
the same seed and shots draw the same pictures as its code. Different: where a data set has no dev split (ImageNet,
whose validation split is test here as there), dev is drawn from train; CoOp takes test for it.
"""

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from PIL import Image, ImageOps, UnidentifiedImageError

from llm_catalyst.tasks import image_layouts, shapes
from llm_catalyst.tasks.base import CLASS, Example, Task, TaskData
from llm_catalyst.tasks.hub import name_source, read_hub
from llm_catalyst.tasks.image_layouts import Pictures
from llm_catalyst.tasks.row_files import list_names
from llm_catalyst.tasks.splitting import carve_dev, sample_coop_shots
from llm_catalyst.utils.rng import derive_seed
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError, config_dataclass

# The file by which a layout is known, below the data set's folder; `coop` has it in `split_file`.
MARKERS = {"aircraft": "variants.txt", "imagenet": "classnames.txt", "folders": "", "shapes": ""}
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
    shots: Annotated[int, Ge(1)] | None = 16
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

    def __post_init__(self) -> None:
        if self.layout == "coop" and not self.split_file:
            raise ConfigurationError("task.layout=coop needs task.split_file, such as split_zhou_Caltech101.json")
        for key, template in [("template", self.template), *(("templates", t) for t in self.templates)]:
            if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
                raise ConfigurationError(f"task.{key}={template!r} must hold {{}} once, where the class goes")

    @property
    def marker(self) -> str:
        """The file, below the data set's folder, by which its layout is known; '' for any folder."""
        return self.split_file if self.layout == "coop" else MARKERS[self.layout]

    def load(self, seed: int, report_on_dev: bool = False) -> TaskData:
        """The task's images as train, dev and test; labels are the names of the chosen classes, in their order.

        With `shots`, train has that many images of each class and dev at most 4, drawn by `seed`; test is whole.
        With `report_on_dev` (protocol `official`) dev is test. Images are not opened here.
        """
        pictures = read_pictures(self, seed)
        train, dev, test = split_pictures(self, pictures, seed, report_on_dev)
        trained = {example.label for example in train}
        if unknown := sorted({e.label for e in (*dev, *test)} - trained):
            names = list_names(pictures.names[label] for label in unknown)
            raise ConfigurationError(
                f"task={self.name}: train has no picture of {names}; add some, or leave the class out"
            )
        chosen = select_half(trained, self.classes)
        if len(chosen) < 2:
            raise ConfigurationError(
                f"task={self.name}: there are {len(trained)} classes, and task.classes={self.classes} takes "
                f"{len(chosen)}; at least two are needed to tell apart: add another, or set task.classes=all"
            )
        labels = tuple(name_class(self, pictures.names[label]) for label in chosen)
        found = {}
        for name, rows in (("train", train), ("dev", dev), ("test", test)):
            found[name] = renumber_labels(pictures, rows, chosen)
            check_there(f"task={self.name}, {name}", found[name], pictures.source)
        return TaskData(self, labels, found["train"], found["dev"], found["test"], pictures.source)

    def load_unseen(self, seed: int, report_on_dev: bool = False) -> TaskData | None:
        """The second half of the classes of a task with `classes=base`: what base-to-new reports on."""
        return replace(self, classes="new").load(seed, report_on_dev) if self.classes == "base" else None

    def describe(self) -> str:
        """The task in words, for a mentor, and what stands for the name of a class."""
        return f"{self.description} {CLASS} in a prompt stands for the name of a class.".strip()

    def show(self, example: Example) -> Example:
        """An example as a mentor sees it: the image itself is not sent."""
        return Example((("(a picture)", None),), example.label)

    def identify(self, example: Example) -> Example:
        """An image by its own name and that of its folder, wherever that lies."""
        ((path, _),) = example.sequences
        return Example((("/".join(Path(path).parts[-2:]), None),), example.label)


def read_pictures(task: ImageTask, seed: int) -> Pictures:
    """Every picture of the task's data set. Raises ConfigurationError where it is not there or not as it should be."""
    if task.layout == "shapes":
        return image_layouts.read_folders(shapes.ensure_drawn(), "train", "val", "test", seed)
    folder = local_folder(task)
    if folder is None:
        data = {split: read_hub(task, split) for split in (task.train, task.dev, task.test) if split}
        columns = task.image, task.label
        return image_layouts.hub_pictures(data, columns, (task.train, task.dev, task.test), name_source(task))
    if task.layout == "coop":
        return image_layouts.read_split_file(folder / task.split_file, folder / task.pictures)
    if task.layout == "aircraft":
        return image_layouts.read_aircraft(folder)
    if task.layout == "imagenet":
        return image_layouts.read_imagenet(folder)
    return image_layouts.read_folders(folder, task.train, task.dev, task.test, seed)


def local_folder(task: ImageTask) -> Path | None:
    """The folder of the data set; None means the hub.

    Looked for below `task.path`, or else $CATALYST_DATA/<task> and CoOp's own $CATALYST_DATA/<folder>.
    """
    if task.path:
        places = [Path(task.path).expanduser() / below for below in ("", task.folder)]
    elif data := os.environ.get("CATALYST_DATA"):
        places = [Path(data).expanduser() / below for below in (task.name, f"{task.name}/{task.folder}", task.folder)]
        places = [place for place in places if place != Path(data).expanduser()]
    else:
        places = []
    places = list(dict.fromkeys(place.absolute() for place in places))
    for place in places:
        if place.is_dir() and (place / task.marker).exists():
            return place
    if task.hub and not task.path and not any(place.is_dir() for place in places):
        return None
    looked = f" (looked into {', '.join(escape_controls(str(place)) for place in places)})" if places else ""
    fix = "set task.path=FOLDER, or put its folder into $CATALYST_DATA"
    if task.marker:
        fix += ", laid out as https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md says"
    raise ConfigurationError(f"task={task.name}: there is no {task.marker or 'folder of pictures'}{looked}; {fix}")


def split_pictures(
    task: ImageTask, pictures: Pictures, seed: int, report_on_dev: bool
) -> tuple[Sequence[Example], Sequence[Example], Sequence[Example]]:
    """The rows of train, dev and test, of all classes.

    Train and dev are drawn one after the other from one stream, seeded by the run's seed itself, as CoOp's are.
    """
    rows, dev, test = pictures.train, pictures.dev, pictures.test
    if test is None:
        rows, test = carve_dev(rows, DEV_SHARE, DEV_ROWS, derive_seed(seed, "test"))
    rng = random.Random(seed)
    if task.shots:
        train = sample_coop_shots(rows, task.shots, rng)
        taken = set(train)
        dev = [row for row in rows if row not in taken] if dev is None else dev
        return train, test if report_on_dev else sample_coop_shots(dev, min(task.shots, COOP_DEV_SHOTS), rng), test
    if dev is None and not report_on_dev:
        rows, dev = carve_dev(rows, DEV_SHARE, DEV_ROWS, derive_seed(seed, "dev"))
    return rows, test if report_on_dev or dev is None else dev, test


def select_half(labels: set[int], classes: str) -> list[int]:
    """The label ids of a half of the classes, sorted: base is the first, the larger where their number is odd."""
    ordered = sorted(labels)
    middle = (len(ordered) + 1) // 2
    return {"all": ordered, "base": ordered[:middle], "new": ordered[middle:]}[classes]


def name_class(task: ImageTask, name: str) -> str:
    """A class as it stands in prompts: renamed where the task says so, with blanks for underscores."""
    return task.names.get(name, name).replace("_", " ").strip()


def renumber_labels(pictures: Pictures, rows: Sequence[Example], chosen: Sequence[int]) -> tuple[Example, ...]:
    """The rows of the chosen classes with ids from 0 on, each with the path of its picture."""
    number = {label: i for i, label in enumerate(chosen)}
    kept = [row for row in rows if row.label in number]
    return tuple(Example(((pictures.file(row.sequences[0][0]), None),), number[row.label]) for row in kept)


def check_there(where: str, examples: Sequence[Example], source: str) -> None:
    """Raise ConfigurationError where a split has no picture, or one of its pictures is no file."""
    if not examples:
        raise ConfigurationError(f"{where}: there is no picture; take fewer task.shots, or add pictures to {source}")
    missing = [path for example in examples for path, _ in example.sequences if not os.path.isfile(path)]
    if missing:
        raise ConfigurationError(
            f"{where}: {len(missing)} of {len(examples)} pictures are missing, such as {escape_controls(missing[0])}; "
            "is the archive unpacked as a whole, and in the right folder?"
        )


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
    except Exception as error:  # the content is untrusted, and decoders raise whatever comes to them
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


def open_images(paths: Sequence[str]) -> Iterator[Image.Image]:
    """The pictures one by one, as `open_image` gives them.

    When the first one cannot be read, the rest are opened too, so that one ConfigurationError counts all that cannot
    be read and names the first; none is opened twice.
    """
    remaining = iter(paths)
    for path in remaining:
        try:
            image = open_image(path)
        except ConfigurationError as error:
            problems = [str(error), *filter(None, map(problem_of, remaining))]
            raise ConfigurationError(
                f"{len(problems)} of {len(paths)} pictures cannot be used: {' | '.join(problems[:FIRST_BAD])}"
            ) from None
        yield image


def problem_of(path: str) -> str:
    """Why a picture cannot be used, and the fix; '' where it can."""
    try:
        open_image(path)
    except ConfigurationError as error:
        return str(error)
    return ""
