"""Image tasks: where pictures are found, which are drawn, and what becomes of bad ones."""

import io
import json
import os
import random
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from llm_catalyst.tasks.base import Example, TaskData
from llm_catalyst.tasks.image_task import ImageTask, check_images, open_image
from llm_catalyst.utils.validation import ConfigurationError

CLASSES = ("great_white_shark", "tench", "Motorbikes", "loggerhead", "cock")
COUNTS = {"train": (20, 20, 3, 20, 20), "val": (6, 6, 6, 2, 6), "test": (5, 5, 5, 5, 5)}
SPLIT_FILE = "split_zhou_Caltech101.json"
COOP: dict[str, Any] = {"name": "caltech101", "layout": "coop", "split_file": SPLIT_FILE, "pictures": "pictures"}


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and no data but what a test names."""
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CATALYST_DATA", raising=False)


def write(path: Path, shade: int = 0) -> Path:
    """A gray picture of 3 x 2 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2), (shade, shade, shade)).save(path)
    return path


@pytest.fixture(scope="session")
def coop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in CoOp's layout: five classes, their rows mixed; pictures are copies of one file."""
    folder = tmp_path_factory.mktemp("caltech-101")
    one = write(folder / "one.jpg")
    content = {}
    for split, counts in COUNTS.items():
        rows = [[f"{name}/{split}{n}.jpg", i, name] for i, name in enumerate(CLASSES) for n in range(counts[i])]
        random.Random(split).shuffle(rows)
        content[split] = rows
        for path, _, _ in rows:
            (folder / "pictures" / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(one, folder / "pictures" / path)
    (folder / SPLIT_FILE).write_text(json.dumps(content))
    return folder


def coop(folder: Path, **changes: Any) -> ImageTask:
    return ImageTask(**{**COOP, "path": str(folder), **changes})


def paths(examples: tuple[Example, ...]) -> list[str]:
    return [example.sequences[0][0] for example in examples]


def classes_of(data: TaskData) -> dict[str, set[str]]:
    """For each split the names of the classes in it."""
    return {s: {data.labels[e.label] for e in getattr(data, s)} for s in ("train", "dev", "test")}


def refusal(task: ImageTask) -> str:
    """The error of a load: short, printable, on one line."""
    with pytest.raises(ConfigurationError) as caught:
        task.load(seed=1)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


# --- shots and halves


def as_coop_draws(folder: Path, shots: int, seed: int) -> tuple[list[str], list[str]]:
    """CoOp's few-shot train and val, written anew from its description.

    Python's generator is seeded once. Class after class, as they first appear, `shots` items are sampled, with
    replacement only where there are fewer; first of train, then min(shots, 4) of val.
    """
    content = json.loads((folder / SPLIT_FILE).read_text())
    random.seed(seed)
    drawn = []
    for split, count in (("train", shots), ("val", min(shots, 4))):
        groups: dict[int, list[str]] = {}
        for path, label, _ in content[split]:
            groups[label] = [*groups.get(label, []), str(folder / "pictures" / path)]
        chosen: list[str] = []
        for group in groups.values():
            chosen += random.choices(group, k=count) if len(group) < count else random.sample(group, count)
        drawn.append(chosen)
    return drawn[0], drawn[1]


@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_seed_and_shots_draw_what_coop_draws(coop_folder: Path, shots: int, seed: int) -> None:
    data = coop(coop_folder, shots=shots).load(seed)
    assert (paths(data.train), paths(data.dev)) == as_coop_draws(coop_folder, shots, seed)
    assert Counter(example.label for example in data.train) == dict.fromkeys(range(5), shots)
    assert len(data.test) == sum(COUNTS["test"])


def test_the_same_seed_draws_the_same_pictures_and_another_seed_others(coop_folder: Path) -> None:
    first, again, other = (coop(coop_folder, shots=4).load(seed) for seed in (1, 1, 2))
    assert first == again
    assert first.fingerprints() == again.fingerprints()
    assert set(paths(first.train)) != set(paths(other.train))
    assert paths(first.test) == paths(other.test)


def test_a_class_with_fewer_pictures_than_shots_gives_some_of_them_again(coop_folder: Path) -> None:
    data = coop(coop_folder, shots=16).load(seed=1)
    few = [path for path in paths(data.train) if "Motorbikes" in path]
    assert (len(few), len(set(few))) == (16, 3)


def test_without_shots_every_picture_counts_once(coop_folder: Path) -> None:
    data = coop(coop_folder, shots=None).load(seed=1)
    found = (len(set(paths(rows))) for rows in (data.train, data.dev, data.test))
    assert tuple(found) == tuple(sum(counts) for counts in COUNTS.values())


def test_halves_of_the_classes_are_disjoint_and_together_all(coop_folder: Path) -> None:
    whole, base = (coop(coop_folder, classes=classes).load(seed=1) for classes in ("all", "base"))
    new = coop(coop_folder, classes="base").load_unseen(seed=1)
    assert new is not None
    assert base.labels == ("great white shark", "tench", "Motorbikes")
    assert new.labels == ("loggerhead", "cock")
    for name in ("train", "dev", "test"):
        of_base, of_new, of_all = (paths(getattr(data, name)) for data in (base, new, whole))
        assert not set(of_base) & set(of_new)
        assert sorted(of_base + of_new) == sorted(of_all)
    for data in (base, new):
        assert all(found == set(data.labels) for found in classes_of(data).values())
        assert all(data.labels[e.label].split()[-1] in paths((e,))[0] for e in data.test)


def test_only_a_task_of_base_classes_has_new_ones(coop_folder: Path) -> None:
    assert coop(coop_folder).load_unseen(seed=1) is None
    assert coop(coop_folder, classes="new").load_unseen(seed=1) is None


def test_under_the_official_protocol_test_chooses(coop_folder: Path) -> None:
    plain, official = (coop(coop_folder).load(1, report_on_dev) for report_on_dev in (False, True))
    assert official.dev == official.test == plain.test
    assert official.train == plain.train


def test_names_stand_in_prompts_with_blanks_and_as_the_task_renames_them(coop_folder: Path) -> None:
    data = coop(coop_folder, names={"Motorbikes": "motor_bike"}).load(seed=1)
    assert data.labels == ("great white shark", "tench", "motor bike", "loggerhead", "cock")


# --- where pictures lie


def test_data_lie_in_the_folder_of_the_task_or_in_that_of_coop(
    coop_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALYST_DATA", str(tmp_path))
    task = ImageTask(**COOP, folder="caltech-101")
    assert "caltech101" in refusal(task)
    for place in ("caltech-101", "caltech101/caltech-101", "caltech101"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        shutil.rmtree(tmp_path / place, ignore_errors=True)
        (tmp_path / place).symlink_to(coop_folder)
        assert task.load(seed=1).source == str(tmp_path / place / SPLIT_FILE)
        (tmp_path / place).unlink()
    assert ImageTask(**COOP, path=str(coop_folder.parent), folder=coop_folder.name).load(seed=1).labels


def test_aircraft_are_read_from_their_own_lists(tmp_path: Path) -> None:
    variants = ("707-320", "F/A-18", "Cessna 172")
    (tmp_path / "variants.txt").write_text("".join(f"{name}\n" for name in variants))
    for k, split in enumerate(("train", "val", "test")):
        rows = [(f"{k}{i}{n}", name) for i, name in enumerate(variants) for n in range(3)]
        (tmp_path / f"images_variant_{split}.txt").write_text("".join(f"{n} {name}\n" for n, name in rows))
        for n, _ in rows:
            write(tmp_path / "images" / f"{n}.jpg")
    data = ImageTask("fgvc_aircraft", layout="aircraft", path=str(tmp_path), shots=2).load(seed=1)
    assert data.labels == variants
    assert [len(rows) for rows in (data.train, data.dev, data.test)] == [6, 6, 9]
    assert all(Path(path).stem[:2] == f"2{e.label}" for e, path in zip(data.test, paths(data.test), strict=True))
    (tmp_path / "images_variant_val.txt").write_text("1 Concorde\n")
    assert "images_variant_val.txt, line 1: 'Concorde' is not in variants.txt" in refusal(
        ImageTask("fgvc_aircraft", layout="aircraft", path=str(tmp_path))
    )


def test_imagenet_reports_on_its_validation_split_and_draws_dev_from_train(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("n02 great white shark\nn01 tench\nn03 cock\n")
    for name in ("n01", "n02", "n03"):
        for n in range(12):
            write(tmp_path / "images" / "train" / name / f"{name}_{n}.JPEG")
        write(tmp_path / "images" / "val" / name / "val.JPEG")
    task = ImageTask("imagenet", layout="imagenet", path=str(tmp_path), shots=8)
    data = task.load(seed=1)
    assert data.labels == ("tench", "great white shark", "cock")
    assert all("/val/" in path for path in paths(data.test))
    assert Counter(e.label for e in data.dev) == dict.fromkeys(range(3), 4)
    assert len({*paths(data.train), *paths(data.dev)}) == 36
    assert not any("/val/" in path for path in (*paths(data.train), *paths(data.dev)))
    (tmp_path / "classnames.txt").write_text("n01 tench\n")
    assert "does not name n02, n03; fetch it anew" in refusal(task)


@pytest.fixture
def own_pictures(tmp_path: Path) -> Path:
    """A folder with ten pictures of each of two classes, and what else lies about in folders."""
    folder = tmp_path / "own"
    for name in ("red_kite", "heron"):
        for n in range(10):
            write(folder / name / f"{n}.PNG", n)
        (folder / name / "Thumbs.db").write_bytes(b"no picture")
    (folder / ".cache").mkdir()
    return folder


def test_a_folder_of_classes_is_divided_by_the_seed(own_pictures: Path) -> None:
    task = ImageTask("image_folder", path=str(own_pictures), shots=None)
    data, other = task.load(seed=1), task.load(seed=2)
    assert data.labels == ("heron", "red kite")
    assert [len(rows) for rows in (data.train, data.dev, data.test)] == [10, 4, 6]
    assert len({*paths(data.train), *paths(data.dev), *paths(data.test)}) == 20
    assert data == task.load(seed=1)
    assert set(paths(other.test)) == set(paths(data.test))
    assert set(paths(other.dev)) != set(paths(data.dev))
    assert set(paths(replace(task, split_seed=3).load(seed=1).test)) != set(paths(data.test))


# E3
def test_each_class_has_pictures_in_train_and_dev_though_it_has_fewer_than_shots(tmp_path: Path) -> None:
    for split, counts in (("train", (30, 6)), ("test", (3, 3))):
        for name, count in zip(("heron", "kite"), counts, strict=True):
            for n in range(count):
                write(tmp_path / split / name / f"{n}.png")
    data = ImageTask("image_folder", path=str(tmp_path), shots=16).load(seed=1)
    assert Counter(e.label for e in data.train) == {0: 16, 1: 16}  # of the three kites some more than once, as in CoOp
    assert Counter(e.label for e in data.dev)[0] == 4
    assert {e.label for e in data.dev} == {0, 1}
    assert not {*paths(data.train)} & {*paths(data.dev)}


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_each_part_of_a_divided_folder_has_a_picture_of_every_class(tmp_path: Path, count: int) -> None:
    for name in ("heron", "kite"):
        for n in range(count):
            write(tmp_path / name / f"{n}.png")
    data = ImageTask("image_folder", path=str(tmp_path), shots=None).load(seed=1)
    assert all(found == {"heron", "kite"} for found in classes_of(data).values())
    assert len(data.train) + len(data.dev) + len(data.test) == 2 * count


def test_two_folders_of_one_class_name_are_refused_with_both(own_pictures: Path) -> None:
    shutil.copytree(own_pictures / "red_kite", own_pictures / "red kite")
    message = refusal(ImageTask("image_folder", path=str(own_pictures)))
    assert "the classes red kite, red_kite have the same name, red kite; rename one in task.names" in message
    renamed = ImageTask("image_folder", path=str(own_pictures), names={"red_kite": "kite"}).load(seed=1)
    assert renamed.labels == ("heron", "red kite", "kite")


def test_folders_of_splits_are_taken_as_they_are(own_pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "splits"
    for split in ("train", "val", "test"):
        shutil.copytree(own_pictures, folder / split)
    data = ImageTask("image_folder", path=str(folder), dev="val", shots=2).load(seed=1)
    for name, split in (("train", "train"), ("dev", "val"), ("test", "test")):
        assert all(path.startswith(f"{folder}/{split}/") for path in paths(getattr(data, name)))
    held_out = ImageTask("image_folder", path=str(folder), test=None, shots=2).load(seed=1)
    whole = ImageTask("image_folder", path=str(folder), test=None, shots=None).load(seed=1)
    for held in (held_out, whole):
        rows = [set(paths(r)) for r in (held.train, held.dev, held.test)]
        assert len(set.union(*rows)) == sum(map(len, rows))
        assert all("/train/" in path for path in set.union(*rows))
    assert (len(held_out.train), len(whole.train)) == (4, 20 - len(whole.dev) - len(whole.test))


def encoded(shade: int, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (3, 2), (shade, shade, shade)).save(stream, form)
    return stream.getvalue()


def hub_set(folder: Path, label: Any, labels: list[Any], image: Any = None, holes: bool = False) -> ImageTask:
    """A data set as the hub keeps them, in a local folder: pictures inside of Parquet files."""
    features = datasets.Features({"image": image or datasets.Image(), "label": label})
    for k, split in enumerate(("train", "test")):
        cells = [{"bytes": encoded(10 * i + k), "path": f"{i}.png"} for i in range(len(labels))]
        rows = {
            "image": list(range(len(labels))) if image else [None] * len(cells) if holes else cells,
            "label": labels,
        }
        table = datasets.Dataset.from_dict(rows, features=features)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return ImageTask("birds", hub=str(folder), shots=2)


@pytest.mark.parametrize("named", [True, False], ids=["ids", "names"])
def test_pictures_of_the_hub_are_written_once_byte_for_byte(tmp_path: Path, named: bool) -> None:
    kinds = datasets.ClassLabel(names=["heron", "red_kite"])
    labels = [0, 1] * 5 if named else ["heron", "red_kite"] * 5
    task = hub_set(tmp_path / "hub", kinds if named else datasets.Value("string"), labels)
    data = task.load(seed=1)
    assert data.labels == ("heron", "red kite")
    assert [Path(path).read_bytes() for path in paths(data.test)] == [encoded(10 * i + 1) for i in range(10)]
    assert [example.label for example in data.test] == [0, 1] * 5
    cached = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "images").iterdir()}
    assert len(cached) == len({*paths(data.train), *paths(data.dev), *paths(data.test)})
    cut = Path(paths(data.test)[0])
    cut.write_bytes(cut.read_bytes()[:20])
    assert task.load(seed=1) == data
    changed = {path for path, then in cached.items() if path.stat().st_mtime_ns != then}
    assert changed == {cut}
    assert cut.read_bytes() == encoded(1)


def test_a_folder_of_pictures_is_read_by_datasets_too(own_pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(own_pictures, tmp_path / "hub" / "train")
    shutil.copytree(own_pictures, tmp_path / "hub" / "test")
    data = ImageTask("birds", hub=str(tmp_path / "hub"), shots=2).load(seed=1)
    assert data.labels == ("heron", "red kite")
    assert all(path.startswith(str(tmp_path / "cache" / "images")) for path in paths(data.test))
    assert sorted(open_image(path).getpixel((0, 0)) for path in paths(data.test))[::2] == [(n, n, n) for n in range(10)]


def test_labels_of_the_hub_need_names_and_pictures_a_column(tmp_path: Path) -> None:
    numbers = hub_set(tmp_path / "numbers", datasets.Value("int64"), [0, 1] * 5)
    assert "column 'label' holds numbers without names" in refusal(numbers)
    kinds = datasets.ClassLabel(names=["heron", "kite"])
    unlabelled = refusal(hub_set(tmp_path / "unlabelled", kinds, [0, 1, -1]))
    assert "train, row 3: label -1 is no class; name splits that have labels in task.train" in unlabelled
    hollow = hub_set(tmp_path / "hollow", kinds, [0, 1] * 5, holes=True)
    assert ": there is no picture; remove the row" in refusal(hollow)
    values = hub_set(tmp_path / "values", kinds, [0, 1], image=datasets.Value("int64"))
    assert "column image holds no pictures; there are: image, label; name the columns in task.image" in refusal(values)


# --- what is wrong with a data set


def change(content: dict[str, Any]) -> None:
    content["val"][1][1] = "two"


def rename(content: dict[str, Any]) -> None:
    content["test"][0][2] = "another"


def lose(content: dict[str, Any]) -> None:
    content["train"] = [row for row in content["train"] if row[2] != "cock"]


def empty(content: dict[str, Any]) -> None:
    content["test"] = []


def move(content: dict[str, Any]) -> None:
    content["test"][3][0] = "cock/gone.jpg"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (change, ["split_zhou_Caltech101.json, val, entry 2:", "'two'", "correct it, or fetch it anew"]),
        (rename, ["test, entry 1:", "'another'"]),
        (lose, ["train has no picture of cock", "add some"]),
        (empty, ["has no list 'test'", "fetch it anew"]),
        (move, ["test: 1 of 25 pictures are missing", "cock/gone.jpg", "is the archive unpacked"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_split_file_with_an_error_is_refused_with_its_place(
    coop_folder: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], None], words: list[str]
) -> None:
    content = json.loads((coop_folder / SPLIT_FILE).read_text())
    edit(content)
    (tmp_path / SPLIT_FILE).write_text(json.dumps(content))
    (tmp_path / "pictures").symlink_to(coop_folder / "pictures")
    message = refusal(coop(tmp_path))
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe{}", b"[1, 2]"])
def test_a_split_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SPLIT_FILE).write_bytes(content)
    assert "split_zhou_Caltech101.json" in refusal(coop(tmp_path))


def test_a_folder_that_lacks_something_is_told_what_and_where(own_pictures: Path, tmp_path: Path) -> None:
    own: dict[str, Any] = {"name": "image_folder", "path": str(own_pictures)}
    assert f"looked into {tmp_path}/none" in refusal(ImageTask(**{**own, "path": f"{tmp_path}/none"}))
    assert "no split_zhou_Caltech101.json (looked into" in refusal(coop(own_pictures))
    assert "set task.path=FOLDER, or put its folder into $CATALYST_DATA" in refusal(ImageTask("image_folder"))
    assert "holds no folder" in refusal(ImageTask(**{**own, "path": f"{own_pictures}/heron"}))
    (own_pictures / "wren").mkdir()
    assert f"{own_pictures}/wren holds no picture" in refusal(ImageTask(**own))
    write(own_pictures / "wren" / "a.jpg")
    assert "wren holds 1 pictures; there must be 3" in refusal(ImageTask(**own))
    shutil.rmtree(own_pictures / "wren")
    shutil.rmtree(own_pictures / "heron")
    assert "there are 1 classes" in refusal(ImageTask(**own))
    for place in ("train/wren", "train/kite", "test/wren", "test/kite"):
        write(tmp_path / "few" / place / "a.png")
    few = refusal(ImageTask("image_folder", path=f"{tmp_path}/few", shots=1))
    assert "task=image_folder: task.shots=1 takes" in few
    assert "there are not two of kite, wren (rows of each label: kite 1, wren 1)" in few
    own_pictures.rename(tmp_path / "train")
    assert f"no folder {tmp_path}/test (beside it: few, train); name the splits by task.train" in refusal(
        ImageTask("image_folder", path=str(tmp_path))
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"template": "a photo"}, "must hold {} once"),
        ({"templates": ["a {} of {}"]}, "task.templates="),
        ({"template": "a {photo} of {}"}, "must hold {} once"),
        ({"shots": 0}, "task.shots=0 is too small"),
        ({"classes": "old"}, "task.classes=old is not known; there are: all, base, new"),
        ({"layout": "coop"}, "needs task.split_file"),
        ({"layout": "folder"}, "did you mean folders?"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_their_key(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ImageTask("birds", **settings)
    assert words in str(caught.value)


# --- bad pictures

HALF_RED = np.zeros((20, 40, 3), np.uint8)
HALF_RED[:, :20, 0] = 255


def save(path: Path, mode: str, form: str, **options: Any) -> Path:
    """A picture, its left half red, in another mode."""
    Image.fromarray(HALF_RED).convert(mode).save(path, form, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "form", "options"),
    [
        ("CMYK", "TIFF", {}),
        ("CMYK", "JPEG", {"quality": 95}),
        ("P", "PNG", {}),
        ("P", "GIF", {}),
        ("RGBA", "PNG", {}),
        ("YCbCr", "JPEG", {"quality": 95}),
        ("RGB", "BMP", {}),
        ("RGB", "WEBP", {"lossless": True}),
    ],
)
def test_a_picture_of_any_mode_and_suffix_becomes_rgb(
    tmp_path: Path, mode: str, form: str, options: dict[str, Any]
) -> None:
    picture = open_image(save(tmp_path / "wrong.txt", mode, form, **options))
    assert (picture.mode, picture.size) == ("RGB", (40, 20))
    assert np.abs(np.asarray(picture).astype(int) - HALF_RED)[:, [0, 39]].max() <= 12


def test_gray_pictures_of_8_and_16_bits_look_the_same(tmp_path: Path) -> None:
    levels = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    Image.fromarray(levels).save(tmp_path / "8.png")
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "16.png")
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "16.tif")
    for name in ("8.png", "16.png", "16.tif"):
        picture = np.asarray(open_image(tmp_path / name))
        assert picture.shape == (8, 8, 3)
        assert (picture == levels[..., None]).all(), name


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA"])
def test_what_is_transparent_lies_on_white(tmp_path: Path, mode: str) -> None:
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    clear.putpixel((0, 0), (0, 0, 0, 255))
    clear.convert(mode).save(tmp_path / "clear.png")
    picture = open_image(tmp_path / "clear.png")
    assert (picture.getpixel((0, 0)), picture.getpixel((1, 1))) == ((0, 0, 0), (255, 255, 255))


def test_a_palette_with_one_transparent_colour_lies_on_white(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 255, 255, 0, 0])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "clear.gif", transparency=0)
    assert [open_image(tmp_path / "clear.gif").getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]


