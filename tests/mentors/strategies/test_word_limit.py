"""The number of words that requests name: what the prompt's tokens can hold, unless `strategy.words` says it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from helpers.dialogues import first_request
from helpers.tiny import consultation, prompt_space

from llm_catalyst.mentors.strategies.paper import Paper


@pytest.mark.parametrize(("m", "words"), [(1, 2), (4, 5), (8, 9), (10, 9), (12, 10), (16, 13), (32, 25), (64, 49)])
def test_the_limit_follows_the_length_of_a_prompt(m: int, words: int) -> None:
    assert Paper().limits(prompt_space(m)) == (words, m)
    asked = first_request(Paper(), replace(consultation(()), space=prompt_space(m))).messages[1].content
    assert f"- Write fewer than {words} words per prompt. Only its first {m} tokens are used.\n" in asked


def test_a_limit_that_is_given_holds_for_every_length() -> None:
    assert [Paper(words=9).limits(prompt_space(m)) for m in (4, 32)] == [(9, 4), (9, 32)]


@pytest.mark.parametrize("length", [4, 8, 64])
def test_the_official_request_names_nine_words_for_every_length(
    length: int, composed: Callable[..., dict[str, Any]]
) -> None:
    node = composed("protocol=official", f"prompt.length={length}")["strategy"]
    assert (node["words"], node["name_task"]) == (9, False)
    strategy = Paper(**{key: value for key, value in node.items() if key != "_target_"})
    asked = first_request(strategy, replace(consultation(), space=prompt_space(length))).messages[0].content
    assert "- Each has fewer than 9 words.\n" in asked
