"""From a composed configuration to objects: names, types, bounds and targets are checked before any work begins.

A node with `_target_` becomes the frozen dataclass that it names, which is its schema too: types, defaults
and bounds stand in one place. A class of torch.optim is bound to its arguments and tried on a dummy parameter.
"""

import functools
import importlib
import inspect
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass

from llm_catalyst.config.plugins import check_targets
from llm_catalyst.mentors.catalogue import use_models
from llm_catalyst.utils.prompt_file import read_prompts
from llm_catalyst.utils.validation import SHORTEST_SECRET, ConfigurationError, check_key, flatten_leaves, locate_error

SECRET = re.compile(r"\b(sk|hf|gsk|xai|key)[-_][A-Za-z0-9_-]{16,}")
SECRET_NAME = re.compile(r"_(KEY|TOKEN|SECRET|PASSWORD)$")
GROUPS = ("task", "backbone", "head", "optimizer", "mentor", "strategy")
# The base class of what stands at a key; the same holds below mentor.fallbacks.
INTERFACES = {
    "task": "llm_catalyst.tasks.Task",
    "backbone": "llm_catalyst.models.backbones.Backbone",
    "head": "llm_catalyst.models.heads.Head",
    "optimizer": "llm_catalyst.optimizers.PromptOptimizer",
    "mentor": "llm_catalyst.mentors.Mentor",
    "strategy": "llm_catalyst.mentors.strategies.Strategy",
    "mentor.client": "llm_catalyst.mentors.clients.Client",
}


@dataclass(frozen=True)
class RunComponents:
    """The objects of a run, checked but not loaded: nothing was read from disk or network yet."""

    task: Any
    backbone: Any
    head: Any
    optimizer: Any
    mentor: Any
    settings: Any

    @property
    def groups(self) -> dict[str, Any]:
        """The object that was built from the node of each of GROUPS."""
        return {group: self.mentor.strategy if group == "strategy" else getattr(self, group) for group in GROUPS}


def build_components(config: Mapping[str, Any]) -> RunComponents:
    """The objects that a composed configuration (plain dicts and lists) describes.

    Raises ConfigurationError naming the key, what is wrong with it, and what is allowed. Keys of language
    models are looked for in the environment here, so that a missing one stops a run before it trains.
    """
    refuse_secrets(config)
    refuse_infinite(config)
    check_targets(config)
    from llm_catalyst.config.settings import Settings

    settings = build_dataclass(Settings, {k: v for k, v in config.items() if k not in (*GROUPS, "replay")}, "")
    use_models(settings.models)
    mentor = build_mentor(config["mentor"], build_node(config["strategy"], "strategy"))
    mentor.preflight()
    task = build_node(config["task"], "task")  # the others need torch, which takes seconds to import
    head, optimizer = build_node(config["head"], "head"), build_optimizer(config.get("optimizer"), settings)
    if not optimizer.trains and head.trained:
        raise ConfigurationError(
            "optimizer=none trains nothing: this head would stay as it was drawn; choose one without weights of its "
            "own: head=verbalizer, with an encoder such as minilm head=similarity, for pictures head=coop or zero_shot"
        )
    if not optimizer.trains and mentor.overlap:
        raise ConfigurationError(
            "mentor.overlap=true asks while a stage trains, and optimizer=none trains nothing; "
            "choose mentor.overlap=false"
        )
    if settings.prompt.start == "file":
        read_prompts("prompt.file", settings.prompt.file)
    if settings.prompt.as_written:
        check_written(settings.prompt, optimizer, head, mentor)
    if optimizer.discrete:
        check_tokens(settings.prompt)
    backbone = build_node(config["backbone"], "backbone")
    check_modalities(task, backbone, head)
    return RunComponents(task, backbone, head, optimizer, mentor, settings)


def check_tokens(prompt: Any) -> None:
    """Raise ConfigurationError where a run does not start from tokens, or a token may not be the nearest to itself."""
    for key, wrong, right in (
        ("start", ("normal",), "vocabulary, or text"),
        ("projection", ("dot", "official"), "cosine, or l2"),
    ):
        if (value := getattr(prompt, key)) in wrong:
            raise ConfigurationError(
                f"prompt.{key}={value} does not go with an optimizer whose prompts are tokens (pez, gcg); "
                f"choose prompt.{key}={right}"
            )


