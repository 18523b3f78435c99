"""The keys of the configuration that hold text: a path, a column, a label, a template. Their annotations say so."""

import importlib
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from llm_catalyst.config.plugins import accepted_prefixes
from llm_catalyst.utils.paths import conf_directory
from llm_catalyst.utils.validation import flatten_leaves

Kind = Literal["text", "optional text", "texts"]


def find_kind(key: str, folders: Sequence[Path] = (), plugins: Sequence[str] = ()) -> Kind | None:
    """What a dotted key holds: a text, a text or null, a list of texts, or (None) none of them.

    Args:
        key: As on the command line, without `+`.
        folders: Of a user's own YAML files.
        plugins: Names of a user's packages whose classes count as well.
    """
    places = tuple(folders)
    if any(path == key and isinstance(value, int | float) for path, value in list_values(key.split(".")[0], places)):
        return None  # and the classes, some of which need torch, are not imported
    kinds = {classify_hint(hint) for hint in find_hints(key, places, tuple(plugins))}
    if kinds == {"text", "optional text"}:  # of some classes it may be null, too
        return "optional text"
    return kinds.pop() if len(kinds) == 1 else None


def classify_hint(hint: Any) -> Kind | None:
    """The kind of an annotation."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if set(members) == {str}:
        return "text"
    if set(members) == {str, types.NoneType}:
        return "optional text"
    lists = get_origin(hint) in (list, tuple) and {*get_args(hint)} <= {str, ...}
    return "texts" if lists else None


def find_hints(key: str, folders: tuple[Path, ...], plugins: tuple[str, ...]) -> Iterator[Any]:
    """The annotation of a dotted key in each class that a choice of its group can name, or in Settings."""
    parts = key.split(".")
    targets = list_targets(parts[0], folders)
    places = [name for name in (".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)) if name in targets]
    if places:
        inner = parts[places[0].count(".") + 1 :]
        prefixes = accepted_prefixes(plugins)
        classes = [import_class(target) for target in targets[places[0]] if target.startswith(prefixes)]
    else:
        from llm_catalyst.config.settings import Settings

        classes, inner = [Settings], parts
        if reader := None if parts[0] in get_type_hints(Settings) else find_reader(key, folders):
            yield from find_hints(reader, folders, plugins)
    for each in classes:
        yield from descend_hint(each, inner)


def descend_hint(hint: Any, parts: Sequence[str]) -> Iterator[Any]:
    """The annotation that `parts` lead to from a class or an annotation; nothing where they lead nowhere."""
    if not parts:
        yield hint
    elif is_dataclass(hint):
        if parts[0] in {field.name for field in fields(hint)}:
            yield from descend_hint(get_type_hints(hint)[parts[0]], parts[1:])
    elif get_origin(hint) is dict:
        yield from descend_hint(get_args(hint)[1], parts[1:])


@cache
def list_targets(group: str, folders: tuple[Path, ...] = ()) -> dict[str, set[str]]:
    """The classes that the choices of a group name, by the dotted key of their node: {"mentor.client": {…}, …}."""
    targets: dict[str, set[str]] = {}
    for path, value in list_values(group, folders):
        place, _, name = path.rpartition(".")
        if name == "_target_":
            targets.setdefault(place, set()).add(str(value))
    return targets


def find_reader(key: str, folders: tuple[Path, ...] = ()) -> str | None:
    """The key whose value a choice takes from `key`, as mentor.client.run takes replay.run; None: there is none."""
    return next((path for path, value in list_values("*", folders) if value == f"${{{key}}}"), None)


@cache
def list_values(group: str, folders: tuple[Path, ...]) -> list[tuple[str, Any]]:
    """The dotted keys of a group's choices, or with `*` of all groups', and their values as the files give them."""
    values: list[tuple[str, Any]] = []
    for file in (file for folder in (conf_directory(), *folders) for file in sorted(folder.glob(f"{group}/*.yaml"))):
        text = file.read_text(encoding="utf-8", errors="replace")
        with suppress(yaml.YAMLError):  # Hydra says what is wrong with a file that is chosen
            content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            prefix = "" if "@package _global_" in text else file.parent.name
            values += flatten_leaves(content if isinstance(content, Mapping) else {}, prefix)
    return values


def import_class(target: str) -> Any:
    """The class that a `_target_` names; None where there is none, which a run that chooses it says itself."""
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
