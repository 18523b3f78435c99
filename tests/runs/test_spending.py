"""What all runs below a folder have spent, for the budget of a sweep."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.recorded import exchange, write_run

from llm_catalyst.config.settings import SweepBudget, SweepSettings
from llm_catalyst.runs.reader import EXCHANGES
from llm_catalyst.runs.records import LLMCall, to_json
from llm_catalyst.training.checkpointing import check_sweep_budget
from llm_catalyst.utils.checksums import seal_line
from llm_catalyst.utils.signals import BudgetExceededError
from llm_catalyst.utils.validation import ConfigurationError

WITHOUT_USAGE = replace(exchange(0, "a" * 300, cost_usd=None), input_tokens=None, output_tokens=None)


def write_calls(folder: Path, name: str, *calls: LLMCall) -> Path:
    file = write_run(folder / name, 1) / EXCHANGES
    file.write_bytes(b"".join(seal_line(to_json(call).encode()) + b"\n" for call in calls))
    return file


def sweep(folder: Path, **budget: float) -> SweepSettings:
    return SweepSettings(SweepBudget(**budget), str(folder))


def test_tokens_of_answers_without_usage_are_estimated_from_their_letters(tmp_path: Path) -> None:
    """English has about 4 letters a token, and no text has fewer tokens than a tenth of its letters."""
    write_calls(tmp_path, "a", WITHOUT_USAGE)
    write_calls(tmp_path, "b", replace(exchange(0, "x"), input_tokens=1000, output_tokens=500))
    letters = 300 + sum(len(message.content) for message in WITHOUT_USAGE.messages)
    check_sweep_budget(sweep(tmp_path, tokens=1500 + letters))
    with pytest.raises(BudgetExceededError, match=r"sweep\.budget\.tokens"):
        check_sweep_budget(sweep(tmp_path, tokens=1500 + letters // 10))


def test_an_answer_without_a_price_stops_a_budget_in_dollars_only(tmp_path: Path) -> None:
    write_calls(tmp_path, "a", WITHOUT_USAGE)
    with pytest.raises(BudgetExceededError, match="cannot be kept"):
        check_sweep_budget(sweep(tmp_path, usd=5.0))
    check_sweep_budget(sweep(tmp_path))
    check_sweep_budget(sweep(tmp_path / "nowhere", usd=5.0))


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"{}\n", b"[" * 10_000 + b"\n"])
def test_a_damaged_file_of_another_run_is_named_and_not_counted_as_nothing(tmp_path: Path, damage: bytes) -> None:
    file = write_calls(tmp_path, "a", exchange(0, "x"))
    file.write_bytes(file.read_bytes() + damage)
    with pytest.raises(ConfigurationError, match=f"{file}, line 2"):
        check_sweep_budget(sweep(tmp_path, usd=5.0))


def test_a_line_that_another_process_is_writing_counts_once_it_is_whole(tmp_path: Path) -> None:
    file = write_calls(tmp_path, "a", exchange(0, "x", cost_usd=1.0))
    whole = seal_line(to_json(exchange(1, "y", cost_usd=1.0)).encode()) + b"\n"
    file.write_bytes(file.read_bytes() + whole[:50])
    check_sweep_budget(sweep(tmp_path, usd=2.0))
    file.write_bytes(file.read_bytes() + whole[50:])
    with pytest.raises(BudgetExceededError, match=r"have spent \$2\.0000"):
        check_sweep_budget(sweep(tmp_path, usd=2.0))
