"""What is known of language models: prices, shutdown dates, successors, parameters; the packaged rows and a user's."""

import calendar
import datetime
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.resources.messages.messages import DEPRECATED_MODELS
from anthropic.types.model_param import ModelParam
from openai.types.shared import chat_model

from llm_catalyst.mentors import catalogue
from llm_catalyst.mentors.catalogue import (
    Lifecycle,
    TokenCounts,
    compute_cost,
    describe_replacement,
    find_lifecycle,
    find_model,
    has_price,
    load_models,
    read_own_models,
    use_models,
)
from llm_catalyst.mentors.clients.model_lookup import SAMPLING
from llm_catalyst.sweeps.fallbacks import read_node
from llm_catalyst.utils.paths import conf_directory, list_choices
from llm_catalyst.utils.validation import ConfigurationError

TODAY = datetime.date.today()
FACTS_DATE = datetime.date(2026, 11, 30)  # of the presets
# OpenAI's docstring names each model below "Deprecated values" with its announced day.
OPENAI_DATES = {
    name: datetime.date.fromisoformat(day)
    for names, day in re.findall(
        r'- ((?:"[^"]+",?\s*)+):\s+Announced\s+shutdown\s+date:\s+(\d{4}-\d\d-\d\d)',
        Path(chat_model.__file__).read_text(encoding="utf-8"),
    )
    for name in re.findall('"([^"]+)"', names)
}
NOT_CHAT = re.compile("audio|codex|search")
MONTHS = {name: number for number, name in enumerate(calendar.month_name) if name}


@pytest.fixture(autouse=True)
def only_packaged_rows() -> Iterator[None]:
    use_models({})
    yield
    use_models({})


def cost(model: str, sent: int | None, received: int | None, cached: int = 0, written: int = 0) -> float | None:
    return compute_cost(model, TokenCounts(sent, received, cached, written))


