"""Translate what earlier revisions wrote into config.yaml and manifest.json, so that their runs stay usable.

Everything that compares a run's configuration or builds objects from it reads it through this module. Format 1 is
that of the first revision, whose manifest.json has no `format`.
"""

import copy
import json
import re
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from typing import Any

from llm_catalyst.utils.validation import get_nested

FORMAT = 2  # of manifest.json and config.yaml as they are written today

# The package of a class of format 1, whose `_target_` named its module as well, and the packages that have moved since.
OLD_TARGET = re.compile(
    r"llm_catalyst\.(backbones|heads|doers|tasks|mentors(?:\.clients|\.strategies)?)"
    r"\.(?!(?:clients|strategies)\.)\w+\.(\w+)"
)
PACKAGES = {"backbones": "models.backbones", "heads": "models.heads", "doers": "optimizers"}
CLASSES = {"Rehearsal": "MockModel"}

# Keys that later revisions added to config.yaml, dotted, each with the value that gives the behaviour before it.
FILLED_KEYS: dict[str, Any] = {
    "plugins": [],
    "task.split_seed": None,
    "bucket_batches": 50,
    "sweep": {"budget": {"usd": None, "tokens": None}, "folder": None},
    "task.prompts": [],
    "task.max_length": None,
    "protocol.max_length": None,
    "criterion": None,
    "baseline": None,
    "restart.carry": 0.0,
    "restart.warm_up": 0,
    "restart.race_steps": 10,
    "stage.early_share": None,
    "mentor.client.package": None,
    "mentor.client.sha256": None,
    "mentor.client.terms": None,
    "backbone.chat": None,
    "strategy.show_moves": False,
    "strategy.name_task": True,
    "schedule.step": "step",
    "prompt.projection_rows": None,
    "prompt.as_text": False,
    "protocol.candidate_gap": 1,
    "protocol.count_start": True,
    "protocol.official_states": False,
    "mentor.on_unusable": "fallback",
    "mentor.replaces": None,
    "mentor.sample": 0,
    "mentor.prompts": [],
    "prompt.file": None,
    "mentor.client.reasoning_effort": None,
    "mentor.client.extra_body": None,
    "mentor.client.default_headers": None,
    "mentor.client.api_version": None,
    "mentor.client.effort": None,
    "mentor.client.thinking": None,
    "mentor.client.provider": None,
}
# Those that split off from another key: its value is the one before, where the configuration has it.
SPLIT_FROM = {"mentor.on_unusable": "mentor.on_failure"}
# Those that only some classes of this package have.
OPENAI, CLAUDE = "llm_catalyst.mentors.clients.OpenAIChat", "llm_catalyst.mentors.clients.Claude"
OF_CLASSES: dict[str, str | tuple[str, ...]] = {
    "mentor.client.reasoning_effort": OPENAI,
    "mentor.client.extra_body": OPENAI,
    "mentor.client.default_headers": OPENAI,
    "mentor.client.api_version": OPENAI,
    "mentor.client.effort": CLAUDE,
    "mentor.client.thinking": CLAUDE,
    "mentor.client.provider": (OPENAI, CLAUDE),
    "task.max_length": "llm_catalyst.tasks.TextTask",
    "task.prompts": "llm_catalyst.tasks.TextTask",
    "mentor.prompts": "llm_catalyst.mentors.Listed",
    "mentor.client.package": "llm_catalyst.mentors.clients.LocalModel",
    "mentor.client.sha256": "llm_catalyst.mentors.clients.LocalModel",
    "backbone.chat": "llm_catalyst.models.backbones.TextBackbone",
    "mentor.client.terms": "llm_catalyst.mentors.clients.LocalModel",
    "strategy.show_moves": "llm_catalyst.mentors.strategies.Paper",
    "strategy.name_task": "llm_catalyst.mentors.strategies.Paper",
    "mentor.on_unusable": "llm_catalyst.mentors.LanguageModel",
    "mentor.replaces": "llm_catalyst.mentors.LanguageModel",
    "mentor.sample": "llm_catalyst.mentors.LanguageModel",
}
# Keys whose default has changed when one of FILLED_KEYS came: of them, the earlier configuration's value is taken.
CHANGED_WITH = {"bucket_batches": "backbone.max_length", "mentor.on_unusable": "mentor.on_failure"}
# Those that changed from one value to another: that after one of FILLED_KEYS came, and that before.
DEFAULTS_SINCE: dict[str, dict[str, tuple[Any, Any]]] = {
    "sweep": {"strategy.form": ("auto", "chat")},
    "restart.carry": {
        "restart.choose": ("if_better", "best"),
        "restart.moments": ("prompt", "reset"),
        "prompt.start": ("normal", "vocabulary"),
        "prompt.std": (None, 1.0),
        "record.steps": (5, 10),
    },
    "protocol.count_start": {"record.steps": (1, 5), "bucket_batches": (0, None)},  # of protocol=official
    "prompt.file": {"strategy.words": (None, 9)},
}
# The same of optimizer=none alone.
DEFAULTS_ALONE_SINCE: dict[str, dict[str, tuple[Any, Any]]] = {
    "prompt.file": {"prompt.fill": ("none", "repeat"), "prompt.start": ("task", "normal"), "prompt.length": (32, 8)},
}
NO_TRAINING = "llm_catalyst.optimizers.NoTraining"