def test_a_picture_is_turned_upright_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    save(tmp_path / "lying.jpg", "RGB", "JPEG", exif=exif, quality=95)
    picture = open_image(tmp_path / "lying.jpg")
    assert picture.size == (20, 40)
    assert np.asarray(picture)[:15, :, 0].min() > 230 > 25 > np.asarray(picture)[25:, :, 0].max()


def test_a_picture_of_one_pixel_is_a_picture(tmp_path: Path) -> None:
    Image.new("1", (1, 1), 1).save(tmp_path / "dot.png")
    assert np.asarray(open_image(tmp_path / "dot.png")).tolist() == [[[255, 255, 255]]]


def noise(path: Path, form: str) -> bytes:
    Image.frombytes("RGB", (64, 64), random.Random(1).randbytes(3 * 64 * 64)).save(path, form)
    return path.read_bytes()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_named_with_the_mend(tmp_path: Path, form: str, kept: float) -> None:
    path = tmp_path / "cut.img"
    content = noise(path, form)
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ConfigurationError, match=r"cut\.img: .*(anew|remove it)"):
        open_image(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"the file is empty; save it anew"),
        (b"<html>404 Not Found</html>", r"this is no picture that can be read; save it anew as JPEG or PNG, or remove"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), r"; .*remove it"),
        (b"\xff\xd8\xff\xe0" + bytes(50), r"; .*remove it"),
    ],
    ids=["empty", "text", "png", "jpeg"],
)
def test_what_is_no_picture_is_named_with_the_mend(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "bad\n.jpg").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"bad\\n\.jpg: .*" + words):
        open_image(tmp_path / "bad\n.jpg")


