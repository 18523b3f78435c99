"""The choices of a config group as Hydra merges them, for the files that are read without it."""

from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from llm_catalyst.utils.validation import ConfigurationError, check_choice, first_problem


def read_choice(name: str, files: Mapping[str, Path], load: Callable[[Path], Any]) -> dict[str, Any]:
    """The keys of a choice, merged over those of the choices that its `defaults` name, as Hydra merges them.

    Args:
        name: Of the choice.
        files: The file of each choice of the group by name.
        load: Returns the content of a file.

    Raises:
        ConfigurationError: a file cannot be read or holds no keys, or a default is no other choice.
    """
    own = convert_content(files[name], load(files[name]), dict[str, Any])
    bases = convert_content(files[name], own.pop("defaults", None) or [], list[str])
    others = {file: path for file, path in files.items() if file != name}
    for base in bases:
        check_choice(f"defaults of {files[name]}", base, ["_self_", *sorted(others)])
    if "_self_" not in bases:
        bases.append("_self_")
    return reduce(merge_keys, (own if base == "_self_" else read_choice(base, others, load) for base in bases))


def merge_keys(base: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `base` with those of `own` over them, node by node; "???" leaves the value of `base`."""
    merged = dict(base)
    for key, value in own.items():
        nested = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        if value != "???" or key not in base:
            merged[key] = merge_keys(base[key], value) if nested else value
    return merged


def convert_content(path: Path, content: Any, kind: Any) -> Any:
    """The content of a file as an object of type `kind`."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {first_problem(error)}") from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
