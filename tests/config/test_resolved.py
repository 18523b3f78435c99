"""The resolved configuration has every key, those that the classes' defaults give included."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from llm_catalyst.config.build import build_components
from llm_catalyst.config.resolved import complete_config, complete_node
from llm_catalyst.utils.validation import flatten_leaves


def resolved(config: dict[str, Any]) -> dict[str, Any]:
    return complete_config(config, build_components(config))


@pytest.mark.parametrize(
    "words", [(), ("mentor=perturb", "head=verbalizer"), ("task=shapes", "backbone=tiny_clip", "head=coop")]
)
def test_what_was_given_stays_and_the_defaults_of_the_classes_are_added(
    composed: Callable[..., dict[str, Any]], words: tuple[str, ...]
) -> None:
    config = composed(*words)
    found, given = dict(flatten_leaves(resolved(config))), dict(flatten_leaves(config))
    assert {key: found[key] for key in given} == given
    assert found["optimizer.amsgrad"] is False
    json.dumps(found, allow_nan=False)


def test_a_task_that_names_only_its_columns_has_its_metric_words_and_splits(
    composed: Callable[..., dict[str, Any]],
) -> None:
    config = composed("head=similarity")
    config["task"] = {"_target_": "llm_catalyst.tasks.TextTask", "name": "mine", "text": "{review}"}
    task = resolved(config)["task"]
    assert (task["metric"], task["dev_share"], task["split_seed"], task["cloze"]) == (
        "accuracy",
        0.1,
        0,
        "It was {mask}.",
    )


def test_clients_and_fallbacks_have_their_defaults_and_no_key(
    composed: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-no-account-0123456789")
    config = composed("mentor=gpt4o_mini")
    config["mentor"]["fallbacks"] = [{"_target_": "llm_catalyst.mentors.Perturb"}]
    del config["mentor"]["client"]["timeout_s"]
    mentor = resolved(config)["mentor"]
    assert mentor["client"]["timeout_s"] > 0
    assert mentor["fallbacks"][0]["rate"] > 0
    assert "sk-of-no-account" not in json.dumps(mentor)


def test_what_json_has_no_word_for_is_text_or_left_out() -> None:
    @dataclass(frozen=True)
    class Mine:
        far: float = float("inf")
        make: Any = print
        pair: tuple[int, int] = (1, 2)

    assert complete_node({"_target_": "my.Mine"}, Mine()) == {"_target_": "my.Mine", "far": "inf", "pair": [1, 2]}