def test_a_picture_that_cannot_become_an_input_is_refused(tmp_path: Path) -> None:
    Image.new("F", (9, 9)).save(tmp_path / "fractions.tif")
    with pytest.raises(ConfigurationError, match=r"fractions\.tif: .*fractions without a known range"):
        open_image(tmp_path / "fractions.tif")
    Image.new("L", (1, 200)).save(tmp_path / "strip.png")
    with pytest.raises(ConfigurationError, match=r"strip\.png: 1 x 200 pixels are too long a strip; crop it"):
        open_image(tmp_path / "strip.png")
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, *[0] * 6)
    (tmp_path / "bomb.bmp").write_bytes(header)
    with pytest.raises(ConfigurationError, match=r"bomb\.bmp: the picture is too large .*scale it down"):
        open_image(tmp_path / "bomb.bmp")
    with pytest.raises(ConfigurationError, match=r"gone\.png: there is no such file"):
        open_image(tmp_path / "gone.png")


def test_all_bad_pictures_of_a_split_are_counted_and_the_first_named(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{i}.png", i) for i in range(10)]
    check_images(list(map(str, files)))
    for i in (3, 5, 6, 8):
        files[i].write_bytes(b"bad")
    with pytest.raises(ConfigurationError) as caught:
        check_images(list(map(str, files)))
    message = str(caught.value)
    assert message.startswith("4 of 10 pictures cannot be used: ")
    assert [f"{i}.png" in message for i in (3, 5, 6, 8)] == [True, True, True, False]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no folder of pictures \(looked into .*x…") as caught:
        ImageTask(name="image_folder", path="x" * 5000).load(1)
    assert len(str(caught.value)) < 1000
    write(tmp_path / "heron" / "1.png")
    write(tmp_path / "kite" / "1.png")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        ConfigurationError, match=r"/heron cannot be read: Permission denied; give the right to read it"
    ):
        ImageTask(name="image_folder", path=str(tmp_path)).load(1)