def check_written(prompt: Any, optimizer: Any, head: Any, mentor: Any) -> None:
    """Raise ConfigurationError where a prompt of fewer than m tokens cannot be scored and shown as it is written."""
    wrong = {"start": ("normal",), "projection": ("dot", "official"), "as_text": (True,), "special_tokens": (True,)}
    fixes = {"start": "task", "projection": "cosine", "as_text": "false", "special_tokens": "false"}
    if optimizer.trains:
        problem, fix = "leaves rows unused, and this optimizer moves all of them", "optimizer=none"
    elif key := next((key for key, values in wrong.items() if getattr(prompt, key) in values), None):
        value = str(getattr(prompt, key)).lower()
        problem = f"scores and shows the same tokens, and with prompt.{key}={value} they may differ"
        fix = f"prompt.{key}={fixes[key]}"
    elif head.class_at(prompt.length) not in (None, prompt.length):
        problem, fix = "needs the class's name behind the prompt", "head.class_position=end"
    elif soft := next((each.label for each in (mentor, *mentor.fallbacks) if each.soft), None):
        problem, fix = f"has prompts of at most m tokens, and {soft} proposes m rows that are none", "another mentor"
    else:
        return
    raise ConfigurationError(f"prompt.fill=none {problem}; choose {fix}, or prompt.fill=repeat")


def refuse_infinite(config: Mapping[str, Any]) -> None:
    """Raise ConfigurationError where a number is infinite or NaN: no record could hold it."""
    for path, value in flatten_leaves(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigurationError(f"{path}={value} is no finite number")


def record_checked(config: Mapping[str, Any], parts: RunComponents) -> dict[str, Any]:
    """The configuration with each number, boolean and text as the checked objects hold it: seed='007' is 7."""
    built = parts.groups
    return {
        key: take_checked(value, built[key] if key in built else getattr(parts.settings, key, None))
        for key, value in config.items()
    }


def take_checked(value: Any, built: Any) -> Any:
    """A value of the configuration as the object, or the field, that was built from it has it."""
    if isinstance(value, Mapping):
        known = field_names(built)
        return {key: take_checked(each, getattr(built, key)) if key in known else each for key, each in value.items()}
    if isinstance(value, list):
        alike = isinstance(built, list | tuple) and len(built) == len(value)
        return [take_checked(*pair) for pair in zip(value, built, strict=True)] if alike else value
    return built if value is not None and isinstance(built, bool | int | float | str) else value


def check_modalities(task: Any, backbone: Any, head: Any) -> None:
    """Raise ConfigurationError where they do not fit: for labels of texts, for pictures, or for generated answers."""
    needed = {"backbone": "image" if task.modality == "image" else "text", "head": task.modality}
    found = {"backbone": backbone.modality, "head": head.modality}
    wrong = " and ".join(name for name, kind in found.items() if kind != needed[name])
    if task.generates and wrong:
        advice = "choose head=generation and a causal language model (backbone=qwen)"
        raise ConfigurationError(f"task={task.name} asks for answers in words, and this {wrong} gives none; {advice}")
    if wrong and head.modality == "generation":
        advice = "choose head=classifier, similarity or verbalizer"
        raise ConfigurationError(f"task={task.name} has classes, and head=generation is for generation tasks; {advice}")
    if wrong and task.modality == "image":
        advice = "choose a CLIP (backbone=clip_vit_b16) and head=coop, tcp or zero_shot"
        raise ConfigurationError(f"task={task.name} is one of pictures, and {wrong} is for texts; {advice}")
    if wrong:
        advice = "choose another, such as backbone=roberta_large head=classifier"
        raise ConfigurationError(f"task={task.name} is one of texts, and {wrong} is for pictures; {advice}")


def build_mentor(node: Mapping[str, Any], strategy: Any, where: str = "mentor") -> Any:
    """The mentor that a node describes; one that asks a model gets the strategy, and its fallbacks as objects."""
    if "strategy" not in field_names(import_target(node, where)):
        return build_node(node, where)
    nodes = convert_value(list[Any], node.get("fallbacks", []), f"{where}.fallbacks")
    fallbacks = [build_mentor(fallback, strategy, f"{where}.fallbacks[{i}]") for i, fallback in enumerate(nodes)]
    own = {key: value for key, value in node.items() if key != "fallbacks"}
    return build_node(own, where, strategy=strategy, fallbacks=fallbacks)


def build_optimizer(node: Mapping[str, Any] | None, settings: Any) -> Any:
    """The optimizer that an `optimizer` node describes: `Backprop` with an optimizer of torch, or a class of its own.

    None means no training: the mentor alone moves the prompt. A class with the fields `seed`, `schedule`, `clip_norm`
    and `dropout` that the node does not give takes the run's.
    """
    from llm_catalyst.optimizers.backprop import Backprop
    from llm_catalyst.optimizers.base import NoTraining

    if node is None:
        return NoTraining()
    shared = {"seed": settings.seed, "schedule": settings.schedule, "clip_norm": settings.clip_norm}
    shared["dropout"] = settings.protocol.dropout
    lacking = set(field_names(import_target(node, "optimizer"))) - set(node)
    built = build_node(node, "optimizer", **{name: value for name, value in shared.items() if name in lacking})
    if is_dataclass(built):
        return built
    return Backprop(built, settings.schedule, settings.clip_norm, settings.protocol.dropout)


def build_node(node: Mapping[str, Any], where: str, **extra: Any) -> Any:
    """The object that a node describes; `extra` are fields of it that come from elsewhere."""
    target = import_target(node, where)
    values = {key: value for key, value in node.items() if key != "_target_"}
    if is_dataclass(target):
        check_base(target, where)
        return build_dataclass(target, values, where, extra)
    if where == "optimizer" and inspect.isclass(target):
        import torch

        if issubclass(target, torch.optim.Optimizer):
            return bind_optimizer(target, values)
    raise ConfigurationError(
        f"{where}._target_={node['_target_']} cannot be used there: it must be a dataclass"
        f"{' or a torch.optim.Optimizer' * (where == 'optimizer')}"
    )


def check_base(target: Any, where: str) -> None:
    """Raise ConfigurationError unless the class inherits from the base class of what stands at `where`."""
    base = INTERFACES.get(re.sub(r"\.fallbacks\[\d+\]", "", where))
    if base and not issubclass(target, import_target({"_target_": base}, where)):
        raise ConfigurationError(
            f"{where}._target_={target.__module__}.{target.__name__} cannot be used there: its class must inherit from "
            f"{base} (docs/extending.md)"
        )


def build_dataclass(schema: Any, values: Mapping[str, Any], where: str, extra: Mapping[str, Any] | None = None) -> Any:
    """The dataclass `schema` from plain values; nested dataclasses and nodes with `_target_` are built first."""
    extra, known, hints = extra or {}, field_names(schema), get_type_hints(schema)
    built = {}
    for key, value in values.items():
        path = f"{where}.{key}".lstrip(".")
        check_key(key, known, where=where)
        if isinstance(value, Mapping) and "_target_" in value:
            built[key] = build_node(value, path)
        elif is_dataclass(hints[key]) and isinstance(value, Mapping):
            built[key] = build_dataclass(hints[key], value, path)
        else:
            built[key] = value if is_pydantic_dataclass(schema) else convert_value(hints[key], value, path)
    try:
        return schema(**built, **extra)
    except ConfigurationError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where or 'configuration'}: {error}") from error