def write_own(folder: Path, text: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    (folder / "models.yaml").write_text(text)
    return [conf_directory(), folder]


# --- conf/models.yaml


def test_every_row_has_a_day_a_source_and_prices_above_zero() -> None:
    text = (conf_directory() / "models.yaml").read_text(encoding="utf-8")
    sources = re.findall(r"^#   ([a-z-]+)  +\S", text.partition("# Sources:")[2].partition("models:")[0], re.M)
    assert sources == ["openai", "anthropic", "genai-prices", "llm-prices"]
    assert len(load_models()) > 50
    for name, facts in load_models().items():
        assert datetime.date(2025, 7, 1) < facts.date <= TODAY, name
        assert facts.source.split(";")[0] in sources, name
        for prices in facts.prices:
            if prices.input is not None and prices.output is not None:
                assert 0 < prices.input < prices.output, name
                assert 0 < (prices.cached or prices.input / 2) < prices.input <= (prices.cache_write or prices.input), (
                    name
                )


def test_a_successor_lives_and_has_a_price() -> None:
    named = {facts.successor for facts in load_models().values() if facts.successor}
    assert {"gpt-6.2-sol", "gpt-6-luna", "claude-sonnet-5-5"} <= named
    assert [name for name in named if (facts := find_model(name)) is None or not facts.prices or facts.shutdown] == []


def test_openais_own_list_has_our_names_and_announces_our_dates() -> None:
    known = set(typing.get_args(chat_model.ChatModel))
    ours = {name for name in load_models() if not name.startswith("claude")}
    assert len(known) > 50
    assert sorted(ours - known) == []
    assert len(OPENAI_DATES) > 50
    chat = {name: day for name, day in OPENAI_DATES.items() if not NOT_CHAT.search(name)}
    assert {name: find_lifecycle(name).shutdown for name in chat} == chat
    alive = [name for name in ours if name not in OPENAI_DATES]
    assert {name: find_lifecycle(name).shutdown for name in alive} == dict.fromkeys(alive)


def test_anthropics_own_table_has_our_names_and_announces_our_dates() -> None:
    literal, _ = typing.get_args(ModelParam)
    known = {*typing.get_args(literal), *DEPRECATED_MODELS}
    ours = {name for name in load_models() if name.startswith("claude")}
    assert sorted(ours - known) == []
    days = {name: re.fullmatch(r"(\w+) (\d+)\w\w, (\d{4})", text) for name, text in DEPRECATED_MODELS.items()}
    dates = {name: datetime.date(int(day[3]), MONTHS[day[1]], int(day[2])) for name, day in days.items() if day}
    assert len(dates) == len(DEPRECATED_MODELS)
    with_row = {name: day for name, day in dates.items() if find_model(name)}
    assert with_row.keys() >= {"claude-sonnet-4-5", "claude-sonnet-4-5-20250929"}
    assert {name: find_lifecycle(name).shutdown for name in with_row} == with_row
    assert anthropic.__version__ >= "2.12"


def test_every_preset_of_a_named_provider_asks_a_known_model_with_parameters_that_it_takes() -> None:
    files = {path.stem: path for path in (conf_directory() / "mentor").glob("*.yaml")}
    asked = {}
    for path in list_choices(conf_directory() / "mentor"):
        client: Any = {} if path.stem == "replay" else read_node(path.stem, files).get("client", {})
        if client.get("key_variable") in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
            asked[path.stem] = client.model
            sent = [name for name in SAMPLING if client.get(name) is not None]
            assert has_price(client.model), path.stem
            assert catalogue.find_refused(client.model, sent, client.get("reasoning_effort")) == [], path.stem
    assert asked["gpt4"] == "gpt-6.2-sol"
    assert asked["gpt35"] == "gpt-6-luna"
    dead = [name for name, model in asked.items() if model in OPENAI_DATES and OPENAI_DATES[model] < FACTS_DATE]
    assert dead == ["gpt35_1106", "gpt4_1106"]  # for replays


# --- prices


def test_a_million_tokens_cost_what_the_table_says() -> None:
    assert cost("gpt-4-1106-preview", 1_000_000, 0) == 10
    assert cost("gpt-4-1106-preview", 0, 1_000_000) == 30
    assert cost("gpt-3.5-turbo-1106", 1500, 100) == pytest.approx(0.0017)


def test_what_is_not_known_costs_none_and_not_zero() -> None:
    assert cost("some-model", 10, 10) is None
    assert cost("gpt-5.1", 10, 10) is None  # its date is known, its price is not
    assert cost("gpt-4o", None, 10) is None
    assert cost("gpt-4o", 10, None) is None
    assert cost("gpt-4o", 0, 0) == 0
    assert not has_price("some-model")


def test_a_dated_snapshot_has_its_models_price_and_date_unless_it_has_a_row() -> None:
    assert cost("gpt-5.5-2026-04-23", 1_000_000, 0) == cost("gpt-5.5", 1_000_000, 0)
    assert cost("claude-haiku-4-5-20251001", 100, 10) == cost("claude-haiku-4-5", 100, 10)
    assert find_lifecycle("gpt-4.1-mini-2025-04-14").shutdown == datetime.date(2027, 1, 14)
    assert find_lifecycle("gpt-4o-2024-05-13").shutdown == datetime.date(2026, 10, 23)
    assert cost("gpt-4o-2024-05-13", 10, 10) is None
    assert find_lifecycle("gpt-4-0613").shutdown == find_lifecycle("gpt-4").shutdown


@pytest.mark.parametrize(
    "name",
    ["GPT-4o", "gpt-4o-mini-2", "gpt-4o-latest", "ft:gpt-4o-2024-08-06:me", "openai/gpt-4o", "gpt-4o-2024-08", ""],
)
def test_another_name_is_another_model(name: str) -> None:
    assert find_model(name) is None


def test_cached_input_and_writes_to_the_cache_have_prices_of_their_own() -> None:
    # gpt-6-luna: 0.10 in, 0.01 cached, 1.25 times 0.10 written to the cache, 0.50 out
    wanted = (50_000 * 0.10 + 40_000 * 0.01 + 10_000 * 0.125 + 20_000 * 0.50) / 1e6
    assert cost("gpt-6-luna", 100_000, 20_000, cached=40_000, written=10_000) == pytest.approx(wanted)


def test_a_part_without_a_price_makes_the_cost_unknown_only_where_there_is_such_a_part() -> None:
    assert cost("claude-opus-5-5", 100, 10, cached=50) is not None
    assert cost("claude-opus-5-5", 100, 10, written=50) is None  # no price of writing is known


def test_above_a_number_of_input_tokens_the_next_price_holds_for_all_of_them() -> None:
    assert cost("gpt-5.5", 272_000, 0) == pytest.approx(0.272 * 5)
    assert cost("gpt-5.5", 272_001, 1_000_000) == pytest.approx(0.272001 * 10 + 45)
    assert cost("claude-haiku-5-5", 200_000, 0, cached=100_000) == pytest.approx(0.1 * 0.5 + 0.1 * 0.05)
    assert cost("claude-sonnet-4-5", 200_001, 10) is None


# --- a user's own rows


def test_own_rows_extend_the_packaged_ones_and_replace_their_keys(tmp_path: Path) -> None:
    text = (
        "models:\n  gpt-4o: {prices: [{input: 1, output: 2}]}\n"
        "  mine: {prices: [{input: 3, output: 4}], snapshots: [mine-v*], shutdown: 2030-01-01}\n"
    )
    use_models(read_own_models(write_own(tmp_path / "a", text)))
    assert cost("gpt-4o-2024-08-06", 1_000_000, 0) == 1
    assert find_lifecycle("gpt-4o").successor == "gpt-6-luna"  # of the packaged row
    assert cost("mine-v7", 0, 1_000_000) == 4
    assert find_lifecycle("mine").shutdown == datetime.date(2030, 1, 1)
    use_models({})
    assert cost("gpt-4o", 1_000_000, 0) == 2.5
    assert not has_price("mine")


def test_the_first_folder_wins_and_a_folder_without_a_file_has_no_rows(tmp_path: Path) -> None:
    write_own(tmp_path / "a", "models: {mine: {successor: a, title: A}}")
    write_own(tmp_path / "b", "models: {mine: {successor: b}, other: {successor: c}}")
    rows = read_own_models([tmp_path / "a", tmp_path / "b", tmp_path / "none", conf_directory()])
    assert rows == {"mine": {"successor": "a", "title": "A"}, "other": {"successor": "c"}}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("models: {mine: {price: 1}}", "mine: .*price"),
        ("models: {mine: {prices: [{input: cheap, output: 1}]}}", r"mine: .*prices\.0\.input"),
        ("models: {mine: {prices: [{input: -1, output: 1}]}}", r"mine: prices\.0\.input.*greater than or equal to 0"),
        ("models: {mine: {prices: [{input: 1, cached: .nan, output: 1}]}}", r"mine: prices\.0\.cached.*finite"),
        ("models: {mine: {prices: [{input: 1, output: .inf}]}}", r"mine: prices\.0\.output.*finite"),
        ("models: {mine: {prices: [{input: 1, output: 1, above: -1}]}}", r"mine: prices\.0\.above"),
        ("models: {mine: {shutdown: soon}}", "mine: .*shutdown"),
        ("models: {mine: 3}", "cannot be read"),
        ("rows: {}", "needs rows below `models`"),
        ("models: [", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_its_name_and_row(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{tmp_path}/models\.yaml.*{complaint}"):
        read_own_models(write_own(tmp_path, text))


# --- genai-prices


def test_a_model_without_a_row_has_the_price_of_genai_prices_where_that_knows_the_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://api.mistral.ai/v1"
    assert compute_cost("mistral-medium-latest", TokenCounts(10, 10), url) is None  # not installed
    (tmp_path / "genai_prices.py").write_text(
        "from types import SimpleNamespace\n"
        "def Usage(**tokens): return tokens\n"
        "def calc_price(usage, model_ref, provider_api_url):\n"
        "    if 'mistral' not in provider_api_url: raise LookupError('no provider')\n"
        "    if model_ref == 'free': return SimpleNamespace(total_price=0)\n"
        "    assert usage == dict(input_tokens=10, cache_read_tokens=2, cache_write_tokens=1, output_tokens=5)\n"
        "    return SimpleNamespace(total_price=0.25)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        tokens = TokenCounts(10, 5, 2, 1)
        assert compute_cost("mistral-medium-latest", tokens, url) == 0.25
        assert compute_cost("mistral-medium-latest", tokens, "http://localhost:8000/v1") is None
        assert compute_cost("mistral-medium-latest", tokens) is None
        assert compute_cost("mistral-medium-latest", TokenCounts(None, 5), url) is None
        assert compute_cost("free", tokens, url) is None
        assert compute_cost("gpt-4o", tokens, url) == cost("gpt-4o", 10, 5, 2, 1)  # a row of ours comes first
    finally:
        sys.modules.pop("genai_prices", None)


# --- the end of a model


def days_from_now(days: int) -> str:
    return str(TODAY + datetime.timedelta(days=days))


def test_a_shutdown_is_over_on_its_day_and_warned_of_sixty_days_before() -> None:
    use_models({f"in{days}": {"shutdown": days_from_now(days), "successor": "next"} for days in (-1, 0, 1, 60, 61)})
    ends = {days: find_lifecycle(f"in{days}") for days in (-1, 0, 1, 60, 61)}
    assert [days for days, end in ends.items() if end.over] == [-1, 0]
    assert [days for days, end in ends.items() if end.warn()] == [1, 60]
    assert (
        ends[-1].describe_end()
        == f"in-1 was shut down on {days_from_now(-1)}; ask its successor: mentor.client.model=next"
    )
    assert str(ends[1].warn()).startswith(f"in1 will be shut down on {days_from_now(1)}, in 1 day; ask its successor")
    assert find_lifecycle("unknown") == Lifecycle("unknown")
    assert find_lifecycle("unknown").warn() is None


def test_the_replacement_of_a_model_is_said_with_its_day() -> None:
    assert describe_replacement("gpt-4-1106-preview", "gpt-6.2-sol") == (
        "GPT-4 of the paper, gpt-4-1106-preview, was shut down on 2026-10-23; asking gpt-6.2-sol"
    )
    assert describe_replacement("gpt-4-1106-preview", "gpt-4-1106-preview") is None
    assert describe_replacement("gpt-4", "x") == "gpt-4 was shut down on 2026-10-23; asking x"


@pytest.mark.parametrize(
    ("model", "effort", "taken"),
    [
        ("gpt-6.2-sol", "low", False),
        ("gpt-6-luna", "none", True),
        ("gpt-6-luna", None, False),
        ("gpt-5.4-mini", None, True),
        ("claude-haiku-5-5", None, False),
        ("gpt-5.1", None, None),
    ],
)
def test_a_temperature_is_taken_or_not_by_model_and_effort(model: str, effort: str | None, taken: bool | None) -> None:
    facts = find_model(model)
    assert facts is not None
    assert facts.accepts("temperature", effort) is taken
