"""A sentence encoder's own pooling is the default; what has no part here is announced by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import CPU, folder, toy_data
from torch import Tensor
from transformers import AutoModel

from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import FrozenText, load_text_backbone
from llm_catalyst.models.heads.text import Similarity
from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.batching import TextBatch
from llm_catalyst.tasks.tokenization import encode_examples

TEXTS = ("the film was good", "slow", "it was a very long and bad movie scene")
PLACE = "sentence_transformers.models"
M = 3


def encoder(path: Path, name: str, pooling: dict[str, Any] | None, *others: str) -> Path:
    """A sentence encoder's folder, as the package sentence-transformers saves it."""
    shutil.copytree(folder(name), path, dirs_exist_ok=True)
    kinds = ["Transformer", "Pooling", *others]
    modules = [{"path": f"{i}_{kind}" * bool(i), "type": f"{PLACE}.{kind}"} for i, kind in enumerate(kinds)]
    (path / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (path / "1_Pooling").mkdir()
        (path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    return path


def load(path: Path, **settings: Any) -> FrozenText:
    return load_text_backbone(TextBackbone(str(path), **settings), False, CPU)


def batch_of(model: FrozenText, texts: tuple[str, ...] = TEXTS) -> TextBatch:
    return encode_examples(model.tokenizer, [Example(((text, None),), 0) for text in texts], 40).batch(
        [range(len(texts))], CPU
    )


def own_states(path: Path, model: FrozenText, ids: Tensor) -> list[Tensor]:
    """Of each text behind a prompt of these tokens, the states that transformers gives."""
    plain = AutoModel.from_pretrained(path).eval()
    rows = [torch.cat([ids, torch.tensor(model.tokenizer(text).input_ids)])[None] for text in TEXTS]
    return [plain(input_ids=row).last_hidden_state[0] for row in rows]


MODES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "lasttoken": "pooling_mode_lasttoken"}


@pytest.mark.parametrize(
    ("name", "mode"), [("bert", "cls"), ("bert", "mean"), ("bert", "lasttoken"), ("gpt2", "lasttoken")]
)
@pytest.mark.parametrize("old", [False, True])
@torch.no_grad()
def test_classifier_and_similarity_read_the_state_of_the_encoders_own_pooling(
    tmp_path: Path, name: str, mode: str, old: bool
) -> None:
    content: dict[str, Any] = {key: mode == each for each, key in MODES.items()} if old else {"pooling_mode": mode}
    path = encoder(tmp_path, name, content, "Normalize")
    model = load(path)
    ids = torch.tensor([20, 21, 22])
    states = own_states(path, model, ids)
    pick = {"cls": lambda rows: rows[M], "mean": lambda rows: rows.mean(0), "lasttoken": lambda rows: rows[-1]}[mode]
    expected = torch.stack([pick(rows) for rows in states])
    prompts = model.vocabulary[ids][None]
    torch.testing.assert_close(model.pooled(prompts, batch_of(model))[0], expected, atol=1e-5, rtol=1e-5)
    unit = torch.nn.functional.normalize(expected, dim=-1)
    torch.testing.assert_close(model.sentence(prompts, batch_of(model))[0], unit, atol=1e-5, rtol=1e-5)
    assert model.warnings == ()
    assert model.facts()["pooling"] == {"cls": "first", "mean": "mean", "lasttoken": "last"}[mode]


@torch.no_grad()
def test_descriptions_are_pooled_as_the_sentences_are(tmp_path: Path) -> None:
    path = encoder(tmp_path, "bert", {"pooling_mode": "cls"})
    model, data = load(path), toy_data(descriptions=["a bad film", "a good film"])
    found = Similarity().constants(model, data)["descriptions"]
    plain = AutoModel.from_pretrained(path).eval()
    rows = [model.tokenizer(text, return_tensors="pt").input_ids for text in data.descriptions]
    expected = torch.cat([plain(input_ids=row).last_hidden_state[:, 0] for row in rows])
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "others", "problem"),
    [
        ("bert", {"pooling_mode": "max"}, (), "with the pooling max, not known here; used are first for head=class"),
        ("bert", {"pooling_mode": ["cls", "mean"]}, (), "with the pooling cls, mean, not known here"),
        ("bert", {"pooling_mode_weightedmean_tokens": True}, (), "with the pooling weightedmean, not known here"),
        ("gpt2", {"pooling_mode": "cls"}, (), "with the pooling cls, not known here; used are last for head=class"),
        ("bert", {"pooling_mode": "mean"}, ("Dense",), "with a module Dense, which has no part in its states here"),
    ],
)
def test_what_is_not_known_of_a_sentence_encoder_is_announced_by_name(
    tmp_path: Path, name: str, content: dict[str, Any], others: tuple[str, ...], problem: str
) -> None:
    (warning,) = load(encoder(tmp_path, name, content, *others)).warnings
    assert problem in warning


def test_a_pooling_that_is_set_takes_precedence_and_similarity_keeps_the_mean(tmp_path: Path) -> None:
    path = encoder(tmp_path, "bert", {"pooling_mode": "cls"}, "Dense")
    model = load(path, pooling="last")
    assert (model.pooling, model.sentence_pooling, model.warnings) == ("last", None, ())


def test_files_that_cannot_be_read_are_no_sentence_encoders(tmp_path: Path) -> None:
    path = encoder(tmp_path, "bert", None)
    assert (load(path).pooling, load(path).warnings) == ("first", ())
    (path / "modules.json").write_text("{")
    assert (load(path).pooling, load(path).warnings) == ("first", ())
