"""Places that hold no model, or one whose files are not whole: refused at once, with the fix. No hub is asked."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from helpers.tiny_models import CPU, backbone, folder, word_piece

from llm_catalyst.models.backbones import hub_cache
from llm_catalyst.models.backbones.clip import ClipBackbone, load_clip
from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.local_files import refuse_files, refuse_place
from llm_catalyst.models.backbones.model_config import read_model_config
from llm_catalyst.models.backbones.text import FrozenText, load_text_backbone
from llm_catalyst.utils.validation import ConfigurationError


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, an empty cache of the hub, and no hub: to ask it fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def ask() -> Any:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "get_session", ask)
    return tmp_path


def load(name: str | Path, words: bool = False, **settings: Any) -> FrozenText:
    return load_text_backbone(TextBackbone(str(name), **settings), words, CPU)


def copy_model(path: Path, name: str = "bert") -> Path:
    shutil.copytree(folder(name), path)
    return path


# Places


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("q.gguf", "is a file of llama.cpp, which is not read here; name the transformers model"),
        ("bert.zip", "is an archive; unpack it, and name the folder with config.json in it"),
        ("bert.tar.gz", "is an archive; unpack it"),
        ("model.safetensors", "is one file of a model; name the folder that save_pretrained wrote"),
        ("pytorch_model.bin", "is one file of a model; name the folder"),
        ("model.onnx", "is a file of ONNX Runtime"),
        ("notes", "is a file; name the folder that save_pretrained wrote"),
    ],
)
def test_a_file_is_refused_with_what_to_name_in_its_place(place: Path, file: str, problem: str) -> None:
    (place / "m").mkdir()
    (place / "m" / file).write_bytes(b"x")
    for name in (f"m/{file}", f"./m/{file}", place / "m" / file):
        for read in (load, read_model_config, lambda name: load_clip(ClipBackbone(name), False, CPU)):
            with pytest.raises(ConfigurationError) as refused:
                read(str(name))
            assert str(refused.value).startswith(f"backbone.name={name} {problem}")


@pytest.mark.parametrize("name", ["./m", "/nowhere/m", "~/no such folder", "a/b/c", "bert.zip", "model.safetensors"])
def test_a_path_that_is_not_there_is_no_name_of_the_hub(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is not there; name a folder, or a model of the hub"):
        refuse_place("backbone.name", name)


def test_a_name_below_a_folder_that_is_there_is_refused_with_the_folders_in_it(place: Path) -> None:
    for name in ("bert", "gpt2"):
        (place / "m" / name).mkdir(parents=True)
    for read in (load, read_model_config):
        with pytest.raises(ConfigurationError, match=r"=m/nothere: there is no folder \./m/nothere; .* bert, gpt2\."):
            read("m/nothere")
    refuse_place("backbone.name", "other/nothere")  # a name of the hub
    snapshot = place / "cache" / "models--m--nothere" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (place / "cache" / "models--m--nothere" / "refs").mkdir()
    (place / "cache" / "models--m--nothere" / "refs" / "main").write_text("abc")
    refuse_place("backbone.name", "m/nothere")  # a model of the hub that was fetched


# Adapters


@pytest.mark.parametrize("whole", [False, True])
def test_an_adapter_is_refused_with_its_base_model_and_how_to_merge_the_two(place: Path, whole: bool) -> None:
    path = copy_model(place / "m") if whole else place / "m"
    path.mkdir(exist_ok=True)
    content = {"peft_type": "LORA", "base_model_name_or_path": "some/base"}
    (path / "adapter_model.safetensors").write_bytes(b"x")
    if whole:
        with pytest.raises(ConfigurationError, match=r"holds an adapter of PEFT for BASE_MODEL beside a model"):
            load(path)
    (path / "adapter_config.json").write_text(json.dumps(content))
    what = "holds an adapter of PEFT (LORA) for some/base beside a model, which would be read without it"
    what = what if whole else "is an adapter of PEFT (LORA) for some/base, and no model"
    for read in (load, read_model_config):
        with pytest.raises(ConfigurationError) as refused:
            read(str(path))
        assert f"backbone.name={path} {what}; merge the two once: PeftModel.from_pretrained(" in str(refused.value)
        assert ").merge_and_unload().save_pretrained(OTHER_FOLDER)" in str(refused.value)


# Weights


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([], r"holds no weights: no model\.safetensors and no model\.safetensors\.index\.json \(there: config\.json"),
        (["model.onnx"], r"holds no model\.safetensors, but model\.onnx, which is for ONNX Runtime; save the model"),
        (["tf_model.h5"], r"but tf_model\.h5, which is for TensorFlow"),
        (["training_args.bin"], r"holds no weights: no model\.safetensors"),
        (["pytorch_model.bin", "model.onnx"], r"holds pytorch_model\.bin and no model\.safetensors: a pickle can"),
    ],
)
def test_a_folder_without_weights_says_what_is_there(place: Path, files: list[str], problem: str) -> None:
    path = copy_model(place / "m")
    (path / "model.safetensors").unlink()
    for name in files:
        (path / name).write_bytes(b"x")
    with pytest.raises(ConfigurationError, match=problem) as refused:
        load(path)
    assert ("pickle" in str(refused.value)) == ("pytorch_model.bin" in files)


@pytest.mark.parametrize("name", ["weights.safetensors", "model-00001-of-00002.safetensors"])
def test_weights_of_another_name_are_told_the_names_that_are_read(place: Path, name: str) -> None:
    path = copy_model(place / "m")
    (path / "model.safetensors").rename(path / name)
    with pytest.raises(ConfigurationError, match=r"; give the file that name, or .*index\.json there") as found:
        load(path)
    assert "pickle" not in str(found.value)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizers_file_that_is_cut_off_is_named(place: Path, file: str) -> None:
    path = copy_model(place / "m")
    (path / file).write_text((path / file).read_text()[:-5])
    with pytest.raises(ConfigurationError, match=rf"{file} is no JSON, or incomplete .*; download it again$"):
        load(path)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs_is_named_with_the_command_that_fetches_the_file(place: Path, file: str) -> None:
    path = copy_model(place / "m")
    (path / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 123\n")
    with pytest.raises(ConfigurationError, match=rf"{file} is a pointer of Git LFS.*: git lfs pull"):
        load(path)


CHANGES = (lambda whole: whole[:-1], lambda whole: whole + b"x", lambda whole: whole[:5], lambda whole: whole[8:])


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_are_not_whole_are_to_be_downloaded_again(place: Path, change: Any) -> None:
    path = copy_model(place / "m")
    refuse_files("backbone.name", str(path))
    weights = path / "model.safetensors"
    weights.write_bytes(change(weights.read_bytes()))
    with pytest.raises(ConfigurationError, match=r"model\.safetensors is .*; download it again$"):
        load(path)


def test_a_part_of_the_weights_that_is_missing_is_named(place: Path) -> None:
    path = place / "m"
    backbone("bert", words=True).model.save_pretrained(path, max_shard_size="40KB")
    word_piece().save_pretrained(path)
    load(path)
    lost = sorted(path.glob("*.safetensors"))[1]
    whole = lost.read_bytes()
    lost.write_bytes(whole[:-4])
    with pytest.raises(ConfigurationError, match=rf"{lost.name} is incomplete .*; download it again$"):
        load(path)
    lost.unlink()
    with pytest.raises(ConfigurationError, match=rf"lacks {lost.name}, which .*index\.json names; download it again$"):
        load(path)
    (path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"index\.json lists no files of weights .*; download it again$"):
        load(path)


# The hub


class Unreachable:
    """A session whose requests fail."""

    def head(self, url: str, timeout: float) -> Any:
        raise OSError("Name or service not known")


def test_a_hub_that_cannot_be_reached_is_asked_once_and_the_proxy_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_session", Unreachable)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    problem = r"hub\.example cannot be reached through the proxy proxy\.example:3128 .*HF_HUB_OFFLINE=1.*local folder"
    reads: tuple[Any, ...] = (read_model_config, load, lambda name: load_clip(ClipBackbone(name), False, CPU))
    for read in reads:
        with pytest.raises(ConfigurationError, match=problem):
            read("some/model")
    assert capfd.readouterr() == ("", "")


def test_a_model_that_was_fetched_is_read_where_the_hub_cannot_be_reached(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, commit = place / "cache" / "models--some--model", "0" * 40
    copy_model(model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub, "get_session", Unreachable)
    monkeypatch.setattr("huggingface_hub.utils._http.get_session", lambda: pytest.fail("the hub was asked again"))
    files = load("some/model", words=True).facts()["files"]
    assert files == load(model / "snapshots" / commit, words=True).facts()["files"]
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_offline_a_model_that_was_not_fetched_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigurationError, match="HF_HUB_OFFLINE forbids to ask the hub: unset it, or fetch the model"):
        read_model_config("some/model")


def test_a_file_that_a_model_need_not_have_is_not_looked_for_where_the_hub_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_session", Unreachable)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("it was"))
    assert hub_cache.fetch_optional("some/model", "modules.json", None) is None
