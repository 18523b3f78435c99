"""The configuration of a run with every default of the classes that its nodes name."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from llm_catalyst.config.build import GROUPS, RunComponents, import_target

PLAIN = (bool, int, float, str, type(None))


def complete_config(config: Mapping[str, Any], parts: RunComponents) -> dict[str, Any]:
    """The configuration with each key, at any depth, that it leaves to a default of a class; the keys it has stay.

    Args:
        config: as it is written to config.yaml.
        parts: the objects that were built from it.
    """
    built = parts.groups
    own = {key: value for key, value in config.items() if key not in GROUPS}
    groups = {key: complete_node(value, built[key]) for key, value in config.items() if key in GROUPS}
    return {**complete_node(own, parts.settings), **groups}


def complete_node(node: Any, built: Any) -> Any:
    """A node of a configuration with the fields that the object which was built from it has besides."""
    if isinstance(node, list) and isinstance(built, list | tuple) and len(node) == len(built):
        return [complete_node(*pair) for pair in zip(node, built, strict=True)]
    if not isinstance(node, Mapping):
        return str(node) if (plain := make_plain(node)) is OPAQUE else plain
    target = str(node.get("_target_", ""))
    if target.startswith("torch."):
        return {**node, **complete_arguments(node, target)}
    if not is_dataclass(built):
        return dict(node)
    known = {field.name: getattr(built, field.name) for field in fields(built) if field.init and field.repr}
    own = {key: complete_node(value, known.get(key)) for key, value in node.items()}
    more = {key: make_plain(value) for key, value in known.items() if key not in own and key not in GROUPS}
    return {**own, **{key: value for key, value in more.items() if value is not OPAQUE}}


def complete_arguments(node: Mapping[str, Any], target: str) -> dict[str, Any]:
    """The defaults of a torch class's arguments that a node does not give."""
    parameters = inspect.signature(import_target({"_target_": target}, "optimizer")).parameters
    left = {name: make_plain(each.default) for name, each in parameters.items() if name not in node}
    return {name: value for name, value in left.items() if value is not OPAQUE}


OPAQUE = object()  # a value that no configuration can hold


def make_plain(value: Any) -> Any:
    """A field's value as JSON has it; OPAQUE if it is an object of another kind."""
    if isinstance(value, PLAIN):
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value
    if isinstance(value, list | tuple):
        values = [make_plain(each) for each in value]
        return OPAQUE if OPAQUE in values else values
    if isinstance(value, Mapping):
        return {str(key): plain for key, each in value.items() if (plain := make_plain(each)) is not OPAQUE}
    if is_dataclass(value) and not isinstance(value, type):
        return make_plain({field.name: getattr(value, field.name) for field in fields(value) if field.init})
    return OPAQUE
