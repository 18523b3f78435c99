"""How data sets of pictures lie on disk: CoOp's split files, FGVC Aircraft, ImageNet, folders of classes, and the hub.

Names of files and folders follow KaiyangZhou/CoOp (DATASETS.md and datasets/*.py). What a file holds is untrusted.
"""

import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.row_files import list_names, shorten_value
from llm_catalyst.utils.paths import writable_cache
from llm_catalyst.utils.rng import derive_seed
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SHARES = 0.5, 0.2  # of train and dev, where a folder has no splits; the rest is test. As CoOp divides such data


@dataclass(frozen=True)
class Pictures:
    """A data set: the name of each label id, and the rows of its splits in their own order.

    A row's text is the path of its picture, or what `file` makes into one. dev or test is None where it must be held
    out of train.
    """

    names: Mapping[int, str]
    train: Sequence[Example]
    dev: Sequence[Example] | None
    test: Sequence[Example] | None
    source: str
    file: Callable[[str], str] = str


def picture_row(path: Path | str, label: int) -> Example:
    """A picture and its label id."""
    return Example(((str(path), None),), label)


def picture_cache() -> Path:
    """Where pictures are written to. Raises ConfigurationError where they cannot be."""
    return writable_cache("images", "pictures are kept")


def read_text(file: Path) -> str:
    """A file's text. Raises ConfigurationError where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{escape_controls(str(file))} cannot be read ({error}); fetch it anew") from None


def read_split_file(file: Path, pictures: Path) -> Pictures:
    """The data set of a split file in CoOp's form: {"train": [[path, label id, class], …], "val": …, "test": …}.

    Paths are relative to the folder `pictures`.
    """
    text = read_text(file)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{escape_controls(str(file))} is no JSON ({error}); fetch it anew") from None
    names: dict[int, str] = {}
    train, dev, test = (list(split_rows(file, content, split, pictures, names)) for split in ("train", "val", "test"))
    return Pictures(names, train, dev, test, str(file))


def split_rows(file: Path, content: Any, split: str, pictures: Path, names: dict[int, str]) -> Iterator[Example]:
    """The rows of one split of a split file; fills `names`."""
    items = content.get(split) if isinstance(content, dict) else None
    if not isinstance(items, list) or not items:
        raise ConfigurationError(f"{escape_controls(str(file))} has no list {split!r}; fetch it anew")
    for number, item in enumerate(items, start=1):
        match item:
            case [str(path), int(label), str(name)] if names.setdefault(label, name) == name:
                yield picture_row(pictures / path, label)
            case _:
                shown = shorten_value(item)
                problem = f"{split}, entry {number}: {shown} is no [path, label id, class], or names a class anew"
                raise ConfigurationError(f"{escape_controls(str(file))}, {problem}; correct it, or fetch the file anew")


def read_aircraft(folder: Path) -> Pictures:
    """FGVC Aircraft by its own lists: the variants in order, and "number variant" lines for each split."""
    variants = read_text(folder / "variants.txt").splitlines()
    number = {name.strip(): i for i, name in enumerate(variants) if name.strip()}

    def rows(split: str) -> Iterator[Example]:
        file = folder / f"images_variant_{split}.txt"
        for line, text in enumerate(read_text(file).splitlines(), start=1):
            picture, _, variant = text.strip().partition(" ")
            if variant not in number:
                problem = f"{shorten_value(variant)} is not in variants.txt; fetch both anew"
                raise ConfigurationError(f"{escape_controls(str(file))}, line {line}: {problem}")
            yield picture_row(folder / "images" / f"{picture}.jpg", number[variant])

    names = {i: name for name, i in number.items()}
    return Pictures(names, list(rows("train")), list(rows("val")), list(rows("test")), str(folder))


def read_imagenet(folder: Path) -> Pictures:
    """ImageNet: a folder for each class, named in classnames.txt ("n01440764 tench"). Its val is test; there is no dev.

    Pictures are sorted by name; CoOp takes them as the file system lists them, so the same seed draws others there.
    """
    file = folder / "classnames.txt"
    known = dict(line.strip().split(" ", 1) for line in read_text(file).splitlines() if " " in line.strip())
    train, val = (folders_of(folder / "images" / split) for split in ("train", "val"))
    classes = sorted({*train, *val})
    if unnamed := [name for name in classes if name not in known]:
        raise ConfigurationError(f"{escape_controls(str(file))} does not name {list_names(unnamed)}; fetch it anew")
    number = {name: i for i, name in enumerate(classes)}
    names = {i: known[name] for name, i in number.items()}
    return Pictures(names, class_rows(train, number), None, class_rows(val, number), str(folder))


def read_folders(folder: Path, train: str, dev: str | None, test: str | None, seed: int) -> Pictures:
    """Pictures in folder/split/class/, or, where there is no folder `train`, in folder/class/ and split by `seed`.

    Classes are sorted by name. Without splits half of each class is train, a fifth dev, the rest test.
    """
    if not (folder / train).is_dir():
        classes = folders_of(folder)
        number = {name: i for i, name in enumerate(classes)}
        return divide_rows(class_rows(classes, number), classes, folder, seed)
    splits = {split: folders_of(folder / split) for split in (train, dev, test) if split}
    number = {name: i for i, name in enumerate(sorted({name for classes in splits.values() for name in classes}))}
    rows = {split: class_rows(classes, number) for split, classes in splits.items()}
    names = {i: name for name, i in number.items()}
    return Pictures(names, rows[train], rows[dev] if dev else None, rows[test] if test else None, str(folder))


def folders_of(folder: Path) -> dict[str, Path]:
    """The folders in a folder, by name and in its order. Raises ConfigurationError where there are none."""
    try:
        found = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")}
    except OSError:
        there = sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) if folder.parent.is_dir() else []
        raise ConfigurationError(
            f"there is no folder {escape_controls(str(folder))} (beside it: {list_names(there) or 'nothing'}); "
            "name the splits by task.train, task.dev and task.test (null: held out of train)"
        ) from None
    if not found:
        raise ConfigurationError(
            f"{escape_controls(str(folder))} holds no folder; put the pictures of each class into one"
        )
    return found


def class_rows(classes: Mapping[str, Path], number: Mapping[str, int]) -> list[Example]:
    """The pictures of each class's folder, sorted by name; files with other suffixes are passed over."""
    rows = []
    for name, folder in classes.items():
        files = sorted(e.name for e in os.scandir(folder) if e.name.lower().endswith(SUFFIXES) and e.name[0] != ".")
        if not files:
            raise ConfigurationError(
                f"{escape_controls(str(folder))} holds no picture ({', '.join(SUFFIXES)}); add some, or remove "
                "the folder"
            )
        rows += [picture_row(folder / file, number[name]) for file in files]
    return rows


