"""What several tests share: the `catalyst` command, a small local task, and the folder of real data."""

import copy
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.command import REPOSITORY, Command, write_jsonl
from hydra import compose, initialize_config_dir
from hypothesis import settings
from omegaconf import OmegaConf

# The machine may be busy; and what is drawn where a change is judged does not depend on luck.
settings.register_profile("ours", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("ours")

# What is kept for later goes away with the tests: the Arrow copies that `datasets` makes of every file (it reads both
# variables when it is imported), pictures that were drawn, the tiny CLIP. Processes that test side by side share it.
CACHE = None if "CATALYST_TESTS" in os.environ else tempfile.TemporaryDirectory(prefix="catalyst-tests-")
if CACHE:
    os.environ["CATALYST_TESTS"] = CACHE.name
os.environ["HF_DATASETS_CACHE"] = os.environ["CATALYST_CACHE"] = os.environ["CATALYST_TESTS"]
os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"


@pytest.fixture(scope="session")
def catalyst() -> Command:
    """The installed command."""
    return Command()


@pytest.fixture(scope="session")
def python() -> Callable[[str], str]:
    """What a piece of code prints in a Python of its own."""

    def run(code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def composed() -> Callable[..., dict[str, Any]]:
    """A function from overrides to the resolved configuration, as `catalyst run` makes it."""

    @functools.cache
    def make(*overrides: str) -> Any:
        with initialize_config_dir(version_base="1.3", config_dir=str(REPOSITORY / "conf")):
            return OmegaConf.to_container(compose("config", list(overrides)), resolve=True)

    return lambda *overrides: copy.deepcopy(make(*overrides))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data: $CATALYST_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("CATALYST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there (set CATALYST_DATA)")
    return folder


@pytest.fixture(scope="session")
def real(data: Path) -> Callable[[str], Path]:
    """The folder of one real task's files, or a skip."""

    def folder(name: str) -> Path:
        if not (data / name).is_dir():
            pytest.skip(f"no real data for {name} in {data}")
        return data / name

    return folder


@pytest.fixture(scope="session")
def jsonl() -> Callable[[Path, Sequence[dict[str, Any]]], None]:
    """Writes rows as JSON Lines."""
    return write_jsonl


FIRST = ("We", "They", "My friends", "The neighbours", "Her parents")
VERDICTS = (("hated", 0), ("loved", 1), ("could not stand", 0), ("warmly praised", 1))
THINGS = ("the soup", "this film", "that long novel")


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl (40 different rows) and test.jsonl (20), columns text and label (0, 1)."""
    rows = [{"text": f"{who} {did} {what}.", "label": y} for what in THINGS for who in FIRST for did, y in VERDICTS]
    folder = tmp_path_factory.mktemp("tiny_task")
    write_jsonl(folder / "train.jsonl", rows[:40])
    write_jsonl(folder / "test.jsonl", rows[40:])
    return folder


def pytest_unconfigure() -> None:
    if CACHE:
        CACHE.cleanup()
