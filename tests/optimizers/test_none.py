"""`optimizer=none`: what it composes to, over every experiment and every row of the tables, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
from hydra.errors import ConfigCompositionException

from llm_catalyst.cli.run import run_command
from llm_catalyst.config.build import build_components, build_dataclass, build_optimizer
from llm_catalyst.config.errors import run_with_exit_code
from llm_catalyst.config.settings import Settings
from llm_catalyst.config.table import apply_smoke, find_table, list_runs
from llm_catalyst.optimizers.base import NoTraining
from llm_catalyst.utils.paths import conf_directory

Compose = Callable[..., dict[str, Any]]
NODE = {"_target_": "llm_catalyst.optimizers.NoTraining"}
EXPERIMENTS = sorted(
    path.relative_to(conf_directory() / "experiment").with_suffix("").as_posix()
    for path in (conf_directory() / "experiment").rglob("*.yaml")
    if not path.name.startswith("_")
)
TABLES = [table for name in ("methods", "vision") for table in (find_table(name), apply_smoke(find_table(name)))]
# Of each row the run of the first column and seed.
ROWS = {
    f"{table.name}: {run.row}": run.overrides
    for table in TABLES
    for run in list_runs(table)
    if (run.column, run.seed) == (table.columns[0].name, table.seeds[0])
}
ALONE = [name for name, words in ROWS.items() if "optimizer=none" in words]


def settings_of(config: dict[str, Any]) -> Settings:
    known = Settings.__dataclass_fields__  # type: ignore[attr-defined]
    settings: Settings = build_dataclass(Settings, {key: config[key] for key in config if key in known}, "")
    return settings


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_wins_over_the_rate_and_the_stages_of_every_experiment(experiment: str, composed: Compose) -> None:
    config = composed(f"experiment={experiment}", "optimizer=none")
    settings = settings_of(config)
    assert config["optimizer"] == NODE
    assert build_optimizer(config["optimizer"], settings) == NoTraining()
    assert settings.plan(examples=100) == (1,) * 11
    assert (settings.every("record", 100), settings.every("evaluate", 100), settings.pool.size) == (1, 1, 20)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_it_wins_over_the_optimizer_of_every_row_of_a_table(row: str, composed: Compose) -> None:
    words = [word for word in ROWS[row] if not word.startswith("optimizer=")]
    config = composed(*words, "optimizer=none")
    assert config["optimizer"] == NODE
    assert build_optimizer(config["optimizer"], Settings()) == NoTraining()


@pytest.mark.parametrize(
    "row", [row if number % 4 == 0 else pytest.param(row, marks=pytest.mark.slow) for number, row in enumerate(ALONE)]
)
def test_the_rows_of_a_language_model_alone_keep_their_stages(row: str, composed: Compose) -> None:
    stages = 1 if "Zero-shot" in row or "ensemble" in row else 41 if row.startswith("methods: ") else 11
    expected = (1,) * (3 if "_smoke" in row and stages != 1 else stages)
    assert settings_of(composed(*ROWS[row])).plan(examples=100) == expected


def test_both_tables_have_rows_of_a_language_model_alone() -> None:
    assert [sum(name.startswith(f"{table.name}: ") for name in ALONE) for table in TABLES] == [11, 11, 3, 3]


def test_words_of_the_user_win_over_its_stages(composed: Compose) -> None:
    config = composed("experiment=quickstart", "optimizer=none", "stages=5", "pool.size=7", "stage.steps=2")
    assert (settings_of(config).plan(examples=100), config["pool"]["size"]) == ((2,) * 5, 7)
    assert not build_components(config).optimizer.trains


@pytest.mark.parametrize("experiment", [[], ["experiment=quickstart"]], ids=["alone", "in an experiment"])
def test_a_rate_beside_it_is_refused(
    experiment: list[str], composed: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigCompositionException, match=r"optimizer\.lr"):
        composed(*experiment, "optimizer=none", "optimizer.lr=1")
    words = [*experiment, "optimizer=none", "optimizer.lr=1"]
    assert run_with_exit_code(lambda: run_command(words))[0] == 2
    assert "there is no key optimizer.lr under this choice of optimizer" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["doer=none", "doer=null"])
def test_the_former_group_is_answered_with_what_to_write(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with_exit_code(lambda: run_command(["experiment=quickstart", word]))[0] == 2
    assert "write optimizer=none" in capsys.readouterr().err
