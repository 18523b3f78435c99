"""What is known of language models, read from conf/models.yaml: prices, shutdown dates, successors, parameters.

One lookup, `find_model`, serves the check before training, the estimate, the budgets and the records. A user's own
models.yaml stands in the run's configuration (`models`), so that a resumed run finds it again.
"""

import datetime
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from annotated_types import Ge
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.paths import conf_directory
from llm_catalyst.utils.validation import ConfigurationError, NonNegativeInt, did_you_mean, first_problem

FILE = "models.yaml"
SOON_DAYS = 60  # before a model's shutdown, from which on a run warns of it
SNAPSHOT = re.compile(r"(.+?)-(20\d\d-\d\d-\d\d|20\d{6})")
STRICT = ConfigDict(extra="forbid")

Price = Annotated[float, Ge(0), Field(allow_inf_nan=False)]
Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class TokenCounts:
    """The tokens of one response. `input` counts all that were sent, `cached` and `cache_write` are parts of it.

    `cached` were read from the provider's cache, `cache_write` written to it. None: unknown.
    """

    input: int | None
    output: int | None
    cached: int = 0
    cache_write: int = 0


@pydantic_dataclass(frozen=True, config=STRICT)
class Prices:
    """USD per million tokens, from `above` input tokens of a request on; None: unknown."""

    input: Price | None = None
    cached: Price | None = None
    cache_write: Price | None = None
    output: Price | None = None
    above: NonNegativeInt = 0


@pydantic_dataclass(frozen=True, config=STRICT)
class ModelFacts:
    """A row of conf/models.yaml, whose header explains the keys. `name` is the row's own, not that of a snapshot."""

    name: str
    source: str
    date: datetime.date
    prices: tuple[Prices, ...] = ()
    shutdown: datetime.date | None = None
    successor: str | None = None
    takes: tuple[str, ...] | None = None
    takes_at_none: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    title: str = ""

    def accepts(self, parameter: str, effort: str | None = None) -> bool | None:
        """Whether the model takes a sampling parameter at this reasoning effort; None if that is not known."""
        if self.takes is None:
            return None
        return parameter in self.takes or (effort == "none" and parameter in self.takes_at_none)

    def compute_cost(self, tokens: TokenCounts) -> float | None:
        """USD of one response; None, never zero, where a price that it needs is not known."""
        sent, received = tokens.input, tokens.output
        if sent is None or received is None:
            return None
        tiers = [prices for prices in self.prices if sent > prices.above or prices.above == 0]
        if not tiers:
            return None
        prices = max(tiers, key=lambda prices: prices.above)
        parts = {
            "input": max(0, sent - tokens.cached - tokens.cache_write),
            "cached": tokens.cached,
            "cache_write": tokens.cache_write,
            "output": received,
        }
        if prices.input is None or prices.output is None:
            return None
        paid = [(count, getattr(prices, name)) for name, count in parts.items() if count]
        return None if any(price is None for _, price in paid) else sum(n * price for n, price in paid) / 1_000_000


KEYS = [name for name in ModelFacts.__dataclass_fields__ if name != "name"]  # of a row