def divide_rows(rows: Sequence[Example], classes: Mapping[str, Path], folder: Path, seed: int) -> Pictures:
    """The rows of each class divided into train, dev and test, each with one picture at least."""
    rng = random.Random(derive_seed(seed, "split of pictures"))
    train, dev, test = list[Example](), list[Example](), list[Example]()
    for label, name in enumerate(classes):
        own = [r for r in rows if r.label == label]
        if len(own) < 3:
            raise ConfigurationError(
                f"{escape_controls(str(folder / name))} holds {len(own)} pictures; there must be 3, for train, "
                "dev and test"
            )
        rng.shuffle(own)
        for_train, for_dev = (max(1, round(share * len(own))) for share in SHARES)
        for_train = min(for_train, len(own) - for_dev - 1)
        train += own[:for_train]
        dev += own[for_train : for_train + for_dev]
        test += own[for_train + for_dev :]
    return Pictures(dict(enumerate(classes)), train, dev, test, str(folder))


def hub_pictures(
    data: Mapping[str, Any], columns: tuple[str, str], splits: tuple[str, str | None, str | None], source: str
) -> Pictures:
    """Loaded `datasets.Dataset`s by split, their pictures written into the cache when `file` asks for them.

    `columns` are those of the picture and the label; `splits` are named in the order train, dev, test. A picture's file
    is named by its content, so that it is written once, and never stale.
    """
    import datasets

    image, label = columns
    for split, table in data.items():
        check_columns(table, columns, f"{source}, {split}")
    folder = picture_cache()
    encoded = {split: table.cast_column(image, datasets.Image(decode=False)) for split, table in data.items()}
    names = hub_names(data, label, source)
    rows = {split: list(hub_rows(table, split, label, names, source)) for split, table in data.items()}

    def file(place: str) -> str:
        split, _, number = place.rpartition("/")
        where = f"{source}, {split}, row {int(number) + 1}"
        return str(store_picture(encoded[split][int(number)][image], folder, where))

    train, dev, test = splits
    return Pictures(names, rows[train], rows[dev] if dev else None, rows[test] if test else None, source, file)


