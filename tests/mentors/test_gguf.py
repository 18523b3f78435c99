"""GGUF files as mentors: parts in packages, damage, missing packages; and the list that a model continues."""

import hashlib
import struct
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from helpers.dialogues import first_request
from helpers.tiny import consultation, prompt_space, scored

from llm_catalyst.mentors.clients import gguf
from llm_catalyst.mentors.clients.huggingface import LocalModel
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.validation import ConfigurationError

PARTS = (b"GGUF" + b"a" * 3000, b"b" * 100, b"c")
WHOLE = b"".join(PARTS)
SHA256 = hashlib.sha256(WHOLE).hexdigest()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of installed packages that hold PARTS, and would fail if they were imported."""
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    for number, content in enumerate(PARTS, start=1):
        data = tmp_path / f"odd_model_part{number}" / "data"
        data.mkdir(parents=True)
        (data.parent / "__init__.py").write_text("raise SystemExit('imported')")
        (data / f"odd.gguf.part{number - 1:02d}").write_bytes(content)
    return "odd_model"


def test_the_parts_of_packages_are_joined_once_and_checked_each_time(package: str, tmp_path: Path) -> None:
    file = gguf.join_parts(package, SHA256)
    assert file.read_bytes() == WHOLE
    assert [*file.parent.iterdir()] == [file]
    before = file.stat().st_mtime_ns
    assert gguf.join_parts(package, SHA256).stat().st_mtime_ns == before
    file.write_bytes(WHOLE[:-1] + b"x")
    assert gguf.join_parts(package, SHA256).read_bytes() == WHOLE
    assert not [name for name in sys.modules if name.startswith("odd_model")]


def test_other_parts_are_refused_and_nothing_is_left_of_them(package: str, tmp_path: Path) -> None:
    (tmp_path / "odd_model_part2" / "data" / "odd.gguf.part01").write_bytes(b"B" * 100)
    with pytest.raises(ConfigurationError, match=rf"and not {SHA256}: .*pip install --force-reinstall odd-model"):
        gguf.join_parts(package, SHA256)
    assert not [*(tmp_path / "cache" / "gguf").iterdir()]


def test_the_terms_of_a_model_are_told_before_its_first_use_on_a_machine(package: str) -> None:
    model = LocalModel("a model", package=package, sha256=SHA256, terms="provided under these terms")
    assert model.terms_of_use() == ["provided under these terms"]
    gguf.join_parts(package, SHA256)
    assert model.terms_of_use() == []
    assert list(model.check_reachable()) == []


def test_a_missing_package_is_named_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"package no-such-model is not installed.*llm-catalyst\[llm\]"):
        LocalModel("a model", package="no_such_model", sha256=SHA256).preflight()


@pytest.mark.parametrize("content", [None, b"", b"GGU", b"PK\x03\x04 a zip"])
def test_a_file_that_is_no_gguf_is_refused_before_training(tmp_path: Path, content: bytes | None) -> None:
    pytest.importorskip("gguf", reason="the llm extra is not installed")
    pytest.importorskip("accelerate", reason="the llm extra is not installed")
    file = tmp_path / "model.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"model\.gguf is no GGUF file"):
        LocalModel(str(file)).preflight()


def test_a_file_that_cannot_be_read_is_refused_before_training(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the llm extra is not installed")
    pytest.importorskip("accelerate", reason="the llm extra is not installed")
    (tmp_path / "model.gguf").symlink_to("/proc/self/mem")  # whose first bytes nobody can read
    with pytest.raises(ConfigurationError, match=r"model\.gguf cannot be read \(Input/output error\)"):
        LocalModel(str(tmp_path / "model.gguf")).preflight()


# By the format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version, tensors, metadata.
@pytest.mark.parametrize("rest", [b"", struct.pack("<I", 3), struct.pack("<IQQ", 3, 2**60, 2**60), b"\xff" * 100])
def test_a_file_that_is_cut_off_or_damaged_is_an_answers_error(tmp_path: Path, rest: bytes) -> None:
    pytest.importorskip("gguf", reason="the llm extra is not installed")
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + rest)
    model = LocalModel(str(tmp_path / "model.gguf"))
    assert model.has_roles()
    assert "model.gguf could not answer" in (model.respond([Message("user", "x")], 1).error or "")


def test_a_cache_that_has_the_file_need_not_be_writable(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf.join_parts(package, SHA256)

    def refuse(*_: str) -> NoReturn:
        raise ConfigurationError("cannot be written")

    monkeypatch.setattr(gguf, "writable_cache", refuse)
    assert gguf.join_parts(package, SHA256).read_bytes() == WHOLE
    gguf.join_parts(package, SHA256).unlink()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        gguf.join_parts(package, SHA256)


def test_without_the_packages_that_read_gguf_the_command_that_installs_them_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.gguf").write_bytes(WHOLE)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"gguf and accelerate is missing: pip install 'llm-catalyst\[llm\]'"):
        LocalModel(str(tmp_path / "model.gguf")).preflight()


def test_the_list_of_prompts_is_what_a_model_that_only_continues_texts_is_sent() -> None:
    space = prompt_space(length=4)
    pool = (scored(space, "dull of dull of", 0.8, 0.2), scored(space, "find the mood", 0.4, 0.6))
    request = first_request(Paper().in_form(has_roles=False), consultation(pool))
    (message,) = request.messages
    assert message.content.startswith("Say whether a film review is positive or negative.")
    assert message.content.endswith("1. dull of dull of\n2. find the mood find\n3.")
    texts, _ = request.parse(" a good film\n4. is it good or bad\n")
    assert texts == ["a good film", "is it good or bad"]


@pytest.mark.parametrize(("form", "has_roles", "used"), [
    ("auto", True, "chat"), ("auto", False, "list"), ("chat", False, "chat"), ("plain", True, "plain"),
])  # fmt: skip
def test_the_form_follows_the_model_where_none_is_asked_for(form: str, has_roles: bool, used: str) -> None:
    assert Paper(form=form).in_form(has_roles).form == used  # type: ignore[arg-type]
