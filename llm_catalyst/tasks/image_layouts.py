"""Layouts of data sets of pictures: CoOp's split files, FGVC Aircraft, ImageNet, folders of classes, and the hub.

Names of files and folders follow KaiyangZhou/CoOp (DATASETS.md and datasets/*.py). What a file holds is untrusted.
"""

import json
import os
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.hub import name_source, read_hub
from llm_catalyst.tasks.json_rows import shorten_value
from llm_catalyst.tasks.row_files import require_columns
from llm_catalyst.utils.checksums import sha256
from llm_catalyst.utils.paths import writable_cache
from llm_catalyst.utils.rng import derive_seed
from llm_catalyst.utils.terminal import escape_controls, list_names
from llm_catalyst.utils.validation import ConfigurationError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SHARES = 0.5, 0.2  # of train and dev, where a folder has no splits; the rest is test. As CoOp divides such data
SPLITS = {"train": "train", "dev": "val", "test": "test"}  # their names in CoOp's files and in FGVC Aircraft's


@dataclass(frozen=True)
class Pictures:
    """A data set: the name of each label id, and the rows of train, dev and test, each in its own order.

    A row's text is the path of its picture, or what `file` makes into one. There is no dev or test where it must be
    held out of train.
    """

    names: Mapping[int, str]
    splits: Mapping[str, Sequence[Example]]
    source: str
    file: Callable[[str], str] = str


def picture_row(path: Path | str, label: int, row: int | None = None) -> Example:
    """A picture and its label id, and its place among the pictures of its split."""
    return Example(((str(path), None),), label, row)


def picture_cache() -> Path:
    """The folder that pictures are written to. Raises ConfigurationError if it is not writable."""
    return writable_cache("images", "pictures are kept")


def path_error(place: Path | str, problem: str) -> ConfigurationError:
    """The error that names a file or folder, or a place in one, and what is wrong there."""
    return ConfigurationError(f"{escape_controls(str(place))} {problem}")


def read_text(file: Path) -> str:
    """A file's text. Raises ConfigurationError where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise path_error(file, f"cannot be read ({error}); fetch it anew") from None


def read_split_file(file: Path, pictures: Path) -> Pictures:
    """The data set of a split file in CoOp's form: {"train": [[path, label id, class], …], "val": …, "test": …}.

    Paths are relative to the folder `pictures`.
    """
    text = read_text(file)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise path_error(file, f"is no JSON ({error}); fetch it anew") from None
    names: dict[int, str] = {}

    def rows(split: str) -> Iterator[Example]:
        items = content.get(split) if isinstance(content, dict) else None
        if not isinstance(items, list) or not items:
            raise path_error(file, f"has no list {split!r}; fetch it anew")
        for number, item in enumerate(items, start=1):
            match item:
                case [str(path), int(label), str(name)] if names.setdefault(label, name) == name:
                    yield picture_row(pictures / path, label, number)
                case _:
                    problem = f"{shorten_value(item)} is no [path, label id, class], or names a class anew"
                    raise path_error(f"{file}, {split}, entry {number}:", f"{problem}; correct it, or fetch it anew")

    return Pictures(names, {role: list(rows(split)) for role, split in SPLITS.items()}, str(file))


def read_aircraft(folder: Path) -> Pictures:
    """FGVC Aircraft by its own lists: the variants in order, and "number variant" lines for each split."""
    variants = list(filter(None, map(str.strip, read_text(folder / "variants.txt").splitlines())))
    number = {name: i for i, name in enumerate(variants)}

    def rows(split: str) -> Iterator[Example]:
        file = folder / f"images_variant_{split}.txt"
        for line, text in enumerate(read_text(file).splitlines(), start=1):
            picture, _, variant = text.strip().partition(" ")
            if variant not in number:
                problem = f"{shorten_value(variant)} is not in variants.txt; fetch both anew"
                raise path_error(f"{file}, line {line}:", problem)
            yield picture_row(folder / "images" / f"{picture}.jpg", number[variant], line)

    return Pictures(dict(enumerate(variants)), {role: list(rows(split)) for role, split in SPLITS.items()}, str(folder))


def read_imagenet(folder: Path) -> Pictures:
    """ImageNet: a folder for each class, named in classnames.txt ("n01440764 tench"). Its val is test; there is no dev.

    Pictures are sorted by name; CoOp takes them as the file system lists them, so the same seed draws others there.
    """
    file = folder / "classnames.txt"
    known = dict(line.strip().split(" ", 1) for line in read_text(file).splitlines() if " " in line.strip())
    found = read_folders(folder / "images", {"train": "train", "test": "val"})
    if unnamed := [name for name in found.names.values() if name not in known]:
        raise path_error(file, f"does not name {list_names(unnamed)}; fetch it anew")
    return replace(found, names={i: known[name] for i, name in found.names.items()}, source=str(folder))


def read_folders(folder: Path, splits: Mapping[str, str]) -> Pictures:
    """Pictures in folder/split/class/, with a folder for each of the splits. Classes are sorted by name."""
    found = {role: folders_of(folder / split) for role, split in splits.items()}
    names = sorted({name for classes in found.values() for name in classes})
    number = {name: i for i, name in enumerate(names)}
    rows = {role: class_rows(classes, number) for role, classes in found.items()}
    return Pictures(dict(enumerate(names)), rows, str(folder))


def folders_of(folder: Path) -> dict[str, Path]:
    """The folders in a folder, by name and in its order. Raises ConfigurationError where there are none."""
    try:
        found = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")}
    except OSError:
        there = sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) if folder.parent.is_dir() else []
        problem = f"there is no folder {escape_controls(str(folder))} (beside it: {list_names(there) or 'nothing'})"
        fix = "name the splits by task.train, task.dev and task.test (null: held out of train)"
        raise ConfigurationError(f"{problem}; {fix}") from None
    if not found:
        raise path_error(folder, "holds no folder; put the pictures of each class into one")
    return found


def class_rows(classes: Mapping[str, Path], number: Mapping[str, int]) -> list[Example]:
    """The pictures of each class's folder, sorted by name; files with other suffixes are passed over."""
    rows: list[Example] = []
    for name, folder in classes.items():
        files = sorted(e.name for e in os.scandir(folder) if e.name.lower().endswith(SUFFIXES) and e.name[0] != ".")
        if not files:
            raise path_error(folder, f"holds no picture ({', '.join(SUFFIXES)}); add some, or remove the folder")
        rows += [picture_row(folder / file, number[name], i) for i, file in enumerate(files, start=len(rows) + 1)]
    return rows


