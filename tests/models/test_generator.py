"""Answers with a soft prompt in the request: their loss and their text, as transformers itself has them."""

from typing import Any

import pytest
import torch
from helpers.tiny_models import CAUSAL, backbone
from torch import Tensor

from llm_catalyst.models.generator import PromptedGenerator, cut_text
from llm_catalyst.models.heads.generation import Generation
from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.generation_task import GenerationTask
from llm_catalyst.tasks.request_batching import EncodedRequests
from llm_catalyst.utils.memory import PassLimits

BEFORE = ((5, 6, 7), (5,), ())
AFTER = ((8, 9), (9, 10, 11, 12), (6,))
ANSWERS = ((7, 8), (9,), (10, 11, 12))
M, K = 3, 2


def encoded() -> EncodedRequests:
    examples = tuple(Example((("x", None),), 0, targets=("y",)) for _ in BEFORE)
    return EncodedRequests(examples, BEFORE, AFTER, ANSWERS, padding=1)


def generator(name: str, stop: tuple[str, ...] = (), new: int = 5) -> PromptedGenerator:
    task = GenerationTask("toy", "{x}", "{y}", max_new_tokens=new, stop=list(stop))
    return PromptedGenerator(backbone(name, words=True), Generation(), {}, PassLimits(8, 1000), task)


def prompts(model: PromptedGenerator) -> Tensor:
    rows = torch.randn(K, M, model.backbone.vocabulary.shape[1], generator=torch.Generator().manual_seed(3))
    return rows * model.backbone.vocabulary.std()


def embed_request(model: PromptedGenerator, prompt: Tensor, i: int) -> Tensor:
    """One request alone, without any padding: the rows of its first part, of the prompt and of its second part."""
    table = model.backbone.base.get_input_embeddings()
    parts = [table(torch.tensor(ids, dtype=torch.long)) for ids in (BEFORE[i], AFTER[i])]
    return torch.cat([parts[0], prompt, parts[1]])[None]


@pytest.mark.parametrize("name", CAUSAL)
def test_the_loss_of_an_answer_is_that_which_transformers_computes_from_labels(name: str) -> None:
    model = generator(name)
    rows = prompts(model)
    found = model.losses({"prompt": rows}, encoded().batch([range(3)], "cpu").expand(K))
    table = model.backbone.base.get_input_embeddings()
    for member, prompt in enumerate(rows):
        for i, answer in enumerate(ANSWERS):
            request = embed_request(model, prompt, i)
            whole = torch.cat([request, table(torch.tensor([answer]))], dim=1)
            labels = torch.tensor([[-100] * request.shape[1] + list(answer)])
            alone = model.backbone.model(inputs_embeds=whole, labels=labels).loss
            torch.testing.assert_close(found[member, i], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_padded_batch_is_continued_as_each_request_alone_by_the_model_itself(name: str) -> None:
    model = generator(name)
    rows = prompts(model)
    found = model.generate({"prompt": rows}, encoded().batch([range(3)], "cpu").expand(K))
    tokenizer: Any = model.backbone.tokenizer
    for member, prompt in enumerate(rows):
        for i in range(len(BEFORE)):
            request = embed_request(model, prompt, i)
            alone = model.backbone.model.generate(
                inputs_embeds=request,
                attention_mask=torch.ones(request.shape[:2], dtype=torch.long),
                max_new_tokens=5,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
            assert found[member][i] == tokenizer.decode(alone[0], skip_special_tokens=True)


def test_the_gradient_reaches_every_row_of_the_prompt() -> None:
    model = generator(CAUSAL[0])
    rows = prompts(model).requires_grad_()
    model.losses({"prompt": rows}, encoded().batch([range(3)], "cpu").expand(K)).sum().backward()
    assert rows.grad is not None
    assert (rows.grad.abs().sum(-1) > 0).all()


def test_a_response_ends_before_the_first_of_the_texts_that_stop_it() -> None:
    plain = generator(CAUSAL[0], new=8).generate(
        {"prompt": prompts(generator(CAUSAL[0]))[:1]}, encoded().batch([[0]], "cpu")
    )
    whole = plain[0][0]
    stop = whole[len(whole) // 2 :][:2]
    stopped = generator(CAUSAL[0], (stop,), 8)
    found = stopped.generate({"prompt": prompts(stopped)[:1]}, encoded().batch([[0]], "cpu"))
    assert found == [[whole[: whole.index(stop)]]]
    assert cut_text("ab Q: c", ["Q:", "b"]) == "a"


def test_examples_that_are_picked_and_parts_of_a_batch_are_the_same_requests() -> None:
    model = generator(CAUSAL[0])
    rows = {"prompt": prompts(model)}
    whole = model.losses(rows, encoded().batch([range(3)], "cpu").expand(K))
    picked = model.losses(rows, encoded().pick([2, 0]).batch([range(2)], "cpu").expand(K))
    torch.testing.assert_close(picked, whole[:, [2, 0]], rtol=1e-5, atol=1e-5)
    parts = [model.losses(rows, part) for part in encoded().batch([range(3)], "cpu").expand(K).parts(2)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-5, atol=1e-5)
