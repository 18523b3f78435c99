"""Checks of configuration values: each error names the key, the value and what is allowed."""

import dataclasses
import difflib
import functools
import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le
from typing_extensions import dataclass_transform

if TYPE_CHECKING:
    from pydantic import ValidationError

T = TypeVar("T")

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]

SHORTEST_SECRET = 8  # characters; shorter keys ("none", "EMPTY") are placeholders, and common words


class ConfigurationError(ValueError):
    """A configuration that cannot run; the message says what is wrong, where, and what to do."""


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise ConfigurationError unless `value` is one of `choices`."""
    if value not in choices:
        raise unknown_choice(key, value, choices)


def check_range(key: str, value: float, low: float, high: float | None = None) -> None:
    """Raise ConfigurationError unless low <= value and, where `high` is given, value <= high."""
    if not low <= value <= (math.inf if high is None else high):
        raise out_of_range(key, value, low, high)


def unknown_choice(key: str, value: str, choices: Sequence[str]) -> ConfigurationError:
    """The error for a value that is not among the choices."""
    near = did_you_mean(str(value), choices)
    return ConfigurationError(f"{key}={value} is not known; there are: {', '.join(choices)}{near}")


def out_of_range(key: str, value: float, low: float | None, high: float | None = None) -> ConfigurationError:
    """The error for a value that is below `low` or above `high`, of which one may be None."""
    if high is None:
        return ConfigurationError(f"{key}={value} is too small; it must be at least {low}")
    if low is None:
        return ConfigurationError(f"{key}={value} is too large; it must be at most {high}")
    return ConfigurationError(f"{key}={value} is out of range; it must lie between {low} and {high}")


def check_key(name: str, known: Sequence[str], what: str = "key", where: str = "") -> None:
    """Raise ConfigurationError unless `name`, a key of the node `where` or a thing of another kind, is known."""
    if name not in known:
        path = ".".join(filter(None, (where, name)))
        raise ConfigurationError(f"there is no {what} {path}; there are: {', '.join(known)}{did_you_mean(name, known)}")


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """' (did you mean …?)' with the nearest of `known`, or '' if none is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def flatten_leaves(node: Any, path: str = "", whole_lists: bool = False) -> Iterator[tuple[str, Any]]:
    """Every value of nested dicts and lists with its dotted path; with `whole_lists` a list is one value."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from flatten_leaves(value, f"{path}.{key}".lstrip("."), whole_lists)
    elif isinstance(node, list) and not whole_lists:
        for i, value in enumerate(node):
            yield from flatten_leaves(value, f"{path}[{i}]")
    else:
        yield path, node


def get_nested(node: Any, *keys: str) -> Any:
    """The value of nested mappings at these keys, or None."""
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def config_dataclass(key: str) -> Callable[[type[T]], type[T]]:
    """A frozen dataclass whose annotations are checked when it is made; `key` is its node of the configuration.

    Bounds stand in the annotations: `Annotated[int, Ge(1)]`, `Literal["stop", "fallback"]`. What depends on several
    fields is checked in `__post_init__`. Either way the constructor raises ConfigurationError naming key and value.
    """

    from pydantic import ConfigDict, ValidationError  # here: most commands make no configuration
    from pydantic.dataclasses import dataclass as pydantic_dataclass

    def decorate(cls: type[T]) -> type[T]:
        checked: Any = pydantic_dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True))(cls)
        validate, names = checked.__init__, [field.name for field in dataclasses.fields(checked)]

        @functools.wraps(validate)
        def construct(self: Any, *args: Any, **kwargs: Any) -> None:
            # Each argument by its name: pydantic names the field in an error only where it was given so.
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            refuse_booleans(key, cls, given)
            try:
                validate(self, *args[len(names) :], **given)
            except ValidationError as error:
                raise explain_invalid_value(key, get_type_hints(cls, include_extras=True), error) from None

        checked.__init__ = construct
        return cast(type[T], checked)

    return decorate


def refuse_booleans(key: str, cls: type, values: Mapping[str, Any]) -> None:
    """Raise ConfigurationError where a field of a number is given a boolean, which pydantic takes for 0 or 1."""
    for name, value in values.items():
        if isinstance(value, bool):
            parts = flatten_hint(get_type_hints(cls, include_extras=True).get(name))
            if bool not in parts and (int in parts or float in parts):
                path = ".".join(filter(None, (key, name)))
                raise ConfigurationError(f"{path}={str(value).lower()} does not fit: it must be a number")


def explain_invalid_value(key: str, hints: Mapping[str, Any], error: "ValidationError") -> ConfigurationError:
    """The first problem that pydantic found in the fields of the node `key`, as a ConfigurationError."""
    problem = error.errors()[0]
    kind, value = problem["type"], problem["input"]
    raised = problem.get("ctx", {}).get("error")
    if isinstance(raised, ConfigurationError):  # by the class's own __post_init__
        return raised
    field = str(problem["loc"][0]) if problem["loc"] else ""
    path = ".".join(filter(None, (key, field)))
    if kind in ("missing", "unexpected_keyword_argument"):
        raise TypeError(f"{path}: {problem['msg']}")
    parts = flatten_hint(hints.get(field))
    if kind == "literal_error":
        literals = [part for part in parts if get_origin(part) is Literal]
        return unknown_choice(path, value, [str(choice) for part in literals for choice in get_args(part)])
    low: Any = next((part.ge for part in parts if isinstance(part, Ge)), None)
    high: Any = next((part.le for part in parts if isinstance(part, Le)), None)
    if kind in ("greater_than_equal", "less_than_equal"):
        return out_of_range(path, value, low, high)
    return ConfigurationError(f"{path}={value!r} does not fit: {problem['msg']}")


def locate_error(error: BaseException) -> str:
    """'FILE, line N: Type: message' of the place that raised an error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""
    return f"{place}{type(error).__name__}: {error}"


def first_problem(error: "ValidationError") -> str:
    """The place and the message of the first problem that pydantic found: 'rows.0.name: Field required'."""
    first = error.errors(include_url=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def flatten_hint(hint: Any) -> list[Any]:
    """An annotation and all its parts: the members of unions, the bounds of Annotated."""
    return [
        hint,
        *(part for argument in get_args(hint) if get_origin(hint) is not Literal for part in flatten_hint(argument)),
    ]
