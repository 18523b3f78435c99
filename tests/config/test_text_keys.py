"""The keys that hold text, by the annotations of the classes."""

import subprocess
import sys

import pytest

from llm_catalyst.config.text_keys import find_kind


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("task.path", "optional text"),
        ("task.label", "text"),
        ("task.labels", "texts"),
        ("task.words", "texts"),
        ("task.names.cat", "text"),
        ("task.shots", None),
        ("prompt.text", "optional text"),
        ("replay.run", "text"),
        ("mentor.client.model", "text"),
        ("mentor.proposals", None),
        ("mentor.history", None),
        ("seed", None),
        ("stage.steps", None),
        ("nowhere", None),
        ("task", None),
    ],
)
def test_the_kind_of_a_key_follows_from_its_annotation(key: str, kind: str | None) -> None:
    assert find_kind(key) == kind


def test_the_keys_of_tasks_and_settings_are_looked_up_without_torch() -> None:
    program = """
import sys
from llm_catalyst.config.text_keys import find_kind
for key in ("task.path", "task.shots", "prompt.text", "seed", "mentor.proposals", "mentor.client.model"):
    find_kind(key)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