def field_names(schema: Any) -> list[str]:
    """The fields of a dataclass that are settings: those with repr=False are filled in by the run."""
    return [f.name for f in fields(schema) if f.repr] if is_dataclass(schema) else []


def convert_value(hint: Any, value: Any, path: str) -> Any:
    """`value` as the type `hint`. Raises ConfigurationError where it is not one and cannot become one."""
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        problems = "; ".join(sorted({e["msg"] for e in error.errors()}))
        raise ConfigurationError(f"{path}={value!r} does not fit: {problems}") from None


def import_target(node: Any, where: str) -> Any:
    """The class that a node's `_target_` names; `check_targets` has accepted it."""
    target = str(node.get("_target_")) if isinstance(node, Mapping) else str(node)
    module, _, name = target.rpartition(".")
    if not module:
        raise ConfigurationError(f"{where}._target_={target} is not accepted; it must be the dotted path of a class")
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigurationError(f"{where}._target_={target} does not exist: {error}") from error
    except Exception as error:
        raise ConfigurationError(f"{where}._target_={target} cannot be imported: {locate_error(error)}") from error


def bind_optimizer(target: Any, values: Mapping[str, Any]) -> Any:
    """A torch optimizer's class bound to its arguments, tried once on a dummy parameter."""
    import torch

    known = [name for name in inspect.signature(target).parameters if name != "params"]
    for key in values:
        check_key(key, known, where="optimizer")
        if isinstance(values[key], str):
            raise ConfigurationError(f"optimizer.{key}={values[key]!r} is not a number")
    bound = functools.partial(target, **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    try:
        bound([torch.nn.Parameter(torch.zeros(1))])
    except Exception as error:
        settings = ", ".join(f"optimizer.{key}={value!r}" for key, value in values.items())
        raise ConfigurationError(f"{target.__name__} refuses its settings ({settings}): {error}") from error
    return bound


def refuse_secrets(config: Mapping[str, Any]) -> None:
    """Raise ConfigurationError where a configuration, which is written to disk, holds a secret; it is not repeated.

    That is what looks like a provider's key, and the value of an environment variable whose name says that it is one.
    """
    known = {name: value.strip() for name, value in os.environ.items() if SECRET_NAME.search(name)}
    for path, value in flatten_leaves(config):
        for where, text in (("the name of a key", path), (path, str(value))):
            names = [name for name, secret in known.items() if len(secret) >= SHORTEST_SECRET and secret in text]
            if names or SECRET.search(text):
                what = f"holds the value of the environment variable {names[0]}" if names else "looks like a secret key"
                raise ConfigurationError(
                    f"{where} {what}; keys come from the environment only "
                    f"(export OPENAI_API_KEY=…; mentor.client.key_variable names the variable)"
                )