@dataclass
class _Own:
    """The rows of the run's configuration, which one process has in common."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)


_own = _Own()


def use_models(rows: Rows) -> None:
    """Let the lookups of this process find these rows too; their keys replace those of conf/models.yaml.

    Raises:
        ConfigurationError: a row has an unknown key or a value that does not fit.
    """
    merge_rows("models", packaged_rows(), rows)
    _own.rows = {name: dict(row) for name, row in rows.items()}
    load_models.cache_clear()


def read_own_models(folders: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """The rows of the models.yaml in each of these folders but the packaged one, of which the first folder's win.

    Dates are texts, as in a run's config.yaml.

    Raises:
        ConfigurationError: a file cannot be read or a row does not fit; the message names it.
    """
    rows: dict[str, dict[str, Any]] = {}
    for path in reversed(list_own_files(folders)):
        own = read_rows(path)
        merge_rows(str(path), packaged_rows(), own)
        rows |= {name: rows.get(name, {}) | row for name, row in own.items()}
    return rows


def list_own_files(folders: Iterable[Path]) -> list[Path]:
    """The models.yaml in each of these folders but the packaged one."""
    own = (folder for folder in folders if folder.absolute() != conf_directory())
    return [path for folder in own if (path := folder / FILE).is_file()]


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The rows below `models` in a file, with dates as texts. Raises ConfigurationError where there are none."""
    try:
        models = yaml.safe_load(path.read_text(encoding="utf-8"))["models"]
        return {
            str(name): {key: str(value) if isinstance(value, datetime.date) else value for key, value in row.items()}
            for name, row in models.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise ConfigurationError(
            f"{path} cannot be read ({type(error).__name__}: {error}); it needs rows below `models`, as "
            f"{conf_directory() / FILE} has them"
        ) from None


@cache
def packaged_rows() -> dict[str, dict[str, Any]]:
    """The rows of conf/models.yaml."""
    return read_rows(conf_directory() / FILE)


def merge_rows(place: str, packaged: Rows, own: Rows) -> dict[str, ModelFacts]:
    """The models by name: the keys of a row of `own` replace those of the packaged row.

    A row of one's own needs neither source nor date: they are `place` and the packaged row's, or today's.

    Raises:
        ConfigurationError: a row does not fit; the message names `place` and the row.
    """
    models = {}
    for name in {**packaged, **own}:
        mine = own.get(name, {})
        if unknown := sorted(map(str, {*mine} - {*KEYS})) if isinstance(mine, Mapping) else []:
            near = did_you_mean(unknown[0], KEYS) or f"; there are {', '.join(KEYS)}"
            raise ConfigurationError(f"{place}, {name}: there is no key {unknown[0]}{near}")
        try:
            row = {"source": place, "date": str(datetime.date.today())} | dict(packaged.get(name, {})) | dict(mine)
            models[name] = TypeAdapter(ModelFacts).validate_python({"name": name, **row})
        except ValidationError as error:
            raise ConfigurationError(f"{place}, {name}: {first_problem(error)}") from None
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{place}, {name}: {error}") from None
    return models


@cache
def load_models() -> dict[str, ModelFacts]:
    """All known models by name."""
    return merge_rows("models", packaged_rows(), _own.rows)


def find_model(name: str) -> ModelFacts | None:
    """What is known of the model of this name: of its own row, else of the one whose snapshot it is."""
    models = load_models()
    if name in models:
        return models[name]
    named = [facts for facts in models.values() if any(fnmatchcase(name, pattern) for pattern in facts.snapshots)]
    dated = SNAPSHOT.fullmatch(name)
    return max(named, key=lambda facts: len(facts.name)) if named else models.get(dated[1]) if dated else None


def compute_cost(model: str, tokens: TokenCounts, base_url: str = "") -> float | None:
    """USD of one response; None, never zero, if the price or the usage is not known.

    A model without a price here has that of the package genai-prices, where it is installed and knows the provider at
    `base_url`.
    """
    facts = find_model(model)
    if facts is not None and facts.prices:
        return facts.compute_cost(tokens)
    return ask_genai_prices(model, tokens, base_url)


def has_price(model: str, base_url: str = "") -> bool:
    """Whether a response of this model has a known price."""
    return compute_cost(model, TokenCounts(1, 1), base_url) is not None


def ask_genai_prices(model: str, tokens: TokenCounts, base_url: str) -> float | None:
    """USD of one response by the package genai-prices; None if it is not installed, or does not know the price."""
    if not base_url or tokens.input is None or tokens.output is None:
        return None
    with suppress(ImportError, LookupError, ValueError):  # LookupError: no such model, or no such provider
        from genai_prices import Usage, calc_price

        usage = Usage(
            input_tokens=tokens.input,
            cache_read_tokens=tokens.cached,
            cache_write_tokens=tokens.cache_write,
            output_tokens=tokens.output,
        )
        cost = float(calc_price(usage, model_ref=model, provider_api_url=base_url).total_price)
        # A row of that package without prices is worth nothing: free models are named so there.
        return cost if math.isfinite(cost) and (cost > 0 or not (tokens.input or tokens.output)) else None
    return None


@dataclass(frozen=True)
class Lifecycle:
    """When a model ends, and what to ask instead.

    `retired` is what the provider says of a model that may be past its date and still answer; None: the date decides.
    """

    model: str
    shutdown: datetime.date | None = None
    successor: str | None = None
    retired: bool | None = None

    @property
    def over(self) -> bool:
        """Whether the model answers no more."""
        return self.past if self.retired is None else self.retired

    @property
    def past(self) -> bool:
        """Whether its date is today or before."""
        return self.shutdown is not None and self.shutdown <= datetime.date.today()

    @property
    def instead(self) -> str:
        """'; ask its successor: mentor.client.model=gpt-6-luna', or how to find another model."""
        name = self.successor
        return f"; ask its successor: mentor.client.model={name}" if name else "; catalyst models lists living ones"

    def describe_end(self) -> str:
        """'gpt-4 was shut down on 2026-10-23; ask its successor: mentor.client.model=gpt-6.2-sol'."""
        return f"{self.model} was shut down{f' on {self.shutdown}' if self.past else ''}{self.instead}"

    def warn(self) -> str | None:
        """The warning of a model that will be shut down within SOON_DAYS; None if there is no reason for one."""
        if self.over or self.shutdown is None or (days := (self.shutdown - datetime.date.today()).days) > SOON_DAYS:
            return None
        if self.past:
            return f"{self.model} was to be shut down on {self.shutdown}{self.instead}"
        return f"{self.model} will be shut down on {self.shutdown}, in {format_count(days, 'day')}{self.instead}"


def find_lifecycle(model: str) -> Lifecycle:
    """What the catalogue says of a model's end."""
    facts = find_model(model)
    return Lifecycle(model) if facts is None else Lifecycle(model, facts.shutdown, facts.successor)


def describe_replacement(replaced: str, model: str) -> str | None:
    """'GPT-4 of the paper, gpt-4-1106-preview, was shut down on 2026-10-23; asking gpt-6.2-sol'; None if it lives."""
    facts = find_model(replaced)
    if replaced == model or facts is None or facts.shutdown is None:
        return None
    title = f"{facts.title}, {replaced}," if facts.title else replaced
    return f"{title} was shut down on {facts.shutdown}; asking {model}"


def find_refused(model: str, parameters: Sequence[str], effort: str | None) -> list[str]:
    """Those of these sampling parameters that the model is known to refuse at this reasoning effort."""
    facts = find_model(model)
    return [name for name in parameters if facts is not None and facts.accepts(name, effort) is False]
