"""`optimizer=none`: what it composes to, over every experiment and every row of the tables, and what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hydra.errors import ConfigCompositionException

from llm_catalyst.cli.run import run_command
from llm_catalyst.config.build import build_components, build_dataclass, build_optimizer
from llm_catalyst.config.errors import run_with_exit_code
from llm_catalyst.config.overrides import absolutize_paths
from llm_catalyst.config.settings import Settings
from llm_catalyst.config.table import apply_smoke, find_table, list_runs
from llm_catalyst.mentors.diffusion import Diffusion
from llm_catalyst.optimizers.base import NoTraining
from llm_catalyst.utils.paths import conf_directory
from llm_catalyst.utils.validation import ConfigurationError

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
    assert [sum(name.startswith(f"{table.name}: ") for name in ALONE) for table in TABLES] == [11, 11, 5, 5]


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


def test_its_prompts_stand_as_written_and_begin_with_the_task_whatever_an_experiment_says(composed: Compose) -> None:
    for words in ((), ("experiment=quickstart",), ("experiment=shapes",)):
        prompt = settings_of(composed(*words, "optimizer=none")).prompt
        assert (prompt.fill, prompt.start, prompt.length) == ("none", "task", 32)
    given = settings_of(composed("optimizer=none", "prompt.fill=repeat", "prompt.length=8", "prompt.start=normal"))
    assert (given.prompt.fill, given.prompt.start, given.prompt.length) == ("repeat", "normal", 8)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            "optimizer=adamw",
            "leaves rows unused, and this optimizer moves all of them; choose optimizer=none, or prompt",
        ),
        ("optimizer=pez", "leaves rows unused"),
        ("optimizer=gcg", "leaves rows unused"),
        ("optimizer=zo_sgd", "leaves rows unused"),
        (
            "optimizer=none prompt.start=normal",
            r"with prompt\.start=normal they may differ; choose prompt\.start=task, or",
        ),
        (
            "optimizer=none prompt.projection=dot",
            r"prompt\.projection=dot they may differ; choose prompt\.projection=cos",
        ),
        (
            "optimizer=none prompt.as_text=true",
            r"with prompt\.as_text=true they may differ; choose prompt\.as_text=false",
        ),
        ("optimizer=none prompt.special_tokens=true", r"choose prompt\.special_tokens=false, or prompt\.fill=repeat"),
        ("optimizer=none protocol=official", r"prompt\.projection=official they may differ"),
        ("experiment=shapes optimizer=none head.class_position=front", r"choose head\.class_position=end, or prompt"),
    ],
)
def test_what_cannot_stand_as_written_is_refused_with_what_to_write(
    words: str, problem: str, composed: Compose
) -> None:
    first = () if "experiment" in words else ("experiment=quickstart",)
    with pytest.raises(ConfigurationError, match=rf"^prompt\.fill=none .*{problem}"):
        build_components(composed(*first, *words.split(), "prompt.fill=none"))


def test_a_mentor_of_soft_prompts_is_refused(composed: Compose, tmp_path: Path) -> None:
    config = composed("experiment=quickstart", "optimizer=none", "mentor=diffusion", f"mentor.runs={tmp_path}")
    with (
        mock.patch.object(Diffusion, "preflight"),
        pytest.raises(ConfigurationError, match=r"^prompt\.fill=none .* Diffusion proposes m rows .*another mentor"),
    ):
        build_components(config)


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (None, ("prompt.start=file",), r"prompt\.file=\S*first\.txt cannot be read \(No such file"),
        (" \n\n", ("prompt.start=file",), r"prompt\.file=\S*first\.txt holds no prompt; write one on each line"),
        (
            "good",
            ("prompt.start=task",),
            r"prompt\.file=\S* is not read with prompt\.start=task; choose prompt\.start=file",
        ),
    ],
)
def test_a_file_to_start_from_is_read_before_anything_is_loaded(
    content: str | None, words: tuple[str, ...], message: str, composed: Compose, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "first.txt").write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        build_components(
            composed("experiment=quickstart", "optimizer=none", *words, f"prompt.file={tmp_path}/first.txt")
        )


def test_a_start_from_a_file_needs_its_name(composed: Compose) -> None:
    with pytest.raises(ConfigurationError, match=r"prompt\.start=file needs prompt\.file=FILE"):
        build_components(composed("experiment=quickstart", "optimizer=none", "prompt.start=file"))


def test_a_relative_file_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first.txt").write_text("good")
    monkeypatch.chdir(tmp_path)
    config: dict[str, Any] = {"task": {}, "backbone": {}, "mentor": {}, "prompt": {"file": "first.txt"}}
    assert absolutize_paths(config)["prompt"]["file"] == f"{tmp_path}/first.txt"
