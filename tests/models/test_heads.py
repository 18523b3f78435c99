"""From prompts to class logits: each head against its formula."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.tiny_models import (
    CPU,
    LABELS,
    backbone,
    byte_level,
    choice_data,
    plenty,
    sentence_piece,
    toy_data,
    toy_problem,
    word_piece,
)
from torch import Tensor

from llm_catalyst.models.heads.text import Classifier, Similarity, Verbalizer, tokenize_word
from llm_catalyst.models.prompted import PromptedText
from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.tasks.tokenization import encode_examples
from llm_catalyst.training.problem import cloze_for
from llm_catalyst.utils.validation import ConfigurationError

M = 3


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(examples: tuple[Example, ...], name: str = "bert") -> Batch:
    return encode_examples(backbone(name).tokenizer, examples, 40).batch([range(len(examples))], CPU)


def prompts(k: int) -> Tensor:
    return torch.randn(k, M, 32, generator=generator(5))


# Classifier


def test_the_classifier_is_each_members_own_linear_layer_on_the_pooled_state() -> None:
    model, head, data = backbone("bert"), Classifier(), toy_data()
    batch = batch_of(data.dev[:4]).expand(2)
    weight, bias = torch.randn(2, 2, 32, generator=generator()), torch.randn(2, 2, generator=generator(2))
    with torch.no_grad():
        found = PromptedText(model, head, {}, plenty()).logits(
            {"prompt": prompts(2), "head.weight": weight, "head.bias": bias}, batch
        )
        hidden = model.hidden(prompts(2), batch)
    for k in range(2):
        for r in range(4):
            expected = weight[k] @ hidden[k, r, M] + bias[k]
            torch.testing.assert_close(found[k, r], expected, atol=1e-5, rtol=1e-5)


def test_the_classifiers_weights_start_small_and_follow_from_the_generator() -> None:
    data = toy_data()
    weights = [Classifier().weights(backbone("bert"), data, generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(weights[0]["head.weight"], weights[1]["head.weight"])
    assert not torch.equal(weights[0]["head.weight"], weights[2]["head.weight"])
    assert weights[0]["head.weight"].shape == (2, 32)
    assert weights[0]["head.weight"].std().item() == pytest.approx(0.02, rel=0.3)
    assert weights[0]["head.bias"].tolist() == [0.0, 0.0]


def test_the_classifiers_dropout_is_active_only_while_the_backbone_trains() -> None:
    model, head, data = backbone("bert"), Classifier(dropout=0.5), toy_data()
    batch = batch_of(data.dev[:4])
    weights: dict[str, Any] = {n: w[None] for n, w in head.weights(model, data, generator()).items()}

    def scores(training: bool) -> Tensor:
        model.training = training  # the head asks for this, and the backbone's own dropout stays off
        try:
            return head.scores(model, {"prompt": prompts(1), **weights}, batch, {})
        finally:
            model.training = False

    torch.manual_seed(1)
    assert torch.equal(scores(False), scores(False))
    assert not torch.equal(scores(True), scores(True))


def test_a_dropout_out_of_bounds_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"head\.dropout=1\.0"):
        Classifier(dropout=1.0)


# Similarity


def mean_state(text: str, prompt: Tensor | None) -> Tensor:
    """The mean of the last states over prompt and text, by the model's own forward pass on this text alone."""
    model = backbone("bert")
    ids = torch.tensor([model.tokenizer(text).input_ids])
    words = model.vocabulary[ids]
    rows = words if prompt is None else torch.cat([prompt[None], words], 1)
    with torch.no_grad():
        return model.model(inputs_embeds=rows).last_hidden_state[0].mean(0)


def test_similarity_is_the_scaled_cosine_between_prompted_text_and_description() -> None:
    descriptions = ["a bad film", "it was a very good story"]
    model, head = backbone("bert"), Similarity(scale=7.0)
    data = toy_data(descriptions=descriptions)
    with torch.no_grad():
        constants = head.constants(model, data)
        found = PromptedText(model, head, constants, plenty()).logits(
            {"prompt": prompts(2)}, batch_of(data.dev[:3]).expand(2)
        )
    for k, prompt in enumerate(prompts(2)):
        for r, example in enumerate(data.dev[:3]):
            sentence = mean_state(example.sequences[0][0], prompt)
            for c, description in enumerate(descriptions):
                expected = 7.0 * torch.cosine_similarity(sentence, mean_state(description, None), dim=0)
                torch.testing.assert_close(found[k, r, c], expected, atol=1e-4, rtol=1e-4)


