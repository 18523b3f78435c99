"""Tokens -> money, by dated prices."""

import re

import pytest

from llm_catalyst.mentors.pricing import compute_cost, load_prices
from llm_catalyst.sweeps.fallbacks import read_node
from llm_catalyst.utils.paths import conf_directory, list_choices


def test_the_table_lies_in_conf() -> None:
    assert (conf_directory() / "prices.yaml").is_file()


def test_every_row_has_a_day_a_source_and_prices_above_zero() -> None:
    assert len(load_prices()) > 20
    sources = (conf_directory() / "prices.yaml").read_text(encoding="utf-8").split("models:")[0]
    for model, price in load_prices().items():
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", price.date), model
        assert 0 < price.input < price.output, model
        assert price.source.split(",")[0].split(";")[0] in sources, model


def test_a_million_tokens_cost_what_the_table_says() -> None:
    assert compute_cost("gpt-4-1106-preview", 1_000_000, 0) == 10
    assert compute_cost("gpt-4-1106-preview", 0, 1_000_000) == 30
    assert compute_cost("gpt-3.5-turbo-1106", 1500, 100) == pytest.approx(0.0017)


def test_what_is_not_known_costs_none_and_not_zero() -> None:
    assert compute_cost("some-model", 10, 10) is None
    assert compute_cost("gpt-4o", None, 10) is None
    assert compute_cost("gpt-4o", 10, None) is None
    assert compute_cost("gpt-4o", 0, 0) == 0


def test_a_dated_snapshot_is_found_by_its_exact_name_only() -> None:
    assert compute_cost("gpt-4o-2024-08-06", 10, 10) is not None
    assert compute_cost("gpt-4o-2024-08-07", 10, 10) is None
    assert compute_cost("GPT-4o", 10, 10) is None


def test_a_price_does_not_hold_above_its_limit_of_input_tokens() -> None:
    assert compute_cost("gpt-5.5", 272_000, 10) is not None
    assert compute_cost("gpt-5.5", 272_001, 10) is None


def test_every_priced_provider_mentor_in_conf_has_a_price() -> None:
    models = {}
    files = {path.stem: path for path in (conf_directory() / "mentor").glob("*.yaml")}
    for path in list_choices(conf_directory() / "mentor"):
        client = {} if path.stem == "replay" else read_node(path.stem, files).get("client", {})
        if client.get("key_variable"):
            models[path.stem] = client["model"]
    assert len(models) == 15
    assert {name: model for name, model in models.items() if model not in load_prices()} == {}
