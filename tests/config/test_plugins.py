"""A `_target_` may name a class of a user's package where `plugins` or an entry point names the package."""

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_catalyst.config.build import build_components
from llm_catalyst.config.plugins import ENTRY_POINTS, check_targets, find_plugin_versions
from llm_catalyst.utils.validation import ConfigurationError

Compose = Callable[..., dict[str, Any]]
CODE = """\
from dataclasses import dataclass
from typing import Any

import torch

from llm_catalyst.mentors import Mentor
from llm_catalyst.models.heads import Classifier
from llm_catalyst.runs.records import Advice


@dataclass(frozen=True)
class Silent(Mentor):
    words: int = 3

    def propose(self, context):
        return Advice(())


@dataclass(frozen=True)
class Narrow(Classifier):
    pass


class Slow(torch.optim.SGD):
    pass


class Loose:
    pass


@dataclass(frozen=True)
class Owner(Silent):
    client: Any = None
    head: Any = None


@dataclass(frozen=True)
class Baseless:
    words: int = 3

    def propose(self, context):
        return Advice(())
"""
NAME = "catalyst_plugin_of_a_test"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a package that can be imported."""
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "__init__.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield NAME
    sys.modules.pop(NAME, None)


@pytest.fixture
def with_mentor(composed: Compose, package: str) -> dict[str, Any]:
    """A configuration whose mentor is a class of the package, which nothing names."""
    return composed() | {"mentor": {"_target_": f"{package}.Silent", "words": 4}}


def test_without_plugins_the_refusal_says_how_to_name_the_package(with_mentor: dict[str, Any]) -> None:
    message = rf"mentor\._target_={NAME}\.Silent is not accepted; .*: add plugins=\[{NAME}\]$"
    with pytest.raises(ConfigurationError, match=message):
        build_components(with_mentor)
    assert NAME not in sys.modules


def test_a_package_that_plugins_names_builds_each_kind_of_object(with_mentor: dict[str, Any]) -> None:
    config = with_mentor | {
        "plugins": [NAME],
        "head": {"_target_": f"{NAME}.Narrow", "dropout": 0.5},
        "optimizer": {"_target_": f"{NAME}.Slow", "lr": 0.5},
    }
    parts = build_components(config)
    assert (type(parts.mentor).__name__, parts.mentor.words) == ("Silent", 4)
    assert (type(parts.head).__name__, parts.head.dropout) == ("Narrow", 0.5)
    assert parts.settings.plugins == (NAME,)


def test_a_field_of_a_users_class_may_hold_anything_whatever_it_is_called(with_mentor: dict[str, Any]) -> None:
    mentor = {"_target_": f"{NAME}.Owner", "head": {"_target_": f"{NAME}.Baseless", "words": 2}}
    assert build_components(with_mentor | {"plugins": [NAME], "mentor": mentor}).mentor.head.words == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mentor": {"_target_": f"{NAME}.Silent", "wrods": 4}}, r"no key mentor\.wrods; .*did you mean words\?"),
        ({"mentor": {"_target_": f"{NAME}.Silent", "words": "many"}}, r"mentor\.words='many' does not fit: .*integer"),
        ({"mentor": {"_target_": f"{NAME}.Loud"}}, rf"mentor\._target_={NAME}\.Loud does not exist"),
        ({"mentor": {"_target_": f"{NAME}.Loose"}}, rf"mentor\._target_={NAME}\.Loose .*must be a dataclass"),
        ({"mentor": {"_target_": f"{NAME}.Baseless"}}, r"Baseless .*must inherit from llm_catalyst\.mentors\.Mentor "),
        (
            {"optimizer": {"_target_": f"{NAME}.Baseless"}},
            r"must inherit from llm_catalyst\.optimizers\.PromptOptimizer ",
        ),
        ({"head": {"_target_": f"{NAME}.Baseless"}}, r"must inherit from llm_catalyst\.models\.heads\.Head "),
        ({"optimizer": {"_target_": f"{NAME}.Loose"}}, rf"optimizer\._target_={NAME}\.Loose .*must be a dataclass"),
        ({"mentor": {"_target_": f"{NAME}_2.Silent"}}, rf"mentor\._target_={NAME}_2\.Silent is not accepted"),
        ({"plugins": [f"{NAME}_2"]}, rf"plugins: {NAME}_2 cannot be imported .*PYTHONPATH.*pip install -e FOLDER"),
        ({"plugins": NAME}, r"plugins=.* does not fit"),
    ],
)
def test_what_does_not_fit_in_a_users_package_is_named(
    with_mentor: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_components(with_mentor | {"plugins": [NAME]} | changes)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("x = 1\nimport nowhere_at_all\n", "line 2: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("x = 1\n\ndef broken(:\n", "line 3: SyntaxError: invalid syntax"),
        ("import math\nmath.missing\n", "line 2: AttributeError: module 'math' has no attribute 'missing'"),
    ],
)
def test_a_package_that_fails_as_it_is_imported_is_named_by_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, cause: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "failing_package.py").write_text(code)
    with pytest.raises(ConfigurationError) as refusal:
        check_targets({"plugins": ["failing_package"]})
    assert f"cannot be imported: {tmp_path}/failing_package.py, {cause}; correct it there" in str(refusal.value)


def test_an_installed_package_with_an_entry_point_needs_no_plugins(with_mentor: dict[str, Any], tmp_path: Path) -> None:
    info = tmp_path / f"{NAME}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nmine = {NAME}\n")
    importlib.invalidate_caches()
    check_targets(with_mentor)
    assert build_components(with_mentor).mentor.words == 4
    assert find_plugin_versions([]) == {NAME: "1.2"}


def test_the_version_of_a_package_that_is_not_installed_follows_from_its_files(package: str, tmp_path: Path) -> None:
    first = find_plugin_versions([package])
    assert first[package].startswith("sha256:")
    assert find_plugin_versions([package]) == first
    (tmp_path / package / "more.py").write_text("x = 1\n")
    assert find_plugin_versions([package]) != first
    assert find_plugin_versions(["yaml"]) == {"yaml": importlib.metadata.version("PyYAML")}
