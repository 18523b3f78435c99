"""What a server says of a model, by its list of models: whether it has it, and when it will be shut down."""

import itertools
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Any

from llm_catalyst.mentors.catalogue import Lifecycle, find_lifecycle, find_refused
from llm_catalyst.utils.format import join_first
from llm_catalyst.utils.validation import did_you_mean

MOST_NAMED = 8  # of the models that a server has
MOST_LISTED = 10_000
SAMPLING = ("temperature", "presence_penalty")


@dataclass(frozen=True)
class ModelLookup:
    """What a server says of the model of this name.

    Attributes:
        entry: The SDK's object of the model; None if the server has given none.
        known: Whether the server has the model; None if it does not say.
        names: The models that it has, where it does not have this one.
        no_route: Whether it answers 404 for the model and for its list of models.
    """

    name: str
    entry: Any = None
    known: bool | None = None
    names: tuple[str, ...] = ()
    no_route: bool = False

    @cached_property
    def lifecycle(self) -> Lifecycle:
        """The model's end: what the server says of it, and what conf/models.yaml says where it says nothing.

        A server that has a model which its provider has shut down (a gateway, a cloud) is believed.
        """
        listed = find_lifecycle(self.name)
        own = read_lifecycle(self.name, self.entry)
        if own is not None:
            return replace(own, successor=listed.successor)
        return replace(listed, retired=False) if self.known and listed.over else listed

    def find_fault(self, url: str, other_url: str) -> str | None:
        """Why the server cannot answer with this model; None if it can, or does not say.

        Args:
            url: The address that was asked.
            other_url: The one to try if there are no models at the first; '' if there is none.
        """
        if self.no_route and other_url:
            return (
                f"{url} answers 404 for {self.name} and for its list of models; did you mean "
                f"mentor.client.base_url={other_url}?"
            )
        if self.known is not False:
            return None
        ending = find_lifecycle(self.name)
        unknown = f"{url} does not know mentor.client.model={self.name}"
        if ending.over and (not self.names or ending.successor in (None, *self.names)):
            return f"{unknown}: {ending.describe_end()}"
        known = f"it has {join_first(sorted(self.names), MOST_NAMED) or 'none'}{did_you_mean(self.name, self.names)}"
        return f"{unknown}; {known}"


def look_up_model(sdk: Any, connection: Any, model: str) -> ModelLookup:
    """What a server says of a model, in one request, or two if it does not know it.

    Raises what the SDK raises, except what tells that there is no such model or no such route.
    """
    with suppress(sdk.NotFoundError):  # no such model, or no such route
        entry = connection.models.retrieve(model)
        return ModelLookup(model, entry, known=True if getattr(entry, "id", None) else None)
    try:
        entries = list_entries(connection)
    except sdk.APIStatusError as failure:
        return ModelLookup(model, no_route=failure.status_code == 404)
    if entries is None:
        return ModelLookup(model)
    for entry in entries:
        if entry.id in (model, f"{model}:latest"):  # Ollama adds the tag
            return ModelLookup(model, entry, known=True)
    return ModelLookup(model, known=False, names=tuple(entry.id for entry in entries))


def list_entries(connection: Any) -> list[Any] | None:
    """The SDK's objects of the models that a server has; None where its answer is no list."""
    page = connection.models.list()
    if "data" not in page.model_fields_set:
        return None
    return [entry for entry in itertools.islice(page, MOST_LISTED) if isinstance(entry.id, str)]


def read_lifecycle(name: str, entry: Any) -> Lifecycle | None:
    """A model's end by the fields of a provider's answer; None if it has none of them.

    OpenAI: `shutdown_date`, a day or null. Anthropic: `retires_at`, and `lifecycle`, which alone says that a model no
    longer answers.
    """
    fields: Mapping[str, Any] = entry.to_dict() if hasattr(entry, "to_dict") else {}
    state = fields.get("lifecycle")
    if state in ("active", "deprecated", "retired"):
        return Lifecycle(name, read_day(fields.get("retires_at")), retired=state == "retired")
    if "shutdown_date" in fields:
        return Lifecycle(name, read_day(fields["shutdown_date"]))
    return None


def read_day(value: Any) -> date | None:
    """The day of a date or time as a server sent it, or None where it is none."""
    with suppress(ValueError):
        return date.fromisoformat(str(value)[:10])
    return None


def describe_refused(model: str, parameters: Mapping[str, Any]) -> str | None:
    """The warning of configured sampling parameters that the model is known to refuse; None if there are none."""
    given = [name for name in SAMPLING if name in parameters]
    effort = parameters.get("reasoning_effort")
    refused = find_refused(model, given, effort)
    if not refused:
        return None
    keys = ", ".join(f"mentor.client.{name}=null" for name in refused)
    return f"{model} takes no {' or '.join(refused)} at this reasoning effort, and gets none; {keys} says so"
