"""The packages, their floors and the direction of imports (CONTRIBUTING.md, "Architecture")."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "llm_catalyst"

# From the ground up. A file imports files of its own package, and packages of lower floors only.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("utils",),
    ("runs", "tasks"),
    ("models", "callbacks"),
    ("mentors", "optimizers"),
    ("config",),
    ("training", "report"),
    ("sweeps",),
    ("cli",),
)
# `import llm_catalyst` offers what notebooks use, whatever floor it stands on.
TOP = "llm_catalyst"
WITHOUT_TORCH = (
    "cli.main",
    "report.show",
    "report.write",
    "runs",
    "callbacks.live",
    "config.table",
)
HEAVY = ("torch", "transformers", "datasets", "pandas", "hydra")
RUN = (
    "cli.run",
    "training.run",
    "training.loop",
    "mentors.llm",
    "tasks.text_task",
    "tasks.shapes",
    "models.backbones.clip",
)

Imports = Mapping[str, set[str]]


def module_name(path: Path, root: Path) -> str:
    """The dotted name of a file below `root`, the folder that holds the package."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(path: Path) -> Iterator[str]:
    """The full names of all that a file imports at any depth, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports are not followed by this test"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def read_imports(package: Path) -> dict[str, set[str]]:
    """Each module of the package with the modules of the package that it imports.

    A package's `__init__` re-exports lazily: an import of a class through it counts as an import of the package.
    """
    modules = {module_name(path, package.parent): path for path in package.rglob("*.py") if "conf" not in path.parts}

    def module_of(name: str) -> str | None:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name or None

    found = {}
    for name, path in modules.items():
        targets = {module_of(imported) for imported in imported_names(path) if imported.startswith(package.name)}
        found[name] = {target for target in targets if target and target not in (name, package.name)}
    return found


def package_of(module: str) -> str:
    """The package right below the top that a module belongs to."""
    return module.split(".")[1] if "." in module else module


def upward_imports(imports: Imports, floors: Iterable[Iterable[str]] = FLOORS) -> list[str]:
    """Each import that leads to a package of the same or of a higher floor, as 'importer -> imported'."""
    floor = {package: number for number, packages in enumerate(floors) for package in packages}
    return sorted(
        f"{module} -> {target}"
        for module, targets in imports.items()
        for target in targets
        if module != TOP
        and package_of(module) != package_of(target)
        and floor[package_of(target)] >= floor[package_of(module)]
    )


def import_cycles(imports: Imports) -> list[tuple[str, ...]]:
    """The groups of modules that import each other, directly or through others."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        to_visit = [start]
        while to_visit:
            for name in imports.get(to_visit.pop(), set()) - seen:
                seen.add(name)
                to_visit.append(name)
        return seen

    reached = {name: reachable(name) for name in imports}
    groups = {tuple(sorted(other for other in reached[name] if name in reached[other])) for name in imports}
    return sorted(group for group in groups if group)


IMPORTS = read_imports(PACKAGE)


def test_there_are_the_packages_of_the_floors_and_no_others() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == {package for floor in FLOORS for package in floor}
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]


def test_imports_lead_downward_only() -> None:
    assert not upward_imports(IMPORTS)


def test_no_modules_import_each_other_at_any_depth() -> None:
    assert not import_cycles(IMPORTS)


@pytest.mark.parametrize(
    ("module", "statement", "found"),
    [
        (
            "utils/validation.py",
            "import llm_catalyst.runs.records",
            "llm_catalyst.utils.validation -> llm_catalyst.runs.records",
        ),
        (
            "report/show.py",
            "def f():\n    from llm_catalyst.training import loop",
            "llm_catalyst.report.show -> llm_catalyst.training.loop",
        ),
    ],
)
def test_a_planted_upward_import_is_found(tmp_path: Path, module: str, statement: str, found: str) -> None:
    copy = plant_import(tmp_path, module, statement)
    assert upward_imports(read_imports(copy)) == [found]


