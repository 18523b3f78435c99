"""Checkpoints that do not hold what their config.json says: refused before training, with what is wrong and the fix."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import CPU, backbone, folder, pooled_folder, word_piece
from safetensors.torch import load_file, save_file
from transformers.models.clip import CLIPTextConfig, CLIPTextModel
from transformers.models.t5 import T5Config, T5EncoderModel

from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import FrozenText, load_text_backbone
from llm_catalyst.utils.validation import ConfigurationError


def copy_model(name: str, path: Path, config: dict[str, Any] | None = None, **weights: torch.Tensor | None) -> Path:
    """A folder with a tiny model, other values in its config.json, and other weights ('__' for a dot); None removes."""
    shutil.copytree(folder(name), path, dirs_exist_ok=True)
    values = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(values | (config or {})))
    tensors: dict[str, Any] = load_file(path / "model.safetensors")
    tensors |= {key.replace("__", "."): weight for key, weight in weights.items()}
    save_file({key: weight for key, weight in tensors.items() if weight is not None}, path / "model.safetensors")
    return path


def load(path: Path | str, words: bool = False, twice: bool = False, **settings: Any) -> FrozenText:
    return load_text_backbone(TextBackbone(str(path), **settings), words, CPU, twice)


# Weights and configuration


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize(("name", "key"), [("bert", "num_hidden_layers"), ("llama", "num_hidden_layers")])
def test_a_file_of_more_layers_than_its_configuration_is_refused_with_both(
    tmp_path: Path, name: str, key: str, words: bool
) -> None:
    path = copy_model(name, tmp_path, {key: 1})
    problem = (
        r"holds \d+ weights of its \w+ for which config\.json has no place \(.*layers?\.1\..*num_hidden_layers=1\)"
    )
    with pytest.raises(ConfigurationError, match=problem):
        load(path, words)


@pytest.mark.parametrize("words", [False, True])
def test_a_file_of_fewer_layers_is_not_told_to_use_another_head(tmp_path: Path, words: bool) -> None:
    path = copy_model("bert", tmp_path, {"num_hidden_layers": 3})
    problem = r"lacks 16 of the weights of Bert\w+ \(.*encoder\.layer\.2.*name the checkpoint .*num_hidden_layers=3\)"
    with pytest.raises(ConfigurationError, match=problem) as refused:
        load(path, words)
    assert "head=classifier" not in str(refused.value)


def test_weights_of_other_sizes_are_refused_with_both(tmp_path: Path) -> None:
    path = copy_model("bert", tmp_path, {"max_position_embeddings": 32})
    problem = (
        r"holds 1 weights of other sizes .*position_embeddings\.weight is \(64, 32\), and by config\.json \(32, 32\)"
    )
    with pytest.raises(ConfigurationError, match=problem):
        load(path)


def test_a_bias_that_the_model_has_no_place_for_is_refused(tmp_path: Path) -> None:
    bias = torch.zeros(32)
    path = copy_model("llama", tmp_path, model__layers__0__self_attn__q_proj__bias=bias)
    with pytest.raises(ConfigurationError, match=r"holds 1 weights of its LlamaModel .*q_proj\.bias"):
        load(path)


def test_other_heads_a_pooler_and_saved_constants_may_stay_unread(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "bert__embeddings__position_ids": torch.arange(64)[None],
        "bert__pooler__dense__weight": torch.zeros(32, 32),
        "bert__pooler__dense__bias": torch.zeros(32),
        "cls__seq_relationship__weight": torch.zeros(2, 32),
        "classifier__weight": torch.zeros(2, 32),
    }
    load(copy_model("bert", tmp_path / "bert", **more), words=True)
    mask: dict[str, Any] = {
        "transformer__h__0__attn__bias": torch.ones(1, 1, 64, 64),
        "transformer__h__0__attn__masked_bias": torch.tensor(-1e4),
    }
    load(copy_model("gpt2", tmp_path / "gpt2", **mask), words=True)


# Pooler


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_pooler_that_is_not_in_the_checkpoint_is_refused_and_official_says_that_it_is_drawn(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"pooling=pooler: .* holds no pooler \(pooler\.dense\.bias, .*=first"):
        load(folder(name), pooling="pooler")
    official, there = load(folder(name), pooling="pooler", twice=True), load(pooled_folder(name), pooling="pooler")
    (warning,) = official.warnings
    assert warning.endswith("and so it is drawn at random, as by the method's published code")
    assert official.facts()["drawn_pooler"] is True
    assert there.warnings == ()
    assert there.facts()["drawn_pooler"] is False
    assert load(folder(name)).warnings == ()  # it is drawn, too, and not read


# Embeddings that are no numbers


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_row_of_the_embedding_that_is_not_finite_is_refused_with_its_token(tmp_path: Path, value: float) -> None:
    key = "bert__embeddings__word_embeddings__weight"
    rows = load_file(Path(folder("bert")) / "model.safetensors")[key.replace("__", ".")].clone()
    rows[40, 3], rows[len(word_piece())] = value, value
    path = copy_model("bert", tmp_path, **{key: rows})
    token, known = word_piece().convert_ids_to_tokens(40), len(word_piece())
    shown = rf"in 2 of its {len(rows)} rows: 40 \('{token}'\), {known} \(no token\)"
    with pytest.raises(ConfigurationError, match=shown):
        load(path)


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_any_other_weight_that_is_not_finite_is_refused_by_name(tmp_path: Path, value: float) -> None:
    key = "bert__embeddings__position_embeddings__weight"
    rows = load_file(Path(folder("bert")) / "model.safetensors")[key.replace("__", ".")].clone()
    rows[50, 3] = value  # a place that no short text has
    path = copy_model("bert", tmp_path, **{key: rows})
    with pytest.raises(ConfigurationError, match=r"1 of its weights hold numbers that .*position_embeddings\.weight"):
        load(path)


# Families


def test_the_encoder_of_an_encoder_decoder_is_refused_for_what_it_is(tmp_path: Path) -> None:
    config = T5Config(vocab_size=len(word_piece()), d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(tmp_path)
    word_piece().save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match=r"\(t5\) holds the encoder of an encoder-decoder \(T5EncoderModel\)"):
        load(tmp_path)


def test_a_clips_text_model_points_to_tasks_of_pictures(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPTextModel(CLIPTextConfig(vocab_size=len(word_piece()), **sizes)).save_pretrained(tmp_path)
    word_piece().save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match=r"is a CLIP, .* tasks of pictures, .* use backbone=clip_vit_b16"):
        load(tmp_path)


# Checksums


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_one_changed_byte_of_a_file_that_is_read_changes_the_facts(tmp_path: Path, file: str) -> None:
    path = copy_model("bert", tmp_path)
    before = load(path).facts()["files"]
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"} <= set(before)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in before.values())
    (path / "README.md").write_text("not read")
    assert load(path).facts()["files"] == before
    content = (path / file).read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1]) if file.endswith("safetensors") else content + b"\n"
    (path / file).write_bytes(changed)
    after = load(path).facts()["files"]
    assert {name for name in before if before[name] != after[name]} == {file}


def test_the_weights_of_several_files_are_each_in_the_facts(tmp_path: Path) -> None:
    model = backbone("bert", words=True).model
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    word_piece().save_pretrained(tmp_path)
    parts = {file.name for file in tmp_path.glob("*.safetensors")}
    assert len(parts) > 1
    assert parts < set(load(tmp_path).facts()["files"])
