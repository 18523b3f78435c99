"""The import direction of the house: a room knows only rooms below it (docs/architecture.md)."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "llm_catalyst"

# From the ground up. A room may import rooms of its own floor and of those below. A new file gets its place here.
FLOORS = (
    {
        "checks",
        "caches",
        "records",
        "randomness",
        "paths",
        "terminal",
        "plot",
        "memory",
        "cores",
        "interruption",
        "checksums",
        "turns",
    },
    {
        "tasks",
        "soft_prompt",
        "batching",
        "backbones",
        "heads",
        "model",
        "encoding",
        "token_cache",
        "features",
        "vision_model",
        "run_directory",
        "run_records",
        "saved_states",
    },
    {"doers", "scoring", "mentors", "settings", "digest", "summary", "show", "verify", "progress", "live", "bars"},
    {"statistics", "readability", "table", "board", "report", "frames", "trackers"},
    {"problem", "state", "selection", "trials", "outcome", "bill", "safekeeping", "counsel", "company"},
    {"experiment"},
    {"estimate", "configs", "session"},
    {"launch", "jobs", "standings", "sweep", "search", "reproduce"},
    {"cli", "__init__"},
)
MATERIALS = FLOORS[1] - {"run_directory", "run_records", "saved_states"}
READING = (
    "run_directory",
    "run_records",
    "saved_states",
    "show",
    "verify",
    "checksums",
    "interruption",
    "digest",
    "summary",
    "plot",
    "progress",
    "live",
    "terminal",
    "records",
    "statistics",
    "table",
    "board",
    "report.write",
    "frames",
)
HEAVY = ("torch", "transformers", "datasets", "hydra")


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "conf" not in p.relative_to(PACKAGE).parts)


def room(path: Path) -> str:
    """The room that a file belongs to: its folder under the package, or the file itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, anywhere: bool = True) -> Iterator[str]:
    """The full names of the modules that a file imports; those at its top only, unless `anywhere`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides its room"
            yield f"{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_below(path: Path, anywhere: bool = True) -> set[str]:
    """The rooms of this package that a file imports, but for its own."""
    names = {name.split(".")[1] for name in imports(path, anywhere) if name.startswith("llm_catalyst.")}
    return {name for name in names if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()} - {room(path)}


def test_every_room_has_its_floor_and_no_floor_names_a_room_that_is_gone() -> None:
    assert {room(path) for path in modules()} == set().union(*FLOORS)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_of_its_floor_and_below(path: Path) -> None:
    floor = next(i for i, names in enumerate(FLOORS) if room(path) in names)
    above = rooms_below(path) - set().union(*FLOORS[: floor + 1])
    assert not above, f"{room(path)} stands below {', '.join(sorted(above))}"


def test_no_two_rooms_import_each_other_when_they_are_loaded() -> None:
    graph: dict[str, set[str]] = {}
    for path in modules():
        graph.setdefault(room(path), set()).update(rooms_below(path, anywhere=False))

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for name in graph[todo.pop()] - seen:
                seen.add(name)
                todo.append(name)
        return seen

    assert len(graph) > 20
    assert not [name for name in graph if name in reachable(name)]


@pytest.mark.parametrize("name", ["records", "checks", "randomness", "paths", "terminal"])
def test_the_ground_floor_imports_nothing_of_the_package(name: str) -> None:
    assert rooms_below(PACKAGE / f"{name}.py") == set()


def test_materials_know_neither_the_method_nor_mentors_nor_the_command_line() -> None:
    known = {room(path): rooms_below(path) for path in modules() if room(path) in MATERIALS}
    assert set(known) == MATERIALS
    forbidden = {"experiment", "mentors", "launch", "cli", "session", "configs", "doers", "problem", "progress"}
    assert not {name: below & forbidden for name, below in known.items() if below & forbidden}


def test_only_the_command_line_knows_hydra() -> None:
    users = {room(path) for path in modules() for name in imports(path) if name.split(".")[0] in ("hydra", "omegaconf")}
    assert users
    assert users <= {"cli", "launch", "jobs", "sweep", "search", "reproduce"}


def test_every_provider_is_named_in_one_file_only() -> None:
    users = {sdk: {p.name for p in modules() if sdk in imports(p)} for sdk in ("anthropic", "openai")}
    assert users == {"anthropic": {"anthropic.py"}, "openai": {"openai.py"}}


def test_the_method_fits_on_one_screen() -> None:
    assert len((PACKAGE / "experiment.py").read_text(encoding="utf-8").splitlines()) <= 150


def test_a_run_is_read_and_shown_without_torch(python: Callable[[str], str]) -> None:
    named = ", ".join(f"llm_catalyst.{name}" for name in READING)
    loaded = python(f"import sys, {named}; print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded.strip() == "[]"