def divide_folders(folder: Path, seed: int, split_seed: int | None) -> Pictures:
    """Pictures in folder/class/: half of each class is train, a fifth dev, the rest test, one picture at least.

    `split_seed` draws test, and `seed` divides the others; with None, the rule of earlier runs, `seed` draws all.
    """
    rng = random.Random(derive_seed(seed, "split of pictures"))
    test_rng = rng if split_seed is None else random.Random(derive_seed(split_seed, "test pictures"))
    classes = folders_of(folder)
    splits: dict[str, list[Example]] = {role: [] for role in SPLITS}
    rows = class_rows(classes, {name: label for label, name in enumerate(classes)})
    for label, place in enumerate(classes.values()):
        own = [row for row in rows if row.label == label]
        if len(own) < 3:
            raise path_error(place, f"holds {len(own)} pictures; there must be 3, for train, dev and test")
        test_rng.shuffle(own)
        for_train, for_dev = (max(1, round(share * len(own))) for share in SHARES)
        for_train = min(for_train, len(own) - for_dev - 1)
        others, test = own[: for_train + for_dev], own[for_train + for_dev :]
        if split_seed is not None:
            rng.shuffle(others)
        splits["train"] += others[:for_train]
        splits["dev"] += others[for_train:]
        splits["test"] += test
    return Pictures(dict(enumerate(classes)), splits, str(folder))


def read_hub_pictures(task: Any, splits: Mapping[str, str]) -> Pictures:
    """The task's data set on the Hugging Face hub, its pictures written into the cache when `file` asks for them.

    A picture's file is named by its content, so that it is written once, and never stale.
    """
    import datasets

    source, folder = name_source(task), picture_cache()
    data = {split: read_hub(task, split) for split in splits.values()}
    for split, table in data.items():
        where, fix = f"{source}, {split}", "name the columns in task.image and task.label"
        require_columns(where, (task.image, task.label), table.column_names, fix)
        if not isinstance(table.features[task.image], datasets.Image):
            there = f"there are: {list_names(table.column_names)}"
            raise ConfigurationError(f"{where}: column {task.image} holds no pictures; {there}; {fix}")
    encoded = {split: table.cast_column(task.image, datasets.Image(decode=False)) for split, table in data.items()}
    labels = {split: table.select_columns([task.label])[:][task.label] for split, table in data.items()}
    feature = data[splits["train"]].features[task.label]
    names = hub_names(feature, labels.values(), f"{source}: column {task.label!r}")

    def file(place: str) -> str:
        split, _, number = place.rpartition("/")
        where = f"{source}, {split}, row {int(number) + 1}"
        return str(store_picture(encoded[split][int(number)][task.image] or {}, folder, where))

    rows = {role: list(hub_rows(labels[split], split, names, source)) for role, split in splits.items()}
    return Pictures(names, rows, source, file)


def hub_names(feature: Any, labels: Iterable[Sequence[Any]], where: str) -> dict[int, str]:
    """The names of the label ids: as the data set declares them, or else the texts in the column, sorted."""
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return dict(enumerate(feature.names))
    if getattr(feature, "dtype", "") not in ("string", "large_string"):
        fix = "name another column in task.label, or take the pictures from folders (task.path)"
        raise ConfigurationError(f"{where} holds numbers without names, and prompts need the classes' names; {fix}")
    return dict(enumerate(sorted(set().union(*labels) - {None})))


def hub_rows(labels: Sequence[Any], split: str, names: Mapping[int, str], source: str) -> Iterator[Example]:
    """The rows of a split, each with its place, split/number, for a path."""
    number = {name: i for i, name in names.items()}
    for i, value in enumerate(labels):
        known = number.get(value, -1) if isinstance(value, str) else value
        if known not in names:
            fix = "name splits that have labels in task.train, task.dev and task.test"
            raise ConfigurationError(f"{source}, {split}, row {i + 1}: label {shorten_value(value)} is no class; {fix}")
        yield picture_row(f"{split}/{i}", known, i + 1)


def store_picture(cell: Mapping[str, Any], folder: Path, where: str) -> Path:
    """The file in `folder` that holds an encoded picture ({bytes, path}) of a data set; written if it is not there."""
    name = str(cell.get("path") or "")
    content = cell.get("bytes")
    if content is None and name:
        content = Path(name).read_bytes()
    if content is None:
        raise ConfigurationError(f"{where}: there is no picture; remove the row")
    suffix = Path(name).suffix.lower()
    path = folder / (sha256(content) + (suffix if suffix in SUFFIXES else ""))
    if not path.is_file() or path.stat().st_size != len(content):
        # Under a name of its own until it is whole: other processes may write the same picture.
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as part:
            part.write(content)
        os.replace(part.name, path)
    return path
