"""tests/reliability.md names the test of each promise: every name is that of a test that there is."""

import ast
import re

from helpers.command import REPOSITORY

PAGE = (REPOSITORY / "tests" / "reliability.md").read_text(encoding="utf-8")
NAME = re.compile(r"\[(test_\w+)\]\(([\w/]+\.py)\)")
NAMED = NAME.findall(PAGE)


def test_every_test_that_the_page_names_is_there() -> None:
    there = {
        path.relative_to(REPOSITORY / "tests").as_posix(): {
            node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
        }
        for path in (REPOSITORY / "tests").rglob("test_*.py")
    }
    assert len(NAMED) > 40
    assert [(name, path) for name, path in NAMED if name not in there.get(path, ())] == []


def test_every_row_of_the_table_names_a_test() -> None:
    tables = PAGE.partition("## Killed at 200 points")[0]
    rows = [line for line in tables.splitlines() if line.startswith("| ") and not line.startswith("| fault")]
    assert len(rows) > 40
    assert [row for row in rows if not NAME.search(row)] == []
