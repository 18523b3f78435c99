"""Translate what earlier revisions wrote into config.yaml and manifest.json, so that their runs stay usable.

Everything that compares a run's configuration or builds objects from it reads it through this module. Format 1 is
that of the first revision, whose manifest.json has no `format`.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

FORMAT = 2  # of manifest.json and config.yaml as they are written today

# Today's package of the classes that each module of format 1 held.
MODULES = {
    f"llm_catalyst.{module}": f"llm_catalyst.{package}"
    for package, modules in {
        "models.backbones": "backbones.clip backbones.text",
        "models.heads": "heads.classifier heads.coop heads.similarity heads.tcp heads.verbalizer heads.zero_shot",
        "optimizers": "doers.zeroth_order",
        "tasks": "tasks.images tasks.text",
        "mentors": "mentors.controls mentors.diffusion mentors.evolution mentors.language_model",
        "mentors.clients": "mentors.clients.anthropic mentors.clients.human mentors.clients.local "
        "mentors.clients.openai mentors.clients.rehearsal mentors.clients.replay",
        "mentors.strategies": "mentors.strategies.ape mentors.strategies.capo mentors.strategies.directional "
        "mentors.strategies.evoprompt mentors.strategies.gepa mentors.strategies.gpo mentors.strategies.leo "
        "mentors.strategies.opro mentors.strategies.paper mentors.strategies.paraphrase mentors.strategies.rank",
    }.items()
    for module in modules.split()
}
CLASSES = {"Rehearsal": "MockModel"}
NO_TRAINING = {"_target_": "llm_catalyst.optimizers.NoTraining"}

# Keys that later revisions added to config.yaml, dotted, each with the value that gives the behaviour before it.
FILLED_KEYS: dict[str, Any] = {"plugins": []}


def translate_target(target: str) -> str:
    """The public path of the class that a `_target_` of any revision names."""
    module, _, name = target.rpartition(".")
    return f"{MODULES[module]}.{CLASSES.get(name, name)}" if module in MODULES else target


def translate_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with public `_target_`s and every key of FILLED_KEYS whose parent node it has."""
    translated: dict[str, Any] = translate_targets(config)
    if translated.get("optimizer", "") is None:  # format 1 said doer=none so
        translated["optimizer"] = dict(NO_TRAINING)
    for key, value in FILLED_KEYS.items():
        *parents, name = key.split(".")
        node: Any = translated
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.setdefault(name, copy.deepcopy(value))
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
    try:
        content = json.loads(manifest)
    except ValueError:
        return 1
    found = content.get("format", 1) if isinstance(content, dict) else 1
    return found if isinstance(found, int) else 1