def test_without_descriptions_the_labels_names_describe_them() -> None:
    with torch.no_grad():
        named = Similarity().constants(backbone("bert"), toy_data())["descriptions"]
        given = Similarity().constants(backbone("bert"), toy_data(descriptions=list(LABELS)))["descriptions"]
    assert torch.equal(named, given)
    torch.testing.assert_close(named.norm(dim=-1), torch.ones(2))


def test_similarity_and_verbalizer_have_no_weights_to_train() -> None:
    for head in (Similarity(), Verbalizer()):
        assert head.weights(backbone("bert"), toy_data(), generator()) == {}
    assert not toy_problem(head=Similarity()).model.head.trained
    assert toy_problem(head=Classifier()).model.head.trained


# Verbalizer


@pytest.mark.parametrize(
    ("tokenizer", "piece"), [(word_piece(), "good"), (byte_level(), "Ġgood"), (sentence_piece(), "▁good")]
)
def test_a_label_word_is_the_token_that_it_is_inside_a_sentence(tokenizer: Any, piece: str) -> None:
    assert tokenizer.convert_ids_to_tokens(tokenize_word(tokenizer, "good"))[:1] == [piece]


def test_two_words_that_begin_with_the_same_token_are_refused_by_name() -> None:
    data = toy_data(words=["goodly", "gooding"])
    with pytest.raises(ConfigurationError, match=r"task.words=\['goodly', 'gooding'\]: two words begin with the same"):
        Verbalizer().constants(backbone("bert", words=True), data)


def test_without_words_the_labels_names_are_the_words() -> None:
    words = Verbalizer().constants(backbone("bert", words=True), toy_data())["words"]
    assert word_piece().convert_ids_to_tokens(words.tolist()) == list(LABELS)


# Multiple choice


def test_a_multiple_choice_task_gets_one_output_per_choice_each_scored_alone() -> None:
    model, head, data = backbone("bert"), Classifier(), choice_data()
    weights = {n: w[None] for n, w in head.weights(model, data, generator()).items()}
    assert weights["head.weight"].shape == (1, 1, 32)
    prompted = PromptedText(model, head, {}, plenty())
    batch = batch_of(data.train[:4])
    assert batch.tokens.shape[:2] == (1, 8)
    assert batch.labels.shape == (1, 4)
    with torch.no_grad():
        found = prompted.logits(weights | {"prompt": prompts(1)}, batch)
        assert found.shape == (1, 4, 2)
        for i, example in enumerate(data.train[:4]):
            for j, sequence in enumerate(example.sequences):
                one = batch_of((Example((sequence,), 0),))
                alone = prompted.logits(weights | {"prompt": prompts(1)}, one)
                torch.testing.assert_close(found[0, i, j], alone[0, 0, 0], atol=1e-5, rtol=1e-5)


def test_a_choice_is_scored_by_how_much_nearer_it_is_to_a_right_one_than_to_a_wrong_one() -> None:
    model, head, data = backbone("bert"), Similarity(), choice_data()
    data = replace(data, task=replace(data.task, descriptions=["a bad choice", "a good choice"]))
    with torch.no_grad():
        constants = head.constants(model, data)
        batch = batch_of(data.train[:2])
        found = PromptedText(model, head, constants, plenty()).logits({"prompt": prompts(1)}, batch)
        wrong, right = head.scores(model, {"prompt": prompts(1)}, batch, constants)[0].T
    torch.testing.assert_close(found[0], (right - wrong).view(2, 2))
    assert found.abs().max() > 1e-3


def test_a_cloze_that_begins_with_the_mask_adds_nothing_to_a_causal_models_text() -> None:
    assert cloze_for(backbone("gpt2"), "{mask}.") == ""
    assert cloze_for(backbone("gpt2"), "It was {mask}.") == " It was"
    data = toy_data()
    plain = encode_examples(backbone("gpt2").tokenizer, data.dev, 30)
    assert encode_examples(backbone("gpt2").tokenizer, data.dev, 30, "").tokens == plain.tokens
