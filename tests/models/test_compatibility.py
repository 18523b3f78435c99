"""Checkpoints, tokenizers, words and lengths that do not fit a model: refused before training, with numbers and fix."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import CPU, backbone, folder, reloaded_tokenizer, toy_data, toy_problem, toy_settings
from transformers.models.bert import BertModel
from transformers.models.camembert import CamembertConfig, CamembertForMaskedLM
from transformers.models.fnet import FNetConfig, FNetForMaskedLM
from transformers.models.gemma4 import Gemma4ForCausalLM, Gemma4TextConfig
from transformers.models.t5 import T5Config

from llm_catalyst.models.backbones import compatibility
from llm_catalyst.models.backbones.config import TextBackbone
from llm_catalyst.models.backbones.text import FrozenText, load_text_backbone
from llm_catalyst.models.heads.text import Similarity, Verbalizer
from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.tasks.base import Example
from llm_catalyst.training.problem import assemble_problem
from llm_catalyst.training.run import refuse_long_limit
from llm_catalyst.utils.validation import ConfigurationError


def copy_model(name: str, path: Path) -> Path:
    """A folder with a tiny model of its own, to be changed."""
    shutil.copytree(folder(name), path, dirs_exist_ok=True)
    return path


def load(path: Path, words: bool = False, **settings: Any) -> FrozenText:
    return load_text_backbone(TextBackbone(str(path), **settings), words, CPU)


# Checkpoints


# E13
def test_an_encoder_decoder_is_refused_by_name_before_its_weights_are_read(tmp_path: Path) -> None:
    T5Config(vocab_size=60, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match=r"\(t5\) is an encoder-decoder, which is not supported; docs/guide"):
        load(tmp_path)


# E12
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_a_folder_without_a_tokenizer_names_the_files_that_are_missing(tmp_path: Path, name: str) -> None:
    for path in copy_model(name, tmp_path).glob("*token*"):
        path.unlink()
    problem = (
        r"holds no tokenizer: neither tokenizer\.json .*\(there: config\.json.*model\.safetensors\); put them there"
    )
    with pytest.raises(ConfigurationError, match=problem):
        load(tmp_path)


def test_a_tokenizer_without_its_vocabulary_names_the_files_that_hold_it(tmp_path: Path) -> None:
    (copy_model("bert", tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(ConfigurationError, match=r"a BertTokenizer, has no vocabulary, .* tokenizer\.json, vocab\.txt"):
        load(tmp_path)


def test_a_language_model_without_the_weights_of_its_head_is_refused(tmp_path: Path) -> None:
    copy_model("bert", tmp_path)
    BertModel.from_pretrained(folder("bert")).save_pretrained(tmp_path)  # no head: transformers would draw one
    load(tmp_path, kind="masked_lm")
    with pytest.raises(ConfigurationError, match=r"lacks 6 of the weights of BertForMaskedLM \(cls\.predictions"):
        load(tmp_path, words=True, kind="masked_lm")


def test_a_family_without_a_language_models_head_is_refused_by_name(tmp_path: Path) -> None:
    config = json.loads((copy_model("bert", tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "lilt"}))
    with pytest.raises(ConfigurationError, match=r"\(lilt\) has no head of a masked_lm in transformers; head=class"):
        load(tmp_path, words=True, kind="masked_lm")


def test_a_model_that_computes_something_else_from_embedded_tokens_is_refused_by_name() -> None:
    model = load(Path(folder("gpt2")))
    table, words = model.base.get_input_embeddings(), load(Path(folder("gpt2")), words=True)
    table.forward = lambda ids: 2 * type(table).forward(table, ids)
    with pytest.raises(ConfigurationError, match=r"gpt2 \(gpt2\) computes other hidden states from embedded tokens"):
        compatibility.check_backbone(model, False)
    words.model.lm_head.forward = lambda states: states @ words.vocabulary.T + states.shape[1]
    with pytest.raises(ConfigurationError, match=r"\(gpt2\) computes other logits of its language-model head from"):
        compatibility.check_backbone(words, True)


def test_a_family_that_looks_for_the_ids_of_embedded_tokens_is_refused_as_a_soft_prompt_has_none() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    layers = {"layer_types": ["sliding_attention", "full_attention"], "per_layer_config": {}, "head_dim": 8}
    extra = {"vocab_size_per_layer_input": 60, "hidden_size_per_layer_input": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    model = Gemma4ForCausalLM(Gemma4TextConfig(vocab_size=60, pad_token_id=0, **sizes, **layers, **extra)).eval()
    settings = TextBackbone("gemma", kind="causal_lm")
    with pytest.raises(ConfigurationError, match=r"gemma \(gemma4_text\) cannot be given embedded tokens"):
        compatibility.check_backbone(FrozenText(settings, model, reloaded_tokenizer("bert")), False)


def test_a_model_whose_states_depend_on_padding_is_announced() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 64}
    torch.manual_seed(0)
    model = FNetForMaskedLM(FNetConfig(vocab_size=400, **sizes, initializer_range=0.3)).eval()
    (warning,) = compatibility.check_backbone(FrozenText(TextBackbone("f"), model, reloaded_tokenizer("bert")), False)
    assert warning.startswith("the states that backbone.name=f gives a text depend on the padding behind it")
    assert not any(backbone(name).warnings for name in ("bert", "roberta", "gpt2"))


def test_a_model_whose_states_are_not_finite_is_refused(tmp_path: Path) -> None:
    model = backbone("llama", dtype="float16")
    torch.nn.init.constant_(model.base.norm.weight, torch.inf)
    with pytest.raises(ConfigurationError, match=r"1 of its weights .* not finite in backbone\.dtype=float16 \(norm\."):
        compatibility.check_backbone(model, False)
    torch.nn.init.constant_(model.base.norm.weight, 6e4)  # finite, and the states are not
    with pytest.raises(ConfigurationError, match=r"hidden states that are not finite in backbone\.dtype=float16"):
        compatibility.check_backbone(model, False)


# Positions


def camembert(positions: int = 42) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = CamembertConfig(vocab_size=400, max_position_embeddings=positions, pad_token_id=1, **sizes)
    return CamembertForMaskedLM(config).eval()


# E14
def test_the_positions_are_those_of_the_models_table_behind_its_padding_id() -> None:
    model = FrozenText(TextBackbone("camembert"), camembert(), reloaded_tokenizer("roberta"))
    assert model.positions == 40
    ids = torch.full((1, 41), 7)
    assert model.base(input_ids=ids[:, :40]).last_hidden_state.isfinite().all()
    with pytest.raises((IndexError, RuntimeError), match="index"):
        model.base(input_ids=ids)


# E14
@pytest.mark.parametrize(("name", "positions"), [("bert", 64), ("roberta", 62), ("opt", 64), ("gpt2", 64)])
def test_a_limit_that_does_not_fit_beside_the_prompt_is_refused_with_the_numbers(name: str, positions: int) -> None:
    def problem_with(limit: int | None) -> Any:
        model = backbone(name, max_length=limit)
        return assemble_problem(toy_data(), model, Similarity(), toy_settings())

    refuse_long_limit(problem_with(positions - 4))
    refuse_long_limit(problem_with(None))
    numbers = rf"max_length={positions} and prompt\.length=4 make {positions + 4} tokens, and .* has {positions} pos"
    with pytest.raises(ConfigurationError, match=rf"{numbers}.*; set backbone\.max_length={positions - 4} at most"):
        refuse_long_limit(problem_with(positions))


# E15
@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_a_limit_that_leaves_no_token_for_the_text_is_refused_with_the_numbers(name: str) -> None:
    model = backbone(name, words=True, max_length=4)
    with pytest.raises(
        ConfigurationError, match=r"max_length=4 leaves no token for the text: task\.cloze=.* take \d+; s"
    ):
        assemble_problem(toy_data(), model, Verbalizer(), toy_settings())


# Tokenizer and model


def with_tokens(name: str, *tokens: str, words: bool = False, rows: int | None = None) -> FrozenText:
    """The tiny model, whose tokenizer has further tokens; it keeps as many rows as it had tokens, or `rows`."""
    tokenizer, model = reloaded_tokenizer(name), backbone(name, words)
    size = rows or len(tokenizer)
    tokenizer.add_tokens(list(tokens))
    model = load_text_backbone(TextBackbone(folder(name), kind=model.settings.kind), words, CPU)
    model.model.resize_token_embeddings(size)
    return FrozenText(model.settings, model.model, tokenizer)


# E11
def test_a_token_of_a_text_that_the_model_has_no_row_for_is_refused_with_the_numbers() -> None:
    model = with_tokens("bert", "zzyzx", "qqq")
    rows = len(model.vocabulary)
    data = toy_data()
    assemble_problem(data, model, Similarity(), toy_settings())  # the further tokens are never used
    odd = replace(data, dev=(Example((("the zzyzx film", None),), 0), *data.dev))
    where = (
        rf"task=toy: a text holds 'zzyzx', token {rows} of {rows + 2} of the tokenizer .* and the model embeds {rows}"
    )
    with pytest.raises(ConfigurationError, match=where):
        assemble_problem(odd, model, Similarity(), toy_settings())
    with pytest.raises(ConfigurationError, match=r"task\.descriptions holds 'qqq'"):
        assemble_problem(toy_data(descriptions=["a qqq film", "good"]), model, Similarity(), toy_settings())


def test_two_labels_of_one_description_are_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="describes two labels by 'a film', and no score could tell them apart"
    ):
        toy_problem("bert", Similarity(), toy_data(descriptions=["a film", "a film"]))


# E11
def test_a_padding_token_without_a_row_fills_batches_up_all_the_same() -> None:
    model = with_tokens("gpt2", "<pad>")
    model.tokenizer.pad_token = "<pad>"
    problem = assemble_problem(toy_data(), model, Similarity(), toy_settings())
    plain = toy_problem("gpt2", Similarity())
    first, second = (each.score([each.start()])[0].score for each in (problem, plain))
    assert first == second


# E11
def test_a_prompt_never_names_a_row_without_a_token_or_a_token_without_a_row() -> None:
    larger, smaller = backbone("bert"), with_tokens("bert", "zzyzx")
    known = len(larger.tokenizer)
    space = PromptSpace(larger.tokenizer, larger.vocabulary, PromptSettings(length=4, special_tokens=True))
    assert len(larger.vocabulary) == known + 3
    assert space.allowed_ids == tuple(range(known))
    (prompt,), _ = space.project(larger.vocabulary[-4:][None].float())
    assert max(prompt.tokens) < known
    space = PromptSpace(smaller.tokenizer, smaller.vocabulary, PromptSettings(length=4))
    with pytest.raises(ValueError, match=rf"'zzyzx' in 'a zzyzx' has the id {known}, and the model embeds {known}"):
        space.fit("a zzyzx")


# Words


# E9
@pytest.mark.parametrize(
    ("name", "word", "problem"),
    [
        ("bert", "差", r"'差' is unknown to this tokenizer \(\[UNK\]\)"),
        ("bert", "", "'' is empty for this tokenizer"),
        ("bert", "[SEP]", r"'\[SEP\]' is a special token"),
        ("deberta", "xyz", r"'xyz' begins with the token '▁', which says nothing"),
    ],
)
def test_a_label_word_that_the_tokenizer_cannot_read_is_refused(name: str, word: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"task\.words=\[.*: {problem}; choose another word"):
        toy_problem(name, Verbalizer(), toy_data(words=[word, "good"]))


# E9
def test_a_label_word_of_several_tokens_is_announced_with_the_one_that_is_read() -> None:
    problem = toy_problem("bert", Verbalizer(), toy_data(words=["goodless", "bad"]))
    assert problem.warnings == (
        "task.words: a word of several tokens is read by its first: 'goodless' by 'good'; choose shorter words",
    )
    assert not toy_problem("bert", Verbalizer()).warnings


# The text that a prompt starts from


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"start": "text", "text": "<|endoftext|>"},
            r"prompt\.text: '<\|endoftext\|>' holds no token.*special_tokens=true",
        ),
        ({"fill": "<|endoftext|>"}, r"prompt\.fill: '<\|endoftext\|>' holds no token"),
    ],
)
def test_a_start_without_tokens_is_refused_before_training(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        toy_problem("gpt2", Similarity(), prompt=PromptSettings(length=4, **settings))
