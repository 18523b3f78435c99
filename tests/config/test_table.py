"""Tables of runs: their files, the order of their cells, and what a smoke run makes of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.command import REPOSITORY

from llm_catalyst.config.table import (
    Line,
    Published,
    Table,
    apply_smoke,
    expand_mentors,
    find_table,
    folder_of,
    list_runs,
    merge_overrides,
    read_published,
    read_table,
    select_runs,
    write_table,
)
from llm_catalyst.utils.paths import list_choices
from llm_catalyst.utils.validation import ConfigurationError

TABLE = Table(
    "drinks",
    "Drinks",
    rows=(Line("Prompt tuning", ("mentor=none",)), Line("+ GPT-4", ("mentor=gpt4", "seed=9"), ("mentor=evolution",))),
    columns=(Line("RTE", ("task=rte", "mentor=random")), Line("CB", ("task=cb",), ())),
    seeds=(1, 2, 3),
    overrides=("batch_size=4",),
    smoke=("experiment=quickstart",),
    reference="Prompt tuning",
)
FILES = list_choices(REPOSITORY / "conf/table")


def test_a_table_comes_seed_after_seed_and_column_after_column() -> None:
    found = [(cell.seed, cell.column, cell.row) for cell in list_runs(TABLE)]
    assert found == [(s, c, r) for s in (1, 2, 3) for c in ("RTE", "CB") for r in ("Prompt tuning", "+ GPT-4")]
    assert len({cell.folder for cell in list_runs(TABLE)}) == 12


def test_the_row_has_the_last_word_in_a_cell_and_the_seed_after_it() -> None:
    first, second = list_runs(TABLE)[:2]
    assert first.overrides == ("batch_size=4", "task=rte", "mentor=none", "seed=1")
    assert second.overrides == ("batch_size=4", "task=rte", "mentor=gpt4", "seed=1")
    assert second.folder == "gpt_4/rte/seed1"


def test_what_a_cell_has_of_its_own_stands_over_row_and_column_and_below_the_command_line() -> None:
    table = replace(TABLE, seeds=(1,), cells={"+ GPT-4": {"CB": ("mentor=random", "stage.steps=7")}})
    by_place = {(cell.row, cell.column): cell.overrides for cell in list_runs(table)}
    assert by_place["+ GPT-4", "CB"] == ("batch_size=4", "task=cb", "mentor=random", "seed=1", "stage.steps=7")
    assert by_place["+ GPT-4", "RTE"] == ("batch_size=4", "task=rte", "mentor=gpt4", "seed=1")
    given = {(cell.row, cell.column): cell.overrides for cell in list_runs(table.override(["stage.steps=9"]))}
    assert all("stage.steps=9" in overrides and "stage.steps=7" not in overrides for overrides in given.values())
    assert apply_smoke(table).cells == {}
    assert select_runs(table, {"column": ["CB"]}).cells == table.cells
    assert select_runs(table, {"row": ["Prompt tuning"]}).cells == {}


def test_a_smoke_run_puts_what_stands_in_into_the_place_of_the_overrides() -> None:
    table = apply_smoke(TABLE)
    assert table.name == "drinks_smoke"
    assert "figures mean nothing" in table.title
    assert table.seeds == (1, 2)
    last = [cell.overrides for cell in list_runs(table)][3]
    assert last == ("experiment=quickstart", "mentor=evolution", "seed=1")
    assert list_runs(table)[0].overrides == ("experiment=quickstart", "task=rte", "mentor=none", "seed=1")


@pytest.mark.parametrize("row", ["+ GPT-4", "gpt_4", "+ gpt-4"])
def test_a_table_is_narrowed_by_names_as_they_are_typed(row: str) -> None:
    table = select_runs(TABLE, {"row": [row], "column": ["cb"], "seed": ["2", "3"]})
    assert [cell.folder for cell in list_runs(table)] == ["gpt_4/cb/seed2", "gpt_4/cb/seed3"]
    assert table.reference is None
    assert select_runs(TABLE, {}) == TABLE


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ({"row": ["GPT-5"]}, "there are: Prompt tuning, + GPT-4"),
        ({"column": ["RTF"]}, "did you mean RTE"),
        ({"seed": ["4"]}, "1, 2, 3"),
        ({"line": ["RTE"]}, "row, column, seed"),
    ],
)
def test_a_line_that_the_table_lacks_is_refused_with_those_that_it_has(only: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said.replace("+", r"\+")):
        select_runs(TABLE, only)


def test_a_table_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write_table(TABLE, tmp_path)
    assert read_table(tmp_path / "table.yaml") == TABLE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": []}, "its rows need names"),
        ({"columns": [{"name": "A-b"}, {"name": "a b"}]}, "its columns need names that make different folders"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"seeds": ["one"]}, "seeds.0: .*integer"),
        ({"reference": "Nobody"}, "Prompt tuning, \\+ GPT-4"),
        ({"rows": [{"name": "A", "override": []}]}, "rows.0.override: "),
        ({"columns": [{"overrides": []}]}, "columns.0.name: "),
        ({"smok": []}, "smok: "),
        ({"cells": {"GPT-4": {}}}, "did you mean \\+ GPT-4"),
        ({"cells": {"+ GPT-4": {"CP": []}}}, "RTE, CB"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_file_and_key(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    write_table(TABLE, tmp_path)
    file = tmp_path / "table.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **change}))
    with pytest.raises(ConfigurationError, match=said):
        read_table(file)


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_bytes(b"\xff\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_table(tmp_path / "table.yaml")


def test_an_unknown_table_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"baselines, .*did you mean nlu"):
        find_table("nlo")
    (tmp_path / "table").mkdir()
    write_table(TABLE, tmp_path / "table")
    assert find_table("table", [tmp_path]) == TABLE


def test_a_table_may_lie_in_a_folder_below_and_its_defaults_may_be_left_empty(tmp_path: Path) -> None:
    folder = tmp_path / "table" / "paper"
    folder.mkdir(parents=True)
    write_table(TABLE, folder)
    (folder / "table.yaml").rename(folder / "mine.yaml")
    with (folder / "mine.yaml").open("a") as file:
        file.write("defaults:\n")
    assert find_table("paper/mine", [tmp_path]) == TABLE
    with pytest.raises(ConfigurationError, match=r"gone\.yaml cannot be read: .*No such file"):
        read_table(folder / "gone.yaml")
    (folder / "mine.yaml").write_text("defaults: mine\n")
    with pytest.raises(ConfigurationError, match=r"mine\.yaml: .*list"):
        read_table(folder / "mine.yaml")


def test_of_overrides_with_one_key_the_last_stays() -> None:
    assert merge_overrides(["a=1", "b=2"], ["a=3"], ["c=4"]) == ("a=3", "b=2", "c=4")


def test_no_name_leads_out_of_the_tables_folder() -> None:
    assert [folder_of(name) for name in ("../../x", "/etc", "..", "a/b", "C:\\x")] == ["x", "etc", "_", "a_b", "c_x"]


def test_nothing_counts_as_published_until_a_user_writes_it(tmp_path: Path) -> None:
    files = sorted((REPOSITORY / "conf/published").glob("*.yaml"))
    assert {file.stem for file in files} <= {file.stem for file in FILES}
    assert len(files) == 7
    for file in files:
        assert read_published(file.stem) == {}
    mine = tmp_path / "mine.yaml"
    mine.write_text("Prompt tuning:\n  RTE: {mean: 0.5, source: a paper}\n")
    assert read_published("nlu", mine) == {("Prompt tuning", "RTE"): Published(0.5, None, "a paper")}
    mine.write_text("Prompt tuning:\n  RTE: {men: 0.5}\n")
    with pytest.raises(ConfigurationError, match=r"mine.yaml: Prompt tuning.RTE.*mean"):
        read_published("nlu", mine)


def test_a_table_that_inherits_from_itself_is_refused(tmp_path: Path) -> None:
    for name, base in (("one", "two"), ("two", "one")):
        (tmp_path / f"{name}.yaml").write_text(f"defaults: [{base}]\n")
    with pytest.raises(ConfigurationError, match=r"defaults of .*two\.yaml.*one"):
        read_table(tmp_path / "one.yaml")


# The packaged tables


QUICK = ("controls",)


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, id=file.stem, marks=() if file.stem in QUICK else pytest.mark.slow) for file in FILES],
)
def test_a_packaged_table_composes_and_its_smoke_run_needs_neither_key_nor_hub(
    file: Path, composed: Callable[..., dict[str, Any]]
) -> None:
    assert file.read_text().startswith(f"# catalyst reproduce {file.stem}\n")
    table = read_table(file)
    assert table.name == file.stem
    for form in (table, apply_smoke(table)):
        every = {(cell.row, cell.column): cell for cell in list_runs(form)}
        rows, columns = [line.name for line in form.rows], [line.name for line in form.columns]
        for place in dict.fromkeys([*((row, columns[0]) for row in rows), *((rows[-1], column) for column in columns)]):
            config = composed(*every[place].overrides)
            if form is not table:
                assert config["device"] == "cpu", place
                assert (config["task"]["name"], config["backbone"]["name"]) in (
                    ("quickstart", "sentence-transformers/all-MiniLM-L6-v2"),
                    ("shapes", "tiny-clip"),
                ), place
                client = config["mentor"].get("client", {"_target_": "MockModel"})
                assert client["_target_"].endswith("MockModel"), place


# Rows of language models


MENTORS = Table(
    "roles",
    "Roles",
    rows=(
        Line("None", ("mentor=none",)),
        Line("+ {mentor}", ("mentor={mentor}", "batch_size=2"), ("mentor=evolution",)),
        Line("Paraphrase", ("strategy=paraphrase", "mentor={mentor}")),
    ),
    columns=(Line("RTE", ("task=rte",)),),
    mentors=("openai_small",),
    reference="Paraphrase",
)


def test_a_line_that_names_a_mentor_is_repeated_for_each() -> None:
    table = expand_mentors(MENTORS, ["gpt4", "claude_haiku"])
    assert {line.name: line.overrides for line in table.rows} == {
        "None": ("mentor=none",),
        "+ gpt4": ("mentor=gpt4", "batch_size=2"),
        "+ claude_haiku": ("mentor=claude_haiku", "batch_size=2"),
        "Paraphrase, gpt4": ("strategy=paraphrase", "mentor=gpt4"),
        "Paraphrase, claude_haiku": ("strategy=paraphrase", "mentor=claude_haiku"),
    }
    assert [line.smoke for line in table.rows] == [None, ("mentor=evolution",), ("mentor=evolution",), None, None]
    assert table.mentors == ("gpt4", "claude_haiku")
    assert table.reference == "Paraphrase, gpt4"


def test_without_other_mentors_the_tables_own_are_asked_and_one_needs_no_name() -> None:
    table = expand_mentors(MENTORS)
    assert [line.name for line in table.rows] == ["None", "+ openai_small", "Paraphrase"]
    assert table.reference == "Paraphrase"
    assert expand_mentors(table) == table


def test_a_mentor_named_by_the_whole_table_is_one_of_every_row_without_its_own() -> None:
    rows = (Line("None", ("mentor=none",)), Line("Opro", ("strategy=opro",)), Line("Ape", (), ("seed=1",)))
    table = expand_mentors(replace(MENTORS, rows=rows, overrides=("mentor={mentor}", "stages=2"), reference="None"))
    assert [line.overrides for line in table.rows] == [
        ("mentor=none",),
        ("mentor=openai_small", "strategy=opro"),
        ("mentor=openai_small",),
    ]
    assert table.overrides == ("stages=2",)
    smoke = [cell.overrides for cell in list_runs(apply_smoke(replace(table, smoke=("mentor=rehearsal",))))]
    assert smoke[1] == ("mentor=rehearsal", "task=rte", "strategy=opro", "seed=1")


def test_a_column_may_name_a_mentor_too() -> None:
    columns = (Line("{mentor}", ("mentor={mentor}",)), Line("RTE, {mentor}", ("task=rte", "mentor={mentor}")))
    table = expand_mentors(replace(MENTORS, rows=MENTORS.rows[:1], columns=columns, reference=None), ["a", "b"])
    assert [line.name for line in table.columns] == ["a", "b", "RTE, a", "RTE, b"]


def test_mentors_for_a_table_without_language_models_are_refused_and_a_table_without_mentors_too() -> None:
    with pytest.raises(ConfigurationError, match=r"no row of the table offline asks a language model"):
        find_table("offline", mentors=["openai_small"])
    with pytest.raises(ConfigurationError, match=r"table roles: a line names \{mentor\}, and"):
        expand_mentors(replace(MENTORS, mentors=()))


def test_packaged_tables_ask_living_models_by_their_roles() -> None:
    named = {file.stem: read_table(file).mentors for file in FILES}
    assert named["nlu"] == ("openai_small", "openai", "llama2_7b")
    assert set(named.values()) == {(), ("openai_small",), ("openai_sampling",), named["nlu"]}
    asked = {word for file in FILES for cell in list_runs(read_table(file)) for word in cell.overrides}
    controls = ["none", "best", "random", "perturb", "evolution", "listed"]
    roles = ["openai_small", "openai_sampling", "openai", "llama2_7b", "gemma_270m", "llama_cpp"]
    mentors = {word.removeprefix("mentor=") for word in asked if word.startswith("mentor=")}
    assert mentors <= {*controls, *roles}
    assert set(roles) <= mentors
