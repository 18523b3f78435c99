"""What earlier revisions wrote is read as today's revision writes it, and a later format is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.recorded import manifest, write_run

from llm_catalyst.runs.old_configs import (
    FILLED_KEYS,
    FORMAT,
    keep_earlier_values,
    translate_choices,
    translate_config,
    translate_target,
    translate_words,
)
from llm_catalyst.runs.reader import read_manifest
from llm_catalyst.runs.records import to_json
from llm_catalyst.runs.run_config import is_same, load_config
from llm_catalyst.utils.validation import ConfigurationError


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("llm_catalyst.mentors.language_model.LanguageModel", "llm_catalyst.mentors.LanguageModel"),
        ("llm_catalyst.mentors.clients.rehearsal.Rehearsal", "llm_catalyst.mentors.clients.MockModel"),
        ("llm_catalyst.doers.zeroth_order.ZerothOrderSGD", "llm_catalyst.optimizers.ZerothOrderSGD"),
        ("torch.optim.AdamW", "torch.optim.AdamW"),
        ("my_package.Mine", "my_package.Mine"),
    ],
)
def test_an_old_target_becomes_the_public_path_and_a_public_one_stays(old: str, new: str) -> None:
    assert translate_target(old) == new
    assert translate_target(new) == new


def test_targets_are_translated_wherever_they_stand_and_the_old_configuration_is_left_alone() -> None:
    client = {"_target_": "llm_catalyst.mentors.clients.local.LocalModel", "model": "m"}
    fallback = {"_target_": "llm_catalyst.mentors.language_model.LanguageModel", "client": client}
    old = {"seed": 1, "mentor": {"fallbacks": [fallback], "words": ["a"]}, "optimizer": None}
    copy = json.loads(json.dumps(old))
    assert translate_config(old) == {
        "seed": 1,
        "mentor": {
            "fallbacks": [
                {
                    "_target_": "llm_catalyst.mentors.LanguageModel",
                    "client": {"_target_": "llm_catalyst.mentors.clients.LocalModel", "model": "m"},
                }
            ],
            "words": ["a"],
        },
        "optimizer": {"_target_": "llm_catalyst.optimizers.NoTraining"},
        "plugins": [],
        "bucket_batches": 50,
        "sweep": {"budget": {"usd": None, "tokens": None}, "folder": None},
        "criterion": None,
        "baseline": None,
    }
    assert old == copy


def test_a_later_key_is_filled_where_its_node_is_there_and_left_as_it_is_where_it_has_a_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(FILLED_KEYS, "pool.later", 7)
    assert translate_config({"pool": {"size": 3}})["pool"] == {"size": 3, "later": 7}
    assert translate_config({"pool": {"later": 8}})["pool"] == {"later": 8}
    assert "pool" not in translate_config({"seed": 1})
    assert translate_config({"pool": 1})["pool"] == 1


# E10
@pytest.mark.parametrize(("written", "seed"), [("'007'", 7), ("'1'", 1), ("1000.0", 1000)])
def test_a_seed_that_was_written_as_it_was_typed_is_the_number(tmp_path: Path, written: str, seed: int) -> None:
    path = write_run(tmp_path / "run", stages=1)
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("seed: 3", f"seed: {written}"))
    assert load_config(path)["seed"] == seed


def test_a_number_that_was_written_as_text_is_the_same_setting() -> None:
    assert is_same("32", 32)
    assert is_same("true", True)
    assert is_same(None, None)
    assert not is_same("32", 16)
    assert not is_same("a", None)
    assert not is_same("007", "7")


def test_filled_values_are_not_shared_between_configurations() -> None:
    translate_config({})["plugins"].append("mine")
    assert translate_config({})["plugins"] == []


def test_a_key_of_ours_is_not_filled_into_a_class_of_a_users_own() -> None:
    assert "split_seed" not in translate_config({"task": {"_target_": "my_package.Mine"}})["task"]
    assert translate_config({"task": {"_target_": "llm_catalyst.tasks.TextTask"}})["task"]["split_seed"] is None


def test_a_run_that_was_begun_without_a_key_continues_without_its_effect_unless_the_command_gives_it() -> None:
    config = {"bucket_batches": None, "task": {"split_seed": 0}}
    earlier: dict[str, Any] = {"seed": 1, "task": {"name": "sst2"}}
    assert keep_earlier_values(config, earlier, ()) == {"bucket_batches": 50, "task": {"split_seed": None}}
    assert keep_earlier_values(config, earlier, ("task.split_seed",))["task"] == {"split_seed": 0}
    assert keep_earlier_values(config, config, ()) == config


def test_a_run_that_was_begun_under_another_default_keeps_it_unless_the_command_gives_the_key() -> None:
    task = {"_target_": "llm_catalyst.tasks.TextTask"}
    config = {"task": {**task, "split_seed": 0, "max_length": 128}, "backbone": {"max_length": None}}
    earlier: dict[str, Any] = {"task": task, "backbone": {"max_length": 128}}
    kept = keep_earlier_values(config, earlier, ())
    assert (kept["task"]["max_length"], kept["backbone"]["max_length"]) == (None, 128)
    assert keep_earlier_values(config, earlier, ("backbone.max_length",))["backbone"]["max_length"] is None
    today = config | {"bucket_batches": None, "plugins": [], "backbone": {"max_length": 64}}
    assert keep_earlier_values(config, today, ())["backbone"]["max_length"] is None


def test_a_default_that_changed_twice_is_the_one_of_the_run_that_was_begun() -> None:
    """protocol=official recorded every step when this came, every fifth before, and every tenth before that."""
    config: dict[str, Any] = {"record": {"steps": 1}, "bucket_batches": 0, "protocol": {"count_start": False}}
    now = config | {"restart": {"carry": 0.0}}
    steps = {}
    for known in ({}, {"restart": {"carry": 0.0}}, now):
        earlier: dict[str, Any] = {"protocol": {}, "restart": {}, "bucket_batches": None, **known}
        kept = keep_earlier_values(now, earlier, ())
        steps[len(known)] = kept["record"]["steps"], kept["bucket_batches"]
    assert steps == {0: (10, None), 1: (5, None), 4: (1, 0)}
    assert keep_earlier_values(now, {"protocol": {}}, ("record.steps",))["record"]["steps"] == 1


def test_the_limit_of_texts_is_no_key_of_an_image_task() -> None:
    assert "max_length" not in translate_config({"task": {"_target_": "llm_catalyst.tasks.ImageTask"}})["task"]


def test_doer_none_of_an_old_command_is_the_choice_optimizer_none() -> None:
    assert translate_choices({"doer": "none", "optimizer": "adamw"}) == {"doer": "none", "optimizer": "none"}
    assert translate_choices({"optimizer": "adamw"}) == {"optimizer": "adamw"}
    assert translate_words(("task=sst2", "doer=none")) == ("task=sst2", "optimizer=none")


def test_a_manifest_without_a_format_has_format_1_and_a_later_format_is_refused(tmp_path: Path) -> None:
    written = json.loads(to_json(manifest()))
    written.pop("format")
    (tmp_path / "manifest.json").write_text(json.dumps(written))
    assert read_manifest(tmp_path).format == 1
    (tmp_path / "manifest.json").write_text(json.dumps({"format": FORMAT + 1, "unheard": "of"}))
    message = rf"manifest.json has format {FORMAT + 1}, and this version .* reads formats up to {FORMAT}; install"
    with pytest.raises(ConfigurationError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b"\xff", b'{"format": null}', b'{"format": "x"}', b'{"format": 1e999}']
)
def test_a_manifest_that_is_none_is_refused_as_such(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match=re.escape(f"{tmp_path / 'manifest.json'} is not a Manifest record")):
        read_manifest(tmp_path)


@pytest.mark.parametrize("folder", ["/data/caf\udce9", "/data/café 好", "/data/🎬"])
def test_a_configuration_with_any_path_is_read_back(tmp_path: Path, folder: str) -> None:
    """Python's YAML writes a byte of a path that is no UTF-8 as an escape that the parser in C refuses."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"task": {"path": folder}}))
    assert load_config(tmp_path)["task"]["path"] == folder


