"""Checks of configuration values: each error names the key, the value and what is allowed."""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le
from typing_extensions import dataclass_transform

if TYPE_CHECKING:
    from pydantic import ValidationError

T = TypeVar("T")

SHORTEST_SECRET = 8  # characters; shorter keys ("none", "EMPTY") are placeholders, and common words


class ConfigurationError(ValueError):
    """A configuration that cannot run; the message says what is wrong, where, and what to do."""


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise ConfigurationError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigurationError(
            f"{key}={value} is not known; there are: {', '.join(choices)}{did_you_mean(value, choices)}"
        )


def check_at_least(key: str, value: float | None, bound: float) -> None:
    """Raise ConfigurationError where `value` is given and below `bound`."""
    if value is not None and not value >= bound:
        raise ConfigurationError(f"{key}={value} is too small; it must be at least {bound}")


def check_range(key: str, value: float, low: float, high: float) -> None:
    """Raise ConfigurationError unless low <= value <= high."""
    if not low <= value <= high:
        raise ConfigurationError(f"{key}={value} is out of range; it must lie between {low} and {high}")


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
            try:
                # Each argument by its name: pydantic names the field in an error only where it was given so.
                validate(self, *args[len(names) :], **dict(zip(names, args, strict=False)), **kwargs)
            except ValidationError as error:
                raise explain_invalid_value(key, get_type_hints(cls, include_extras=True), error) from None

        checked.__init__ = construct
        return cast(type[T], checked)

    return decorate


def explain_invalid_value(key: str, hints: Mapping[str, Any], error: "ValidationError") -> ConfigurationError:
    """The first problem that pydantic found in the fields of the node `key`, as a ConfigurationError."""
    problem = error.errors()[0]
    kind, context, value = problem["type"], problem.get("ctx", {}), problem["input"]
    if isinstance(raised := context.get("error"), ConfigurationError):  # by the class's own __post_init__
        return raised
    field = str(problem["loc"][0]) if problem["loc"] else ""
    path = ".".join(part for part in (key, field) if part)
    if kind == "literal_error":
        choices = [
            str(choice)
            for hint in flatten_hint(hints[field])
            if get_origin(hint) is Literal
            for choice in get_args(hint)
        ]
        return ConfigurationError(
            f"{path}={value} is not known; there are: {', '.join(choices)}{did_you_mean(str(value), choices)}"
        )
    if kind in ("greater_than_equal", "less_than_equal"):
        lows = [bound.ge for bound in flatten_hint(hints[field]) if isinstance(bound, Ge)]
        highs = [bound.le for bound in flatten_hint(hints[field]) if isinstance(bound, Le)]
        if lows and highs:
            return ConfigurationError(f"{path}={value} is out of range; it must lie between {lows[0]} and {highs[0]}")
        if lows:
            return ConfigurationError(f"{path}={value} is too small; it must be at least {lows[0]}")
        return ConfigurationError(f"{path}={value} is too large; it must be at most {highs[0]}")
    if kind in ("missing", "unexpected_keyword_argument"):
        raise TypeError(f"{path}: {problem['msg']}")
    return ConfigurationError(f"{path}={value!r} does not fit: {problem['msg']}")


def flatten_hint(hint: Any) -> list[Any]:
    """An annotation and all its parts: the members of unions, the bounds of Annotated."""
    return [
        hint,
        *(part for argument in get_args(hint) if get_origin(hint) is not Literal for part in flatten_hint(argument)),
    ]