OWN = "llm_catalyst."  # how the path of a class of this package begins


def translate_target(target: str) -> str:
    """The public path of the class that a `_target_` of any revision names."""
    if (old := OLD_TARGET.fullmatch(target)) is None:
        return target
    return f"llm_catalyst.{PACKAGES.get(old[1], old[1])}.{CLASSES.get(old[2], old[2])}"


def translate_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with public `_target_`s and every key of FILLED_KEYS whose parent node it has."""
    translated = translate_restart(translate_targets(config))
    if translated.get("optimizer", "") is None:  # format 1 said doer=none so
        translated["optimizer"] = {"_target_": NO_TRAINING}
    if isinstance(seed := translated.get("seed"), str | float):  # written as typed: '007', 1e3
        with suppress(ValueError, OverflowError):
            translated["seed"] = int(seed)
    for node, name, key in list_lacking_keys(translated):
        node[name] = earlier_value(translated, key)
    return translated


def earlier_value(config: Mapping[str, Any], key: str) -> Any:
    """The value of one of FILLED_KEYS that gives a configuration without it the behaviour that it had."""
    split = get_nested(config, *SPLIT_FROM[key].split(".")) if key in SPLIT_FROM else None
    return copy.deepcopy(FILLED_KEYS[key]) if split is None else split


def lacks_keys(config: Mapping[str, Any]) -> bool:
    """Whether a configuration, as it was written, is that of an earlier revision."""
    return bool(list_lacking_keys(translate_restart(config)))


def list_lacking_keys(config: Mapping[str, Any]) -> list[tuple[dict[str, Any], str, str]]:
    """Each key of FILLED_KEYS that the configuration lacks: its node, its name in it, and the dotted key.

    A node that is not there, or is of a class of a user's own, lacks none.
    """
    found = []
    for key in FILLED_KEYS:
        node, name = find_parent(config, key)
        if node is not None and name not in node:
            target = translate_target(str(node.get("_target_", OWN)))
            if target.startswith(OF_CLASSES.get(key, OWN)):
                found.append((node, name, key))
    return found


def find_parent(config: Mapping[str, Any], key: str) -> tuple[dict[str, Any] | None, str]:
    """The node of a configuration in which a dotted key stands, None where there is none, and the key's name in it."""
    *parents, name = key.split(".")
    node = get_nested(config, *parents)
    return (node if isinstance(node, dict) else None), name


def keep_earlier_values(config: Mapping[str, Any], earlier: Mapping[str, Any], given: Container[str]) -> dict[str, Any]:
    """The configuration for a run that continues one with the configuration `earlier`, or stands beside it in a table.

    It has the value of FILLED_KEYS for each key that `earlier` lacks and the command does not give, and then also the
    values of `earlier` whose defaults have changed since.

    Args:
        config: as it was composed.
        earlier: as it was written, not translated.
        given: the dotted keys of the command.
    """
    kept = copy.deepcopy(dict(config))
    lacking, values = [key for _, _, key in list_lacking_keys(translate_restart(earlier))], dict[str, Any]()
    alone = get_nested(kept, "optimizer", "_target_") == NO_TRAINING
    for key in reversed(lacking):  # a default may have changed twice
        changed = DEFAULTS_SINCE.get(key, {}) | (DEFAULTS_ALONE_SINCE.get(key, {}) if alone else {})
        now = {key: values.get(key, get_nested(kept, *key.split("."))) for key in changed}
        values |= {key: old for key, (new, old) in changed.items() if now[key] == new}
    values |= {key: earlier_value(earlier, key) for key in lacking}
    values |= {key: get_nested(earlier, *key.split(".")) for lack, key in CHANGED_WITH.items() if lack in lacking}
    for key, value in values.items():
        node, name = find_parent(kept, key)
        if node is not None and name in node and key not in given:
            node[name] = copy.deepcopy(value)
    return kept


def translate_restart(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the group `restart`, of which earlier revisions had two keys: restart and moments."""
    translated = dict(config)
    moments = translated.pop("moments", None)
    if isinstance(translated.get("restart"), str):
        translated["restart"] = {"choose": translated["restart"], "moments": moments or "reset"}
    return translated


def translate_targets(node: Any) -> Any:
    """The node with each `_target_` in it replaced by its public path."""
    if isinstance(node, Mapping):
        return {
            key: translate_target(str(value)) if key == "_target_" else translate_targets(value)
            for key, value in node.items()
        }
    return [translate_targets(value) for value in node] if isinstance(node, list) else node


def translate_choices(choices: Mapping[str, str]) -> dict[str, str]:
    """The choice of each group; where format 1 has doer=none, optimizer is none as well."""
    return {**choices, "optimizer": "none"} if choices.get("doer") == "none" else dict(choices)


def translate_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command as they are written today."""
    return tuple("optimizer=none" if word == "doer=none" else word for word in words)


def read_format(manifest: bytes) -> int:
    """The format that the content of a manifest.json names; 1 where it names none."""
    found = None
    with suppress(ValueError):
        found = get_nested(json.loads(manifest), "format")
    return found if isinstance(found, int) else 1