@pytest.mark.parametrize("before", ["fallback", "stop"])
def test_one_key_of_a_mentors_failures_meant_unusable_answers_too(before: str) -> None:
    mentor = {"_target_": "llm_catalyst.mentors.LanguageModel", "on_failure": before}
    lacking = {"on_unusable": before, "replaces": None, "sample": 0}
    assert translate_config({"mentor": mentor})["mentor"] == mentor | lacking
    today = {"mentor": mentor | {"on_failure": "stop", "on_unusable": "fallback"}}
    kept = keep_earlier_values(today, {"mentor": mentor}, ())["mentor"]
    assert (kept["on_failure"], kept["on_unusable"]) == (before, before)
    given = keep_earlier_values(today, {"mentor": mentor}, ("mentor.on_failure",))["mentor"]
    assert given["on_failure"] == "stop"


ALONE = {"_target_": "llm_catalyst.optimizers.NoTraining"}


@pytest.mark.parametrize(
    ("optimizer", "kept"),
    [(ALONE, ("repeat", "normal", 8, 9)), ({"_target_": "torch.optim.AdamW"}, ("none", "task", 32, 9))],
    ids=["alone", "gradient"],
)
def test_a_run_without_a_gradient_beside_one_of_before_its_prompts_stood_as_written_fills_them(
    optimizer: dict[str, Any], kept: tuple[Any, ...]
) -> None:
    now: dict[str, Any] = {
        "optimizer": optimizer,
        "prompt": {"fill": "none", "start": "task", "length": 32, "file": None},
        "strategy": {"words": None},
    }
    known: dict[str, Any] = {key: 0 for key in FILLED_KEYS if "." not in key}
    nodes = {key.split(".")[0] for key in FILLED_KEYS if "." in key}
    for node in nodes:
        known[node] = {key.partition(".")[2]: 0 for key in FILLED_KEYS if key.startswith(f"{node}.")}
    known["prompt"].pop("file")
    found = keep_earlier_values(now, known, ())
    assert (*(found["prompt"][key] for key in ("fill", "start", "length")), found["strategy"]["words"]) == kept
    given = keep_earlier_values(now, known, ("prompt.length", "prompt.fill", "strategy.words"))
    assert (given["prompt"]["fill"], given["prompt"]["length"], given["strategy"]["words"]) == ("none", 32, None)
    assert translate_config(known)["prompt"]["file"] is None