def check_columns(table: Any, columns: tuple[str, str], where: str) -> None:
    """Raise ConfigurationError unless the `datasets.Dataset` has both columns, the first of them one of pictures."""
    import datasets

    lacking = [name for name in columns if name not in table.column_names]
    if lacking or not isinstance(table.features[columns[0]], datasets.Image):
        problem = f"there is no column {list_names(lacking)}" if lacking else f"column {columns[0]} holds no pictures"
        fix = "name the columns in task.image and task.label"
        raise ConfigurationError(f"{where}: {problem}; there are: {list_names(table.column_names)}; {fix}")


def hub_names(data: Mapping[str, Any], label: str, source: str) -> dict[int, str]:
    """The names of the label ids: as the data set declares them, or else the texts in the column, sorted."""
    import datasets

    feature = next(iter(data.values())).features[label]
    if isinstance(feature, datasets.ClassLabel):
        return dict(enumerate(feature.names))
    if getattr(feature, "dtype", "") not in ("string", "large_string"):
        raise ConfigurationError(
            f"{source}: column {label!r} holds numbers without names, and prompts need the classes' names; "
            "name another column in task.label, or take the pictures from folders (task.path)"
        )
    texts = {value for table in data.values() for value in values_of(table, label)}
    return dict(enumerate(sorted(texts - {None})))


def hub_rows(table: Any, split: str, label: str, names: Mapping[int, str], source: str) -> Iterator[Example]:
    """The rows of a split, each with its place, split/number, for a path."""
    number = {name: i for i, name in names.items()}
    for i, value in enumerate(values_of(table, label)):
        known = number.get(value, -1) if isinstance(value, str) else value
        if known not in names:
            fix = "name splits that have labels in task.train, task.dev and task.test"
            raise ConfigurationError(f"{source}, {split}, row {i + 1}: label {shorten_value(value)} is no class; {fix}")
        yield picture_row(f"{split}/{i}", known)


def values_of(table: Any, column: str) -> list[Any]:
    """A column of a `datasets.Dataset`; no picture is read."""
    return list(table.select_columns([column])[:][column])


def store_picture(cell: Mapping[str, Any] | None, folder: Path, where: str) -> Path:
    """The file in `folder` that holds an encoded picture ({bytes, path}) of a data set; written if it is not there."""
    cell = cell or {}
    name = str(cell.get("path") or "")
    content = cell.get("bytes")
    if content is None and name:
        content = Path(name).read_bytes()
    if content is None:
        raise ConfigurationError(f"{where}: there is no picture; remove the row")
    suffix = Path(name).suffix.lower()
    path = folder / (sha256(content).hexdigest() + (suffix if suffix in SUFFIXES else ""))
    if not path.is_file() or path.stat().st_size != len(content):
        # Under a name of its own until it is whole: other processes may write the same picture.
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as part:
            part.write(content)
        os.replace(part.name, path)
    return path