@pytest.mark.parametrize(
    ("module", "statement", "pair"),
    [
        ("runs/records.py", "from llm_catalyst.runs.reader import read_run", {"runs.records", "runs.reader"}),
        ("utils/validation.py", "def f():\n    import llm_catalyst.utils.paths", {"utils.validation", "utils.paths"}),
    ],
)
def test_a_planted_import_cycle_is_found(tmp_path: Path, module: str, statement: str, pair: set[str]) -> None:
    (group,) = import_cycles(read_imports(plant_import(tmp_path, module, statement)))
    assert {f"llm_catalyst.{name}" for name in pair} <= set(group)


def plant_import(folder: Path, module: str, statement: str) -> Path:
    """A copy of the package's Python files in `folder`, one of them with a statement at its end."""
    for path in PACKAGE.rglob("*.py"):
        target = folder / path.relative_to(PACKAGE.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    with (folder / PACKAGE.name / module).open("a", encoding="utf-8") as file:
        file.write(f"\n\n{statement}\n")
    return folder / PACKAGE.name


def test_only_the_command_line_and_sweeps_know_hydra() -> None:
    users = {
        package_of(module_name(path, PACKAGE.parent))
        for path in PACKAGE.rglob("*.py")
        for name in imported_names(path)
        if name.split(".")[0] in ("hydra", "omegaconf")
    }
    assert users == {"cli", "sweeps"}


def test_no_script_imports_from_the_tests() -> None:
    scripts = sorted((PACKAGE.parent / "scripts").rglob("*.py"))
    assert len(scripts) > 3
    helpers = {path.stem for path in (PACKAGE.parent / "tests").rglob("*.py")} | {"tests", "helpers"}
    for script in scripts:
        beside = {path.stem for path in script.parent.glob("*.py")}
        imported = {name.partition(".")[0] for name in imported_names(script)}
        assert imported & (helpers - beside) == set(), script


def test_every_provider_is_named_in_one_file_only() -> None:
    users = {
        sdk: {path.name for path in PACKAGE.rglob("*.py") for name in imported_names(path) if name.split(".")[0] == sdk}
        for sdk in ("anthropic", "openai")
    }
    assert users == {"anthropic": {"anthropic.py"}, "openai": {"openai.py"}}


def test_every_target_in_conf_is_a_public_path() -> None:
    for path in sorted((PACKAGE.parent / "conf").rglob("*.yaml")):
        for target in re.findall(r"_target_: (llm_catalyst\.\S+)", path.read_text(encoding="utf-8")):
            package, _, name = target.rpartition(".")
            folder = PACKAGE.parent.joinpath(*package.split("."))
            assert (folder / "__init__.pyi").is_file(), f"{path}: {target} names a file of the package"
            assert f" as {name}\n" in (folder / "__init__.pyi").read_text(encoding="utf-8"), f"{path}: {target}"


def test_the_method_fits_on_one_screen() -> None:
    assert len((PACKAGE / "training" / "loop.py").read_text(encoding="utf-8").splitlines()) <= 150


def loaded_by(modules: Iterable[str], heavy: Iterable[str], python: Callable[[str], str]) -> str:
    """The heavy packages that a Python of its own has loaded after it imported these modules, as the text of a list."""
    named = ", ".join(f"llm_catalyst.{name}" for name in modules)
    return python(f"import sys, {named}; print([m for m in {tuple(heavy)} if m in sys.modules])").strip()


def test_a_run_is_read_shown_and_reported_without_torch_and_pandas(python: Callable[[str], str]) -> None:
    assert loaded_by(WITHOUT_TORCH, HEAVY, python) == "[]"


def test_runs_become_pandas_tables_without_torch(python: Callable[[str], str]) -> None:
    assert loaded_by(["report.dataframes"], HEAVY, python) == "['pandas']"


def test_a_run_needs_pandas_and_datasets_only_for_the_files_that_it_reads(python: Callable[[str], str]) -> None:
    assert loaded_by(RUN, ("pandas", "datasets"), python) == "[]"
